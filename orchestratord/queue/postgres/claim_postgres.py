"""Claiming where other daemons claim as well, and leases that run out: PostgreSQL's way.

What another daemon is just claiming is passed over. A key that is claimed from again and again
leaves entries behind in the index, dead but not yet removed, above all while an old transaction
holds them back; so each claim begins where the last one of its key ended, and not at the front.
What others put before that is heard of, or found by looking at all keys every few seconds
(`PostgresSession.heard`). Leases that have run out are looked for on the reading connection, for
the same reason: it may take long, and claims do not wait for it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestratord.model.task import Key, Status, Task
from orchestratord.queue import shared_rates
from orchestratord.queue.connection import (
    BLOCKS,
    FAIR_HEAD,
    FAIR_HELD,
    LIMITED,
    ORDERED,
    READY,
)
from orchestratord.queue.records import Claimed, FairTurn, Line, OrderedTurn, Pick
from orchestratord.queue.rows import TASK_COLUMNS, task_of
from orchestratord.queue.session import (
    RELEASE_CLAIM,
    RUNNING,
    Session,
    due_by,
    released,
    room_behind,
    turn,
)
from orchestratord.values import world

# ruff: noqa: S608  # what is pasted here are columns and statements, never values

_TASK = ", ".join(f"retry_schedule.{name}" for name in TASK_COLUMNS)

_PICK = """
WITH pick AS MATERIALIZED (
    SELECT (v ->> 0)::int AS n, v ->> 1 AS endpoint_id, v ->> 2 AS webhook, (v ->> 3)::int AS most,
        (v ->> 4)::bigint AS floor, (v ->> 5)::bigint AS due, (v ->> 6)::int AS idempotent,
        v -> 7 AS avoid
    FROM jsonb_array_elements(?::jsonb) AS t (v)
)
"""

_OF_PICK = f"""
SELECT id, next_try FROM retry_schedule
WHERE {READY} AND endpoint_id = pick.endpoint_id AND webhook = pick.webhook
    AND next_try >= pick.floor
    AND (partition IS NULL OR partition NOT IN (SELECT jsonb_array_elements_text(pick.avoid)))
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
    claims = claims + 1, idempotent = found.idempotent, cancel_requested = 0,
    updated_at = ?::bigint,
    started_at = CASE WHEN deaths = 0 AND found.idempotent = 1 THEN ?::bigint END
FROM found WHERE retry_schedule.id = found.id
RETURNING found.n, {_TASK}
"""

EARLIEST = f"""
{_PICK}
SELECT pick.n, task.next_try
FROM pick CROSS JOIN LATERAL ({_OF_PICK} ORDER BY next_try, id LIMIT 1) AS task
"""

_LINE = """
WITH line AS MATERIALIZED (
    SELECT (v ->> 0)::int AS n, v ->> 1 AS endpoint_id, v ->> 2 AS webhook, v ->> 3 AS partition,
        (v ->> 4)::bigint AS due, (v ->> 5)::int AS most, (v ->> 6)::int AS idempotent,
        (v ->> 7)::int AS pick
    FROM jsonb_array_elements(?::jsonb) AS t (v)
)
"""
_OF_LINE = """
endpoint_id = line.endpoint_id AND webhook = line.webhook AND partition = line.partition
"""

# Of partitions whose heads were claimed, and leave room in a claim: what is due behind these. The
# one that follows is the head from now on; where it has a limit, that is looked into as elsewhere.
TAKE_ON = f"""
{_LINE}, behind AS MATERIALIZED (
    SELECT line.n, line.pick, line.idempotent, task.*,
        task.place <= line.most AND task.next_try <= line.due AND task.partition_rule = 0 AS taken
    FROM line CROSS JOIN LATERAL (
        SELECT id, next_try, partition_rule, row_number() OVER (ORDER BY next_try, id) AS place
        FROM (
            SELECT id, next_try, partition_rule FROM retry_schedule
            WHERE {FAIR_HELD} AND {_OF_LINE}
            ORDER BY next_try, id LIMIT line.most + 1 FOR UPDATE SKIP LOCKED
        ) AS kept
    ) AS task
), found AS MATERIALIZED (
    SELECT DISTINCT ON (n, CASE WHEN taken THEN id END) * FROM behind
    ORDER BY n, CASE WHEN taken THEN id END, place
)
UPDATE retry_schedule
SET held = 0, cancel_requested = 0,
    updated_at = CASE WHEN taken THEN clock.now
        ELSE GREATEST(retry_schedule.updated_at, clock.now) END,
    status = CASE WHEN taken THEN 'running' ELSE 'pending' END,
    next_try = CASE WHEN taken THEN retry_schedule.next_try
        ELSE GREATEST(retry_schedule.next_try, clock.now) END,
    locked_by = CASE WHEN taken THEN clock.owner END,
    lease_until = CASE WHEN taken THEN clock.lease END,
    attempts = attempts + taken::int, claims = claims + taken::int,
    idempotent = CASE WHEN taken THEN found.idempotent ELSE retry_schedule.idempotent END,
    started_at = CASE WHEN NOT taken THEN started_at
        WHEN deaths = 0 AND found.idempotent = 1 THEN clock.now END
