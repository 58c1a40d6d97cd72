"""Many tasks retried, cancelled or resolved manually: a row knows how far it is, and moves on in
steps.

What matches is looked for on the reading connection; the writer only touches rows that it is given
by id, and moves the cursor in the same transaction. So no task moves twice, whatever happens in
between, and the hot path waits for none of the looking.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from math import inf
from typing import Any

from orchestratord.errors import Conflict, NotFound
from orchestratord.model.task import KEEPS_DOUBT, Key, Reason, Status, Task
from orchestratord.queue import task_counts
from orchestratord.queue.batch import Rank, Write, long_reads, reads, writes
from orchestratord.queue.connection import BY_BULK, BY_ID, Connection, ManyRows
from orchestratord.queue.models import BulkRow, sql
from orchestratord.queue.operations import chores, partitions, search
from orchestratord.queue.operations.effects import apply_effects
from orchestratord.queue.operations.partitions import give_place, lock_tasks
from orchestratord.queue.records import CANCEL as CANCELLING
from orchestratord.queue.records import (
    CHANGED,
    OVERTAKEN,
    Bulk,
    Chore,
    Inserted,
    StoredEffect,
    TaskFilter,
)
from orchestratord.queue.records import RESOLVE as RESOLVING
from orchestratord.queue.records import RETRY as RETRYING
from orchestratord.queue.rows import params_of
from orchestratord.queue.session import OUTCOMES, Session, random_nonce
from orchestratord.queue.store import Store

# ruff: noqa: S608  # what is pasted here are columns and question marks, never values

COUNTED = ("succeeded", "failed", "waiting")
"""What no column says."""
COLUMNS = [BulkRow._meta.columns[one.name] for one in fields(Bulk) if one.name not in COUNTED]
RUNNING, PAUSED, FINISHED, CANCELLED = "running", "paused", "finished", "cancelled"
"""What a bulk is; while it is `PAUSED` it moves nothing, and can be resumed. It pauses with the
failure that is one too many; its row says so once its chore has told of that."""
CHORE = "bulk"
"""The kind of chore that moves the tasks of a bulk, waits for their ends, and tells of the last."""
ONE, _ = sql(BulkRow.select(*COLUMNS).where(BulkRow.id == 0))

MOST_WAITING = 10_000
"""Tasks of a bulk that are counted at most. Where more wait, they are those that have neither
succeeded nor failed, though other bulks may have some of them by now."""

MOVED = "id, endpoint_id, webhook, held, partition, partition_rule, run_id, replaces"

RETRY = f"""
UPDATE retry_schedule {BY_ID}
SET status = 'pending', bulk_id = ?, next_try = ?, backed_off = 0, backoff_until = NULL,
    held = CASE WHEN partition IS NULL THEN 0 ELSE 1 END,
    turn_at = CASE WHEN partition_rule < 0 THEN 1 ELSE 0 END,
    granted = granted
        + CASE WHEN attempts >= max_attempts THEN attempts + 1 - max_attempts ELSE 0 END,
    max_attempts = CASE WHEN attempts >= max_attempts THEN attempts + 1 ELSE max_attempts END,
    generation = generation + CASE WHEN status = 'succeeded' THEN 1 ELSE 0 END,
    retried_at = ?, reason = NULL, finished_at = NULL, updated_at = ?,
    looks = 0, looked_since = NULL, waits_for = NULL
WHERE id IN ({{ids}}) AND status = ? RETURNING {MOVED}
"""

# Random, so that a receiver takes what it had for something new.
NEW_NONCE = ManyRows(
    "UPDATE retry_schedule SET nonce = new.column2 FROM (VALUES {rows}) AS new "
    "WHERE id = new.column1",
    "bigint",
    "text",
)

HASTEN = f"""
UPDATE retry_schedule {BY_ID}
SET bulk_id = ?, next_try = CASE WHEN next_try < ? THEN next_try ELSE ? END, backed_off = 0,
    backoff_until = NULL, retried_at = ?, updated_at = ?, looks = 0, looked_since = NULL,
    waits_for = NULL
WHERE id IN ({{ids}}) AND status = 'pending' RETURNING {MOVED}
"""

CANCEL = f"""
UPDATE retry_schedule {BY_ID}
SET status = 'cancelled', bulk_id = ?, held = 0, turn_at = 0, {KEEPS_DOUBT}, next_try = NULL,
    finished_at = ?, updated_at = ?
