"""All that is wrong, gathered: each thing once, however many endpoints inherit it.

`SourceLines` has the line of a file that a problem is in, as it may be shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from orchestratord.config.validate.secret_keys import is_secret_key
from orchestratord.config.yaml.nodes import Node, Spot, locate
from orchestratord.errors import Problem
from orchestratord.values.redact import MASK, Redactor

_LONGEST = 600
"""Characters of a message."""
WIDTH = 400
"""Characters; the rest of a longer line is not shown."""
_LONGEST_LINE = 10 * WIDTH
"""Characters; a longer line that holds a secret is not shown."""

_ENDS = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
"""Where YAML begins another line."""
_KEY = re.compile(r"""(?<![\w.-])([\w.-]+)['"]?\s*:\s+['"]?""")
_NO_TEXT = ("${", "{", "[", "|", ">", "#", MASK)
"""How a value begins that is a reference, or no text in this line."""


class Problems:
    """Errors and warnings of one reading of the folder."""

    def __init__(self) -> None:
        self.errors = 0
        """How many errors there were, those that were said already included."""
        self._found: list[Problem] = []
        self._said: set[tuple[Spot, str]] = set()

    def __len__(self) -> int:
        return len(self._found)

    def since(self, length: int) -> list[Problem]:
        """What came since there were so many."""
        return self._found[length:]

    def error(self, spot: Spot, message: str, hint: str = "") -> None:
        """Something that refuses the configuration. `hint`: what could stand there."""
        self.add(spot.problem(message, hint=hint))

    def warn(self, spot: Spot, message: str) -> None:
        """Something that is shown, and refuses nothing."""
        self.add(spot.problem(message, "warning"))

    def once(self, spot: Spot, message: str, *, about: str) -> None:
        """An error about one thing at one place, which many endpoints may have."""
        key = (spot, about)
        if key in self._said:
            self.errors += 1
        else:
            self._said.add(key)
            self.error(spot, message)

    def add(self, problem: Problem) -> None:
        """One that knows its place, or has none."""
        if problem.severity == "error":
            self.errors += 1
        self._found.append(problem)

    def extend(self, problems: Iterable[Problem]) -> None:
        """Several of these."""
        for problem in problems:
            self.add(problem)

    def sorted(self, redactor: Redactor, contents: Mapping[str, bytes]) -> tuple[Problem, ...]:
        """The errors in the order of the files, then the warnings; without secrets.

        Args:
            redactor: of the present reading.
            contents: what the files hold, for the lines that problems are in.
        """
        # Each once: what endpoints inherit is reported for each of them.
        found = {(p.file, p.line, p.column, p.key, p.message): p for p in reversed(self._found)}
        chosen = sorted(
            found.values(),
            key=lambda p: (p.severity, p.file, p.line or 0, p.column or 0, p.key, p.message),
        )
        lines = SourceLines(contents, redactor)
        return tuple(
            replace(
                p,
                message=_one_line(redactor.text(p.message)),
                key=_one_line(p.key),
                hint=_one_line(redactor.text(p.hint)),
                source=p.source or lines.of(p),
            )
            for p in chosen
        )


@dataclass(frozen=True, slots=True)
class KeyProblems:
    """Reports problems of one tree, each at the key that a path leads to.

    Args:
        problems: where they are gathered.
        spot: where the tree stands.
        node: the tree.
    """

    problems: Problems
    spot: Spot
    node: Node

    def located(self, *path: str | int) -> tuple[Spot, Node, list[str]]:
        """See `locate`."""
        return locate(self.spot, self.node, path)

    def at(self, *path: str | int) -> Spot:
        """The place that a path leads to, or the last one found on the way."""
        return self.located(*path)[0]

    def error(self, message: str, *path: str | int) -> None:
        """See `Problems.error`."""
        self.problems.error(self.at(*path), message)

    def warn(self, message: str, *path: str | int) -> None:
        """See `Problems.warn`."""
        self.problems.warn(self.at(*path), message)


def _one_line(text: str) -> str:
    """`text` without line breaks and control characters, which a quoted value may hold.

    A value may also be endless: then its middle is left out, since the remedy is at the end.
    """
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST // 2]} … {text[-_LONGEST // 2 :]}"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class SourceLines:
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
        """Line → as it is shown, whatever the problem is; None where that depends on it."""

    def of(self, problem: Problem) -> str:
        """The line that a problem is in; empty where it has no place, or one that is cut off."""
        if problem.line is None or problem.file not in self._contents:
            return ""
        lines = self._lines.get(problem.file)
        if lines is None:
            lines = self._lines[problem.file] = lines_of(self._contents[problem.file])
        column = (problem.column or 1) - 1
        if problem.line > len(lines) or column > WIDTH:
            return ""
        place, line = (problem.file, problem.line), lines[problem.line - 1]
        if place not in self._shown:
            secret = self._redactor.text(line) != line
            self._shown[place] = None if secret else _fit(_without_values(line))
        shown = self._shown[place]
        return self._masked(line, column) if shown is None else shown

    def _masked(self, line: str, column: int) -> str:
        if len(line) > _LONGEST_LINE:
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
    """The line up to a value that may be a secret, which is not known if the file is no YAML."""
    for match in _KEY.finditer(line):
        value = line[match.end() :]
        secret = is_secret_key(match[1]) or match[1] in ("bearer", "value")
        if secret and value and not value.startswith(_NO_TEXT):
            return line[: match.end()] + MASK.ljust(len(value))
    return line
