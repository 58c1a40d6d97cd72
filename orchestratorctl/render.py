"""Tables and labelled fields."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from orchestratorctl.screen import Screen
from orchestratorctl.text import cut, cut_middle, escape, wrap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

GAP = "  "
_NARROWEST = 8
_COMFORTABLE = 16


class Painted:
    """A text that stands out, in one of the screen's colours."""

    __slots__ = ("colour", "text")

    def __init__(self, text: str, colour: str | None) -> None:
        self.text = text
        self.colour = colour


class Column:
    """How a table's column looks.

    Args:
        title: its heading.
        right: whether its cells stand at the right, as numbers do.
        cut: `end` or `middle`, where a cell may be shortened when the line is too short;
            None, and it stays whole.
        spare: whether it is left out before others are shortened much.
    """

    __slots__ = ("cut", "right", "spare", "title")

    def __init__(
        self, title: str, *, right: bool = False, cut: str | None = None, spare: bool = False
    ) -> None:
        self.title = title
        self.right = right
        self.cut = cut
        self.spare = spare


def table(
    columns: Sequence[Column], rows: Iterable[Sequence[str | Painted]], screen: Screen
) -> list[str]:
    """The lines of a table: headings, then one line a row, none longer than the screen."""
    cells = [
        [cell if isinstance(cell, Painted) else Painted(cell, None) for cell in row] for row in rows
    ]
    texts = [[escape(cell.text) for cell in row] for row in cells]
    widths = [
        max([len(column.title), *(len(row[at]) for row in texts)])
        for at, column in enumerate(columns)
    ]
    shown = list(range(len(columns)))
    if screen.width is not None:
        silent = [at for at in shown if texts and all(row[at] in ("", "-") for row in texts)]
        shown = _fit(columns, widths, silent, screen.width)
    lines = []
    head = [columns[at].title for at in shown]
    lines.append(screen.paint(_line(columns, widths, shown, head), "dim"))
    for row, painted in zip(texts, cells, strict=True):
        line = [_shorten(row[at], widths[at], columns[at].cut) for at in shown]
        lines.append(
            _line(columns, widths, shown, line, [painted[at].colour for at in shown], screen)
        )
    return lines


def _fit(
    columns: Sequence[Column], widths: list[int], silent: Sequence[int], width: int
) -> list[int]:
    """Shortens `widths` to fit; the numbers of the columns that remain.

    Columns are left out, silent ones first and then the spare, only where the others would have
    to be shortened too much.
    """
    shown = list(range(len(columns)))

    def excess(longest: int | None = None) -> int:
        texts = (
            min(widths[at], longest) if longest and columns[at].cut else widths[at] for at in shown
        )
        return sum(texts) + len(GAP) * (len(shown) - 1) - width

    spare = [at for at in shown if columns[at].spare]
    for at in dict.fromkeys([*silent, *spare]):
        if excess(_COMFORTABLE) > 0:
            shown.remove(at)
    flexible = [at for at in shown if columns[at].cut]
    while excess() > 0 and flexible:
        widest = max(flexible, key=lambda at: widths[at])
        if widths[widest] <= max(_NARROWEST, len(columns[widest].title)):
            break
        widths[widest] -= 1
    return shown


def _shorten(text: str, width: int, how: str | None) -> str:
    return cut_middle(text, width) if how == "middle" else cut(text, width)


def _line(
    columns: Sequence[Column],
    widths: Sequence[int],
    shown: Sequence[int],
    texts: Sequence[str],
    colours: Sequence[str | None] = (),
    screen: Screen | None = None,
) -> str:
    parts = []
    for place, at in enumerate(shown):
        text = texts[place]
        last = place == len(shown) - 1
        blank = "" if last and not columns[at].right else " " * (widths[at] - len(text))
        if screen is not None:
            text = screen.paint(text, colours[place])
        parts.append(blank + text if columns[at].right else text + blank)
    return GAP.join(parts).rstrip()


def fields(
    pairs: Iterable[tuple[str, str | Painted]], screen: Screen, indent: str = "  "
) -> list[str]:
    """The lines of labelled values; a long value goes on below itself."""
    given = [
        (label, value if isinstance(value, Painted) else Painted(value, None))
        for label, value in pairs
    ]
    label_width = max((len(label) for label, _ in given), default=0)
    taken = len(indent) + label_width + len(GAP)
    room = None if screen.width is None else max(screen.width - taken, 20)
    lines = []
    for label, value in given:
        for at, text in enumerate(wrap(escape(value.text), room)):
            head = screen.paint(label.ljust(label_width), "dim") if at == 0 else " " * label_width
            lines.append(f"{indent}{head}{GAP}{screen.paint(text, value.colour)}".rstrip())
    return lines


def compact(value: Any) -> str:
    """A value of the API in one line: texts as they are, anything else as JSON."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def number(value: Any) -> str:
    """A count with its thousands set apart; `-` where it is missing."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return compact(value)
    return f"{value:,}"


def size(value: Any) -> str:
    """Bytes as `12.3 MiB`."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return compact(value)
    amount = float(value)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"
