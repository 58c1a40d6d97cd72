"""`call`: makes a task of an endpoint and its parameters."""

from __future__ import annotations

from argparse import Namespace

from orchestratorctl.client import Client, endpoint_path
from orchestratorctl.failures import OK
from orchestratorctl.render import Column, compact, table
from orchestratorctl.screen import Screen
from orchestratorctl.waiting import wait_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_COLUMNS = (Column("ID", right=True), Column("STATUS"), Column("ENDPOINT"))


def call(client: Client, screen: Screen, arguments: Namespace) -> int:
    """Calls the endpoint; with --wait, stays for the answer."""
    body: dict[str, Any] = {"params": arguments.params or {}}
    if arguments.text_params:
        body["text_params"] = dict(arguments.text_params)
    if arguments.delay is not None:
        body["delay"] = arguments.delay
    key = arguments.idempotency_key
    answer = client.request(
        "POST",
        endpoint_path(arguments.endpoint, "calls"),
        body,
        {"Idempotency-Key": key} if key else None,
    )
    task = answer.data
    task_id = task.get("id")
    if answer.status == 200:
        screen.say(f"This key was used before: it is task {task_id}, and no new call was made.")
    if arguments.wait:
        return wait_for(client, screen, [task_id], arguments.timeout)
    if not screen.tables:
        screen.data(task)
        return OK
    row = [compact(task_id), compact(task.get("status")), arguments.endpoint]
    screen.lines(table(_COLUMNS, [row], screen))
    screen.hint(f"Follow it with: orchestratorctl show {task_id}")
    return OK
