"""Deleting what has been kept long enough, in slices that the hot path does not notice."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from orchestratord.model.settings import Retention
from orchestratord.model.task import Key, Status
from orchestratord.queue.batch import Rank, Read, long_reads, reads, writes
from orchestratord.queue.connection import (
    BY_FINISHED,
    BY_ID,
    BY_PARTITION,
    BY_REASON,
    Connection,
    Row,
)
from orchestratord.queue.operations.insert import UNIQUE_KEY
from orchestratord.queue.records import HoldingBack
from orchestratord.queue.run_counts import UNTOLD
from orchestratord.queue.session import Session
from orchestratord.queue.store import Store

# ruff: noqa: S608  # what is pasted here are hints and question marks, never values

# What holds a partition stays; and so does, of an ordered one, the last that has started, for as
# long as there is one before it which a manual retry would bring out of order.
_OTHERS = f"""
SELECT 1 FROM retry_schedule AS other {BY_PARTITION}
WHERE other.partition = retry_schedule.partition AND other.id > 0
    AND other.endpoint_id = retry_schedule.endpoint_id
    AND other.webhook = retry_schedule.webhook
"""
LAST_STARTED = f"""
    EXISTS ({_OTHERS} AND other.id < retry_schedule.id)
    AND NOT EXISTS ({_OTHERS} AND other.id > retry_schedule.id
        AND (other.attempts > 0 OR other.deaths > 0)
        AND COALESCE(other.replaces, other.id) > retry_schedule.id)
"""

# What was replaced stays for as long as what replaces it: that is found by its parents.
UNREPLACED = """(run_id IS NULL OR NOT EXISTS (SELECT 1 FROM retry_schedule AS child
    WHERE child.parent_id = retry_schedule.id AND child.replaces IS NOT NULL))"""

# The first call of a run stays until its end is told: what is told is told of it.
OPEN_RUN = f"""
EXISTS (SELECT 1 FROM runs WHERE runs.id = retry_schedule.id AND (open_tasks > 0 OR {UNTOLD}))
"""

_UNHELD = f"turn_at = 0 AND (COALESCE(partition_rule, 0) >= 0 OR NOT ({LAST_STARTED}))"

# An idempotency key has to be found for 24 hours, however short its task is kept.
OLD = f"""
SELECT id FROM retry_schedule {BY_FINISHED}
WHERE status = ? AND finished_at IS NOT NULL AND finished_at < ?
    AND (unique_key IS NULL OR created_at <= ?) AND {_UNHELD}
    AND (run_id IS NULL OR run_id <> id OR NOT {OPEN_RUN}) AND {UNREPLACED}
ORDER BY finished_at LIMIT ?
"""

_OF_REASON = f"FROM retry_schedule {BY_REASON} WHERE reason = ? AND status = 'failed'"
KEPT = f"""
SELECT endpoint_id, webhook, count(*), min(finished_at) {_OF_REASON} GROUP BY endpoint_id, webhook
"""
_OF_KEY = f"SELECT id {_OF_REASON} AND endpoint_id = ? AND webhook = ?"
LAST = f"{_OF_KEY} ORDER BY id DESC LIMIT 1 OFFSET ?"
OLDEST = f"""
{_OF_KEY} AND (finished_at < ? OR id <= ?) AND {_UNHELD} AND {UNREPLACED} ORDER BY id LIMIT ?
"""

DELETE = f"""
DELETE FROM retry_schedule {BY_ID}
WHERE id IN (SELECT id FROM retry_schedule {BY_ID} WHERE id IN ({{ids}}) {{free}})
    AND status = ? AND finished_at < ? AND turn_at = 0 AND {UNREPLACED}
