"""What waits of a key, and for how long; how far schedules have come."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import NamedTuple

from orchestratord.model.task import Key
from orchestratord.queue import facts
from orchestratord.queue.batch import long_reads, reads
from orchestratord.queue.connection import BY_HELD, BY_READY, BY_STOPPED, READY, STOPPED, Connection
from orchestratord.queue.operations.schedules import MISSED, MissedSlots
from orchestratord.queue.rows import code_of
from orchestratord.values.status_set import StatusCode

# ruff: noqa: S608  # what is pasted here are hints and constants, never values

LOOKED = 500
"""Tasks of one key that are looked at: those that are due first."""

_WAITING = """
SELECT count(*), min(created_at) FROM (SELECT created_at FROM retry_schedule {hint}
    WHERE {which} AND endpoint_id = ? AND webhook = ? {order} LIMIT ?) AS found
"""
READY_ONES = _WAITING.format(hint=BY_READY, which=READY, order="ORDER BY next_try")
HELD_ONES = _WAITING.format(hint=BY_HELD, which="held = 1", order="")

DUE = f"""
SELECT count(*), min(next_try),
    (SELECT count(*) FROM retry_schedule {BY_HELD} WHERE held = 1 AND next_try <= ?),
    (SELECT count(*) FROM retry_schedule {BY_STOPPED} WHERE {STOPPED})
FROM retry_schedule {BY_READY} WHERE {READY} AND next_try <= ?
"""
STOPPED_ONES = f"""
SELECT endpoint_id, webhook, partition, id FROM retry_schedule {BY_STOPPED}
WHERE {STOPPED} ORDER BY endpoint_id, webhook, partition LIMIT ?
"""

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


class DueTasks(NamedTuple):
    """What is due, and what is not since others of its partition are before it."""

    tasks: int
    """How many are due."""
    oldest: int | None
    """Since when the first of them is (milliseconds)."""
    held: int
    """How many would be, if it were their turn in their partition."""
    stopped: int
    """How many failed tasks hold their partition."""
    stopped_by: list[tuple[Key, str, int]]
    """The first of these: what the partition is of, its value, and the task."""


@long_reads
def due_tasks(db: Connection, now: int, limit: int) -> DueTasks:
    """What is due at `now`, and up to `limit` failed tasks that hold their partition."""
    [(due, oldest, held, stopped)] = db.all(DUE, (now, now))
    first = [(Key(*key), value, id_) for *key, value, id_ in db.all(STOPPED_ONES, (limit,))]
    return DueTasks(due, oldest, held, stopped, first)


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
