"""New tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from operator import itemgetter
from typing import Any

from orchestratord.errors import UniqueKeyReused
from orchestratord.model.partition_turn import HOLDS
from orchestratord.model.task import Key, Kind, NewTask, Status
from orchestratord.queue.connection import ManyRows
from orchestratord.queue.operations import plugin_rows
from orchestratord.queue.records import Insert, Inserted
from orchestratord.queue.rows import json_digest, json_text, plain, same_json
from orchestratord.queue.session import Session, random_nonce

UNIQUE_KEY = 24 * 3600.0
"""Seconds for which an idempotency key counts."""

COLUMNS = (
    "id", "kind", "endpoint_id", "webhook", "phase", "max_attempts", "params", "payload",
    "parent_id", "unique_key", "attempts", "claims", "idempotent", "last_error", "created_at",
    "updated_at", "scheduled_at", "depth", "nonce", "asked", "run_id", "status", "next_try",
    "last_status_code", "finished_at", "partition", "partition_rule", "held", "turn_at",
)  # fmt: skip
"""Those that a new task has, in the order in which a row of it is made here."""

ENDPOINT_ID, WEBHOOK, STATUS, NEXT_TRY, UPDATED_AT, RUN_ID, PARTITION = (
    COLUMNS.index(name)
    for name in (
        "endpoint_id", "webhook", "status", "next_try", "updated_at", "run_id", "partition",
    )
)  # fmt: skip

_TEXTS = {
    "kind", "endpoint_id", "webhook", "phase", "status", "params", "payload", "unique_key",
    "last_error", "nonce", "asked", "last_status_code", "partition",
}  # fmt: skip

INSERT = ManyRows(
    f"INSERT OR ROLLBACK INTO retry_schedule ({', '.join(COLUMNS)}) VALUES {{rows}}",  # noqa: S608  # no values
    *("text" if name in _TEXTS else "bigint" for name in COLUMNS),
)

HAPPENED_CODE = "ok"
"""The status code of what needed no request."""

SAME_KEY = """
SELECT id, params, asked, created_at, next_try FROM retry_schedule
WHERE endpoint_id = ? AND unique_key = ?
"""

Row = tuple[Any, ...]

_status_of = itemgetter(STATUS)


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
        # One that is written singly is there before the next one comes.
        self._expected = 1 if session.db.singly else expected
        self._ids: Iterator[int] = iter(())

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
        id_ = self._next_id() if insert.happened is None else insert.happened.id
        row = _row(self._session, insert, self._now, id_)
        self._rows.append(row)
        if self._session.db.singly:
            self.flush()
        happened = insert.happened is not None
        return Inserted(id_, insert.task.key, row[NEXT_TRY], happened=happened)

    def _next_id(self) -> int:
        if (id_ := next(self._ids, None)) is None:
            self._ids = iter(self._session.db.reserve("retry_schedule", self._expected))
            id_ = next(self._ids)
        return id_

    def mark(self) -> int:
        """For `undo`."""
        return len(self._rows)

    def undo(self, mark: int) -> None:
        """Forget what was added since."""
        del self._rows[mark:]

    def flush(self) -> None:
        """Write what was added."""
        INSERT.run(self._session.db, self._rows)
        for status, count in Counter(map(_status_of, self._rows)).items():
            self._session.moved(None, status, count)
        for row in self._rows:
            if row[NEXT_TRY] is not None and row[PARTITION] is None:
                self._session.waits(Key(row[ENDPOINT_ID], row[WEBHOOK]), row[NEXT_TRY])
            if row[RUN_ID] is not None:
                _joins_run(self._session, row)
        self._rows, self._ids = [], iter(())


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
    if row[STATUS] == Status.SUCCEEDED:
        session.runs.move(row[RUN_ID], Status.RUNNING, Status.SUCCEEDED)


def _row(session: Session, insert: Insert, now: int, id_: int) -> Row:
    """What is written, in the order of `COLUMNS`. Where it has a partition, the session has to look
    at that then; it is held until it is elected."""
    new, happened = insert.task, insert.happened
    due = now + round(max(new.delay, 0.0) * 1000) if new.at is None else max(new.at, now)
    scheduled_at = due if new.scheduled_at is None else new.scheduled_at
    params, payload, error = json_text(new.params), plain(new.payload), plain(new.error)
    asked = None
    if new.unique_key is not None and new.asked is not None:
        asked = json_digest(new.asked)
    run_id = None
    if new.kind == Kind.CALL:
        run_id = new.run_id if insert.run_id is None else insert.run_id
    if insert.begins_run:
        run_id = id_
    end: Row = "pending", due, None, None
    turn: Row = None, None, 0, 0
    if happened is not None:
        end = "succeeded", None, HAPPENED_CODE, now
    elif (partition := new.partition) is not None:
        value, rule = plain(partition.value) or "", partition.rule
        turn = value, rule, 1, HOLDS if rule < 0 else 0
        session.touch_rule(new.key, value, rule)
    return (
        id_, new.kind, new.endpoint_id, new.webhook, new.phase, new.max_attempts, params, payload,
        new.parent_id, new.unique_key, 0, 0, 1, error, now, now, scheduled_at, new.depth,
        random_nonce(), asked, run_id, *end, *turn,
    )  # fmt: skip


def _duplicate(session: Session, new: NewTask, *, key_is_free: bool = False) -> Inserted | None:
    """What there is of a task that is not to be written again; None where it is new. What it was
    told by is written from here on."""
    looked_up = new.unique_key is None or key_is_free
    if not looked_up and (found := _same_key(session, new)) is not None:
        return found
    if new.once is not None and not plugin_rows.insert_all_new(session, [new.once])[0]:
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
