"""A list in a file's text replaced by another one: what stays keeps its bytes and its comments.

What comes out is only a proposal: it is read again and compared, and refused if it says
anything else than it should.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

from orchestratord_editor.block_style import Block, Unfit
from orchestratord_editor.flow_style import Flow
from orchestratord_editor.item_matching import ListChange
from orchestratord_editor.render_yaml import STEP, list_lines
from orchestratord_editor.text_positions import Extent, NoPlace, TextLines, extents_of


class Splice:
    """One text, in which one key of its top level holds a list, or is missing.

    Args:
        text: the file's, without a byte-order mark.
        key: the key.
        change: what the list is to be; without any new item, the key goes.

    Raises:
        NoPlace: nothing can be changed in this text.
    """

    def __init__(self, text: str, key: str, change: ListChange) -> None:
        self._text = text
        self._key = key
        self._change = change
        self._lines = TextLines(text)
        self._root, self._finish = extents_of(text)
        self._flow = Flow(self._lines, self._root)
        self._block = Block(self._lines, self._flow)

    def proposals(self) -> Iterator[str]:
        """Texts with the other list, those first that leave more of it as it is.

        Raises NoPlace where it cannot be done.
        """
        root = self._root
        if root is not None and root.style == "flow":
            for fine in (True, False):
                written = self._flow.root(self._key, self._change, fine=fine)
                yield self._text[: root.start] + written + self._text[root.end :]
            return
        entries = root.entries if root is not None and root.kind == "map" else []
        found = next((entry for entry in entries if entry[0].text == self._key), None)
        if found is None:
            yield self._added(entries)
            return
        try:
            colon = self._block.colon(found[0])
        except Unfit:
            raise self._unable("is written in a way that cannot be changed in place") from None
        start = self._lines.start(found[0].start)
        if not self._lines.begins_at(found[0].start):
            raise self._unable("does not stand in a line of its own")
        if not self._change.new:
            end = self._end(found[1], colon)
            yield self._text[:start] + self._text[end:]
            # A text above it may take blank lines below it for its own.
            yield f"{self._text[:colon]} []{self._lines.newline}{self._text[end:]}"
            return
        with suppress(Unfit):
            yield self._in_place(found[1], colon)
        yield self._anew(*found, colon, entries)

    def _in_place(self, value: Extent, colon: int) -> str:
        """With the items that are as they were as they stand. Raises Unfit."""
        text, before = self._text, self._change.before
        if value.kind != "list" or not before or len(value.children) != len(before):
            raise Unfit
        if value.style == "flow":
            written = self._flow.items(value, self._change)
            return text[: value.start] + written + text[value.end :]
        begin = self._lines.end(colon)
        written = self._block.items(value, begin, self._change)
        return text[:begin] + written + text[self._block.end(value) :]

    def _anew(
        self, key: Extent, value: Extent, colon: int, entries: Sequence[tuple[Extent, Extent]]
    ) -> str:
        """With all items written anew, below the key."""
        lines, text = self._lines, self._text
        if value.kind == "list" and value.style == "block" and not value.anchored:
            column = value.column
            begin = lines.end(colon)
            head = text[:begin]
        else:
            column = key.column + _step(entries)
            rest = text[value.end : lines.end(max(value.end, colon))].rstrip("\r\n")
            gap = "  " if rest and not rest[0].isspace() else ""
            head = text[:colon] + gap + rest + lines.newline
        new, before, kept = self._change
        olds = [None if old is None else before[old] for old in kept]
        return head + lines.joined(list_lines(new, column, olds)) + text[self._end(value, colon) :]

    def _added(self, entries: Sequence[tuple[Extent, Extent]]) -> str:
        """With the key behind all others."""
        lines, text = self._lines, self._text
        column = entries[0][0].column if entries else 0
        written = list_lines(self._change.new, column + _step(entries))
        before, after = text[: self._finish], text[self._finish :]
        return (
            lines.closed(before) + lines.joined([f"{' ' * column}{self._key}:", *written]) + after
        )

    def _end(self, value: Extent, colon: int) -> int:
        """Where the lines of the key's value end."""
        if value.kind == "list" and value.style == "block" and not value.anchored:
            return self._block.end(value)
        return self._lines.end(max(value.end, colon))

    def _unable(self, why: str) -> NoPlace:
        return NoPlace(f"`{self._key}` {why}")


def _step(entries: Sequence[tuple[Extent, Extent]]) -> int:
    """By how much lists are indented in this file."""
    for key, value in entries:
        if value.kind == "list" and value.style == "block" and not value.anchored:
            return max(value.column - key.column, 0)
    return STEP
