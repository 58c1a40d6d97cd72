"""Looking tasks up: by their id, or by a filter. Runs on the reading connection.

Each status is walked by itself, along an index that has the ids in order, and the walks are merged:
one statement over several would sort all that match before it could give the first.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from orchestratord.errors import NotFound
from orchestratord.model.task import FINAL, Attempt, Status, Task
from orchestratord.queue.batch import reads
from orchestratord.queue.connection import (
    BY_CREATED,
    BY_ENDPOINT,
    BY_FINISHED,
    BY_ID,
    BY_PARENT,
    BY_STATUS,
    Connection,
)
from orchestratord.queue.records import Place, TaskFilter
from orchestratord.queue.rows import TASK, TASK_WITHOUT_PAYLOAD, attempt_of, task_of
from orchestratord.values.status_set import StatusSet

# ruff: noqa: A002, S608  # a filter is called so; what is pasted are conditions, never values

GET = f"SELECT {TASK} FROM retry_schedule WHERE id = ?"

RESPONSE = "SELECT response FROM retry_schedule WHERE id = ?"

ATTEMPTS = """
SELECT attempt, started_at, duration_ms, status_code, error, delay, why
FROM attempts WHERE task_id = ? ORDER BY id
"""


@reads
def get(db: Connection, task_id: int) -> Task:
    """One task. Raises NotFound."""
    return find_task(db, task_id)


def find_task(db: Connection, task_id: int, lock: str = "") -> Task:
    """One task, on either connection; `lock` is the connection's `for_update`, or nothing.

    Raises NotFound.
    """
    row = db.one(f"{GET}{lock}", (task_id,))
    if row is None:
        raise NotFound.of("task", task_id)
    return task_of(row)


@reads
def response(db: Connection, task_id: int) -> dict[str, Any] | None:
    """The last answer of a task, None where there is none. Raises NotFound."""
    row = db.one(RESPONSE, (task_id,))
    if row is None:
        raise NotFound.of("task", task_id)
    return None if row[0] is None else dict(json.loads(row[0]))


@reads
def attempts(db: Connection, task_id: int) -> list[Attempt]:
    """The attempts of a task, in the order in which they were made."""
    return [attempt_of(row) for row in db.all(ATTEMPTS, (task_id,))]


# -- Tasks that a filter finds, the newest first ---------------------------------------------------


@reads
def page(
    db: Connection, wanted: TaskFilter, limit: int, after: int | None = None, bounded: bool = False
) -> tuple[list[Task], int | None]:
    """Up to `limit` tasks, newest first, below the id `after`; without their payloads.

    Beside them the id below which there is more to look at; None where there is nothing.
    Where a text is looked for, a page may be short or empty though another one follows; if
    `bounded` also where it is looked for by something else that has no index.
    """
    ids, following = newest(db, wanted, limit, after, bounded)
    if not ids:
        return [], following
    marks = ", ".join("?" * len(ids))
    rows = db.all(
        f"SELECT {TASK_WITHOUT_PAYLOAD} FROM retry_schedule WHERE id IN ({marks}) ORDER BY id DESC",
        ids,
    )
    return [task_of(row) for row in rows], following


LOOKED = 20_000
"""Tasks of each status that a page is looked for among, at most, where that is bounded."""

FLOOR = "SELECT id FROM retry_schedule {hint} WHERE {where} ORDER BY id DESC LIMIT 1 OFFSET ?"

# Only the first of those since that time, and the last of those before it: all may be a million.
# The lowest and the highest id are among them, but for a clock that was set back again and again.
SINCE = f"""
SELECT min(id) FROM (SELECT id FROM retry_schedule {BY_CREATED} WHERE created_at >= ?
    ORDER BY created_at, id LIMIT 1000) AS first
"""
UNTIL = f"""
SELECT max(id) FROM (SELECT id FROM retry_schedule {BY_CREATED} WHERE created_at < ?
    ORDER BY created_at DESC, id DESC LIMIT 1000) AS last
