"""Where each value of an endpoint or of the daemon comes from: file and line, or the defaults."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter

from orchestratord.config.folder import read_folder
from orchestratord.config.inherit import Merger
from orchestratord.config.validate.node_reader import NodeReader
from orchestratord.config.validate.shapes import fields_of, keyed_fields
from orchestratord.config.yaml.document import root_of
from orchestratord.config.yaml.nodes import ListNode, MapNode, Node, Scalar, Spot, mapping_of
from orchestratord.config.yaml_keys import ApiKeys, shared_keys
from orchestratord.model.backoff import Backoff, backoff_data
from orchestratord.model.endpoint import Endpoint, Guards
from orchestratord.model.settings import Config, DaemonSettings
from orchestratord.plugin.registry import Registry
from orchestratord.values.redact import Redactor
from orchestratord.values.status_set import StatusSet

_Placed = tuple[Spot, Node]


@dataclass(frozen=True, slots=True)
class Traced:
    """A value: a mapping or a list of traced ones, or a scalar with its place.

    `origin` is None for a default.
    """

    value: dict[str, Traced] | list[Traced] | str | int | float | bool | None
    origin: Spot | None = None


def trace(
    folder: Path, endpoint: Endpoint, registry: Registry, redactor: Redactor
) -> dict[str, Traced]:
    """What the endpoint is after merging, secrets masked, with the place of each value.

    What is empty and not written is left out. The files were good a moment ago.
    """
    daemon, api, merged = _laid_over(folder, endpoint, registry)
    own, above = merged.entries, api.entries
    traced: dict[str, Traced] = {}

    def add(
        key: str, value: Any, default: Callable[[], Any], entries: Mapping[str, _Placed]
    ) -> None:
        data = endpoint.shown[key] if key in endpoint.shown else default()
        if key in entries or not _is_nothing(data):
            traced[key] = _traced(data, value, entries.get(key), redactor)

    add("type", endpoint.type, _none, own)
    for name in ApiKeys.model_fields:
        if name not in ("headers", "egress"):
            add(name, getattr(endpoint.api, name), partial(_dumped, endpoint.api, name), above)
    if endpoint.api.egress:
        traced["egress"] = Traced({"allow": _egress(endpoint, daemon, api)})
    spec = endpoint.spec
    if isinstance(spec, BaseModel):
        for key, name in keyed_fields(type(spec)):
            if key in traced and key not in own:  # it is the API's
                continue
            entries = _with_headers(own, above) if key == "headers" else own
            add(key, getattr(spec, name), partial(_dumped, spec, name), entries)
    if "headers" not in traced:
        add("headers", endpoint.api.headers, _none, above)
    keys = endpoint.keys
    for key, name in keyed_fields(type(keys)):
        if name not in ("type", "tests"):
            value = getattr(endpoint, name, getattr(keys, name))
            add(key, value, partial(_dumped, keys, name), own)
    for setting in registry.settings.values():
        value = endpoint[setting]
        dump = partial(TypeAdapter(setting.type).dump_python, value, mode="json")
        add(setting.key, value, dump, own)
    return traced


def trace_daemon(config: Config, registry: Registry) -> dict[str, Traced]:
    """What `orchestratord.yaml` says, secrets masked, with the place of each value.

    Its keys, those of plugins, and what is written below `defaults`. What is empty and not written
    is left out.
    """
    files = read_folder(config.folder)
    root = root_of(files, files.daemon)
    reader = NodeReader.quiet(registry, os.environ, config.folder)
    traced: dict[str, Traced] = {}

    def add(key: str, value: Any, default: Callable[[], Any]) -> None:
        placed = root.entries.get(key)
        data = default() if placed is None else reader.plain(*placed)
        if placed is not None or not _is_nothing(data):
            traced[key] = _traced(data, value, placed, config.redactor)

    for key, name in keyed_fields(DaemonSettings):
        add(key, getattr(config.daemon, name), partial(_dumped, config.daemon, name))
    for setting in registry.daemon_settings.values():
        value = config[setting]
        dump = partial(TypeAdapter(setting.type).dump_python, value, mode="json")
        add(setting.key, value, dump)
    add("defaults", None, _none)
    return traced


def _laid_over(
    folder: Path, endpoint: Endpoint, registry: Registry
) -> tuple[MapNode, MapNode, MapNode]:
    """The root of orchestratord.yaml; that of api.yaml, with what its own keys have from
    `defaults`; and the endpoint's keys, with those that it inherits."""
    files, shared = read_folder(folder), shared_keys(registry.settings)
    merger = Merger(NodeReader.quiet(registry, os.environ))
    root = root_of(files, files.endpoints.get(endpoint.id))
    daemon = root_of(files, files.daemon)
    guards = mapping_of(daemon.child("defaults")).only(fields_of(Guards))
    api = merger.merge(guards, root_of(files, files.apis.get(endpoint.api.name)))
    merged = merger.merge(merger.inherited(daemon, api, shared), root.only(shared))
    return daemon, api, MapNode({**root.entries, **merged.entries})


