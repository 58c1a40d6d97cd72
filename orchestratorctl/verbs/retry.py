"""`retry`: tries tasks again now, by their ids or by a filter."""

from __future__ import annotations

from argparse import Namespace

from orchestratorctl.actions import act_on_each, print_results
from orchestratorctl.client import Client
from orchestratorctl.failures import combine
from orchestratorctl.screen import Screen
from orchestratorctl.waiting import wait_for


def retry(client: Client, screen: Screen, arguments: Namespace) -> int:
    """Retries the tasks named, or all that the filters match."""
    if arguments.all:
        from orchestratorctl.verbs.bulks import begin

        return begin(client, screen, arguments, "/v1/retries/trigger", "failed")
    body = {"force": arguments.force}
    tasks, code = act_on_each(client, screen, arguments.ids, "trigger", body)
    if not arguments.wait:
        print_results(tasks, screen, len(arguments.ids) == 1)
        return code
    ids = [task["id"] for task in tasks]
    if not ids:
        return code
    return combine([code, wait_for(client, screen, ids, arguments.timeout)])
