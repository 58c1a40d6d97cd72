"""The line of a file that a problem is in, as it may be shown: cut to a width, and no secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping

from orchestratord.config.secret_keys import is_secret_key
from orchestratord.errors import Problem
from orchestratord.redact import MASK, Redactor

WIDTH = 400
"""Characters; the rest of a longer line is not shown."""
_LONGEST = 10 * WIDTH
"""Characters; a longer line that holds a secret is not shown."""

_ENDS = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
"""Where YAML begins another line."""
_KEY = re.compile(r"""(?<![\w.-])([\w.-]+)['"]?\s*:\s+['"]?""")
_NO_TEXT = ("${", "{", "[", "|", ">", "#", MASK)
"""How a value begins that is a reference, or no text in this line."""


class Lines:
    """The lines of files as they may be shown.

    Args:
        contents: what the files hold.
        redactor: knows the secrets that were found.
    """

    def __init__(self, contents: Mapping[str, bytes], redactor: Redactor) -> None:
        self._contents = contents
        self._redactor = redactor
        self._lines: dict[str, list[str]] = {}
        self._shown: dict[tuple[str, int], str | None] = {}
        """Line → as it is shown, whatever is complained about; None where that depends on it."""

    def of(self, problem: Problem) -> str:
        """The line that a problem is in; empty where it has no place, or one that is cut off."""
        if problem.line is None or problem.file not in self._contents:
            return ""
        lines = self._lines_of(problem.file)
        column = (problem.column or 1) - 1
        if problem.line > len(lines) or column > WIDTH:
            return ""
        place, line = (problem.file, problem.line), lines[problem.line - 1]
        if place not in self._shown:
            secret = self._redactor.text(line) != line
            self._shown[place] = None if secret else _fit(_without_values(line))
        shown = self._shown[place]
        return self._masked(line, column) if shown is None else shown

    def _lines_of(self, file: str) -> list[str]:
        if file not in self._lines:
            self._lines[file] = lines_of(self._contents[file])
        return self._lines[file]

    def _masked(self, line: str, column: int) -> str:
        if len(line) > _LONGEST:
            return ""
        # What stands before the column keeps its length, so that the column still is the place.
        before, after = line[:column], line[column:]
        hidden = self._redactor.text(before)
        if hidden != before:
            before = hidden[:column].ljust(column)
        return _fit(_without_values(before + self._redactor.text(after)))


def _fit(line: str) -> str:
    return "".join(c if c.isprintable() or c == "\t" else "\ufffd" for c in line[:WIDTH]).rstrip()


def lines_of(content: bytes) -> list[str]:
    """The lines of a file. What is no UTF-8 is what some problems are about."""
    return _ENDS.split(content.decode("utf-8", "replace").removeprefix("\ufeff"))


def _without_values(line: str) -> str:
    """The line up to a value that may be a secret, which nobody knows if the file is no YAML."""
    for match in _KEY.finditer(line):
        value = line[match.end() :]
        secret = is_secret_key(match[1]) or match[1] in ("bearer", "value")
        if secret and value and not value.startswith(_NO_TEXT):
            return line[: match.end()] + MASK.ljust(len(value))
    return line
