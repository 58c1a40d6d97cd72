"""What people do to single tasks and endpoints: retry, cancel, resolve, pause."""

from __future__ import annotations

import json
from typing import Any

from orchestratord.errors import Conflict
from orchestratord.model.task import FINAL, KEEPS_DOUBT, Action, Status, Task
from orchestratord.queue.batch import Rank, reads, writes
from orchestratord.queue.connection import BY_READY, READY, Connection
from orchestratord.queue.models import ActionRow, sql
from orchestratord.queue.operations import partitions
from orchestratord.queue.operations.effects import apply_effects
from orchestratord.queue.operations.partitions import check_free, find_locked, give_place
from orchestratord.queue.operations.settle import ATTEMPT, attempt_row
from orchestratord.queue.records import Done, Inserted, Settlement
from orchestratord.queue.rows import TASK, code_text, params_of, plain, task_of
from orchestratord.queue.session import Session, random_nonce

# ruff: noqa: S608  # what is pasted here are columns and hints, never values

FIRST_OF_OTHERS = f"""
SELECT next_try FROM retry_schedule {BY_READY}
WHERE {READY} AND endpoint_id = ? AND webhook = ? AND id <> ?
ORDER BY next_try LIMIT 1
"""

RETRY = f"""
UPDATE retry_schedule
SET status = 'pending', next_try = ?, held = ?,
    turn_at = CASE WHEN partition_rule < 0
        THEN CASE WHEN held = 0 AND status = 'pending' THEN turn_at ELSE 1 END ELSE 0 END,
    granted = granted + ?, max_attempts = max_attempts + ?, generation = generation + ?,
    nonce = COALESCE(?, nonce), bulk_id = CASE WHEN ? = 0 THEN bulk_id END,
    retried_at = ?, reason = NULL, finished_at = NULL, backoff_until = NULL, updated_at = ?,
    looks = 0, looked_since = NULL, waits_for = NULL
WHERE id = ? RETURNING {TASK}
"""

CANCEL = f"""
UPDATE retry_schedule
SET status = 'cancelled', held = 0, turn_at = 0, {KEEPS_DOUBT}, next_try = NULL, finished_at = ?,
    updated_at = ?
WHERE id = ? RETURNING {TASK}
"""

AWAITS = "SELECT 1 FROM bulks WHERE id = ? AND action = 'retry' AND ended_at IS NULL"

RESOLVE = f"""
UPDATE retry_schedule
SET status = ?, reason = ?, held = 0, turn_at = 0, next_try = NULL, finished_at = ?, updated_at = ?,
    last_status_code = ?, last_error = ?, response = COALESCE(?, response), cancel_requested = 0,
    bulk_id = COALESCE(?, bulk_id)
WHERE id = ? RETURNING {TASK}
"""

ASK_TO_CANCEL = f"""
UPDATE retry_schedule SET cancel_requested = 1, updated_at = ? WHERE id = ? RETURNING {TASK}
"""


@writes(Rank.HAND)
def trigger(session: Session, task_id: int, *, force: bool = False) -> Task:
    """Make a task due now, before all others of its key; in an ordered partition, in its place.

    One that has no attempt left is granted one more. Raises NotFound, and Conflict where it runs;
    where it has succeeded and `force` is not given; and Overtaken where a later one of its ordered
    partition has started, and `force` is not given; and Replaced.
    """
    task = find_locked(session, task_id)
    if task.status == Status.RUNNING:
        raise Conflict(f"task {task_id} is running")
    if task.status == Status.SUCCEEDED and not force:
        raise Conflict(f"task {task_id} has succeeded; it runs again only with force")
    check_free(session, task, retries=True)
    now = session.now()
    held = partitions.ask_for_turn(session, task, force=force)
    row = session.db.one(FIRST_OF_OTHERS, (*task.key, task_id))
    next_try = now if row is None or task.ordered else min(now, row[0] - 1)
    if task.status == Status.PENDING and task.next_try is not None:
        next_try = min(next_try, task.next_try)
    more = max(task.attempts + 1 - task.max_attempts, 0)
    again = task.status == Status.SUCCEEDED
    # Random, and not the same with a number behind it: a backup that was restored would count
    # again from there.
    nonce = random_nonce() if again else None
    leaves = task.status in FINAL and not _awaits(session.db, task.bulk_id)
    values = (next_try, int(held), more, more, int(again), nonce, int(leaves), now, now, task_id)
    changed = session.db.one(RETRY, values)
    assert changed is not None
    if not leaves:  # it is waited for again, and counted once it has ended
        session.outcome(task.bulk_id, task.status, -1)
    session.moved(task.status, Status.PENDING)
    session.runs.move(task.run_id, task.status, Status.PENDING)
    if not held:
        session.waits(task.key, next_try)
    return task_of(changed)


