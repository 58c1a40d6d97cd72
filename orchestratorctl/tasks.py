"""How tasks look: a row of the list, and a sentence about one."""

from __future__ import annotations

from collections.abc import Iterable

from orchestratorctl.render import Column, Painted, compact, table
from orchestratorctl.screen import Screen
from orchestratorctl.times import ago, coarse, seconds_at, until

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FINAL = ("succeeded", "failed", "cancelled")
_COLOURS = {"succeeded": "green", "failed": "red", "running": "cyan", "cancelled": "dim"}

_COLUMNS = (
    Column("ID", right=True),
    Column("KIND", spare=True),
    Column("ENDPOINT", cut="middle"),
    Column("STATUS", cut="end"),
    Column("ATTEMPTS", right=True),
    Column("CODE", right=True),
    Column("NEXT TRY", right=True),
    Column("CREATED", right=True),
)


def task_table(tasks: Iterable[dict[str, Any]], screen: Screen, now: float) -> list[str]:
    """The lines of a table of tasks, as they are at `now` (seconds since the epoch)."""
    return table(_COLUMNS, [_row(task, now) for task in tasks], screen)


def _row(task: dict[str, Any], now: float) -> list[str | Painted]:
    return [
        compact(task.get("id")),
        compact(task.get("kind")),
        target(task),
        status(task),
        attempts(task),
        compact(task.get("last_status_code")),
        until(task.get("next_try"), now) if task.get("status") == "pending" else "-",
        ago(task.get("created_at"), now),
    ]


def target(task: dict[str, Any]) -> str:
    """What the task calls: an endpoint, or an endpoint's webhook as `api/name → webhook`."""
    endpoint, webhook = compact(task.get("endpoint")), task.get("webhook")
    return f"{endpoint} → {webhook}" if webhook else endpoint


def status(task: dict[str, Any]) -> Painted:
    """The task's status and its reason, as `failed exhausted`."""
    name, reason = compact(task.get("status")), task.get("reason")
    return Painted(f"{name} {reason}" if reason else name, _COLOURS.get(name))


def attempts(task: dict[str, Any]) -> str:
    """How many attempts of how many, as `2/15`."""
    limit = task.get("max_attempts")
    made = compact(task.get("attempts"))
    return made if limit is None else f"{made}/{limit}"


def progress(task: dict[str, Any], now: float) -> str:
    """How far the task has come, as `attempt 2 failed with 503, next try in 10s`."""
    made = task.get("attempts") or 0
    state = task.get("status")
    if state == "running":
        return f"attempt {made} is under way"
    if state in FINAL:
        return ending(task)
    at = seconds_at(task.get("next_try"))
    wait = None if at is None else at - now
    if (waits := task.get("waits")) and (wait is None or wait <= 0):
        return f"waits: {waits.get('why')}"
    if not made:
        return f"first try in {coarse(wait + 0.999)}" if wait and wait > 0 else "waits for its turn"
    what = f"attempt {made} failed{_with(task)}"
    if wait is None:
        return what
    return f"{what}, next try " + (f"in {coarse(wait + 0.999)}" if wait > 0 else "is due")


def ending(task: dict[str, Any]) -> str:
    """How the task ended, as `failed (exhausted) after 15 attempts with 503`."""
    made = task.get("attempts") or 0
    after = f" after {made} attempt{'' if made == 1 else 's'}" if made else ""
    reason = f" ({task['reason']})" if task.get("reason") else ""
    return f"{compact(task.get('status'))}{reason}{after}{_with(task)}"


def _with(task: dict[str, Any]) -> str:
    code, error = task.get("last_status_code"), task.get("last_error")
    with_code = "" if code is None or code == "error" else f" with {code}"
    return with_code + (f": {error}" if error and task.get("status") != "succeeded" else "")
