"""`list`: tasks, newest first."""

from __future__ import annotations

import time
from argparse import Namespace

from orchestratorctl.arguments import filters
from orchestratorctl.client import Client
from orchestratorctl.failures import OK
from orchestratorctl.screen import Screen
from orchestratorctl.tasks import task_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PAGE = 1000


def list_tasks(client: Client, screen: Screen, arguments: Namespace) -> int:
    """Lists tasks, newest first, as many pages as the limit needs."""
    tasks: list[dict[str, Any]] = []
    after = None
    while True:
        room = min(arguments.limit - len(tasks), _PAGE)
        page = client.get("/v1/retries", {**filters(arguments), "limit": room, "after": after})
        tasks += page.get("retries") or []
        after = page.get("next")
        if after is None or len(tasks) >= arguments.limit or not page.get("retries"):
            break
    if not screen.tables:
        screen.data({"retries": tasks, "next": after})
    elif tasks:
        screen.lines(task_table(tasks, screen, time.time()))
        if after is not None:
            screen.say(f"There are more than these {len(tasks)}; --limit shows more.")
    else:
        screen.say("No task matches." if filters(arguments) else "There are no tasks.")
    return OK
