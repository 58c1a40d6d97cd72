"""`outbox`: lists the rows that wait, and those that were refused."""

from __future__ import annotations

from argparse import Namespace

from orchestratorctl.console import Console
from orchestratorctl.exit_codes import OK
from orchestratorctl.socket_client import SocketClient
from orchestratorctl.tables import OUTBOX, show_list


def list_outbox(client: SocketClient, console: Console, arguments: Namespace) -> int:
    """Lists the rows of the outbox, the newest first."""
    rows = client.get_list("/v1/outbox", "outbox", {"status": arguments.status}, arguments.limit)
    show_list(rows, "outbox", OUTBOX, "No row waits in the outbox, and none was refused.", console)
    return OK
