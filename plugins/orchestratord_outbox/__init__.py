"""The outbox: rows that applications commit in their transactions, each of which makes one task.

    declaration         the key `outbox`, and where the outbox is
    outbox_schema       the outbox as SQL            outbox_command   prints that, or runs it
    outbox_connection   reads the rows, and deletes or marks them
    outbox_tables       what the queue keeps of them
    outbox_relay        from one to the other and back
    routes              the rows over the API        checks           what `doctor` looks at

docs/outbox.md tells it in full.
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
        Problem,
        Route,
        Service,
        StatusPart,
        Table,
    )
    from orchestratord_outbox.outbox_relay import OutboxRelay

# A command such as --help loads this file for the names of its commands, and little else.


_RELAYS: list[OutboxRelay] = []


def _relay(control: Control) -> OutboxRelay:
    """The one of this process, which has one `Control`."""
    from orchestratord_outbox.outbox_relay import OutboxRelay

    if not (_RELAYS and _RELAYS[0].control is control):
        _RELAYS[:] = [OutboxRelay(control)]
    return _RELAYS[0]


@hookimpl
def register_daemon_settings() -> Iterable[DaemonSetting[Any]]:
    from orchestratord_outbox.declaration import OUTBOX

    return (OUTBOX,)


@hookimpl
def register_tables() -> Iterable[Table]:
    from orchestratord_outbox.outbox_tables import LOOKS, REFUSALS, TAKEN

    return TAKEN, REFUSALS, LOOKS


@hookimpl
def register_services(control: Control) -> Iterable[Service]:
    from orchestratord import Service

    return (Service("relay", _relay(control).run),)


@hookimpl
def register_status(control: Control) -> Iterable[StatusPart]:
    from orchestratord import StatusPart
    from orchestratord_outbox.declaration import OUTBOX

    return (StatusPart(OUTBOX.key, _relay(control).status),)


@hookimpl
def register_routes(control: Control) -> Iterable[Route]:
    from orchestratord import Route
    from orchestratord_outbox.routes import OutboxRoutes

    return (Route("GET", "/v1/outbox", OutboxRoutes(_relay(control)).outbox),)


@hookimpl
def register_checks() -> Iterable[Check]:
    from orchestratord import Check
    from orchestratord_outbox.checks import look

    return (Check("outbox", look),)


@hookimpl
def register_commands() -> Iterable[click.Command]:
    from orchestratord_outbox.outbox_command import grant_producer, outbox

    return outbox, grant_producer


@hookimpl
def check_config(config: Config) -> Iterable[Problem]:
    from orchestratord_outbox.declaration import problems

    return problems(config)
