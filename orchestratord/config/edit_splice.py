"""A list in a file's text replaced by another one: what stays keeps its bytes and its comments.

The marks of the YAML parser say where things stand. What comes out is only a proposal: whoever asks
for it reads it again, compares, and refuses it if it says anything else than it should.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from orchestratord.config.edit_render import data_of, entry_lines, list_lines, same, scalar
from orchestratord.config.positions import ListNode, MapNode, Node

_COLON = re.compile(r"[ \t]*:(?=\s|$)")


class NoPlace(Exception):
    """The list cannot be written without touching something else; `str()` says why."""


class Splice:
    """One text, in which one key of its top level holds a list, or is missing.

    Args:
        text: the file's, without a byte-order mark.
        key: the key.
        before: what is read from it; None where the key is missing.
    """

    def __init__(self, text: str, key: str, before: Node | None) -> None:
        self.text = text
        self.key = key
        self.before = [node for _, node in before.items] if isinstance(before, ListNode) else []
        self.missing = before is None
        self.newline = "\r\n" if "\r\n" in text else "\n"
        try:
            tokens = list(yaml.scan(text, Loader=yaml.SafeLoader))
            self.root: Any = yaml.compose(text, Loader=yaml.SafeLoader)
        except (yaml.YAMLError, RecursionError):
            # What the parser says of it quotes the file.
            raise NoPlace("the file is written in a way that cannot be changed in place") from None
        self.dashes = [
            (token.start_mark.index, token.start_mark.column)
            for token in tokens
            if isinstance(token, yaml.BlockEntryToken)
        ]
        self.shared = [
            token.start_mark.index
            for token in tokens
            if isinstance(token, yaml.AnchorToken | yaml.AliasToken)
        ]

    def replaced(self, new: Sequence[Any], kept: Sequence[int | None], *, fine: bool) -> str:
        """The text with the list `new`.

        Args:
            new: the items, JSON-like.
            kept: for each, which of the items before it is, or None.
            fine: keep the text of items and keys that are as they were; else all are written anew.

        Raises:
            NoPlace: it cannot be done.
        """
        root = self.root
        if isinstance(root, yaml.MappingNode) and root.flow_style:
            return self._in_flow(root, new, kept, fine=fine)
        entries = root.value if isinstance(root, yaml.MappingNode) else []
        column = root.start_mark.column if entries else 0
        found = [entry for entry in entries if entry[0].value == self.key]
        if not found:
            return self._appended(new, column, entries) if new else self.text
        key, value = found[0]
        colon = _COLON.match(self.text, key.end_mark.index)
        start = self._line_start(key.start_mark.index)
        if colon is None or self.text[start : key.start_mark.index].strip():
            raise NoPlace(f"`{self.key}` is written in a way that cannot be changed in place")
        if value.start_mark.index < key.end_mark.index:
            raise NoPlace(f"`{self.key}` repeats an anchor (*); write it out")
        end = self._line_end(_end(value))
        if not new:
            return self.text[:start] + self.text[end:]
        if isinstance(value, yaml.SequenceNode) and not value.flow_style:
            return self._in_block(value, colon.end(), end, new, kept, fine=fine)
        rest = self.text[_end(value) : end].rstrip("\r\n")
        if rest and not rest.lstrip().startswith("#"):
            raise NoPlace(f"something stands behind `{self.key}` in its line")
        head = self.text[: colon.end()] + ("  " if rest and not rest[0].isspace() else "") + rest
        lines = list_lines(new, column + self._step(entries), 2, self._olds(kept))
        return head + self.newline + self._joined(lines) + self.text[end:]

    # -- block style -----------------------------------------------------------------------

    def _in_block(
        self,
        list_: yaml.SequenceNode,
        after_key: int,
        end: int,
        new: Sequence[Any],
        kept: Sequence[int | None],
        *,
        fine: bool,
    ) -> str:
        marks = [mark for mark in self.dashes if after_key <= mark[0] < end]
        column = marks[0][1]
        dashes = [index for index, at in marks if at == column]
        if len(dashes) != len(list_.value) or len(dashes) != len(self.before):
            raise NoPlace(f"`{self.key}` is written in a way that cannot be changed in place")
        begin = self._line_end(after_key)
        if any(after_key <= index < end for index in self.shared):
            fine = False
        pieces: list[str] = []
        bounds = [begin, *(self._line_end(_end(item)) for item in list_.value)]
        for value, old in zip(new, kept, strict=True):
            if old is None or not fine:
                node = self.before[old] if old is not None else None
                pieces.append(self._joined(list_lines([value], column, 2, [node])))
                continue
            start = self._line_start(dashes[old])
            lead = self.text[bounds[old] : start]
            body = self.text[start : bounds[old + 1]]
            if not same(data_of(self.before[old]), value):
                body = self._changed(list_.value[old], dashes[old], value, self.before[old])
            pieces.append(lead + self._closed(body))
        return self.text[:begin] + "".join(pieces) + self.text[end:]

    def _changed(self, item: Any, dash: int, value: Any, before: Node) -> str:
        """One item that is another now, its dash included; what is the same in it stays."""
        column = dash - self._line_start(dash)
        prefix = self.text[self._line_start(dash) : item.start_mark.index]
        if (
            isinstance(item, yaml.MappingNode)
            and not item.flow_style
            and isinstance(before, MapNode)
            and isinstance(value, Mapping)
            and prefix.strip() == "-"
            and "\n" not in prefix
        ):
            entries = self._entries(item, value, before, len(prefix))
            if entries:
                (lead, first), *rest = entries
                # The first key may be another one now; it stands behind the dash.
                text = lead + prefix + first[len(prefix) :]
                return text + "".join(lead + body for lead, body in rest)
        return self._joined(list_lines([value], column, 2, [before]))

    def _entries(
        self, node: yaml.MappingNode, value: Mapping[str, Any], before: MapNode, column: int
    ) -> list[tuple[str, str]]:
        """What stands before each key of a block mapping, and the key; empty if it cannot be."""
        found: list[tuple[str, str]] = []
        last = -1
        for key, child in node.value:
            start, end = self._line_start(key.start_mark.index), self._line_end(_end(child))
            colon = _COLON.match(self.text, key.end_mark.index)
            if colon is None or key.start_mark.column != column or key.value not in before.entries:
                return []
            lead = self.text[last:start] if last >= 0 else ""
            body = " " * column + self.text[key.start_mark.index : end]
            last = end
            if key.value not in value:
                continue
            old, new = before.entries[key.value][1], value[key.value]
            if not same(data_of(old), new):
                body = self._entry(key, child, colon.end(), new, old, column)
            found.append((lead, self._closed(body)))
        for name in value:
            if name not in before.entries:
                lines = entry_lines(name, value[name], column, 2)
                found.append(("", self._joined(lines)))
        return found

    def _entry(self, key: Any, child: Any, colon: int, new: Any, old: Node, column: int) -> str:
        """One key whose value is another now."""
        text, pad = self.text, " " * column
        single = not isinstance(new, Mapping | list)
        if isinstance(child, yaml.ScalarNode) and child.style not in ("|", ">") and single:
            rest = text[child.end_mark.index : self._line_end(child.end_mark.index)]
            return f"{pad}{text[key.start_mark.index : colon]} {scalar(new, old)}{rest}"
        if (
            isinstance(child, yaml.MappingNode)
            and not child.flow_style
            and isinstance(old, MapNode)
            and isinstance(new, Mapping)
            and child.start_mark.index > self._line_end(colon) - 1
        ):
            head = text[key.start_mark.index : self._line_end(colon)]
            entries = self._entries(child, new, old, child.start_mark.column)
            if entries:
                # Comments between the key and its first value.
                first = self._line_start(child.start_mark.index)
                between = text[self._line_end(colon) : first]
                return pad + head + between + "".join(lead + body for lead, body in entries)
        return self._joined(entry_lines(key.value, new, column, 2, old))

    def _appended(self, new: Sequence[Any], column: int, entries: Sequence[Any]) -> str:
        lines = list_lines(new, column + self._step(entries), 2)
        return self._closed(self.text) + self._joined([f"{' ' * column}{self.key}:", *lines])

    def _step(self, entries: Sequence[Any]) -> int:
        """By how much lists are indented in this file."""
        for key, value in entries:
            if isinstance(value, yaml.SequenceNode) and not value.flow_style:
                if value.start_mark.index < key.end_mark.index:
                    continue
                for index, column in self.dashes:
                    if index > key.end_mark.index:
                        by: int = column - key.start_mark.column
                        return max(by, 0)
        return 2

    # -- flow style, and JSON --------------------------------------------------------------

    def _in_flow(
        self, root: yaml.MappingNode, new: Sequence[Any], kept: Sequence[int | None], *, fine: bool
    ) -> str:
        text, entries = self.text, root.value
        line = text[self._line_start(entries[0][0].start_mark.index) :] if entries else ""
        indent = len(line) - len(line.lstrip(" ")) if "\n" in text else 0
        at = next((i for i, entry in enumerate(entries) if entry[0].value == self.key), None)
        if at is None:
            if not new:
                return text
            written = f'"{self.key}": {self._list_in_flow(new, kept, None, indent, fine=fine)}'
            if not entries:
                inside = root.start_mark.index + 1
                return text[:inside] + written + text[inside:]
            last = _end(entries[-1][1])
            gap = f"{self.newline}{' ' * indent}" if indent else " "
            return f"{text[:last]},{gap}{written}{text[last:]}"
        key, value = entries[at]
        if value.start_mark.index < key.end_mark.index:
            raise NoPlace(f"`{self.key}` repeats an anchor (*); write it out")
        if new:
            written = self._list_in_flow(new, kept, value, indent, fine=fine)
            return text[: value.start_mark.index] + written + text[value.end_mark.index :]
        if at > 0:
            start, end = _end(entries[at - 1][1]), value.end_mark.index
        else:
            start = key.start_mark.index
            end = entries[1][0].start_mark.index if len(entries) > 1 else value.end_mark.index
        outside = text[start : key.start_mark.index] + text[value.end_mark.index : end]
        if outside.strip() not in ("", ","):
            raise NoPlace(f"`{self.key}` cannot be taken out without what stands beside it")
        return text[:start] + text[end:]

    def _list_in_flow(
        self,
        new: Sequence[Any],
        kept: Sequence[int | None],
        before: Any,
        indent: int,
        *,
        fine: bool,
    ) -> str:
        nodes = before.value if isinstance(before, yaml.SequenceNode) else []
        if self.shared or len(nodes) != len(self.before):
            fine = False
        pad = " " * indent
        pieces: list[str] = []
        for value, old in zip(new, kept, strict=True):
            if fine and old is not None and same(data_of(self.before[old]), value):
                node = nodes[old]
                pieces.append(self.text[node.start_mark.index : node.end_mark.index])
            else:
                written = json.dumps(value, ensure_ascii=False, indent=indent or None)
                pieces.append(written.replace("\n", self.newline + pad * 2))
        if not indent:
            return f"[{', '.join(pieces)}]"
        gap = self.newline + pad * 2
        return f"[{gap}{f',{gap}'.join(pieces)}{self.newline}{pad}]"

    # -- lines -----------------------------------------------------------------------------

    def _olds(self, kept: Sequence[int | None]) -> list[Node | None]:
        return [None if old is None else self.before[old] for old in kept]

    def _joined(self, lines: Iterator[str] | Sequence[str]) -> str:
        return "".join(line + self.newline for line in lines)

    def _closed(self, text: str) -> str:
        """With a line break at its end, which only the last line of a file may lack."""
        return text if not text or text.endswith("\n") else text + self.newline

    def _line_start(self, index: int) -> int:
        return self.text.rfind("\n", 0, index) + 1

    def _line_end(self, index: int) -> int:
        """Where the next line begins; `index` itself where a line begins there already."""
        if index > 0 and self.text[index - 1] == "\n":
            return index
        end = self.text.find("\n", index)
        return len(self.text) if end < 0 else end + 1


def _end(node: Any) -> int:
    """Where the last thing in a node ends; the parser's mark of a block is where more begins."""
    while isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        node = last[1] if isinstance(last, tuple) else last
    return int(node.end_mark.index)
