"""The newest runs, and one: where its calls are, how long it took, which follows from which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from orchestratord import Control, InvalidParams, PageVisit
from orchestratord_dashboard.page_renderer import DashboardPage
from orchestratord_dashboard.task_pages import STATES, after_of, number

RUNS = 50
"""On a page."""
TASKS = 500
"""Of one run, that are shown."""
SIBLINGS = 25
"""Of those that follow from one task; of more, the rest is counted."""
DEEPEST = 5
"""How far the tree goes to the right."""


def pages(control: Control) -> Iterable[DashboardPage]:
    """The pages at `/runs`."""

    async def show_runs(visit: PageVisit) -> Mapping[str, Any]:
        after, status = after_of(visit), visit.query.get("status") or None
        if status not in (None, "running", "ended"):
            raise InvalidParams({"status": "must be running or ended"})
        found = await control.newest_runs(limit=RUNS, after=after, status=status)
        return {**found, "newest": after is None, "status": status}

    async def show_run(visit: PageVisit) -> Mapping[str, Any]:
        run = await control.run(number(visit.path["id"], "run"), TASKS)
        counts = run["counts"]
        return {
            "run": run,
            "counts": [(name, counts[name]) for name in STATES if counts[name]],
            "ended": counts["succeeded"] + counts["failed"] + counts["cancelled"],
            "tree": tree([*run["tasks"], *run["deliveries"]], run["id"]),
        }

    yield DashboardPage("/runs", "runs.html", "runs", show_runs)
    yield DashboardPage("/runs/{id}", "run.html", "runs", show_run)


def tree(tasks: Sequence[Mapping[str, Any]], root: int) -> list[dict[str, Any]]:
    """The tasks of a run in the order of the tree: each `task` with its `level`, from 0; or, in the
    place of those that are too many, `more`: status → how many."""
    known = {task["id"] for task in tasks}
    children: dict[int, list[Mapping[str, Any]]] = {}
    tops: list[Mapping[str, Any]] = []
    for task in tasks:
        parent = task["parent_id"]
        if task["id"] == root or (parent not in known and root not in known):
            tops.append(task)
        else:  # what it follows from may be gone
            children.setdefault(parent if parent in known else root, []).append(task)
    rows: list[dict[str, Any]] = []
    waiting: list[tuple[Any, int]] = [(task, 0) for task in reversed(tops)]
    while waiting:
        item, level = waiting.pop()
        shown = min(level, DEEPEST)
        if isinstance(item, dict) and "id" not in item:
            rows.append({"task": None, "level": shown, "more": item})
            continue
        rows.append({"task": item, "level": shown, "more": None})
        following = children.get(item["id"], [])
        if rest := following[SIBLINGS:]:
            waiting.append((dict(Counter(task["status"] for task in rest)), level + 1))
        waiting += [(task, level + 1) for task in reversed(following[:SIBLINGS])]
    return rows
