"""Tasks whose start ended with the daemon's death before: one of them may be the cause.

They begin one after the other, so that the next death is charged to one of them alone. One that
waits for its turn holds no slot: a receiver that hangs must not hold up anybody else's work.
"""

from __future__ import annotations

import asyncio
from collections import deque

from orchestratord.engine.lanes.lane_set import LaneSet
from orchestratord.model.task import Task

ALONE = 2.0
"""Seconds after which the next one begins although this one has not ended: what kills a daemon does
so at once, and what takes this long waits for its receiver."""


class PoisonCandidates:
    """Whose turn it is, and which ones wait."""

    def __init__(self, lanes: LaneSet) -> None:
        """`lanes`: woken when the next one's turn has come."""
        self._lanes = lanes
        self._current: int | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: deque[tuple[Task, str]] = deque()

    def admit(self, task: Task, lane: str) -> bool:
        """True where it may begin now; else it waits, and takes no slot of `lane` meanwhile."""
        if self._current is not None or self._waiting:
            self._waiting.append((task, lane))
            return False
        self._begin(task)
        return True

    def take_turn(self) -> tuple[Task, str] | None:
        """The next one, which begins now, and its lane; None where it is nobody's turn."""
        if not self._waiting or self._current is not None:
            return None
        task, lane = self._waiting.popleft()
        self._begin(task)
        return task, lane

    def ended(self, task_id: int) -> None:
        """One has ended, or has been alone for long enough: the next one's turn."""
        if self._current != task_id:
            return
        self._current = None
        if self._timer is not None:
            self._timer.cancel()
        if self._waiting:
            self._lanes.wake.set()

    def waiting_ids(self) -> list[int]:
        """The tasks that wait."""
        return [task.id for task, _ in self._waiting]

    def take_waiting(self) -> list[Task]:
        """Take out those that wait: the daemon stops."""
        waiting = [task for task, _ in self._waiting]
        self._waiting.clear()
        return waiting

    def _begin(self, task: Task) -> None:
        self._current = task.id
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(ALONE, self.ended, task.id)
