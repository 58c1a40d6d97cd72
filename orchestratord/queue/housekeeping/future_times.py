"""Times that lie ahead of now though no rule can have put them there: a clock was wrong.

The row itself shows it. Whatever is written has the time of its writing beside it, so that a task
whose `updated_at` is still to come was written by a clock that was ahead by at least as much, and
its `next_try` is as far behind that as it was asked to be: that distance is kept, whether a
policy, a hook or a caller asked for it. A task that waits for a year by right was written before
now, and is left alone. So are schedules: a slot that was taken is not taken again, and the ones
before it are still to come.

They are looked for on the reading connection, a page at a time, since there may be a million that
wait and others want to read as well; and changed in slices, as by retention.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from peewee import Case, fn

from orchestratord.model.task import Key, Status
from orchestratord.queue import shared_rates
from orchestratord.queue.batch import Rank, long_reads, writes
from orchestratord.queue.connection import (
    BY_CREATED,
    BY_FINISHED,
    BY_HELD,
    BY_ID,
    BY_READY,
    BY_RUNNING,
    LISTED,
    READY,
    RUNNING,
    Connection,
)
from orchestratord.queue.models import (
    BatchMemberRow,
    BatchRow,
    BulkRow,
    ChoreRow,
    DaemonRow,
    EndpointState,
    ThrottleRow,
    sql,
)
from orchestratord.queue.session import Session
from orchestratord.queue.store import Store
from orchestratord.values.clock import APART

# ruff: noqa: S608  # what is pasted here are hints and question marks, never values

AHEAD_MS = round(APART * 1000)
"""What is ahead by less is by a clock that was moved in order."""
PAGE = 5_000
"""Tasks that one look goes through."""
SLICE = 500
"""Tasks that are changed in one transaction."""

WAITING = f"""
SELECT endpoint_id, webhook, next_try, id, updated_at FROM retry_schedule {BY_READY}
WHERE {READY} AND (endpoint_id, webhook, next_try, id) > (?, ?, ?, ?)
ORDER BY endpoint_id, webhook, next_try, id LIMIT ?
"""
HELD = f"""
SELECT endpoint_id, webhook, partition, turn_at, next_try, id, updated_at
FROM retry_schedule {BY_HELD}
WHERE held = 1
    AND (endpoint_id, webhook, partition, turn_at, next_try, id) > (?, ?, ?, ?, ?, ?)
ORDER BY endpoint_id, webhook, partition, turn_at, next_try, id LIMIT ?
"""
MADE = f"""
SELECT id FROM (SELECT id FROM retry_schedule {BY_CREATED}
    WHERE created_at > ? AND {LISTED} LIMIT ?) AS listed
UNION ALL SELECT id FROM (SELECT id FROM retry_schedule {BY_RUNNING}
    WHERE created_at > ? AND {RUNNING} LIMIT ?) AS running
"""
"""PostgreSQL does not have what runs in the index by creation."""
ENDED = f"""
SELECT id FROM retry_schedule {BY_FINISHED}
WHERE status = ? AND finished_at IS NOT NULL AND finished_at > ? LIMIT ?
"""

_PAST = ("created_at", "finished_at", "retried_at", "turn_at", "updated_at")
_BACK = "{0} = CASE WHEN {0} > clock.at THEN clock.at ELSE {0} END"

# `scheduled_at` is that of a call which was to be made later, and has not been; a slot stays.
BRING_BACK = f"""
UPDATE retry_schedule {BY_ID}
SET next_try = CASE WHEN next_try > clock.at AND updated_at > clock.latest
        THEN next_try - (updated_at - clock.at) ELSE next_try END,
    backoff_until = CASE WHEN backoff_until > clock.at AND updated_at > clock.latest
        THEN backoff_until - (updated_at - clock.at) ELSE backoff_until END,
    scheduled_at = CASE WHEN scheduled_at > clock.at AND updated_at > clock.latest
        AND scheduled_at = next_try AND scheduled_at > created_at
        THEN scheduled_at - (updated_at - clock.at) ELSE scheduled_at END,
    {", ".join(map(_BACK.format, _PAST))}
FROM (SELECT CAST(? AS bigint) AS at, CAST(? AS bigint) AS latest) AS clock
WHERE id IN ({{ids}})
    AND (updated_at > clock.latest OR created_at > clock.latest OR finished_at > clock.latest)
RETURNING endpoint_id, webhook, status, next_try
"""

BRING_LEASES_BACK = """
UPDATE retry_schedule SET lease_until = CAST(? AS bigint)
WHERE status = 'running' AND lease_until > ?
"""

SUCCESS_BEFORE = f"""
SELECT max(attempts.started_at)
FROM retry_schedule JOIN attempts ON attempts.task_id = retry_schedule.id
WHERE endpoint_id = ? AND status = 'succeeded' AND {LISTED} AND kind = 'call'
    AND attempts.started_at <= ?
