"""Calls that are made together, each by itself: one that is not to be made keeps back no other.

In the transaction of a call is also what it was made of: a row that notes it (`NewTask.once`), or
one in the queue's own database that goes with it (`QueueRows`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from orchestratord.errors import UniqueKeyReused
from orchestratord.model.task import Delete, QueueRows
from orchestratord.queue.batch import Rank, Write
from orchestratord.queue.connection import Connection, Singly
from orchestratord.queue.operations.effects import add_whole, all_inserts
from orchestratord.queue.operations.insert import NewRows, lock_order
from orchestratord.queue.operations.plugin_rows import Upserts, delete, insert_all_new, rows_with
from orchestratord.queue.records import Insert, Inserted
from orchestratord.queue.session import Session

KEYS_IN_USE = """
WITH wanted (endpoint_id, unique_key) AS (VALUES {}) SELECT endpoint_id, unique_key FROM wanted
WHERE (
    SELECT 1 FROM retry_schedule AS task
    WHERE task.endpoint_id = wanted.endpoint_id AND task.unique_key = wanted.unique_key
) = 1
"""
"""One look into the index of keys for each, whatever the statistics say."""

Result = Inserted | UniqueKeyReused | None
"""What became of a call; None where its row was there already, or is not to be had just now."""


def enqueue_each(
    calls: Sequence[Insert], rows: QueueRows | None = None, keys: Sequence[str] = ()
) -> Write[list[Result]]:
    """Write new calls; what became of each. One whose idempotency key was used with other
    parameters is not written, and its row is left.

    Args:
        calls: what to write.
        rows: what they are made of, in the queue's own database.
        keys: of these, one for each call.

    Raises StorageFull; QueueError and ValueError where one of them can never be written.
    """

    def do(session: Session) -> list[Result]:
        try:
            return _enqueue_each(session, calls, rows, keys)
        except Singly as error:  # the caller asks for fewer, or one, by what is wrong
            raise error.__cause__ or error from None

    return Write(Rank.NEW, do, needs_room=True)


def _enqueue_each(
    session: Session, calls: Sequence[Insert], rows: QueueRows | None, keys: Sequence[str]
) -> list[Result]:
    had = [True] * len(calls)
    if rows is not None:
        free = {str(key) for (key,) in session.db.all(rows.lock, (json.dumps(list(keys)),))}
        had = [key in free for key in keys]
    noted = [call.task.once if its else None for call, its in zip(calls, had, strict=True)]
    are_new = iter(insert_all_new(session, [once for once in noted if once is not None]))
    had = [its and (once is None or next(are_new)) for its, once in zip(had, noted, strict=True)]
    known = _keys_in_use(session.db, calls)
    whole = list(all_inserts(calls))
    lock_order(session, whole)
    new, upserts = NewRows(session, len(whole)), Upserts(session)
    results: list[Result] = []
    for call, its, once in zip(calls, had, noted, strict=True):
        results.append(_add(session, new, upserts, call, known) if its else None)
        if once is not None and isinstance(results[-1], UniqueKeyReused):
            delete(session, Delete(once.table, once.key))
    new.flush()
    upserts.flush()
    if rows is not None:
        made = zip(keys, results, strict=True)
        taken = [key for key, result in made if isinstance(result, Inserted)]
        session.db.run(rows.take, (json.dumps(taken),))
    return results


Keys = set[tuple[str, str] | None]


def _add(session: Session, new: NewRows, upserts: Upserts, call: Insert, known: Keys) -> Result:
    key = _key(call)
    if (is_known := key in known) and key is not None:
        new.flush()  # so that it is found, if it is of this batch
    known.add(key)
    bare = replace(call, task=replace(call.task, once=None))
    try:
        return add_whole(session, new, upserts, bare, key_is_free=not is_known)
    except UniqueKeyReused as error:
        return error


def _key(call: Insert) -> tuple[str, str] | None:
    task = call.task
    return None if task.unique_key is None else (task.endpoint_id, task.unique_key)


def _keys_in_use(db: Connection, calls: Sequence[Insert]) -> Keys:
    """Which of their keys tasks have, in one statement: one for each takes most of the time where
    the server is another machine."""
    wanted = [key for call in calls if (key := _key(call)) is not None]
    if not wanted:
        return set()
    return {(endpoint_id, key) for endpoint_id, key in rows_with(db, KEYS_IN_USE, wanted)}
