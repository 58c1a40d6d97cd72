"""What happened in a universe, in its order: the same for the same seed."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation.universe import Universe


class Trace:
    """The lines of one universe."""

    def __init__(self, universe: Universe) -> None:
        self._universe = universe
        self._lines: list[tuple[float, int, str, tuple[object, ...]]] = []

    def note(self, who: str, *what: object) -> None:
        """Note that something happened just now."""
        baton = self._universe.baton
        self._lines.append((baton.now, baton.turns, who, what))

    def lines(self) -> list[str]:
        """As a person can read it: when, at which turn, in which process, what."""
        begun = self._lines[0][0] if self._lines else 0.0
        return [
            f"{at - begun:12.6f} {turn:8d} {who:12} {' '.join(map(str, what))}"
            for at, turn, who, what in self._lines
        ]

    def digest(self) -> str:
        """What tells one trace from another."""
        return hashlib.sha256("\n".join(self.lines()).encode()).hexdigest()[:16]
