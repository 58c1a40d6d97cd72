"""Retrying or cancelling many tasks manually: a row knows how far it is, and moves on in steps.

What matches is looked for on the reading connection; the writer only touches rows that it is given
by id, and moves the cursor in the same transaction. So no task moves twice, whatever happens in
between, and the hot path waits for none of the looking.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from orchestratord.errors import NotFound
from orchestratord.model.task import Key, Status
from orchestratord.queue.batch import Rank, reads, writes
from orchestratord.queue.connection import BY_ID, Connection
from orchestratord.queue.models import BulkRow, sql
from orchestratord.queue.operations import search
from orchestratord.queue.records import CANCEL as CANCELLING
from orchestratord.queue.records import RETRY as RETRYING
from orchestratord.queue.records import Bulk, TaskFilter
from orchestratord.queue.session import Session
from orchestratord.queue.store import Store

# ruff: noqa: S608  # what is pasted here are columns and question marks, never values

COLUMNS = [BulkRow._meta.columns[field.name] for field in fields(Bulk)]

RETRY = f"""
UPDATE retry_schedule {BY_ID}
SET status = 'pending', next_try = ?,
    granted = granted
        + CASE WHEN attempts >= max_attempts THEN attempts + 1 - max_attempts ELSE 0 END,
    max_attempts = CASE WHEN attempts >= max_attempts THEN attempts + 1 ELSE max_attempts END,
    retried_at = ?, reason = NULL, finished_at = NULL, updated_at = ?
