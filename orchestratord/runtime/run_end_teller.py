"""The end of a run: its hooks are told, once, and what they return is written with that word.

Any daemon of the queue may tell it. Hooks are asked outside of a transaction; should two daemons
ask them at once, or one die meanwhile, the answer of one alone is written.
"""

from __future__ import annotations

from functools import partial

from orchestratord.engine.call_tree import listens, outcome_of_run
from orchestratord.engine.lanes.placement import REMOVED_AFTER
from orchestratord.engine.worker import Worker
from orchestratord.errors import NotFound
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
from orchestratord.queue import run_counts
from orchestratord.queue.housekeeping import run_ends
from orchestratord.queue.operations import search
from orchestratord.queue.records import Chore

LEFT = 6.0
"""Seconds for which the end of a run is left to the daemons that know its endpoint."""


class RunEndTeller:
    """Tells the hooks of `on_run_end`."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._store = worker.store
        self._placement = worker.placement

    def is_needless(self, chore: Chore) -> bool:
        """Whether a chore is of a run of whose end no hook wants to be told."""
        if chore.kind != run_counts.CHORE:
            return False
        endpoint = self._placement.config.endpoints.get(run_ends.subject_of(chore)[1])
        return endpoint is not None and not listens(self._worker.host, endpoint)

    async def step(self, chore: Chore) -> float | None:
        """Tell of the end; seconds until that is tried again where its endpoint is away."""
        run = await self._store.read(run_ends.row_of(run_ends.subject_of(chore)[0]))
        if run is None or run.open:
            await self._store.write(run_ends.take_back(chore))
            return None
        if self._is_left(run):
            return LEFT
        await self._ask(chore, run)
        return None

    def _is_left(self, run: RunSummary) -> bool:
        """Whether it is told later or elsewhere: its endpoint is away, which may pass."""
        if run.endpoint_id in self._placement.config.endpoints:
            return False
        # A clock that was ahead may have written when it ended: that is not waited for.
        away = abs(self._worker.clock.now_ms() - (run.ended_at or 0)) < REMOVED_AFTER * 1000
        return away or isinstance(self._placement.of(Key(run.endpoint_id)), Parked)

    async def _ask(self, chore: Chore, seen: RunSummary) -> None:
        run = await self._store.read(run_ends.with_errors(seen))
        task = await self._root(run)
        config = self._placement.config
        endpoint = config.endpoints.get(run.endpoint_id)
        reached = Reached(task, endpoint, config, outcome_of_run(run), phase=RUN_END, run=run)
        effects: list[Effect] = await self._worker.host.collect(RUN_END, reached)
        await self._worker.enqueue.write_by(effects, partial(run_ends.tell, chore, seen))

    async def _root(self, run: RunSummary) -> Task:
        """The call that began it; what is known of it, where it is gone."""
        try:
            return await self._store.read(search.get(run.id))
        except NotFound:
            gone = NewTask(Kind.CALL, run.endpoint_id, max_attempts=0, run_id=run.id)
            return task_made_of(gone, run.id, run.created_at, status=Status.SUCCEEDED)
