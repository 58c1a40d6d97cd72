"""`webhooks`: lists, enables, disables and tests them."""

from __future__ import annotations

import shlex
from argparse import Namespace

from orchestratorctl.console import Console
from orchestratorctl.exit_codes import FAILED, OK
from orchestratorctl.formats import number
from orchestratorctl.socket_client import SocketClient, endpoint_path
from orchestratorctl.tables import TASKS, WEBHOOKS, show_list, table
from orchestratorctl.task_text import progress_text
from orchestratorctl.waiting import TaskWaiter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TESTED_WITHIN = 60.0
"""Seconds for the first attempt of a test delivery, its wait for its turn included."""


def list_webhooks(client: SocketClient, console: Console, arguments: Namespace) -> int:
    """Lists the webhooks of all endpoints, or of one, and how they fare."""
    document = client.get("/v1/webhooks", {"endpoint": arguments.endpoint})
    show_list(document, "webhooks", WEBHOOKS, "No webhook is declared.", console)
    return OK


def enable(client: SocketClient, console: Console, arguments: Namespace) -> int:
    """Enables a webhook that was disabled; with --replay, sends what has failed since."""
    enabled = _post(client, arguments, "enable")
    console.report(enabled, f"{_name(arguments)} is enabled.")
    if not arguments.replay:
        return OK
    wanted = enabled.get("replay")
    if wanted is None:
        console.say("It never was disabled: there is nothing to replay.")
        return OK
    at_any_time = {name: value for name, value in wanted.items() if name != "ended_since"}
    before = client.post("/v1/retries/trigger", {"filter": at_any_time, "dry_run": True})
    answer = client.post("/v1/retries/trigger", {"filter": wanted})
    matched = answer.get("matched") or 0
    since = wanted["ended_since"]
    but = ", except those that later ones of an ordered partition have overtaken" * bool(matched)
    console.say(f"{_deliveries(matched)} that failed since {since} will be sent again{but}.")
    if answer.get("bulk") is not None and matched:
        console.hint(f"See how far that is with: orchestratorctl bulks {answer['bulk']}")
    if (older := (before.get("matched") or 0) - matched) > 0:
        console.say(f"Not sent: {_deliveries(older)} that failed when it was disabled earlier.")
        console.hint(
            f"Send them with: orchestratorctl retry --all --endpoint {arguments.endpoint} "
            f"--webhook {shlex.quote(arguments.webhook)} --reason webhook_disabled"
        )
    return OK


def _deliveries(count: int) -> str:
    return "1 delivery" if count == 1 else f"{number(count)} deliveries"


def disable(client: SocketClient, console: Console, arguments: Namespace) -> int:
    """Disables a webhook until it is enabled again."""
    said = f"{_name(arguments)} is disabled: it receives nothing until you enable it."
    console.report(_post(client, arguments, "disable"), said)
    return OK


def test(client: SocketClient, console: Console, arguments: Namespace) -> int:
    """Sends a webhook a test delivery, and says how its first attempt went."""
    task_id = _post(client, arguments, "test")["id"]
    task = TaskWaiter(client, console, TESTED_WITHIN).wait(task_id, once=True)
    console.show(task, lambda: table(TASKS, [task], console))
    console.say(f"task {task_id}: {progress_text(task)}")
    return OK if task.get("status") == "succeeded" else FAILED


def _post(client: SocketClient, arguments: Namespace, action: str) -> dict[str, Any]:
    return client.post(endpoint_path(arguments.endpoint, "webhooks", arguments.webhook, action))


def _name(arguments: Namespace) -> str:
    return f"{arguments.endpoint} → {arguments.webhook}"
