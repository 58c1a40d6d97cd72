"""What a plugin counts and measures, for `/metrics`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from operator import add
from typing import Literal

Labels = tuple[str, ...]
MAX_LABEL_SETS = 500
"""Of one metric; what comes after them counts as `other`."""


@dataclass(frozen=True, slots=True, eq=False)
class Counter:
    """A number that only grows: the sum of what all workers count.

    Args:
        name: begins with the plugin's, such as `smtp_mails`; `/metrics` has it between
            `orchestratord_` and `_total`.
        help: in a sentence.
        labels: the names of its labels.
    """

    name: str
    help: str
    labels: Sequence[str] = ()
    _counts: dict[Labels, float] = field(default_factory=dict, init=False)
    _told: dict[Labels, float] = field(default_factory=dict, init=False)

    def add(self, *values: str, by: float = 1) -> None:
        """Count up; `values` are those of its labels, in their order."""
        if values not in self._counts and len(self._counts) >= MAX_LABEL_SETS:
            values = ("other",) * len(self.labels)
        self._counts[values] = self._counts.get(values, 0) + by

    def read(self) -> Mapping[Labels, float]:
        """What was counted, by the values of the labels."""
        return dict(self._counts) if self.labels else {(): self._counts.get((), 0)}

    def grown(self) -> Mapping[Labels, float]:
        """What was counted since this was asked last."""
        more = {labels: n - self._told.get(labels, 0) for labels, n in self._counts.items()}
        self._told.update(self._counts)
        return {labels: by for labels, by in more.items() if by}


@dataclass(frozen=True, slots=True, eq=False)
class Gauge:
    """A number that goes up and down.

    Args:
        name: begins with the plugin's; `/metrics` has it behind `orchestratord_`.
        help: in a sentence.
        read: a quick `def`, called for each look at `/metrics`: the number, by the values of its
            labels; `()` where there are none.
        labels: the names of its labels.
        workers: of a daemon with several: `first` has it read in the first one alone, as what is
            the machine's; `sum` adds up what each has, and `max` shows the largest.

    Raises:
        ValueError: `workers` is none of these.
    """

    name: str
    help: str
    read: Callable[[], Mapping[Labels, float]]
    labels: Sequence[str] = ()
    workers: Literal["first", "sum", "max"] = "first"
    of_others: dict[int, Mapping[Labels, float]] = field(
        default_factory=dict, init=False, repr=False
    )
    """What the other workers said last, by their numbers."""

    def __post_init__(self) -> None:
        """Raise ValueError for what no daemon can do with several numbers."""
        if self.workers not in ("first", "sum", "max"):
            raise ValueError(f"the gauge {self.name}: workers is first, sum or max")


@dataclass(frozen=True, slots=True)
class MetricSamples:
    """What a metric of a plugin is now: its numbers, by the values of its labels."""

    kind: Literal["counter", "gauge"]
    name: str
    help: str
    labels: Sequence[str]
    values: Mapping[Labels, float]


def samples_of(metric: Counter | Gauge) -> MetricSamples:
    """Read a metric. Raises whatever a plugin's function raises, and TypeError for nonsense."""
    values: dict[Labels, float] = {}
    for labels, number in islice(metric.read().items(), MAX_LABEL_SETS + 1):
        if len(labels) != len(metric.labels):
            raise TypeError(f"{metric.name} has the labels {labels!r}, not {metric.labels!r}")
        values[tuple(map(str, labels))] = float(number)
    if isinstance(metric, Gauge):
        together = max if metric.workers == "max" else add
        for others in metric.of_others.values():
            for labels, number in others.items():
                known = values.get(labels)
                values[labels] = number if known is None else together(known, number)
    kind: Literal["counter", "gauge"] = "counter" if isinstance(metric, Counter) else "gauge"
    return MetricSamples(kind, metric.name, metric.help, metric.labels, values)
