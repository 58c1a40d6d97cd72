"""Which slots schedules have taken. A slot is taken and its task written in one transaction."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from peewee import Case

from orchestratord.model.schedule_slots import Run
from orchestratord.queue import facts
from orchestratord.queue.batch import Rank, Write, reads
from orchestratord.queue.connection import Connection
from orchestratord.queue.models import ScheduleSlot, sql
from orchestratord.queue.operations.effects import Effects, apply_effects
from orchestratord.queue.operations.insert import insert_one
from orchestratord.queue.records import Insert, Inserted
from orchestratord.queue.session import Session

UNFINISHED = """
SELECT 1 FROM schedules JOIN retry_schedule ON retry_schedule.id = schedules.task_id
WHERE schedules.endpoint_id = ? AND status IN ('pending', 'running')
"""


class SlotRow(NamedTuple):
    """What is known of the schedule of one endpoint."""

    spec: str
    last_slot: int
    """The slot that was taken last."""
    before: str | None = None
    """The schedule before this one."""
    taken: str | None = None
    """The runs of slots that were taken, as JSON; None where a daemon before schema 8 took the last
    one, and no other has taken one since."""

    def runs(self, now: int) -> list[Run]:
        """The runs of slots that were taken, in order, none of which is ever taken again.

        A daemon before schema 8 took one after the other, so that those before the last one are
        taken as well; but not where that is still to come at `now`, by a clock that was ahead.
        """
        if self.taken is None:
            return [(self.last_slot if self.last_slot > now else 0, self.last_slot)]
        return [(first, last) for first, last in json.loads(self.taken)]


_COLUMNS = (ScheduleSlot.spec, ScheduleSlot.last_slot, ScheduleSlot.before, ScheduleSlot.taken)


@reads
def slots(db: Connection) -> dict[str, SlotRow]:
    """What is known of the schedule of each endpoint that ever had one."""
    rows = db.all(*sql(ScheduleSlot.select(ScheduleSlot.endpoint_id, *_COLUMNS)))
    return {endpoint_id: SlotRow(*row) for endpoint_id, *row in rows}


@reads
def slot(db: Connection, endpoint_id: str) -> SlotRow | None:
    """What is known of the schedule of one endpoint."""
    query = ScheduleSlot.select(*_COLUMNS).where(ScheduleSlot.endpoint_id == endpoint_id)
    row = db.one(*sql(query))
    return None if row is None else SlotRow(*row)


@reads
def unfinished(db: Connection, endpoint_id: str) -> bool:
    """True while the call of the endpoint's last slot waits or runs."""
    return db.one(UNFINISHED, (endpoint_id,)) is not None


MISSED = "missed_slots:"
"""What the names of facts begin with that say which slots of an endpoint were missed last."""


class MissedSlots(NamedTuple):
    """Slots of a schedule that passed while no daemon looked. Times are milliseconds."""

    slots: int
    """How many, `MOST_MISSED` or more as `MOST_MISSED`."""
    first: int
    last: int
    noticed_at: int
    ran: bool
    """Whether a call was made for the last one, late; else it was skipped as well."""


class Taken(NamedTuple):
    """A slot that was taken."""

    inserted: Inserted | None
    """Its task; None for a slot without one."""
    following: Sequence[Inserted]
    """One for each `Insert` among the effects."""


def take_slot(
    endpoint_id: str,
    spec: str,
    previous: SlotRow | None,
    slot: int,
    runs: Sequence[Run],
    insert: Insert | None,
    missed: MissedSlots | None = None,
    effects: Effects = (),
) -> Write[Taken | None]:
    """Take `slot`, with its task, where what is known of the schedule is still as in `previous`
    (None: nothing was). `runs` are those with this slot. `missed`: what is noted to have been.
    `effects`: what plugins have written with that.

    None where another daemon has taken one meanwhile. Raises StorageFull.
    """
    table, taken_slots = ScheduleSlot, runs_text(runs)

    def take(session: Session) -> Taken | None:
        if previous is None:
            first = table.insert(
                endpoint_id=endpoint_id, spec=spec, last_slot=slot, taken=taken_slots
            )
            taken = session.db.run(*sql(first.on_conflict_ignore()))
        else:
            before = Case(None, [(table.spec == spec, table.before)], table.spec)
            moved = table.update(spec=spec, last_slot=slot, before=before, taken=taken_slots).where(
                table.endpoint_id == endpoint_id,
                table.spec == previous.spec,
                table.last_slot == previous.last_slot,
                table.taken.is_null() if previous.taken is None else table.taken == previous.taken,
            )
            taken = session.db.run(*sql(moved))
        if not taken:
            return None
        following: Sequence[Inserted] = ()
        if missed is not None:
            text = json.dumps(missed._asdict(), separators=(",", ":"))
            facts.put(session.db, MISSED + endpoint_id, text)
            following = apply_effects(session, effects)
        if insert is None:
            return Taken(None, following)
        inserted = insert_one(session, insert)
        made = table.update(task_id=inserted.id).where(table.endpoint_id == endpoint_id)
        session.db.run(*sql(made))
        return Taken(inserted, following)

    return Write(Rank.NEW, take, needs_room=insert is not None)


def runs_text(runs: Sequence[Run]) -> str:
    """Runs as `SlotRow.taken` has them."""
    return json.dumps(runs, separators=(",", ":"))
