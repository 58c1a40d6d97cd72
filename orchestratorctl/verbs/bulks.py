"""`bulks`, `retry --all`, `cancel --all`: what is done to many, and goes on in the daemon."""

from __future__ import annotations

import time
from argparse import Namespace

from orchestratorctl.arguments import filters
from orchestratorctl.client import Client
from orchestratorctl.failures import FAILED, OK, Lost, NoDaemon, TimedOut
from orchestratorctl.progress import Progress
from orchestratorctl.render import Column, Painted, compact, number, table
from orchestratorctl.screen import Screen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

POLL = 0.5
_COLOURS = {"finished": "green", "running": "cyan", "cancelled": "yellow"}
_MOVED = {"cancel": "CANCELLED"}


def show(client: Client, screen: Screen, arguments: Namespace) -> int:
    """Shows how far a bulk is; with --cancel, ends it."""
    if arguments.cancel:
        client.post(f"/v1/bulks/{arguments.id}/cancel")
    _print(client.get(f"/v1/bulks/{arguments.id}"), screen)
    return OK


def begin(client: Client, screen: Screen, arguments: Namespace, path: str, status: str) -> int:
    """Begins one and follows it; with --dry-run, only counts. `status` is meant without one."""
    body: dict[str, Any] = {
        "filter": {"status": status, **filters(arguments)},
        "dry_run": arguments.dry_run,
    }
    if arguments.rate is not None:
        body["rate"] = arguments.rate
    answer = client.post(path, body)
    matched, bulk = answer.get("matched"), answer.get("bulk")
    if not arguments.dry_run and bulk is not None:
        return follow(client, screen, bulk)
    if screen.tables:
        screen.lines(table([Column("MATCHED", right=True)], [[number(matched)]], screen))
    else:
        screen.data(answer)
    if arguments.dry_run:
        screen.say("This was a dry run: nothing has changed.")
    return OK


def follow(client: Client, screen: Screen, bulk_id: object) -> int:
    """Shows a bulk's progress until it is done, over restarts of the daemon.

    It belongs to the daemon: an interrupt ends the watching and leaves the bulk alone.
    """
    bar = Progress(screen, f"bulk {bulk_id}")
    try:
        while True:
            bulk = client.get_patiently(f"/v1/bulks/{bulk_id}", away=bar.away)
            bar.show(bulk)
            if bulk.get("status") != "running":
                break
            time.sleep(POLL)
    except KeyboardInterrupt:
        bar.close()
        screen.say(f"Bulk {bulk_id} goes on in the daemon.", *_commands(bulk_id))
        raise
    except (NoDaemon, Lost, TimedOut) as failure:
        goes_on = f"Bulk {bulk_id} goes on when the daemon is back."
        failure.details += (goes_on, *_commands(bulk_id))
        raise
    finally:
        bar.close()
    _print(bulk, screen)
    if bulk.get("status") == "cancelled":
        screen.complain(f"bulk {bulk_id} was cancelled before it was done")
        return FAILED
    return OK


def _commands(bulk_id: object) -> tuple[str, str]:
    command = f"orchestratorctl bulks {bulk_id}"
    return f"Look at it with: {command}", f"End it with: {command} --cancel"


def _print(bulk: dict[str, Any], screen: Screen) -> None:
    if not screen.tables:
        screen.data(bulk)
        return
    state = compact(bulk.get("status"))
    row: list[str | Painted] = [
        compact(bulk.get("id")),
        Painted(state, _COLOURS.get(state)),
        *(number(bulk.get(name)) for name in ("matched", "moved", "skipped")),
        compact(bulk.get("rate")),
    ]
    columns = (
        Column("BULK", right=True),
        Column("STATUS"),
        Column("MATCHED", right=True),
        Column(_MOVED.get(compact(bulk.get("action")), "RETRIED"), right=True),
        Column("SKIPPED", right=True),
        Column("RATE", right=True),
    )
    screen.lines(table(columns, [row], screen))
