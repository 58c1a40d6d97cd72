"""Tasks that fail without being run: those of what is no longer declared, and of a dead daemon.

They are claimed, go through the hooks and are settled like all others, so that nobody misses
their `on_final_failure`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence

from orchestratord.engine.attempt import Pipe
from orchestratord.engine.lanes.placement import FOREVER, Placement
from orchestratord.engine.settlement import Claims
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


class RemovedTasks:
    """Fails what is doomed, and settles what a dead daemon had under way."""

    def __init__(self, store: Store, placement: Placement, pipe: Pipe, claims: Claims) -> None:
        self._store = store
        self._placement = placement
        self._pipe = pipe
        self._claims = claims
        self._sweeps: set[asyncio.Task[None]] = set()
        self._turns = asyncio.Semaphore(TURNS)
        self.at_work: set[int] = set()
        """The tasks that are taken over or failed at this moment."""

    def sweep(self, now: float) -> None:
        """Begin to fail the tasks of keys that have been doomed for long enough."""
        for key, _ in self._placement.ripe(now):
            sweep = asyncio.get_running_loop().create_task(self._fail_all(key))
            self._sweeps.add(sweep)
            sweep.add_done_callback(self._sweeps.discard)

    def stop(self) -> None:
        """The daemon stops: what is not failed yet is failed by the next one."""
        for sweep in list(self._sweeps):
            sweep.cancel()

    async def recover(self, ours: Collection[int] = ()) -> bool:
        """Take over what dead daemons had claimed: claims are released, started attempts settled.

        `ours`: what is claimed here. Returns whether there was anything.
        """
        unstarted = lost = 0
        while True:
            count, tasks = await claim.reclaim(self._store, {*ours, *self.at_work})
            unstarted += count
            lost += len(tasks)
            if not count and not tasks:
                break
            self.at_work.update(task.id for task in tasks)
            try:
                await asyncio.gather(*(self._lost(task) for task in tasks))
            finally:
                self.at_work.difference_update(task.id for task in tasks)
        if unstarted or lost:
            log.warning(
                "took over from a dead daemon: %d claims went back, %d attempts were under way",
                unstarted,
                lost,
            )
        return bool(unstarted or lost)

    async def _lost(self, task: Task) -> None:
        config = self._placement.config
        standing, executor = self._placement.look(task.key)
        target = standing if isinstance(standing, Target) else None
        endpoint = config.endpoints.get(task.endpoint_id)
        result = await self._pipe.results.lost(task, endpoint, target, executor, config)
        await self._pipe.settle(task, result, config, target)

    async def _fail_all(self, key: Key) -> None:
        done = False
        try:
            while not done:
                async with self._turns:
                    some = await self._fail_some(key)
                done = not some or not isinstance(self._placement.of(key), Doomed)
        except Exception:
            log.exception("the tasks of %s %s are not failed yet", *key)
            await asyncio.sleep(1.0)
        finally:
            self._placement.swept(key, done=done)

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
            standing, config = self._placement.of(key), self._placement.config
            if not isinstance(standing, Doomed):
                await self._claims.release_claim(task)
                continue
            reason = Reason(standing.reason)
            endpoint = config.endpoints.get(key.endpoint_id)
            result = await self._pipe.results.fail(task, endpoint, config, reason, standing.why)
            await self._pipe.settle(task, result, config, None)
