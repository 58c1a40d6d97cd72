"""The keys of one endpoint's file, each validated once for all files that repeat it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from orchestratord.config.show.merged_endpoint import masked
from orchestratord.config.validate.node_reader import NodeReader, ReadNode
from orchestratord.config.validate.shapes import keyed_fields, leaves_of
from orchestratord.config.validate.undefined_names import undeclared
from orchestratord.config.yaml.blocks import KnownBlocks
from orchestratord.config.yaml.nodes import MapNode, Node, Spot
from orchestratord.values.template import Template, TemplateTree


@dataclass(slots=True)
class KeptKey:
    """What was made of a key.

    `uses` are the parameters that its templates name. `checked` says that what goes beyond its
    model was looked at as well, and is good.
    """

    value: Any
    data: Any
    shown: Any
    uses: frozenset[str]
    checked: bool = False


class KeyReader:
    """Reads keys by a model, as `NodeReader` does, and keeps what known blocks have become.

    Only that is kept which nothing came along with: neither a problem nor a secret nor what a
    reference stood for.
    """

    def __init__(self, reader: NodeReader, blocks: KnownBlocks) -> None:
        self._reader = reader
        self._blocks = blocks
        self._kept: dict[tuple[type[BaseModel], int], KeptKey] = {}
        """By model, and by the node's identity."""

    def kept(self, model: Any, node: Node | None) -> KeptKey | None:
        """What was made of a key before, by its node."""
        return self._kept.get((model, id(node)))

    def shown(self, model: Any, node: MapNode, data: Mapping[str, Any]) -> dict[str, Any]:
        """The data that came of a node, for people."""
        shown = {}
        for key, value in data.items():
            kept = self.kept(model, node.child(key))
            shown[key] = masked(value) if kept is None else kept.shown
        return shown

    def read(
        self, spot: Spot, node: MapNode, model: type[BaseModel], given: Mapping[str, Any] = {}
    ) -> ReadNode:
        """The arguments are those of `NodeReader.read`."""
        kept = {
            key: found
            for key, (_, child) in node.entries.items()
            if (found := self._kept.get((model, id(child)))) is not None
        }
        if not kept:
            return self._read(spot, node, model, given)
        rest = MapNode({key: entry for key, entry in node.entries.items() if key not in kept})
        values = {**given, **{key: found.value for key, found in kept.items()}}
        value, data, fields = self._read(spot, rest, model, values)
        if data is not None:
            written = {
                key: kept[key].data if key in kept else data[key]
                for key in node.entries
                if key in kept or key in data
            }
            data = {**written, **data, **written}  # in the order of the file
        return ReadNode(value, data, fields)

    def _read(
        self, spot: Spot, node: MapNode, model: type[BaseModel], given: Mapping[str, Any]
    ) -> ReadNode:
        shared = {
            key: child for key, (_, child) in node.entries.items() if self._blocks.shares(child)
        }
        reader = self._reader
        if not shared:
            return reader.read(spot, node, model, given)
        problems = len(reader.problems)
        with reader.apart() as (secrets, references):
            read = reader.read(spot, node, model, given)
            alone = not secrets and not references
        if alone and read.value is not None and len(reader.problems) == problems:
            for key, name in keyed_fields(model):
                if key in shared and key in read.data:
                    data, value = read.data[key], getattr(read.value, name)
                    kept = KeptKey(value, data, masked(data), _uses(value))
                    self._kept[model, id(shared[key])] = kept
        return read


def _uses(value: Any) -> frozenset[str]:
    return frozenset(
        name
        for _, leaf in leaves_of(value)
        if isinstance(leaf, Template | TemplateTree)
        for name in undeclared(leaf, ())
    )
