"""Pictures of the window, drawn on the server as shapes that a template turns into SVG.

A picture is 100 wide and 100 high, and stretched to its place; so its labels stand beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from orchestratord_dashboard.window import Span

WIDTH = HEIGHT = 100.0
_GAP = 0.18
"""Of a bar's place that stays empty."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A part of a bar, from below."""

    x: float
    y: float
    width: float
    height: float
    part: str
    """What it stands for, for the style sheet."""


@dataclass(frozen=True, slots=True)
class Column:
    """A span of time in a picture: where the pointer has to be, and what it says then."""

    x: float
    width: float
    text: str


@dataclass(frozen=True, slots=True)
class Picture:
    """What a template draws."""

    bars: tuple[Bar, ...]
    lines: tuple[tuple[str, str], ...]
    """What each stands for, and its path."""
    columns: tuple[Column, ...]
    top: float
    """What the upper edge stands for."""


def throughput(spans: Sequence[Span], text: Callable[[Span], str]) -> Picture:
    """Attempts as bars: failed ones below, so that they are seen; `text` says it in words."""
    top = nice(max((span.attempts for span in spans), default=0))
    place = WIDTH / max(len(spans), 1)
    bars: list[Bar] = []
    for index, span in enumerate(spans):
        y = HEIGHT
        for part, count in (
            ("failed", span.failed),
            ("retried", span.retried),
            ("succeeded", span.succeeded),
        ):
            if count:
                height = max(count / top * HEIGHT, 0.5)
                y -= height
                left = index * place + place * _GAP / 2
                bars.append(Bar(left, y, place * (1 - _GAP), height, part))
    return Picture(tuple(bars), (), _columns(spans, text), top)


def latency(spans: Sequence[Span], text: Callable[[Span], str]) -> Picture:
    """How long attempts took, as lines: the median, and what 95 of 100 stayed below."""
    found = {name: [span.quantile(part) for span in spans] for name, part in QUANTILES}
    top = nice(max((value or 0.0 for values in found.values() for value in values), default=0))
    place = WIDTH / max(len(spans), 1)
    lines = tuple((name, _path(values, place, top)) for name, values in found.items())
    return Picture((), lines, _columns(spans, text), top)


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


def _columns(spans: Sequence[Span], text: Callable[[Span], str]) -> tuple[Column, ...]:
    place = WIDTH / max(len(spans), 1)
    return tuple(Column(n * place, place, text(span)) for n, span in enumerate(spans))


def nice(value: float) -> float:
    """The next round number: 1, 2 or 5, times a power of ten; at least 1."""
    if value <= 1:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value * 0.999_999)
