"""The tree that a file is read into: each value remembers the file, line and column of its key.

A `Spot` is where a person is sent to: the key of a value in a mapping, the item itself in a list.
Nodes know nothing of where they stand, their parents do; so a node that an alias repeats, or that
many endpoints inherit, is one object. Once a file is read they do not change; that they are not
frozen makes them three times as fast to build, and there are hundreds of thousands.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from orchestratord.errors import Problem, Severity


class Spot(NamedTuple):
    """A place in a file: `line` and `column` count from 1, `key` is the dotted path in it."""

    file: str
    line: int
    column: int
    key: str

    def below(self, key: str | int) -> Spot:
        """This place, for a key below it that is not written there."""
        path = f"{self.key}.{key}" if self.key else str(key)
        return Spot(self.file, self.line, self.column, path)

    def problem(self, message: str, severity: Severity = "error", hint: str = "") -> Problem:
        """Something wrong at this place."""
        return Problem(message, self.file, self.line, self.column, self.key, severity, hint)


NOWHERE = Spot("", 1, 1, "")


@dataclass(slots=True, eq=False)
class Scalar:
    """A value that is no collection.

    `value` is what the YAML 1.2 core schema makes of it, `text` is how it stands in the file.
    """

    value: str | int | float | bool | None
    text: str


@dataclass(slots=True, eq=False)
class ListNode:
    """A list: the place and the node of each item."""

    items: list[tuple[Spot, Node]] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class MapNode:
    """A mapping: the place and the node of each key."""

    entries: dict[str, tuple[Spot, Node]] = field(default_factory=dict)

    def only(self, keys: Container[str]) -> MapNode:
        """A copy with these keys alone."""
        return MapNode({key: entry for key, entry in self.entries.items() if key in keys})

    def child(self, key: str) -> Node | None:
        """What stands under a key; None where the key is missing."""
        return self.entries[key][1] if key in self.entries else None


Node = Scalar | ListNode | MapNode


def locate(spot: Spot, node: Node, path: Iterable[str | int]) -> tuple[Spot, Node, list[str]]:
    """Follow `path` down from `node`.

    Parts of the path that no key answers to (the names that pydantic gives to the members of a
    union) are passed over. Returns the last place found, its node, and the parts passed over since.
    """
    skipped: list[str] = []
    for part in path:
        child: tuple[Spot, Node] | None = None
        if isinstance(node, MapNode):
            child = node.entries.get(str(part))
        elif isinstance(node, ListNode) and str(part).isdecimal():
            index = int(part)
            child = node.items[index] if index < len(node.items) else None
        if child is None:
            skipped.append(str(part))
        else:
            spot, node = child
            skipped.clear()
    return spot, node, skipped


def is_null(node: Node) -> bool:
    """True for a key with nothing behind it, and for `null`."""
    return isinstance(node, Scalar) and node.value is None


def mapping_of(node: Node | None) -> MapNode:
    """The node itself, or an empty mapping where it is none."""
    return node if isinstance(node, MapNode) else MapNode()


def items_of(node: Node | None) -> list[Node]:
    """The items of a list; none of what is no list."""
    return [item for _, item in node.items] if isinstance(node, ListNode) else []


def name_of(item: Node) -> str | None:
    """The name of a mapping in a list, as lists are united by it."""
    name = mapping_of(item).child("name")
    return name.text if isinstance(name, Scalar) and name.value is not None else None


def data_of(node: Node) -> Any:
    """A node as JSON-like data; texts as they stand in the file, references unresolved."""
    if isinstance(node, Scalar):
        return node.text if isinstance(node.value, str) else node.value
    if isinstance(node, ListNode):
        return [data_of(item) for _, item in node.items]
    return {key: data_of(item) for key, (_, item) in node.entries.items()}


_WORD = re.compile(r"\W?\w+|.", re.DOTALL)


def passage(spot: Spot, text: str, offset: int, lines: Sequence[str]) -> Spot:
    """Where the word at `offset` of a text stands.

    A text can be written in many ways: in quotes, or as a block that is folded or not. Its words
    stand in the file in the same order in each of them; where one does not, the place is the key's.

    Args:
        spot: the place of the text's key.
        text: as it was read.
        offset: characters.
        lines: the file's.
    """
    match = _WORD.match(text, offset)
    if match is None or spot.line > len(lines):
        return spot
    word = match[0]
    left = sum(1 for found in _each(word, text) if found < offset)
    column = spot.column - 1
    for number in range(spot.line - 1, len(lines)):
        for found in _each(word, lines[number]):
            if found < column:
                continue
            if left == 0:
                return Spot(spot.file, number + 1, found + 1, spot.key)
            left -= 1
        column = 0
    return spot


def _each(word: str, text: str) -> list[int]:
    return [match.start() for match in re.finditer(re.escape(word) + r"(?!\w)", text)]
