"""Claims: taken, given back, taken over from dead daemons; and when there is something to claim."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from orchestratord.model.task import RESOLVED, Key, Task
from orchestratord.queue import shared_rates
from orchestratord.queue.batch import Rank, Read, Write, reads, writes
from orchestratord.queue.connection import BY_ENDPOINT, BY_RUNNING, RUNNING, Connection
from orchestratord.queue.models import ChoreRow, DaemonRow, sql
from orchestratord.queue.records import Claimed, Pick
from orchestratord.queue.session import HELD, RELEASE_CLAIM, Session, fence, released
from orchestratord.queue.store import Store

# ruff: noqa: S608  # what is pasted here are hints and the fence, never values

RELEASE = RELEASE_CLAIM.format(which=f"WHERE {HELD}")

LAST_ATTEMPT = "SELECT max(id) FROM attempts"

BEGUN = f"""
SELECT endpoint_id, webhook, attempts.started_at, duration_ms FROM attempts
JOIN retry_schedule ON retry_schedule.id = attempts.task_id
WHERE attempts.id > ? AND attempts.id <= ? AND attempts.status_code IS NOT NULL
    AND substr(why, 1, {len(RESOLVED)}) <> '{RESOLVED}'
"""

UNDER_WAY = f"""
SELECT endpoint_id, webhook, started_at FROM retry_schedule {BY_RUNNING} WHERE {RUNNING}
"""

LOOKED = tuple(
    f"""
SELECT looks, looked_since, updated_at FROM retry_schedule {by}
WHERE endpoint_id = ? AND status {is_} 'running' AND looks > 0 AND updated_at >= ?
"""
    for by, is_ in ((BY_ENDPOINT, "<>"), (BY_RUNNING, "="))
)

FORSAKE = f"""
UPDATE retry_schedule {BY_RUNNING} SET lease_until = ? WHERE status = 'running' AND locked_by = ?
"""

CLAIMS_OF = f"""
SELECT id, claims FROM retry_schedule {BY_RUNNING} WHERE status = 'running' AND locked_by = ?
"""

_PAGE, _PAGES = 2_000, 100


def claim(picks: Sequence[Pick]) -> Write[Claimed]:
    """Claim what is due of each key. Do not cancel this: the claims would have no owner."""
    return Write(
        Rank.CLAIM,
        lambda session: session.claim(picks),
        less=lambda session: session.claim([pick._replace(limit=1) for pick in picks]),
    )


@writes(Rank.SETTLE)
def release_claims(session: Session, tasks: Sequence[Task]) -> list[str | None]:
    """Give claims back that did not start; their attempt does not count.

    The status of each now: `cancelled` where that was asked for, None where the claim no longer
    stood.
    """
    now = session.now()
    statuses: list[str | None] = []
    for task in tasks:
        row = session.db.one(RELEASE, (*released(now), *fence(task)))
        if row is not None:  # its run may have begun with the start that did not come to pass
            session.unstarted(row)
        statuses.append(None if row is None else row[0])
    return statuses


async def reclaim(store: Store, held: Collection[int] = ()) -> tuple[int, list[Task]]:
    """Take over what dead daemons held; call it until there is nothing.

    Claims that did not start are pending again: how many. Those that did are returned, ours.
    One file has one daemon: every other owner is dead. In a shared database those are whose
    lease has run out. `held`: the tasks that we know to hold; they stay as they are.
    """
    ours = frozenset(held)
    if not await store.read(Read(lambda db: db.claims_run_out(store.owner, ours))):
        return 0, []
    return await store.write(Write(Rank.CLAIM, lambda session: session.reclaim(ours)))


@writes(Rank.CLAIM)
def forsake(session: Session, owners: Collection[str]) -> None:
    """What these owners hold may be taken over at once, tasks and chores: they are known to be
    dead, and are no longer listed among the daemons."""
    ran_out = session.leases.now(session.clock) - 1
    for owner in owners:
        session.db.run(FORSAKE, (ran_out, owner))
        chores = ChoreRow.update(lease_until=ran_out).where(ChoreRow.owner == owner)
        session.db.run(*sql(chores))
        session.db.run(*sql(DaemonRow.delete().where(DaemonRow.owner == owner)))


def renew(held: Collection[int]) -> Write[int]:
    """Renew the leases of tasks that we hold, as far as they need it; how many did."""
    ours = frozenset(held)
    return Write(Rank.CLAIM, lambda session: session.renew(ours))


@reads
def unheld(db: Connection, owner: str, held: Collection[int]) -> list[tuple[int, int]]:
    """Tasks that run under `owner` beside those that it holds, and the numbers of their claims."""
    return [(id_, claims) for id_, claims in db.all(CLAIMS_OF, (owner,)) if id_ not in held]


# -- What there is to claim ------------------------------------------------------------------------


@reads
def earliest(db: Connection) -> dict[Key, int]:
    """Every key with pending tasks, and when its first one is due."""
    return {Key(*names): next_try for *names, next_try in db.earliest_keys()}


# -- What of a rate is used up ---------------------------------------------------------------------


@reads
def begun(db: Connection, since: int) -> list[tuple[Key, int]]:
    """Attempts that are under way, or have ended and sent something, and that began at `since`
    (milliseconds) or later: whose they are, and when they began. Of the last 200,000 at most.

    By their ids, which are in the order in which they ended: no index holds their times.
    """
    found = [(Key(*row[:2]), row[2]) for row in db.all(UNDER_WAY) if (row[2] or 0) >= since]
    last = db.value(LAST_ATTEMPT, default=0)
    for _ in range(_PAGES):
        rows = db.all(BEGUN, (last - _PAGE, last))
        found += [(Key(row[0], row[1]), row[2]) for row in rows if row[2] >= since]
        last -= _PAGE
        if last <= 0 or (rows and max(row[2] + row[3] for row in rows) < since):
            break
    return found


@reads
def looked(db: Connection, endpoint_ids: Collection[str], since: int) -> list[tuple[Key, int]]:
    """Looks of these endpoints at `since` (milliseconds) or later, as `begun` has attempts. A row
    knows the first of its looks, how many there were, and when it was written last: those between
    count as evenly spread."""
    found: list[tuple[Key, int]] = []
    for id_ in endpoint_ids:
        for statement in LOOKED:
            for looks, first, last in db.all(statement, (id_, since)):
                apart = max((last - first) / max(looks - 1, 1), 1)
                most = min(looks, int((last - since) / apart) + 1)
                found += [(Key(id_), round(last - apart * n)) for n in range(most)]
    return found


async def charge_past(store: Store, past: shared_rates.Past) -> None:
    """Charge lanes whose rate is counted in the queue with what began before it was.

    Nothing happens to lanes that were charged lately; where there is one daemon, it counts by
    itself, but for those of a day.
    """
    kept = {lane: of for lane, of in past.items() if store.several_daemons or of[0].is_kept}
    if kept:
        await store.write(Write(Rank.CLAIM, lambda of: shared_rates.charge_past(of, kept)))


async def rates(store: Store, kept: Collection[str] = ()) -> dict[str, tuple[int, list[list[int]]]]:
    """Of lanes with a rate that is counted in the queue: the time by the database's clock, and what
    of it began lately, pairs of a time and how many. Where there is one daemon these are the lanes
    that are `kept`, since their limit is of a day."""
    if store.several_daemons:
        return await store.read(Read(shared_rates.charged))
    if not kept:
        return {}
    found = await store.read(Read(shared_rates.charged))
    return {lane: stamps for lane, stamps in found.items() if lane in kept}
