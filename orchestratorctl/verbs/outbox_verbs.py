"""`outbox`: lists the rows that wait, and those that were refused."""

from __future__ import annotations

from argparse import Namespace

from orchestratorctl.console import Console
from orchestratorctl.exit_codes import OK
from orchestratorctl.socket_client import SocketClient
from orchestratorctl.tables import OUTBOX, show_list


def list_outbox(client: SocketClient, console: Console, arguments: Namespace) -> int:
    """Lists the rows of the outbox, the newest first."""
    document = client.get("/v1/outbox", {"status": arguments.status, "limit": arguments.limit})
    nothing = "No row waits in the outbox, and none was refused."
    show_list(document, "outbox", OUTBOX, nothing, console)
    if document.get("next") and console.tables:
        console.hint("There are more: raise --limit.")
    return OK
