"""`cancel`: gives tasks up."""

from __future__ import annotations

from argparse import Namespace

from orchestratorctl.actions import act_on_each, print_results
from orchestratorctl.client import Client
from orchestratorctl.screen import Screen


def cancel(client: Client, screen: Screen, arguments: Namespace) -> int:
    """Cancels each task; one that cannot be does not keep the others."""
    tasks, code = act_on_each(client, screen, arguments.ids, "cancel", None)
    print_results(tasks, screen, len(arguments.ids) == 1)
    for task in tasks:
        if task.get("status") == "running":
            screen.say(f"Task {task.get('id')} is in flight; it will not be tried again.")
    return code
