"""What the queue does for the relay: it says which daemon is the one, and makes tasks of rows.

A task and the fact that its row was taken are of one transaction. Where the outbox is in the
queue's database, the fact is that the row is gone; else it is a row of `outbox_taken`, by the row's
random `uid`, which stays until the row is seen to be gone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

from orchestratord.errors import QueueError, UniqueKeyReused
from orchestratord.model.task import NewTask
from orchestratord.queue import facts
from orchestratord.queue.batch import Rank, Write, reads, writes
from orchestratord.queue.connection import Connection, ManyRows, Singly
from orchestratord.queue.models import OutboxTaken, sql
from orchestratord.queue.operations.effects import add_whole, all_inserts
from orchestratord.queue.operations.insert import NewRows, lock_order
from orchestratord.queue.operations.plugin_rows import Upserts
from orchestratord.queue.operations.roles import role_holder
from orchestratord.queue.records import Insert, Inserted
from orchestratord.queue.session import Session

RELAY = "outbox_relay"
"""The role of the daemon that relays. What it is told wrongly costs nothing but another look:
`take` finds out within its transaction who relays."""

LOOKS = "outbox_looks:"
"""How the name of the fact begins, before the name of the outbox's database, that says which rows
are looked at by themselves, and by which daemons."""

WAITING = """
SELECT uid::text FROM orchestratord_outbox
WHERE id IN (SELECT v::bigint FROM jsonb_array_elements_text(?::jsonb) AS t (v))
    AND coalesce(refused_at, 'infinity') = 'infinity' FOR UPDATE SKIP LOCKED
