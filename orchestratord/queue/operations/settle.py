"""Settling: how an attempt ended, with everything that follows from it, in one transaction."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from operator import itemgetter
from typing import Any

from orchestratord.errors import UniqueKeyReused
from orchestratord.model.task import Attempt, Status, Upsert
from orchestratord.queue.batch import Batch, ManyRows, Singly
from orchestratord.queue.database import BY_ID
from orchestratord.queue.operations.claim_sqlite import HELD, RUNNING, fence
from orchestratord.queue.operations.insert import NewRows, insert_one
from orchestratord.queue.operations.plugin_rows import Upserts, delete, upsert
from orchestratord.queue.records import (
    Insert,
    Inserted,
    Settled,
    Settlement,
    Start,
    Started,
    StoredEffect,
)
from orchestratord.queue.rows import code_text, json_text, plain
from orchestratord.queue.session import Session

# ruff: noqa: S608  # what is pasted here are columns, hints and the fence, never values

START = f"UPDATE retry_schedule SET started_at = ?, updated_at = ? WHERE {HELD}"

# A cancel that was asked for while it ran takes the place of another try, and of nothing else.
SETTLE = f"""
UPDATE retry_schedule
SET status = CASE WHEN cancel_requested = 1 AND ? THEN 'cancelled' ELSE ? END,
    next_try = CASE WHEN cancel_requested = 1 THEN NULL ELSE CAST(? AS bigint) END,
    finished_at = CASE WHEN cancel_requested = 1 OR NOT ? THEN CAST(? AS bigint) END,
    started_at = CASE WHEN ? THEN NULL ELSE started_at END,
    attempts = attempts - ?, reason = ?, last_status_code = ?, last_error = ?,
    response = COALESCE(?, response), max_attempts = COALESCE(?, max_attempts),
    deaths = COALESCE(?, deaths), locked_by = NULL, lease_until = NULL, cancel_requested = 0,
    updated_at = ?
WHERE {HELD}
"""

CANCEL_ASKED = f"SELECT 1 FROM retry_schedule WHERE {HELD} AND cancel_requested = 1"

STATUS = "SELECT status FROM retry_schedule WHERE id = ?"

_ATTEMPT = """
INTO attempts (task_id, attempt, started_at, duration_ms, status_code, error, delay, why)
"""

ATTEMPT = f"INSERT {_ATTEMPT} VALUES (?, ?, ?, ?, ?, ?, ?, ?)"

_SUCCESS = """
ON CONFLICT (endpoint_id) DO UPDATE SET last_success_at = excluded.last_success_at
WHERE excluded.last_success_at > COALESCE(endpoint_state.last_success_at, 0)
"""

SUCCESS = f"INSERT INTO endpoint_state (endpoint_id, last_success_at) VALUES (?, ?) {_SUCCESS}"

# The same for many. A cancel that was asked for, or a claim that no longer stands, shows as a row
# that is missing in the number of those that were changed; nobody else changes rows meanwhile.
# `column1` and so on are what SQLite calls the columns of VALUES.
_HELD = f"""
WHERE id = new.column1 AND {RUNNING}
    AND retry_schedule.locked_by = new.column2 AND retry_schedule.attempts = new.column3
"""

_SHARED = """
last_status_code = new.column5, last_error = new.column6,
response = COALESCE(new.column7, response), max_attempts = COALESCE(new.column8, max_attempts),
deaths = COALESCE(new.column9, deaths), locked_by = NULL, lease_until = NULL,
cancel_requested = 0, updated_at = new.column4
"""

_FENCE = ("bigint", "text", "bigint")
_ENDS = (*_FENCE, "bigint", "text", "text", "text", "bigint", "bigint")

START_MANY = ManyRows(
    f"""
UPDATE OR ROLLBACK retry_schedule {BY_ID}
SET started_at = new.column4, updated_at = new.column4 FROM (VALUES {{rows}}) AS new {_HELD}
""",
    *_FENCE,
    "bigint",
)

END_MANY = ManyRows(
    f"""
