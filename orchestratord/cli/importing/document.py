"""An OpenAPI document: read from JSON or YAML, with its references followed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import click
import yaml

from orchestratord.config.yaml.scalars import resolve

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")

_VERSION = re.compile(r"(2\.0|3\.0|3\.1)(\.|$)")
_MAX_HOPS = 50
"""References that lead to further ones."""


class Document:
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


def read(path: Path) -> Document:
    """Read a document. Raises ClickException where that is not possible."""
    try:
        content = path.read_bytes()
        is_json = content.lstrip()[:1] == b"{"
        root = json.loads(content) if is_json else yaml.load(content, _Loader)  # noqa: S506  # safe
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}") from None
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        what = " ".join(str(error).split()) or "it is nested too deeply"
        raise click.ClickException(f"{path} is neither JSON nor YAML: {what}") from None
    try:
        return Document(root)
    except click.ClickException as error:
        raise click.ClickException(f"{path} is no OpenAPI document: {error.message}") from None


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """PyYAML's safe one, which takes a plain text for what YAML 1.2 has it mean."""

    yaml_implicit_resolvers = {  # noqa: RUF012  # the library's own way
        "<": [("tag:yaml.org,2002:merge", re.compile("<<$"))],
        None: [("!plain", re.compile(""))],
    }


_Loader.add_constructor("!plain", lambda loader, node: resolve(node.value))
