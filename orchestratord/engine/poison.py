"""Tasks whose start ended with the daemon's death before: one of them may be the cause.

After one death they begin shortly one after the other, and run beside each other: most deaths come
from outside, and what was under way is not to wait for long. After two, a few of them run one after
the other, each alone: nothing else is under way in this daemon then, so that a third death is
charged to it and to no innocent one, be that another candidate or a task that no death has met.
More than a few begin in batches, half of them first; those that a batch died with come in smaller
ones the next time, until each of them runs alone. The newest goes first: what kills a daemon at
once had begun last.

Nothing waits for ever. One that outlives some seconds is no longer waited for, and other work is
held up for some seconds in all: then they go on beside it, and it no longer runs alone. With each
further death these seconds double, so that what kills late, or among much other work, is alone at
last.

One that waits for its turn holds no slot: a receiver that hangs must not hold up the work of
others. They begin as the worker's loop goes round: `ended` wakes it, and it asks `take_turn`.
"""

from __future__ import annotations

import asyncio
import logging
import math
from bisect import insort
from typing import NamedTuple

from orchestratord.engine.lanes.lane_set import LaneSet
from orchestratord.model.task import Task

log = logging.getLogger("orchestratord.worker")

POISON_AFTER = 3
"""Starts that end with the daemon's death, the last one of a task that runs alone."""
OFTEN = POISON_AFTER - 1
"""Starts that ended so, after which a task is to run alone."""

SURELY = 2 * POISON_AFTER
"""Starts that ended so, after which also waiting for an answer counts: it may be what kills."""

APART = 0.1
"""Seconds between the starts of two that run beside each other, if the first one has not ended by
then: what kills a daemon at once does so alone."""
BATCH_APART = 0.05
"""Seconds between two starts of a batch."""
FEW = 4
"""So many of those that died often run one after the other; more of them begin in batches."""

OUTLIVED = 7.0
"""Seconds after which the next one begins beside one that ran alone and has not ended."""
BATCH_OUTLIVED = 3.5
"""Seconds after which the next one begins beside a batch."""
HELD = 5.0
"""Seconds for which all other work is held up for those that are to run alone, in all."""


class _Waiting(NamedTuple):
    task: Task
    lane: str


def _place(waiting: _Waiting) -> tuple[int, int]:
    return waiting.task.deaths, waiting.task.id


def batch_size(count: int, deaths: int) -> int:
    """How many begin together of so many, whose starts ended with that many deaths."""
    if count <= FEW:
        return 1
    return math.ceil(count / (2.0 * 4.0 ** (deaths - OFTEN)))


