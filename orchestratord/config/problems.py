"""All that is wrong, gathered: each thing once, however many endpoints inherit it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from orchestratord.config.positions import Spot
from orchestratord.config.sources import Lines
from orchestratord.errors import Problem
from orchestratord.redact import Redactor

_LONGEST = 600
"""Characters of a message."""


class Problems:
    """Errors and warnings of one reading of the folder."""

    def __init__(self) -> None:
        self.errors = 0
        """How many errors there were to complain about, those that were said already included."""
        self._found: list[Problem] = []
        self._said: set[tuple[Spot, str]] = set()

    def __len__(self) -> int:
        return len(self._found)

    def since(self, length: int) -> list[Problem]:
        """What came since there were so many."""
        return self._found[length:]

    def error(self, spot: Spot, message: str, hint: str = "") -> None:
        """Something that refuses the configuration. `hint`: what could stand there."""
        self.add(Problem(message, spot.file, spot.line, spot.column, spot.key, hint=hint))

    def warn(self, spot: Spot, message: str) -> None:
        """Something that is shown, and refuses nothing."""
        self.add(Problem(message, spot.file, spot.line, spot.column, spot.key, "warning"))

    def once(self, spot: Spot, message: str, *, about: str) -> None:
        """An error about one thing at one place, of which many endpoints may complain."""
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
        # Each once: what endpoints inherit is complained about for each of them.
        found = {(p.file, p.line, p.column, p.key, p.message): p for p in reversed(self._found)}
        chosen = sorted(
            found.values(),
            key=lambda p: (p.severity, p.file, p.line or 0, p.column or 0, p.key, p.message),
        )
        lines = Lines(contents, redactor)
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


def _one_line(text: str) -> str:
    """`text` without line breaks and control characters, which a quoted value may hold.

    A value may also be endless: then its middle is left out, since the remedy is at the end.
    """
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST // 2]} … {text[-_LONGEST // 2 :]}"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