FROM found, (SELECT ?::text AS owner, ?::bigint AS lease, ?::bigint AS now) AS clock
WHERE retry_schedule.id = found.id AND (taken OR found.partition_rule = 0)
RETURNING found.n, found.pick, taken, {_TASK}
"""

# Who elects in a partition with an order or a limit keeps others from it until the end of the
# transaction: each sees what the one before has committed. Where there are too many for the
# server's table of locks, all of them at once.
LOCK = """
SELECT count(*) FROM (
    SELECT pg_advisory_xact_lock(place) FROM unnest(?::bigint[]) AS place OFFSET 0
) AS taken
"""
LOCK_LINES = """
WITH all_lines AS MATERIALIZED (SELECT pg_advisory_xact_lock_shared(?::bigint))
SELECT count(*) FROM (
    SELECT pg_advisory_xact_lock(place)
    FROM all_lines CROSS JOIN unnest(?::bigint[]) AS place OFFSET 0
) AS taken
"""
ALL_LINES = 0x6F7264657264
"""The advisory lock of all partitions; spells `ordered`."""
MANY_LINES = 500
"""Of so many partitions, in one transaction, not each has a lock of its own."""

FAIR_TURNS = f"""
{_LINE}
SELECT line.n, task.id, task.next_try, task.partition_rule, head.id, head.next_try,
    head.partition_rule, CASE WHEN task.partition_rule = 0 THEN 0 ELSE (
        SELECT count(*) FROM retry_schedule WHERE {LIMITED} AND {_OF_LINE}
    ) END
