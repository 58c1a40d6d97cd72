"""What can be said of `inbound:` before the first request."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from typing import Any

from orchestratord import Config, Endpoint, Need, Problem, parse_bind, suggest
from orchestratord_inbound.declaration import INBOUND, PORT, UNSIGNED_IDS
from orchestratord_inbound.sender_scheme import scheme_of

NAMES = frozenset({"headers", "query", "body"})
"""The params of an event that has come in."""
EVENT, WHOLE = "event", "@"
ANSWER_TIMEOUT = 2.0
"""Seconds."""


def port(config: Config, status: Mapping[str, Any] | None) -> Iterator[Need]:
    """Whether a daemon that runs listens for senders."""
    if (declared := config[PORT]) is None or status is None:
        return
    host, number = parse_bind(declared.bind)
    what = f"senders reach the daemon at {declared.bind}"
    try:
        with socket.create_connection((str(host), number), ANSWER_TIMEOUT):
            yield Need(what)
    except OSError as error:
        remedy = "restart the daemon, if inbound.bind was changed; its log says more"
        yield Need(what, f"{error.strerror or error}", remedy)


def problems(endpoint: Endpoint, config: Config) -> Iterator[Problem]:
    """All that is wrong with the way in to one endpoint."""
    if (inbound := endpoint[INBOUND]) is None:
        return
    if endpoint.type != EVENT:
        yield Problem("an inbound endpoint is an event: write type: event", key="inbound")
        return
    if config[PORT] is None:
        yield Problem(
            "there is no port for webhooks: write inbound: {bind: 127.0.0.1:8430} into "
            "orchestratord.yaml",
            key="inbound",
            severity="warning",
        )
    for other in config.endpoints.values():
        found = other[INBOUND]
        if found is not None and other.id < endpoint.id and found.path == inbound.path:
            yield Problem(
                f"the path {inbound.path} is taken by {other.id}; choose another",
                key="inbound.path",
            )
    scheme = scheme_of(inbound.verify)
    for secret in inbound.secret:
        try:
            scheme.key(secret)
        except ValueError:
            yield Problem(
                "the secret of verify: standard is base64, with or without whsec_ before it",
                key="inbound.secret",
            )
    if inbound.dedupe is None:
        unsigned = UNSIGNED_IDS.get(str(inbound.verify), "x-event-id")
        yield Problem(
            "each repeat of a request is a new event, since its signature covers no id of it: "
            f'write what tells requests apart, such as dedupe: headers."{unsigned}"',
            key="inbound",
            severity="warning",
        )
    else:
        if wrong := inbound.dedupe.capital_header:
            yield Problem(wrong, key="inbound.dedupe", severity="warning")
        for name in sorted(inbound.dedupe.names - NAMES - {WHOLE}):
            message = f"{name!r} is not known here{suggest(name, NAMES)}"
            yield Problem(message, key="inbound.dedupe")
    if endpoint.params:
        for name in sorted(NAMES - endpoint.params.keys()):
            yield Problem(
                f"{name} comes in, and is not declared: declare headers, query and body, or none",
                key="params",
            )
        for name, param in endpoint.params.items():
            if param.required and name not in NAMES:
                yield Problem("is required, and does not come in", key=f"params.{name}")