WHERE id IN ({{ids}}) AND status = ? RETURNING id, endpoint_id, webhook
"""

HASTEN = f"""
UPDATE retry_schedule {BY_ID}
SET next_try = CASE WHEN next_try < ? THEN next_try ELSE ? END, retried_at = ?, updated_at = ?
WHERE id IN ({{ids}}) AND status = 'pending' RETURNING id, endpoint_id, webhook
"""

CANCEL = f"""
UPDATE retry_schedule {BY_ID}
SET status = 'cancelled', reason = NULL, next_try = NULL, finished_at = ?, updated_at = ?
WHERE id IN ({{ids}}) AND status = ? RETURNING id, endpoint_id, webhook
"""

ASK_TO_CANCEL = f"""
UPDATE retry_schedule {BY_ID} SET cancel_requested = 1, updated_at = ?
WHERE id IN ({{ids}}) AND status = 'running' RETURNING id
"""


async def create(
    store: Store, wanted: TaskFilter, rate: float | None, dry_run: bool, action: str = RETRYING
) -> Bulk:
    """Begin to retry or cancel all that match; one that has nothing to do is finished at once.

    A filter without a status means the failed ones; where they are cancelled, those that wait.
    `rate`: tasks a second, for whoever steps it. A dry run only counts and leaves no trace: it has
    the id 0, and is finished.
    """
    wanted = with_default(action, wanted)
    highest, matched = await store.read(survey(wanted))
    if dry_run:
        now = store.clock.now_ms()
        return Bulk(
            0, wanted, rate, True, "finished", highest, 0, matched, 0, 0, now, now, now, action
        )
    return await store.write(write_down(action, wanted, rate, highest, matched))


async def step(store: Store, bulk_id: int, limit: int) -> tuple[Bulk, dict[Key, list[int]]]:
    """Look at the next `limit` tasks of a bulk; the bulk now, and those moved, by their key.

    They are due now, or cancelled; one that runs and is asked not to be tried again is counted, and
    not among those. Raises NotFound.
    """
    seen = await store.read(get(bulk_id))
    if seen.status != "running":
        return seen, {}
    ids = await store.read(upcoming(seen, limit))
    return await store.write(move_on(seen, ids, last=len(ids) < limit))


@reads
def survey(db: Connection, wanted: TaskFilter) -> tuple[int, int]:
    """(The newest id, how many tasks match up to it)."""
    row = db.one("SELECT max(id) FROM retry_schedule")
    highest = (row[0] if row else None) or 0
    return highest, search.count(db, wanted, highest)


@writes(Rank.HAND)
def write_down(
    session: Session,
    action: str,
    wanted: TaskFilter,
    rate: float | None,
    highest: int,
    matched: int,
) -> Bulk:
    """Write a bulk down that was surveyed."""
    now = session.now()
    status = "running" if matched else "finished"
    new = BulkRow.insert(
        filter_=search.dump(wanted),
        rate=rate,
        status=status,
        highest_id=highest,
        matched=matched,
        created_at=now,
        updated_at=now,
        finished_at=None if matched else now,
        action=action,
        owner=session.owner,
        lease_until=session.lease_until(),
    )
    return _get(session.db, session.db.insert(*sql(new)))


def with_default(action: str, wanted: TaskFilter) -> TaskFilter:
    """Without a status, the failed ones are meant; where they are cancelled, those that wait."""
    status = Status.PENDING if action == CANCELLING else Status.FAILED
    return wanted if wanted.status else replace(wanted, status=(str(status),))


@reads
def upcoming(db: Connection, bulk: Bulk, limit: int) -> list[int]:
    """The next tasks of a bulk."""
    return search.oldest(db, bulk.filter, limit, bulk.cursor, bulk.highest_id)


@writes(Rank.KEEP)
def move_on(
    session: Session, seen: Bulk, ids: Sequence[int], last: bool
) -> tuple[Bulk, dict[Key, list[int]]]:
    """Move these tasks and the cursor past them; the bulk now, and key → moved tasks.

    `seen` is the bulk as it was when `ids` were looked for; where it has moved on since, or another
    daemon carries it out, nothing is done. `last`: there are none after these.
    """
    bulk = _get(session.db, seen.id, session.db.for_update)
    if bulk.status != "running" or bulk.cursor != seen.cursor or _others(session, bulk):
        return bulk, {}
    now = session.now()
    keys: dict[Key, list[int]] = {}
    moved = 0
    for status in bulk.filter.status if ids else ():
        if bulk.action == CANCELLING:
            rows, asked = _cancel(session, status, ids, now)
        else:
            rows, asked = _move(session, status, ids, now), 0
        moved += len(rows) + asked
        for id_, *key in rows:
            keys.setdefault(Key(*key), []).append(id_)
            session.waits(Key(*key), now)
    changes = {
        "cursor": bulk.highest_id if last else ids[-1],
        "moved": BulkRow.moved + moved,
        "skipped": BulkRow.skipped + len(ids) - moved,
        "owner": session.owner,
        "lease_until": session.lease_until(),
    }
    if last:
        changes |= {"status": "finished", "finished_at": now}
    return _change(session, bulk.id, changes, now), keys


@writes(Rank.KEEP)
def release(session: Session) -> None:
    """Leave those that are carried out here to other daemons, which need not wait then."""
    ours = BulkRow.owner == session.owner, BulkRow.status == "running"
    session.db.run(*sql(BulkRow.update(owner=None, lease_until=None).where(*ours)))


def _others(session: Session, bulk: Bulk) -> bool:
    """Whether another daemon carries it out. One file has one daemon."""
    if not session.db.shared or bulk.owner in (None, session.owner):
        return False
    return (bulk.lease_until or 0) > session.leases.now(session.clock)


def _move(session: Session, status: str, ids: Sequence[int], now: int) -> list[tuple[Any, ...]]:
    marks = ", ".join("?" * len(ids))
    if status == Status.PENDING:
        return session.db.all(HASTEN.format(ids=marks), (now, now, now, now, *ids))
    if status not in (Status.FAILED, Status.CANCELLED):
        return []
    rows = session.db.all(RETRY.format(ids=marks), (now, now, now, *ids, status))
    session.moved(status, Status.PENDING, len(rows))
    return rows


def _cancel(
    session: Session, status: str, ids: Sequence[int], now: int
) -> tuple[list[tuple[Any, ...]], int]:
    """Those that are cancelled, and how many were asked to be."""
    marks = ", ".join("?" * len(ids))
    if status == Status.RUNNING:
        return [], len(session.db.all(ASK_TO_CANCEL.format(ids=marks), (now, *ids)))
    if status not in (Status.PENDING, Status.FAILED):
        return [], 0
    rows = session.db.all(CANCEL.format(ids=marks), (now, now, *ids, status))
    session.moved(status, Status.CANCELLED, len(rows))
    return rows, 0


@writes(Rank.HAND)
def cancel(session: Session, bulk_id: int) -> Bulk:
    """Stop where it is; one that has ended stays as it is. Raises NotFound."""
    bulk = _get(session.db, bulk_id, session.db.for_update)
    if bulk.status != "running":
        return bulk
    now = session.now()
    return _change(session, bulk_id, {"status": "cancelled", "finished_at": now}, now)


def _change(session: Session, bulk_id: int, changes: Mapping[str, Any], now: int) -> Bulk:
    query = BulkRow.update(**changes, updated_at=now).where(BulkRow.id == bulk_id)
    row = session.db.one(*sql(query.returning(*COLUMNS)))
    assert row is not None
    return _bulk_of(row)


@reads
def get(db: Connection, bulk_id: int) -> Bulk:
    """One bulk. Raises NotFound."""
    return _get(db, bulk_id)


def _get(db: Connection, bulk_id: int, lock: str = "") -> Bulk:
    """`lock` is the connection's `for_update`, or nothing."""
    text, values = sql(BulkRow.select(*COLUMNS).where(BulkRow.id == bulk_id))
    row = db.one(text + lock, values)
    if row is None:
        raise NotFound.of("bulk", bulk_id)
    return _bulk_of(row)


@reads
def running(db: Connection) -> list[Bulk]:
    """Those that go on."""
    return _running(db)


@reads
def left_to(db: Connection, owner: str, now: int) -> list[Bulk]:
    """Those that go on, and that no other daemon than `owner` seems to carry out at `now`.

    Whether another's lease has run out says the database, whose clock it goes by, as a step is
    taken. One file has one daemon.
    """
    return [
        bulk
        for bulk in _running(db)
        if not db.shared or bulk.owner in (None, owner) or (bulk.lease_until or 0) < now
    ]


def _running(db: Connection) -> list[Bulk]:
    query = BulkRow.select(*COLUMNS).where(BulkRow.status == "running").order_by(BulkRow.id)
    return [_bulk_of(row) for row in db.all(*sql(query))]


@reads
def newest(db: Connection, limit: int) -> list[Bulk]:
    """The latest ones, newest first."""
    query = BulkRow.select(*COLUMNS).order_by(BulkRow.id.desc()).limit(limit)
    return [_bulk_of(row) for row in db.all(*sql(query))]


def _bulk_of(row: tuple[Any, ...]) -> Bulk:
    id_, text, rate, dry_run, *rest = row
    return Bulk(id_, search.parse(text), rate, bool(dry_run), *rest)
