"""Settling: how an attempt ended, with everything that follows from it, in one transaction."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from operator import itemgetter
from typing import Any

from orchestratord.errors import UniqueKeyReused
from orchestratord.model.task import Attempt, Status, Task, Upsert
from orchestratord.queue.batch import Batch, Rank, Write, reads, writes
from orchestratord.queue.connection import BY_ID, Connection, ManyRows, Singly
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
from orchestratord.queue.session import HELD, RUNNING, SUCCESS, Session, fence

# ruff: noqa: S608  # what is pasted here are columns, hints and the fence, never values

# A claim that no longer stands, and to `WAIT` a cancel that was asked for, shows as a row that is
# missing in the number of those that were changed; nobody else changes rows meanwhile. `column1`
# and so on are what SQLite calls the columns of VALUES.
_HELD = f"""
WHERE id = new.column1 AND {RUNNING}
    AND retry_schedule.locked_by = new.column2 AND retry_schedule.attempts = new.column3
"""

_ENDED = """
last_status_code = new.column5, last_error = new.column6,
response = COALESCE(new.column7, response), max_attempts = COALESCE(new.column8, max_attempts),
deaths = COALESCE(new.column9, deaths), reason = new.column10, attempts = attempts - new.column11,
started_at = CASE WHEN new.column11 = 1 THEN NULL ELSE started_at END,
locked_by = NULL, lease_until = NULL, cancel_requested = 0, updated_at = new.column4
"""

_FENCE = ("bigint", "text", "bigint")
_ENDS = (*_FENCE, "bigint", "text", "text", "text", "bigint", "bigint", "text", "bigint")

START = ManyRows(
    f"""
UPDATE OR ROLLBACK retry_schedule {BY_ID}
SET started_at = new.column4, updated_at = new.column4 FROM (VALUES {{rows}}) AS new {_HELD}
""",
    *_FENCE,
    "bigint",
)

END = ManyRows(
    f"""
UPDATE OR ROLLBACK retry_schedule {BY_ID}
SET status = new.column12, next_try = NULL, finished_at = new.column4, {_ENDED}
FROM (VALUES {{rows}}) AS new {_HELD}
""",
    *_ENDS,
    "text",
)

# A cancel that was asked for while it ran takes the place of another try, and of nothing else.
WAIT = ManyRows(
    f"""
UPDATE OR ROLLBACK retry_schedule {BY_ID}
SET status = 'pending', next_try = new.column12, finished_at = NULL, {_ENDED}
FROM (VALUES {{rows}}) AS new {_HELD} AND cancel_requested = 0
""",
    *_ENDS,
    "bigint",
)

CANCEL_ASKED = f"SELECT 1 FROM retry_schedule WHERE {HELD} AND cancel_requested = 1"

ATTEMPT = ManyRows(
    """
INSERT OR ROLLBACK INTO attempts
    (task_id, attempt, started_at, duration_ms, status_code, error, delay, why)
