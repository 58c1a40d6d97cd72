"""What fails for good is a message in Slack, with the task's data and what to do.

The message is a call of an endpoint of yours, so that it has retries, a rate and a place in the
list like any other.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from orchestratord import (
    Config,
    Endpoint,
    Model,
    NewTask,
    Outcome,
    Problem,
    Setting,
    Task,
    hookimpl,
)

MOST = 2_900
"""Characters of one text; Slack takes 3,000."""


class Slack(Model):
    """Where the failures of an endpoint are told."""

    call: str | None = None
    """The endpoint that posts the message, with the parameter `blocks`; none: nothing is told."""
    dashboard: str | None = None
    """The address of the dashboard, for a button."""


SLACK: Setting[Slack] = Setting(
    "slack", Slack, default=Slack(), description="Tells Slack of calls that failed for good."
)


@hookimpl
def register_settings() -> list[Setting[Slack]]:
    return [SLACK]


@hookimpl
def check_endpoint(endpoint: Endpoint, config: Config) -> Iterator[Problem]:
    """What `orchestratord check` says of the key."""
    called = endpoint[SLACK].call
    if called is not None and called not in config.endpoints:
        yield Problem(f"there is no endpoint {called!r}", key="slack.call")


@hookimpl
def on_final_failure(outcome: Outcome, task: Task, endpoint: Endpoint | None) -> Iterator[NewTask]:
    """Make the call that posts the message."""
    slack = endpoint[SLACK] if endpoint is not None else None
    # A message that fails makes no further one.
    if slack is None or slack.call is None or task.endpoint_id == slack.call:
        return
    yield NewTask("call", slack.call, {"blocks": blocks(outcome, task, slack)}, parent_id=task.id)


def blocks(outcome: Outcome, task: Task, slack: Slack) -> list[dict[str, Any]]:
    """The message in Slack's Block Kit."""
    params = ", ".join(f"{name}={value}" for name, value in task.params.items()) or "none"
    facts = {"Reason": task.reason, "Attempts": task.attempts, "Parameters": params}
    found: list[dict[str, Any]] = [
        _section(f":rotating_light: *{escape(task.endpoint_id)}*, task {task.id}, has failed"),
        _section(f"```{escape(outcome.error or 'no error is told')}```"),
        {
            "type": "context",
            "elements": [_text(f"*{k}* {escape(str(v))}") for k, v in facts.items()],
        },
        _section(f"`orchestratorctl show {task.id}`, then `orchestratorctl retry {task.id}`"),
    ]
    if slack.dashboard is not None:
        button = {
            "type": "button",
            "text": {"type": "plain_text", "text": "Open"},
            "url": f"{slack.dashboard.rstrip('/')}/retries/{task.id}",
        }
        found.append({"type": "actions", "elements": [button]})
    return found


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": _text(text)}


def _text(text: str) -> dict[str, str]:
    return {"type": "mrkdwn", "text": text if len(text) <= MOST else f"{text[:MOST]}…"}


def escape(text: str) -> str:
    """What a receiver answered is text: for Slack no mention, no link, and no end of the code."""
    for sign, instead in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("`", "'")):
        text = text.replace(sign, instead)
    return text
