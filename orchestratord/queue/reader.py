"""The reading thread: what people and the worker look up, while the writer goes on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from orchestratord.errors import NotFound, QueueError, Unreachable
from orchestratord.model.task import Attempt, Key, Table, Task
from orchestratord.queue.database import BY_DUE, Connection, Database
from orchestratord.queue.operations import search
from orchestratord.queue.records import Place, TaskFilter
from orchestratord.queue.rows import TASK_WITHOUT_PAYLOAD, attempt_of, task_of

# ruff: noqa: S608  # what is pasted here are names, hints and question marks, never values

T = TypeVar("T")

RESPONSE = "SELECT response FROM retry_schedule WHERE id = ?"

ATTEMPTS = """
SELECT attempt, started_at, duration_ms, status_code, error, delay, why
FROM attempts WHERE task_id = ? ORDER BY id
"""

DUE = f"""
SELECT count(*), min(next_try) FROM retry_schedule {BY_DUE}
WHERE status = 'pending' AND next_try <= ?
"""

NEXT_KEY = f"""
SELECT endpoint_id, webhook, next_try FROM retry_schedule {BY_DUE}
WHERE status = 'pending' AND (endpoint_id, webhook) > (?, ?)
ORDER BY endpoint_id, webhook, next_try LIMIT 1
"""

UNFINISHED = """
SELECT 1 FROM schedules JOIN retry_schedule ON retry_schedule.id = schedules.task_id
WHERE schedules.endpoint_id = ? AND status IN ('pending', 'running')
"""


LAST_ATTEMPT = "SELECT max(id) FROM attempts"

BEGUN = """
SELECT endpoint_id, webhook, attempts.started_at, duration_ms FROM attempts
JOIN retry_schedule ON retry_schedule.id = attempts.task_id
WHERE attempts.id > ? AND attempts.id <= ? AND attempts.status_code IS NOT NULL
"""

_PAGE, _PAGES = 2_000, 100


class Reader:
    """One thread with a connection that cannot write."""

    def __init__(self, database: Database, refusing: Callable[[], str | None]) -> None:
        """`refusing`: why nothing can be read for now, since the database is out of reach: each try
        to connect may take seconds, and others wait behind it."""
        self._database = database
        self._refusing = refusing
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="orchestratord-reader")
        self._connection: Connection | None = None
        self._closed = False

    async def run(self, read: Callable[[Connection], T]) -> T:
        """Run `read` on the reading thread. Raises QueueError where the database fails."""
        if self._closed:
            raise QueueError("the queue is closed")
        if (why := self._refusing()) is not None:
            raise Unreachable(why)
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._run, read)

    def _run(self, read: Callable[[Connection], T]) -> T:
        failures = self._database.failures
        if self._connection is None:
            self._connection = self._database.connect(writes=False)
        try:
            try:
                return self._look(self._connection, read)
            except failures.errors as error:
                if failures.is_lost(error):  # perhaps since long ago, and only noticed now
                    self._connection.mend()
                elif not failures.is_passing(error):
                    raise
                return self._look(self._connection, read)
        except failures.errors as error:
            raise failures.named(error) from error

    def _look(self, db: Connection, read: Callable[[Connection], T]) -> T:
        with db.look():
            return read(db)

    async def close(self) -> None:
        """Close the connection and end the thread."""
        if not self._closed:
            self._closed = True
            await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
            self._thread.shutdown()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def response(db: Connection, task_id: int) -> dict[str, Any] | None:
    """The last answer of a task, None where there is none. Raises NotFound."""
    row = db.one(RESPONSE, (task_id,))
    if row is None:
        raise NotFound.of("task", task_id)
    return None if row[0] is None else dict(json.loads(row[0]))


def attempts(db: Connection, task_id: int) -> list[Attempt]:
    """The attempts of a task, in the order in which they were made."""
    return [attempt_of(row) for row in db.all(ATTEMPTS, (task_id,))]


def page(
    db: Connection, wanted: TaskFilter, limit: int, after: int | None, bounded: bool = False
) -> tuple[list[Task], int | None]:
    """Up to `limit` tasks, newest first, below the id `after`; without their payloads.

    Beside them the id below which there is more to look at; None where there is nothing.
    """
    ids, following = search.newest(db, wanted, limit, after, bounded)
    if not ids:
        return [], following
    marks = ", ".join("?" * len(ids))
    rows = db.all(
        f"SELECT {TASK_WITHOUT_PAYLOAD} FROM retry_schedule WHERE id IN ({marks}) ORDER BY id DESC",
        ids,
    )
    return [task_of(row) for row in rows], following


def last_ended(
    db: Connection, wanted: TaskFilter, limit: int, after: Place | None
) -> tuple[list[Task], Place | None]:
    """Up to `limit` tasks that have ended, the last one first; without their payloads.

    Beside them the place after which there is more to look at; None where there is nothing.
    """
    places, following = search.last_ended_places(db, wanted, limit, after)
    if not places:
        return [], following
    marks = ", ".join("?" * len(places))
    rows = db.all(
        f"SELECT {TASK_WITHOUT_PAYLOAD} FROM retry_schedule WHERE id IN ({marks})",
        [place.id for place in places],
    )
    found = {task.id: task for task in map(task_of, rows)}
    return [found[place.id] for place in places if place.id in found], following


def due(db: Connection, now: int) -> tuple[int, int | None]:
    """How many pending tasks are due, and since when the first one is."""
    row = db.one(DUE, (now,))
    assert row is not None
    return row[0], row[1]


NEXT_KEYS = """
WITH RECURSIVE key AS (
    (SELECT endpoint_id, webhook, next_try FROM retry_schedule WHERE status = 'pending'
     ORDER BY endpoint_id, webhook, next_try, id LIMIT 1)
    UNION ALL
    SELECT next.* FROM key CROSS JOIN LATERAL (
        SELECT endpoint_id, webhook, next_try FROM retry_schedule
        WHERE status = 'pending' AND (endpoint_id, webhook) > (key.endpoint_id, key.webhook)
        ORDER BY endpoint_id, webhook, next_try, id LIMIT 1
    ) AS next
)
SELECT endpoint_id, webhook, next_try FROM key
"""
"""The same as `NEXT_KEY` again and again, without a journey to the server for each."""


def earliest(db: Connection, *, at_once: bool) -> dict[Key, int]:
    """Every key with pending tasks, and when its first one is due.

    One look into the index a key, however many tasks a key has. `at_once`: in one statement.
    """
    if at_once:
        return {Key(*names): next_try for *names, next_try in db.all(NEXT_KEYS)}
    found: dict[Key, int] = {}
    key = Key("")
    while row := db.one(NEXT_KEY, key):
        key = Key(row[0], row[1])
        found[key] = row[2]
    return found


def paused(db: Connection) -> set[str]:
    """The endpoints whose calls wait."""
    rows = db.all("SELECT endpoint_id FROM endpoint_state WHERE paused = 1")
    return {endpoint_id for (endpoint_id,) in rows}


def last_success(db: Connection) -> dict[str, int]:
    """Of each endpoint that ever had one: when its last call that succeeded began."""
    return dict(
        db.all(
            "SELECT endpoint_id, last_success_at FROM endpoint_state "
            "WHERE last_success_at IS NOT NULL"
        )
    )


def begun(db: Connection, since: int) -> list[tuple[Key, int]]:
    """Attempts that have ended, sent something, and began at `since` or later; newest pages first.

    By their ids, which are in the order in which they ended: no index holds their times.
    """
    found: list[tuple[Key, int]] = []
    row = db.one(LAST_ATTEMPT)
    last = row[0] or 0 if row is not None else 0
    for _ in range(_PAGES):
        rows = db.all(BEGUN, (last - _PAGE, last))
        found += [(Key(row[0], row[1]), row[2]) for row in rows if row[2] >= since]
        last -= _PAGE
        if last <= 0 or (rows and max(row[2] + row[3] for row in rows) < since):
            break
    return found


def unfinished(db: Connection, endpoint_id: str) -> bool:
    """True while the call of the endpoint's last slot waits or runs."""
    return db.one(UNFINISHED, (endpoint_id,)) is not None


def rows(db: Connection, table: Table) -> list[dict[str, Any]]:
    """Every row of a plugin's table in the order of its key, by the names of its columns."""
    names = list(table.columns)
    columns = ", ".join(f'"{name}"' for name in names)
    key = ", ".join(f'"{name}"' for name in table.key)
    found = db.all(f'SELECT {columns} FROM "{table.name}" ORDER BY {key}')
    return [dict(zip(names, row, strict=True)) for row in found]