FROM line
CROSS JOIN LATERAL (
    SELECT id, next_try, partition_rule FROM retry_schedule
    WHERE {FAIR_HELD} AND {_OF_LINE} ORDER BY next_try, id LIMIT 1
) AS task
LEFT JOIN LATERAL (
    SELECT id, next_try, partition_rule FROM retry_schedule
    WHERE {FAIR_HEAD} AND {_OF_LINE} LIMIT 1
) AS head ON true
"""
KEEP_HEADS = """
SELECT id FROM retry_schedule WHERE id = ANY(?::bigint[]) AND status || '' = 'pending' AND held = 0
FOR UPDATE SKIP LOCKED
"""

ORDERED_TURNS = f"""
{_LINE}
SELECT line.n, task.id, task.next_try, ready.id, ready.status
FROM line
CROSS JOIN LATERAL (
    SELECT id, next_try, held FROM retry_schedule
    WHERE {BLOCKS} AND {_OF_LINE} ORDER BY id LIMIT 1
) AS task
LEFT JOIN LATERAL (
    SELECT id, status FROM retry_schedule WHERE {ORDERED} AND {_OF_LINE} LIMIT 1
) AS ready ON true
WHERE task.held = 1
"""

_STEP = """
WITH found AS MATERIALIZED (
    SELECT id FROM retry_schedule
    WHERE id = ANY(?::bigint[]) AND status || '' = 'pending' AND held = {held}
    FOR UPDATE SKIP LOCKED
)
UPDATE retry_schedule SET {changes}
FROM found WHERE retry_schedule.id = found.id RETURNING retry_schedule.id
"""
STEP_BACK = _STEP.format(held=0, changes="held = 1")
STEP_FORWARD = _STEP.format(
    held=1,
    # That a clock which was ahead has written it has still to be seen.
    changes="""held = 0, updated_at = GREATEST(updated_at, ?::bigint),
    next_try = GREATEST(next_try, ?::bigint),
    turn_at = CASE WHEN turn_at = 1 THEN ?::bigint ELSE turn_at END""",
)

SUCCEED = """
WITH new AS MATERIALIZED (
    SELECT v ->> 0 AS name, (v ->> 1)::bigint AS at FROM jsonb_array_elements(?::jsonb) AS t (v)
), free AS MATERIALIZED (
    SELECT endpoint_id FROM endpoint_state WHERE endpoint_id IN (SELECT name FROM new)
    FOR UPDATE SKIP LOCKED
), changed AS (
    UPDATE endpoint_state SET last_success_at = new.at FROM new, free
    WHERE endpoint_state.endpoint_id = free.endpoint_id AND free.endpoint_id = new.name
        AND new.at > COALESCE(last_success_at, 0)
), added AS (
    INSERT INTO endpoint_state (endpoint_id, last_success_at) SELECT name, at FROM new
    WHERE NOT EXISTS (SELECT 1 FROM endpoint_state WHERE endpoint_id = name)
    ON CONFLICT (endpoint_id) DO NOTHING
)
SELECT name FROM new WHERE name NOT IN (SELECT endpoint_id FROM free)
    AND EXISTS (SELECT 1 FROM endpoint_state WHERE endpoint_id = name)
"""
"""`SUCCESS` where others may have locked a row: those are passed over, and told."""

EARLIEST_KEYS = f"""
WITH RECURSIVE key AS (
    (SELECT endpoint_id, webhook, next_try FROM retry_schedule WHERE {READY}
     ORDER BY endpoint_id, webhook, next_try, id LIMIT 1)
    UNION ALL
    SELECT next.* FROM key CROSS JOIN LATERAL (
        SELECT endpoint_id, webhook, next_try FROM retry_schedule
        WHERE {READY} AND (endpoint_id, webhook) > (key.endpoint_id, key.webhook)
        ORDER BY endpoint_id, webhook, next_try, id LIMIT 1
    ) AS next
)
SELECT endpoint_id, webhook, next_try FROM key
"""
"""All of them in one journey to the server."""

BACKWARDS_MS = 500
"""How far before the first one that is left the next claim of a key begins: others may be a little
late to commit, and their clocks behind."""
BEHIND_MS = 20
"""When to look again for what is due and was passed over, since another daemon has it locked."""

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
{RELEASE_CLAIM.format(which="FROM lost WHERE retry_schedule.id = lost.id")}
"""

TAKE_STARTED = f"""
WITH lost AS MATERIALIZED (
    {_RUN_OUT.format(now="?::bigint")} AND started_at IS NOT NULL
    ORDER BY lease_until LIMIT 200 FOR UPDATE SKIP LOCKED
)
UPDATE retry_schedule
SET locked_by = ?, lease_until = ?::bigint, claims = claims + 1
FROM lost WHERE retry_schedule.id = lost.id
RETURNING {_TASK}
"""

RENEW = f"""
WITH ours AS MATERIALIZED (
    SELECT id FROM retry_schedule
    WHERE id = ANY(?::bigint[]) AND {RUNNING} AND locked_by = ?
        AND lease_until < ?::bigint
    ORDER BY id FOR UPDATE SKIP LOCKED
)
UPDATE retry_schedule SET lease_until = ?::bigint FROM ours WHERE retry_schedule.id = ours.id
"""

FRONT = -(1 << 62)
NEVER = 1 << 62


CLOCK = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint"


