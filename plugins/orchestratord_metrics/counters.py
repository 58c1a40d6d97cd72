"""What is counted: by labels, for a bounded number of label sets, from what happened.

`EventCounters` is told of events; `LoopLag` looks how late the event loop is, for which everything
else waits.
"""

from __future__ import annotations

import asyncio
import weakref
from bisect import bisect_left
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import compress, repeat
from operator import attrgetter, is_
from typing import Any, TypeVar

from orchestratord import ConfigEvent, Event, EventType, InboundEvent, OutboxEvent

K = TypeVar("K")
V = TypeVar("V")

PREFIX = "orchestratord_"
"""Of all names."""

Labels = tuple[str, ...]
"""The values of a metric's labels, in the order of their names."""

MAX_SETS = 500
"""Label sets of one metric; what comes after them is counted under the endpoint `other`."""
OTHER = "other"
"""No endpoint that is declared has this id: theirs have a slash."""
_NAMES = ("endpoint", "webhook")
"""Labels that are `other` there."""

DURATIONS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
"""Seconds; an attempt may take 30 by default."""
LATENESS = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 1800, 7200)
"""Seconds; a task may have been paused, or its daemon stopped."""
_DURATIONS_MS = tuple(seconds * 1000 for seconds in DURATIONS)
_LATENESS_MS = tuple(seconds * 1000 for seconds in LATENESS)

# An enumeration's members are found slowly.
_CREATED, _STARTED = EventType.TASK_CREATED, EventType.TASK_STARTED
_NO_FAILURES = {"webhook_disabled": "missed", "resolved": "resolved"}
"""Why a task fails that nothing was sent for → as what its end counts."""
_OUTCOMES = {
    EventType.TASK_SUCCEEDED: "succeeded",
    EventType.TASK_RETRIED: "retried",
    EventType.TASK_FAILED: "failed",
    EventType.TASK_CANCELLED: "cancelled",
    EventType.TASK_SNOOZED: "snoozed",
}
_STEPS = frozenset({_CREATED, _STARTED, *_OUTCOMES})
_ABOUT = attrgetter("type", "endpoint", "kind", "webhook", "status_code", "reason")
"""What tells where the end of an attempt, or of a task, is counted."""
_OF_TASK = attrgetter("endpoint", "kind")
_type_of, _kind, _started_at = attrgetter("type"), attrgetter("kind"), attrgetter("started_at")
_duration_ms, _lateness_ms = attrgetter("duration_ms"), attrgetter("lateness_ms")
MAX_KNOWN = 5_000
"""Ends of which it is known where they are counted."""
Counted = tuple[Sequence[list[float]], list[float] | None]
"""What is counted up at an end, and what has the durations; None where no attempt was made."""

EVERY = 0.25
"""Seconds between two looks."""
LAG_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


class Counts:
    """How often something happened and, with limits, how long it took: a counter or a histogram."""

    def __init__(
        self,
        name: str,
        help: str,  # noqa: A002  # as the exposition calls it
        labels: Sequence[str],
        limits: Sequence[float] = (),
        most: int = MAX_SETS,
    ) -> None:
        """
        Args:
            name: without `PREFIX` and what the exposition appends, such as `_total`, `_bucket`.
            help: what is counted.
            labels: their names; `endpoint` comes first where it is one of them.
            limits: seconds, ascending; of a counter, none.
            most: how many label sets there are at most, those of `other` not counted.
        """
        self.name = f"{PREFIX}{name}"
        self.help = help
        self.labels = tuple(labels)
        self.limits = tuple(limits)
        self._most = most
        self._of_endpoint = "endpoint" in self.labels
        self._named = 0
        """Label sets that are not those of `other`."""
        self._found: dict[Labels, list[float]] = {}

    def of(self, labels: Labels) -> list[float]:
        """What is counted of a label set: how often up to each limit and over the last one, and the
        sum of the seconds. It is counted up there, until the next `forget`."""
        found = self._found.get(labels)
        return self._begin(labels) if found is None else found

    def count(self, labels: Labels) -> None:
        """It happened once more."""
        self.of(labels)[0] += 1

    def add(self, labels: Labels, seconds: float) -> None:
        """It happened once more, and took so long."""
        found = self.of(labels)
        found[bisect_left(self.limits, seconds)] += 1
        found[-1] += seconds

    def _begin(self, labels: Labels) -> list[float]:
        if self._named < self._most:
            self._named += 1
        elif self._of_endpoint:
            named = zip(self.labels, labels, strict=True)
            labels = tuple(OTHER if name in _NAMES else value for name, value in named)
        return self._found.setdefault(labels, [0.0] * (len(self.limits) + 2))

    def forget(self, declared: Collection[str]) -> None:
        """Drop the label sets of endpoints of files that are not among those `declared`."""
        if self._of_endpoint:
            for labels in list(self._found):
                if "/" in labels[0] and labels[0] not in declared:
                    del self._found[labels]
                    self._named -= 1

    def copy(self) -> dict[Labels, list[float]]:
        """Of each label set: how often up to each limit but not the one before it, how often over
        the last one, and the sum of the seconds."""
        return {labels: list(found) for labels, found in self._found.items()}


