"""A JSON Schema in a file, by which the data of an event are checked."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from orchestratord import Attachment, Model

MOST_PROBLEMS = 20
"""Of one event, that are named."""
_SHOWN = 200
"""Characters of what is said of one."""
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")


@dataclass(frozen=True)
class SchemaFile(Attachment):
    """A JSON Schema, which is made ready when the file is read."""

    inside: ClassVar[bool] = True
    json_schema: ClassVar[Mapping[str, Any]] = {
        **Attachment.json_schema,
        "description": "the path of a JSON Schema, relative to the config folder and in it",
    }

    def __post_init__(self) -> None:
        """Raise ValueError where it is none."""
        _ = self.validator

    @cached_property
    def validator(self) -> Any:
        """What checks data by it; nothing outside of the file is looked at."""
        return _validator(self.name, self.content)


class DataSchema(Model):
    """Where the schema stands."""

    file: SchemaFile
    """The path of a JSON Schema, relative to the config folder; its `$ref` stay in the file."""

    def problems(self, params: Mapping[str, Any]) -> dict[str, str]:
        """What is wrong with the data of one event, by their paths."""
        found: dict[str, str] = {}
        try:
            for error in self.file.validator.iter_errors(dict(params)):
                path = ".".join(str(part) for part in error.absolute_path) or "params"
                message = error.message
                if len(message) > _SHOWN:
                    message = f"{message[: _SHOWN - 1]}…"
                found.setdefault(path[:_SHOWN], message)
                if len(found) >= MOST_PROBLEMS:
                    break
        except (ArithmeticError, RecursionError, ValueError) as error:
            # Numbers without a quotient, a schema that refers to itself, digits beyond all bounds.
            found.setdefault("params", f"cannot be held against {self.file.name}: {error}"[:_SHOWN])
        return found


def _validator(name: str, content: bytes) -> Any:
    try:
        import jsonschema
        from referencing import Registry
        from referencing.exceptions import Unresolvable
    except ImportError:
        raise ValueError(
            "needs jsonschema, which is not installed: pip install 'orchestratord[schema]'"
        ) from None
    try:
        schema = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is not JSON: {error}") from None
    if not isinstance(schema, dict | bool):
        raise ValueError(f"{name} is no JSON Schema: it has to be an object")
    kind = jsonschema.validators.validator_for(schema, jsonschema.Draft202012Validator)
    try:
        kind.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise ValueError(f"{name} is no JSON Schema: {error.message}") from None
    # With a registry of its own nothing is fetched for a `$ref`.
    registry: Any = Registry()
    validator = kind(schema, registry=registry)
    resolver = validator._resolver
    for reference in _references(schema):
        try:
            resolver.lookup(reference)
        except Unresolvable:
            raise ValueError(
                f"{name}: $ref {reference!r} is not in the file: nothing is fetched; put what it "
                "names under $defs, and write '#/$defs/…'"
            ) from None
    return validator


def _references(schema: Any) -> Iterator[str]:
    waiting = [schema]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            for key, value in item.items():
                if key in _REFERENCES and isinstance(value, str):
                    yield value
                elif key not in ("const", "enum", "default", "examples"):
                    waiting.append(value)
        elif isinstance(item, list):
            waiting.extend(item)
