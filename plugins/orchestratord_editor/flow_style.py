"""Flow style, of which JSON is a part: what stands in brackets is changed between these alone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from orchestratord import flow_yaml, nodes
from orchestratord_editor.item_matching import ListChange, same
from orchestratord_editor.text_positions import Extent, TextLines

_GAP = re.compile(r"\s*,\s*")
_BRACKETS = {"map": "{}", "list": "[]"}

Piece = tuple[int | None, str]
"""What stands between two commas; which of the old ones it is, None for a new one."""


class Flow:
    """Writes collections in flow style anew.

    Args:
        lines: the text that they stand in.
        root: of the text; where it is in flow style, its first key says how keys are written.
    """

    def __init__(self, lines: TextLines, root: Extent | None) -> None:
        self._lines = lines
        self._text = lines.text
        self._root = root
        self._json = False
        self._blank = " "
        self._step = 0
        """Blanks by which each level is indented; 0 where all stands in one line."""
        if root is not None and root.style == "flow":
            first = root.children[0] if root.children else None
            self._json = first is None or first.style == '"'
            if first is not None and "\n" in self._text[root.start : first.start]:
                self._blank = "\t" if self._text[first.start - 1] == "\t" else " "
                self._step = max(first.column - _indent(lines, root.start), 1)

    def value(self, extent: Extent, new: Any, old: nodes.Node | None) -> str:
        """The text of a value, with `new` in place of `old`."""
        if old is not None and same(nodes.data_of(old), new):
            return self._text[extent.start : extent.end]
        if extent.style == "flow":
            if extent.kind == "map" and isinstance(new, Mapping) and isinstance(old, nodes.MapNode):
                return self._mapping(extent, new, old)
            if extent.kind == "list" and isinstance(new, list) and isinstance(old, nodes.ListNode):
                return self.items(extent, ListChange.of(old, new))
        return self._written(new)

    def items(self, list_: Extent, change: ListChange) -> str:
        """The text of a list with other items."""
        spans = [(item.start, item.end) for item in list_.children]
        several = bool(spans) and "\n" in self._text[list_.start : spans[0][0]]
        pad = list_.children[0].column if several else 0
        pieces: list[Piece] = []
        for value, old in zip(change.new, change.kept, strict=True):
            if old is None:
                pieces.append((None, self._written(value, pad)))
            else:
                pieces.append((old, self.value(list_.children[old], value, change.before[old])))
        return self._joined(list_, spans, pieces)

    def root(self, key: str, change: ListChange, *, fine: bool) -> str:
        """The text of the root with this list under a key, which an empty one takes out."""
        assert self._root is not None
        pieces: list[Piece] = []
        found = False
        for number, (name, child) in enumerate(self._root.entries):
            written = self._text[name.start : child.end]
            if name.text == key:
                found = True
                if not change.new:
                    continue
                if fine and child.style == "flow" and child.children and child.kind == "list":
                    value = self.items(child, change)
                else:
                    value = self._list(change.new, name.column)
                written = self._head(name, child) + value
            pieces.append((number, written))
        if not found and change.new:
            entries = self._root.entries
            column = entries[0][0].column if entries else 0
            pieces.append((None, f"{self._key(key)}: {self._list(change.new, column)}"))
        return self._joined(self._root, _spans(self._root), pieces)

    def _mapping(self, extent: Extent, new: Mapping[str, Any], old: nodes.MapNode) -> str:
        pieces: list[Piece] = []
        for number, (key, child) in enumerate(extent.entries):
            if key.text in new and key.text in old.entries:
                value = new[key.text]
                before = old.entries[key.text][1]
                written = self._text[key.start : child.end]
                if not same(nodes.data_of(before), value):
                    written = self._head(key, child) + self.value(child, value, before)
                pieces.append((number, written))
        pieces += [
            (None, f"{self._key(key)}: {self._written(value)}")
            for key, value in new.items()
            if key not in old.entries
        ]
        return self._joined(extent, _spans(extent), pieces)

    def _joined(
        self, extent: Extent, spans: Sequence[tuple[int, int]], pieces: Sequence[Piece]
    ) -> str:
        """Pieces in the brackets of a collection, with what stands between them where it stays."""
        if not pieces:
            return _BRACKETS[extent.kind]
        text = self._text
        opening = text[extent.start : spans[0][0]] if spans else _BRACKETS[extent.kind][0]
        closing = text[spans[-1][1] : extent.end] if spans else _BRACKETS[extent.kind][1]
        gaps = [text[one[1] : other[0]] for one, other in pairwise(spans)]
        usual = next((gap for gap in gaps if _GAP.fullmatch(gap)), None)
        if usual is None:
            inside = opening.rpartition("\n")[2]
            usual = f",{self._lines.newline}{inside}" if "\n" in opening else ", "
        written = opening + pieces[0][1]
        for (before, _), (number, piece) in pairwise(pieces):
            beside = before is not None and number == before + 1
            written += (gaps[before] if beside and before is not None else usual) + piece
        return written + closing

    def _head(self, key: Extent, child: Extent) -> str:
        """A key with its colon, as it is written."""
        head = self._text[key.start : child.start]
        if not head.rstrip().endswith(":"):
            return self._text[key.start : key.end] + ": "
        return head if head[-1] != ":" or key.style == '"' else head + " "

    def _key(self, key: str) -> str:
        return flow_yaml.json_text(key) if self._json else flow_yaml.flow(key)

    def _list(self, values: Sequence[Any], column: int) -> str:
        """A list that was not there; `column` is that of its key."""
        if not self._step:
            return f"[{', '.join(map(self._written, values))}]"
        inside = column + self._step
        gap = self._lines.newline + self._blank * inside
        pieces = f",{gap}".join(self._written(value, inside) for value in values)
        return f"[{gap}{pieces}{self._lines.newline}{self._blank * column}]"

    def _written(self, value: Any, column: int = 0) -> str:
        """A value that was not there; with `column`, that of its first line, in several lines."""
        if not self._json:
            return flow_yaml.flow(value)
        written = flow_yaml.json_text(value, self._blank * self._step if column else "")
        return written.replace("\n", self._lines.newline + self._blank * column)


def _spans(extent: Extent) -> list[tuple[int, int]]:
    return [(key.start, child.end) for key, child in extent.entries]


def _indent(lines: TextLines, index: int) -> int:
    line = lines.text[lines.start(index) :]
    return len(line) - len(line.lstrip(" \t"))
