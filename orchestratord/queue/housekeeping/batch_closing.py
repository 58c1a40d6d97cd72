"""Closing batches: what is in one is fixed then, and one delivery tells of it.

Both steps are transactions that one of several daemons makes, and that the next look goes on from
wherever a daemon died: members of no batch are closed into one, and a batch of no delivery gets its
delivery.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from orchestratord.model.task import BatchEntry, ClosedBatch
from orchestratord.queue.batch import Rank, reads, writes
from orchestratord.queue.batch_members import IN_FULL
from orchestratord.queue.connection import Connection, Row
from orchestratord.queue.operations.insert import insert_one
from orchestratord.queue.records import Insert, Inserted, duplicates
from orchestratord.queue.rows import code_of, worded
from orchestratord.queue.session import Session

UNDELIVERED = 20
"""Batches that are told of after one look."""
PAGE = 500
"""Batches that one look reads the ids of at once."""

GROUPS = """
SELECT group_key, min(id), count(*) FROM batch_members WHERE batch_id IS NULL GROUP BY group_key
"""
RULE = "SELECT closes_at, most FROM batch_members WHERE id = ?"

FIRST = """
SELECT id, endpoint_id, webhook, phase, at, most, closes_at FROM batch_members
WHERE group_key = ? AND batch_id IS NULL ORDER BY id LIMIT 1
"""
FULL = """
SELECT 1 FROM batch_members WHERE group_key = ? AND batch_id IS NULL ORDER BY id LIMIT 1 OFFSET ?
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

WAITING = """
SELECT id FROM batches WHERE task_id IS NULL AND members > 0 AND id > ? ORDER BY id LIMIT ?
"""
CLOSED = """
SELECT id, (SELECT group_key FROM batch_members WHERE batch_members.id = first_member), endpoint_id,
    webhook, phase, opened_at, closed_at, members
FROM batches WHERE id = ? AND task_id IS NULL
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
RESERVE = "UPDATE batches SET task_id = 0 WHERE id = ? AND task_id IS NULL"
DELIVER = "UPDATE batches SET task_id = ? WHERE id = ?"
SAID = """
UPDATE batch_members SET detail = NULL
WHERE batch_id = ? AND detail IS NOT NULL AND task_id IS NOT NULL
"""


class BatchesFound(NamedTuple):
    """What there is to do for batches."""

    ripe: list[str]
    """Groups whose batch is to close now."""
    closed: list[ClosedBatch]
    """Batches that no delivery tells of yet."""


@reads
def find(db: Connection, now: int, later: Collection[int] = ()) -> BatchesFound:
    """What there is to do.

    Args:
        db: to read from.
        now: in milliseconds since the epoch.
        later: batches that are not to be told of now.
    """
    ripe = []
    for group, first, members in db.all(GROUPS):
        rule = db.one(RULE, (first,))
        if rule is not None and (rule[0] <= now or members >= rule[1]):
            ripe.append(group)
    rows = [row for id_ in _undelivered(db, later) if (row := db.one(CLOSED, (id_,))) is not None]
    return BatchesFound(ripe, [_closed(db, row) for row in rows])


def _undelivered(db: Connection, later: Collection[int]) -> list[int]:
    """The first of those that are to be told of: any number of others may be before them."""
    found, last = list[int](), 0
    while len(found) < UNDELIVERED:
        page = [id_ for (id_,) in db.all(WAITING, (last, PAGE))]
        found += [id_ for id_ in page if id_ not in later]
        if len(page) < PAGE:
            break
        last = page[-1]
    return found[:UNDELIVERED]


def _closed(db: Connection, row: Row) -> ClosedBatch:
    id_, group, *others = row
    counts = {
        (worded(endpoint) or "", worded(reason), code_of(code)): number
        for endpoint, reason, code, number in db.all(COUNTS, (id_,))
    }
    first = tuple(
        BatchEntry(worded(endpoint) or "", task, worded(reason), code_of(code), at, worded(detail))
        for endpoint, task, reason, code, at, detail in db.all(BEGINNING, (id_, IN_FULL))
    )
    return ClosedBatch(*(id_, worded(group) or "", *others, counts, first))


@writes(Rank.KEEP)
def close(session: Session, group: str) -> bool:
    """Close the batch of a group: its members are fixed from here on. False where there is none
    whose time has come or that is full, or another daemon closes it."""
    first = session.db.one(FIRST, (group,))
    if first is None:
        return False
    id_, endpoint_id, webhook, phase, opened_at, most, closes_at = first
    # Another daemon may have closed the one that was found: these are those that came after it.
    if closes_at > session.now() and session.db.one(FULL, (group, most - 1)) is None:
        return False
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
def write_delivery(session: Session, batch_id: int, deliveries: Sequence[Insert]) -> list[Inserted]:
    """Write the delivery of a closed batch; a duplicate where another daemon has."""
    [delivery] = deliveries
    if not session.db.run(RESERVE, (batch_id,)):
        return duplicates(deliveries)
    inserted = insert_one(session, delivery)
    session.db.run(DELIVER, (inserted.id, batch_id))
    session.db.run(SAID, (batch_id,))
    return [inserted]
