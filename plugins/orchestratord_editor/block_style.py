"""Block style: whole lines are changed, and comments stay with what they are about.

A comment is about what follows it, and about what stands before it where it is further to the
right. One that a blank line parts from what follows is about more than that, and stays though the
item behind it goes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from orchestratord import nodes
from orchestratord_editor.flow_style import Flow
from orchestratord_editor.item_matching import ListChange, same
from orchestratord_editor.render_yaml import entry_lines, list_lines, scalar, value_lines
from orchestratord_editor.text_positions import Extent, TextLines

_COLON = re.compile(r"[ \t]*:(?=\s|$)")
_BLANK = re.compile(r"(?:[ \t]*\r?\n)+")
_BLANK_START = re.compile(r"\A(?:[ \t]*\r?\n)+")
_BLANK_LINE = re.compile(r"^[ \t]*\r?\n", re.MULTILINE)


class Unfit(Exception):
    """Written in a way in which it can be changed as a whole only."""


class Block:
    """Writes lists and mappings in block style anew.

    Args:
        lines: the text that they stand in.
        flow: writes what stands in brackets.
    """

    def __init__(self, lines: TextLines, flow: Flow) -> None:
        self._lines = lines
        self._text = lines.text
        self._flow = flow

    def colon(self, key: Extent) -> int:
        """Where a key's colon ends. Raises Unfit."""
        match = _COLON.match(self._text, key.end)
        if match is None:
            raise Unfit
        return match.end()

    def end(self, extent: Extent) -> int:
        """Where the lines of a list or mapping end, comments behind its last item included."""
        return self._lines.after_comments(self._lines.end(extent.end), extent.column)

    def items(self, list_: Extent, begin: int, change: ListChange) -> str:
        """The lines of a list with other items, up to `end` of it.

        Args:
            list_: the list.
            begin: where the first of its lines begins.
            change: which items it is to have, one at least.

        Raises:
            Unfit: it cannot be done.
        """
        if list_.anchored:
            raise Unfit
        lines, text, column = self._lines, self._text, list_.column
        dashes = self._dashes(list_, begin)
        starts = [lines.start(dash) for dash in dashes]
        ends = [
            lines.after_comments(lines.end(max(item.end, dash + 1)), column)
            for item, dash in zip(list_.children, dashes, strict=True)
        ]
        leads = [text[a:b] for a, b in zip([begin, *ends[:-1]], starts, strict=True)]
        close = not _BLANK.match(leads[0])
        apart = len(leads) > 1 and all(_BLANK.match(lead) for lead in leads[1:])
        rest = _keep_sections(leads, change.kept)
        written = ""
        for number, (value, old) in enumerate(zip(change.new, change.kept, strict=True)):
            lead = "" if old is None else leads[old]
            blank = _BLANK.match(lead)
            if number == 0 and old != 0 and close and blank:
                lead = lead[blank.end() :]
            elif number > 0 and apart and not blank:
                lead = lines.newline + lead
            if old is None:
                body = lines.joined(list_lines([value], column))
            else:
                extent, node = list_.children[old], change.before[old]
                body = self._item(extent, starts[old], ends[old], value, node, column)
            written += lead + lines.closed(body)
        written += rest
        whole = text[begin : self.end(list_)].endswith("\n")
        return written if whole else written.removesuffix(lines.newline)

    def _dashes(self, list_: Extent, begin: int) -> list[int]:
        found: list[int] = []
        at = begin
        for item in list_.children:
            at = self._lines.after_gap(at)
            if self._text[at : at + 1] != "-" or not self._lines.begins_at(at):
                raise Unfit
            found.append(at)
            at = max(item.end, at + 1)
        return found

    def _item(
        self, item: Extent, start: int, end: int, value: Any, before: nodes.Node, column: int
    ) -> str:
        """The lines of one item from `start` to `end`, dash and comments included."""
        lines, text = self._lines, self._text
        if same(nodes.data_of(before), value):
            return text[start:end]
        head, behind = text[start : item.start], lines.end(item.end)
        rest, tail = text[item.end : behind], text[behind:end]
        if (
            _is_block(item)
            and isinstance(before, nodes.MapNode)
            and isinstance(value, Mapping)
            and value
        ):
            try:
                written = self._mapping(item, value, before) + text[self.end(item) : end]
            except Unfit:
                pass
            else:
                if "\n" in head:  # the dash has a line of its own
                    return text[start : lines.start(item.start)] + written
                # What stands above the first key, if that was not the first one, goes up.
                lead, first = _split_lead(written, item.column)
                return lead + head + first
        if item.style == "flow" and isinstance(value, Mapping | list) and value:
            return head + self._flow.value(item, value, before) + rest + tail
        if not item.in_lines and item.end > item.start and not isinstance(value, Mapping | list):
            return head + scalar(value, before) + rest + tail
        return lines.joined(list_lines([value], column, [before])) + tail

    def _mapping(self, mapping: Extent, new: Mapping[str, Any], before: nodes.MapNode) -> str:
        """The lines of a mapping, each key with what stands above it. Raises Unfit."""
        lines, text, column = self._lines, self._text, mapping.column
        written = ""
        last = -1
        for key, child in mapping.entries:
            colon = self.colon(key)
            if key.column != column or key.text not in before.entries:
                raise Unfit
            end = lines.after_comments(lines.end(max(child.end, colon)), column)
            lead = text[last : lines.start(key.start)] if last >= 0 else ""
            last = end
            if key.text not in new:
                continue
            old, value = before.entries[key.text][1], new[key.text]
            if same(nodes.data_of(old), value):
                body = text[key.start : end]
            else:
                body = self._entry(key, child, colon, end, value, old)
            written += lead + " " * column + lines.closed(body)
        added = (name for name in new if name not in before.entries)
        for name in added:
            written += lines.joined(entry_lines(name, new[name], column))
        return written

    def _entry(
        self, key: Extent, child: Extent, colon: int, end: int, new: Any, old: nodes.Node
    ) -> str:
        """One key with another value up to `end`, without what stands before it in its line."""
        lines, text = self._lines, self._text
        if _is_block(child) and isinstance(new, Mapping | list) and new:
            behind = text[self.end(child) : end]
            begin = lines.end(colon)
            if isinstance(new, Mapping) and isinstance(old, nodes.MapNode):
                return text[key.start : lines.start(child.start)] + (
                    self._mapping(child, new, old) + behind
                )
            if isinstance(new, list) and isinstance(old, nodes.ListNode):
                written = self.items(child, begin, ListChange.of(old, new))
                return text[key.start : begin] + written + behind
        name = text[key.start : key.end] + ":"
        fresh = list(value_lines(name, new, key.column, old))
        inside = lines.end(max(child.end, colon))
        head, rest, tail = text[key.start : child.start], text[child.end : inside], text[inside:end]
        if child.in_lines:
            return lines.joined(fresh) + tail
        if head.endswith(":"):
            head += " "
        if child.style == "flow" and isinstance(new, Mapping | list) and new:
            return head + self._flow.value(child, new, old) + rest + tail
        if len(fresh) == 1:
            return head + fresh[0][len(name) :].lstrip(" ") + rest + tail
        return lines.joined([fresh[0] + rest.rstrip("\r\n"), *fresh[1:]]) + tail


def _is_block(extent: Extent) -> bool:
    return extent.style == "block" and not extent.anchored


def _keep_sections(leads: list[str], kept: Sequence[int | None]) -> str:
    """Give what stands above items that go, and is about more, to those that follow.

    What nothing follows is returned.
    """
    rest = ""
    stays = sorted(number for number in kept if number is not None)
    for number in reversed(range(len(leads))):
        blanks = list(_BLANK_LINE.finditer(leads[number]))
        section = leads[number][: blanks[-1].end()] if blanks else ""
        if number in stays or "#" not in section:
            continue
        after = next((other for other in stays if other > number), None)
        if after is None:
            rest = section + rest
        else:
            leads[after] = section + _BLANK_START.sub("", leads[after])
    return rest


def _split_lead(written: str, column: int) -> tuple[str, str]:
    """Comments above the first key, and the rest without the blanks before that key."""
    at = 0
    while (line := written[at : written.index("\n", at) + 1]).strip()[:1] in ("", "#"):
        at += len(line)
    return written[:at], written[at + column :]
