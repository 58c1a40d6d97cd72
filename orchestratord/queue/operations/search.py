"""Looking tasks up: by their id, or by a filter. Runs on the reading connection.

Each status, and each reason, is walked by itself, along an index that has the ids in order, and the
walks are merged: one statement over several would sort all that match before it could give the
first.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, NamedTuple

from orchestratord.errors import NotFound
from orchestratord.model.task import FINAL, Attempt, Key, Reason, Status, Task
from orchestratord.queue.batch import long_reads, reads
from orchestratord.queue.connection import (
    BY_BULK,
    BY_CREATED,
    BY_ENDPOINT,
    BY_FINISHED,
    BY_ID,
    BY_PARENT,
    BY_PARTITION,
    BY_REASON,
    BY_RUN,
    BY_RUNNING,
    BY_STATUS,
    LISTED,
    OF_PARTITION,
    RUNNING,
    Connection,
)
from orchestratord.queue.records import Place, TaskFilter
from orchestratord.queue.rows import (
    TASK,
    TASK_IN_LIST,
    attempt_of,
    listed_task_of,
    plain,
    response_of,
    task_of,
)
from orchestratord.values.status_set import StatusSet

# ruff: noqa: A002, S608  # a filter is called so; what is pasted are conditions, never values

GET = f"SELECT {TASK} FROM retry_schedule WHERE id = ?"

RESPONSE = "SELECT response FROM retry_schedule WHERE id = ?"

ATTEMPTS = """
SELECT attempt, started_at, duration_ms, status_code, error, delay, why
FROM attempts WHERE task_id = ? ORDER BY id
"""

LAST_WORDS = "SELECT why FROM attempts WHERE task_id = ? ORDER BY id DESC LIMIT ?"


@reads
def last_words(db: Connection, task_id: int, most: int) -> list[str]:
    """Why the last attempts of a task ended as they did, at most so many, the last one first."""
    return [why or "" for (why,) in db.all(LAST_WORDS, (task_id, most))]


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


# All tasks that have the same place as some: those that they replace, that replace them, and so on.
FAMILY = f"""
WITH RECURSIVE family (task, reason, id) AS (
    SELECT id, reason, COALESCE(replaces, id) FROM retry_schedule {BY_ID} WHERE id IN ({{ids}})
    UNION ALL
    SELECT family.task, family.reason, child.id
    FROM family CROSS JOIN retry_schedule AS child {BY_PARENT}
    WHERE child.parent_id = family.id AND child.replaces IS NOT NULL
)
SELECT family.task, family.reason, other.id, other.status, other.run_id, other.bulk_id
FROM family CROSS JOIN retry_schedule AS other {BY_ID}
WHERE other.id = family.id
"""


def replaced_by(db: Connection, ids: Sequence[int], *, retries: bool = False) -> dict[int, int]:
    """Those of these tasks that are replaced, and by which task each; by 0 where that is deleted.

    A task is replaced while a later one has its place that neither succeeded nor was cancelled, and
    after that for its reason. `retries`: these are to be tried, so that no two that have one place
    may be under way.
    """
    found: dict[int, int] = {}
    for task, reason, other, status, *_ in sorted(db.all(FAMILY.format(ids=_marks(ids)), ids)):
        over = reason == Reason.REPLACED
        last = status == Status.FAILED or (over and status == Status.SUCCEEDED)
        tried = status not in FINAL or (other < task and other in ids and other not in found)
        if (other > task and (tried or last)) or (other < task and tried and retries):
            found[task] = other
        elif over:
            found.setdefault(task, 0)
    return found


@reads
def attempts(db: Connection, task_id: int) -> list[Attempt]:
    """The attempts of a task, in the order in which they were made."""
    return [attempt_of(row) for row in db.all(ATTEMPTS, (task_id,))]


class WholeTask(NamedTuple):
    """A task with its last answer, None where there is none, its attempts, oldest first, and the
    task that replaces it."""

    task: Task
    response: dict[str, Any] | None
    attempts: list[Attempt]
    replaced_by: int | None


@reads
def whole(db: Connection, task_id: int) -> WholeTask:
    """One task with all that is kept of it. Raises NotFound."""
    task = find_task(db, task_id)
    made, by = attempts(task_id).look(db), replaced_by(db, (task_id,)).get(task_id)
    return WholeTask(task, response_of(db.value(RESPONSE, (task_id,))), made, by or None)


# -- Tasks that a filter finds, the newest first ---------------------------------------------------


@long_reads
def page(
    db: Connection, wanted: TaskFilter, limit: int, after: int | None = None, bounded: bool = False
) -> tuple[list[Task], int | None]:
    """Up to `limit` tasks, newest first, below the id `after`; without their payloads.

    Beside them the id below which there is more to look at; None where there is nothing.
    Where a text is looked for, a page may be short or empty though another one follows; if
    `bounded` also where it is looked for by something else that has no index.
    """
    ids, following = newest(db, wanted, limit, after, bounded)
    return listed(db, ids), following


def listed(db: Connection, ids: list[int]) -> list[Task]:
    """These tasks, in this order, without their payloads and what is long of their parameters."""
    if not ids:
        return []
    select = f"SELECT {TASK_IN_LIST} FROM retry_schedule WHERE id IN ({_marks(ids)})"
    found = {task.id: task for task in map(listed_task_of, db.all(select, ids))}
    return [found[id_] for id_ in ids if id_ in found]


LOOKED = 20_000
"""Tasks of each status that a page is looked for among, at most, where that is bounded."""

MANY_ENDED = f"""
SELECT 1 FROM retry_schedule {BY_FINISHED} WHERE status = ? AND finished_at >= ? LIMIT 1 OFFSET ?
"""
"""Whether more than so many have ended since: fewer are looked for among these alone, in SQLite,
which would go through all tasks (0.25 s for a million) to find that none has."""

FLOOR = "SELECT id FROM retry_schedule {hint} WHERE {where} ORDER BY {order} DESC LIMIT 1 OFFSET ?"

# Only the first of those since that time, and the last of those before it: all may be a million.
# The lowest and the highest id are among them, but for a clock that was set back again and again.
# What runs is few, and looked through: PostgreSQL does not have it in the index. `id + 0`: else
# PostgreSQL would walk all tasks in the order of ids for the first one that runs.
_MADE = f"""
SELECT {{outermost}}(id) FROM (
    SELECT id FROM (SELECT id FROM retry_schedule {BY_CREATED} WHERE created_at {{compared}} ?
        AND {LISTED} ORDER BY created_at {{way}}, id {{way}} LIMIT 1000) AS listed
    UNION ALL
    SELECT id + 0 FROM retry_schedule {BY_RUNNING} WHERE created_at {{compared}} ? AND {RUNNING}
) AS made
"""
SINCE = _MADE.format(outermost="min", compared=">=", way="ASC")
UNTIL = _MADE.format(outermost="max", compared="<", way="DESC")

NEWEST = "SELECT id FROM retry_schedule {hint} WHERE {where} ORDER BY {order} DESC LIMIT ?"
OLDEST = """
SELECT id, endpoint_id, webhook FROM retry_schedule {hint} WHERE {where} ORDER BY {order} LIMIT ?
"""
COUNT = """
SELECT reason, endpoint_id, count(*) FROM retry_schedule {hint} WHERE {where}
GROUP BY reason, endpoint_id
"""

Conditions = list[tuple[str, list[Any]]]
"""SQL with its parameters; all of them are to hold."""


def newest(
    db: Connection, filter: TaskFilter, limit: int, before: int | None, bounded: bool = False
) -> tuple[list[int], int | None]:
    """Up to `limit` ids, newest first, and the id from which on the search has to go on, if any.

    For a text, and if `bounded` for whatever else has no index, only so many rows are looked at, so
    that a search for what is not there holds nothing up.
    """
    bounds: Conditions = [] if before is None else [("id < ?", [before])]
    if floor := floor_of(db, filter, bounds, bounded):
        bounds.append(("id > ?", [floor]))
    found = sorted(_walk(db, NEWEST, filter, bounds, [limit + 1]), reverse=True)
    if len(found) > limit:
        return found[:limit], found[limit - 1]
    return found, floor + 1 if floor else None


def floor_of(db: Connection, filter: TaskFilter, bounds: Conditions, bounded: bool) -> int:
    """The id above which a search looks; 0 where it looks at all. See `newest`."""
    whole_api = filter.endpoint is not None and filter.endpoint.endswith("/*")
    slow = (
        filter.kind is not None
        or filter.webhook is not None
        or filter.status_code is not None
        or (filter.reason and filter.endpoint is not None)
        or whole_api
    )
    if filter.text is None and not (bounded and slow):
        return 0
    anything = replace(filter, text=None, kind=None, webhook=None, status_code=None, reason=())
    if whole_api:
        anything = replace(anything, endpoint=None)
    return max(_walk(db, FLOOR, anything, bounds, [LOOKED]), default=0)


def oldest(
    db: Connection, filter: TaskFilter, limit: int, after: int, last: int
) -> list[tuple[int, Key]]:
    """Up to `limit` tasks, oldest first, above the id `after` and up to `last`."""
    bounds: Conditions = [("id > ?", [after]), ("id <= ?", [last])]
    found = sorted(rows_by_status(db, OLDEST, filter, bounds, [limit]))[:limit]
    return [(id_, Key(*key)) for id_, *key in found]


def count(db: Connection, filter: TaskFilter, last: int) -> dict[tuple[str | None, str], int]:
    """How many tasks there are up to the id `last`, by reason and endpoint."""
    found: dict[tuple[str | None, str], int] = {}
    for reason, endpoint, number in rows_by_status(db, COUNT, filter, [("id <= ?", [last])], []):
        found[reason, endpoint] = found.get((reason, endpoint), 0) + number
    return found


def dump(filter: TaskFilter) -> str:
    """A filter as it is stored."""
    code = filter.status_code
    values = {field.name: getattr(filter, field.name) for field in fields(TaskFilter)}
    return json.dumps(values | {"status_code": None if code is None else str(code).split(",")})


def parse(text: str) -> TaskFilter:
    """A filter that was stored, perhaps by a version that knew less of it."""
    try:
        values = dict(json.loads(text))
        code, ids = values.get("status_code"), values.get("ids")
        read = {"ids": None if ids is None else tuple(ids)}
        read |= {name: tuple(values.get(name, ())) for name in ("status", "reason", "left_out")}
        return TaskFilter(
            **values | read | {"status_code": None if code is None else StatusSet.parse(code)}
        )
    except (TypeError, ValueError, RecursionError):
        return TaskFilter(ids=())  # which finds nothing: one such bulk stops no other


@reads
def waiting(db: Connection, endpoint_id: str, most: int) -> int:
    """How many calls of an endpoint are pending, counted up to `most`."""
    sql = (
        "SELECT count(*) FROM (SELECT 1 FROM retry_schedule WHERE endpoint_id = ? AND webhook = '' "
        f"AND status = 'pending' AND {LISTED} LIMIT ?) AS found"
    )
    return int(db.value(sql, (endpoint_id, most)))


def _walk(
    db: Connection, sql: str, filter: TaskFilter, bounds: Conditions, last: list[Any]
) -> list[int]:
    return [id_ for (id_,) in rows_by_status(db, sql, filter, bounds, last)]


def rows_by_status(
    db: Connection, sql: str, filter: TaskFilter, bounds: Conditions, last: list[Any]
) -> list[tuple[Any, ...]]:
    """The rows of a statement that is carried out for each status, and each reason, by itself.

    `sql` has places for `{hint}`, `{where}` and perhaps `{order}`, by ids, and behind these for the
    parameters `last`.
    """
    wanted = conditions_of(db, filter)
    if wanted is None:
        return []
    wanted = bounds + wanted
    exact = filter.endpoint is not None and not filter.endpoint.endswith("/*")
    hint = BY_ENDPOINT if exact else BY_REASON if filter.reason else BY_STATUS
    own = (of for name, (_, of) in ALIKE.items() if of and getattr(filter, name) is not None)
    hint = BY_ID if filter.ids is not None else next(own, hint)
    if hint == BY_REASON and len(filter.reason) > 1:
        each = [replace(filter, reason=(reason,)) for reason in dict.fromkeys(filter.reason)]
        return [row for one in each for row in rows_by_status(db, sql, one, bounds, last)]
    where = " AND ".join(["status = ?", *(condition for condition, _ in wanted)])
    parameters = [value for _, values in wanted for value in values]
    listed = hint in (BY_ENDPOINT, BY_STATUS, BY_REASON)
    since = filter.ended_since if listed else None
    found: list[tuple[Any, ...]] = []
    for status in dict.fromkeys(filter.status or tuple(Status)):
        few = since is not None and db.one(MANY_ENDED, (str(status), since, LOOKED)) is None
        index, every, order = hint, where, "id"
        if few:
            index = BY_FINISHED
        elif listed and status == Status.RUNNING:
            index, every = BY_RUNNING, f"{where} AND {RUNNING}"
            order = "id + 0"  # PostgreSQL would walk all tasks in the order of ids
        elif listed and hint != BY_REASON:  # of which PostgreSQL would take one of the others
            every = f"{where} AND {LISTED}"
        statement = sql.format(hint=index, where=every, order=order)
        found += db.all(statement, (str(status), *parameters, *last))
    return found


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))


ANSWER = "response"
SEARCHED = ("params", "last_error", "endpoint_id", "webhook", ANSWER)


def _like(text: str) -> str:
    """What `LIKE` finds a text by, wherever it stands."""
    # Only ASCII letters, which is what the database makes small.
    small = "".join(c.lower() if c.isascii() else c for c in text)
    for special in "!%_":
        small = small.replace(special, f"!{special}")
    return f"%{small}%"


def _named(column: str, name: str) -> tuple[str, list[Any]]:
    """What has this name, or with `group/*` any name of a group."""
    if not name.endswith("/*"):
        return f"{column} = ?", [plain(name)]
    group = plain(name[:-2])
    return f"{column} >= ? AND {column} < ?", [f"{group}/", f"{group}0"]  # 0 follows the slash


ALIKE: dict[str, tuple[str, str | None]] = {
    "batch": ("id IN (SELECT task_id FROM batch_members WHERE batch_id = ?)", BY_ID),
    "parent": ("parent_id = ?", BY_PARENT),
    "run": ("run_id = ?", BY_RUN),
    "bulk": ("bulk_id = ?", BY_BULK),
    "partition": (OF_PARTITION, BY_PARTITION),
    "ended_since": ("finished_at >= ?", None),
    "kind": ("kind = ?", None),
}
"""What a field asks for that has one value, and the index that finds it: of several that are given,
the first one."""


def conditions_of(db: Connection, filter: TaskFilter) -> Conditions | None:
    """All that a filter asks for but the status; None where nothing can be found."""
    if filter.ids == ():
        return None
    found: Conditions = []
    # Ids and creation go the same way, so the walk can stop at the first id of that time; the
    # condition itself stays for a clock that was set back.
    for at, first, sign in ((filter.since, SINCE, ">="), (filter.until, UNTIL, "<")):
        if at is not None:
            id_ = db.value(first, (at, at))
            if id_ is None:
                return None
            found += [(f"id {sign[0]}= ?", [id_]), (f"created_at {sign} ?", [at])]
    if filter.endpoint is not None:
        found.append(_named("endpoint_id", filter.endpoint))
    if filter.webhook is not None:
        found.append(_named("webhook", filter.webhook))
    if filter.ids is not None:
        found.append((f"id IN ({_marks(filter.ids)})", list(filter.ids)))
    for name, (condition, _) in ALIKE.items():
        value = getattr(filter, name)
        if value is not None:
            found.append((condition, [plain(value) if isinstance(value, str) else value]))
    if filter.text is not None:
        either = " OR ".join(f"lower({column}) LIKE ? ESCAPE '!'" for column in SEARCHED)
        # An answer is kept as JSON, in which its quotes and line ends are escaped.
        as_json = json.dumps(filter.text, ensure_ascii=False)[1:-1]
        texts = [as_json if column == ANSWER else filter.text for column in SEARCHED]
        found.append((f"({either})", [_like(plain(text) or "") for text in texts]))
    if filter.reason:
        found.append((f"reason IN ({_marks(filter.reason)})", list(filter.reason)))
    if filter.left_out:
        others = f"(reason IS NULL OR reason NOT IN ({_marks(filter.left_out)}))"
        found.append((others, list(filter.left_out)))
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


@long_reads
def last_ended(
    db: Connection, wanted: TaskFilter, limit: int, after: Place | None = None
) -> tuple[list[Task], Place | None]:
    """Up to `limit` tasks that have ended, the last one first; without their payloads.

    Beside them the place after which there is more to look at; None where there is nothing.
    A page may be short or empty though there is.
    """
    # But for the status no index helps: of each only so many tasks are looked at.
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
    following = found[limit - 1] if len(found) > limit else floor
    return listed(db, [place.id for place in found[:limit]]), following


def _walk_ended(
    db: Connection, status: str, conditions: Conditions, limit: int, offset: int = 0
) -> list[Place]:
    where = " AND ".join(condition for condition, _ in conditions) or "1 = 1"
    values = [value for _, values in conditions for value in values]
    rows = db.all(LAST.format(where=where), (str(status), *values, limit, offset))
    return [Place(*row) for row in rows]
