"""The end of a run: its hooks are told, once, and what they return is written with that word.

Any daemon of the queue may tell it. Hooks are asked outside of a transaction; should two daemons
ask them at once, or one die meanwhile, the answer of one alone is written.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from functools import partial

from orchestratord.engine.call_tree import listens, outcome_of_run
from orchestratord.engine.lanes.placement import REMOVED_AFTER
from orchestratord.engine.worker import Worker
from orchestratord.errors import NotFound, Unreachable
from orchestratord.model.task import (
    Effect,
    Key,
    Kind,
    NewTask,
    RunSummary,
    Status,
    Task,
    task_made_of,
)
from orchestratord.plugin.executor import Parked
from orchestratord.plugin.hookspecs import RUN_END
from orchestratord.plugin.host import Reached
from orchestratord.queue.housekeeping import run_ends
from orchestratord.queue.operations import search

log = logging.getLogger("orchestratord.runs")

LOOK = 1.0
"""Seconds between two looks for ends that other daemons have left, or that no attempt brought."""
APART = 0.05
"""Seconds between two looks at least, while many calls of runs end."""


class RunEndTeller:
    """Tells the hooks of `on_run_end`."""

    def __init__(self, worker: Worker) -> None:
        self._store = worker.store
        self._host = worker.host
        self._placement = worker.placement
        self._enqueue = worker.enqueue
        self._clock = worker.clock
        self._look = worker.pipe.published.runs_end
        self._faulty: set[int] = set()
        """Runs whose ends could not be told in the last round, which is logged once."""

    async def ask_at_ends(self) -> None:
        """Tell of the runs that end, until cancelled."""
        look = self._look
        while True:
            look.clear()
            try:
                await self._ask_round()
            except Unreachable as error:  # which is logged where it is found
                log.debug("the ends of runs wait: %s", error)
            except Exception as error:
                log.warning("cannot announce the ends of runs yet: %s", error)
            await asyncio.sleep(APART)
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK):
                    await look.wait()

    async def _ask_round(self) -> None:
        """Tell of all runs that have ended; one that cannot be told yet holds up no other."""
        last, faulty = 0, set[int]()
        while found := await self._store.read(run_ends.untold(last)):
            last = found[-1].id
            quiet = [run.id for run in found if self._is_quiet(run)]
            if quiet:
                await self._store.write(run_ends.pass_over(quiet))
            for run in found:
                if run.id in quiet or self._is_left(run):
                    continue
                try:
                    await self._ask(run)
                except Unreachable:
                    raise
                except Exception as error:
                    faulty.add(run.id)
                    if run.id not in self._faulty:
                        log.warning("cannot announce the end of run %d yet: %s", run.id, error)
        self._faulty = faulty

    def _is_quiet(self, run: RunSummary) -> bool:
        """Whether no hook wants to be told of the ends of its endpoint's runs."""
        endpoint = self._placement.config.endpoints.get(run.endpoint_id)
        return endpoint is not None and not listens(self._host, endpoint)

    def _is_left(self, run: RunSummary) -> bool:
        """Whether it is told later or elsewhere: its endpoint is away, which may pass."""
        if run.endpoint_id in self._placement.config.endpoints:
            return False
        # A clock that was ahead may have written when it ended: that is not waited for.
        away = abs(self._clock.now_ms() - (run.ended_at or 0)) < REMOVED_AFTER * 1000
        return away or isinstance(self._placement.of(Key(run.endpoint_id)), Parked)

    async def _ask(self, run: RunSummary) -> None:
        run = await self._store.read(run_ends.with_errors(run))
        task = await self._root(run)
        config = self._placement.config
        endpoint = config.endpoints.get(run.endpoint_id)
        reached = Reached(task, endpoint, config, outcome_of_run(run), phase=RUN_END, run=run)
        effects: list[Effect] = await self._host.collect(RUN_END, reached)
        await self._enqueue.write_by(effects, partial(run_ends.tell, run))

    async def _root(self, run: RunSummary) -> Task:
        """The call that began it; what is known of it, where it is gone."""
        try:
            return await self._store.read(search.get(run.id))
        except NotFound:
            gone = NewTask(Kind.CALL, run.endpoint_id, max_attempts=0, run_id=run.id)
            return task_made_of(gone, run.id, run.created_at, status=Status.SUCCEEDED)
