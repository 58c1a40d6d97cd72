"""Defaults, api.yaml and the endpoint, laid over each other before anything is validated.

Mappings are merged by key, lists are replaced, `backoff` is replaced whole, and a plugin's key
follows its `Setting.merge`: in lists that are united by name, two of one name are merged by key.
Each value keeps the place that it was written in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestratord.config.positions import ListNode, MapNode, Node, Scalar, Spot, is_null
from orchestratord.config.reader import Reader
from orchestratord.endpoint import Setting

WHOLE = frozenset({"backoff"})
"""Mappings that are one choice: options of one strategy mean nothing to another."""

_NAME_LIMIT = 200


class Merger:
    """Merges the layers of one snapshot."""

    def __init__(self, reader: Reader, settings: Mapping[str, Setting[Any]]) -> None:
        self._reader = reader
        self._settings = settings

    def merge(self, lower: MapNode, upper: MapNode) -> MapNode:
        """`upper` over `lower`. A key with nothing behind it is as good as missing."""
        entries = dict(lower.entries)
        for key, entry in upper.entries.items():
            if is_null(entry[1]):
                continue
            spot, node = self._prepared(key, entry)
            if key in entries:
                node = self._join(key, entries[key][1], node)
            entries[key] = (spot, node)
        return MapNode(entries)

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
                name = _name(item)
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
        except Exception:  # a plugin's function over a mapping that nobody has validated yet
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
    own = {name: entry for entry in upper.items if (name := _name(entry[1]))}
    items: list[tuple[Spot, Node]] = []
    for spot, item in lower.items:
        found = own.pop(_name(item) or "", None)
        items.append((found[0], _by_key(item, found[1])) if found else (spot, item))
    items += [entry for entry in upper.items if (_name(entry[1]) or "") in ("", *own)]
    return ListNode(items)


def _name(item: Node) -> str | None:
    if not isinstance(item, MapNode) or "name" not in item.entries:
        return None
    name = item.entries["name"][1]
    return name.text if isinstance(name, Scalar) and name.value is not None else None
