"""New tasks on their way into the queue: written durably, and started where a slot is free."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, Protocol, TypeVar

from orchestratord.engine import task_events
from orchestratord.engine.lanes.lane_set import LaneSet
from orchestratord.engine.lanes.placement import Placement
from orchestratord.model.task import Delete, Effect, Key, NewTask, Task, Upsert
from orchestratord.plugin.event_bus import EventBus
from orchestratord.plugin.executor import Target
from orchestratord.queue.operations.insert import enqueue
from orchestratord.queue.operations.settle import write_effects
from orchestratord.queue.records import Born, Insert, Inserted
from orchestratord.queue.store import Store
from orchestratord.values.clock import Clock

Item = Insert | Upsert | Delete

T = TypeVar("T")


class Starter(Protocol):
    """The worker, as the intake needs it."""

    clock: Clock
    draining: bool

    def start(self, task: Task, lane: str) -> None:
        """Run a claimed task of `lane`."""
        ...

    def place(self, key: Key) -> None:
        """Put a key where it belongs today: into its lane, or aside."""
        ...

    def touched(self, key: Key, next_try: int) -> None:
        """A task of `key` is pending and due at `next_try`."""
        ...


class Enqueue:
    """Takes a slot for each new task that can run at once; gives it back if it is not written."""

    def __init__(
        self, worker: Starter, store: Store, lanes: LaneSet, standings: Placement, events: EventBus
    ) -> None:
        self._worker = worker
        self._store = store
        self._lanes = lanes
        self._standings = standings
        self._events = events
        self.under_way: set[asyncio.Task[Any]] = set()
        """What is being written at this moment."""

    async def accept(self, tasks: Sequence[NewTask]) -> list[Inserted]:
        """Write new tasks, all or none, and start those that have a slot."""
        return await self._whole(self._accept(tasks))

    async def write(self, effects: Sequence[Effect]) -> list[int]:
        """Write effects in one transaction; the ids of the new tasks, in order."""
        return await self._whole(self._write(effects))

    async def _accept(self, tasks: Sequence[NewTask]) -> list[Inserted]:
        inserts: list[Insert] = []
        try:
            inserts.extend(self._insert(task) for task in tasks)
            inserted = await self._store.write(enqueue(inserts))
        except BaseException:
            self.refused(inserts)
            raise
        self.took(inserts, inserted)
        return inserted

    async def _write(self, effects: Sequence[Effect]) -> list[int]:
        items: list[Item] = []
        try:
            items = self.prepare(effects)
            inserted = await self._store.write(write_effects(items))
        except BaseException:
            self.refused(items)
            raise
        self.took(items, inserted)
        return [item.id for item in inserted]

    async def _whole(self, step: Coroutine[Any, Any, T]) -> T:
        """Finish `step` although whoever asked for it goes away: it may be written already."""
        task = asyncio.get_running_loop().create_task(step)
        self.under_way.add(task)
        task.add_done_callback(self.under_way.discard)
        return await asyncio.shield(task)

    def prepare(self, effects: Sequence[Effect]) -> list[Item]:
        """What to write for what a hook returned. `took` or `refused` has to follow."""
        return [self._insert(item) if isinstance(item, NewTask) else item for item in effects]

    def took(self, items: Sequence[Item], inserted: Sequence[Inserted]) -> None:
        """It is on disk: start what was born running, remember when the rest is due."""
        inserts = [item for item in items if isinstance(item, Insert)]
        now = self._worker.clock.now_ms() if self._events.listening else None
        for insert, item in zip(inserts, inserted, strict=True):
            if now is not None and not item.duplicate:
                self._events.publish(task_events.created(insert, item, now))
            if item.running is not None and insert.born is not None:
                self._worker.start(item.running, insert.born.lane)
                continue
            self.refused((insert,))
            if item.next_try is not None and not item.duplicate:
                self._worker.touched(item.key, item.next_try)

    def refused(self, items: Sequence[Item]) -> None:
        """It was not written: give the slots back."""
        for item in items:
            if isinstance(item, Insert) and item.born is not None:
                self._lanes.forgo(item.born.lane)
                self._lanes.gates.withdrawn(item.born.lane, 0, self._worker.clock.now_ms())

    def _insert(self, task: NewTask) -> Insert:
        # With an idempotency key it may turn out not to be new.
        if self._worker.draining or task.delay > 0 or task.unique_key is not None:
            return Insert(task)
        standing = self._standings.of(task.key)
        if not isinstance(standing, Target):
            return Insert(task)
        if not self._lanes.known(task.key):
            self._worker.place(task.key)
        if not self._lanes.occupy(standing.lane, self._worker.clock.now_ms()):
            return Insert(task)
        return Insert(task, Born(standing.idempotent, standing.lane))
