"""Tasks whose start ended with the daemon's death before: one of them may be the cause.

They begin one after the other, so that the next death is charged to one of them alone. Who waits
for its turn holds no slot: a receiver that hangs must not hold up anybody else's work.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from orchestratord.model.task import Task

ALONE = 2.0
"""Seconds after which the next one begins although this one has not ended: what kills a daemon does
so at once, and what takes this long waits for its receiver."""


class PoisonCandidates:
    """Whose turn it is, and who waits."""

    def __init__(self, loop: asyncio.AbstractEventLoop, begin: Callable[[Task, str], None]) -> None:
        """`begin`: lets a task begin that has waited, and takes a slot of its lane again."""
        self._loop = loop
        self._begin = begin
        self._current: int | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: deque[tuple[Task, str]] = deque()

    def admit(self, task: Task, lane: str) -> bool:
        """True where it may begin now; else it waits, and gives its slot of `lane` up."""
        if self._current is not None:
            self._waiting.append((task, lane))
            return False
        self._current = task.id
        self._timer = self._loop.call_later(ALONE, self.ended, task.id)
        return True

    def ended(self, task_id: int) -> None:
        """A suspect has ended, or has been alone for long enough: the next one's turn."""
        if self._current != task_id:
            return
        self._current = None
        if self._timer is not None:
            self._timer.cancel()
        if self._waiting:
            self._begin(*self._waiting.popleft())

    def waiting_ids(self) -> list[int]:
        """Who waits."""
        return [task.id for task, _ in self._waiting]

    def take_waiting(self) -> list[Task]:
        """Take out who waits: the daemon stops."""
        waiting = [task for task, _ in self._waiting]
        self._waiting.clear()
        return waiting