VALUES {rows}
""",
    "bigint", "bigint", "bigint", "float8", "text", "text", "float8", "text",
)  # fmt: skip


def start(task: Task, at: int, effects: Effects) -> Write[Started]:
    """Note, before the first byte is sent, that a claimed task starts; False if it may not.

    `effects`, those of the `before_` phase, are written with it.
    """
    return Write(Rank.SETTLE, None, STEPS, Start(task, at, effects))


def settle(settlement: Settlement) -> Write[Settled]:
    """Write how a claim ended, with all that follows from it."""
    # What was born has a slot, and waits for it.
    effects = settlement.effects
    patient = not effects or not any(isinstance(effect, Insert) for effect in effects)
    return Write(Rank.SETTLE, None, STEPS, settlement, patient)


@reads
def last_success(db: Connection) -> dict[str, int]:
    """Of each endpoint that ever had one: when its last call that succeeded began."""
    return dict(
        db.all(
            "SELECT endpoint_id, last_success_at FROM endpoint_state "
            "WHERE last_success_at IS NOT NULL"
        )
    )


def _start_alone(session: Session, begun: Start) -> Started:
    if not START.one(session.db, (*fence(begun.task), begun.at)):
        return False, []
    return True, apply_effects(session, begun.effects)


def _settle_alone(session: Session, s: Settlement) -> Settled:
    """Write it, if the claim still stands; else nothing."""
    task, status, row = s.task, s.status, _ended(s)
    if status == Status.PENDING and not WAIT.one(session.db, (*row, s.next_try)):
        if not session.db.one(CANCEL_ASKED, fence(task)):
            return Settled(False, status, [])
        status = Status.CANCELLED
        if s.ask:
            return Settled(False, status, [])
    if status != Status.PENDING and not END.one(session.db, (*row, str(status))):
        return Settled(False, s.status, [])
    session.moved(Status.RUNNING, status)
    if s.attempt is not None:
        ATTEMPT.one(session.db, _attempt(task.id, s.attempt))
    if s.last_success_at is not None:
        SUCCESS.one(session.db, (task.endpoint_id, s.last_success_at))
    return Settled(True, status, apply_effects(session, s.effects))


def _alone(session: Session, step: Start | Settlement) -> Any:
    if isinstance(step, Start):
        return _start_alone(session, step)
    return _settle_alone(session, step)


def _together(session: Session, steps: Sequence[Start | Settlement]) -> list[Any]:
    """Start and settle several tasks.

    Raises Singly where one of the claims no longer stands, or where a cancel was asked for.
    """
    starts: list[tuple[Any, ...]] = []
    ends: list[tuple[Any, ...]] = []
    waits: list[tuple[Any, ...]] = []
    attempts: list[tuple[Any, ...]] = []
    moves: dict[str, int] = {}
    for s in steps:
        if isinstance(s, Start):
            starts.append((*fence(s.task), s.at))
            continue
        if s.status == Status.PENDING:
            waits.append((*_ended(s), s.next_try))
        else:
            ends.append((*_ended(s), str(s.status)))
        moves[s.status] = moves.get(s.status, 0) + 1
        if s.attempt is not None:
            attempts.append(_attempt(s.task.id, s.attempt))
        if s.last_success_at is not None:
            session.succeeded(s.task.endpoint_id, s.last_success_at)
    for statement, rows in ((START, starts), (END, ends), (WAIT, waits)):
        rows.sort(key=_first)  # whoever changes several rows takes them in one order
        if statement.run(session.db, rows) != len(rows):
            raise Singly
    for status, count in moves.items():
        session.moved(Status.RUNNING, status, count)
    ATTEMPT.run(session.db, attempts)
    inserted = apply_all_effects(session, [s.effects for s in steps])
    return [
        (True, new) if isinstance(s, Start) else Settled(True, s.status, new)
        for s, new in zip(steps, inserted, strict=True)
    ]


_first = itemgetter(0)


STEPS: Batch[Start | Settlement, Any] = Batch(_alone, _together)
"""What becomes of tasks that are claimed: they start, and they are settled."""


def _ended(s: Settlement) -> tuple[Any, ...]:
    """The columns that `END` and `WAIT` have in common."""
    return (
        *fence(s.task), s.at, code_text(s.status_code), plain(s.error),
        None if s.response is None else json_text(s.response), s.max_attempts, s.deaths,
        None if s.reason is None else str(s.reason), int(s.uncounted),
    )  # fmt: skip


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


@writes(Rank.HAND)
def write_effects(session: Session, effects: Effects) -> list[Inserted]:
    """Write what hooks returned outside of any task; one result for each `Insert` among it."""
    return apply_effects(session, effects)


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
    """What `apply_effects` does, for the effects of several changes.

    Raises what the database raises for what it does not take: then `apply_effects` has to look at
    each.
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
