"""The line of a file that a problem is in, as it may be shown: cut to a width, and no secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping

from orchestratord.config.secret_keys import is_secret_key
from orchestratord.errors import Problem
from orchestratord.redact import MASK, Redactor

WIDTH = 400
"""Characters; the rest of a longer line is not shown."""

_ENDS = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
"""Where YAML begins another line."""
_KEY = re.compile(r"""([\w.-]+)['"]?\s*:\s+['"]?""")
_NO_TEXT = ("${", "{", "[", "|", ">", "#", MASK)
"""How a value begins that is a reference, or no text in this line."""


def source_line(
    problem: Problem,
    contents: Mapping[str, bytes],
    lines: dict[str, list[str]],
    redactor: Redactor,
) -> str:
    """The line that a problem is in; empty where it has no place, or one that is cut off.

    Args:
        problem: with file, line and column.
        contents: what the files hold.
        lines: the lines of files that were asked for before; it is added to.
        redactor: knows the secrets that were found.
    """
    if problem.line is None or problem.file not in contents:
        return ""
    if problem.file not in lines:
        lines[problem.file] = lines_of(contents[problem.file])
    found = lines[problem.file]
    column = (problem.column or 1) - 1
    if problem.line > len(found) or column > WIDTH:
        return ""
    line = found[problem.line - 1]
    # What stands before the column keeps its length, so that the column still is the place.
    before, after = line[:column], line[column:]
    hidden = redactor.text(before)
    if hidden != before:
        before = hidden[:column].ljust(column)
    line = _without_values(before + redactor.text(after))
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
