"""How far schedules have come. A slot is taken and its task written in one transaction."""

from __future__ import annotations

from peewee import Case

from orchestratord.queue.batch import Rank, Write, reads
from orchestratord.queue.connection import Connection
from orchestratord.queue.models import ScheduleSlot, sql
from orchestratord.queue.operations.insert import insert_one
from orchestratord.queue.records import Insert, Inserted
from orchestratord.queue.session import Session

UNFINISHED = """
SELECT 1 FROM schedules JOIN retry_schedule ON retry_schedule.id = schedules.task_id
WHERE schedules.endpoint_id = ? AND status IN ('pending', 'running')
"""


@reads
def slots(db: Connection) -> dict[str, tuple[str, int]]:
    """Of each endpoint that ever had one: its schedule, and the last slot that was taken."""
    query = ScheduleSlot.select(ScheduleSlot.endpoint_id, ScheduleSlot.spec, ScheduleSlot.last_slot)
    rows = db.all(*sql(query))
    return {endpoint_id: (spec, last_slot) for endpoint_id, spec, last_slot in rows}


SlotRow = tuple[str, int, str | None]
"""The schedule, the last slot that was taken, and the schedule before this one."""


@reads
def slot(db: Connection, endpoint_id: str) -> SlotRow | None:
    """How far the schedule of one endpoint has come."""
    columns = (ScheduleSlot.spec, ScheduleSlot.last_slot, ScheduleSlot.before)
    query = ScheduleSlot.select(*columns).where(ScheduleSlot.endpoint_id == endpoint_id)
    row = db.one(*sql(query))
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
    table = ScheduleSlot

    def take(session: Session) -> Inserted | None:
        if previous is None:
            first = table.insert(endpoint_id=endpoint_id, spec=spec, last_slot=slot)
            taken = session.db.run(*sql(first.on_conflict_ignore()))
        else:
            before = Case(None, [(table.spec == spec, table.before)], table.spec)
            moved = table.update(spec=spec, last_slot=slot, before=before).where(
                table.endpoint_id == endpoint_id,
                table.spec == previous[0],
                table.last_slot == previous[1],
            )
            taken = session.db.run(*sql(moved))
        if not taken or insert is None:
            return None
        inserted = insert_one(session, insert, session.now())
        made = table.update(task_id=inserted.id).where(table.endpoint_id == endpoint_id)
        session.db.run(*sql(made))
        return inserted

    return Write(Rank.NEW, take, needs_room=insert is not None)
