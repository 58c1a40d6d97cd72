"""Closing batches: what is in one is fixed then, and one delivery tells of it.

Both steps are transactions that one of several daemons makes: members of no batch are closed into
one, with a chore that has its delivery written.
"""

from __future__ import annotations

from collections.abc import Sequence

from orchestratord.model.task import BatchEntry, ClosedBatch
from orchestratord.queue.batch import Rank, reads, writes
from orchestratord.queue.batch_members import IN_FULL
from orchestratord.queue.connection import Connection
from orchestratord.queue.operations import chores
from orchestratord.queue.operations.insert import insert_one
from orchestratord.queue.records import Chore, Insert, Inserted, duplicates
from orchestratord.queue.rows import code_of, worded
from orchestratord.queue.session import Session

CHORE = "batch"
"""The kind of chore that has the delivery of a batch written."""

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

DELIVER = "UPDATE batches SET task_id = ? WHERE id = ?"
SAID = """
UPDATE batch_members SET detail = NULL
WHERE batch_id = ? AND detail IS NOT NULL AND task_id IS NOT NULL
"""


@reads
def ripe(db: Connection, now: int) -> list[str]:
    """Groups whose batch is to close at `now`, in milliseconds since the epoch."""
    found = []
    for group, first, members in db.all(GROUPS):
        rule = db.one(RULE, (first,))
        if rule is not None and (rule[0] <= now or members >= rule[1]):
            found.append(group)
    return found


@reads
def closed(db: Connection, batch_id: int) -> ClosedBatch | None:
    """A batch of no delivery; None where it has one, or is gone."""
    row = db.one(CLOSED, (batch_id,))
    if row is None:
        return None
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
        chores.add(session, CHORE, batch_id, session.now())
    else:
        session.db.run(EMPTY, (batch_id,))
    return members > 0


@writes(Rank.KEEP)
def write_delivery(session: Session, chore: Chore, deliveries: Sequence[Insert]) -> list[Inserted]:
    """Write the delivery of a closed batch; a duplicate where another daemon has its chore."""
    [delivery] = deliveries
    if not chores.end(session, chore):
        return duplicates(deliveries)
    inserted = insert_one(session, delivery)
    batch_id = int(chore.subject)
    session.db.run(DELIVER, (inserted.id, batch_id))
    session.db.run(SAID, (batch_id,))
    return [inserted]
