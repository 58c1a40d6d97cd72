"""Claiming in a file of SQLite, which one daemon has: every other owner of a claim is dead."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from orchestratord.model.task import Key, Status, Task
from orchestratord.queue.connection import BY_DUE, BY_ID, BY_RUNNING
from orchestratord.queue.records import Claimed, Pick
from orchestratord.queue.rows import TASK, task_of, tasks_of
from orchestratord.queue.session import RELEASE_CLAIM, Session, turn

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

LOST = f"""
SELECT id FROM retry_schedule {BY_RUNNING}
WHERE status = 'running' AND locked_by IS DISTINCT FROM ?
"""

RECLAIM_UNSTARTED = f"""
{RELEASE_CLAIM} WHERE id IN ({LOST} AND started_at IS NULL) RETURNING status
"""

RECLAIM_STARTED = f"""
UPDATE retry_schedule SET locked_by = ?, lease_until = ?, updated_at = ?
WHERE id IN ({LOST} AND started_at IS NOT NULL LIMIT ?)
RETURNING {TASK}
"""

RECLAIM_PAGE = 200


@dataclass(slots=True)
class SqliteSession(Session):
    """The session of the one daemon."""

    def claim(self, picks: Sequence[Pick]) -> Claimed:
        """As in the interface."""
        now = self.now()
        picks = list({pick.key: pick for pick in picks}.values())  # none is to be claimed twice
        found = self._pending(picks)
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
                values = (self.owner, self.lease_until(), int(idempotent), started, now)
                self.db.run(CLAIM, (*values, json.dumps(mine)))
                self.moved(Status.PENDING, Status.RUNNING, len(mine))
            ids += mine
        return Claimed(tasks_of(self.db, ids), earliest)

    def _pending(self, picks: Sequence[Pick]) -> list[list[tuple[int, int]]]:
        """Of each pick the first pending tasks, due or not: up to its limit, and one more."""
        by_limit: dict[int, list[int]] = {}
        for index, pick in enumerate(picks):
            by_limit.setdefault(pick.limit, []).append(index)
        found: list[list[tuple[int, int]]] = [[] for _ in picks]
        for limit, indexes in by_limit.items():
            keys = json.dumps([picks[index].key for index in indexes])
            row = self.db.one(NEXT, (limit + 1, keys))
            assert row is not None
            for position, pending in json.loads(row[0]):
                found[indexes[position]] = pending
        return found

    def reclaim(self, held: Collection[int]) -> tuple[int, list[Task]]:
        """As in the interface: all that other owners held, since they are dead."""
        now, owner = self.now(), self.owner
        back = self.db.all(RECLAIM_UNSTARTED, (now, now, owner))
        for (status,) in back:
            self.moved(Status.RUNNING, status)
        values = (owner, self.lease_until(), now, owner, RECLAIM_PAGE)
        rows = self.db.all(RECLAIM_STARTED, values)
        return len(back), sorted((task_of(row) for row in rows), key=turn)
