"""How the attempts of the last 24 hours went, counted in memory as `observe` is told of them.

The first page is to show at once how the last hour went, over a million rows as well; counting them
would take too long. After a restart it is empty, which pages say.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import compress, repeat
from operator import attrgetter, floordiv
from typing import Any

from orchestratord import ConfigEvent, Event, EventType, TaskEvent, world

MINUTE = 60_000
MINUTES = 24 * 60
"""How far back it goes."""

SLICE = 5 * MINUTE
SLICES = 12
"""For single endpoints: an hour, in slices of five minutes."""
MAX_ENDPOINTS = 5_000
"""That are counted by themselves in one slice, webhooks among them."""

BOUNDS = tuple(1.2**n for n in range(64))
"""Milliseconds: what an attempt took is known to a fifth, up to a day."""

# An enumeration's members are found slowly.
_SUCCEEDED, _RETRIED = EventType.TASK_SUCCEEDED, EventType.TASK_RETRIED
_ENDS = frozenset((_SUCCEEDED, _RETRIED, EventType.TASK_FAILED))
_CONFIGS = frozenset((EventType.CONFIG_ADOPTED, EventType.CONFIG_REFUSED))
_ABOUT = attrgetter("type", "endpoint", "webhook")
_type_of, _at, _started_at = attrgetter("type"), attrgetter("at"), attrgetter("started_at")
_duration_ms = attrgetter("duration_ms")


AttemptsKey = tuple[str, str]
"""An endpoint and a webhook; an empty one for the endpoint's calls."""


@dataclass(slots=True)
class TimeBucket:
    """Attempts that ended within a span of time. `start`: milliseconds since the epoch."""

    start: int
    succeeded: int = 0
    retried: int = 0
    failed: int = 0
    took: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    """How many took up to each of `BOUNDS`."""

    def add(self, other: TimeBucket) -> None:
        """Count what another one has counted, too."""
        self.succeeded += other.succeeded
        self.retried += other.retried
        self.failed += other.failed
        self.took = [mine + more for mine, more in zip(self.took, other.took, strict=True)]

    @property
    def attempts(self) -> int:
        """All of them."""
        return self.succeeded + self.retried + self.failed

    def quantile(self, part: float) -> float | None:
        """Milliseconds that this part of the attempts took at most; None where there were none."""
        total = sum(self.took)
        if not total:
            return None
        seen, wanted = 0, part * total
        for bound, count in zip((*BOUNDS, BOUNDS[-1]), self.took, strict=True):
            seen += count
            if seen >= wanted:
                return bound
        return BOUNDS[-1]


@dataclass(slots=True)
class EndpointAttempts:
    """How the attempts of one endpoint's calls went, or of one webhook's deliveries."""

    endpoint: str
    webhook: str = ""
    """Empty for calls."""
    attempts: int = 0
    failures: int = 0
    took: float = 0.0
    """Milliseconds, all together."""
    succeeded_at: int = 0
    """When its last success ended, in milliseconds since the epoch; 0 for none."""
    failed_at: int = 0
    """When its last failure ended; 0 for none."""

    @property
    def key(self) -> AttemptsKey:
        """Whose attempts they are."""
        return self.endpoint, self.webhook

    @property
    def recovered(self) -> bool:
        """Whether its last attempt succeeded."""
        return self.succeeded_at > self.failed_at

    def add(self, later: EndpointAttempts) -> None:
        """Count what another one has counted, too."""
        self.attempts += later.attempts
        self.failures += later.failures
        self.took += later.took
        self.succeeded_at = later.succeeded_at or self.succeeded_at
        self.failed_at = later.failed_at or self.failed_at

    @property
    def mean(self) -> float | None:
        """Milliseconds that an attempt took."""
        return self.took / self.attempts if self.attempts else None


