"""`webhooks`: lists, switches and tests them."""

from __future__ import annotations

import time
from argparse import Namespace

from orchestratorctl.client import Client, endpoint_path
from orchestratorctl.failures import OK
from orchestratorctl.render import Column, compact, table
from orchestratorctl.screen import Screen
from orchestratorctl.webhook_table import webhook_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_TEST = (Column("ID", right=True), Column("ENDPOINT"))


def list_webhooks(client: Client, screen: Screen, arguments: Namespace) -> int:
    """Lists the webhooks of all endpoints, or of one, and how they fare."""
    document = client.get("/v1/webhooks", {"endpoint": arguments.endpoint})
    webhooks = document.get("webhooks") or []
    if not screen.tables:
        screen.data(document)
    elif webhooks:
        screen.lines(webhook_table(webhooks, screen, time.time()))
    else:
        screen.say("No webhook is declared.")
    return OK


def enable(client: Client, screen: Screen, arguments: Namespace) -> int:
    """Lifts what switched a webhook off."""
    answer = _post(client, arguments, "enable")
    return _done(answer, screen, f"{_name(arguments)} is enabled.")


def disable(client: Client, screen: Screen, arguments: Namespace) -> int:
    """Switches a webhook off until it is enabled again."""
    answer = _post(client, arguments, "disable")
    return _done(
        answer,
        screen,
        f"{_name(arguments)} is disabled: nothing is delivered to it until it is enabled.",
    )


def test(client: Client, screen: Screen, arguments: Namespace) -> int:
    """Sends a webhook a trial delivery."""
    answer = _post(client, arguments, "test")
    task_id = answer.get("id")
    if screen.tables:
        screen.lines(table(_TEST, [[compact(task_id), _name(arguments)]], screen))
        screen.hint(f"See how it went with: orchestratorctl show {task_id}")
    else:
        screen.data(answer)
    return OK


def _post(client: Client, arguments: Namespace, action: str) -> dict[str, Any]:
    return client.post(endpoint_path(arguments.endpoint, "webhooks", arguments.webhook, action))


def _name(arguments: Namespace) -> str:
    return f"{arguments.endpoint} → {arguments.webhook}"


def _done(answer: dict[str, Any], screen: Screen, words: str) -> int:
    if screen.tables:
        screen.say(words)
    else:
        screen.data(answer)
    return OK
