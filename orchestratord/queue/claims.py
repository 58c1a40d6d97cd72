"""Claiming tasks, starting them, and giving claims back."""

from __future__ import annotations

from collections.abc import Sequence

from orchestratord.queue.database import BY_DUE, BY_RUNNING
from orchestratord.queue.inserts import Effects, apply
from orchestratord.queue.records import Claimed, Inserted, Pick
from orchestratord.queue.rows import TASK, task_of
from orchestratord.queue.session import LEASE_MS, Session
from orchestratord.task import Key, Status, Task

# ruff: noqa: S608  # what is pasted here are columns and hints, never values

CLAIM = f"""
UPDATE retry_schedule
SET status = 'running', locked_by = ?, lease_until = ?, attempts = attempts + 1, idempotent = ?,
    started_at = CASE WHEN deaths = 0 THEN ? END, cancel_requested = 0, updated_at = ?
WHERE id IN (
    SELECT id FROM retry_schedule {BY_DUE}
    WHERE status = 'pending' AND endpoint_id = ? AND webhook = ? AND next_try <= ?
    ORDER BY next_try, id LIMIT ?
)
RETURNING {TASK}
"""

EARLIEST = f"""
SELECT next_try FROM retry_schedule {BY_DUE}
WHERE status = 'pending' AND endpoint_id = ? AND webhook = ? ORDER BY next_try LIMIT 1
"""

HELD = "id = ? AND status = 'running' AND locked_by = ? AND attempts = ?"
"""The fence: true while a claim stands. Parameters from `fence`."""

START = f"UPDATE retry_schedule SET started_at = ?, updated_at = ? WHERE {HELD}"

GIVE_BACK = """
UPDATE retry_schedule
SET status = CASE WHEN cancel_requested = 1 THEN 'cancelled' ELSE 'pending' END,
    next_try = CASE WHEN cancel_requested = 1 THEN NULL ELSE next_try END,
    finished_at = CASE WHEN cancel_requested = 1 THEN ? END,
    attempts = attempts - 1, started_at = NULL, locked_by = NULL, lease_until = NULL,
    cancel_requested = 0, updated_at = ?
"""

RELEASE = f"{GIVE_BACK} WHERE {HELD} RETURNING status"

LOST = f"""
SELECT id FROM retry_schedule {BY_RUNNING}
WHERE status = 'running' AND locked_by IS DISTINCT FROM ?
"""

RECLAIM_UNSTARTED = f"""
{GIVE_BACK} WHERE id IN ({LOST} AND started_at IS NULL) RETURNING status
"""

RECLAIM_STARTED = f"""
UPDATE retry_schedule SET locked_by = ?, lease_until = ?, updated_at = ?
WHERE id IN ({LOST} AND started_at IS NOT NULL LIMIT ?)
RETURNING {TASK}
"""

RECLAIM_PAGE = 200


def fence(task: Task) -> tuple[int, str | None, int]:
    """What `HELD` compares."""
    return task.id, task.locked_by, task.attempts


def claim(session: Session, picks: Sequence[Pick]) -> Claimed:
    """Take up to so many due tasks of each key."""
    now = session.now()
    tasks: list[Task] = []
    earliest: dict[Key, int | None] = {}
    for pick in picks:
        key = pick.key
        # One whose start ended with the daemon's death waits for its turn, and starts only then.
        started = now if pick.idempotent else None
        values = (session.owner, now + LEASE_MS, int(pick.idempotent), started, now)
        rows = session.db.all(CLAIM, (*values, *key, pick.due_before, pick.limit))
        session.moved(Status.PENDING, Status.RUNNING, len(rows))
        # RETURNING promises no order.
        tasks += sorted((task_of(row) for row in rows), key=_turn)
        row = session.db.one(EARLIEST, key)
        earliest[key] = row[0] if row else None
    return Claimed(tasks, earliest)


def _turn(task: Task) -> tuple[int, int]:
    return task.next_try or 0, task.id


def start(session: Session, task: Task, at: int, effects: Effects) -> tuple[bool, list[Inserted]]:
    """Note that the task may send from now on. False, and nothing written, if it is not ours."""
    if not session.db.run(START, (at, at, *fence(task))):
        return False, []
    return True, apply(session, effects)


def release(session: Session, tasks: Sequence[Task]) -> None:
    """Give claims back that did not start; their attempt does not count."""
    now = session.now()
    for task in tasks:
        if row := session.db.one(RELEASE, (now, now, *fence(task))):
            session.moved(Status.RUNNING, row[0])


def reclaim(session: Session) -> tuple[int, list[Task]]:
    """Take over what other owners held: all claims that did not start, a page of those that did."""
    now, owner = session.now(), session.owner
    back = session.db.all(RECLAIM_UNSTARTED, (now, now, owner))
    for (status,) in back:
        session.moved(Status.RUNNING, status)
    values = (owner, now + LEASE_MS, now, owner, RECLAIM_PAGE)
    rows = session.db.all(RECLAIM_STARTED, values)
    return len(back), sorted((task_of(row) for row in rows), key=_turn)
