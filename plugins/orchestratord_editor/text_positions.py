"""Where things begin and end in the text of a file, and where its lines do.

Only places are taken from the parser; what the file means has been read before. An alias is a
thing of its own here, and not what it repeats.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import yaml

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_BREAKS = ("\n", "\r", "\x85", "\u2028", "\u2029")
_PAIR = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}")
"""A character beyond U+FFFF as JSON writes it, and YAML does not."""
_KEEP = re.compile(r"[|>][0-9]*\+")
_COMMENT = re.compile(r"( *)#[^\n]*(?:\n|\Z)")
_GAP = re.compile(r"(?:[ \t\r\n]|(?<!\S)#[^\n]*)*")
_BLANK_END = re.compile(r"\n(?:[ \t]*\r?\n)+\Z")


class NoPlace(Exception):
    """The list cannot be written without touching something else; `str()` says why."""


@dataclass(slots=True, eq=False)
class Extent:
    """One thing: from `start` to `end`, where the next character stands that is none of it.

    `column` is that of its beginning, from 0, and `text` what a scalar says. `kind` is `map`,
    `list`, `scalar` or `alias`; `style` is `block` or `flow`, of a scalar its quotes. With an
    anchor it begins at that.
    """

    kind: str
    style: str
    start: int
    end: int
    column: int
    text: str = ""
    anchored: bool = False
    children: list[Extent] = field(default_factory=list)

    @property
    def entries(self) -> list[tuple[Extent, Extent]]:
        """A mapping's keys, each with its value."""
        found = iter(self.children)
        return list(zip(found, found, strict=True))

    @property
    def in_lines(self) -> bool:
        """Whether its lines are its own: a block style, also of a text."""
        return self.style in ("block", "|", ">")


def extents_of(text: str) -> tuple[Extent | None, int]:
    """The root of a text that was read before, None where it is empty; and where its document ends.

    Raises NoPlace.
    """
    try:
        return _extents(text)
    except (yaml.YAMLError, RecursionError, ValueError):
        # What the parser says of it quotes the file.
        raise NoPlace("the file is written in a way that cannot be changed in place") from None


def _extents(text: str) -> tuple[Extent | None, int]:
    # As it was read: a block text that ends with the file would lose its last line break.
    closed = text if text.endswith(_BREAKS) else text + "\n"
    loader: Any = _LOADER(_PAIR.sub(r"\\u0020\\u0020", closed))
    root: Extent | None = None
    opened: list[Extent] = []
    end = len(text)
    try:
        for event in iter(loader.get_event, None):
            begins, ends = event.start_mark.index, event.end_mark.index
            if isinstance(event, yaml.DocumentEndEvent) and event.explicit:
                end = begins
            if isinstance(event, yaml.CollectionEndEvent):
                done = opened.pop()
                # Of a block, the parser's mark is where something else begins.
                inside = done.children[-1].end if done.children else done.end
                done.end = ends if done.style == "flow" else inside
            if not isinstance(event, yaml.NodeEvent):
                continue
            extent = _extent(event, text)
            if opened:
                opened[-1].children.append(extent)
            else:
                root = extent
            if isinstance(event, yaml.CollectionStartEvent):
                opened.append(extent)
    finally:
        loader.dispose()
    return root, end


def _extent(event: Any, text: str) -> Extent:
    start, end = event.start_mark.index, min(event.end_mark.index, len(text))
    anchored = getattr(event, "anchor", None) is not None
    column = event.start_mark.column
    if isinstance(event, yaml.CollectionStartEvent):
        kind = "map" if isinstance(event, yaml.MappingStartEvent) else "list"
        style = "flow" if event.flow_style else "block"
        return Extent(kind, style, start, end, column, anchored=anchored)
    if isinstance(event, yaml.AliasEvent):
        return Extent("alias", "", start, end, column)
    style = event.style or ""
    blank = _BLANK_END.search(text, start, end) if style in ("|", ">") else None
    if blank is not None and not _KEEP.search(text, start, text.find("\n", start)):
        end = blank.start() + 1  # blank lines behind it are none of it
    return Extent("scalar", style, start, end, column, event.value, anchored)


class TextLines:
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
