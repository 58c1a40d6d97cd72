"""`cancel`: gives tasks up."""

from __future__ import annotations

from argparse import Namespace

from orchestratorctl.actions import act_on_each, print_results
from orchestratorctl.client import Client
from orchestratorctl.screen import Screen


def cancel(client: Client, screen: Screen, arguments: Namespace) -> int:
    """Cancels the tasks named, one that cannot be does not keep the others, or all that match."""
    if arguments.all:
        from orchestratorctl.verbs.bulks import begin

        return begin(client, screen, arguments, "/v1/retries/cancel", "pending")
    tasks, code = act_on_each(client, screen, arguments.ids, "cancel", None)
    print_results(tasks, screen, len(arguments.ids) == 1)
    for task in tasks:
        if task.get("status") == "running":
            screen.say(f"Task {task.get('id')} is in flight; it will not be tried again.")
    return code
