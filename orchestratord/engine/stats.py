"""What is counted as attempts end, in memory: how many of each end lately."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from orchestratord.model.task import Key, Status
from orchestratord.queue.records import Settlement

_SAMPLES = 21
"""Taken each half second, so rates are those of ten seconds."""

_NAMES = {
    "succeeded": Status.SUCCEEDED,
    "retried": Status.PENDING,
    "failed": Status.FAILED,
    "cancelled": Status.CANCELLED,
}


class Stats:
    """Counts of one daemon since it started; they cost the hot path next to nothing."""

    def __init__(self, now: float) -> None:
        """`now`: of `world.monotonic`."""
        self._ends: dict[str, int] = dict.fromkeys(_NAMES.values(), 0)
        self._samples = deque([(now, tuple(self._ends.values()))], maxlen=_SAMPLES)
        self.last_success: dict[str, int] = {}
        """Endpoint, or `api/name#webhook` → when its last successful call, or delivery, started
        (milliseconds)."""

    def count(self, settlements: Iterable[Settlement]) -> None:
        """Claims ended so."""
        ends, began = self._ends, dict[tuple[str, str], int]()
        for settlement in settlements:
            if settlement.last_success_at is not None:
                task = settlement.task
                began[task.endpoint_id, task.webhook] = settlement.last_success_at
            if not settlement.uncounted or settlement.deaths is not None:
                ends[settlement.status] += 1
        for key, at in began.items():
            self.last_success[Key(*key).name] = at

    def happened(self) -> None:
        """A task succeeded that needed no attempt."""
        self._ends[Status.SUCCEEDED] += 1

    def sample(self, now: float) -> None:
        """To be called about each half second; `now` of `world.monotonic`."""
        self._samples.append((now, tuple(self._ends.values())))

    def rates(self, now: float) -> dict[str, float]:
        """How many a second succeeded, were retried, failed or were cancelled over about ten
        seconds."""
        began, before = self._samples[0]
        passed = max(now - began, 0.001)
        counted = zip(_NAMES, self._ends.values(), before, strict=True)
        return {name: round((count - old) / passed, 2) for name, count, old in counted}
