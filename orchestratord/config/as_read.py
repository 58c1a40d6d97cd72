"""What the reader takes beside the values themselves, added to a JSON Schema of the models."""

from __future__ import annotations

from typing import Any

REFERENCE = {"type": "string", "pattern": r"\$\{"}
"""A reference stands for a value of any type."""

_ABOUT = ("title", "description", "default")


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
    read = _or_reference(read)
    return _or_nothing(read) if optional else read


def _or_reference(schema: dict[str, Any]) -> dict[str, Any]:
    """A text of a certain form, or one of some words: the form is that of what comes out."""
    narrow = "pattern" in schema or "enum" in schema
    if not narrow or "string" not in schema.get("type", "string") or schema == REFERENCE:
        return schema
    about, rest = _parts(schema)
    return {**about, "anyOf": [rest, REFERENCE]}


def _or_nothing(schema: dict[str, Any]) -> dict[str, Any]:
    about, rest = _parts(schema)
    if set(rest) == {"anyOf"}:
        return {**about, "anyOf": [*rest["anyOf"], {"type": "null"}]}
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