"""

NEWEST = "SELECT id FROM retry_schedule {hint} WHERE {where} ORDER BY id DESC LIMIT ?"
OLDEST = "SELECT id FROM retry_schedule {hint} WHERE {where} ORDER BY id LIMIT ?"
COUNT = "SELECT count(*) FROM retry_schedule {hint} WHERE {where}"

Conditions = list[tuple[str, list[Any]]]
"""SQL with its parameters; all of them are to hold."""


def newest(
    db: Connection, filter: TaskFilter, limit: int, before: int | None, bounded: bool = False
) -> tuple[list[int], int | None]:
    """Up to `limit` ids, newest first, and the id from which on the search has to go on, if any.

    For a text, and if `bounded` for whatever else has no index, only so many rows are looked at, so
    that whoever searches for what is not there holds nobody up.
    """
    bounds: Conditions = [] if before is None else [("id < ?", [before])]
    floor = 0
    whole_api = filter.endpoint is not None and filter.endpoint.endswith("/*")
    slow = filter.kind is not None or filter.status_code is not None or whole_api
    if filter.text is not None or (bounded and slow):
        anything = replace(filter, text=None, kind=None, status_code=None)
        if whole_api:
            anything = replace(anything, endpoint=None)
        floor = max(_walk(db, FLOOR, anything, bounds, [LOOKED]), default=0)
        bounds.append(("id > ?", [floor]))
    found = sorted(_walk(db, NEWEST, filter, bounds, [limit + 1]), reverse=True)
    if len(found) > limit:
        return found[:limit], found[limit - 1]
    return found, floor + 1 if floor else None


def oldest(db: Connection, filter: TaskFilter, limit: int, after: int, last: int) -> list[int]:
    """The ids of up to `limit` tasks, oldest first, above `after` and up to `last`."""
    bounds: Conditions = [("id > ?", [after]), ("id <= ?", [last])]
    return sorted(_walk(db, OLDEST, filter, bounds, [limit]))[:limit]


def count(db: Connection, filter: TaskFilter, last: int) -> int:
    """How many tasks there are up to the id `last`."""
    return sum(_walk(db, COUNT, filter, [("id <= ?", [last])], []))


def dump(filter: TaskFilter) -> str:
    """A filter as it is stored."""
    code = filter.status_code
    return json.dumps(
        {
            "status": filter.status,
            "status_code": None if code is None else str(code).split(","),
            "endpoint": filter.endpoint,
            "kind": filter.kind,
            "since": filter.since,
            "until": filter.until,
            "text": filter.text,
            "ids": filter.ids,
            "parent": filter.parent,
        }
    )


def parse(text: str) -> TaskFilter:
    """A filter that was stored."""
    values = json.loads(text)
    code = values["status_code"]
    return TaskFilter(
        status=tuple(values["status"]),
        status_code=None if code is None else StatusSet.parse(code),
        endpoint=values["endpoint"],
        kind=values["kind"],
        since=values["since"],
        until=values.get("until"),
        text=values.get("text"),
        ids=None if values.get("ids") is None else tuple(values["ids"]),
        parent=values.get("parent"),
    )


def _walk(
    db: Connection, sql: str, filter: TaskFilter, bounds: Conditions, last: list[Any]
) -> list[int]:
    wanted = conditions_of(db, filter)
    if wanted is None:
        return []
    wanted = bounds + wanted
    exact = filter.endpoint is not None and not filter.endpoint.endswith("/*")
    hint = BY_ENDPOINT if exact else BY_STATUS
    if filter.ids is not None:
        hint = BY_ID
    elif filter.parent is not None:
        hint = BY_PARENT
    where = " AND ".join(["status = ?", *(condition for condition, _ in wanted)])
    parameters = [value for _, values in wanted for value in values]
    statement = sql.format(hint=hint, where=where)
    found: list[int] = []
    for status in dict.fromkeys(filter.status or tuple(Status)):
        rows = db.all(statement, (str(status), *parameters, *last))
        found += [number for (number,) in rows]
    return found


SEARCHED = ("params", "last_error", "endpoint_id", "webhook")


def _like(text: str) -> str:
    """What `LIKE` finds a text by, wherever it stands."""
    # Only ASCII letters, which is what the database makes small.
    small = "".join(c.lower() if c.isascii() else c for c in text)
    for special in "!%_":
        small = small.replace(special, f"!{special}")
    return f"%{small}%"


def conditions_of(db: Connection, filter: TaskFilter) -> Conditions | None:
    """All that a filter asks for but the status; None where nothing can be found."""
    if filter.ids == ():
        return None
    found: Conditions = []
    if filter.since is not None:
        # Ids and creation go the same way, so the walk can stop at the first id of that time; the
        # condition itself stays for a clock that was set back.
        row = db.one(SINCE, (filter.since,))
        if row is None or row[0] is None:
            return None
        found += [("id >= ?", [row[0]]), ("created_at >= ?", [filter.since])]
    if filter.until is not None:
        row = db.one(UNTIL, (filter.until,))
        if row is None or row[0] is None:
            return None
        found += [("id <= ?", [row[0]]), ("created_at < ?", [filter.until])]
    if filter.endpoint is not None and filter.endpoint.endswith("/*"):
        api = filter.endpoint[:-2]
        # 0 is what follows the slash.
        found.append(("endpoint_id >= ? AND endpoint_id < ?", [f"{api}/", f"{api}0"]))
    elif filter.endpoint is not None:
        found.append(("endpoint_id = ?", [filter.endpoint]))
    if filter.ids is not None:
        found.append((f"id IN ({', '.join('?' * len(filter.ids))})", list(filter.ids)))
    if filter.parent is not None:
        found.append(("parent_id = ?", [filter.parent]))
    if filter.text is not None:
        either = " OR ".join(f"lower({column}) LIKE ? ESCAPE '!'" for column in SEARCHED)
        found.append((f"({either})", [_like(filter.text)] * len(SEARCHED)))
    if filter.kind is not None:
        found.append(("kind = ?", [filter.kind]))
    if filter.status_code is not None:
        codes = [("last_status_code BETWEEN ? AND ?", pair) for pair in filter.status_code.ranges]
        words = [("last_status_code = ?", (word,)) for word in sorted(filter.status_code.words)]
        either = " OR ".join(condition for condition, _ in (*codes, *words))
        values = [str(value) for _, pair in (*codes, *words) for value in pair]
        found.append((f"({either})", values))
    return found


# -- Tasks by when they ended, the last one first --------------------------------------------------

LAST = f"""
SELECT finished_at, id FROM retry_schedule {BY_FINISHED}
WHERE status = ? AND finished_at IS NOT NULL AND {{where}}
ORDER BY finished_at DESC, id DESC LIMIT ? OFFSET ?
"""
BEFORE = "(finished_at, id) < (?, ?)"
FROM = "(finished_at, id) >= (?, ?)"


@reads
def last_ended(
    db: Connection, wanted: TaskFilter, limit: int, after: Place | None = None
) -> tuple[list[Task], Place | None]:
    """Up to `limit` tasks that have ended, the last one first; without their payloads.

    Beside them the place after which there is more to look at; None where there is nothing.
    A page may be short or empty though there is.
    """
    places, following = last_ended_places(db, wanted, limit, after)
    if not places:
        return [], following
    marks = ", ".join("?" * len(places))
    rows = db.all(
        f"SELECT {TASK_WITHOUT_PAYLOAD} FROM retry_schedule WHERE id IN ({marks})",
        [place.id for place in places],
    )
    found = {task.id: task for task in map(task_of, rows)}
    return [found[place.id] for place in places if place.id in found], following


def last_ended_places(
    db: Connection, wanted: TaskFilter, limit: int, after: Place | None
) -> tuple[list[Place], Place | None]:
    """Up to `limit` places, the last one that ended first, and the one to go on after, if any.

    Of each status only so many tasks are looked at for one page, since but for the status no index
    helps: a page may be short or empty though another one follows.
    """
    conditions = conditions_of(db, wanted)
    if conditions is None:
        return [], None
    bounds: Conditions = [] if after is None else [(BEFORE, [*after])]
    ended = [status for status in wanted.status or tuple(Status) if status in FINAL]
    floor: Place | None = None
    if conditions:
        floors = [
            place
            for status in ended
            for place in _walk_ended(db, status, bounds, 1, offset=LOOKED - 1)
        ]
        floor = max(floors, default=None)
        if floor is not None:
            bounds.append((FROM, [*floor]))
    found = [
        place
        for status in dict.fromkeys(ended)
        for place in _walk_ended(db, status, bounds + conditions, limit + 1)
    ]
    found.sort(reverse=True)
    if len(found) > limit:
        return found[:limit], found[limit - 1]
    return found, floor


def _walk_ended(
    db: Connection, status: str, conditions: Conditions, limit: int, offset: int = 0
) -> list[Place]:
    where = " AND ".join(condition for condition, _ in conditions) or "1 = 1"
    values = [value for _, values in conditions for value in values]
    rows = db.all(LAST.format(where=where), (str(status), *values, limit, offset))
    return [Place(*row) for row in rows]
