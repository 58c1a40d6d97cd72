"""Values that fit a schema of an OpenAPI document: what it must have, and no more."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from orchestratord_openapi.openapi_document import OpenApiDocument, items, mapping

FORMATS = {
    "date-time": "2027-01-01T12:00:00Z", "date": "2027-01-01", "time": "12:00:00Z",
    "uuid": "7f0e2c3a-9a52-4c8e-8f1b-2f6f8f2f5a10", "email": "a@example.com",
    "uri": "https://example.com/a", "url": "https://example.com/a", "ipv4": "192.0.2.1",
    "hostname": "example.com", "byte": "YWJj", "int-or-string": "1",
}  # fmt: skip
CANDIDATES = (
    "a", "abc", "1", "a1b2", "0" * 40, "a" * 64, "2027-01-01", "https://example.com/a", "a/b",
    "refs/heads/a", "#ffffff", "ffffff", "1.0.0", "a@example.com", "A", "AB", "1:1", "a:b",
    "ssh-rsa AAAA", "sha256:" + "a" * 64,
)  # fmt: skip
"""What a text with a pattern may be."""
_DEEP = 30


def sample(document: OpenApiDocument, schema: Any, depth: int = 0) -> Any:
    """One value."""
    known = document.look(schema)
    if depth > _DEEP or not known:
        return "a" if not known else None
    for key in ("example", "default", "const"):
        if known.get(key) is not None and _matches(known[key], known.get("pattern")):
            return known[key]
    for key in ("examples", "enum"):
        choices = [one for one in items(known.get(key)) if one is not None]
        if choices:
            return choices[0]
    parts = [sample(document, part, depth + 1) for part in items(known.get("allOf"))]
    for key in ("oneOf", "anyOf"):
        choices = items(known.get(key))
        if choices:
            base = {name: value for name, value in known.items() if name != key}
            # A number in a path or a query is a text as well: of both, only the text is one alone.
            texts = [one for one in choices if document.look(one).get("type") == "string"]
            chosen = document.look((texts or choices)[0])
            joined = {**base, **chosen, **_both(base, chosen)}
            if not joined.get("required"):  # nothing at all could be any of them
                joined["required"] = list(mapping(joined.get("properties")))[:1]
            return sample(document, joined, depth + 1)
    if parts:
        own = _object(document, known, depth) if "properties" in known else {}
        objects = [part for part in parts if isinstance(part, Mapping)]
        return {k: v for part in [*objects, own] for k, v in part.items()} if objects else parts[0]
    return _of_type(document, known, depth)


def _matches(value: Any, pattern: Any) -> bool:
    """Whether an example fits its own pattern, where it has one."""
    if not isinstance(value, str) or not isinstance(pattern, str):
        return True
    try:
        return re.search(pattern, value) is not None
    except re.error:
        return True


def _both(base: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """What both ask for, of an object that is described at once in two places."""
    joined: dict[str, Any] = {}
    if "properties" in base and "properties" in chosen:
        joined["properties"] = {**base["properties"], **chosen["properties"]}
    if "required" in base and "required" in chosen:
        joined["required"] = [*base["required"], *chosen["required"]]
    return joined


def _of_type(document: OpenApiDocument, known: Mapping[str, Any], depth: int) -> Any:
    said = known.get("type")
    type_ = (
        next((one for one in items(said) if one != "null"), None)
        if isinstance(said, list)
        else said
    )
    if type_ == "object" or (type_ is None and "properties" in known):
        return _object(document, known, depth)
    if type_ == "array" or (type_ is None and "items" in known):
        count = max(int(known.get("minItems", 0)), 0)
        return [sample(document, known.get("items", {}), depth + 1) for _ in range(count)]
    if type_ in ("integer", "number"):
        lowest = known.get("minimum", known.get("exclusiveMinimum", 0))
        number = 1 if isinstance(lowest, bool) else max(1, lowest + ("exclusiveMinimum" in known))
        highest = known.get("maximum", number)
        return min(number, highest) if not isinstance(highest, bool) else number
    if type_ == "boolean":
        return True
    return _text(known)


def _object(document: OpenApiDocument, known: Mapping[str, Any], depth: int) -> dict[str, Any]:
    properties = mapping(known.get("properties"))
    wanted = [str(name) for name in items(known.get("required"))]
    more = [name for name in properties if name not in wanted]
    wanted += more[: max(int(known.get("minProperties", 0)) - len(wanted), 0)]
    return {name: sample(document, properties.get(name, {}), depth + 1) for name in wanted}


def _text(known: Mapping[str, Any]) -> str:
    pattern = known.get("pattern")
    if isinstance(pattern, str):
        for candidate in CANDIDATES:
            try:
                if re.search(pattern, candidate):
                    return candidate
            except re.error:
                break
    found = FORMATS.get(str(known.get("format")), "a")
    return found.ljust(int(known.get("minLength", 0)), "a")
