"""An OpenAPI document: read from JSON or YAML, its references followed, its schemas understood.

A schema gives the type of a value, as parameters have it, its default and its description.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import click

from orchestratord import Param, fitted, parse_yaml, url_problem

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")

_VERSION = re.compile(r"(2\.0|3\.0|3\.1)(\.|$)")
_VARIABLE = re.compile(r"\{([^{}]+)\}")
_MAX_HOPS = 50
"""References that lead to further ones."""

MISSING: Any = object()

_TYPES = frozenset({"string", "integer", "number", "boolean", "array", "object"})
_MAX_DEPTH = 12
_MAX_WORDS = 400
"""Characters of a description."""
_MAX_CHOICES = 20


class OpenApiDocument:
    """What a file holds. Everything in it may be missing, or something else than it should be.

    Args:
        root: the document.

    Raises:
        click.ClickException: it is no OpenAPI document of a version that is known.
    """

    def __init__(self, root: Any) -> None:
        self.root = mapping(root)
        said = str(self.root.get("swagger") or self.root.get("openapi") or "")
        match = _VERSION.match(said)
        if match is None:
            what = f"version {said} of OpenAPI" if said else "no key `openapi` or `swagger`"
            raise click.ClickException(f"it has {what}; 2.0, 3.0 and 3.1 are read")
        self.version = match[1]
        """2.0, 3.0 or 3.1."""
        self.followed: set[str] = set()
        """References to other files, which are not followed."""

    @property
    def title(self) -> str:
        """What the API is called."""
        return text(mapping(self.root.get("info")).get("title"))

    def look(self, value: Any) -> Mapping[str, Any]:
        """The mapping that `value` is, or that it refers to; an empty one where there is none."""
        found = mapping(value)
        for _ in range(_MAX_HOPS):
            reference = found.get("$ref")
            if not isinstance(reference, str):
                return found
            found = mapping(self._target(reference))
        return {}

    def _target(self, reference: str) -> Any:
        file, _, pointer = reference.partition("#")
        if file:
            self.followed.add(reference)
            return None
        found: Any = self.root
        for part in pointer.split("/")[1:]:
            key = unquote(part).replace("~1", "/").replace("~0", "~")
            if isinstance(found, Mapping):
                found = found.get(key)
            elif isinstance(found, list) and key.isdecimal() and int(key) < len(found):
                found = found[int(key)]
            else:
                return None
        return found

    def operations(self) -> Iterator[tuple[str, str, Mapping[str, Any], Mapping[str, Any]]]:
        """Path, method, what the path says of all its operations, and the operation."""
        for path, item in mapping(self.root.get("paths")).items():
            shared = self.look(item)
            for method in METHODS:
                if method in shared:
                    yield str(path), method, shared, self.look(shared[method])

    def base_url(self, servers: Any = None) -> str | None:
        """The URL that all paths are added to; None where the document names no host.

        `servers`: those of one operation, instead of the document's.
        """
        if self.version == "2.0":
            host = text(self.root.get("host"))
            schemes = [text(one) for one in items(self.root.get("schemes"))]
            scheme = "https" if "https" in schemes or "http" not in schemes else "http"
            url = f"{scheme}://{host}{text(self.root.get('basePath'))}" if host else ""
        else:
            given = items(self.root.get("servers") if servers is None else servers)
            server = mapping(given[0]) if given else {}
            variables = mapping(server.get("variables"))

            def default(match: re.Match[str]) -> str:
                return str(mapping(variables.get(match[1])).get("default", match[1]))

            # The document is a file, so no scheme of its own goes before `//host`.
            url = re.sub("^//", "https://", _VARIABLE.sub(default, text(server.get("url"))))
        url = url.rstrip("/")
        return url if url_problem(url) is None else None

    def base_path(self) -> str:
        """The path of a server that has no host."""
        if self.version == "2.0":
            found = text(self.root.get("basePath"))
        else:
            given = items(self.root.get("servers"))
            found = text(mapping(given[0]).get("url")) if given else ""
        return found.rstrip("/") if re.fullmatch(r"/[\w./~-]*", found) else ""

    def type_of(self, schema: Any) -> str | None:
        """The one type that a value has; None where it may be of several, or none is named."""
        found = self._types(schema, 0)
        if found == {"integer", "number"}:
            return "number"
        return next(iter(found)) if len(found) == 1 else None

    def _types(self, schema: Any, depth: int) -> set[str]:
        known = self.look(schema)
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
        parts = [self._types(part, depth + 1) for part in items(known.get("allOf"))]
        for key in ("anyOf", "oneOf"):
            choices = [self._types(part, depth + 1) for part in items(known.get(key))]
            if choices:
                parts.append(set().union(*choices))
        return next((part for part in parts if part), set())

    def default_of(self, schema: Any, type_: str | None) -> Any:
        """The default of a value, if it has one that fits its type; else MISSING."""
        default = self.look(schema).get("default", MISSING)
        if default is MISSING or default is None:
            return MISSING
        try:
            return fitted(Param.model_validate({"type": type_, "required": True}), default)
        except ValueError:
            return MISSING

    def words_of(self, schema: Any, description: Any) -> str:
        """What is said of a value, in one line: its description, its choices, its format."""
        known = self.look(schema)
        said = text(description) or text(known.get("description"))
        if len(said) > _MAX_WORDS:
            said = said[: _MAX_WORDS - 1].rstrip() + "…"
        values = items(known.get("enum"))
        shown = ", ".join(text(str(value)) for value in values[:_MAX_CHOICES])
        rest = ", …" if len(values) > _MAX_CHOICES else ""
        more = [f"one of {shown}{rest}"] if values else []
        if isinstance(known.get("format"), str):
            more.append(text(known["format"]))
        joined = "; ".join(more)
        return f"{said} ({joined})" if said and more else said or joined

    def _parts(self, schema: Any, depth: int = 0) -> Iterator[Mapping[str, Any]]:
        """A schema behind all that it consists of."""
        known = self.look(schema)
        if depth < _MAX_DEPTH:
            for part in items(known.get("allOf")):
                yield from self._parts(part, depth + 1)
        yield known

    def properties_of(self, schema: Any) -> dict[str, Mapping[str, Any]]:
        """The properties of an object that can be sent, those of its parts included."""
        return {
            str(name): self.look(value)
            for part in self._parts(schema)
            for name, value in mapping(part.get("properties")).items()
            if self.look(value).get("readOnly") is not True
        }

    def required_of(self, schema: Any) -> set[str]:
        """The names of the properties that an object must have."""
        return {str(name) for part in self._parts(schema) for name in items(part.get("required"))}

    def parameters_of(
        self, shared: Mapping[str, Any], operation: Mapping[str, Any]
    ) -> list[Mapping[str, Any]]:
        """The parameters of an operation; its own take the place of those of its path."""
        found: dict[tuple[str, str], Mapping[str, Any]] = {}
        for source in (shared, operation):
            for one in items(source.get("parameters")):
                parameter = self.look(one)
                found[str(parameter.get("name")), str(parameter.get("in"))] = parameter
        return list(found.values())


def mapping(value: Any) -> Mapping[str, Any]:
    """`value` if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def items(value: Any) -> list[Any]:
    """`value` if it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def text(value: Any) -> str:
    """`value` in one line, if it is a text, without what is no character."""
    if not isinstance(value, str):
        return ""
    return "".join(c for c in " ".join(value.split()) if c.isprintable())


def _type_of_value(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    kinds = {str: "string", int: "integer", float: "number", list: "array", dict: "object"}
    return kinds.get(type(value), "")


def read_openapi(path: Path) -> OpenApiDocument:
    """Read a document. Raises ClickException where that is not possible."""
    try:
        content = path.read_bytes()
        is_json = content.lstrip()[:1] == b"{"
        root = json.loads(content) if is_json else parse_yaml(content)
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        what = " ".join(str(error).split()) or "it is nested too deeply"
        raise click.ClickException(f"{path} is neither JSON nor YAML: {what}") from None
    try:
        return OpenApiDocument(root)
    except click.ClickException as error:
        raise click.ClickException(f"{path} is no OpenAPI document: {error.message}") from None