class PoisonCandidates:
    """Whose turn it is, and which ones wait. Times are of the event loop."""

    def __init__(self, lanes: LaneSet) -> None:
        """`lanes`: woken when the next one's turn has come, and held while one runs alone."""
        self._lanes = lanes
        self._loop = asyncio.get_running_loop()
        self._once: list[_Waiting] = []
        """Those that may run beside each other and wait for their turn, the newest at the end."""
        self._often: list[_Waiting] = []
        """Those that died often, the one that did so most at the end."""
        self._latest: int | None = None
        """The one that began last, while the next one waits for it."""
        self._timer: asyncio.TimerHandle | None = None
        self._batch: set[int] = set()
        """Those that died often and are under way."""
        self._count = 0
        """How many there were, with those that have ended since."""
        self._room = 0
        """How many may still begin in this batch."""
        self._next_batch_at = 0.0
        self._alone: Task | None = None
        """The one that runs alone."""
        self._written = False
        """That it does so is on disk."""
        self._company = False
        """It no longer does, once that is on disk."""
        self._held_until: float | None = None
        """Until when other work is held up; None where none has been."""

    def admit(self, task: Task, lane: str) -> None:
        """A claimed candidate waits for its turn, and takes no slot of `lane` meanwhile."""
        insort(self._line(task), _Waiting(task, lane), key=_place)

    def take_turn(self) -> tuple[Task, str] | None:
        """The next one, which begins now, and its lane; None where none may begin."""
        if self._alone is not None or self._latest is not None:
            return None
        line = self._next_line(self._loop.time())
        if line is None:
            return None
        task, lane = line.pop()
        apart = APART
        if line is self._often:
            self._batch.add(task.id)
            self._room -= 1
            apart = BATCH_APART
        self._latest = task.id
        self._timer = self._loop.call_later(apart, self._next_one, task.id)
        return task, lane

    def is_alone(self, task: Task) -> bool:
        """Whether nothing else is under way in this daemon, nor will be."""
        return self._alone is not None and self._alone.id == task.id and not self._company

    def written(self, task: Task) -> None:
        """Its start, and that it runs alone, is on disk."""
        self._written = self.is_alone(task)

    def company(self) -> Task | None:
        """The one that has run alone, and no longer does once that is on disk: others have waited
        for long enough. `end_alone` has to follow."""
        now = self._loop.time()
        if self._alone is None or not self._written:
            return None
        if self._others_wait(now) or (self._often and now >= self._next_batch_at):
            self._company = True
        return self._alone if self._company else None

    def end_alone(self) -> None:
        """Others may begin beside the one that ran alone."""
        self._alone, self._written, self._company = None, False, False
        self._lanes.held = False
        self._lanes.wake.set()

    def ended(self, task: Task) -> None:
        """One has ended, or was released."""
        self._batch.discard(task.id)
        if self._alone is not None and self._alone.id == task.id:
            self.end_alone()
        if not self._often and not self._batch:
            self._held_until, self._count = None, 0
        if self._latest == task.id and self._timer is not None:
            self._timer.cancel()
        self._next_one(task.id)

    def waiting_ids(self) -> list[int]:
        """The tasks that wait."""
        return [waiting.task.id for waiting in (*self._once, *self._often)]

    def take_waiting(self) -> list[Task]:
        """Take out those that wait: the daemon stops."""
        waiting = [waiting.task for waiting in (*self._once, *self._often)]
        self._once.clear()
        self._often.clear()
        return waiting

    def _line(self, task: Task) -> list[_Waiting]:
        return self._often if task.deaths >= OFTEN else self._once

    def _next_line(self, now: float) -> list[_Waiting] | None:
        """Where the one waits whose turn it is."""
        if self._often and not self._room and (not self._batch or now >= self._next_batch_at):
            task = self._often[-1].task
            longer = 2.0 ** (task.deaths - OFTEN)
            self._count = max(self._count, len(self._often))
            self._room = batch_size(self._count, task.deaths)
            if self._room == 1 and not self._batch and not self._run_alone(task, now, longer):
                self._room = 0
                return None
            outlived = OUTLIVED if self._room == 1 else BATCH_OUTLIVED
            self._next_batch_at = now + outlived * longer
        if self._room and self._often:
            return self._often
        self._room = 0
        return self._once or None

    def _run_alone(self, task: Task, now: float, longer: float) -> bool:
        """Have it run alone; False while it waits for what is under way. Where other work has been
        held up for long enough, it runs beside it, as do all that wait with it."""
        if self._held_until is None:
            self._held_until = now + HELD * longer
        if self._lanes.is_idle and not self._others_wait(now):
            log.warning(
                "task %s runs alone, since %d of its starts ended with the daemon's death",
                task.id,
                task.deaths,
            )
            self._alone, self._written, self._lanes.held = task, False, True
            return True
        self._lanes.held = now < self._held_until
        if self._lanes.held:
            return False
        self._room = len(self._often)
        return True

    def _others_wait(self, now: float) -> bool:
        """Whether other work has been held up for long enough."""
        assert self._held_until is not None
        return now >= self._held_until and bool(self._once or self._lanes.has_work)

    def _next_one(self, task_id: int) -> None:
        """The one that began last has ended, or the time until the next one is over."""
        if self._latest == task_id:
            self._latest = None
        if self._once or self._often:
            self._lanes.wake.set()
