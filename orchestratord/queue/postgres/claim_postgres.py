"""Claiming where other daemons claim as well, and leases that run out: PostgreSQL's way.

What somebody else is just claiming is passed over. A key that is claimed from again and again
leaves entries behind in the index, dead but not yet removed, above all while an old transaction
holds them back; so each claim begins where the last one of its key ended, and not at the front.
What others put before that is heard of, or found by looking at all keys every few seconds
(`PostgresSession.heard`). Leases that have run out are looked for on the reading connection, for
the same reason: it may take long, and claims do not wait for it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from orchestratord.model.task import Key, Status, Task
from orchestratord.queue.connection import Connection
from orchestratord.queue.postgres import shared_rates
from orchestratord.queue.records import Claimed, Pick
from orchestratord.queue.rows import TASK_COLUMNS, task_of
from orchestratord.queue.session import RELEASE_CLAIM, RUNNING, Leases, Session, turn
from orchestratord.values.rate_limit import RateLimit

# ruff: noqa: S608  # what is pasted here are columns and statements, never values

_TASK = ", ".join(f"retry_schedule.{name}" for name in TASK_COLUMNS)

_PICK = """
WITH pick AS MATERIALIZED (
    SELECT (v ->> 0)::int AS n, v ->> 1 AS endpoint_id, v ->> 2 AS webhook, (v ->> 3)::int AS most,
        (v ->> 4)::bigint AS floor, (v ->> 5)::bigint AS due, (v ->> 6)::int AS idempotent
    FROM jsonb_array_elements(?::jsonb) AS t (v)
)
"""

_OF_PICK = """
SELECT id, next_try FROM retry_schedule
WHERE status = 'pending' AND endpoint_id = pick.endpoint_id AND webhook = pick.webhook
    AND next_try >= pick.floor
"""

CLAIM = f"""
{_PICK}, found AS MATERIALIZED (
    SELECT pick.n, pick.idempotent, task.id
    FROM pick CROSS JOIN LATERAL (
        {_OF_PICK} AND next_try <= pick.due ORDER BY next_try, id LIMIT pick.most
        FOR UPDATE SKIP LOCKED
    ) AS task
)
UPDATE retry_schedule
SET status = 'running', locked_by = ?, lease_until = ?::bigint, attempts = attempts + 1,
    idempotent = found.idempotent, cancel_requested = 0, updated_at = ?::bigint,
    started_at = CASE WHEN deaths = 0 AND found.idempotent = 1 THEN ?::bigint END
FROM found WHERE retry_schedule.id = found.id
RETURNING found.n, {_TASK}
"""

EARLIEST = f"""
{_PICK}
SELECT pick.n, task.next_try
FROM pick CROSS JOIN LATERAL ({_OF_PICK} ORDER BY next_try, id LIMIT 1) AS task
"""

BACKWARDS_MS = 500
"""How far before the first one that is left the next claim of a key begins: others may be a little
late to commit, and their clocks behind."""
BEHIND_MS = 20
"""When to look again for what is due and was passed over, since somebody else has it locked."""

_RUN_OUT = """
SELECT id FROM retry_schedule
WHERE status = 'running' AND lease_until >= ?::bigint AND lease_until < {now}
    AND NOT (locked_by = ? AND id = ANY(?::bigint[]))
