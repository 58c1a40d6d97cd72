"""Defaults, api.yaml and the endpoint, laid over each other, and what endpoints share validated.

Mappings are merged by key, lists are replaced, `backoff` is replaced whole, and a plugin's key
follows its `Setting.merge`: in lists that are united by name, two of one name are merged by key.
Each value keeps the place that it was written in.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from orchestratord.config.cache import Cache
from orchestratord.config.validate.node_reader import NodeReader, ReadNode
from orchestratord.config.validate.problems import KeyProblems
from orchestratord.config.validate.request_rules import AddressRules, RequestRules
from orchestratord.config.validate.shapes import fields_of
from orchestratord.config.yaml.blocks import KnownBlocks
from orchestratord.config.yaml.document import YamlDocument
from orchestratord.config.yaml.nodes import (
    NOWHERE,
    ListNode,
    MapNode,
    Node,
    Scalar,
    Spot,
    is_null,
    items_of,
    mapping_of,
    name_of,
)
from orchestratord.config.yaml_keys import ApiKeys, EndpointKeys, Shared, shared_keys
from orchestratord.model.auth import Proxy
from orchestratord.model.endpoint import Api, Guards, Setting
from orchestratord.values.template import Template

WHOLE = frozenset({"backoff"})
"""Mappings that are one choice: options of one strategy mean nothing to another."""

_NAME_LIMIT = 200


class Merger:
    """Merges the layers of one snapshot."""

    def __init__(self, reader: NodeReader, blocks: KnownBlocks | None = None) -> None:
        self._reader = reader
        self._settings = reader.registry.settings
        self._blocks = blocks
        self._joined: dict[tuple[int, int], Node] = {}

    def merge(self, lower: MapNode, upper: MapNode) -> MapNode:
        """`upper` over `lower`. A key with nothing behind it is as good as missing."""
        entries = dict(lower.entries)
        for key, entry in upper.entries.items():
            if is_null(entry[1]):
                continue
            entries[key] = self._laid_over(key, entries.get(key), entry)
        return MapNode(entries)

    def _laid_over(
        self, key: str, lower: tuple[Spot, Node] | None, upper: tuple[Spot, Node]
    ) -> tuple[Spot, Node]:
        blocks = self._blocks
        if blocks is None or not blocks.shares(upper[1]):
            spot, node = self._prepared(key, upper)
            return spot, node if lower is None else self._join(key, lower[1], node)
        # What many endpoints lay over the same, or over nothing, is one object again.
        both = id(lower and lower[1]), id(upper[1])
        if (found := self._joined.get(both)) is None:
            problems = len(self._reader.problems)
            found = self._prepared(key, upper)[1]
            if lower is not None:
                found = self._join(key, lower[1], found)
            if len(self._reader.problems) == problems:
                self._joined[both] = found
                blocks.share(found)
        return upper[0], found

    def inherited(self, daemon: MapNode, api: MapNode, keys: Container[str]) -> MapNode:
        """What `defaults` and api.yaml give to endpoints under these keys, by the files' roots."""
        defaults = mapping_of(daemon.child("defaults")).only(keys)
        return self.merge(self.merge(MapNode(), defaults), api.only(keys))

    def _join(self, key: str, lower: Node, upper: Node) -> Node:
        setting = self._settings.get(key)
        if setting is None or setting.merge == "mapping":
            return _by_key(lower, upper)
        if setting.merge == "by_name":
            return _by_name(lower, upper)
        return upper

    def _prepared(self, key: str, entry: tuple[Spot, Node]) -> tuple[Spot, Node]:
        """The entry; where its setting unites by name, with a name in each mapping of its list."""
        spot, node = entry
        setting = self._settings.get(key)
        if setting is None or setting.merge != "by_name" or not isinstance(node, ListNode):
            return entry
        return spot, self._with_names(node, setting)

    def _with_names(self, node: ListNode, setting: Setting[Any]) -> ListNode:
        items: list[tuple[Spot, Node]] = []
        seen: dict[str, Spot] = {}
        for spot, item in node.items:
            if not isinstance(item, MapNode):
                items.append((spot, item))
                continue
            place, written = item.entries.get("name", (spot, None))
            if (written is None or is_null(written)) and setting.name_of is not None:
                name = self._derived(spot, item, setting)
                if name is not None:
                    item = MapNode(
                        {**item.entries, "name": (spot.below("name"), Scalar(name, name))}
                    )
            else:
                name = name_of(item)
            if name is not None and name in seen:
                self._reader.problems.error(
                    place,
                    f"the name {name!r} is taken by the one in line {seen[name].line}; "
                    + ("give each its own `name`" if written is None else "choose another"),
                )
            elif name is not None:
                seen[name] = place
            items.append((spot, item))
        return ListNode(items)

    def _derived(self, spot: Spot, item: MapNode, setting: Setting[Any]) -> str | None:
        assert setting.name_of is not None
        try:
            name = setting.name_of(self._reader.plain(spot, item))
        except Exception:  # a plugin's function over a mapping that is not validated yet
            return None
        return name[:_NAME_LIMIT] if isinstance(name, str) and name else None


