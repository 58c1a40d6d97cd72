"""New tasks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

from orchestratord.errors import UniqueKeyReused
from orchestratord.model.partition_turn import HOLDS
from orchestratord.model.task import Key, Kind, NewTask, Status
from orchestratord.queue.batch import Batch, Rank, Write
from orchestratord.queue.connection import ManyRows, Singly
from orchestratord.queue.operations import plugin_rows
from orchestratord.queue.records import Insert, Inserted
from orchestratord.queue.rows import json_digest, json_text, plain, same_json
from orchestratord.queue.session import Session

UNIQUE_KEY = 24 * 3600.0
"""Seconds for which an idempotency key counts."""

COLUMNS = (
    "id", "kind", "endpoint_id", "webhook", "phase", "status", "attempts", "max_attempts",
    "next_try", "params", "payload", "parent_id", "unique_key", "locked_by", "lease_until",
    "started_at", "idempotent", "last_error", "created_at", "updated_at", "scheduled_at", "depth",
    "claims", "nonce", "asked", "run_id",
)  # fmt: skip
"""Those that a new task has, in the order in which a row of it is made here."""

(
    ENDPOINT_ID, WEBHOOK, STATUS, NEXT_TRY, PAYLOAD, LOCKED_BY, STARTED_AT, LAST_ERROR, UPDATED_AT,
    SCHEDULED_AT, NONCE, RUN_ID,
) = (
    COLUMNS.index(name)
    for name in (
        "endpoint_id", "webhook", "status", "next_try", "payload", "locked_by", "started_at",
        "last_error", "updated_at", "scheduled_at", "nonce", "run_id",
    )
)  # fmt: skip

_TEXTS = {
    "kind", "endpoint_id", "webhook", "phase", "status", "params", "payload", "unique_key",
    "locked_by", "last_error", "nonce", "asked",
}  # fmt: skip

INSERT = ManyRows(
    f"INSERT OR ROLLBACK INTO retry_schedule ({', '.join(COLUMNS)}) VALUES {{rows}}",  # noqa: S608  # no values
    *("text" if name in _TEXTS else "bigint" for name in COLUMNS),
)

HAPPENED_CODE = "ok"
"""The status code of what needed no request."""

HAPPENED = ManyRows(
    f"INSERT OR ROLLBACK INTO retry_schedule ({', '.join(COLUMNS)}, last_status_code, finished_at) "  # noqa: S608
    "VALUES {rows}",
    *INSERT.types,
    "text",
    "bigint",
)
"""The same for what is written already succeeded."""
PARTITIONED = ("partition", "partition_rule", "held", "turn_at")
"""What a new task has besides, where it has a partition. It is held until it is elected."""

INSERT_PARTITIONED = ManyRows(
    INSERT.sql.replace(") VALUES", f", {', '.join(PARTITIONED)}) VALUES"),
    *INSERT.types,
    *("text" if name == "partition" else "bigint" for name in PARTITIONED),
)

SAME_KEY = """
SELECT id, params, asked, created_at, next_try FROM retry_schedule
WHERE endpoint_id = ? AND unique_key = ?
"""

Row = tuple[Any, ...]


def enqueue(new: Sequence[Insert]) -> Write[list[Inserted]]:
    """Write new tasks, all or none of them.

    Raises StorageFull, and UniqueKeyReused where an idempotency key of the last 24 hours comes
    back with other parameters; with the same ones the first task is the answer.
    """
    return Write(Rank.NEW, None, CALLS, new, needs_room=True)


def _enqueue_all(
    session: Session, calls: Sequence[Sequence[Insert]]
) -> list[list[Inserted] | Exception]:
    lock_order(session, chain.from_iterable(calls))
    new = NewRows(session, sum(map(len, calls)))
    results: list[list[Inserted] | Exception] = []
    for inserts in calls:
        mark = new.mark()
        try:
            results.append([new.add(insert) for insert in inserts])
        except (UniqueKeyReused, TypeError, ValueError, RecursionError) as error:
            if any(insert.task.once is not None for insert in inserts):
                raise Singly from error  # what it wrote of these has to be undone, too
            new.undo(mark)
            results.append(error)
    new.flush()
    return results


CALLS: Batch[Sequence[Insert], list[Inserted]] = Batch(_enqueue_all)
"""New tasks, as clients bring them: those of one call are written all or none."""


class NewRows:
    """Tasks that are written together. They get their ids here, in the order in which they come."""

    def __init__(self, session: Session, expected: int) -> None:
        """
        Args:
            session: writes them. `lock_order` was asked for before.
            expected: how many will come at most, without those that are undone.
        """
        self._session = session
        self._now = session.now()
        self._rows: list[Row] = []
        self._happened: list[Row] = []
        # One that is written singly is there before the next one comes.
        self._expected = 1 if session.db.singly else expected
        self._ids: Sequence[int] = ()

    def add(self, insert: Insert, *, key_is_free: bool = False) -> Inserted:
        """Write this, by the next `flush`, but for what follows from one that is written succeeded.
        Raises UniqueKeyReused, and TypeError or ValueError for what cannot be stored, before it
        writes.

        `key_is_free`: it was looked up already that no task has its idempotency key.
        """
        # A key that comes twice at once is not found here, and is refused by its index.
        duplicate = _duplicate(self._session, insert.task, key_is_free=key_is_free)
        if duplicate is not None:
            return duplicate
        if insert.happened is not None:
            row = _row(self._session, insert, self._now, insert.happened.id)
            self._happened.append((*row, HAPPENED_CODE, self._now))
            _happens(self._session, row)
        else:
            if not self._ids:
                self._ids = self._session.db.reserve("retry_schedule", self._expected)
            row = _row(self._session, insert, self._now, self._ids[len(self._rows)])
            self._rows.append(row)
        if self._session.db.singly:
            self.flush()
        happened = insert.happened is not None
        return Inserted(row[0], insert.task.key, row[NEXT_TRY], happened=happened)

    def mark(self) -> int:
        """For `undo`."""
        return len(self._rows)

    def undo(self, mark: int) -> None:
        """Forget what was added since."""
        del self._rows[mark:]

    def flush(self) -> None:
        """Write what was added."""
        if self._happened:
            HAPPENED.run(self._session.db, self._happened)
            self._session.moved(None, Status.SUCCEEDED, len(self._happened))
            self._happened = []
        if self._rows:
            plain_rows = self._rows
            if self._session.touched:  # else none of these has a partition
                plain_rows = [row for row in self._rows if len(row) == len(COLUMNS)]
                rows = [row for row in self._rows if len(row) > len(COLUMNS)]
                INSERT_PARTITIONED.run(self._session.db, rows)
            INSERT.run(self._session.db, plain_rows)
            for row in plain_rows:
                self._session.waits(Key(row[ENDPOINT_ID], row[WEBHOOK]), row[NEXT_TRY])
            self._session.moved(None, Status.PENDING, len(self._rows))
            for row in self._rows:
                if row[RUN_ID] is not None:
                    _joins_run(self._session, row)
            self._rows, self._ids = [], ()


def insert_one(session: Session, insert: Insert) -> Inserted:
    """Write one, but for what follows from one that is written succeeded. Raises what `NewRows.add`
    raises."""
    lock_order(session, (insert,))
    with session.db.one_by_one():
        return NewRows(session, 1).add(insert)


def lock_order(session: Session, inserts: Iterable[Insert]) -> None:
    """Before tasks of ordered partitions get their ids: have them committed in this order."""
    if session.db.for_update:  # else there is one writer
        ordered = {
            insert.task.key
            for insert in inserts
            if insert.task.partition is not None and insert.task.partition.ordered
        }
        if ordered:
            session.lock_order(ordered)


def _joins_run(session: Session, row: Row) -> None:
    """Count one in its run, which begins with it where it has its id."""
    if row[RUN_ID] == row[0]:
        session.runs.begin(row[0], row[ENDPOINT_ID], row[UPDATED_AT], has_row=False)
    else:
        session.runs.join(row[RUN_ID])


def _happens(session: Session, row: Row) -> None:
    """Count one in its run that is written succeeded."""
    _joins_run(session, row)
    session.runs.move(row[RUN_ID], Status.RUNNING, Status.SUCCEEDED)


def _row(session: Session, insert: Insert, now: int, id_: int) -> Row:
    """What is written, in the order of `COLUMNS` and `PARTITIONED`. The session has to look at its
    partition then, where it has one."""
    new = insert.task
    rule: Row = ()
    if (partition := new.partition) is not None and insert.happened is None:
        value, how = plain(partition.value) or "", partition.rule
        rule = (value, how, 1, HOLDS if how < 0 else 0)
        session.touch_rule(new.key, value, how)
    due = now + round(max(new.delay, 0.0) * 1000)
    scheduled_at = due if new.scheduled_at is None else new.scheduled_at
    params, payload, error = json_text(new.params), plain(new.payload), plain(new.error)
    asked = None
    if new.unique_key is not None and new.asked is not None:
        asked = json_digest(new.asked)
    nonce = session.new_nonce()
    run_id = None
    if new.kind == Kind.CALL:
        run_id = new.run_id if insert.run_id is None else insert.run_id
        run_id = id_ if insert.begins_run else run_id
    if insert.happened is not None:
        run_id = id_ if insert.happened.begins_run else run_id
        return (
            id_, new.kind, new.endpoint_id, new.webhook, new.phase, "succeeded", 0,
            new.max_attempts, None, params, payload, new.parent_id, new.unique_key, None, None,
            None, 1, error, now, now, scheduled_at, new.depth, 0, nonce, asked, run_id,
        )  # fmt: skip
    row = (
        id_, new.kind, new.endpoint_id, new.webhook, new.phase, "pending", 0, new.max_attempts,
        due, params, payload, new.parent_id, new.unique_key, None, None, None, 1, error, now,
        now, scheduled_at, new.depth, 0, nonce, asked, run_id,
    )  # fmt: skip
    return (*row, *rule) if rule else row


def _duplicate(session: Session, new: NewTask, *, key_is_free: bool = False) -> Inserted | None:
    """What there is of a task that is not to be written again; None where it is new. What it was
    told by is written from here on."""
    looked_up = new.unique_key is None or key_is_free
    if not looked_up and (found := _same_key(session, new)) is not None:
        return found
    if new.once is not None and not plugin_rows.insert_new(session, new.once):
        return Inserted(0, new.key, None, duplicate=True)
    return None


def _same_key(session: Session, new: NewTask) -> Inserted | None:
    """The task that has this idempotency key, None where it is free (from now on)."""
    row = session.db.one(SAME_KEY, (new.endpoint_id, new.unique_key))
    if row is None:
        return None
    id_, params, asked, created_at, next_try = row
    if created_at <= session.clock.before(UNIQUE_KEY):
        session.db.run("UPDATE retry_schedule SET unique_key = NULL WHERE id = ?", (id_,))
        return None
    # What the client sent is the same although defaults have changed since.
    same = asked is not None and new.asked is not None and asked == json_digest(new.asked)
    if not (same or same_json(params, new.params)):
        raise UniqueKeyReused(
            f"the idempotency key {new.unique_key!r} was used for task {id_} of {new.endpoint_id}, "
            "with other parameters"
        )
    return Inserted(id_, new.key, next_try, duplicate=True)