def _place(names: tuple[str, ...]) -> int:
    """The number of the advisory lock of a key, or of a partition."""
    digest = hashlib.blake2b(repr(tuple(names)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, signed=True)


def _numbered(lines: Sequence[Line]) -> str:
    return json.dumps([(n, *line[:3]) for n, line in enumerate(lines)])


def _picked(picks: Sequence[Pick], floors: Sequence[int]) -> str:
    return json.dumps(
        [
            (n, *p.key, p.limit, floors[n], p.due_before, int(p.idempotent), sorted(p.avoid))
            for n, p in enumerate(picks)
        ]
    )


@dataclass(slots=True)
class PostgresSession(Session):
    """The session of one daemon among several."""

    floors: dict[Key, int] = field(default_factory=dict)
    """Of keys that were claimed from: before which `next_try` nothing was left."""
    heard_due: dict[Key, int] = field(default_factory=dict)
    """What was heard of since."""

    def __post_init__(self) -> None:
        self.ask_clock()

    def begin(self, committed: bool) -> None:
        """As in the interface."""
        Session.begin(self, committed)
        if not committed:
            self.floors.clear()

    def heard(self, key: Key, next_try: int) -> None:
        """As in the interface."""
        if next_try < self.heard_due.get(key, NEVER):
            self.heard_due[key] = next_try

    def take_floor(self, key: Key) -> int:
        """Before which `next_try` there is nothing to be claimed of a key; what was heard of since
        counts this once."""
        due, known = self.heard_due.pop(key, NEVER), self.floors.get(key, FRONT)
        return min(due, known)

    def claim(self, picks: Sequence[Pick]) -> Claimed:
        """As in the interface."""
        try:
            return self._claim(picks)
        except BaseException:
            for pick in picks:  # what was heard of is forgotten, and found from the front
                self.floors.pop(pick.key, None)
            raise

    def _claim(self, picks: Sequence[Pick]) -> Claimed:
        now = self.now()
        picks = due_by(now, picks)
        limits = shared_rates.SharedLimits(self.db, self.leases.now(self.clock), picks)
        picks = limits.bounded(picks)
        values = (self.owner, self.leases.until(self.clock), now, now)
        found: list[list[Task]] = [[] for _ in picks]
        floors = [self.take_floor(pick.key) for pick in picks]
        picked = _picked(picks, floors)
        for row in self.db.all(CLAIM, (picked, *values)):
            found[row[0]].append(task_of(row, 1))
        for tasks in found:
            tasks.sort(key=turn)
        self._take_on(picks, found, values)
        earliest: dict[Key, int | None] = dict.fromkeys(pick.key for pick in picks)
        left = dict.fromkeys(earliest, now)
        # What was heard of was claimed from, and may be left; more was heard of meanwhile.
        floors = [
            min(at, self.take_floor(pick.key)) for pick, at in zip(picks, floors, strict=True)
        ]
        picked = _picked(picks, floors)
        for n, due in self.db.all(EARLIEST, (picked,)):
            pick = picks[n]
            passed_over = due <= pick.due_before and len(found[n]) < pick.limit
            earliest[pick.key] = max(due, now + BEHIND_MS) if passed_over else due
            left[pick.key] = min(due, now)
        for pick, at in zip(picks, floors, strict=True):
            # What was passed over is before what was found, and is to be found later.
            first = left[pick.key] - BACKWARDS_MS
            self.floors[pick.key] = min(at, first) if pick.avoid else first
        claimed = [task for tasks in found for task in tasks]
        self.moved(Status.PENDING, Status.RUNNING, len(claimed))
        used_up = limits.charge(
            (pick, len(tasks)) for pick, tasks in zip(picks, found, strict=True)
        )
        return Claimed(claimed, earliest, used_up, limits.full())

    def _take_on(
        self, picks: Sequence[Pick], found: Sequence[list[Task]], values: tuple[Any, ...]
    ) -> None:
        """Claim what is due behind the heads that were claimed, where these left room."""
        tasks = [task for tasks in found for task in tasks if task.turn is not None]
        if not tasks:
            return
        of = {pick.key: n for n, pick in enumerate(picks)}
        more = room_behind(picks, [task for tasks in found for task in tasks])
        passed_on: set[Line] = set()
        """Lines in which the turn is another one's already."""
        if more:
            lines = [
                (n, *line[:3], pick.due_before, each, int(pick.idempotent), of[pick.key])
                for n, (pick, line, each) in enumerate(more)
            ]
            rows = self.db.all(TAKE_ON, (json.dumps(lines), *values[:3]))
            behind = [(n, of_pick, taken, task_of(row)) for n, of_pick, taken, *row in rows]
            for n, of_pick, taken, task in sorted(behind, key=lambda one: turn(one[3])):
                if taken:
                    found[of_pick].append(task)
                    tasks.append(task)
                else:
                    passed_on.add(more[n][1])
                    self.has_turn(task.key, task.next_try or 0)
        for task in tasks:
            # An ordered one holds its partition while it runs as it did before.
            if not task.ordered and (task.partition_limit or Line.of(task) not in passed_on):
                self.touch(task)

    def lock_order(self, keys: Collection[Key]) -> None:
        """As in the interface."""
        self.db.all(LOCK, (sorted(map(_place, keys)),))

    def lock_lines(self, lines: Sequence[Line]) -> None:
        """As in the interface."""
        places = sorted({_place(line[:3]) for line in lines})
        if len(places) > MANY_LINES:
            self.db.one(LOCK, ([ALL_LINES],))
        elif places:
            self.db.one(LOCK_LINES, (ALL_LINES, places))

    def succeed(self, found: Sequence[tuple[str, int]]) -> Collection[str]:
        """As in the interface."""
        return {name for (name,) in self.db.all(SUCCEED, (json.dumps(found),))}

    def fair_turns(self, lines: Sequence[Line], locked: Collection[Line]) -> list[FairTurn]:
        """As in the interface.

        Without a limit no lock is needed, but that no head is claimed while others wait behind it.
        One that is just being claimed has had its turn; should that be undone, there are two for a
        time, which does no harm.
        """
        turns = self._fair_turns(lines)
        late = {lines[turn.place] for turn in turns if turn.limit} - set(locked)
        if late:  # its rule has changed, and what was touched is from before
            self.lock_lines(sorted(late))
            turns = self._fair_turns(lines)
        heads = [turn.head for turn in turns if turn.head is not None and not turn.head_limit]
        if not heads:
            return turns
        kept = {id_ for (id_,) in self.db.all(KEEP_HEADS, (heads,))}
        return [
            turn._replace(head=None)
            if turn.head is not None and not turn.head_limit and turn.head not in kept
            else turn
            for turn in turns
        ]

    def _fair_turns(self, lines: Sequence[Line]) -> list[FairTurn]:
        return [FairTurn(*row) for row in self.db.all(FAIR_TURNS, (_numbered(lines),))]

    def ordered_turns(self, lines: Sequence[Line]) -> list[OrderedTurn]:
        """As in the interface."""
        return [OrderedTurn(*row) for row in self.db.all(ORDERED_TURNS, (_numbered(lines),))]

    def step_back(self, ids: Sequence[int]) -> Collection[int]:
        """As in the interface."""
        return {id_ for (id_,) in self.db.all(STEP_BACK, (list(ids),))}

    def step_forward(self, ids: Sequence[int], now: int) -> Collection[int]:
        """As in the interface."""
        return {id_ for (id_,) in self.db.all(STEP_FORWARD, (list(ids), now, now, now))}

    def ask_clock(self) -> int:
        """Learn what the database's clock says; milliseconds since the epoch."""
        began = world.monotonic()
        now = self.db.clock_ms()
        self.leases.asked(now)
        self.clock.asked(now, world.monotonic() - began)
        return now

    def renew(self, held: Collection[int]) -> int:
        """As in the interface: those of which a third of their time is over.

        Claims of ours that are not known here, as after a COMMIT that was not answered, run out.
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
        if self.clock.in_doubt:
            return 0, []  # by a clock that has jumped, all daemons have been silent for long
        ours = (self.owner, self.leases.until(self.clock))
        back = self.db.all(TAKE_UNSTARTED, (*ran_out, *released(self.now())))
        for row in back:
            self.unstarted(row)
        rows = self.db.all(TAKE_STARTED, (*ran_out, *ours))
        return len(back), sorted((task_of(row) for row in rows), key=turn)