def _traced(data: Any, value: Any, placed: _Placed | None, redactor: Redactor) -> Traced:
    """Bring together a value for people, what it was validated to, and where it stands."""
    spot, node = placed if placed is not None else (None, None)
    if isinstance(value, Backoff):
        if not isinstance(data, Mapping):
            data = {}
        data = {**backoff_data(value), **data}
        if isinstance(node, Scalar) and spot is not None:
            node = MapNode({"strategy": (spot, node)})
    elif isinstance(value, BaseModel) and isinstance(data, Mapping):
        data = {**data, **_defaults(value, data)}
    if isinstance(data, Mapping):
        return Traced(
            {
                redactor.text(str(key)): _traced(
                    item, _child(value, key), mapping_of(node).entries.get(str(key)), redactor
                )
                for key, item in data.items()
                if str(key) in mapping_of(node).entries or not _is_nothing(item)
            },
            spot,
        )
    if isinstance(data, list | tuple):
        items = node.items if isinstance(node, ListNode) else []
        values = value if isinstance(value, list | tuple) else ()
        return Traced(
            [
                _traced(
                    item,
                    values[index] if len(values) == len(data) else None,
                    items[index] if len(items) == len(data) else _inside(placed),
                    redactor,
                )
                for index, item in enumerate(data)
            ],
            spot,
        )
    return Traced(redactor.text(data) if isinstance(data, str) else data, spot)


def _defaults(value: BaseModel, data: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that `data` does not have, as they would be written."""
    fields = keyed_fields(type(value))
    return {key: _dumped(value, name) for key, name in fields if key not in data}


def _none() -> None:
    """No default that is worth showing."""


def _dumped(owner: BaseModel, name: str) -> Any:
    """A field that is not written, as it would be."""
    value = getattr(owner, name)
    if isinstance(value, Backoff):
        return backoff_data(value)
    if isinstance(value, BaseModel):
        return _defaults(value, {})
    if isinstance(value, StatusSet):
        return value.codes if len(value.codes) > 1 else value.codes[0]
    return owner.model_dump(mode="json", include={name})[name]


def _child(value: Any, key: Any) -> Any:
    if isinstance(value, BaseModel):
        name = dict(keyed_fields(type(value))).get(key)
        return None if name is None else getattr(value, name)
    return value.get(key) if isinstance(value, Mapping) else None


def _inside(placed: _Placed | None) -> _Placed | None:
    """The place of an item of a list that was not written as one, such as `when: 5xx`."""
    return None if placed is None else (placed[0], Scalar(None, ""))


def _with_headers(
    own: Mapping[str, _Placed], above: Mapping[str, _Placed]
) -> Mapping[str, _Placed]:
    """The endpoint's entries, with the API's headers below its own."""
    spot, upper = own.get("headers", above.get("headers", (None, MapNode())))
    if spot is None:
        return own
    lower = above.get("headers", (None, MapNode()))[1]
    headers = {**mapping_of(lower).entries, **mapping_of(upper).entries}
    return {**own, "headers": (spot, MapNode(headers))}


def _egress(endpoint: Endpoint, daemon: MapNode, api: MapNode) -> Traced:
    """The rules of the daemon, then those of the API."""
    spots: list[Spot] = []
    for root in (daemon, api):
        allow = mapping_of(root.child("egress")).child("allow")
        spots += [spot for spot, _ in allow.items] if isinstance(allow, ListNode) else []
    known = len(spots) == len(endpoint.api.egress)
    return Traced(
        [
            Traced(rule, spots[index] if known else None)
            for index, rule in enumerate(endpoint.api.egress)
        ]
    )


def _is_nothing(data: Any) -> bool:
    return data is None or (isinstance(data, str | Mapping | list | tuple) and not data)
