"""A problem of the configuration as a compiler would show it: the line, a caret, and a hint.

`orchestratord check` draws with it, too.
"""

from __future__ import annotations

import re
import unicodedata

WIDTH = 72
"""Characters of a file's line that are shown; 80 columns hold them and the margin."""

_WORD = re.compile(r"""[^\s:,\[\]{}'"#]+""")


def excerpt(source: str, line: int | None, column: int | None, hint: str) -> list[tuple[str, str]]:
    """The lines below a problem's first one, as pairs of what they are and their text.

    They are `source`, `caret` and `hint`; those that there is nothing to say in are left out.

    Args:
        source: the line that the problem is in; may be empty.
        line: its number, from 1; None where the problem has no place.
        column: where in the line, from 1.
        hint: what could stand there; may be empty.
    """
    lines: list[tuple[str, str]] = []
    number = "" if line is None else str(line)
    margin = max(len(number), 4)
    if source and line is not None:
        text, at = _part(source, (column or 1) - 1)
        word = _WORD.match(text, at)
        under = "^" + "~" * (len(word[0]) - 1 if word else 0)
        lines.append(("source", f" {number:>{margin}} | {text}"))
        blank = _blank(text[:at].ljust(at))
        lines.append(("caret", f" {'':{margin}} | {blank}{under}"))
    if hint:
        lines.append(("hint", f" {'':{margin}} = {hint}"))
    return lines


def _part(text: str, column: int) -> tuple[str, int]:
    """As much of a line as fits, and where the column is in it."""
    start = max(column - WIDTH // 2, 0) if len(text) > WIDTH else 0
    part = text[start : start + WIDTH]
    if start:
        part = "…" + part[1:]
    if start + WIDTH < len(text):
        part = part[:-1] + "…"
    return part, column - start


def _blank(text: str) -> str:
    """Blanks as wide as a text: some characters take two columns, a tab what the terminal gives."""
    return "".join(
        "\t" if c == "\t" else "  " if unicodedata.east_asian_width(c) in "WF" else " "
        for c in text
        if not unicodedata.combining(c)
    )