def _by_key(lower: Node, upper: Node) -> Node:
    if not isinstance(lower, MapNode) or not isinstance(upper, MapNode):
        return upper
    entries = dict(lower.entries)
    for key, (spot, node) in upper.entries.items():
        if key in entries:
            if is_null(node):
                continue
            if key not in WHOLE:
                node = _by_key(entries[key][1], node)
        entries[key] = (spot, node)
    return MapNode(entries)


def _by_name(lower: Node, upper: Node) -> Node:
    if not isinstance(lower, ListNode) or not isinstance(upper, ListNode):
        return upper
    own = {name: entry for entry in upper.items if (name := name_of(entry[1]))}
    items: list[tuple[Spot, Node]] = []
    for spot, item in lower.items:
        found = own.pop(name_of(item) or "", None)
        items.append((found[0], _by_key(item, found[1])) if found else (spot, item))
    items += [entry for entry in upper.items if (name_of(entry[1]) or "") in ("", *own)]
    return ListNode(items)


# -- what endpoints share --------------------------------------------------------------------------


@dataclass(slots=True)
class Inherited:
    """What the endpoints of one API get: the merged keys, and those of them already validated."""

    node: MapNode = field(default_factory=MapNode)
    read: dict[str, ReadNode] = field(default_factory=dict)
    """By key. One with errors has None as its value."""
    api: Api | None = None
    """None where api.yaml has errors."""
    own: MapNode = field(default_factory=MapNode)
    """The keys of api.yaml that are the API's own."""
    data: dict[str, Any] = field(default_factory=dict)
    """Its keys as data, for people."""
    headers: Mapping[str, Template] = field(default_factory=dict)
    """Of the API, where these are good."""
    spot: Spot = NOWHERE
    """Where api.yaml begins."""
    guards: Guards = field(default_factory=Guards)
    """Of `defaults`."""
    waits: str = ""
    """Why the tasks of the endpoints wait, whatever their own files say; empty if they do not."""


