"""How far schedules have come. A slot is taken and its task written in one transaction."""

from __future__ import annotations

from orchestratord.queue.batch import Rank, Write, reads
from orchestratord.queue.connection import Connection
from orchestratord.queue.operations.insert import insert_one
from orchestratord.queue.records import Insert, Inserted
from orchestratord.queue.session import Session

FIRST = """
INSERT INTO schedules (endpoint_id, spec, last_slot) VALUES (?, ?, ?)
ON CONFLICT (endpoint_id) DO NOTHING
"""

NEXT = """
UPDATE schedules
SET spec = ?, last_slot = ?, before = CASE WHEN spec = ? THEN before ELSE spec END
WHERE endpoint_id = ? AND last_slot = ? AND spec = ?
"""

UNFINISHED = """
SELECT 1 FROM schedules JOIN retry_schedule ON retry_schedule.id = schedules.task_id
WHERE schedules.endpoint_id = ? AND status IN ('pending', 'running')
"""

MADE = "UPDATE schedules SET task_id = ? WHERE endpoint_id = ?"


@reads
def slots(db: Connection) -> dict[str, tuple[str, int]]:
    """Of each endpoint that ever had one: its schedule, and the last slot that was taken."""
    rows = db.all("SELECT endpoint_id, spec, last_slot FROM schedules")
    return {endpoint_id: (spec, last_slot) for endpoint_id, spec, last_slot in rows}


SlotRow = tuple[str, int, str | None]
"""The schedule, the last slot that was taken, and the schedule before this one."""


@reads
def slot(db: Connection, endpoint_id: str) -> SlotRow | None:
    """How far the schedule of one endpoint has come."""
    row = db.one("SELECT spec, last_slot, before FROM schedules WHERE endpoint_id = ?",
                 (endpoint_id,))  # fmt: skip
    return None if row is None else (row[0], row[1], row[2])


@reads
def unfinished(db: Connection, endpoint_id: str) -> bool:
    """True while the call of the endpoint's last slot waits or runs."""
    return db.one(UNFINISHED, (endpoint_id,)) is not None


def take_slot(
    endpoint_id: str,
    spec: str,
    previous: tuple[str, int] | None,
    slot: int,
    insert: Insert | None,
) -> Write[Inserted | None]:
    """Move on from the schedule and the slot of `previous` (None: there was none) to `slot`, with
    its task. Two schedules may well have a slot at the same time.

    None where somebody else has moved it meanwhile, or where the slot has no task. Raises
    StorageFull.
    """

    def take(session: Session) -> Inserted | None:
        if previous is None:
            taken = session.db.run(FIRST, (endpoint_id, spec, slot))
        else:
            taken = session.db.run(NEXT, (spec, slot, spec, endpoint_id, previous[1], previous[0]))
        if not taken or insert is None:
            return None
        inserted = insert_one(session, insert, session.now())
        session.db.run(MADE, (inserted.id, endpoint_id))
        return inserted

    return Write(Rank.NEW, take, needs_room=insert is not None)
