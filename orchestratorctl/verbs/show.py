"""`show`: one task, its last answer, and the timeline of its attempts."""

from __future__ import annotations

import time
from argparse import Namespace

from orchestratorctl.answers import last_answer
from orchestratorctl.client import Client
from orchestratorctl.failures import OK
from orchestratorctl.limits import waits
from orchestratorctl.render import Painted, compact, fields
from orchestratorctl.screen import Screen
from orchestratorctl.tasks import FINAL, status, target
from orchestratorctl.text import cut
from orchestratorctl.timeline import timeline
from orchestratorctl.times import clock_time, until, with_age

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PARAMS = 400


def show(client: Client, screen: Screen, arguments: Namespace) -> int:
    """Shows the task."""
    task = client.get(f"/v1/retries/{arguments.id}")
    if not screen.tables:
        screen.data(task)
        return OK
    now = time.time()
    lines = [screen.paint(_title(task), "bold"), "", *fields(_facts(task, now), screen)]
    lines += ["", *_answer(task, screen)]
    lines += ["", *timeline(task.get("attempt_log") or [], screen, task.get("status"))]
    screen.lines(lines)
    return OK


def _title(task: dict[str, Any]) -> str:
    verb = "delivery for" if task.get("kind") == "webhook" else f"{compact(task.get('kind'))} of"
    return f"Task {task.get('id')}: {verb} {target(task)}"


def _facts(task: dict[str, Any], now: float) -> list[tuple[str, str | Painted]]:
    state = task.get("status")
    facts: list[tuple[str, str | Painted]] = [
        ("status", status(task)),
        ("attempts", f"{compact(task.get('attempts'))} of {compact(task.get('max_attempts'))}"),
    ]
    if task.get("phase"):
        facts.append(("phase", compact(task["phase"])))
    if state == "pending":
        at = task.get("next_try")
        facts.append(("next try", f"{until(at, now)} ({clock_time(at)})" if at else "-"))
        if task.get("waits"):
            facts.append(("waits for", Painted(waits(task["waits"], now), "yellow")))
    facts.append(("created", with_age(task.get("created_at"), now)))
    if state in FINAL:
        facts.append(("finished", with_age(task.get("finished_at"), now)))
    if task.get("parent_id") is not None:
        facts.append(("caused by", f"task {task['parent_id']}"))
    facts += [
        (name, cut(compact(task[name]), _PARAMS))
        for name in ("params", "payload")
        if task.get(name)
    ]
    if task.get("last_error"):
        facts.append(("last error", Painted(compact(task["last_error"]), "red")))
    return facts


def _answer(task: dict[str, Any], screen: Screen) -> list[str]:
    answer = last_answer(task)
    if answer is None:
        return ["Last answer: none"]
    lines = [f"Last answer: {answer.headline}"]
    if not answer.body:
        return lines
    beginning, more = answer.beginning(screen.width)
    lines += [f"  | {line}".rstrip() for line in beginning]
    if more:
        lines.append("  … only the beginning is shown; -o json shows all.")
    elif answer.truncated:
        lines.append("  … the answer was longer; the daemon has kept its beginning.")
    return lines