RETURNING id
"""

DELETE_ATTEMPTS = "DELETE FROM attempts WHERE task_id IN ({ids})"

# What it moved may wait for long after it has moved all.
DELETE_BULKS = "DELETE FROM bulks WHERE id IN (SELECT id FROM bulks WHERE ended_at < ? LIMIT ?)"
DELETE_COUNTS = """
DELETE FROM task_counts
WHERE bulk_id > 0 AND NOT EXISTS (SELECT 1 FROM bulks WHERE bulks.id = bulk_id)
"""

DELETE_RUNS = f"""
DELETE FROM runs WHERE id IN (
    SELECT id FROM runs WHERE ended_at IS NOT NULL AND ended_at < ? AND NOT {UNTOLD}
    ORDER BY ended_at LIMIT ?
) AND ended_at IS NOT NULL
"""

# However many a program makes, they go in slices.
DELETE_ACTIONS = """
DELETE FROM actions WHERE id IN (SELECT id FROM actions WHERE at < ? ORDER BY at LIMIT ?)
"""


# A batch that no delivery tells of yet, as after a daemon was away for long, keeps what is in it.
# Older versions have left members whose batch is gone.
DELETE_MEMBERS = """
DELETE FROM batch_members WHERE id IN (
    SELECT id FROM batch_members WHERE batch_id IS NOT NULL AND at < ?
        AND (SELECT task_id IS NULL FROM batches WHERE batches.id = batch_id) IS NOT TRUE
    ORDER BY at LIMIT ?
)
"""
DELETE_BATCHES = """
DELETE FROM batches WHERE id IN (
    SELECT id FROM batches WHERE closed_at < ? AND task_id IS NOT NULL ORDER BY id LIMIT ?
) AND NOT EXISTS (SELECT 1 FROM batch_members WHERE batch_id = batches.id)
"""


async def prune(store: Store, kept: Retention, limit: int = 500) -> int:
    """Delete up to `limit` tasks that have been kept long enough, and of other rows; how many rows.

    Raises StorageFull where the journal of so many has no room: fewer may have.
    """
    gone, keys = 0, store.clock.before(UNIQUE_KEY)
    for status, seconds in limits(kept):
        if gone >= limit:
            break
        before = store.clock.before(seconds)
        if ids := await store.read(old(status, before, keys, limit - gone)):
            gone += await store.write(delete(status, seconds, ids))
    gone += await store.write(delete_records(kept, limit))
    for table in store.tables.values():
        if table.keep is not None:
            gone += await store.write(delete_old_rows(table.name, table.keep, limit))
    return gone


async def trim(
    store: Store, reason: str, keeps: Callable[[Key], tuple[float, int] | None], limit: int = 500
) -> dict[Key, int]:
    """Delete the oldest deliveries that failed for a reason: of each webhook those that it does not
    keep; how many.

    Args:
        store: the queue.
        reason: why they failed.
        keeps: for how many seconds a webhook keeps them, and how many; None for all.
        limit: how many are deleted in one transaction.
    """
    gone: dict[Key, int] = {}
    for endpoint_id, webhook, count, first in await store.read(kept(reason)):
        key = Key(endpoint_id, webhook)
        if (limits := keeps(key)) is None:
            continue
        before, most = store.clock.before(limits[0]), limits[1]
        if first >= before and count <= most:
            continue
        last = await store.read(last_of(reason, key, most))
        while ids := await store.read(oldest_of(reason, key, before, last, limit)):
            deleted = await store.write(delete(Status.FAILED, 0.0, ids))
            gone[key] = gone.get(key, 0) + deleted
            if not deleted:
                break
    return gone


@long_reads
def kept(db: Connection, reason: str) -> list[Row]:
    """Endpoint, webhook, how many of its deliveries have failed for a reason, and when the first
    of them did."""
    return db.all(KEPT, (reason,))


@reads
def last_of(db: Connection, reason: str, key: Key, most: int) -> int:
    """The newest of these deliveries that is not among the last `most`; 0 where all are."""
    return int(db.value(LAST, (reason, *key, most), 0))


@reads
def oldest_of(
    db: Connection, reason: str, key: Key, before: int, last: int, limit: int
) -> list[int]:
    """The oldest of them: what failed `before` then (milliseconds), or has an id up to `last`."""
    return [id_ for (id_,) in db.all(OLDEST, (reason, *key, before, last, limit))]


@reads
def old(db: Connection, status: str, before: int, keys: int, limit: int) -> list[int]:
    """Tasks that ended in `status` `before` then, and were made before `keys` where they have one
    (milliseconds); on the reading connection."""
    return [id_ for (id_,) in db.all(OLD, (status, before, keys, limit))]


def limits(retention: Retention) -> list[tuple[Status, float]]:
    """Each final status with the seconds that it is kept."""
    return [
        (Status.SUCCEEDED, retention.succeeded),
        (Status.CANCELLED, retention.cancelled),
        (Status.FAILED, retention.failed),
    ]


@writes(Rank.KEEP)
def delete(session: Session, status: str, kept: float, ids: Sequence[int]) -> int:
    """Delete those that are still as `old` found them, with their attempts; how many they were."""
    values = (*ids, status, session.clock.before(kept))
    statement = DELETE.format(ids=_marks(ids), free=session.db.skip_locked)
    gone = [id_ for (id_,) in session.db.all(statement, values)]
    if gone:
        session.db.run(DELETE_ATTEMPTS.format(ids=_marks(gone)), gone)
    session.moved(status, None, len(gone))
    return len(gone)


@writes(Rank.KEEP)
def delete_records(session: Session, kept: Retention, limit: int) -> int:
    """Delete up to `limit` each of the bulks that ended and the batches that closed as long ago as
    failed tasks are kept, of what people did and of what was in such batches; how many. And four
    times as many of the runs that ended before all tasks that are kept."""
    before = session.clock.before(kept.failed)
    each = (DELETE_BULKS, DELETE_ACTIONS, DELETE_MEMBERS, DELETE_BATCHES)
    gone = sum(session.db.run(statement, (before, limit)) for statement in each)
    session.db.run(DELETE_COUNTS)
    longest = max(seconds for _, seconds in limits(kept))
    session.db.run(DELETE_RUNS, (session.clock.before(longest), limit * 4))
    return gone


@writes(Rank.KEEP)
def delete_old_rows(session: Session, table: str, kept: float, limit: int) -> int:
    """Delete about `limit` rows of a plugin's table that are older than it keeps them; how many."""
    oldest = f'SELECT "at" FROM "{table}" WHERE "at" < ? ORDER BY "at" LIMIT ?'
    statement = f'DELETE FROM "{table}" WHERE "at" <= (SELECT max("at") FROM ({oldest}) AS found)'
    return session.db.run(statement, (session.clock.before(kept), limit))


def holding_back(longer_than: float) -> Read[list[HoldingBack]]:
    """What has kept the database from cleaning up for so many seconds."""
    return Read(lambda db: db.holding_back(longer_than))


def size() -> Read[int]:
    """Bytes on disk."""
    return Read(lambda db: db.size())


def _marks(ids: Sequence[int]) -> str:
    return ", ".join("?" * len(ids))
