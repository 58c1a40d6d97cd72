"""New tasks on their way into the queue: written durably, and started where a slot is free."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from orchestratord.engine.attempt import Pipe
from orchestratord.model.task import Effect, NewTask
from orchestratord.queue.operations.insert import enqueue
from orchestratord.queue.operations.settle import write_effects
from orchestratord.queue.records import Insert, Inserted, StoredEffect
from orchestratord.queue.store import Store

T = TypeVar("T")


class Enqueue:
    """Takes what the API, plugins and the schedules of plugins want written."""

    def __init__(self, store: Store, pipe: Pipe) -> None:
        self._store = store
        self._pipe = pipe
        self.under_way: set[asyncio.Task[Any]] = set()
        """What is being written at this moment."""

    async def accept(self, tasks: Sequence[NewTask]) -> list[Inserted]:
        """Write new tasks, all or none, and start those that have a free slot.

        Raises what `Store.enqueue` raises.
        """
        return await self._whole(self._accept(tasks))

    async def write(self, effects: Sequence[Effect]) -> list[int]:
        """Write effects in one transaction; the ids of the new tasks, in order."""
        return await self._whole(self._write(effects))

    async def _accept(self, tasks: Sequence[NewTask]) -> list[Inserted]:
        inserts: list[Insert] = []
        try:
            inserts.extend(self._pipe.insert(task) for task in tasks)
            inserted = await self._store.write(enqueue(inserts))
        except BaseException:
            self._pipe.not_written(inserts)
            raise
        self._pipe.written(inserts, inserted)
        return inserted

    async def _write(self, effects: Sequence[Effect]) -> list[int]:
        items: list[StoredEffect] = []
        try:
            items = self._pipe.items(effects)
            inserted = await self._store.write(write_effects(items))
        except BaseException:
            self._pipe.not_written(items)
            raise
        self._pipe.written(items, inserted)
        return [item.id for item in inserted]

    async def _whole(self, step: Coroutine[Any, Any, T]) -> T:
        """Finish `step` although whoever asked for it goes away: it may be written already."""
        task = asyncio.get_running_loop().create_task(step)
        self.under_way.add(task)
        task.add_done_callback(self.under_way.discard)
        return await asyncio.shield(task)
