"""What waits of a key, and for how long; how far schedules have come."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import NamedTuple

from orchestratord.model.task import Key
from orchestratord.queue import facts
from orchestratord.queue.batch import reads
from orchestratord.queue.connection import BY_HELD, BY_READY, READY, Connection
from orchestratord.queue.operations.schedules import MISSED, MissedSlots
from orchestratord.queue.rows import code_of
from orchestratord.values.status_set import StatusCode

LOOKED = 500
"""Tasks of one key that are looked at: those that are due first."""

_WAITING = """
SELECT count(*), min(created_at) FROM (SELECT created_at FROM retry_schedule {hint}
    WHERE {which} AND endpoint_id = ? AND webhook = ? {order} LIMIT ?) AS found
"""
READY_ONES = _WAITING.format(hint=BY_READY, which=READY, order="ORDER BY next_try")
HELD_ONES = _WAITING.format(hint=BY_HELD, which="held = 1", order="")

SCHEDULES = """
SELECT schedules.endpoint_id, last_slot, task_id, status, reason, last_status_code, scheduled_at,
    finished_at
FROM schedules LEFT JOIN retry_schedule ON retry_schedule.id = schedules.task_id
"""


class Backlog(NamedTuple):
    """What waits of a key: how many tasks, `LOOKED` or more as `LOOKED`; when the oldest of them
    was made (milliseconds), None where nothing waits."""

    tasks: int
    oldest: int | None


@reads
def backlog(db: Connection, keys: Iterable[Key]) -> dict[Key, Backlog]:
    """What waits of each of these keys."""
    found: dict[Key, Backlog] = {}
    for key in keys:
        count, oldest = 0, None
        for statement in (READY_ONES, HELD_ONES):
            more, first = db.all(statement, (*key, LOOKED))[0]
            count += more
            oldest = min((at for at in (oldest, first) if at is not None), default=None)
        found[key] = Backlog(min(count, LOOKED), oldest)
    return found


class ScheduleRun(NamedTuple):
    """How far a schedule has come, and the task of its last run. Times are milliseconds."""

    last_slot: int
    task_id: int | None
    """None where no slot has made a task; the rest is None as well once it was deleted."""
    status: str | None
    reason: str | None
    status_code: StatusCode
    slot: int | None
    """For which slot that task is."""
    finished_at: int | None


@reads
def missed_slots(db: Connection) -> dict[str, MissedSlots]:
    """The slots of each endpoint that were missed last."""
    found = facts.beginning_with(db, MISSED).items()
    return {name: MissedSlots(**json.loads(value)) for name, value in found}


@reads
def schedule_runs(db: Connection) -> dict[str, ScheduleRun]:
    """The last run of each endpoint that ever had a schedule."""
    return {
        endpoint_id: ScheduleRun(slot, task, status, reason, code_of(code), *times)
        for endpoint_id, slot, task, status, reason, code, *times in db.all(SCHEDULES)
    }
