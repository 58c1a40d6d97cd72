"""Charts of the last hours and of a retry policy: shapes that a template turns into SVG.

A chart is 100 wide and 100 high, and stretched to its place; so its labels stand beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestratord_dashboard import template_filters
from orchestratord_dashboard.attempt_history import TimeBucket

WIDTH = HEIGHT = 100.0
PLACES = 8
"""Of bars in the chart of a policy, at least: few ones are not to be as wide as barrels."""
LABELS = {"": 5, "dense": 14}
"""Class of a label → how many there is room for: all of them on a screen, the first on a phone."""
_GAP = 0.18
"""Of a bar's place that stays empty."""


@dataclass(frozen=True, slots=True)
class ChartBar:
    """A part of a bar, from below."""

    x: float
    y: float
    width: float
    height: float
    part: str
    """What it stands for, for the style sheet."""


@dataclass(frozen=True, slots=True)
class ChartColumn:
    """A span of time in a chart: where the pointer has to be, and what it says then."""

    x: float
    width: float
    text: str


@dataclass(frozen=True, slots=True)
class Chart:
    """What a template draws."""

    bars: tuple[ChartBar, ...]
    lines: tuple[tuple[str, str], ...]
    """What each stands for, and its path."""
    columns: tuple[ChartColumn, ...]
    top: float
    """What the upper edge stands for."""


def throughput(spans: Sequence[TimeBucket], text: Callable[[TimeBucket], str]) -> Chart:
    """Attempts as bars: failed ones below, so that they are seen; `text` says it in words."""
    top = nice(max((span.attempts for span in spans), default=0))
    place = WIDTH / max(len(spans), 1)
    bars: list[ChartBar] = []
    for index, span in enumerate(spans):
        y = HEIGHT
        for part in ("failed", "retried", "succeeded"):
            if count := getattr(span, part):
                height = max(count / top * HEIGHT, 0.5)
                y -= height
                left = index * place + place * _GAP / 2
                bars.append(ChartBar(left, y, place * (1 - _GAP), height, part))
    return Chart(tuple(bars), (), _columns(spans, text), top)


def latency(spans: Sequence[TimeBucket], text: Callable[[TimeBucket], str]) -> Chart:
    """How long attempts took, as lines: p50 and p95."""
    found = {name: [span.quantile(part) for span in spans] for name, part in QUANTILES}
    top = nice(max((value or 0.0 for values in found.values() for value in values), default=0))
    place = WIDTH / max(len(spans), 1)
    lines = tuple((name, _path(values, place, top)) for name, values in found.items())
    return Chart((), lines, _columns(spans, text), top)


QUANTILES = (("p95", 0.95), ("p50", 0.5))


def _path(values: Sequence[float | None], place: float, top: float) -> str:
    """A line that is broken where there is nothing; a point alone is a short dash."""
    steps: list[str] = []
    before = None
    for index, value in enumerate(values):
        if value is not None:
            x, y = (index + 0.5) * place, HEIGHT - value / top * HEIGHT
            if before is not None:
                steps.append(f"L{x:.2f} {y:.2f}")
            else:
                steps.append(f"M{x - place / 4:.2f} {y:.2f}L{x:.2f} {y:.2f}")
        before = value
    return "".join(steps)


def _columns(
    spans: Sequence[TimeBucket], text: Callable[[TimeBucket], str]
) -> tuple[ChartColumn, ...]:
    place = WIDTH / max(len(spans), 1)
    return tuple(ChartColumn(n * place, place, text(span)) for n, span in enumerate(spans))


def nice(value: float) -> float:
    """The next round number: 1, 2 or 5, times a power of ten; at least 1."""
    if value <= 1:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value * 0.999_999)


@dataclass(frozen=True, slots=True)
class RetryBar:
    """One wait in the chart of a retry policy: a bar, with the range that jitter makes of it."""

    x: float
    width: float
    y: float
    top: float
    """Where the longest one ends."""
    bottom: float
    """Where the shortest one ends."""


def retry_bars(waits: Sequence[Mapping[str, Any]]) -> tuple[RetryBar, ...]:
    """The delays of a policy as bars, 100 wide and 100 high, on a scale of powers of ten.

    Seconds and days stand in one picture: each power of ten is as high as the next.
    """
    if not waits:
        return ()
    lengths = [wait["longest"] for wait in waits if wait["longest"] > 0] or [1.0]
    low = min([wait["shortest"] for wait in waits if wait["shortest"] > 0] or [1.0]) / 3
    span = max(math.log10(max(lengths) / low), 0.5)

    def height(seconds: float) -> float:
        return 100 - 100 * max(math.log10(max(seconds, low) / low), 0) / span

    place = 100 / max(len(waits), PLACES)
    return tuple(
        RetryBar(
            x=n * place + place * 0.12,
            width=place * 0.76,
            y=height(wait["delay"]),
            top=height(wait["longest"]),
            bottom=height(wait["shortest"]),
        )
        for n, wait in enumerate(waits)
    )


def retry_labels(waits: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """What stands below the bars, one for each place: a text, empty where it is too tight, and its
    class."""
    found = [("", "")] * max(len(waits), PLACES)
    step = 1
    for kind, room in reversed(LABELS.items()):
        step *= math.ceil(len(found) / (room * step))
        for n in range(0, len(waits), step):
            found[n] = template_filters.seconds(waits[n]["delay"]), kind
    return found
