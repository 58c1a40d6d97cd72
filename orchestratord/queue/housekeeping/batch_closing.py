"""Closing batches: what is in one is fixed then, and one delivery tells of it.

Both steps are transactions that one of several daemons makes, and that the next look goes on from
wherever a daemon died: members of no batch are closed into one, and a batch of no delivery gets its
delivery.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from orchestratord.model.task import BatchEntry, ClosedBatch
from orchestratord.queue.batch import Rank, reads, writes
from orchestratord.queue.connection import Connection
from orchestratord.queue.operations.batch_members import IN_FULL
from orchestratord.queue.operations.insert import insert_one
from orchestratord.queue.records import Insert, Inserted
from orchestratord.queue.rows import code_of, worded
from orchestratord.queue.session import Session

UNTOLD = 20
"""Batches that are told of after one look."""

GROUPS = """
SELECT group_key, min(id), count(*) FROM batch_members WHERE batch_id IS NULL GROUP BY group_key
"""
RULE = "SELECT closes_at, most FROM batch_members WHERE id = ?"

FIRST = """
SELECT id, endpoint_id, webhook, phase, most, at FROM batch_members
WHERE group_key = ? AND batch_id IS NULL ORDER BY id LIMIT 1
"""
CLOSE = """
INSERT INTO batches (first_member, endpoint_id, webhook, phase, opened_at, closed_at)
VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (first_member) DO NOTHING RETURNING id
"""
TAKE = """
UPDATE batch_members SET batch_id = ? WHERE batch_id IS NULL AND id IN (
    SELECT id FROM batch_members WHERE group_key = ? AND batch_id IS NULL ORDER BY id LIMIT ?
)
"""
COUNT = "UPDATE batches SET members = ? WHERE id = ?"
EMPTY = "DELETE FROM batches WHERE id = ?"

CLOSED = """
SELECT id, endpoint_id, webhook, phase, opened_at, closed_at, members FROM batches
WHERE task_id IS NULL AND members > 0 ORDER BY id LIMIT ?
"""
COUNTS = """
SELECT endpoint_id, reason, status_code, count(*) FROM batch_members WHERE batch_id = ?
GROUP BY endpoint_id, reason, status_code
"""
BEGINNING = """
SELECT endpoint_id, task_id, reason, status_code, at, detail FROM batch_members
WHERE batch_id = ? ORDER BY id LIMIT ?
"""

# 0 is no task: it keeps other daemons from telling until the transaction has ended.
TELL = "UPDATE batches SET task_id = 0 WHERE id = ? AND task_id IS NULL"
TOLD = "UPDATE batches SET task_id = ? WHERE id = ?"
SAID = "UPDATE batch_members SET detail = NULL WHERE batch_id = ? AND detail IS NOT NULL"


class BatchesFound(NamedTuple):
    """What there is to do for batches."""

    ripe: list[str]
    """Groups whose batch is to close now."""
    closed: list[ClosedBatch]
    """Batches that no delivery tells of yet."""


@reads
def find(db: Connection, now: int) -> BatchesFound:
    """What there is to do; `now` in milliseconds since the epoch."""
    ripe = []
    for group, first, members in db.all(GROUPS):
        rule = db.one(RULE, (first,))
        if rule is not None and (rule[0] <= now or members >= rule[1]):
            ripe.append(group)
    return BatchesFound(ripe, [_closed(db, *row) for row in db.all(CLOSED, (UNTOLD,))])


def _closed(
    db: Connection,
    id_: int,
    endpoint_id: str,
    webhook: str,
    phase: str,
    opened_at: int,
    closed_at: int,
    members: int,
) -> ClosedBatch:
    counts = {
        (worded(endpoint) or "", worded(reason), code_of(code)): number
        for endpoint, reason, code, number in db.all(COUNTS, (id_,))
    }
    first = tuple(
        BatchEntry(worded(endpoint) or "", task, worded(reason), code_of(code), at, worded(detail))
        for endpoint, task, reason, code, at, detail in db.all(BEGINNING, (id_, IN_FULL))
    )
    return ClosedBatch(
        id_, endpoint_id, webhook, phase, opened_at, closed_at, members, counts, first
    )


@writes(Rank.KEEP)
def close(session: Session, group: str) -> bool:
    """Close the batch of a group: its members are fixed from here on. False where there is none, or
    another daemon closes it."""
    first = session.db.one(FIRST, (group,))
    if first is None:
        return False
    id_, endpoint_id, webhook, phase, most, opened_at = first
    values = (id_, endpoint_id, webhook, phase, opened_at, session.now())
    made = session.db.all(CLOSE, values)
    if not made:
        return False
    [(batch_id,)] = made
    members = session.db.run(TAKE, (batch_id, group, most))
    if members:
        session.db.run(COUNT, (members, batch_id))
    else:
        session.db.run(EMPTY, (batch_id,))
    return members > 0


@writes(Rank.KEEP)
def tell(session: Session, batch_id: int, deliveries: Sequence[Insert]) -> list[Inserted]:
    """Write the delivery of a closed batch; a duplicate where another daemon has."""
    [delivery] = deliveries
    if not session.db.run(TELL, (batch_id,)):
        return [Inserted(0, delivery.task.key, None, None, duplicate=True)]
    inserted = insert_one(session, delivery, session.now())
    session.db.run(TOLD, (inserted.id, batch_id))
    session.db.run(SAID, (batch_id,))
    return [inserted]
