"""What throttles lanes, URLs, endpoints and webhooks, as the queue keeps it.

A row is written when a breaker opens or a receiver tells to wait, and deleted when that is over.
What a person lifts leaves a row with its time: what began before counts no more, in each daemon.
What failures had put off comes forward when a breaker closes, or a person wants it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from orchestratord.model.event import LIFTED, RETRY_AFTER, SAME_MS, StoredThrottle
from orchestratord.model.outcome import is_down_code
from orchestratord.model.task import Key
from orchestratord.queue.batch import Rank, long_reads, reads, writes
from orchestratord.queue.connection import BY_ID, BY_READY, READY, Connection
from orchestratord.queue.models import ThrottleRow, sql
from orchestratord.queue.operations.effects import Effects, apply_effects
from orchestratord.queue.records import Inserted, duplicates
from orchestratord.queue.rows import code_of
from orchestratord.queue.session import Session, as_far_ahead
from orchestratord.queue.store import Store

# ruff: noqa: S608  # what is pasted here are hints and question marks, never values

KEPT_MS = 24 * 3600 * 1000
"""How long it is remembered that something was lifted: each daemon looks every few seconds."""
GONE_MS = 7 * 24 * 3600 * 1000
"""After which what a daemon that is gone had found out says nothing any more."""

_ROW = ThrottleRow
_FIELDS = tuple(_ROW._meta.fields[name] for name in StoredThrottle._fields)
ALL = sql(_ROW.select(*_FIELDS).order_by(_ROW.name, _ROW.kind, _ROW.owner))


@reads
def stored(db: Connection) -> list[StoredThrottle]:
    """All rows; times are by the database's clock."""
    return [StoredThrottle(*row) for row in db.all(*ALL)]


class Change(NamedTuple):
    """That something began to throttle a scope, or does so no longer."""

    name: str
    """Of the scope."""
    kind: str
    began: bool
    after: int
    """What has begun before then (milliseconds) is not the same."""
    effects: Effects
    """What plugins have written with it."""


@writes(Rank.THROTTLE)
def note(
    session: Session,
    host: str,
    put: Sequence[StoredThrottle],
    drop: Sequence[StoredThrottle],
    changes: Sequence[Change] = (),
) -> list[Inserted]:
    """Write what has begun, or lasts longer, and delete what is over; with it, what follows from
    `changes`, unless another daemon has just found out that the same began. One result for each
    `Insert` among it."""
    _lock(session)
    theirs = [bool(one.effects and one.began) and _is_elsewhere(session, one) for one in changes]
    for row in put:
        lifted = _ROW.select(_ROW.since).where(_ROW.name == row.name, _ROW.kind == LIFTED)
        if session.db.value(*sql(lifted), -1) < row.since:
            _put(session, host, row)
    for row in drop:
        one = (_ROW.name == row.name, _ROW.kind == row.kind, _ROW.owner == row.owner)
        session.db.run(*sql(_ROW.delete().where(*one, _ROW.since <= row.since)))
    pairs = list(zip(changes, theirs, strict=True))
    ours = [effect for one, is_theirs in pairs if not is_theirs for effect in one.effects]
    made = iter(apply_effects(session, ours))
    return [
        item if is_theirs else next(made)
        for one, is_theirs in pairs
        for item in duplicates(one.effects)
    ]


def _lock(session: Session) -> None:
    """Keep others from changing what throttles: all daemons write the same rows, each in an order
    of its own, and two that find out the same see each other's."""
    session.lock_order((Key("throttles"),))


def _is_elsewhere(session: Session, change: Change) -> bool:
    """Whether what has begun had begun in another daemon, and goes on there."""
    now = session.leases.now(session.clock)
    query = _ROW.select(_ROW.since).where(
        _ROW.name == change.name,
        _ROW.kind == change.kind,
        _ROW.owner != session.owner,
        _ROW.since > max(now - SAME_MS, change.after),
        _ROW.until.is_null() | (_ROW.until > now),
    )
    return session.db.one(*sql(query.limit(1))) is not None


@writes(Rank.THROTTLE)
def lift(session: Session, name: str, at: int) -> None:
    """Note that all that throttled a scope until then was lifted."""
    _lock(session)
    ended = (_ROW.name == name, _ROW.since <= at)
    session.db.run(*sql(_ROW.delete().where(*ended)))
    _put(session, "", StoredThrottle(name, LIFTED, "", at))


