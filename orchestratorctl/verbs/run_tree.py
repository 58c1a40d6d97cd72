"""`runs`, and `show --tree`: the run of a task, as a tree of what follows from what."""

from __future__ import annotations

from argparse import Namespace
from collections import Counter

from orchestratorctl.console import Console
from orchestratorctl.exit_codes import OK
from orchestratorctl.formats import compact, cut, number, span, with_age
from orchestratorctl.socket_client import SocketClient
from orchestratorctl.tables import RUNS, STATUS_COLOURS, Painted, fields, show_list, target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Task = dict[str, Any]

MOST = 1_000
"""Tasks that are asked for."""
SHOWN = 20
"""Of those that follow from one task; of more, the rest is counted."""
_STATUSES = ("succeeded", "failed", "cancelled", "running", "pending")


def list_runs(client: SocketClient, console: Console, arguments: Namespace) -> int:
    """Lists the runs, the newest first."""
    runs = client.get_list("/v1/runs", "runs", {"status": arguments.status}, arguments.limit)
    show_list(runs, "runs", RUNS, "There are no runs.", console)
    return OK


def show_tree(client: SocketClient, console: Console, task_id: int) -> None:
    """Shows the run of a task."""
    task = client.get(f"/v1/retries/{task_id}")
    run_id = task.get("run_id") or (task.get("parent_id") if task.get("webhook") else task_id)
    if task.get("webhook") and run_id is not None:  # a delivery is of no run: that of its call
        run_id = client.get(f"/v1/retries/{run_id}").get("run_id") or run_id
    run = client.get(f"/v1/runs/{run_id}", {"limit": MOST})
    console.show(run, lambda: _run_lines(run, task_id, console))


def _run_lines(run: dict[str, Any], chosen: int, console: Console) -> list[str]:
    title = console.paint(f"Run {run.get('id')} of {compact(run.get('endpoint'))}", "bold")
    lines = [title, "", *fields(_facts(run), console), ""]
    tasks: list[Task] = run.get("tasks") or []
    counted, tasks = len(tasks), [*tasks, *(run.get("deliveries") or [])]
    known = {task["id"] for task in tasks}
    children: dict[int | None, list[Task]] = {}
    for task in tasks:
        parent = task.get("parent_id")
        if parent not in known:  # what it follows from is gone
            parent = run.get("id")
        top = task["id"] == run.get("id") or parent not in known
        children.setdefault(None if top else parent, []).append(task)
    for task in children.get(None, ()):
        lines.append(_line(task, "", chosen, console))
        lines += _branches(task["id"], "", children, chosen, console)
    if run.get("truncated"):
        lines += ["", f"and more than these {number(counted)}: orchestratorctl list --run "
                  f"{run.get('id')}"]  # fmt: skip
    return lines


def _facts(run: dict[str, Any]) -> list[tuple[str, str | Painted]]:
    counts = run.get("counts") or {}
    ended = run.get("status") == "ended"
    status = Painted("running", STATUS_COLOURS.get("running"))
    if ended:
        state = "succeeded" if counts.get("succeeded") == counts.get("total") else "failed"
        again = f" (end {run['end']})" if (run.get("end") or 0) > 1 else ""
        status = Painted(f"ended{again}", STATUS_COLOURS.get(state))
    facts: list[tuple[str, str | Painted]] = [
        ("status", status),
        ("calls", f"{number(counts.get('total'))}: {_counted(counts)}"),
        ("began", with_age(run.get("started_at"))),
        ("took" if ended else "for", span((run.get("duration_ms") or 0) / 1000)),
    ]
    for endpoint, count in (run.get("failed_endpoints") or {}).items():
        facts.append(("failed", Painted(f"{number(count)} of {compact(endpoint)}", "red")))
    for error in (run.get("first_errors") or [])[:1]:
        why = compact(error.get("error") or error.get("reason"))
        text = f"task {error.get('task_id')}, {compact(error.get('endpoint'))}: {why}"
        facts.append(("first error", Painted(text, "red")))
    return facts


def _counted(counts: dict[str, Any]) -> str:
    return ", ".join(f"{number(counts[name])} {name}" for name in _STATUSES if counts.get(name))


def _branches(
    parent: int,
    indent: str,
    children: dict[int | None, list[Task]],
    chosen: int,
    console: Console,
) -> list[str]:
    """The lines of all that follow from a task; the tree may be as deep as a chain is long."""
    lines: list[str] = []
    waiting: list[tuple[Task | list[Task], str, bool]] = _siblings(parent, indent, children)
    while waiting:
        item, indent, last = waiting.pop()
        mark = "└─ " if last else "├─ "
        if isinstance(item, list):
            states = _counted(Counter(str(task.get("status")) for task in item))
            more = f"{indent}{mark}and {number(len(item))} more: {states}"
            lines.append(console.paint(more, "dim"))
            continue
        lines.append(_line(item, indent + mark, chosen, console))
        waiting += _siblings(item["id"], indent + ("   " if last else "│  "), children)
    return lines


def _siblings(
    parent: int, indent: str, children: dict[int | None, list[Task]]
) -> list[tuple[Task | list[Task], str, bool]]:
    """Those that follow from a task, the first one last."""
    found = children.get(parent, [])
    items: list[Task | list[Task]] = [*found[:SHOWN]]
    if len(found) > SHOWN:
        items.append(found[SHOWN:])
    return [(item, indent, item is items[-1]) for item in reversed(items)]


def _line(task: Task, before: str, chosen: int, console: Console) -> str:
    state = str(task.get("status"))
    words = compact(state)
    if task.get("reason"):
        words += f" ({compact(task['reason'])})"
    if task.get("last_status_code") not in (None, "error"):
        words += f" {compact(task['last_status_code'])}"
    if state == "failed" and task.get("last_error"):
        words += f": {cut(compact(task['last_error']), 80)}"
    name = console.paint(
        f"{task.get('id')} {target(task)}", "bold" if task.get("id") == chosen else None
    )
    return f"{before}{name}  {console.paint(words, STATUS_COLOURS.get(state))}"