"""


@dataclass(slots=True)
class BroughtBack:
    """What lay ahead of now, and does no longer.

    Args:
        tasks: how many tasks.
        others: what else: the last success of an endpoint, bulks, throttles, daemons, leases.
        due: the keys of those that wait, and when the first of them is due.
    """

    tasks: int = 0
    others: int = 0
    due: dict[Key, int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.tasks or self.others)


async def bring_back(store: Store) -> BroughtBack:
    """Bring back what lies ahead of now though it cannot: a clock was wrong as it was written."""
    found = BroughtBack()
    for statement, first in ((WAITING, FIRST), (HELD, FIRST_HELD)):
        place: Place | None = first
        while place is not None:
            ids, place = await store.read(ahead(statement, store.clock.now_ms(), place))
            await _bring_back(store, ids, found)
    while ids := await store.read(ended_ahead(store.clock.now_ms())):
        if not await _bring_back(store, ids, found):
            break  # others were quicker
    successes = await store.read(successes_ahead(store.clock.now_ms()))
    found.others = await store.write(_others(successes))
    return found


async def _bring_back(store: Store, ids: Sequence[int], found: BroughtBack) -> int:
    changed = 0
    for start in range(0, len(ids), SLICE):
        changed += await store.write(_tasks(ids[start : start + SLICE], found.due))
    found.tasks += changed
    return changed


Place = tuple[str | int, ...]
"""Where a page ended: a key, for those held their partition and `turn_at`, `next_try` and id."""
FIRST: Place = ("", "", 0, 0)
FIRST_HELD: Place = ("", "", "", 0, 0, 0)


@long_reads
def ahead(db: Connection, statement: str, now: int, place: Place) -> tuple[list[int], Place | None]:
    """Of the next page of those that wait, by `WAITING` or `HELD`: which were written when `now`
    was still to come, and where the page ended, None for the last one."""
    rows = db.all(statement, (*place, PAGE))
    ids = [id_ for *_, due, id_, at in rows if due > now and at > now + AHEAD_MS]
    return ids, rows[-1][:-1] if len(rows) == PAGE else None


@long_reads
def ended_ahead(db: Connection, now: int) -> list[int]:
    """Tasks that were made, or have ended, when `now` was still to come; a page of them."""
    latest = now + AHEAD_MS
    rows = db.all(MADE, (latest, PAGE) * 2)
    for status in (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED):
        rows += db.all(ENDED, (status, latest, PAGE))
    return sorted({id_ for (id_,) in rows})


@long_reads
def successes_ahead(db: Connection, now: int) -> dict[str, int | None]:
    """Endpoints whose last success is still to come, and when the one before that began: what is
    asked for since then may come twice, and nothing is left out."""
    known = EndpointState
    query = known.select(known.endpoint_id).where(known.last_success_at > now + AHEAD_MS)
    return {name: db.value(SUCCESS_BEFORE, (name, now)) for (name,) in db.all(*sql(query))}


@writes(Rank.KEEP)
def _tasks(session: Session, ids: Sequence[int], due: dict[Key, int]) -> int:
    now = session.now()
    statement = BRING_BACK.format(ids=", ".join("?" * len(ids)))
    rows = session.db.all(statement, (now, now + AHEAD_MS, *ids))
    for endpoint_id, webhook, status, next_try in rows:
        if status == Status.PENDING:
            key = Key(endpoint_id, webhook)
            session.waits(key, next_try)
            due[key] = min(next_try, due.get(key, next_try))
    return len(rows)


@writes(Rank.KEEP)
def _others(session: Session, successes: Mapping[str, int | None]) -> int:
    """What else there is; how many."""
    now = session.now()
    latest = now + AHEAD_MS
    others = 0
    for endpoint_id, before in successes.items():
        known = EndpointState.update(last_success_at=before)
        known = known.where(
            EndpointState.endpoint_id == endpoint_id, EndpointState.last_success_at > latest
        )
        others += session.db.run(*sql(known))
    columns = BulkRow.created_at, BulkRow.updated_at, BulkRow.finished_at
    back = {column.name: Case(None, [(column > now, now)], column) for column in columns}
    others += session.db.run(*sql(BulkRow.update(**back).where(BulkRow.updated_at > latest)))
    # What was lifted would win over all that begins until then.
    since = ThrottleRow.since
    throttles = ThrottleRow.update(since=now, until=ThrottleRow.until - (since - now))
    others += session.db.run(*sql(throttles.where(since > latest)))
    others += shared_rates.bring_back(session)
    chores = ChoreRow.update(at=now, due=ChoreRow.due - (ChoreRow.at - now))
    others += session.db.run(*sql(chores.where(ChoreRow.at > latest)))
    return others + _batches(session, now, latest) + _leases(session)


def _batches(session: Session, now: int, latest: int) -> int:
    """Those that are open close as long after their first member as they were to."""
    member, batch = BatchMemberRow, BatchRow
    moved = member.update(at=now, closes_at=member.closes_at - (member.at - now))
    changed = session.db.run(*sql(moved.where(member.batch_id.is_null(), member.at > latest)))
    closed = batch.update(closed_at=now).where(batch.closed_at > latest)
    return changed + session.db.run(*sql(closed))


def _leases(session: Session) -> int:
    """Claims, chores and daemons that would be taken for alive for longer than any lease lasts."""
    now, own = session.leases.now(session.clock), round(session.leases.seconds * 1000)
    length = DaemonRow.lease_until - DaemonRow.beat_at
    daemons = DaemonRow.update(beat_at=now, lease_until=now + length)
    changed = session.db.run(*sql(daemons.where(DaemonRow.beat_at > now + AHEAD_MS)))
    last = now + max(own, session.db.value(*sql(DaemonRow.select(fn.MAX(length))), 0))
    changed += session.db.run(BRING_LEASES_BACK, (last, last + AHEAD_MS))
    chores = ChoreRow.update(lease_until=last).where(ChoreRow.lease_until > last + AHEAD_MS)
    return changed + session.db.run(*sql(chores))
