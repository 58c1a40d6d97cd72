"""How many tasks there are of each endpoint, reason, status code and so on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from orchestratord.model.task import Status
from orchestratord.queue.batch import long_reads
from orchestratord.queue.connection import Connection
from orchestratord.queue.operations.search import Conditions, floor_of, rows_by_status
from orchestratord.queue.records import TaskFilter
from orchestratord.queue.rows import code_of, worded

# ruff: noqa: A002  # a filter is called so; what is pasted here are columns, never values

COLUMNS = {
    "endpoint": "endpoint_id",
    "webhook": "webhook",
    "kind": "kind",
    "status": "status",
    "reason": "reason",
    "status_code": "last_status_code",
    "partition": "partition",
}
"""What tasks can be grouped by → the column that holds it."""

LOOKED = 200_000
"""Tasks of each status that are counted: the newest ones."""
MOST = 1_000
"""Groups that are given: the most numerous ones."""

COUNT = """
SELECT {by}, count(*) FROM (SELECT {by} FROM retry_schedule {{hint}} WHERE {{where}}
    ORDER BY id DESC LIMIT ?) AS found
GROUP BY {by}
"""


class TaskGroup(NamedTuple):
    """Tasks that have all of `values` in common, in the order of what they are grouped by."""

    values: tuple[Any, ...]
    tasks: int


class GroupedTasks(NamedTuple):
    """The most numerous groups first; `complete`: these are all, and all tasks were counted."""

    groups: list[TaskGroup]
    complete: bool


@long_reads
def grouped(db: Connection, filter: TaskFilter, by: Sequence[str]) -> GroupedTasks:
    """How many tasks that match there are of each group; `by`: names of `COLUMNS`, each once."""
    bounds: Conditions = []
    if floor := floor_of(db, filter, bounds, bounded=False):
        bounds.append(("id > ?", [floor]))
    statement = COUNT.format(by=", ".join(COLUMNS[name] for name in by))
    found: dict[tuple[Any, ...], int] = {}
    full = False
    for status in filter.status or tuple(Status):
        rows = rows_by_status(db, statement, replace(filter, status=(status,)), bounds, [LOOKED])
        full = full or sum(row[-1] for row in rows) >= LOOKED
        for *values, count in rows:
            shown = tuple(map(_shown, by, values))
            found[shown] = found.get(shown, 0) + count
    groups = [TaskGroup(*item) for item in sorted(found.items(), key=lambda item: -item[1])]
    return GroupedTasks(groups[:MOST], not (full or floor or len(groups) > MOST))


def _shown(name: str, value: Any) -> Any:
    if name == "webhook":
        return value or None
    return code_of(value) if name == "status_code" else worded(value)
