"""The demo's terminal: lines that stay, and below them one that says what is waiting.

Without a terminal there are only the lines; NO_COLOR and TERM=dumb take the colours away.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from typing import TextIO

from orchestratord.log import escape

_COLOURS = {
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "cyan": "36",
    "dim": "2",
    "bold": "1",
}


class Screen:
    """Writes to `stream`. What comes from elsewhere is escaped here, and nowhere else."""

    def __init__(self, stream: TextIO, environ: Mapping[str, str] = os.environ) -> None:
        terminal = stream.isatty() and environ.get("TERM") != "dumb"
        self._stream = stream
        self._live = terminal
        self._colour = terminal and not environ.get("NO_COLOR")
        self._begun = time.monotonic()
        self._footer = ""

    def begin(self) -> None:
        """The clock of `event` starts here."""
        self._begun = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since `begin`."""
        return time.monotonic() - self._begun

    def line(self, *parts: str | tuple[str, str]) -> None:
        """Write one line of texts, or of (text, colour)."""
        painted = "".join(self._paint(part) for part in parts)
        self._stream.write(f"{self._erased()}{painted}\n{self._footer}")
        self._stream.flush()

    def event(self, *parts: str | tuple[str, str]) -> None:
        """Write one line that begins with the time."""
        self.line((f"{self.seconds:6.1f}s  ", "dim"), *parts)

    def heading(self, text: str) -> None:
        """Write what is about to be seen."""
        self.line()
        self.line((f"{self.seconds:6.1f}s  {text}", "bold"))

    def footer(self, text: str) -> None:
        """Replace the line at the bottom; an empty text takes it away."""
        if not self._live:
            return
        width = shutil.get_terminal_size().columns - 1
        # No line break, and shorter than the terminal: the line can be erased again.
        footer = self._paint((text[:width], "dim")) if text else ""
        if footer != self._footer:
            self._stream.write(self._erased() + footer)
            self._stream.flush()
            self._footer = footer

    def _erased(self) -> str:
        return "\r\x1b[2K" if self._footer else ""

    def _paint(self, part: str | tuple[str, str]) -> str:
        if isinstance(part, str):
            return escape(part)
        text, colour = escape(part[0]), part[1]
        return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if self._colour and colour else text