def _awaits(db: Connection, bulk_id: int | None) -> bool:
    """Whether a bulk retries tasks and has not ended: else a manual retry is none of its own."""
    return bulk_id is not None and db.one(AWAITS, (bulk_id,)) is not None


@writes(Rank.HAND)
def cancel(session: Session, task_id: int) -> Task:
    """End a task that waits or has failed; ask one that runs not to be tried again.

    Raises NotFound, Replaced, and Conflict where it has succeeded.
    """
    task = find_locked(session, task_id)
    now = session.now()
    if task.status == Status.CANCELLED:
        return task
    if task.status == Status.SUCCEEDED:
        raise Conflict(f"task {task_id} has succeeded; there is nothing to cancel")
    check_free(session, task)
    if task.status == Status.RUNNING:
        row = session.db.one(ASK_TO_CANCEL, (now, task_id))
    else:
        row = session.db.one(CANCEL, (now, now, task_id))
        session.moved(task.status, Status.CANCELLED)
        session.outcome(task.bulk_id, task.status, -1)
        session.runs.move(task.run_id, task.status, Status.CANCELLED)
        session.touch(task)
        give_place(session, task.id, task.replaces, Status.CANCELLED, None)
    assert row is not None
    return task_of(row)


@writes(Rank.HAND)
def resolve(
    session: Session, settlement: Settlement, bulk_id: int | None = None
) -> tuple[Task, list[Inserted]]:
    """Write how a task ended that waits or has failed, as a person says, with all that follows.

    `bulk_id`: of the bulk that resolves it, if one does.
    The task, and one `Inserted` for each `Insert` among the effects. Raises NotFound, Replaced, and
    Conflict where the task has changed since it was read.
    """
    s, seen = settlement, settlement.task
    task = find_locked(session, seen.id)
    as_seen = seen.status, seen.claims, seen.updated_at
    if (task.status, task.claims, task.updated_at) != as_seen:
        raise Conflict(f"task {task.id} has changed meanwhile: it is {task.status}")
    check_free(session, task)
    row = session.db.one(
        RESOLVE,
        (s.status, s.reason, s.at, s.at, code_text(s.status_code), plain(s.error), s.response,
         bulk_id, task.id),
    )  # fmt: skip
    assert row is not None
    session.moved(task.status, s.status)
    session.touch(task)
    if s.begins_run and task.run_id is None:
        session.runs.begin(task.id, task.endpoint_id, task.created_at)
        session.runs.move(task.id, Status.PENDING, s.status)
    session.runs.resolve(task.run_id, task.status, s.status)
    if s.attempt is not None:
        with session.db.one_by_one():
            ATTEMPT.run(session.db, [attempt_row(task.id, s.attempt)])
    if s.last_success_at is not None:
        session.succeeded(task.endpoint_id, "", s.last_success_at)
    session.outcome(bulk_id or task.bulk_id, s.status)
    # A bulk that the task leaves for another one keeps its numbers.
    session.outcome(task.bulk_id if bulk_id is None else None, task.status, -1)
    give_place(session, task.id, task.replaces, s.status, s.reason)
    return task_of(row), apply_effects(session, s.effects)


@writes(Rank.HAND)
def pause(session: Session, endpoint_id: str, paused: bool) -> None:
    """Remember whether the calls of an endpoint wait."""
    session.paused[endpoint_id] = int(paused)


@reads
def paused(db: Connection) -> set[str]:
    """The endpoints whose calls wait."""
    rows = db.all("SELECT endpoint_id FROM endpoint_state WHERE paused = 1")
    return {endpoint_id for (endpoint_id,) in rows}


# -- The action log --------------------------------------------------------------------------------


@writes(Rank.HAND)
def record_action(session: Session, who: str, action: Action) -> int:
    """Write down what a person did; its number."""
    query = ActionRow.insert(
        at=session.now(), who=who, action=action.name, endpoint_id=action.endpoint,
        webhook=action.webhook, task_id=action.task, bulk_id=action.bulk,
        detail=json.dumps(action.detail, default=dict),
    )  # fmt: skip
    return session.db.insert(*sql(query))


@reads
def newest_actions(db: Connection, limit: int, after: int | None = None) -> list[Done]:
    """Up to `limit` of what people did, newest first, older than the number `after`."""
    query = ActionRow.select().order_by(ActionRow.id.desc()).limit(limit)
    if after is not None:
        query = query.where(ActionRow.id < after)
    return [_done(*row) for row in db.all(*sql(query))]


def _done(id_: int, at: int, who: str, name: str, *rest: Any) -> Done:
    endpoint, webhook, task, bulk, detail = rest
    detail = params_of(detail)
    return Done(id_, at, who, Action(name, endpoint, webhook, task, bulk, detail))