UPDATE OR ROLLBACK retry_schedule {BY_ID}
SET status = new.column10, reason = new.column11, next_try = NULL, finished_at = new.column4,
    {_SHARED}
FROM (VALUES {{rows}}) AS new {_HELD}
""",
    *_ENDS,
    "text",
    "text",
)

WAIT_MANY = ManyRows(
    f"""
UPDATE OR ROLLBACK retry_schedule {BY_ID}
SET status = 'pending', reason = NULL, next_try = new.column10, finished_at = NULL,
    started_at = CASE WHEN new.column11 = 1 THEN NULL ELSE started_at END,
    attempts = attempts - new.column11, {_SHARED}
FROM (VALUES {{rows}}) AS new {_HELD} AND cancel_requested = 0
""",
    *_ENDS,
    "bigint",
    "bigint",
)

ATTEMPT_MANY = ManyRows(
    f"INSERT OR ROLLBACK {_ATTEMPT} VALUES {{rows}}",
    "bigint", "bigint", "bigint", "float8", "text", "text", "float8", "text",
)  # fmt: skip

SUCCESS_MANY = ManyRows(
    "INSERT OR ROLLBACK INTO endpoint_state (endpoint_id, last_success_at) "
    f"VALUES {{rows}} {_SUCCESS}",
    "text",
    "bigint",
)


def start(session: Session, begun: Start) -> Started:
    """Note that the task may send from now on. False, and nothing written, if it is not ours."""
    if not session.db.run(START, (begun.at, begun.at, *fence(begun.task))):
        return False, []
    return True, apply_effects(session, begun.effects)


def settle(session: Session, settlement: Settlement) -> Settled:
    """Write it, if the claim still stands; else nothing."""
    s, task = settlement, settlement.task
    waits = s.status == Status.PENDING
    if waits and s.ask and session.db.one(CANCEL_ASKED, fence(task)):
        return Settled(False, Status.CANCELLED, [])
    held = session.db.run(
        SETTLE,
        (
            waits, s.status, s.next_try, waits, s.at, s.uncounted, int(s.uncounted), s.reason,
            code_text(s.status_code), plain(s.error),
            None if s.response is None else json_text(s.response), s.max_attempts, s.deaths, s.at,
            *fence(task),
        ),
    )  # fmt: skip
    if not held:
        return Settled(False, s.status, [])
    status = s.status
    if waits and (row := session.db.one(STATUS, (task.id,))):  # RETURNING is dearer, for all
        status = row[0]
    session.moved(Status.RUNNING, status)
    if s.attempt is not None:
        session.db.run(ATTEMPT, _attempt(task.id, s.attempt))
    if s.last_success_at is not None:
        session.db.run(SUCCESS, (task.endpoint_id, s.last_success_at))
    return Settled(True, status, apply_effects(session, s.effects))


def alone(session: Session, step: Start | Settlement) -> Started | Settled:
    """Start or settle one task."""
    return start(session, step) if isinstance(step, Start) else settle(session, step)


def together(session: Session, steps: Sequence[Start | Settlement]) -> list[Started | Settled]:
    """Start and settle several tasks.

    Raises Singly where one of the claims no longer stands, or where a cancel was asked for.
    """
    starts: list[tuple[Any, ...]] = []
    ends: list[tuple[Any, ...]] = []
    waits: list[tuple[Any, ...]] = []
    attempts: list[tuple[Any, ...]] = []
    moves: dict[str, int] = {}
    for s in steps:
        id_, owner, number = fence(s.task)
        if isinstance(s, Start):
            starts.append((id_, owner, number, s.at))
            continue
        shared = (
            id_, owner, number, s.at, code_text(s.status_code), plain(s.error),
            None if s.response is None else json_text(s.response), s.max_attempts, s.deaths,
        )  # fmt: skip
        if s.status == Status.PENDING:
            if s.reason is not None:
                raise Singly
            waits.append((*shared, s.next_try, int(s.uncounted)))
        else:
            if s.uncounted or s.next_try is not None:
                raise Singly
            reason = None if s.reason is None else str(s.reason)
            ends.append((*shared, str(s.status), reason))
        moves[s.status] = moves.get(s.status, 0) + 1
        if s.attempt is not None:
            attempts.append(_attempt(id_, s.attempt))
        if s.last_success_at is not None:
            session.succeeded(s.task.endpoint_id, s.last_success_at)
    for statement, rows in ((START_MANY, starts), (END_MANY, ends), (WAIT_MANY, waits)):
        rows.sort(key=_first)  # whoever changes several rows takes them in one order
        if statement.run(session.db, rows) != len(rows):
            raise Singly
    for status, count in moves.items():
        session.moved(Status.RUNNING, status, count)
    ATTEMPT_MANY.run(session.db, attempts)
    inserted = apply_all_effects(session, [s.effects for s in steps])
    return [
        (True, new) if isinstance(s, Start) else Settled(True, s.status, new)
        for s, new in zip(steps, inserted, strict=True)
    ]


_first = itemgetter(0)


def write_successes(session: Session) -> None:
    """Write what was noted of successes. Raises what the database raises."""
    SUCCESS_MANY.run(session.db, sorted(session.successes.items()))


STEPS = Batch(alone, together)
"""What becomes of tasks that are claimed: they start, and they are settled."""


def _attempt(task_id: int, row: Attempt) -> tuple[Any, ...]:
    return (
        task_id, row.attempt, row.started_at, row.duration_ms, code_text(row.status_code),
        plain(row.error), row.delay, plain(row.why),
    )  # fmt: skip


# -- What hooks return, written with the change that caused it -------------------------------------

log = logging.getLogger("orchestratord.queue")

Effects = Sequence[StoredEffect]

NONSENSE = (UniqueKeyReused, TypeError, ValueError, RecursionError)
"""What is raised for what cannot be written, before it is tried."""


def apply_effects(session: Session, effects: Effects) -> list[Inserted]:
    """Write what hooks returned, in order; one result for each `Insert` among it.

    What the database will never take is logged and left out: a plugin's mistake must not hold up
    the task that it was made for.
    """
    now = session.now()
    inserted: list[Inserted] = []
    for effect in effects:
        try:
            with session.db.guard():
                if isinstance(effect, Insert):
                    inserted.append(insert_one(session, effect, now))
                elif isinstance(effect, Upsert):
                    upsert(session, effect)
                else:
                    delete(session, effect)
        except Exception as error:
            if not (isinstance(error, NONSENSE) or session.db.failures.is_unfit(error)):
                raise
            _leave_out(effect, error, inserted)
    return inserted


def apply_all_effects(session: Session, groups: Sequence[Effects]) -> list[list[Inserted]]:
    """What `apply` does, for the effects of several changes.

    Raises what the database raises for what it does not take: then `apply` has to look at each.
    """
    if not any(groups):
        return [[] for _ in groups]
    expected = sum(isinstance(effect, Insert) for effects in groups for effect in effects)
    new, upserts = NewRows(session, expected), Upserts(session)
    results: list[list[Inserted]] = []
    for effects in groups:
        inserted: list[Inserted] = []
        for effect in effects:
            try:
                if isinstance(effect, Insert):
                    inserted.append(new.add(effect))
                elif isinstance(effect, Upsert):
                    upserts.add(effect)
                else:
                    upserts.flush()
                    delete(session, effect)
            except NONSENSE as error:
                _leave_out(effect, error, inserted)
        results.append(inserted)
    new.flush()
    upserts.flush()
    return results


def _leave_out(effect: StoredEffect, error: Exception, inserted: list[Inserted]) -> None:
    what = f"a task of {effect.task.key}" if isinstance(effect, Insert) else effect.table
    log.error("what a plugin wrote is left out (%s): %s", what, error, exc_info=error)
    if isinstance(effect, Insert):
        inserted.append(Inserted(0, effect.task.key, None, None, duplicate=True))
