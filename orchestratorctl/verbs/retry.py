"""`retry`: tries tasks again now, by their ids or by a filter."""

from __future__ import annotations

from argparse import Namespace

from orchestratorctl.actions import act_on_each, print_results
from orchestratorctl.arguments import filters
from orchestratorctl.client import Client
from orchestratorctl.failures import OK, combine
from orchestratorctl.render import Column, number, table
from orchestratorctl.screen import Screen
from orchestratorctl.waiting import wait_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def retry(client: Client, screen: Screen, arguments: Namespace) -> int:
    """Retries the tasks named, or all that the filters match."""
    if arguments.all:
        return _retry_all(client, screen, arguments)
    body = {"force": arguments.force}
    tasks, code = act_on_each(client, screen, arguments.ids, "trigger", body)
    if not arguments.wait:
        print_results(tasks, screen, len(arguments.ids) == 1)
        return code
    ids = [task["id"] for task in tasks]
    if not ids:
        return code
    return combine([code, wait_for(client, screen, ids, arguments.timeout)])


def _retry_all(client: Client, screen: Screen, arguments: Namespace) -> int:
    body: dict[str, Any] = {
        "filter": {"status": "failed", **filters(arguments)},
        "dry_run": arguments.dry_run,
    }
    if arguments.rate is not None:
        body["rate"] = arguments.rate
    answer = client.post("/v1/retries/trigger", body)
    matched, bulk = answer.get("matched"), answer.get("bulk")
    if arguments.dry_run or bulk is None:
        if screen.tables:
            screen.lines(table([Column("MATCHED", right=True)], [[number(matched)]], screen))
        else:
            screen.data(answer)
        if arguments.dry_run:
            screen.say("This was a dry run: nothing has changed.")
        return OK
    from orchestratorctl.verbs.bulks import follow

    return follow(client, screen, bulk)
