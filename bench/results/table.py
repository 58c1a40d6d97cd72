"""The results as tables: lines of cells, printed as text or written as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.cases import Case, Race
from bench.results.figures import Figure, Spread
from bench.results.rounds import Results


@dataclass(slots=True)
class Table:
    """The first column is words, the others are numbers."""

    head: tuple[str, ...]
    rows: list[tuple[str, ...]]

    def text(self) -> str:
        """With columns that are aligned, for a terminal."""
        lines = [self.head, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.head))]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if i == 0 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        )

    def markdown(self) -> str:
        """For a page."""
        marks = ("---", *("---:" for _ in self.head[1:]))
        lines = [self.head, marks, *self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def races(cases: Sequence[Case], results: Results, against: Sequence[str]) -> Table:
    """Of the races: rates, what they cost, and how they compare.

    `against`: names of contestants that the others are compared with, where they have run.
    """
    against = [name for name in against if name in results.races]
    head = (
        "", "requests", "median/s", "least", "most", *(f"× {name}" for name in against),
        "CPU s for 1,000", "nginx's", "MiB",
    )  # fmt: skip
    medians = {
        name: Spread.of([drained.rate for drained in rounds]).median
        for name, rounds in results.races.items()
    }
    rows = []
    for case in cases:
        if not isinstance(case, Race) or case.name not in results.races:
            continue
        rounds = results.races[case.name]
        rate = Spread.of([drained.rate for drained in rounds])
        rows.append(
            (
                case.what,
                f"{case.requests:,}",
                f"{rate.median:,.0f}",
                f"{rate.least:,.0f}",
                f"{rate.most:,.0f}",
                *(f"{rate.median / medians[name]:.2f}" for name in against),
                f"{Spread.of([drained.cpu for drained in rounds]).median:.3f}",
                f"{Spread.of([drained.receiver_cpu for drained in rounds]).median:.3f}",
                f"{max(drained.peak for drained in rounds):.0f}",
            )
        )
    return Table(head, rows)


def figures(results: Results) -> Table:
    """Of what was measured of orchestratord alone."""
    rows = []
    for what, rounds in results.figures.items():
        spread = Spread.of([figure.value for figure in rounds])
        rows.append(
            (
                what,
                *(
                    _number(value, rounds[0])
                    for value in (spread.median, spread.least, spread.most)
                ),
            )
        )
    return Table(("", "median", "least", "most"), rows)


def _number(value: float, figure: Figure) -> str:
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f} {figure.unit}".strip()


def marks(name: str) -> tuple[str, str]:
    """The lines of a page between which the results of a program of this name stand."""
    return f"<!-- python -m {name} -->", f"<!-- end of python -m {name} -->"


def insert(page: Path, name: str, text: str) -> None:
    """Write `text` between the two marks of a page; a page that is new is made of it alone.

    Raises ValueError for a page without the marks.
    """
    begin, end = marks(name)
    old = page.read_text() if page.exists() else f"{begin}\n{end}\n"
    before, begun, rest = old.partition(begin)
    _, ended, after = rest.partition(end)
    if not begun or not ended:
        raise ValueError(f"{page} lacks the lines {begin!r} and {end!r}")
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}")
