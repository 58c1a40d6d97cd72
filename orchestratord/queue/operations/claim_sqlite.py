"""Claiming tasks and giving claims back. Claiming is SQLite's; `shared_claims` has PostgreSQL's."""

from __future__ import annotations

import json
from collections.abc import Sequence

from orchestratord.model.task import Key, Status, Task
from orchestratord.queue.database import BY_DUE, BY_ID, BY_RUNNING
from orchestratord.queue.records import Claimed, Pick
from orchestratord.queue.rows import TASK, task_of, tasks_of
from orchestratord.queue.session import Session

# ruff: noqa: S608  # what is pasted here are columns and hints, never values

# What is pending of several keys, in its order: JSON, because each row that is fetched by itself
# gives the interpreter up and has to wait until it gets it back.
NEXT = f"""
SELECT json_group_array(json_array(pick.key, json((
    SELECT json_group_array(json_array(next_try, id)) FROM (
        SELECT next_try, id FROM retry_schedule {BY_DUE}
        WHERE status = 'pending' AND endpoint_id = pick.value ->> 0 AND webhook = pick.value ->> 1
        ORDER BY next_try, id LIMIT ?
    )
))))
FROM json_each(?) AS pick
"""

# Without ROLLBACK for a conflict, which there is none of, SQLite would keep a copy of each page
# that the statement changes.
CLAIM = f"""
UPDATE OR ROLLBACK retry_schedule {BY_ID}
SET status = 'running', locked_by = ?, lease_until = ?, attempts = attempts + 1, idempotent = ?,
    started_at = CASE WHEN deaths = 0 THEN ? END, cancel_requested = 0, updated_at = ?
WHERE id IN (SELECT value FROM json_each(?))
"""

RUNNING = "retry_schedule.status || '' = 'running'"
"""So that rows whose ids are known are found by these: to PostgreSQL the index of what runs looks
shorter, and is full of entries that are dead and cannot be removed yet."""

HELD = f"id = ? AND {RUNNING} AND locked_by = ? AND attempts = ?"
"""The fence: true while a claim stands. Parameters from `fence`."""

GIVE_BACK = """
UPDATE retry_schedule
SET status = CASE WHEN cancel_requested = 1 THEN 'cancelled' ELSE 'pending' END,
    next_try = CASE WHEN cancel_requested = 1 THEN NULL ELSE next_try END,
    finished_at = CASE WHEN cancel_requested = 1 THEN CAST(? AS bigint) END,
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
    picks = list({pick.key: pick for pick in picks}.values())  # none is to be claimed twice
    found = _pending(session, picks)
    ids: list[int] = []
    earliest: dict[Key, int | None] = {}
    for idempotent in (True, False):
        mine: list[int] = []
        for pick, pending in zip(picks, found, strict=True):
            if pick.idempotent is idempotent:
                taken = [id_ for due, id_ in pending[: pick.limit] if due <= pick.due_before]
                mine += taken
                left = pending[len(taken) :]
                earliest[pick.key] = left[0][0] if left else None
        if mine:
            # One whose start ended with the daemon's death waits for its turn, and starts then.
            started = now if idempotent else None
            values = (session.owner, session.lease_until(), int(idempotent), started, now)
            session.db.run(CLAIM, (*values, json.dumps(mine)))
            session.moved(Status.PENDING, Status.RUNNING, len(mine))
        ids += mine
    return Claimed(tasks_of(session.db, ids), earliest)


def _pending(session: Session, picks: Sequence[Pick]) -> list[list[tuple[int, int]]]:
    """Of each pick the first pending tasks, due or not: up to its limit, and one more."""
    by_limit: dict[int, list[int]] = {}
    for index, pick in enumerate(picks):
        by_limit.setdefault(pick.limit, []).append(index)
    found: list[list[tuple[int, int]]] = [[] for _ in picks]
    for limit, indexes in by_limit.items():
        keys = json.dumps([picks[index].key for index in indexes])
        row = session.db.one(NEXT, (limit + 1, keys))
        assert row is not None
        for position, pending in json.loads(row[0]):
            found[indexes[position]] = pending
    return found


def turn(task: Task) -> tuple[int, int]:
    """What the tasks of a key are in order by."""
    return task.next_try or 0, task.id


def release(session: Session, tasks: Sequence[Task]) -> list[str | None]:
    """Give claims back that did not start; their attempt does not count. The status of each now:
    `cancelled` where that was asked for, None where the claim no longer stood."""
    now = session.now()
    statuses: list[str | None] = []
    for task in tasks:
        row = session.db.one(RELEASE, (now, now, *fence(task)))
        if row is not None:
            session.moved(Status.RUNNING, row[0])
            if row[0] == Status.PENDING and task.next_try is not None:
                session.waits(task.key, task.next_try)
        statuses.append(None if row is None else row[0])
    return statuses


def reclaim(session: Session) -> tuple[int, list[Task]]:
    """Take over what other owners held: all claims that did not start, a page of those that did."""
    now, owner = session.now(), session.owner
    back = session.db.all(RECLAIM_UNSTARTED, (now, now, owner))
    for (status,) in back:
        session.moved(Status.RUNNING, status)
    values = (owner, session.lease_until(), now, owner, RECLAIM_PAGE)
    rows = session.db.all(RECLAIM_STARTED, values)
    return len(back), sorted((task_of(row) for row in rows), key=turn)
