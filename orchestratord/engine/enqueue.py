"""New tasks on their way into the queue: written durably, and started where a slot is free."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from orchestratord.engine.attempt import Pipe
from orchestratord.model.task import Effect, NewTask
from orchestratord.queue.batch import Write
from orchestratord.queue.operations.insert import enqueue
from orchestratord.queue.operations.settle import write_effects
from orchestratord.queue.records import Inserted, StoredEffect
from orchestratord.queue.store import Store

Operation = Callable[[Any], Write[list[Inserted]]]
"""Makes the operation that writes what it is given."""


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
        return await self._whole(tasks, enqueue)

    async def write(self, effects: Sequence[Effect]) -> list[int]:
        """Write effects in one transaction; the ids of the new tasks, in order."""
        return [item.id for item in await self._whole(effects, write_effects)]

    async def _write(self, effects: Sequence[Effect], operation: Operation) -> list[Inserted]:
        items: list[StoredEffect] = []
        try:
            items.extend(self._pipe.items(effects))
            inserted = await self._store.write(operation(items))
        except BaseException:
            self._pipe.not_written(items)
            raise
        self._pipe.written(items, inserted)
        return inserted

    async def _whole(self, effects: Sequence[Effect], operation: Operation) -> list[Inserted]:
        """Write to the end although the caller is cancelled: it may be written already."""
        task = asyncio.get_running_loop().create_task(self._write(effects, operation))
        self.under_way.add(task)
        task.add_done_callback(self.under_way.discard)
        return await asyncio.shield(task)