"""
"""In the queue's own database; one that others just change is looked at another time. Written so
that rows are found by their ids: the index of those that wait looks shorter, and is not."""

REMOVE = """
DELETE FROM orchestratord_outbox
WHERE id IN (SELECT v::bigint FROM jsonb_array_elements_text(?::jsonb) AS t (v))
"""

KEYS_IN_USE = """
WITH wanted (endpoint_id, unique_key) AS (VALUES {}) SELECT endpoint_id, unique_key FROM wanted
WHERE (
    SELECT 1 FROM retry_schedule AS task
    WHERE task.endpoint_id = wanted.endpoint_id AND task.unique_key = wanted.unique_key
) = 1
"""
"""One look into the index of keys for each, whatever the statistics say."""

TAKEN = ManyRows("INSERT INTO outbox_taken (uid, at) VALUES {rows}", "text", "bigint")


class RelayMoved(QueueError):
    """Another daemon relays by now: nothing was written."""


class OutboxTask(NamedTuple):
    """A row with the task that it makes."""

    id: int
    uid: str
    task: NewTask


Result = Inserted | UniqueKeyReused | None
"""What became of a row: its task; its key was used with other parameters, and nothing was written;
or None, it was taken before or is not to be had just now."""


@writes(Rank.KEEP)
def note_look(session: Session, outbox: str | None, uid: str, *, ends: bool = False) -> int:
    """Note that a row is looked at by itself, or (`ends`) was; in how many such looks the daemon
    died."""
    name = LOOKS + (outbox or "")
    looks: dict[str, list[str]] = json.loads(facts.get(session.db, name) or "{}")
    died = [owner for owner in looks.pop(uid, []) if owner != session.owner]
    if not ends:
        looks[uid] = [*died, session.owner]
    facts.put(session.db, name, json.dumps(looks))
    return len(died)


def take(
    rows: Sequence[OutboxTask], inserts: Sequence[Insert], *, same_database: bool
) -> Write[list[Result]]:
    """Make tasks of rows, each of them once, whichever daemons try it; what became of each.

    Args:
        rows: as the relay has read them.
        inserts: their tasks, in the same order.
        same_database: the outbox is in the queue's own, and rows that made a task are gone then.

    Raises RelayMoved, StorageFull; QueueError where the database cannot hold one of them.
    """
    taken = list(zip(rows, inserts, strict=True))

    def do(session: Session) -> list[Result]:
        try:
            return _take(session, taken, same_database)
        except Singly as error:  # the relay asks for fewer, or one, by what is wrong
            raise error.__cause__ or error from None

    return Write(Rank.NEW, do, needs_room=True)


def _take(
    session: Session, taken: Sequence[tuple[OutboxTask, Insert]], same_database: bool
) -> list[Result]:
    insist_on_relay(session)
    rows = [row for row, _ in taken]
    ours = (_waiting if same_database else _not_taken)(session.db, rows)
    inserts = [insert for _, insert in taken]
    keys = _keys_in_use(session.db, inserts)
    whole = list(all_inserts(inserts))
    lock_order(session, whole)
    new, upserts = NewRows(session, len(whole)), Upserts(session)
    results: list[Result] = []
    for row, insert in taken:
        if row.uid not in ours:
            results.append(None)
            continue
        key = _key(insert)
        if (known := key in keys) and key is not None:
            new.flush()  # so that it is found, if it is of this batch
        keys.add(key)
        try:
            free = not known
            results.append(add_whole(session, new, upserts, insert, key_is_free=free))
        except UniqueKeyReused as error:
            results.append(error)
    new.flush()
    upserts.flush()
    done = [row for row, result in zip(rows, results, strict=True) if isinstance(result, Inserted)]
    if same_database:
        session.db.run(REMOVE, (json.dumps([row.id for row in done]),))
    else:
        now = session.now()
        TAKEN.run(session.db, [(row.uid, now) for row in done])
    return results


def insist_on_relay(session: Session) -> None:
    """Raise RelayMoved where another daemon relays, and keep all others out until COMMIT."""
    if role_holder(session.db, RELAY, session.db.for_update)[0] != session.owner:
        raise RelayMoved("another daemon relays the outbox")


def _key(insert: Insert) -> tuple[str, str] | None:
    task = insert.task
    return None if task.unique_key is None else (task.endpoint_id, task.unique_key)


def _keys_in_use(db: Connection, inserts: Sequence[Insert]) -> set[tuple[str, str] | None]:
    """Which of their keys tasks have, in one statement: one for each takes most of the time where
    the server is another machine."""
    wanted = [key for insert in inserts if (key := _key(insert)) is not None]
    if not wanted:
        return set()
    # In powers of two, so that there are few statements to be prepared.
    padded = wanted + wanted[-1:] * ((1 << (len(wanted) - 1).bit_length()) - len(wanted))
    rows = db.all(KEYS_IN_USE.format(", ".join(["(?, ?)"] * len(padded))), list(chain(*padded)))
    return {(endpoint_id, key) for endpoint_id, key in rows}


def _waiting(db: Connection, rows: Sequence[OutboxTask]) -> set[str]:
    return {uid for (uid,) in db.all(WAITING, (json.dumps([row.id for row in rows]),))}


def _not_taken(db: Connection, rows: Sequence[OutboxTask]) -> set[str]:
    uids = {row.uid for row in rows}
    return uids - _taken(db, uids)


def _taken(db: Connection, uids: set[str]) -> set[str]:
    query = OutboxTaken.select(OutboxTaken.uid).where(OutboxTaken.uid.in_(list(uids)))
    return {uid for (uid,) in db.all(*sql(query))}


@reads
def taken_of(db: Connection, uids: Sequence[str]) -> set[str]:
    """Which of these rows, of an outbox elsewhere, have made their task."""
    return _taken(db, set(uids))


@reads
def taken_before(db: Connection, at: int, limit: int) -> list[str]:
    """The rows that were taken before `at`, the first ones, by `uid`."""
    query = OutboxTaken.select(OutboxTaken.uid).where(OutboxTaken.at < at)
    return [uid for (uid,) in db.all(*sql(query.order_by(OutboxTaken.at).limit(limit)))]


@writes(Rank.KEEP)
def forget_taken(session: Session, uids: Sequence[str]) -> None:
    """These rows are gone: they cannot come again."""
    session.db.run(*sql(OutboxTaken.delete().where(OutboxTaken.uid.in_(list(uids)))))
