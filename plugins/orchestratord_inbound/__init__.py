"""Webhooks that come in: `inbound:` on an endpoint with `type: event`.

A sender's request is verified as its bytes were sent, and becomes an event, which is on disk before
the sender is told so. The port is of its own, so that what the outside reaches is no part of the
API.

    declaration      what the YAML declares          checks            what `check` finds
    sender_scheme    how senders sign                sent_params       the event's params
    inbound_port     from a request to its answer

A request goes through the port to a scheme, which verifies it, and to the event that it becomes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from orchestratord import (
    Check,
    Config,
    Control,
    DaemonSetting,
    Endpoint,
    PortHandler,
    PortRequest,
    Problem,
    Setting,
    Table,
    hookimpl,
)
from orchestratord_inbound import checks
from orchestratord_inbound.declaration import INBOUND, PORT
from orchestratord_inbound.inbound_port import KEYS, InboundPort, example

__all__ = ["INBOUND", "PORT"]


@hookimpl
def register_settings() -> Iterable[Setting[Any]]:
    return (INBOUND,)


@hookimpl
def register_daemon_settings() -> Iterable[DaemonSetting[Any]]:
    return (PORT,)


@hookimpl
def register_tables() -> Iterable[Table]:
    return (KEYS,)


@hookimpl
def register_ports(control: Control) -> Iterable[PortHandler]:
    port = InboundPort(control)
    return (PortHandler(PORT.key, port.admit, port.answer, port.refused),)


@hookimpl
def check_endpoint(endpoint: Endpoint, config: Config) -> Iterable[Problem]:
    return checks.problems(endpoint, config)


@hookimpl
def register_checks() -> Iterable[Check]:
    return (Check("inbound", checks.port),)


@hookimpl
def example_request(endpoint: Endpoint, body: bytes | None) -> Iterable[PortRequest]:
    return example(endpoint, body)