@writes(Rank.THROTTLE)
def adopt(session: Session, host: str, alive: Collection[str], now: int) -> list[StoredThrottle]:
    """At the start: what holds here, with what was found out by daemons of this machine that are
    gone, whose rows are ours from now on.

    Args:
        session: of the daemon that begins.
        host: the name of this machine; empty where every other daemon is gone.
        alive: the owners that are not.
        now: milliseconds since the epoch, by the database's clock.
    """
    _lock(session)
    ended = (
        (_ROW.until < now)
        | ((_ROW.kind == LIFTED) & (_ROW.since < now - KEPT_MS))
        | ((_ROW.kind != RETRY_AFTER) & (_ROW.since < now - GONE_MS))
    )
    session.db.run(*sql(_ROW.delete().where(ended)))
    gone = (_ROW.owner != "") & _ROW.owner.not_in([*alive, session.owner])
    if host:
        gone &= _ROW.host == host
    query = _ROW.select(*_FIELDS).where((_ROW.owner == "") | gone)
    rows = [StoredThrottle(*row) for row in session.db.all(*sql(query))]
    session.db.run(*sql(_ROW.delete().where(gone)))
    mine = {(row.name, row.kind): row._replace(owner=session.owner) for row in rows if row.owner}
    for row in mine.values():
        _put(session, host, row)
    return [*(row for row in rows if not row.owner), *mine.values()]


def _put(session: Session, host: str, row: StoredThrottle) -> None:
    query = _ROW.insert(host=host, **row._asdict())
    query = query.on_conflict(
        conflict_target=[_ROW.name, _ROW.kind, _ROW.owner],
        preserve=[_ROW.host, _ROW.since, _ROW.until, _ROW.why],
    )
    session.db.run(*sql(query))


# -- What failures have put off --------------------------------------------------------------------

# Only what a task's own backoff put off comes forward, which its row says: not what Retry-After, a
# hook, `delay` or Snooze did. Where a breaker closed, it is only what has failed since, as breakers
# count it, and once for each attempt that counted; it costs nothing then. A person is not bound by
# that. It is looked for on the reading connection, a page at a time, since a million may wait for
# another reason, and changed in slices.

Place = tuple[int, int]
"""Where a page ended: a `next_try` and an id."""
PAGE = 5_000
"""Tasks that one look goes through."""
SLICE = 500
"""Tasks that are changed in one transaction."""

WAITING = f"""
SELECT next_try, id, backed_off, last_status_code, updated_at FROM retry_schedule {BY_READY}
WHERE {READY} AND endpoint_id = ? AND webhook = ? AND (next_try, id) > (?, ?)
ORDER BY next_try, id LIMIT ?
"""

COME_FORWARD = f"""
UPDATE retry_schedule {BY_ID}
SET next_try = ?, backed_off = 0, backoff_until = {{floor}}, updated_at = ?
WHERE id IN ({{ids}}) AND status || '' = 'pending' AND held = 0 AND next_try > ?
    AND backed_off BETWEEN 1 AND ?
RETURNING id
"""

FIRST_ATTEMPT = "SELECT min(started_at) FROM attempts WHERE task_id = ? AND started_at >= ?"


async def bring_forward(store: Store, key: Key, since: int, came: Callable[[], None]) -> None:
    """Have the tasks of a key due now that a failure put off.

    Args:
        store: the queue.
        key: whose tasks.
        since: when the failures began for which its breaker opened (milliseconds); 0 where a person
            wants them all.
        came: is called for each lot.
    """
    place: Place | None = (store.clock.now_ms(), 0)
    while place is not None:
        ids, place = await store.read(put_off(key, since, place))
        for start in range(0, len(ids), SLICE):
            lot = ids[start : start + SLICE]
            if await store.write(come_forward(key, lot, by_hand=not since)):
                came()


@long_reads
def put_off(db: Connection, key: Key, since: int, place: Place) -> tuple[list[int], Place | None]:
    """Of the next page of those that wait: which a failure put off, and where the page ended, None
    for the last one. `since` as in `bring_forward`."""
    rows = db.all(WAITING, (*key, *place, PAGE))
    ids = [
        id_
        for _, id_, backed_off, code, failed_at in rows
        if (backed_off and not since)
        or (backed_off == 1 and failed_at >= since and is_down_code(code_of(code)))
    ]
    return ids, rows[-1][:2] if len(rows) == PAGE else None


@writes(Rank.KEEP)
def come_forward(session: Session, key: Key, ids: Sequence[int], *, by_hand: bool) -> int:
    """Have these tasks of a key due now, as far as a failure put them off; how many. `by_hand`: a
    person wants that, and their attempts count."""
    now = session.now()
    # As it was: an older daemon knows no other floor.
    floor = "NULL" if by_hand else as_far_ahead("next_try", str(now))
    statement = COME_FORWARD.format(floor=floor, ids=", ".join("?" * len(ids)))
    found = session.db.all(statement, (now, now, *ids, now, 1 + by_hand))
    if found:
        session.waits(key, now)
    return len(found)


@reads
def first_attempt(db: Connection, task_id: int, since: int) -> int | None:
    """When the first attempt of a task began that began at `since` or later (milliseconds)."""
    began: int | None = db.value(FIRST_ATTEMPT, (task_id, since))
    return began
