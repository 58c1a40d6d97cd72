"""All that is wrong, gathered: each thing once, however many endpoints inherit it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from orchestratord.config.positions import Spot
from orchestratord.errors import Problem
from orchestratord.redact import Redactor


class Problems:
    """Errors and warnings of one reading of the folder."""

    def __init__(self) -> None:
        self._found: dict[tuple[object, ...], Problem] = {}
        self._said: set[tuple[Spot, str]] = set()

    def error(self, spot: Spot, message: str) -> None:
        """Something that refuses the configuration."""
        self.add(Problem(message, spot.file, spot.line, spot.column, spot.key))

    def warn(self, spot: Spot, message: str) -> None:
        """Something that is shown, and refuses nothing."""
        self.add(Problem(message, spot.file, spot.line, spot.column, spot.key, "warning"))

    def once(self, spot: Spot, message: str, *, about: str) -> None:
        """An error about one thing at one place, of which many endpoints may complain."""
        key = (spot, about)
        if key not in self._said:
            self._said.add(key)
            self.error(spot, message)

    def add(self, problem: Problem) -> None:
        """One that knows its place, or has none."""
        key = (problem.file, problem.line, problem.column, problem.key, problem.message)
        self._found.setdefault(key, problem)

    def extend(self, problems: Iterable[Problem]) -> None:
        """Several of these."""
        for problem in problems:
            self.add(problem)

    @property
    def any_error(self) -> bool:
        """True where the configuration is refused."""
        return any(problem.severity == "error" for problem in self._found.values())

    def errors(self, redactor: Redactor) -> tuple[Problem, ...]:
        """The errors in the order of the files, without secrets."""
        return self._sorted("error", redactor)

    def warnings(self, redactor: Redactor) -> tuple[Problem, ...]:
        """The warnings in the order of the files, without secrets."""
        return self._sorted("warning", redactor)

    def _sorted(self, severity: str, redactor: Redactor) -> tuple[Problem, ...]:
        chosen = [problem for problem in self._found.values() if problem.severity == severity]
        chosen.sort(key=lambda p: (p.file, p.line or 0, p.column or 0, p.key, p.message))
        return tuple(
            replace(p, message=_one_line(redactor.text(p.message)), key=_one_line(p.key))
            for p in chosen
        )


def _one_line(text: str) -> str:
    """`text` without line breaks and control characters, which a quoted value may hold."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
