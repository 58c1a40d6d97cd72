"""The tree that a file is read into: each value remembers the file, line and column of its key.

A `Spot` is where a person is sent to: the key of a value in a mapping, the item itself in a list.
Nodes know nothing of where they stand, their parents do; so a node that an alias repeats, or that
many endpoints inherit, is one object. Once a file is read nobody changes them; that they are not
frozen makes them three times as fast to build, and there are hundreds of thousands.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple


class Spot(NamedTuple):
    """A place in a file: `line` and `column` count from 1, `key` is the dotted path in it."""

    file: str
    line: int
    column: int
    key: str

    def below(self, key: str | int) -> Spot:
        """The same place, for a key below it that is not written there."""
        path = f"{self.key}.{key}" if self.key else str(key)
        return Spot(self.file, self.line, self.column, path)


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
        """The same with these keys alone."""
        return MapNode({key: entry for key, entry in self.entries.items() if key in keys})


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
