"""The lines of a text, by the places of their characters."""

from __future__ import annotations

import re
from collections.abc import Iterable

_COMMENT = re.compile(r"( *)#[^\n]*(?:\n|\Z)")
_GAP = re.compile(r"(?:[ \t\r\n]|(?<!\S)#[^\n]*)*")


class Lines:
    """A text, and where its lines begin and end.

    Args:
        text: without a byte-order mark.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.newline = "\r\n" if "\r\n" in text else "\n"

    def start(self, index: int) -> int:
        """Where the line begins that a place is in."""
        return self.text.rfind("\n", 0, index) + 1

    def end(self, index: int) -> int:
        """Where the next line begins; `index` itself where a line begins there already."""
        if index > 0 and self.text[index - 1] == "\n":
            return index
        end = self.text.find("\n", index)
        return len(self.text) if end < 0 else end + 1

    def begins_at(self, index: int) -> bool:
        """Whether nothing but blanks stands before a place in its line."""
        return not self.text[self.start(index) : index].strip(" ")

    def after_comments(self, index: int, column: int) -> int:
        """The end of the comments that follow at once, further to the right than `column`."""
        while (match := _COMMENT.match(self.text, index)) and len(match[1]) > column:
            index = match.end()
        return index

    def after_gap(self, index: int) -> int:
        """Where something stands that is neither blank nor comment."""
        match = _GAP.match(self.text, index)
        return match.end() if match else index

    def joined(self, lines: Iterable[str]) -> str:
        """Lines as a text."""
        return "".join(line + self.newline for line in lines)

    def closed(self, text: str) -> str:
        """`text` with a line break at its end, which only the last line of a file may lack."""
        return text if not text or text.endswith("\n") else text + self.newline
