"""What a schema says of a value: its type as parameters have it, its default, and in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestratord.cli.importing.document import Document, items, mapping, text
from orchestratord.config.params import fitted
from orchestratord.model.endpoint import Param

MISSING: Any = object()

_TYPES = frozenset({"string", "integer", "number", "boolean", "array", "object"})
_MAX_DEPTH = 12
_MAX_WORDS = 400
"""Characters of a description."""
_MAX_CHOICES = 20


def type_of(document: Document, schema: Any, depth: int = 0) -> str | None:
    """The one type that a value has; None where it may be of several, or nobody says."""
    found = _types(document, schema, depth)
    if found == {"integer", "number"}:
        return "number"
    return next(iter(found)) if len(found) == 1 else None


def _types(document: Document, schema: Any, depth: int) -> set[str]:
    known = document.look(schema)
    if depth > _MAX_DEPTH:
        return set()
    said = known.get("type")
    types = {str(one) for one in (said if isinstance(said, list) else [said])} & _TYPES
    if types:
        return types
    if "properties" in known or "additionalProperties" in known:
        return {"object"}
    if "items" in known:
        return {"array"}
    values = known.get("enum", [known["const"]] if "const" in known else None)
    if isinstance(values, list) and values:
        return {_type_of_value(value) for value in values} - {""}
    parts = [_types(document, part, depth + 1) for part in items(known.get("allOf"))]
    for key in ("anyOf", "oneOf"):
        choices = [_types(document, part, depth + 1) for part in items(known.get(key))]
        if choices:
            parts.append(set().union(*choices))
    return next((part for part in parts if part), set())


def _type_of_value(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    kinds = {str: "string", int: "integer", float: "number", list: "array", dict: "object"}
    return kinds.get(type(value), "")


def default_of(document: Document, schema: Any, type_: str | None) -> Any:
    """The default of a value, if it has one that fits its type; else MISSING."""
    default = document.look(schema).get("default", MISSING)
    if default is MISSING or default is None:
        return MISSING
    try:
        return fitted(Param.model_validate({"type": type_, "required": True}), default)
    except ValueError:
        return MISSING


def words_of(document: Document, schema: Any, description: Any) -> str:
    """What is said of a value, in one line: its description, its choices, its format."""
    known = document.look(schema)
    said = text(description) or text(known.get("description"))
    if len(said) > _MAX_WORDS:
        said = said[: _MAX_WORDS - 1].rstrip() + "…"
    values = items(known.get("enum"))
    more: list[str] = []
    if values:
        shown = ", ".join(text(str(value)) for value in values[:_MAX_CHOICES])
        more.append(f"one of {shown}" + (", …" if len(values) > _MAX_CHOICES else ""))
    if isinstance(known.get("format"), str):
        more.append(text(known["format"]))
    if not more:
        return said
    joined = "; ".join(more)
    return f"{said} ({joined})" if said else joined


def properties_of(document: Document, schema: Any, depth: int = 0) -> dict[str, Mapping[str, Any]]:
    """The properties of an object that can be sent, those of its parts included."""
    known = document.look(schema)
    found: dict[str, Mapping[str, Any]] = {}
    if depth > _MAX_DEPTH:
        return found
    for part in items(known.get("allOf")):
        found |= properties_of(document, part, depth + 1)
    for name, value in mapping(known.get("properties")).items():
        if document.look(value).get("readOnly") is not True:
            found[str(name)] = document.look(value)
    return found


def required_of(document: Document, schema: Any, depth: int = 0) -> set[str]:
    """The names of the properties that an object must have."""
    known = document.look(schema)
    names = {str(name) for name in items(known.get("required"))}
    if depth <= _MAX_DEPTH:
        for part in items(known.get("allOf")):
            names |= required_of(document, part, depth + 1)
    return names
