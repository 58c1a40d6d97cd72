"""A problem of the configuration as a compiler would show it: the line, a caret, and a hint."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestratord.errors import Problem

WIDTH = 100
"""Columns of the terminal that the line of a file may take."""

_WORD = re.compile(r"""[^\s:,\[\]{}'"#]+""")


def excerpt(problem: Problem) -> list[tuple[str, str]]:
    """The lines below a problem's first one, as pairs of what they are and their text.

    They are `source`, `caret` and `hint`; those that there is nothing to say in are left out.
    """
    lines: list[tuple[str, str]] = []
    number = "" if problem.line is None else str(problem.line)
    margin = max(len(number), 4)
    if problem.source and problem.line is not None:
        text, column = _part(problem.source, (problem.column or 1) - 1)
        word = _WORD.match(text, column)
        under = "^" + "~" * (len(word[0]) - 1 if word else 0)
        lines.append(("source", f" {number:>{margin}} | {text}"))
        blank = _blank(text[:column].ljust(column))
        lines.append(("caret", f" {'':{margin}} | {blank}{under}"))
    if problem.hint:
        lines.append(("hint", f" {'':{margin}} = {problem.hint}"))
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