class SharedReader:
    """Reads what endpoints share."""

    def __init__(self, reader: NodeReader, addresses: AddressRules | None, cache: Cache) -> None:
        self.merger = Merger(reader, cache.blocks)
        self.request_rules = RequestRules(reader.problems, addresses)
        self.reader = reader
        self.cache = cache
        self._registry = reader.registry
        self._problems = reader.problems
        self._items = {
            key: item
            for key, setting in self._registry.settings.items()
            if (item := _item_of(setting.type)) is not None
        }
        """Of settings that hold any number of one model: that model."""

    def defaults(self, spot: Spot, node: Node | None) -> Inherited:
        """`defaults` of orchestratord.yaml, checked by itself."""
        upper, shared, own = MapNode(), shared_keys(self._registry.settings), fields_of(Guards)
        if isinstance(node, MapNode):
            upper = self.endpoint_keys(node, shared | set(own))
        elif node is not None and not is_null(node):
            self._problems.error(spot, "expected a mapping", unread=True)
        inherited = self._inherited(spot, Inherited(), upper.only(shared))
        inherited.waits = self.waits(mapping_of(node), upper)
        inherited.own = upper.only(own)
        inherited.guards = self.reader.read(spot, inherited.own, Guards).value or Guards()
        return inherited

    def api(
        self, name: str, document: YamlDocument, defaults: Inherited, allow: tuple[str, ...]
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
            return replace(self._inherited(spot, defaults, MapNode()), waits=defaults.waits)
        shared, own = shared_keys(self._registry.settings), fields_of(ApiKeys)
        known = self.endpoint_keys(document.root, shared | set(own), self._of_endpoints())
        inherited = self._inherited(spot, defaults, known.only(shared))
        inherited.waits = self.waits(document.root, known) or defaults.waits
        inherited.own = self.merger.merge(defaults.own, known.only(own))
        inherited.spot = spot
        keys, inherited.data, fields = self.reader.read(spot, inherited.own, ApiKeys)
        problems = KeyProblems(self._problems, spot, inherited.own)
        self.request_rules.check_api(fields, problems, allow)
        proxy: Proxy | None = fields.get("proxy")
        if proxy is not None and proxy.password:
            self.reader.secret(problems.at("proxy"), proxy.password)
        inherited.headers = fields.get("headers", {})
        if keys is not None:
            written = {key: getattr(keys, key) for key in keys.model_fields_set if key != "egress"}
            inherited.api = Api(name=name, egress=(*allow, *keys.egress.allow), **written)
        return inherited

    def _of_endpoints(self) -> dict[str, str]:
        """Keys of endpoints alone → what to say of them in api.yaml."""
        models = [one.model for one in self._registry.call_executors().values() if one.model]
        keys = {key for model in (EndpointKeys, *models) for key in fields_of(model)}
        return dict.fromkeys(keys, "unknown key here; it belongs in an endpoint's file")

    def endpoint_keys(
        self, node: MapNode, known: AbstractSet[str], elsewhere: Mapping[str, str] = {}
    ) -> MapNode:
        """Keep the `known_keys` of an endpoint, of api.yaml or of `defaults`."""
        if node.entries.keys() <= known:  # as nearly always
            return node
        of_api = dict.fromkeys(
            fields_of(ApiKeys), "unknown key here; it belongs in the API's api.yaml"
        )
        return self.known_keys(node, known, self._registry.disabled_keys, {**of_api, **elsewhere})

    def known_keys(
        self,
        node: MapNode,
        known: AbstractSet[str],
        disabled: Mapping[str, str],
        elsewhere: Mapping[str, str],
    ) -> MapNode:
        """The node without unknown keys and those of disabled plugins, both reported.

        Args:
            node: the root of a file, or a mapping in it.
            known: its keys.
            disabled: those of disabled plugins, and whose each is.
            elsewhere: keys that have their place elsewhere → what is said of them here.
        """
        for key, (spot, _) in node.entries.items():
            if key in known:
                continue
            if key in elsewhere:
                self._problems.error(spot, elsewhere[key], unread=True)
            elif (owner := self._registry.absent_owner(key, disabled)) is not None:
                plugin, why, decides = owner
                waits = decides and disabled is self._registry.disabled_keys
                then = "the tasks of these endpoints wait" if waits else "it is not read"
                message = f"belongs to the plugin {plugin}, which {why}; {then}"
                self._problems.warn(spot, message, unread=True)
            else:
                self._problems.unknown_key(spot, key, known)
        return node.only(known)

    def waits(self, node: MapNode, read: MapNode) -> str:
        """Why tasks of endpoints under `node` wait, of which only `read` is: a key belongs to a
        plugin that would decide about attempts, and is not in force. Empty if they do not."""
        for key, (_, value) in node.entries.items():
            if key not in read.entries and not is_null(value):
                owner = self._registry.absent_owner(key, self._registry.disabled_keys)
                if owner is not None and owner[2]:
                    return f"its key {key!r} belongs to the plugin {owner[0]}, which {owner[1]}"
        return ""

    def read_shared(self, spot: Spot, node: MapNode, inherited: Inherited) -> dict[str, ReadNode]:
        """Validate the shared keys of a merged node.

        What came down unchanged was validated before, and is the same object for all.
        """
        read: dict[str, ReadNode] = {}
        for key in (*fields_of(Shared), *self._registry.settings):
            entry = node.entries.get(key)
            before = inherited.node.entries.get(key)
            if key in inherited.read and (entry and entry[1]) is (before and before[1]):
                read[key] = inherited.read[key]
            elif entry is not None and key in self._items and isinstance(entry[1], ListNode):
                read[key] = self._read_items(key, entry[1])
            elif key not in self._registry.settings or entry is not None:
                read[key] = self.cache.alike(
                    key, entry and entry[1], self.reader, partial(self._read_key, key, spot, node)
                )
        return read

    def _read_items(self, key: str, node: ListNode) -> ReadNode:
        """One by one: most endpoints have some of their API, and some that others have, too."""
        read = [
            self.cache.alike(
                key, entry[1], self.reader, partial(self.reader.read, *entry, self._items[key])
            )
            for entry in node.items
        ]
        values = tuple(one.value for one in read)
        good = all(value is not None for value in values)
        return ReadNode(values if good else None, [one.data for one in read], {})

    def _read_key(self, key: str, spot: Spot, node: MapNode) -> ReadNode:
        if key in self._registry.settings:
            return self.reader.read(*node.entries[key], self._registry.settings[key].type)
        value, data, _ = self.reader.read(spot, node.only({key}), Shared)
        return ReadNode(value and getattr(value, key), data.get(key), {})

    def _inherited(self, spot: Spot, lower: Inherited, upper: MapNode) -> Inherited:
        merged = self.merger.merge(lower.node, upper)
        for _, node in merged.entries.values():
            for item in items_of(node):
                self.cache.blocks.share(item)  # of all endpoints that inherit it
        return Inherited(merged, self.read_shared(spot, merged, lower))


def _item_of(type_: Any) -> Any:
    """The model of which a type holds any number, and says nothing else; None for other types."""
    arguments = get_args(type_)
    if get_origin(type_) is not tuple or arguments[1:] != (...,):
        return None
    model = arguments[0]
    return model if isinstance(model, type) and issubclass(model, BaseModel) else None
