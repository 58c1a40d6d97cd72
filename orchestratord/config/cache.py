"""What the last reading made of each part of the folder, used again where nothing has changed.

A part is what one file declares. What it becomes depends on the file's content, on what it inherits
and on what its references stand for; where these are the same as before, the objects of the last
reading serve again, together with the warnings and secrets that came along with them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from orchestratord.config.folder import KnownFiles
from orchestratord.config.validate.node_reader import NodeReader
from orchestratord.config.yaml.blocks import KnownBlocks
from orchestratord.config.yaml.nodes import MapNode, Node, Scalar
from orchestratord.errors import Problem
from orchestratord.plugin.long_work import Breathe

T = TypeVar("T")


MOST_ALIKE = 50_000
"""Parts that are kept for the next reading though this one had no use for them."""


@dataclass(frozen=True, slots=True)
class _Part:
    """A value, what it was made from, and what the making brought along."""

    value: Any
    sources: tuple[object, ...]
    references: dict[str, str]
    secrets: tuple[str, ...]
    warnings: tuple[Problem, ...]

    def fits(self, sources: tuple[object, ...], reader: NodeReader) -> bool:
        return all(
            # Contents are compared, objects have to be the same ones.
            a is b or (isinstance(a, bytes) and a == b)
            for a, b in zip(self.sources, sources, strict=True)
        ) and all(reader.stands_for(name, value) for name, value in self.references.items())

    def bring(self, reader: NodeReader) -> None:
        reader.problems.extend(self.warnings)
        reader.secrets.update(self.secrets)
        reader.references.update(self.references)


class Cache:
    """The good parts of the last reading and, in the course of one, those of the present."""

    def __init__(self) -> None:
        self.files = KnownFiles()
        self.digest = ""
        """Of the folder as it was read last, good or bad."""
        self._before: dict[Hashable, _Part] = {}
        self._now: dict[Hashable, _Part] = {}
        self._alike_before: dict[Hashable, _Part] = {}
        self._alike: dict[Hashable, _Part] = {}
        """By content, for the next reading as well."""
        self._shared: dict[Hashable, _Part] = {}
        """By the identity of a node that several files share, for this reading."""
        self.blocks = KnownBlocks()
        """Those of the files as they are, and some more."""

    def earlier(self, name: Hashable, content: bytes) -> Any:
        """What the last reading made under this name of a file with the same content, whatever else
        has changed; None for nothing."""
        kept = self._before.get(name)
        return kept.value if kept is not None and kept.sources[0] == content else None

    def close(self, breathe: Breathe) -> None:
        """A reading is over, however it went: what was good in it is for the next one.

        `breathe` is called between two parts that are freed.
        """
        # Where little was read again, the rest serves the next reading as well.
        if 4 * len(self._alike) < len(self._alike_before) < MOST_ALIKE:
            self._alike, self._alike_before = self._alike_before | self._alike, {}
        gone = (self._before, self._alike_before, self._shared)
        self._before, self._now = self._now, {}
        self._alike_before, self._alike, self._shared = self._alike, {}, {}
        self.blocks.close()
        for parts in gone:
            # One by one, since nothing else runs while a large one is freed.
            while parts:
                parts.popitem()
                breathe()

    def part(
        self, name: Hashable, sources: tuple[object, ...], reader: NodeReader, make: Callable[[], T]
    ) -> T:
        """The part `name`, made where the last reading had it not, or from other sources.

        Args:
            name: its id; each is asked for once in a reading.
            sources: what it is made from: bytes, and objects that are the same ones where nothing
                has changed.
            reader: the present reading's.
            make: makes it; it is kept if nothing is wrong with it.
        """
        kept = self._before.get(name)
        good = True
        if kept is not None and kept.fits(sources, reader):
            kept.bring(reader)
        else:
            errors = reader.problems.errors
            kept = _make(sources, reader, make)
            good = reader.problems.errors == errors
        if good:
            self._now[name] = kept
        return cast("T", kept.value)

    def alike(self, kind: str, node: Node | None, reader: NodeReader, make: Callable[[], T]) -> T:
        """What is made of `node`, once for all nodes with the same content.

        Endpoints repeat each other a lot. A problem is not shared, as each has a place of its own;
        but for the warnings of a known block, which are moved to where it stands.
        """
        shared = self.blocks.shares(node)
        parts = self._shared if shared else self._alike
        name = (kind, id(node) if shared else _content(node))
        kept = parts.get(name)
        if kept is None and not shared:
            before = self._alike_before.get(name)
            if before is not None and before.fits((), reader):
                kept = parts[name] = before
        if kept is not None:
            kept.bring(reader)
        else:
            found, errors = len(reader.problems), reader.problems.errors
            kept = _make((), reader, make)
            if len(reader.problems) == found or (shared and reader.problems.errors == errors):
                parts[name] = kept
        return cast("T", kept.value)


def _make(sources: tuple[object, ...], reader: NodeReader, make: Callable[[], Any]) -> _Part:
    """Make a part, and note what comes along."""
    found = len(reader.problems)
    with reader.apart() as (secrets, references):
        value = make()
        warnings = tuple(p for p in reader.problems.since(found) if p.severity == "warning")
        return _Part(value, sources, references, tuple(secrets), warnings)


def _content(node: Node | None) -> Hashable:
    """What stands in a node, without its places."""
    if node is None:
        return None
    if isinstance(node, Scalar):
        return node.text, type(node.value)
    content: list[Hashable]
    if isinstance(node, MapNode):
        content = ["{"]
        for key, (_, child) in node.entries.items():
            content.append(key)
            content.append(
                (child.text, type(child.value)) if type(child) is Scalar else _content(child)
            )
    else:
        content = ["[", *[_content(child) for _, child in node.items]]
    return tuple(content)
