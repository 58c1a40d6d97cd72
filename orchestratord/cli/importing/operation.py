"""One operation of a document, as what an endpoint's file says of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestratord.cli.importing.access import base_url
from orchestratord.cli.importing.arguments import Argument, arguments_of
from orchestratord.cli.importing.content import Body, body_of
from orchestratord.cli.importing.document import Document, items, mapping, text

_UNFIT = re.compile(r"[^A-Za-z0-9._]+")
_LONGEST = 120
"""Characters of a name."""


@dataclass(frozen=True, slots=True)
class Operation:
    """What an endpoint's file says.

    Args:
        key: what makes it the same one in the next version of the document: `GET /pets/{id}`.
        name: what the endpoint would best be called.
        about: what the document says of it, a paragraph each.
        method: GET and so on.
        path: with templates.
        arguments: its parameters.
        query, headers: templates by name.
        body: its body.
        success: status codes that are a success, where these are not only 2xx.
        problems: what of it cannot be sent.
        obstacle: why it cannot be called as it should be.
    """

    key: str
    name: str
    about: tuple[str, ...]
    method: str
    path: str
    arguments: tuple[Argument, ...] = ()
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body | None = None
    success: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    obstacle: str | None = None


def operations_of(document: Document) -> tuple[list[Operation], list[str]]:
    """All operations that can be called, and of others what they are."""
    found: list[Operation] = []
    left: list[str] = []
    for path, method, shared, operation in document.operations():
        if method == "trace":
            left.append(f"{method.upper()} {text(path)}")
        else:
            found.append(_operation(document, path, method, shared, operation))
    return found, left


def _operation(
    document: Document,
    path: str,
    method: str,
    shared: Mapping[str, Any],
    operation: Mapping[str, Any],
) -> Operation:
    made = arguments_of(document, path, shared, operation)
    body = body_of(document, shared, operation, made)
    elsewhere = _elsewhere(document, shared, operation)
    if elsewhere is not None:
        made.leave_out(f"it is served elsewhere, at {elsewhere}", True)
    codes = sorted(str(code).upper() for code in mapping(operation.get("responses")))
    return Operation(
        key=f"{method.upper()} {text(path)}",
        name=name_of(operation.get("operationId"), method, path),
        about=tuple(_about(operation, codes)),
        method=method.upper(),
        path=made.path,
        arguments=tuple(made.arguments),
        query=made.query,
        headers=made.headers,
        body=body,
        success=_success(codes),
        problems=tuple(made.problems),
        obstacle=made.obstacle,
    )


def name_of(operation_id: Any, method: str, path: str) -> str:
    """A name that an endpoint can have: the operation's id, else method and path."""
    name = _slug(text(operation_id)) or _slug(f"{method}-{path}") or method
    return name[:_LONGEST].rstrip("._-")


def _slug(words: str) -> str:
    return _UNFIT.sub("-", words.replace("{", "").replace("}", "")).strip("-._")


def _about(operation: Mapping[str, Any], codes: list[str]) -> list[str]:
    summary, description = text(operation.get("summary")), text(operation.get("description"))
    about = [summary] if summary else []
    if description and description != summary:
        about.append(description)
    if operation.get("deprecated") is True:
        about.append("It is deprecated.")
    if "security" in operation:
        names = [text(name) for one in items(operation["security"]) for name in mapping(one)]
        about.append(f"Auth: {', '.join(names) or 'none'}.")
    if codes:
        about.append(f"Documented answers: {', '.join(text(code) for code in codes)}.")
    return about


def _success(codes: list[str]) -> tuple[str, ...]:
    """What is a success beside 2xx: a redirect, or what has not been modified."""
    further = [code.lower() for code in codes if re.fullmatch(r"1\d\d|3\d\d|3XX", code)]
    return ("2xx", *further) if further else ()


def _elsewhere(
    document: Document, shared: Mapping[str, Any], operation: Mapping[str, Any]
) -> str | None:
    """The URL of an operation that has servers of its own."""
    servers = operation.get("servers", shared.get("servers"))
    if document.version == "2.0" or not items(servers):
        return None
    own = base_url(document, servers)
    return own if own is not None and own != base_url(document) else None
