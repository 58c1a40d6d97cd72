"""Tasks that fail without being run: those of what is no longer declared, and of a dead daemon.

They are claimed, go through the hooks and are settled like all others, so that nobody misses
their `on_final_failure`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Protocol

from orchestratord.engine.attempt_result import AttemptResult, AttemptResults
from orchestratord.engine.lanes.placement import FOREVER, Placement
from orchestratord.model.settings import Config
from orchestratord.model.task import Key, Reason, Task
from orchestratord.plugin.executor import Doomed, Target
from orchestratord.queue.operations import claim
from orchestratord.queue.records import Pick
from orchestratord.queue.store import Store

log = logging.getLogger("orchestratord.worker")

BATCH = 50
"""Tasks of a doomed key that are failed at a time."""

TURNS = 10
"""Doomed keys whose tasks are failed at the same time: the tasks are in memory meanwhile, and an
API that is removed takes all its endpoints along."""


class Settle(Protocol):
    """The worker's way of writing how a task ended."""

    async def __call__(
        self, task: Task, ended: AttemptResult, config: Config, target: Target | None
    ) -> None: ...


class RemovedTasks:
    """Fails what is doomed, and settles what a dead daemon had under way."""

    def __init__(
        self,
        store: Store,
        endings: AttemptResults,
        standings: Placement,
        settle: Settle,
        give_back: Callable[[Task], Awaitable[None]],
    ) -> None:
        self._store = store
        self._endings = endings
        self._standings = standings
        self._settle = settle
        self._give_back = give_back
        self._config: Config | None = None
        self._sweeps: set[asyncio.Task[None]] = set()
        self._turns = asyncio.Semaphore(TURNS)
        self.at_work: set[int] = set()
        """The tasks that are taken over or failed at this moment."""

    def sweep(self, config: Config, now: float) -> None:
        """Begin to fail the tasks of keys that have been doomed for long enough."""
        self._config = config
        for key, _ in self._standings.ripe(now):
            sweep = asyncio.get_running_loop().create_task(self._fail_all(key))
            self._sweeps.add(sweep)
            sweep.add_done_callback(self._sweeps.discard)

    def stop(self) -> None:
        """The daemon stops: what is not failed yet is failed by the next one."""
        for sweep in list(self._sweeps):
            sweep.cancel()

    async def recover(self, config: Config, held: Collection[int] = ()) -> bool:
        """Take over what dead daemons held: claims go back, started attempts are settled.

        `held`: what is held here. Returns whether there was anything.
        """
        unstarted = lost = 0
        while True:
            count, tasks = await claim.reclaim(self._store, {*held, *self.at_work})
            unstarted += count
            lost += len(tasks)
            if not count and not tasks:
                break
            self.at_work.update(task.id for task in tasks)
            try:
                await asyncio.gather(*(self._lost(task, config) for task in tasks))
            finally:
                self.at_work.difference_update(task.id for task in tasks)
        if unstarted or lost:
            log.warning(
                "took over from a dead daemon: %d claims went back, %d attempts were under way",
                unstarted,
                lost,
            )
        return bool(unstarted or lost)

    async def _lost(self, task: Task, config: Config) -> None:
        standing = self._standings.of(task.key)
        executor = self._standings.executor(task.key)
        target = standing if isinstance(standing, Target) else None
        endpoint = config.endpoints.get(task.endpoint_id)
        ended = await self._endings.lost(task, endpoint, target, executor, config)
        await self._settle(task, ended, config, target)

    async def _fail_all(self, key: Key) -> None:
        done = False
        try:
            while not done:
                async with self._turns:
                    some = await self._fail_some(key)
                done = not some or not isinstance(self._standings.of(key), Doomed)
        except Exception:
            log.exception("the tasks of %s %s are not failed yet", *key)
            await asyncio.sleep(1.0)
        finally:
            self._standings.swept(key, done=done)

    async def _fail_some(self, key: Key) -> bool:
        """Fail the next tasks of a key; False where there is none left."""
        pick = Pick(key, BATCH, idempotent=False, due_before=FOREVER)
        tasks = (await self._store.write(claim.claim([pick]))).tasks
        self.at_work.update(task.id for task in tasks)
        try:
            await self._fail_these(key, tasks)
        finally:
            self.at_work.difference_update(task.id for task in tasks)
        return bool(tasks)

    async def _fail_these(self, key: Key, tasks: Sequence[Task]) -> None:
        for task in tasks:
            # What was gone may be back by now.
            standing, config = self._standings.of(key), self._config
            if not isinstance(standing, Doomed) or config is None:
                await self._give_back(task)
                continue
            reason = Reason(standing.reason)
            endpoint = config.endpoints.get(key.endpoint_id)
            ended = await self._endings.fail(task, endpoint, config, reason, standing.why)
            await self._settle(task, ended, config, None)
