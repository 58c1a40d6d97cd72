"""JSON Schema of the files, for editors: made from the models that validate them.

`as_read` adds what the reader takes beside the values themselves: empty keys, and references.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from orchestratord.config.yaml_keys import HTTP, api_model, daemon_model, endpoint_model
from orchestratord.model.backoff import Backoff
from orchestratord.plugin.registry import Registry
from orchestratord.values import doc_links
from orchestratord.values.yaml_value import REFERENCE

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_TYPE = "The kind of endpoint."
_STRATEGY = "How the delay grows from one attempt to the next."
_ABOUT = ("title", "description", "default")

File = Literal["endpoint", "api", "daemon"]


def json_schema(file: File, registry: Registry) -> dict[str, Any]:
    """What a file may hold, as JSON Schema 2020-12.

    Args:
        file: which of the files.
        registry: the plugins' keys, types and strategies are part of it; the keys of disabled
            plugins are allowed, as they are when the files are read.
    """
    settings = registry.settings.values()
    disabled = registry.disabled_keys
    if file == "api":
        schema = _schema(api_model(settings), registry)
        _allow(schema, disabled)
    elif file == "daemon":
        schema = _schema(daemon_model(settings, registry.daemon_settings.values()), registry)
        _allow(schema["$defs"]["Defaults"], disabled)
        _allow(schema, registry.disabled_daemon_keys)
    else:
        schema = _endpoint(registry)
    about = {"$schema": DIALECT, "$id": doc_links.schema(file), "title": f"orchestratord: {file}"}
    return {**about, **_as_shown(as_read(schema)), "title": about["title"]}


def _endpoint(registry: Registry) -> dict[str, Any]:
    """With one type that type's schema; with several, one for each, chosen by `type`."""
    settings = list(registry.settings.values())
    definitions: dict[str, Any] = {}
    branches: list[dict[str, Any]] = []
    executors = registry.call_executors()
    for type_, executor in executors.items():
        one = _schema(endpoint_model(executor, settings), registry)
        one["properties"]["type"] = {"const": type_, "description": _TYPE}
        for key in executor.refused:
            del one["properties"][key]
        _allow(one, registry.disabled_keys)
        if len(executors) == 1 and not registry.disabled_types:
            return one
        definitions |= one.pop("$defs", {})
        definitions[f"type_{type_}"] = one
        const = [type_, None] if type_ == HTTP else [type_]
        chosen: dict[str, Any] = {"properties": {"type": {"enum": const}}}
        if type_ != HTTP:
            chosen["required"] = ["type"]
        branches.append({"if": chosen, "then": {"$ref": f"#/$defs/type_{type_}"}})
    types = sorted({*executors, *registry.disabled_types})
    return {
        "type": "object",
        "properties": {"type": {"enum": types, "description": _TYPE}},
        "allOf": branches,
        "$defs": definitions,
    }


def _schema(model: type[BaseModel], registry: Registry) -> dict[str, Any]:
    schema = model.model_json_schema(schema_generator=_Generator)
    definitions = schema.get("$defs", {})
    if "Backoff" in definitions:
        definitions["Backoff"] = _backoff(registry.backoffs.items(), definitions)
        # A strategy of a disabled plugin is read as `fixed`.
        for name in registry.disabled_backoffs:
            definitions["Backoff"]["anyOf"][0]["enum"].append(name)
    return schema


def _backoff(
    strategies: Iterable[tuple[str, type[Backoff]]], definitions: dict[str, Any]
) -> dict[str, Any]:
    names: list[str] = []
    options: list[dict[str, Any]] = []
    for name, strategy in strategies:
        names.append(name)
        one = strategy.model_json_schema(schema_generator=_Generator)
        definitions.update(one.pop("$defs", {}))
        one["properties"] = {
            "strategy": {"const": name, "description": _STRATEGY},
            **one.get("properties", {}),
        }
        one["required"] = ["strategy", *one.get("required", [])]
        options.append(one)
    return {
        "description": "A strategy's name, or a mapping with `strategy` and its options.",
        "anyOf": [{"enum": names}, REFERENCE, *options],
    }


def _allow(schema: dict[str, Any], keys: Iterable[str]) -> None:
    """Allow keys of which nothing else is known."""
    for key in keys:
        schema["properties"].setdefault(key, {"description": "a key of a disabled plugin"})


