"""Who waits for the end of a task."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable


class Waiters:
    """Who waits for the end of a task: futures by its id."""

    def __init__(self) -> None:
        self._futures: dict[int, list[asyncio.Future[None]]] = {}

    def finished(self, task_id: int) -> None:
        """The task reached a final state: wake all who wait for it."""
        for future in self._futures.pop(task_id, ()):
            if not future.done():
                future.set_result(None)

    def all_finished(self, task_ids: Iterable[int]) -> None:
        """Wake all who wait for one of these tasks."""
        if self._futures:
            for task_id in task_ids:
                self.finished(task_id)

    async def wait(self, task_id: int, timeout: float) -> None:  # noqa: ASYNC109
        """Return when the task has reached a final state, or after `timeout` seconds."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._futures.setdefault(task_id, []).append(future)
        try:
            await asyncio.wait((future,), timeout=timeout)
        finally:
            waiting = self._futures.get(task_id, [])
            if future in waiting:
                waiting.remove(future)
                if not waiting:
                    del self._futures[task_id]
