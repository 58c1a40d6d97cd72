"""What endpoints share: `defaults` of orchestratord.yaml, and api.yaml over them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from orchestratord.access import Proxy
from orchestratord.config.document import Document
from orchestratord.config.keys import ApiKeys, Shared, shared_keys
from orchestratord.config.memory import Memory
from orchestratord.config.merge import Merger
from orchestratord.config.outgoing import AddressRules, Outgoing
from orchestratord.config.positions import ListNode, MapNode, Node, Spot, is_null, locate
from orchestratord.config.reader import Read, Reader
from orchestratord.config.shapes import fields_of
from orchestratord.config.suggest import choices, suggest
from orchestratord.endpoint import Api
from orchestratord.registry import Registry
from orchestratord.template import Template

NOWHERE = Spot("", 1, 1, "")


@dataclass(slots=True)
class Inherited:
    """What the endpoints of one API get: the merged keys, and those of them already validated."""

    node: MapNode = field(default_factory=MapNode)
    read: dict[str, Read] = field(default_factory=dict)
    """By key. One with errors has None as its value."""
    api: Api | None = None
    """None where api.yaml has errors."""
    own: MapNode = field(default_factory=MapNode)
    """The keys of api.yaml that are the API's own."""
    data: dict[str, Any] = field(default_factory=dict)
    """The same as data, for people."""
    headers: Mapping[str, Template] = field(default_factory=dict)
    """Of the API, where these are good."""
    spot: Spot = NOWHERE
    """Where api.yaml begins."""


class SharedReader:
    """Reads what endpoints share."""

    def __init__(
        self,
        reader: Reader,
        registry: Registry,
        addresses: AddressRules | None,
        memory: Memory,
    ) -> None:
        self.merger = Merger(reader, registry.settings)
        self.outgoing = Outgoing(reader.problems, addresses)
        self._reader = reader
        self._registry = registry
        self._memory = memory
        self._problems = reader.problems

    def defaults(self, spot: Spot, node: Node | None) -> Inherited:
        """`defaults` of orchestratord.yaml, checked by itself."""
        upper = MapNode()
        if isinstance(node, MapNode):
            upper = self.known_keys(node, shared_keys(self._registry.settings))
        elif node is not None and not is_null(node):
            self._problems.error(spot, "expected a mapping")
        return self._inherited(spot, Inherited(), upper)

    def api(
        self, name: str, document: Document, defaults: Inherited, allow: tuple[str, ...]
    ) -> Inherited:
        """One API: its own keys, and what its endpoints inherit.

        Args:
            name: its folder's.
            document: api.yaml, an empty one where there is none.
            defaults: what `defaults` gave.
            allow: the daemon's own `egress.allow`.
        """
        spot = document.spot
        if document.root is None:
            return self._inherited(spot, defaults, MapNode())
        shared, own = shared_keys(self._registry.settings), fields_of(ApiKeys)
        known = self.known_keys(document.root, shared | set(own))
        inherited = self._inherited(spot, defaults, known.only(shared))
        inherited.own, inherited.spot = known.only(own), spot
        keys, inherited.data, fields = self._reader.read(spot, inherited.own, ApiKeys)
        self.outgoing.check_api(fields, spot, inherited.own, allow)
        proxy: Proxy | None = fields.get("proxy")
        if proxy is not None and proxy.password:
            place = locate(spot, inherited.own, ("proxy",))[0]
            self._reader.secret(place, proxy.password)
        inherited.headers = fields.get("headers", {})
        if keys is not None:
            written = {key: getattr(keys, key) for key in keys.model_fields_set if key != "egress"}
            inherited.api = Api(name=name, egress=(*allow, *keys.egress.allow), **written)
        return inherited

    def known_keys(
        self, node: MapNode, known: Iterable[str], elsewhere: Mapping[str, str] = {}
    ) -> MapNode:
        """The node without unknown keys and those of disabled plugins, both reported.

        `elsewhere`: keys that have their place in other files → what is said of them here.
        """
        known = set(known)
        for key, (spot, _) in node.entries.items():
            if key in known:
                continue
            if key in self._registry.disabled_keys:
                plugin = self._registry.disabled_keys[key]
                self._problems.warn(
                    spot, f"belongs to the plugin {plugin}, which is disabled; it is not read"
                )
            elif key in elsewhere:
                self._problems.error(spot, elsewhere[key])
            elif key in fields_of(ApiKeys):
                self._problems.error(spot, "unknown key here; it belongs in the API's api.yaml")
            else:
                self._problems.error(spot, "unknown key" + suggest(key, known), choices(key, known))
        return node.only(known)

    def read_shared(self, spot: Spot, node: MapNode, inherited: Inherited) -> dict[str, Read]:
        """Validate the shared keys of a merged node.

        What came down unchanged was validated before, and is the same object for all.
        """
        read: dict[str, Read] = {}
        for key in (*fields_of(Shared), *self._registry.settings):
            entry = node.entries.get(key)
            before = inherited.node.entries.get(key)
            if key in inherited.read and (entry and entry[1]) is (before and before[1]):
                read[key] = inherited.read[key]
            elif key not in self._registry.settings or entry is not None:
                read[key] = self._memory.alike(
                    key, entry and entry[1], self._reader, partial(self._read_key, key, spot, node)
                )
        return read

    def _read_key(self, key: str, spot: Spot, node: MapNode) -> Read:
        if key in self._registry.settings:
            place, child = node.entries[key]
            type_ = self._registry.settings[key].type
            item = _item_of(type_)
            if item is None or not isinstance(child, ListNode):
                return self._reader.read(place, child, type_)
            # One by one: most endpoints have some of their API, and some that others have, too.
            read = [
                self._memory.alike(
                    key, entry[1], self._reader, partial(self._read_item, entry, item)
                )
                for entry in child.items
            ]
            values = tuple(one.value for one in read)
            good = all(value is not None for value in values)
            return Read(values if good else None, [one.data for one in read], {})
        value, data, _ = self._reader.read(spot, node.only({key}), Shared)
        return Read(value and getattr(value, key), data.get(key), {})

    def _read_item(self, entry: tuple[Spot, Node], type_: Any) -> Read:
        return self._reader.read(*entry, type_)

    def _inherited(self, spot: Spot, lower: Inherited, upper: MapNode) -> Inherited:
        merged = self.merger.merge(lower.node, upper)
        return Inherited(merged, self.read_shared(spot, merged, lower))


def _item_of(type_: Any) -> Any:
    """The model of which a type holds any number, and says nothing else; None for other types."""
    arguments = get_args(type_)
    if get_origin(type_) is not tuple or arguments[1:] != (...,):
        return None
    model = arguments[0]
    return model if isinstance(model, type) and issubclass(model, BaseModel) else None