"""

ANY_RUN_OUT = f"""
SELECT at, EXISTS ({_RUN_OUT.format(now="at")})
FROM (SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS at) AS clock
"""

TAKE_UNSTARTED = f"""
WITH lost AS MATERIALIZED (
    {_RUN_OUT.format(now="?::bigint")} AND started_at IS NULL
    ORDER BY lease_until LIMIT 200 FOR UPDATE SKIP LOCKED
)
{RELEASE_CLAIM}
FROM lost WHERE retry_schedule.id = lost.id
RETURNING status, endpoint_id, webhook, next_try
"""

TAKE_STARTED = f"""
WITH lost AS MATERIALIZED (
    {_RUN_OUT.format(now="?::bigint")} AND started_at IS NOT NULL
    ORDER BY lease_until LIMIT 200 FOR UPDATE SKIP LOCKED
)
UPDATE retry_schedule SET locked_by = ?, lease_until = ?::bigint, updated_at = ?::bigint
FROM lost WHERE retry_schedule.id = lost.id
RETURNING {_TASK}
"""

RENEW = f"""
WITH ours AS MATERIALIZED (
    SELECT id FROM retry_schedule
    WHERE id = ANY(?::bigint[]) AND {RUNNING} AND locked_by = ?
        AND lease_until < ?::bigint
    ORDER BY id FOR UPDATE
)
UPDATE retry_schedule SET lease_until = ?::bigint FROM ours WHERE retry_schedule.id = ours.id
"""

FRONT = -(1 << 62)
NEVER = 1 << 62

CLOCK = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint"


def any_run_out(db: Connection, leases: Leases, owner: str, held: Collection[int]) -> bool:
    """Whether there is something for `PostgresSession.reclaim`; on the reading connection."""
    row = db.one(ANY_RUN_OUT, (leases.since(), owner, list(held)))
    assert row is not None
    if not row[1]:
        leases.looked(row[0])
    return bool(row[1])


@dataclass(slots=True)
class PostgresSession(Session):
    """The session of one daemon among several."""

    floors: dict[Key, int] = field(default_factory=dict)
    """Of keys that were claimed from: before which `next_try` nothing was left."""
    told: dict[Key, int] = field(default_factory=dict)
    """What was heard of since."""

    def begin(self, committed: bool) -> None:
        """As in the interface."""
        Session.begin(self, committed)
        if not committed:
            self.floors.clear()

    def heard(self, key: Key, next_try: int) -> None:
        """As in the interface."""
        if next_try < self.told.get(key, NEVER):
            self.told[key] = next_try

    def floor(self, key: Key) -> int:
        """Before which `next_try` there is nothing to be claimed of a key."""
        told, known = self.told.pop(key, NEVER), self.floors.get(key, FRONT)
        return min(told, known)

    def charge_past(self, past: Mapping[str, tuple[RateLimit, Sequence[int]]]) -> None:
        """As in the interface."""
        shared_rates.charge_past(self, past)

    def claim(self, picks: Sequence[Pick]) -> Claimed:
        """As in the interface."""
        now = self.now()
        picks = list({pick.key: pick for pick in picks}.values())  # none is to be claimed twice
        rates = shared_rates.Rates(self, picks)
        picks = rates.bounded(picks)
        values = (self.owner, self.lease_until(), now, now)
        found: list[list[Task]] = [[] for _ in picks]
        for n, *row in self.db.all(CLAIM, (self._picked(picks), *values)):
            found[n].append(task_of(row))
        for tasks in found:
            tasks.sort(key=turn)
        earliest: dict[Key, int | None] = dict.fromkeys(pick.key for pick in picks)
        left = dict.fromkeys(earliest, now)
        for n, due in self.db.all(EARLIEST, (self._picked(picks),)):
            pick = picks[n]
            passed_over = due <= pick.due_before and len(found[n]) < pick.limit
            earliest[pick.key] = max(due, now + BEHIND_MS) if passed_over else due
            left[pick.key] = min(due, now)
        for key, first in left.items():
            self.floors[key] = first - BACKWARDS_MS
        claimed = [task for tasks in found for task in tasks]
        self.moved(Status.PENDING, Status.RUNNING, len(claimed))
        used_up = rates.charge((pick, len(tasks)) for pick, tasks in zip(picks, found, strict=True))
        return Claimed(claimed, earliest, used_up)

    def _picked(self, picks: Sequence[Pick]) -> str:
        return json.dumps(
            [
                (n, *pick.key, pick.limit, self.floor(pick.key), pick.due_before,
                 int(pick.idempotent))
                for n, pick in enumerate(picks)
            ]
        )  # fmt: skip

    def ask_clock(self) -> int:
        """Learn what the database's clock says; milliseconds since the epoch."""
        row = self.db.one(CLOCK)
        assert row is not None
        self.leases.asked(row[0])
        return int(row[0])

    def renew(self, held: Collection[int]) -> int:
        """As in the interface: those of which a third of their time is over.

        Claims of ours that nobody here knows of, as after a COMMIT that was not answered, run out.
        """
        now = self.ask_clock()
        lease = round(self.leases.seconds * 1000)
        values = (sorted(held), self.owner, now + lease * 2 // 3, now + lease)
        return self.db.run(RENEW, values)

    def reclaim(self, held: Collection[int]) -> tuple[int, list[Task]]:
        """As in the interface: a page of the claims whose lease has run out.

        `held` are left alone, though their lease may have run out while we could not renew it.
        """
        ran_out = (self.leases.since(), self.ask_clock(), self.owner, list(held))
        ours = (self.owner, self.lease_until(), self.now())
        back = self.db.all(TAKE_UNSTARTED, (*ran_out, self.now(), self.now()))
        for status, endpoint_id, webhook, next_try in back:
            self.moved(Status.RUNNING, status)
            if next_try is not None:
                self.waits(Key(endpoint_id, webhook), next_try)
        rows = self.db.all(TAKE_STARTED, (*ran_out, *ours))
        return len(back), sorted((task_of(row) for row in rows), key=turn)
