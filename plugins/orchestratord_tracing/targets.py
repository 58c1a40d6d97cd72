"""What a span says of where an attempt went: read from the configuration, never from a request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from orchestratord import Endpoint, Redactor

Attributes = dict[str, str | int]


@dataclass(frozen=True, slots=True)
class Where:
    """Where the attempts of one key go: the span's name, and its attributes.

    `is_http` is False where the endpoint's type is another one.
    """

    name: str
    is_http: bool
    attributes: Attributes = field(default_factory=dict)

    def masked(self, redactor: Redactor) -> Where:
        """The same without secrets: a webhook may be named after a receiver that is one."""
        return Where(redactor.text(self.name), self.is_http, redactor.value(self.attributes))


def of_call(endpoint: Endpoint) -> Where:
    """Where the calls of an endpoint go."""
    if endpoint.type != "http":
        return Where(f"{endpoint.type} {endpoint.id}", False, _statement(endpoint))
    method = str(getattr(endpoint.spec, "method", "GET"))
    base = str(endpoint.shown.get("base_url", ""))
    path = str(endpoint.shown.get("path", ""))
    template = _path(base).rstrip("/") + path
    attributes: Attributes = {"http.request.method": method, **_server(base)}
    if template:
        attributes["url.template"] = template
    return Where(f"{method} {template}".rstrip(), True, attributes)


def _statement(endpoint: Endpoint) -> Attributes:
    """Which database, and what is executed there, without the values of parameters."""
    names = {"database": "db.namespace", "statement": "db.query.text"}
    return {name: str(endpoint.shown[key]) for key, name in names.items() if key in endpoint.shown}


def of_delivery(endpoint: Endpoint, webhook: str) -> Where:
    """Where the deliveries of a webhook go.

    The path of its URL is left out: many a receiver takes what stands there for a password.
    """
    declared: Mapping[str, Any] = next(
        (item for item in endpoint.shown.get("webhooks", ()) if item.get("name") == webhook), {}
    )
    server = _server(str(declared.get("url", "")))
    return Where(f"POST {webhook}", True, {"http.request.method": "POST", **server})


def _server(url: str) -> Attributes:
    """Host and port; nothing where one of them is a secret, or cannot be told."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return {}
    if not host or "*" in host:
        return {}
    default = {"http": 80, "https": 443}.get(parts.scheme)
    number = port or default
    return {"server.address": host} | ({"server.port": number} if number else {})


def _path(url: str) -> str:
    try:
        return urlsplit(url).path
    except ValueError:
        return ""
