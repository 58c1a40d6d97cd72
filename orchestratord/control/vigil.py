"""Waiting for the end of a task, on behalf of whoever asked."""

from __future__ import annotations

import asyncio

from orchestratord.control.parts import WorkerLike
from orchestratord.queue.store import Store
from orchestratord.task import FINAL, Task

LOOK_AGAIN = 1.0
"""Seconds; not everything that ends is told of: another process may have ended it."""


class Vigil:
    """Waits for the ends of tasks until it is closed."""

    def __init__(self, store: Store, worker: WorkerLike) -> None:
        self._store = store
        self._worker = worker
        self._closing = asyncio.Event()

    def close(self) -> None:
        """Send everybody away."""
        self._closing.set()

    async def ended(self, task_id: int, wait: float) -> Task:
        """The task once it has ended, or as it is after `wait` seconds. Raises NotFound."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        closing = loop.create_task(self._closing.wait())
        try:
            while True:
                # Waiting begins before looking, so that what ends in between is not missed.
                rest = max(deadline - loop.time(), 0.0)
                end = loop.create_task(self._worker.wait_final(task_id, min(rest, LOOK_AGAIN)))
                try:
                    await asyncio.sleep(0)
                    task = await self._store.get(task_id)
                    if task.status in FINAL or rest == 0 or self._closing.is_set():
                        return task
                    await asyncio.wait((end, closing), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    end.cancel()
        finally:
            closing.cancel()