WHERE id IN ({{ids}}) AND status = ? RETURNING {MOVED}
"""

ASK_TO_CANCEL = f"""
UPDATE retry_schedule {BY_ID} SET cancel_requested = 1, updated_at = ?
WHERE id IN ({{ids}}) AND status = 'running' RETURNING id
"""

REPLACED = f"""
SELECT replaces FROM retry_schedule {BY_ID} WHERE id IN ({{ids}}) AND replaces IS NOT NULL
"""

WAITING = f"""
SELECT count(*) FROM (SELECT 1 FROM retry_schedule {BY_BULK}
    WHERE bulk_id = ? AND status IN ('pending', 'running') LIMIT ?) AS found
"""

# Counted, and not noted by who resolves: what one has written that died before its next step, too.
RESOLVED = f"""
SELECT count(*) FROM retry_schedule {BY_BULK} WHERE bulk_id = ? AND id > ? AND id <= ?
"""

UNTRIED = f"""
SELECT count(*), count(*) FILTER (WHERE status = 'running')
FROM (SELECT status FROM retry_schedule {BY_BULK}
    WHERE bulk_id = ? AND status IN ('pending', 'running')
        AND (backed_off = 0 OR status = 'running') LIMIT ?) AS found
"""


Resolve = Callable[[Bulk, int], Awaitable[str | None]]
"""Ends a task as a bulk says; the reason why it cannot, if any."""


async def _as_it_is(bulk: Bulk, task_id: int) -> str | None:
    return CHANGED


async def step(
    store: Store,
    bulk_id: int,
    limit: int,
    obstacle: Callable[[Key], str | None] = lambda key: None,
    resolve: Resolve = _as_it_is,
) -> tuple[Bulk, dict[Key, list[int]]]:
    """Look at the next `limit` tasks of a bulk; the bulk now, and those moved, by their key.

    They are due now, or cancelled; one that runs and is asked not to be tried again is counted, and
    not among those. A retry skips the tasks of keys for which `obstacle` knows a reason why
    they would only wait or fail again. What is to be resolved is so by `resolve`. Raises NotFound.
    """
    seen = await store.read(row_of(bulk_id))
    if seen.status != RUNNING:
        return seen, {}
    found = await store.read(upcoming(seen, limit))
    ids: list[int] = []
    if seen.action == RESOLVING:
        reasons = await asyncio.gather(*(resolve(seen, id_) for id_, _ in found))
    else:
        reasons = [obstacle(key) if seen.action == RETRYING else None for _, key in found]
        ids = [id_ for (id_, _), reason in zip(found, reasons, strict=True) if reason is None]
    skipped = Counter(reason for reason in reasons if reason is not None)
    last = len(found) < limit
    cursor = seen.highest_id if last else found[-1][0]
    return await store.write(move_on(Move(seen, ids, skipped, cursor, last)))


@dataclass(frozen=True, slots=True)
class Survey:
    """Which tasks a bulk is about, before it begins.

    Args:
        filter: which tasks.
        highest_id: the newest task; later ones are left alone.
        counts: how many match, by reason and endpoint.
        left_out: how many more there would be, if the filter left nothing out, by reason.
    """

    filter: TaskFilter
    highest_id: int
    counts: Mapping[tuple[str | None, str], int]
    left_out: Mapping[str, int]

    @property
    def matched(self) -> int:
        """How many match."""
        return sum(self.counts.values())


@long_reads
def survey(db: Connection, wanted: TaskFilter) -> Survey:
    """How many match, up to the newest task."""
    highest = db.value("SELECT max(id) FROM retry_schedule", default=0)
    silent = (Reason.REPLACED, Reason.RESOLVED)
    unsaid = tuple(reason for reason in wanted.left_out if reason in silent)
    counts = search.count(db, replace(wanted, left_out=unsaid), highest)
    left_out: dict[str, int] = {}
    for reason, endpoint in list(counts):
        if reason in wanted.left_out:
            left_out[reason] = left_out.get(reason, 0) + counts.pop((reason, endpoint))
    return Survey(wanted, highest, counts, left_out)


@long_reads
def examples(db: Connection, survey: Survey, limit: int) -> list[Task]:
    """The first tasks that a bulk would move, without their payloads."""
    found = search.oldest(db, survey.filter, limit, 0, survey.highest_id)
    return search.listed(db, [id_ for id_, _ in found])


@writes(Rank.HAND)
def create(
    session: Session,
    action: str,
    survey: Survey,
    rate: float | None,
    stop_after: int = 0,
    resolution: Mapping[str, Any] | None = None,
) -> Bulk:
    """Write down what is to be done with these tasks; the bulk, and a chore that moves them.

    One that has nothing to do is finished at once. `rate`: tasks a second. `stop_after`: failures
    after which it pauses; 0 for never. `resolution`: as in `Bulk`.
    """
    now = session.now()
    wanted, matched = survey.filter, survey.matched
    status = RUNNING if matched else FINISHED
    new = BulkRow.insert(
        filter_=search.dump(wanted),
        resolution=None if resolution is None else json.dumps(resolution),
        rate=rate,
        status=status,
        highest_id=survey.highest_id,
        matched=matched,
        created_at=now,
        updated_at=now,
        finished_at=None if matched else now,
        ended_at=None if matched else now,
        stop_after=stop_after,
        stop_at=stop_after or None,
        action=action,
    )
    bulk = _get(session.db, session.db.insert(*sql(new)))
    chores.add(session, CHORE, bulk.id, now)
    return bulk


def with_default(action: str, wanted: TaskFilter) -> TaskFilter:
    """Without a status, the failed ones are meant; where they are cancelled, those that wait."""
    status = Status.PENDING if action == CANCELLING else Status.FAILED
    return wanted if wanted.status else replace(wanted, status=(str(status),))


@long_reads
def upcoming(db: Connection, bulk: Bulk, limit: int) -> list[tuple[int, Key]]:
    """The next tasks of a bulk, with their keys."""
    return search.oldest(db, bulk.filter, limit, bulk.cursor, bulk.highest_id)


@dataclass(frozen=True, slots=True)
class Move:
    """What is moved in one transaction."""

    seen: Bulk
    """As it was when `ids` were looked for; where it has moved on since, nothing is done."""
    ids: Sequence[int]
    skipped: Mapping[str, int]
    """How many beside them are not to be moved, and why."""
    cursor: int
    last: bool
    """There are none after these, and the bulk adds up: a task that matched once, and did not when
    its turn came, is skipped; one that came to match meanwhile is moved, and counts among those
    that matched."""


Moved = tuple[Bulk, dict[Key, list[int]]]
"""The bulk now, and the tasks that were moved, by their key."""


def move_on(move: Move) -> Write[Moved]:
    """Move these tasks, and the cursor to where it says; the bulk now, and key → moved tasks."""
    return Write(Rank.MOVE, None, _all_moves, move)


def _all_moves(session: Session, moves: Sequence[Move]) -> list[Moved | Exception]:
    """Those of several bulks, of which none is locked before all tasks are."""
    _lock_tasks(session, moves)
    results: dict[int, Moved | Exception] = {}
    for number in sorted(range(len(moves)), key=lambda n: moves[n].seen.id):
        try:
            results[number] = _carry_out(session, moves[number])
        except NotFound as error:  # it had written nothing
            results[number] = error
    return [results[number] for number in range(len(moves))]


def _lock_tasks(session: Session, moves: Sequence[Move]) -> None:
    """Lock the tasks by their ids, before any bulk, as those do who settle."""
    if not session.db.for_update:
        return
    ids = {id_ for move in moves for id_ in move.ids}
    found = session.db.all(REPLACED.format(ids=", ".join("?" * len(ids))), list(ids)) if ids else ()
    lock_tasks(session, ids | {place for (place,) in found})


def _carry_out(session: Session, move: Move) -> Moved:
    seen, ids = move.seen, move.ids
    bulk = _get(session.db, seen.id, session.db.for_update)
    if bulk.status != RUNNING or bulk.cursor != seen.cursor:
        return bulk, {}
    session.runs.write_roots(session.db)
    now = session.now()
    why = Counter(bulk.why_skipped)
    why.update(move.skipped)
    keys: dict[Key, list[int]] = {}
    moved = 0
    retries = bulk.action == RETRYING
    replaced = search.replaced_by(session.db, ids, retries=retries) if ids else {}
    ids = [id_ for id_ in ids if id_ not in replaced]
    overtaken = partitions.overtaken(session, ids, bulk.filter.status) if retries and ids else set()
    ids = [id_ for id_ in ids if id_ not in overtaken]
    why.update({Reason.REPLACED.value: len(replaced), OVERTAKEN: len(overtaken)})
    if bulk.action == RESOLVING:
        moved = session.db.value(RESOLVED, (bulk.id, bulk.cursor, move.cursor))
    for status in bulk.filter.status if ids else ():
        if bulk.action == CANCELLING:
            rows, asked = _cancel(session, bulk.id, status, ids, now)
        else:
            rows, asked = _move(session, bulk.id, status, ids, now), 0
        moved += len(rows) + asked
        after = Status.CANCELLED if bulk.action == CANCELLING else Status.PENDING
        for id_, endpoint_id, webhook, held, partition, rule, run_id, replaces in rows:
            key = Key(endpoint_id, webhook)
            session.runs.move(run_id, status, after)
            keys.setdefault(key, []).append(id_)
            if not held:
                session.waits(key, now)
            if partition is not None:
                session.touch_rule(key, partition, rule)
            give_place(session, id_, replaces, after, None)
    why[CHANGED] += max(len(ids) - moved, 0)
    moved += bulk.moved
    if move.last:
        why[CHANGED] += max(bulk.matched - moved - why.total(), 0)
    changes = {
        "cursor": move.cursor,
        "matched": max(bulk.matched, moved + why.total()) if move.last else bulk.matched,
        "moved": moved,
        "skipped": why.total(),
        "why_skipped": json.dumps(+why),
    }
    if move.last:
        changes |= {"status": FINISHED, "finished_at": now}
        if bulk.action != RETRYING:
            changes |= {"ended_at": now}
    return _change(session, bulk.id, changes, now), keys


def _move(
    session: Session, bulk_id: int, status: str, ids: Sequence[int], now: int
) -> list[tuple[Any, ...]]:
    marks = ", ".join("?" * len(ids))
    if status == Status.PENDING:
        return session.db.all(HASTEN.format(ids=marks), (bulk_id, now, now, now, now, *ids))
    if status == Status.RUNNING:
        return []
    rows = session.db.all(RETRY.format(ids=marks), (bulk_id, now, now, now, *ids, status))
    if status == Status.SUCCEEDED:
        NEW_NONCE.run(session.db, [(id_, random_nonce()) for id_, *_ in rows])
    session.moved(status, Status.PENDING, len(rows))
    return rows


def _cancel(
    session: Session, bulk_id: int, status: str, ids: Sequence[int], now: int
) -> tuple[list[tuple[Any, ...]], int]:
    """Those that are cancelled, and how many were asked to be."""
    marks = ", ".join("?" * len(ids))
    if status == Status.RUNNING:
        return [], len(session.db.all(ASK_TO_CANCEL.format(ids=marks), (now, *ids)))
    if status not in (Status.PENDING, Status.FAILED):
        return [], 0
    rows = session.db.all(CANCEL.format(ids=marks), (bulk_id, now, now, *ids, status))
    session.moved(status, Status.CANCELLED, len(rows))
    return rows, 0


@writes(Rank.KEEP)
def cancel(session: Session, bulk_id: int) -> Bulk:
    """Stop where it is; one that has ended stays as it is. Raises NotFound."""
    bulk = _get(session.db, bulk_id, session.db.for_update)
    if bulk.status not in (RUNNING, PAUSED):
        return bulk
    now = session.now()
    chores.add(session, CHORE, bulk_id, now)
    return _change(session, bulk_id, {"status": CANCELLED, "finished_at": now}, now)


@writes(Rank.KEEP)
def resume(session: Session, bulk_id: int) -> Bulk:
    """Have one that has paused go on, until as many more have failed. Raises NotFound, Conflict."""
    session.write_moves()
    bulk = _get(session.db, bulk_id, session.db.for_update)
    if bulk.status != PAUSED:
        raise Conflict(f"bulk {bulk_id} is {bulk.status}, and not paused")
    changes = {"status": RUNNING, "stop_at": bulk.failed + bulk.stop_after}
    chores.add(session, CHORE, bulk_id, session.now())
    return _change(session, bulk_id, changes, session.now())


@writes(Rank.KEEP)
def look_after(session: Session, bulk_id: int) -> tuple[Bulk, bool]:
    """Note of one that moves nothing more where the last of what it moved has ended: the bulk, and
    whether that was noted now. Raises NotFound."""
    session.write_moves()  # what ended the last one may be of this transaction
    bulk = _get(session.db, bulk_id, session.db.for_update)
    over = bulk.status in (RUNNING, PAUSED) or bulk.ended_at is not None
    if over or _waiting(session.db, bulk_id, 1):
        return bulk, False
    now = session.now()
    return _change(session, bulk_id, {"ended_at": now}, now), True


@writes(Rank.KEEP)
def end_chore(
    session: Session, chore: Chore, seen: Bulk, effects: Sequence[StoredEffect]
) -> list[Inserted] | None:
    """There is nothing more to do for a bulk that has paused or ended, and this follows from that;
    None where it has changed since it was `seen`, or another daemon has its chore."""
    bulk = _get(session.db, seen.id, session.db.for_update)
    if bulk.status != seen.status or not chores.end(session, chore):
        return None
    if bulk.status == PAUSED:
        _change(session, bulk.id, {"status": PAUSED}, session.now())
    return apply_effects(session, effects)


def _change(session: Session, bulk_id: int, changes: Mapping[str, Any], now: int) -> Bulk:
    query = BulkRow.update(**changes, updated_at=now).where(BulkRow.id == bulk_id)
    row = session.db.one(*sql(query.returning(*COLUMNS)))
    assert row is not None
    return _bulk_of(session.db, row)


@long_reads
def get(db: Connection, bulk_id: int) -> Bulk:
    """One bulk, with how many of its tasks wait. Raises NotFound."""
    return _with_waiting(db, _get(db, bulk_id))


@reads
def row_of(db: Connection, bulk_id: int) -> Bulk:
    """One bulk as its row has it. Raises NotFound."""
    return _get(db, bulk_id)


@reads
def untried(db: Connection, bulk_id: int, most: int) -> tuple[int, int]:
    """How many of what a bulk has moved have neither ended nor backed off since, counted up to
    `most`; and how many of them run."""
    ((count, running),) = db.all(UNTRIED, (bulk_id, most))
    return count, running


def _waiting(db: Connection, bulk_id: int, most: int) -> int:
    return int(db.value(WAITING, (bulk_id, most)))


def _with_waiting(db: Connection, bulk: Bulk) -> Bulk:
    if bulk.ended_at is not None:
        return bulk
    found = _waiting(db, bulk.id, MOST_WAITING)
    if found == MOST_WAITING:
        found = max(found, bulk.moved - bulk.succeeded - bulk.failed)
    return replace(bulk, waiting=found)


def _get(db: Connection, bulk_id: int, lock: str = "") -> Bulk:
    """`lock` is the connection's `for_update`, or nothing."""
    row = db.one(ONE + lock, (bulk_id,))
    if row is None:
        raise NotFound.of("bulk", bulk_id)
    return _bulk_of(db, row)


@long_reads
def newest(db: Connection, limit: int) -> list[Bulk]:
    """The latest ones, newest first."""
    query = BulkRow.select(*COLUMNS).order_by(BulkRow.id.desc()).limit(limit)
    return [_with_waiting(db, _bulk_of(db, row)) for row in db.all(*sql(query))]


_NAMES = tuple(field.name for field in fields(Bulk) if field.name not in COUNTED)


def _bulk_of(db: Connection, row: tuple[Any, ...]) -> Bulk:
    values = dict(zip(_NAMES, row, strict=True))
    ended = task_counts.total(db, values["id"])
    values |= {str(status): ended[status] for status in OUTCOMES}
    if values["status"] == RUNNING and values["failed"] >= (values["stop_at"] or inf):
        values["status"] = PAUSED
    if values["resolution"] is not None:
        values["resolution"] = params_of(values["resolution"])
    values["filter"] = search.parse(values["filter"])
    return Bulk(**values | {"why_skipped": params_of(values["why_skipped"])})