def masked(
    found: dict[Labels, list[float]], text: Callable[[str], str]
) -> dict[Labels, list[float]]:
    """What was counted, with `text` of each label's value; what becomes equal is added up."""
    shown: dict[Labels, list[float]] = {}
    for labels, numbers in found.items():
        names = tuple(map(text, labels))
        known = shown.get(names)
        if known is not None:
            numbers = [a + b for a, b in zip(known, numbers, strict=True)]
        shown[names] = numbers
    return shown


class EventCounters:
    """Everything that is counted since the daemon started."""

    def __init__(self) -> None:
        of_task = ("endpoint", "kind")
        self.created = Counts("tasks_created", "Tasks that were accepted or followed.", of_task)
        self.attempts = Counts(
            "attempts", "Attempts that have ended.", (*of_task, "status_class", "outcome")
        )
        self.durations = Counts(
            "attempt_duration_seconds", "How long attempts took.", of_task, DURATIONS
        )
        self.retries = Counts(
            "retries", "Attempts that failed and are followed by another one.", of_task
        )
        of_delivery = ("endpoint", "webhook", "status")
        self.deliveries = Counts(
            "deliveries", "Deliveries of webhooks that have ended.", of_delivery
        )
        of_failure = (*of_task, "reason")
        self.final_failures = Counts("final_failures", "Tasks that failed for good.", of_failure)
        late = "How long after they were due attempts began."
        self.lateness = Counts("lateness_seconds", late, ("kind",), LATENESS)
        refused = "Requests of senders that became no event."
        self.inbound_refused = Counts("inbound_refused", refused, ("endpoint", "reason"))
        changed = "Configurations that were adopted or refused."
        self.config_changes = Counts("config_changes", changed, ("result",))
        untaken = "Rows of the outbox that made no task."
        self.outbox_refused = Counts("outbox_refused", untaken, ("reason",))
        self._counted: dict[tuple[Any, ...], Counted] = {}
        """Of ends that are alike, by `_ABOUT` and whether no attempt was made, where they are
        counted."""

    def all(self) -> Sequence[Counts]:
        """In the order in which they are shown."""
        return tuple(one for one in vars(self).values() if isinstance(one, Counts))

    def observe(self, events: Sequence[Event]) -> None:
        """Count these events."""
        types = list(map(_type_of, events))
        ended: list[Any] = list(compress(events, map(_OUTCOMES.__contains__, types)))
        unstarted: list[Any] = []
        if None in map(_started_at, ended):
            unstarted = [event for event in ended if event.started_at is None]
            ended = [event for event in ended if event.started_at is not None]
        for none_made, some in ((False, ended), (True, unstarted)):
            for about, took in _grouped(map(_ABOUT, some), map(_duration_ms, some)).items():
                self._count_ends((about, none_made), took)
        started: list[Any] = list(compress(events, map(is_, types, repeat(_STARTED))))
        if None in (late := list(map(_lateness_ms, started))):
            started = [event for event in started if event.lateness_ms is not None]
            late = list(map(_lateness_ms, started))
        for kind, some_late in _grouped(map(_kind, started), late).items():
            _add_all(self.lateness.of((kind,)), _LATENESS_MS, some_late)
        different = set(types)
        if _CREATED in different:
            created: Iterable[Any] = compress(events, map(is_, types, repeat(_CREATED)))
            for of_task, count in Counter(map(_OF_TASK, created)).items():
                self.created.of(of_task)[0] += count
        if not _STEPS.issuperset(different):
            self._count_others(events)

    def _count_others(self, events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event, InboundEvent):
                self.inbound_refused.count((event.endpoint, event.reason))
            elif isinstance(event, ConfigEvent):
                adopted = event.type is EventType.CONFIG_ADOPTED
                self.config_changes.count(("adopted" if adopted else "refused",))
            elif isinstance(event, OutboxEvent):
                self.outbox_refused.count((event.reason,))

    def _count_ends(self, about: tuple[Any, ...], took: Sequence[float | None]) -> None:
        """Count ends that are alike, by how many milliseconds their attempts took."""
        counted = self._counted.get(about)
        if counted is None:
            counted = self._counted_of(about)
        ends, durations = counted
        for one in ends:
            one[0] += len(took)
        if durations is not None:
            _add_all(durations, _DURATIONS_MS, took)

    def _counted_of(self, about: tuple[Any, ...]) -> Counted:
        (type_, endpoint, kind, webhook, code, reason), unstarted = about
        of_task, outcome = (endpoint, kind), _OUTCOMES[type_]
        ends, durations = list[list[float]](), None
        if not unstarted:
            ends.append(self.attempts.of((endpoint, kind, _class_of(code), outcome)))
            durations = self.durations.of(of_task)
        if outcome == "retried":
            ends.append(self.retries.of(of_task))
        elif unstarted and reason in _NO_FAILURES and outcome == "failed":
            outcome = _NO_FAILURES[reason]
        elif outcome == "failed":
            ends.append(self.final_failures.of((endpoint, kind, reason or "")))
        if webhook is not None and outcome not in ("retried", "snoozed"):
            ends.append(self.deliveries.of((endpoint, webhook, outcome)))
        if len(self._counted) >= MAX_KNOWN:
            self._counted.clear()
        counted = self._counted[about] = ends, durations
        return counted

    def forget(self, declared: Collection[str]) -> None:
        """Drop what was counted of endpoints that are not among those that are `declared`."""
        self._counted.clear()
        for counted in self.all():
            counted.forget(declared)


