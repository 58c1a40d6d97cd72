"""Webhooks that come in: `inbound:` on an endpoint with `type: event`.

A sender's request is verified as its bytes were sent, and becomes an event, which is on disk before
the sender is told so. The port is of its own, so that what the outside reaches is no part of the
API.

    declaration      what the YAML declares          checks            what `check` finds
    sender_scheme    how senders sign                sent_params       the event's params
    inbound_port     from a request to its answer    inbound_command   sends an example

A request goes through the port to a scheme, which verifies it, and to the event that it becomes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from orchestratord import hookimpl

if TYPE_CHECKING:
    import click

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
    )

# A command such as --help loads this file for the names of its commands, and little else.


@hookimpl
def register_settings() -> Iterable[Setting[Any]]:
    from orchestratord_inbound.declaration import INBOUND

    return (INBOUND,)


@hookimpl
def register_daemon_settings() -> Iterable[DaemonSetting[Any]]:
    from orchestratord_inbound.declaration import PORT

    return (PORT,)


@hookimpl
def register_tables() -> Iterable[Table]:
    from orchestratord_inbound.inbound_port import KEYS

    return (KEYS,)


@hookimpl
def register_ports(control: Control) -> Iterable[PortHandler]:
    from orchestratord import PortHandler
    from orchestratord_inbound.declaration import PORT
    from orchestratord_inbound.inbound_port import InboundPort

    port = InboundPort(control)
    return (PortHandler(PORT.key, port.admit, port.answer, port.refused),)


@hookimpl
def register_checks() -> Iterable[Check]:
    from orchestratord import Check
    from orchestratord_inbound.checks import port

    return (Check("inbound", port),)


@hookimpl
def register_commands() -> Iterable[click.Command]:
    from orchestratord_inbound.inbound_command import inbound

    return (inbound,)


@hookimpl
def check_endpoint(endpoint: Endpoint, config: Config) -> Iterable[Problem]:
    from orchestratord_inbound.checks import problems

    return problems(endpoint, config)


@hookimpl
def example_request(endpoint: Endpoint, body: bytes | None) -> Iterable[PortRequest]:
    from orchestratord_inbound.inbound_port import example

    return example(endpoint, body)