def _as_shown(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with one text for each key, its own: an editor shows all that it comes across.

    A key without one has that of its type. The titles that pydantic makes of names say nothing.
    """
    definitions = schema.get("$defs", {})
    for one in (schema, *definitions.values()):
        _say_once(one, definitions)
    for one in (schema, *definitions.values()):
        _forget(one)
    return schema


def _say_once(schema: Any, definitions: Mapping[str, Any]) -> None:
    """Give each key below its text, in one line."""
    for part in _parts_of(schema):
        for key in part.get("properties", {}).values():
            text = key.get("description") or next(_texts_of_type(key, definitions), "")
            _forget(key)
            if text:
                key["description"] = " ".join(text.split())
            _say_once(key, definitions)
        for name in ("items", "additionalProperties"):
            _say_once(part.get(name), definitions)


def _parts_of(schema: Any) -> Iterator[dict[str, Any]]:
    """The schema, and those in it that are about the same value."""
    if not isinstance(schema, dict):
        return
    yield schema
    for name in ("anyOf", "allOf", "oneOf"):
        for one in schema.get(name, ()):
            yield from _parts_of(one)
    for name in ("then", "else"):
        yield from _parts_of(schema.get(name))


def _texts_of_type(schema: dict[str, Any], definitions: Mapping[str, Any]) -> Iterator[str]:
    for part in _parts_of(schema):
        target = definitions.get(part.get("$ref", "").rpartition("/")[2], {})
        yield from (one["description"] for one in (part, target) if one.get("description"))


def _forget(schema: dict[str, Any]) -> None:
    for part in _parts_of(schema):
        part.pop("title", None)
        part.pop("description", None)


class _Generator(GenerateJsonSchema):
    """Pydantic's generator, with what the reader makes of plain scalars and references.

    A text may look like a number, since it is kept as it stands, and a reference may stand for a
    number or a word. A key with nothing behind it is as good as missing.
    """

    def str_schema(self, schema: core_schema.StringSchema) -> JsonSchemaValue:
        return {**super().str_schema(schema), "type": ["string", "number", "boolean"]}

    def int_schema(self, schema: core_schema.IntSchema) -> JsonSchemaValue:
        return _or_reference(super().int_schema(schema))

    def float_schema(self, schema: core_schema.FloatSchema) -> JsonSchemaValue:
        return _or_reference(super().float_schema(schema))

    def bool_schema(self, schema: core_schema.BoolSchema) -> JsonSchemaValue:
        return _or_reference(super().bool_schema(schema))

    def literal_schema(self, schema: core_schema.LiteralSchema) -> JsonSchemaValue:
        return _or_reference(super().literal_schema(schema))


def _or_reference(schema: JsonSchemaValue) -> JsonSchemaValue:
    return {"anyOf": [schema, REFERENCE]}


def as_read(schema: Any, *, optional: bool = False) -> Any:
    """The schema, in which a key may be left empty and a reference may stand for a word.

    Args:
        schema: one as pydantic makes it.
        optional: it is the value of a key, and nothing behind that is as good as no key.
    """
    if not isinstance(schema, dict):
        return schema
    required = schema.get("required", ())
    read = dict(schema)
    for key in ("$defs", "properties"):
        if key in schema:
            read[key] = {
                name: as_read(item, optional=key == "properties" and name not in required)
                for name, item in schema[key].items()
            }
    for key in ("anyOf", "allOf", "oneOf", "prefixItems"):
        if key in schema:
            read[key] = [as_read(item) for item in schema[key]]
    for key in ("items", "then", "else"):
        if key in schema:
            read[key] = as_read(schema[key])
    if "additionalProperties" in schema:
        read["additionalProperties"] = as_read(schema["additionalProperties"], optional=True)
    read = _with_reference(read)
    return _or_nothing(read) if optional else read


def _with_reference(schema: dict[str, Any]) -> dict[str, Any]:
    """A text of a certain form, or one of some words: the form is that of what comes out."""
    narrow = "pattern" in schema or "enum" in schema
    if not narrow or "string" not in schema.get("type", "string") or schema == REFERENCE:
        return schema
    about, rest = _parts(schema)
    return {**about, "anyOf": [rest, REFERENCE]}


def _or_nothing(schema: dict[str, Any]) -> dict[str, Any]:
    about, rest = _parts(schema)
    if set(rest) == {"anyOf"}:
        others = [one for one in rest["anyOf"] if one != {"type": "null"}]
        if len(others) == 1 and "type" in others[0]:
            return _or_nothing({**others[0], **about})
        return {**about, "anyOf": [*others, {"type": "null"}]}
    if "const" in rest:
        return {**about, "enum": [rest["const"], None]}
    if "type" in rest:
        types = rest["type"] if isinstance(rest["type"], list) else [rest["type"]]
        return {**about, **rest, "type": sorted({*types, "null"})}
    if rest:
        # With `anyOf` an editor would point to the key, and not to what is wrong inside its value.
        return {**about, "if": {"type": "null"}, "else": rest}
    return schema


def _parts(schema: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    about = {key: value for key, value in schema.items() if key in _ABOUT}
    return about, {key: value for key, value in schema.items() if key not in _ABOUT}
