"""How far something long has come: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import os
import time

from orchestratorctl.render import number
from orchestratorctl.screen import Screen
from orchestratorctl.times import span

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Seconds between the lines of a log that nobody watches.
LINE_EVERY = 10.0
_BAR = 24


class Progress:
    """Shows on stderr how far a bulk is.

    Args:
        name: what it is called in the words.
    """

    def __init__(self, screen: Screen, name: str) -> None:
        self._screen = screen
        self._name = name
        self._started: tuple[float, int] | None = None
        self._drawn = 0
        self._last_line: float | None = None
        self._is_away = False
        encoding = (getattr(screen.stderr, "encoding", None) or "").lower().replace("-", "")
        self._full, self._empty = ("█", "░") if encoding == "utf8" else ("#", ".")

    def show(self, bulk: dict[str, Any]) -> None:
        """Draws the bulk as it is."""
        self._is_away = False
        matched = int(bulk.get("matched") or 0)
        done = int(bulk.get("moved") or 0) + int(bulk.get("skipped") or 0)
        now = time.monotonic()
        if self._started is None:
            self._started = (now, done)
        if self._screen.watched:
            self._draw(self._picture(matched, done, now))
        elif self._last_line is None or now - self._last_line >= LINE_EVERY:
            self._last_line = now
            self._screen.say(f"{self._name}: {number(done)} of {number(matched)} tasks retried")

    def away(self) -> None:
        """Says that the daemon does not answer at the moment."""
        words = f"{self._name}: the daemon is away, waiting for it"
        if self._screen.watched:
            self._draw(words)
        elif not self._is_away:
            self._screen.say(words)
        self._is_away = True

    def close(self) -> None:
        """Leaves the bar's line, so that what follows stands below it."""
        if self._drawn:
            self._drawn = 0
            self._screen.stderr.write("\n")
            self._screen.stderr.flush()

    def _picture(self, matched: int, done: int, now: float) -> str:
        share = min(done / matched, 1.0) if matched else 1.0
        full = int(share * _BAR)
        parts = [
            self._name,
            self._full * full + self._empty * (_BAR - full),
            f"{number(done)}/{number(matched)}",
            f"{share:.0%}",
        ]
        started, first = self._started or (now, done)
        if first < done < matched:
            parts.append(f"{span((matched - done) * (now - started) / (done - first))} left")
        return "  ".join(parts)

    def _draw(self, line: str) -> None:
        room = self._room()
        shown = line if room is None else line[:room]
        self._screen.stderr.write("\r" + shown.ljust(self._drawn))
        self._screen.stderr.flush()
        self._drawn = len(shown)

    def _room(self) -> int | None:
        """What fits on the terminal's line without going on to the next."""
        try:
            return max(os.get_terminal_size(self._screen.stderr.fileno()).columns - 1, 0) or None
        except (OSError, ValueError):
            return None
