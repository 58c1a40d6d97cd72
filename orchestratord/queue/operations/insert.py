"""New tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestratord.errors import UniqueKeyReused
from orchestratord.model.task import Key, NewTask, Status, Task
from orchestratord.queue.batch import Batch, Rank, Write
from orchestratord.queue.connection import ManyRows
from orchestratord.queue.records import Insert, Inserted
from orchestratord.queue.rows import json_text, plain, same_json, worded
from orchestratord.queue.session import Session

UNIQUE_KEY_MS = 24 * 3600 * 1000
"""How long an idempotency key counts."""

COLUMNS = (
    "id", "kind", "endpoint_id", "webhook", "phase", "status", "attempts", "max_attempts",
    "next_try", "params", "payload", "parent_id", "unique_key", "locked_by", "lease_until",
    "started_at", "idempotent", "last_error", "created_at", "updated_at", "scheduled_at", "depth",
)  # fmt: skip
"""Those that a new task has, in the order in which a row of it is made here."""

(
    ENDPOINT_ID, WEBHOOK, STATUS, NEXT_TRY, PAYLOAD, LOCKED_BY, STARTED_AT, LAST_ERROR, UPDATED_AT,
    SCHEDULED_AT,
) = (
    COLUMNS.index(name)
    for name in (
        "endpoint_id", "webhook", "status", "next_try", "payload", "locked_by", "started_at",
        "last_error", "updated_at", "scheduled_at",
    )
)  # fmt: skip

_TEXTS = {
    "kind", "endpoint_id", "webhook", "phase", "status", "params", "payload", "unique_key",
    "locked_by", "last_error",
}  # fmt: skip

INSERT = ManyRows(
    f"INSERT OR ROLLBACK INTO retry_schedule ({', '.join(COLUMNS)}) VALUES {{rows}}",  # noqa: S608  # no values
    *("text" if name in _TEXTS else "bigint" for name in COLUMNS),
)

SAME_KEY = """
SELECT id, params, created_at, next_try FROM retry_schedule WHERE endpoint_id = ? AND unique_key = ?
"""

Row = tuple[Any, ...]


def enqueue(new: Sequence[Insert]) -> Write[list[Inserted]]:
    """Write new tasks, all or none of them.

    Raises StorageFull, and UniqueKeyReused where an idempotency key of the last 24 hours comes
    back with other parameters; with the same ones the first task is the answer.
    """
    return Write(Rank.NEW, None, CALLS, new, needs_room=True)


def _enqueue_alone(session: Session, inserts: Sequence[Insert]) -> list[Inserted]:
    now = session.now()
    return [insert_one(session, insert, now) for insert in inserts]


def _enqueue_all(
    session: Session, calls: Sequence[Sequence[Insert]]
) -> list[list[Inserted] | Exception]:
    new = NewRows(session, sum(map(len, calls)))
    results: list[list[Inserted] | Exception] = []
    for inserts in calls:
        mark = new.mark()
        try:
            results.append([new.add(insert) for insert in inserts])
        except (UniqueKeyReused, TypeError, ValueError, RecursionError) as error:
            new.undo(mark)
            results.append(error)
    new.flush()
    return results


CALLS = Batch(_enqueue_alone, _enqueue_all)
"""New tasks, as clients bring them: those of one call are written all or none."""


class NewRows:
    """Tasks that are written together. They get their ids here, in the order in which they come."""

    def __init__(self, session: Session, expected: int) -> None:
        """`expected`: how many will come at most, without those that are undone."""
        self._session = session
        self._now = session.now()
        self._rows: list[Row] = []
        self._expected = expected
        self._ids: Sequence[int] = ()

    def add(self, insert: Insert) -> Inserted:
        """Write this, by the next `flush`. Raises what `insert_one` raises before it writes."""
        new = insert.task
        if new.unique_key is not None:
            # One that comes twice at once is not found here, and is refused by its index.
            duplicate = _same_key(self._session, new, self._now)
            if duplicate is not None:
                return duplicate
        if not self._ids:
            self._ids = self._session.db.reserve("retry_schedule", self._expected)
        row = _row(self._session, insert, self._now, self._ids[len(self._rows)])
        self._rows.append(row)
        return _inserted(insert, row[0], row)

    def mark(self) -> int:
        """For `undo`."""
        return len(self._rows)

    def undo(self, mark: int) -> None:
        """Forget what was added since."""
        del self._rows[mark:]

    def flush(self) -> None:
        """Write what was added."""
        if self._rows:
            INSERT.run(self._session.db, self._rows)
            born = 0
            for row in self._rows:
                if row[STATUS] == Status.RUNNING:
                    born += 1
                else:
                    self._session.waits(Key(row[ENDPOINT_ID], row[WEBHOOK]), row[NEXT_TRY])
            self._session.moved(None, Status.RUNNING, born)
            self._session.moved(None, Status.PENDING, len(self._rows) - born)
            self._rows, self._ids = [], ()


def insert_one(session: Session, insert: Insert, now: int) -> Inserted:
    """Write one. Raises UniqueKeyReused, and TypeError or ValueError for what cannot be stored."""
    if insert.task.unique_key is not None:
        duplicate = _same_key(session, insert.task, now)
        if duplicate is not None:
            return duplicate
    [id_] = session.db.reserve("retry_schedule", 1)
    row = _row(session, insert, now, id_)
    INSERT.one(session.db, row)
    session.moved(None, row[STATUS])
    if insert.born is None:
        session.waits(insert.task.key, row[NEXT_TRY])
    return _inserted(insert, id_, row)


def _row(session: Session, insert: Insert, now: int, id_: int) -> Row:
    """What is written, in the order of `COLUMNS`."""
    new, born = insert.task, insert.born
    due = now + round(max(new.delay, 0.0) * 1000)
    scheduled_at = due if new.scheduled_at is None else new.scheduled_at
    params, payload, error = json_text(new.params), plain(new.payload), plain(new.error)
    if born is None:
        return (
            id_, new.kind, new.endpoint_id, new.webhook, new.phase, "pending", 0, new.max_attempts,
            due, params, payload, new.parent_id, new.unique_key, None, None, None, 1, error, now,
            now, scheduled_at, new.depth,
        )  # fmt: skip
    return (
        id_, new.kind, new.endpoint_id, new.webhook, new.phase, "running", 1, new.max_attempts, due,
        params, payload, new.parent_id, new.unique_key, session.owner, session.lease_until(),
        now if born.idempotent else None, int(born.idempotent), error, now, now, scheduled_at,
        new.depth,
    )  # fmt: skip


def _inserted(insert: Insert, id_: int, row: Row) -> Inserted:
    """What became of it, by the row that was written."""
    new, born = insert.task, insert.born
    due = row[NEXT_TRY]
    if born is None:
        return Inserted(id_, new.key, due, None)
    now = row[UPDATED_AT]
    task = Task(
        id=id_, kind=new.kind, endpoint_id=new.endpoint_id, webhook=new.webhook, phase=new.phase,
        status=Status.RUNNING, reason=None, attempts=1, max_attempts=new.max_attempts,
        next_try=due, params=new.params, payload=worded(row[PAYLOAD]), parent_id=new.parent_id,
        created_at=now, updated_at=now, scheduled_at=row[SCHEDULED_AT], started_at=row[STARTED_AT],
        unique_key=new.unique_key, locked_by=row[LOCKED_BY], idempotent=born.idempotent,
        last_error=worded(row[LAST_ERROR]), depth=new.depth,
    )  # fmt: skip
    return Inserted(id_, new.key, None, task)


def _same_key(session: Session, new: NewTask, now: int) -> Inserted | None:
    """The task that has this idempotency key, None where it is free (from now on)."""
    row = session.db.one(SAME_KEY, (new.endpoint_id, new.unique_key))
    if row is None:
        return None
    id_, params, created_at, next_try = row
    if created_at <= now - UNIQUE_KEY_MS:
        session.db.run("UPDATE retry_schedule SET unique_key = NULL WHERE id = ?", (id_,))
        return None
    if not same_json(params, new.params):
        raise UniqueKeyReused(
            f"the idempotency key {new.unique_key!r} was used for task {id_} of {new.endpoint_id}, "
            "with other parameters"
        )
    return Inserted(id_, new.key, next_try, None, duplicate=True)
