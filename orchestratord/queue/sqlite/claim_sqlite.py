"""Claiming in a file of SQLite, which one daemon has, or the workers of one process group. An owner
lives as long as it has a row in `daemons`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from orchestratord.model.task import Key, Status, Task
from orchestratord.queue import shared_rates
from orchestratord.queue.connection import (
    BLOCKS,
    BY_BLOCKS,
    BY_HEAD,
    BY_HELD,
    BY_ID,
    BY_ORDERED,
    BY_READY,
    BY_RUNNING,
    FAIR_HEAD,
    FAIR_HELD,
    LIMITED,
    ORDERED,
    READY,
)
from orchestratord.queue.records import Claimed, FairTurn, Line, OrderedTurn, Pick
from orchestratord.queue.rows import TASK, task_of, tasks_of
from orchestratord.queue.session import RELEASE_CLAIM, Session, due_by, released, room_behind, turn

# ruff: noqa: S608  # what is pasted here are columns and hints, never values

OF_LINE = """
endpoint_id = line.value ->> 0 AND webhook = line.value ->> 1 AND partition = line.value ->> 2
"""

NEVER = 1 << 62

# What is pending of several keys, in its order, but for the partitions that are passed over: JSON,
# because each row that is fetched by itself gives the interpreter up and has to wait until it gets
# it back.
NEXT = f"""
SELECT json_group_array(json_array(pick.key, json((
    SELECT json_group_array(json_array(next_try, id)) FROM (
        SELECT next_try, id FROM retry_schedule {BY_READY}
        WHERE {READY} AND endpoint_id = pick.value ->> 0 AND webhook = pick.value ->> 1
            AND (pick.value ->> 3 = 0 OR partition IS NULL
                OR partition NOT IN (SELECT value FROM json_each(pick.value, '$[2]')))
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
    claims = claims + 1, started_at = CASE WHEN deaths = 0 THEN ? END, cancel_requested = 0,
    updated_at = ?
WHERE id IN (SELECT value FROM json_each(?))
"""

# Of partitions whose heads were claimed, and leave room in a claim: what is due behind these.
BEHIND = f"""
SELECT json_group_array(json((
    SELECT json_group_array(json_array(id, partition_rule)) FROM (
        SELECT id, partition_rule FROM retry_schedule {BY_HELD}
        WHERE {FAIR_HELD} AND {OF_LINE} AND next_try <= line.value ->> 3
        ORDER BY next_try, id LIMIT ?
    )
)))
FROM json_each(?) AS line
"""
TAKE_ON = CLAIM.replace("SET ", "SET held = 0, ", 1)

ANY_HELD = f"SELECT 1 FROM retry_schedule {BY_HELD} WHERE held = 1 AND endpoint_id > '' LIMIT 1"

FAIR_TURNS = f"""
SELECT json_group_array(json_array(
    line.key, task.id, task.next_try, task.partition_rule, head.id, head.next_try,
    head.partition_rule, CASE WHEN task.partition_rule = 0 THEN 0 ELSE (
        SELECT count(*) FROM retry_schedule {BY_HEAD} WHERE {LIMITED} AND {OF_LINE}
    ) END
))
FROM json_each(?) AS line
CROSS JOIN retry_schedule AS task ON task.id = (
    SELECT id FROM retry_schedule {BY_HELD} WHERE {FAIR_HELD} AND {OF_LINE}
    ORDER BY next_try, id LIMIT 1
)
LEFT JOIN retry_schedule AS head ON head.id = (
    SELECT id FROM retry_schedule {BY_HEAD} WHERE {FAIR_HEAD} AND {OF_LINE} LIMIT 1
)
"""

ORDERED_TURNS = f"""
SELECT json_group_array(json_array(line.key, task.id, task.next_try, ready.id, ready.status))
FROM json_each(?) AS line
CROSS JOIN retry_schedule AS task ON task.id = (
    SELECT id FROM retry_schedule {BY_BLOCKS} WHERE {BLOCKS} AND {OF_LINE} ORDER BY id LIMIT 1
)
LEFT JOIN retry_schedule AS ready ON ready.id = (
    SELECT id FROM retry_schedule {BY_ORDERED} WHERE {ORDERED} AND {OF_LINE}
)
WHERE task.held = 1
"""

STEP_BACK = f"""
UPDATE OR ROLLBACK retry_schedule {BY_ID} SET held = 1
WHERE id IN (SELECT value FROM json_each(?))
"""

# That a clock which was ahead has written it has still to be seen, where its `next_try` stays.
STEP_FORWARD = f"""
UPDATE OR ROLLBACK retry_schedule {BY_ID}
SET held = 0, updated_at = max(updated_at, ?), next_try = max(next_try, ?),
    turn_at = CASE WHEN turn_at = 1 THEN ? ELSE turn_at END
WHERE id IN (SELECT value FROM json_each(?))
"""

NEXT_KEY = f"""
SELECT endpoint_id, webhook, next_try FROM retry_schedule {BY_READY}
WHERE {READY} AND (endpoint_id, webhook, next_try) > (?, ?, {NEVER})
ORDER BY endpoint_id, webhook, next_try LIMIT 1
"""
"""Behind all that the key before has: SQLite goes to the first row that is not less, and would go
through all that are equal in two columns."""


OF_DEAD = f"""
SELECT id FROM retry_schedule {BY_RUNNING}
WHERE status = 'running' AND locked_by IS DISTINCT FROM ?
    AND NOT EXISTS (SELECT 1 FROM daemons WHERE owner = locked_by)
"""
"""What dead owners held. The parameter is the owner that takes over, which lives whatever a row
says."""
TAKE_UNSTARTED = RELEASE_CLAIM.format(which=f"WHERE id IN ({OF_DEAD} AND started_at IS NULL)")
# `updated_at` stays that of the claim: a clock that was ahead may have written it, and then the
# delay that the attempt before has chosen is as wrong as it is.
TAKE_STARTED = f"""
UPDATE retry_schedule SET locked_by = ?, lease_until = ?, claims = claims + 1
WHERE id IN ({OF_DEAD} AND started_at IS NOT NULL LIMIT ?)
RETURNING {TASK}
"""
RECLAIM_PAGE = 200

FEW = 15
"""Picks of up to so many tasks each are looked up by one statement, which has to wait for the
interpreter four times."""


STEP_IDS = 1000
"""By how many ids keys may be apart that are claimed in step."""
LEAST_IN_STEP = 4
"""No key is claimed fewer tasks of than these for it."""


def in_step(picks: Sequence[Pick], found: Sequence[Sequence[tuple[int, int]]]) -> list[list[int]]:
    """The tasks to claim of each pick, of the first ones of its key: what is due, up to its limit.

    Rows that came together are in the same pages, whatever their keys, and a transaction writes
    each page that it changes once. So keys of which more is due than they may have now are claimed
    up to the same id: one that is ahead by less than `STEP_IDS` has less, but at least half of its
    limit, and `LEAST_IN_STEP`. Not those of quick partitions, where others would have that room.
    """
    taken = [
        [id_ for due, id_ in pending[: pick.limit] if due <= pick.due_before]
        for pick, pending in zip(picks, found, strict=True)
    ]
    rest = [
        (ids, max((pick.limit + 1) // 2, LEAST_IN_STEP))
        for pick, pending, ids in zip(picks, found, taken, strict=True)
        if not pick.quick
        and len(pending) > pick.limit > 0
        and pending[pick.limit][0] <= pick.due_before
    ]
    if len(rest) > 1:
        end = min(ids[-1] for ids, _ in rest)
        for ids, half in rest:
            while len(ids) > half and end < ids[-1] < end + STEP_IDS:
                ids.pop()
    return taken


@dataclass(slots=True)
class SqliteSession(Session):
    """The session of the one daemon, or of a worker."""

    def claim(self, picks: Sequence[Pick]) -> Claimed:
        """As in the interface."""
        kept = [pick for pick in picks if pick.rate is not None and pick.rate.is_kept]
        return self._within(picks, kept) if kept else self._claim(picks)

    def _within(self, picks: Sequence[Pick], limited: Sequence[Pick]) -> Claimed:
        """Claim within what is counted in the queue of those that are `limited`."""
        limits = shared_rates.SharedLimits(self.db, self.leases.now(self.clock), limited)
        picks = limits.bounded(picks)
        claimed = self._claim(picks)
        if not limits:
            return claimed
        counts = Counter(task.key for task in claimed.tasks)
        used_up = limits.charge((pick, counts[pick.key]) for pick in picks)
        return replace(claimed, used_up=used_up, full=limits.full())

    def _claim(self, picks: Sequence[Pick]) -> Claimed:
        now = self.now()
        picks = due_by(now, picks)
        found = self._pending(picks)
        chosen = in_step(picks, found)
        earliest: dict[Key, int | None] = {
            pick.key: pending[len(taken)][0] if len(pending) > len(taken) else None
            for pick, pending, taken in zip(picks, found, chosen, strict=True)
        }
        tasks = self._take(CLAIM, picks, chosen, now)
        tasks += self._take_on(picks, tasks, now)
        for task in tasks:
            # An ordered one holds its partition while it runs as it did before.
            if task.turn is not None and not task.ordered:
                self.touch(task)
        return Claimed(tasks, earliest)

    def _take(
        self, statement: str, picks: Sequence[Pick], chosen: Sequence[Sequence[int]], now: int
    ) -> list[Task]:
        """Claim the tasks that were chosen of each pick."""
        ids: list[int] = []
        for idempotent in (True, False):
            mine = [
                id_
                for pick, taken in zip(picks, chosen, strict=True)
                if pick.idempotent is idempotent
                for id_ in taken
            ]
            if mine:
                # One whose start ended with the daemon's death waits for its turn, and starts then.
                started = now if idempotent else None
                values = (self.owner, self.leases.until(self.clock), int(idempotent), started, now)
                self.db.run(statement, (*values, json.dumps(mine)))
                self.moved(Status.PENDING, Status.RUNNING, len(mine))
                ids += mine
        return tasks_of(self.db, ids)

    def _take_on(self, picks: Sequence[Pick], tasks: Sequence[Task], now: int) -> list[Task]:
        """What is due behind the heads that were claimed, where these left room."""
        more = room_behind(picks, tasks)
        if not more:
            return []
        lines = [(*line[:3], pick.due_before) for pick, line, _ in more]
        [(behind,)] = self.db.all(BEHIND, (max(each for *_, each in more), json.dumps(lines)))
        chosen = [
            [id_ for id_, limit in found[:each] if not limit]
            for (*_, each), found in zip(more, json.loads(behind), strict=True)
        ]
        return self._take(TAKE_ON, [pick for pick, *_ in more], chosen, now)

    def _pending(self, picks: Sequence[Pick]) -> list[list[tuple[int, int]]]:
        """Of each pick the first pending tasks, due or not: up to its limit, and one more; or some
        more, since picks with similar limits are looked up by one statement."""
        alike: dict[int, list[int]] = {}
        for index, pick in enumerate(picks):
            alike.setdefault(max(pick.limit, FEW).bit_length(), []).append(index)
        found: list[list[tuple[int, int]]] = [[] for _ in picks]
        for indexes in alike.values():
            limit = max(picks[n].limit for n in indexes)
            avoid = [(*picks[n].key, [*picks[n].avoid], len(picks[n].avoid)) for n in indexes]
            [(text,)] = self.db.all(NEXT, (limit + 1, json.dumps(avoid)))
            for position, pending in json.loads(text):
                found[indexes[position]] = pending
        return found

    def fair_turns(self, lines: Sequence[Line], locked: Collection[Line]) -> list[FairTurn]:
        """As in the interface: nothing else writes meanwhile."""
        if self.db.one(ANY_HELD) is None:  # as where partitions seldom have more than one task
            return []
        [(turns,)] = self.db.all(FAIR_TURNS, (json.dumps([line[:3] for line in lines]),))
        return [FairTurn(*turn) for turn in json.loads(turns)]

    def ordered_turns(self, lines: Sequence[Line]) -> list[OrderedTurn]:
        """As in the interface."""
        [(turns,)] = self.db.all(ORDERED_TURNS, (json.dumps([line[:3] for line in lines]),))
        return [OrderedTurn(*turn) for turn in json.loads(turns)]

    def step_back(self, ids: Sequence[int]) -> Collection[int]:
        """As in the interface."""
        self.db.run(STEP_BACK, (json.dumps(ids),))
        return set(ids)

    def step_forward(self, ids: Sequence[int], now: int) -> Collection[int]:
        """As in the interface."""
        self.db.run(STEP_FORWARD, (now, now, now, json.dumps(ids)))
        return set(ids)

    def reclaim(self, held: Collection[int]) -> tuple[int, list[Task]]:
        """As in the interface: all that dead owners held."""
        back = self.db.all(TAKE_UNSTARTED, (*released(self.now()), self.owner))
        for row in back:
            self.unstarted(row)
        values = (self.owner, self.leases.until(self.clock), self.owner, RECLAIM_PAGE)
        rows = self.db.all(TAKE_STARTED, values)
        return len(back), sorted((task_of(row) for row in rows), key=turn)
