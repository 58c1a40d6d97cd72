"""What is counted as attempts end, in memory: how many of each end lately, and who is failing."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from orchestratord.model.task import Key, Status
from orchestratord.queue.records import Settlement
from orchestratord.values.status_set import StatusCode

OVER = 10.0
"""Seconds over which rates are taken."""
_SAMPLES = 21
"""Of `OVER` seconds, taken each half second."""
MAX_FAILING = 1_000
"""Keys that are remembered as failing."""

_NAMES = {
    "succeeded": Status.SUCCEEDED,
    "retried": Status.PENDING,
    "failed": Status.FAILED,
    "cancelled": Status.CANCELLED,
}


@dataclass(slots=True)
class Failing:
    """A key whose last attempt failed. Times are milliseconds since the epoch."""

    key: Key
    since: int
    """When the first of the failures in a row ended."""
    last: int = 0
    """When the last one did."""
    failures: int = 0
    status_code: StatusCode = None
    error: str | None = None


class Stats:
    """Counts of one daemon since it started; they cost the hot path next to nothing."""

    def __init__(self, now: float) -> None:
        """`now`: of `time.monotonic`."""
        self._ends: dict[str, int] = dict.fromkeys(_NAMES.values(), 0)
        self._samples = deque([(now, tuple(self._ends.values()))], maxlen=_SAMPLES)
        self._failing: dict[Key, Failing] = {}
        self.last_success: dict[str, int] = {}
        """Endpoint, or `api/name#webhook` → when its last successful call, or delivery, started
        (milliseconds)."""

    def count(self, settlement: Settlement, status: str) -> None:
        """A claim ended, and its task has this status now."""
        if settlement.last_success_at is not None:
            self.last_success[settlement.task.key.name] = settlement.last_success_at
        if settlement.uncounted and settlement.deaths is None:
            return
        self._ends[status] += 1
        if status == Status.SUCCEEDED:
            if self._failing:
                self._failing.pop(settlement.task.key, None)
        elif settlement.attempt is not None:
            self._failed(settlement)

    def happened(self, key: Key) -> None:
        """A task succeeded that needed no attempt."""
        self._ends[Status.SUCCEEDED] += 1
        if self._failing:
            self._failing.pop(key, None)

    def sample(self, now: float) -> None:
        """To be called about each half second; `now` of `time.monotonic`."""
        self._samples.append((now, tuple(self._ends.values())))

    def rates(self, now: float) -> dict[str, float]:
        """How many a second succeeded, were retried, failed or were cancelled over about `OVER`."""
        began, before = self._samples[0]
        passed = max(now - began, 0.001)
        counted = zip(_NAMES, self._ends.values(), before, strict=True)
        return {name: round((count - old) / passed, 2) for name, count, old in counted}

    def failing(self) -> list[Failing]:
        """Whose last attempt failed, the latest first."""
        return sorted(self._failing.values(), key=lambda item: -item.last)

    def _failed(self, settlement: Settlement) -> None:
        key = settlement.task.key
        known = self._failing.get(key)
        if known is None:
            if len(self._failing) >= MAX_FAILING:
                return
            known = self._failing[key] = Failing(key, settlement.at)
        known.last = settlement.at
        known.failures += 1
        known.status_code, known.error = settlement.status_code, settlement.error
