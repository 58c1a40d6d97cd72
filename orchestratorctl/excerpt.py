"""A problem in the configuration as a compiler would show it: the line, a caret, and a hint.

`orchestratord check` draws with it, too.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

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


def error_lines(errors: Iterable[Any]) -> list[str]:
    """Each error as `file:line:column: key: message`, without the parts that it lacks."""
    return [_error_line(error) for error in errors]


def error_excerpt(error: Any) -> list[str]:
    """The error's line, and below it the line of the file with a caret, and a hint, if known."""
    first = _error_line(error)
    if not isinstance(error, dict):
        return [first]
    source, hint = (str(error.get(key) or "") for key in ("source", "hint"))
    line, column = error.get("line"), error.get("column")
    if not (source or hint) or not all(
        part is None or type(part) is int for part in (line, column)
    ):
        return [first]
    # A tab would be written out, and the caret no longer stand below its place.
    below = excerpt(source.replace("\t", " "), line, column, hint)
    return [first, *(text for _, text in below)]


def _error_line(error: Any) -> str:
    if not isinstance(error, dict):
        return str(error)
    place = [error.get("file"), error.get("line"), error.get("column")]
    position = ":".join(str(part) for part in place if part is not None)
    parts = (position, error.get("key"), error.get("message"))
    return ": ".join(str(part) for part in parts if part)
