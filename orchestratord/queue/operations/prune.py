"""Deleting what has been kept long enough, in slices that the hot path does not notice."""

from __future__ import annotations

from collections.abc import Sequence

from orchestratord.model.settings import Retention
from orchestratord.model.task import Status
from orchestratord.queue.batch import Rank, Read, reads, writes
from orchestratord.queue.connection import BY_FINISHED, BY_ID, Connection
from orchestratord.queue.operations.insert import UNIQUE_KEY_MS
from orchestratord.queue.session import Session
from orchestratord.queue.store import Store

# ruff: noqa: S608  # what is pasted here are hints and question marks, never values

# An idempotency key has to be found for 24 hours, however short its task is kept.
OLD = f"""
SELECT id FROM retry_schedule {BY_FINISHED}
WHERE status = ? AND finished_at IS NOT NULL AND finished_at < ?
    AND (unique_key IS NULL OR created_at <= ?)
ORDER BY finished_at LIMIT ?
"""

DELETE = f"""
DELETE FROM retry_schedule {BY_ID}
WHERE id IN ({{ids}}) AND status = ? AND finished_at < ? RETURNING id
"""

DELETE_ATTEMPTS = "DELETE FROM attempts WHERE task_id IN ({ids})"

DELETE_BULKS = "DELETE FROM bulks WHERE finished_at < ?"

# However many a program makes, they go in slices.
DELETE_ACTIONS = """
DELETE FROM actions WHERE id IN (SELECT id FROM actions WHERE at < ? ORDER BY at LIMIT 500)
"""


async def prune(store: Store, kept: Retention, limit: int = 500) -> int:
    """Delete up to `limit` tasks that have been kept long enough; how many there were."""
    now, gone = store.clock.now_ms(), 0
    for status, seconds in limits(kept):
        if gone >= limit:
            break
        if ids := await store.read(old(status, seconds, now, limit - gone)):
            gone += await store.write(delete(status, seconds, ids))
    await store.write(delete_records(kept.failed))
    return gone


@reads
def old(db: Connection, status: str, kept: float, now: int, limit: int) -> list[int]:
    """Tasks that ended in `status` more than `kept` seconds ago; on the reading connection."""
    rows = db.all(OLD, (status, _before(now, kept), now - UNIQUE_KEY_MS, limit))
    return [id_ for (id_,) in rows]


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
    values = (*ids, status, _before(session.now(), kept))
    rows = session.db.all(DELETE.format(ids=_marks(ids)), values)
    gone = [id_ for (id_,) in rows]
    if gone:
        session.db.run(DELETE_ATTEMPTS.format(ids=_marks(gone)), gone)
    session.moved(status, None, len(gone))
    return len(gone)


@writes(Rank.KEEP)
def delete_records(session: Session, kept: float) -> None:
    """Delete the bulks that ended more than `kept` seconds ago, and some of what people did."""
    for statement in (DELETE_BULKS, DELETE_ACTIONS):
        session.db.run(statement, (_before(session.now(), kept),))


def holding_back(longer_than: float) -> Read[list[str]]:
    """What has kept the database from cleaning up for so many seconds, in words."""
    return Read(lambda db: db.holding_back(longer_than))


def size() -> Read[int]:
    """Bytes on disk."""
    return Read(lambda db: db.size())


def _before(now: int, kept: float) -> int:
    return now - round(kept * 1000)


def _marks(ids: Sequence[int]) -> str:
    return ", ".join("?" * len(ids))