def _grouped(keys: Iterable[K], values: Iterable[V]) -> dict[K, list[V]]:
    """The values of each key. There are thousands a second: no step of it is the interpreter's."""
    found: defaultdict[K, list[V]] = defaultdict(list)
    deque(map(list.append, map(found.__getitem__, keys), values), maxlen=0)
    return found


def _add_all(
    found: list[float], limits: Sequence[float], milliseconds: Sequence[float | None]
) -> None:
    """Count how long things took, those of which it is known, in what `Counts.of` returned."""
    known: list[Any] = list(milliseconds)
    if None in known:
        known = [one for one in known if one is not None]
    places = list(map(bisect_left, repeat(limits), known))
    for place in set(places):
        found[place] += places.count(place)
    found[-1] += sum(known) / 1000


def _class_of(code: int | str | None) -> str:
    """`2xx` for a number; the word where it is one, such as `error`."""
    if isinstance(code, int):
        return f"{code // 100}xx" if 100 <= code < 600 else "other"
    return code or "none"


class LoopLag:
    """Sets a timer again and again, and notes how much too late it goes off."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """`loop`: watched as long as it runs, and this object is in use."""
        self.found = Counts(
            "loop_lag_seconds",
            "How much too late a timer of the event loop went off, tried four times a second.",
            (),
            LAG_BUCKETS,
        )
        _look(weakref.ref(self), loop, None)


def _look(lag: weakref.ref[LoopLag], loop: asyncio.AbstractEventLoop, due: float | None) -> None:
    watching, now = lag(), loop.time()
    if watching is None:
        return
    if due is not None:
        watching.found.add((), max(now - due, 0.0))
    loop.call_later(EVERY, _look, lag, loop, now + EVERY)
