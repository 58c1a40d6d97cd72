"""Where output goes: data to stdout, messages to stderr, colour only on a terminal."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable

from orchestratorctl.formats import code, escape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TextIO

PROGRAM = "orchestratorctl"
_COLOURS = {"red": "31", "green": "32", "yellow": "33", "cyan": "36", "dim": "2", "bold": "1"}


class Console:
    """The two streams of a command and what they can show, by NO_COLOR, TERM and COLUMNS.

    Args:
        output: `table`, `json` or `yaml`.

    Attributes:
        tables: whether the data is for people rather than programs.
        width: how many characters a line of stdout holds; None: no limit, as in a pipe.
        watched: whether stderr is a terminal.
    """

    def __init__(self, output: str = "table") -> None:
        self.output = output
        self.tables = output == "table"
        self.stdout = sys.stdout
        self.stderr = sys.stderr
        self.width = _width(self.stdout)
        self.watched = self.stderr.isatty()
        self._colour = (
            self.stdout.isatty()
            and not os.environ.get("NO_COLOR")
            and os.environ.get("TERM") != "dumb"
        )

    def paint(self, text: str, colour: str | None) -> str:
        """`text`, made harmless, in a colour by name, or plain where colours are off."""
        text = escape(text)
        if colour is None or not self._colour:
            return text
        return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m"

    def room(self, taken: int) -> int | None:
        """How much of a line of stdout there is beside `taken` characters; None: no limit."""
        return None if self.width is None else max(self.width - taken, 20)

    def lines(self, lines: list[str]) -> None:
        """Writes finished lines of data to stdout."""
        self.stdout.write("".join(f"{line}\n" for line in lines))

    def show(self, document: Any, lines: Callable[[], list[str]]) -> None:
        """Writes `document` to stdout: for people as `lines()`, for programs as data."""
        if self.tables:
            self.lines(lines())
        else:
            self.data(document)

    def report(self, document: Any, sentence: str) -> None:
        """Says to people on stderr what was done; programs get `document` on stdout."""
        if self.tables:
            self.say(sentence)
        else:
            self.data(document)

    def document(self, document: Any) -> None:
        """Writes one of many documents to stdout at once: a line of JSON, or YAML after `---`."""
        if self.output == "yaml":
            self.stdout.write("---\n")
            self.data(document)
        else:
            self.stdout.write(escape(json.dumps(document, ensure_ascii=False)) + "\n")
        self.stdout.flush()

    def data(self, document: Any) -> None:
        """Writes `document` to stdout as JSON or YAML."""
        if self.output == "yaml":
            import yaml

            text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
            if not text.replace("\n", "").isprintable():
                text = yaml.safe_dump(document, sort_keys=False)
        else:
            text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
            if not text.replace("\n", "").isprintable():
                text = "".join(c if c.isprintable() or c == "\n" else code(c) for c in text)
        self.stdout.write(text)

    def say(self, *lines: str) -> None:
        """Writes messages to stderr, each line harmless."""
        # What was written to stdout so far comes first where both are one terminal.
        self.stdout.flush()
        self.stderr.write("".join(f"{escape(line)}\n" for line in lines))
        self.stderr.flush()

    def hint(self, *lines: str) -> None:
        """Writes messages that help only a person at a terminal."""
        if self.watched:
            self.say(*lines)

    def complain(self, message: str, *details: str) -> None:
        """Says what failed, with the program's name, and its details below.

        The details stand at the margin, where an editor reads `file:line:column:`.
        """
        self.say(f"{PROGRAM}: {message}", *details)


def _width(stream: TextIO) -> int | None:
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns) > 0:
        return max(int(columns), 20)
    if not stream.isatty():
        return None
    try:
        return max(os.get_terminal_size(stream.fileno()).columns, 20)
    except (OSError, ValueError):
        return 80