class AttemptHistory:
    """The last 24 hours."""

    def __init__(self, now: Callable[[], float] = world.time) -> None:
        self.config_error: str | None = None
        """Why the configuration files are refused; None while they are in force."""
        self.since = now() * 1000
        """From when on it has counted."""
        self._now = now
        self._minutes: deque[TimeBucket] = deque(maxlen=MINUTES)
        self._slices: deque[tuple[int, dict[AttemptsKey, EndpointAttempts]]] = deque(maxlen=SLICES)
        self._minute, self._records = TimeBucket(-MINUTE), dict[AttemptsKey, EndpointAttempts]()
        """What attempts of this minute are counted in; until the first one, of no time."""

    # -- counting --------------------------------------------------------------------------------

    def observe(self, events: Sequence[Event]) -> None:
        """Count these events."""
        types = list(map(_type_of, events))
        ended: list[Any] = list(compress(events, map(_ENDS.__contains__, types)))
        if None in map(_started_at, ended):  # no attempt was made
            ended = [event for event in ended if event.started_at is not None]
        minutes = map(floordiv, map(_at, ended), repeat(MINUTE))
        alike: defaultdict[tuple[Any, int], list[TaskEvent]] = defaultdict(list)
        # There are thousands a second: no step of it is the interpreter's.
        about = zip(map(_ABOUT, ended), minutes, strict=True)
        deque(map(list.append, map(alike.__getitem__, about), ended), maxlen=0)
        for ((kind, endpoint, webhook), _), those in alike.items():
            self._count(kind, (endpoint, webhook or ""), those)
        if not _CONFIGS.isdisjoint(types):
            for event in events:
                if isinstance(event, ConfigEvent):
                    adopted = event.type is EventType.CONFIG_ADOPTED
                    error = None if adopted else event.error or "the files are in error"
                    self.config_error = error

    def _count(self, kind: EventType, key: AttemptsKey, ended: Sequence[TaskEvent]) -> None:
        """Count attempts that ended in one minute, and alike."""
        at, count = ended[-1].at, len(ended)
        minute = self._turn_to(at)
        durations = list(map(_duration_ms, ended))
        if None in durations:
            durations = [took or 0.0 for took in durations]
        places = list(map(bisect_left, repeat(BOUNDS), durations))
        for place in set(places):
            minute.took[place] += places.count(place)
        record = self._records.get(key) or self._begin(key)
        record.attempts += count
        record.took += sum(durations)
        if kind is _SUCCEEDED:
            minute.succeeded += count
            record.succeeded_at = at
            return
        if kind is _RETRIED:
            minute.retried += count
        else:
            minute.failed += count
        record.failures += count
        record.failed_at = at

    def _turn_to(self, at: int) -> TimeBucket:
        """Have what ended then counted in its minute, and in its slice of five minutes.

        A clock that was set back does not begin one of them again.
        """
        if self._minute.start <= at < self._minute.start + MINUTE:
            return self._minute
        start = at - at % MINUTE
        while self._minutes and self._minutes[-1].start > start + SLICE:
            self._minutes.pop()  # of a clock that was ahead
        if not self._minutes or self._minutes[-1].start < start:
            self._minutes.append(TimeBucket(start))
        start = at - at % SLICE
        while self._slices and self._slices[-1][0] > start + SLICE:
            self._slices.pop()
        if not self._slices or self._slices[-1][0] < start:
            self._slices.append((start, {}))
        self._minute, self._records = self._minutes[-1], self._slices[-1][1]
        return self._minute

    def _begin(self, key: AttemptsKey) -> EndpointAttempts:
        record = EndpointAttempts(*key)
        if len(self._records) < MAX_ENDPOINTS:  # else it is seen nowhere
            self._records[key] = record
        return record

    # -- looking ---------------------------------------------------------------------------------

    def spans(self, minutes: int, step: int) -> list[TimeBucket]:
        """The last `minutes` in spans of `step` minutes, oldest first; the last goes on."""
        length = step * MINUTE
        now = int(self._now() * 1000)
        last = now - now % length
        count = minutes // step
        found = [TimeBucket(last - length * n) for n in range(count - 1, -1, -1)]
        for minute in self._minutes:
            index = count - 1 - (last - (minute.start - minute.start % length)) // length
            if 0 <= index < count:
                found[index].add(minute)
        return found

    def records(self) -> list[EndpointAttempts]:
        """How the attempts of each endpoint went in the last hour, and those of each webhook, those
        that failed most first."""
        found: dict[AttemptsKey, EndpointAttempts] = {}
        for _, records in self._recent():
            for key, record in records.items():
                found.setdefault(key, EndpointAttempts(*key)).add(record)
        return sorted(found.values(), key=lambda one: (-one.failures, -one.attempts, *one.key))

    def record(self, endpoint: str, webhook: str = "") -> EndpointAttempts:
        """How calls of one endpoint, or deliveries of one webhook, went in the last hour."""
        record = EndpointAttempts(endpoint, webhook)
        for _, records in self._recent():
            if record.key in records:
                record.add(records[record.key])
        return record

    def _recent(self) -> list[tuple[int, dict[AttemptsKey, EndpointAttempts]]]:
        oldest = self._now() * 1000 - SLICE * SLICES
        return [(start, records) for start, records in self._slices if start >= oldest]
