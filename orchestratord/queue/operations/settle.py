"""Settling: how an attempt ended, with everything that follows from it, in one transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from operator import attrgetter, itemgetter
from typing import Any

from orchestratord.model.partition_turn import HOLDS
from orchestratord.model.task import Attempt, Status, Task
from orchestratord.queue.batch import Rank, Write, reads
from orchestratord.queue.connection import BY_ID, Connection, ManyRows, Singly
from orchestratord.queue.operations.effects import Effects, apply_all_effects
from orchestratord.queue.operations.partitions import give_place, lock_tasks
from orchestratord.queue.records import Inserted, Settled, Settlement, Start, Started
from orchestratord.queue.rows import code_text, plain
from orchestratord.queue.session import HELD, RUNNING, Session, as_far_ahead, fence

# ruff: noqa: S608  # what is pasted here are columns, hints and the fence, never values

# A claim that no longer stands, and of what is to wait a cancel that was asked for, shows as a row
# that is missing in the number of those that were changed; nothing else changes rows meanwhile.
# `column1` and so on are what SQLite calls the columns of VALUES.
_HELD = f"""
WHERE id = new.column1 AND {RUNNING}
    AND retry_schedule.locked_by = new.column2 AND retry_schedule.claims = new.column3
"""

_FENCE = ("bigint", "text", "bigint")

_BACKOFF_UNTIL = as_far_ahead("backoff_until", "new.column4")
START = ManyRows(
    f"""
UPDATE OR ROLLBACK retry_schedule {BY_ID}
SET started_at = new.column4, updated_at = new.column4, alone = new.column5,
    backoff_until = {_BACKOFF_UNTIL}
FROM (VALUES {{rows}}) AS new {_HELD}
""",
    *_FENCE,
    "bigint",
    "bigint",
)

# A cancel that was asked for while it ran takes the place of another try, and of nothing else.
_WAITS = "new.column12 = 'pending'"
END = ManyRows(
    f"""
UPDATE OR ROLLBACK retry_schedule {BY_ID}
SET status = new.column12, next_try = new.column13,
    finished_at = CASE WHEN {_WAITS} THEN NULL ELSE new.column4 END,
    backed_off = CASE WHEN {_WAITS} THEN new.column14 ELSE backed_off END,
    backoff_until = CASE WHEN {_WAITS} AND new.column11 = 0 THEN new.column13
        WHEN {_WAITS} THEN {_BACKOFF_UNTIL} ELSE backoff_until END,
    held = CASE WHEN {_WAITS} AND partition_rule >= 0 THEN 1 ELSE 0 END,
    turn_at = COALESCE(new.column15, turn_at), waits_for = new.column16,
    last_status_code = new.column5, last_error = new.column6,
    response = COALESCE(new.column7, response), max_attempts = COALESCE(new.column8, max_attempts),
    deaths = COALESCE(new.column9, deaths), reason = new.column10,
    attempts = attempts - new.column11,
    started_at = CASE WHEN new.column11 = 1 THEN NULL ELSE started_at END,
    locked_by = NULL, lease_until = NULL, cancel_requested = 0, updated_at = new.column4
FROM (VALUES {{rows}}) AS new {_HELD} AND (cancel_requested = 0 OR NOT {_WAITS})
""",
    *_FENCE, "bigint", "text", "text", "text", "bigint", "bigint", "text", "bigint", "text",
    "bigint", "bigint", "bigint", "text",
)  # fmt: skip

# A success, as most ends are, of which there is nothing else to say: half as many values.
SUCCEED = ManyRows(
    f"""
UPDATE OR ROLLBACK retry_schedule {BY_ID}
SET next_try = NULL, finished_at = new.column4, status = 'succeeded',
    last_status_code = new.column5, last_error = NULL, reason = NULL, waits_for = NULL,
    response = COALESCE(new.column6, response),
    locked_by = NULL, lease_until = NULL, cancel_requested = 0, updated_at = new.column4
FROM (VALUES {{rows}}) AS new {_HELD}
""",
    *_FENCE, "bigint", "text", "text",
)  # fmt: skip

LOOK = ManyRows(
    f"""
UPDATE OR ROLLBACK retry_schedule {BY_ID}
SET looks = looks + 1, looked_since = COALESCE(looked_since, new.column2)
FROM (VALUES {{rows}}) AS new WHERE id = new.column1
""",
    "bigint",
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


def start(
    task: Task, at: int, effects: Effects, *, alone: bool = False, begins_run: bool = False
) -> Write[Started]:
    """Note, before the first byte is sent, that a claimed task starts; False if it may not.

    `effects`, those of the `before_` phase, are written with it. `alone`: a poison candidate beside
    which nothing is under way, which can be noted again once that has changed. `begins_run`: calls
    are among the effects, and it has no run yet.
    """
    s = Start(task, at, effects, alone, begins_run)
    row = *fence(task), at, int(alone)
    return Write(Rank.SETTLE, None, take_steps, (s, START, row, None, begins_run))


def settle(settlement: Settlement) -> Write[Settled]:
    """Write how a claim ended, with all that follows from it."""
    return Write(Rank.SETTLE, None, take_steps, _step(settlement))


@reads
def last_success(db: Connection) -> dict[str, int]:
    """Of each endpoint that ever had one: when its last call that succeeded began; and of each
    webhook, by `api/name#webhook`, when its last delivery did."""
    return dict(
        db.all(
            "SELECT endpoint_id, last_success_at FROM endpoint_state "
            "WHERE last_success_at IS NOT NULL"
        )
    )


Row = tuple[Any, ...]
Step = tuple[Start | Settlement, ManyRows, Row, Row | None, bool]
"""What becomes of a task, the statement that carries it out, its row there, and that of its
attempt; and whether more than these depends on it."""


_others_of = attrgetter("turn", "bulk_id", "replaces", "run_id")
_NO_OTHERS = None, None, None, None
_besides = attrgetter("error", "deaths", "reason", "uncounted")
_NOTHING_BESIDES = None, None, None, False


def _step(s: Settlement) -> Step:
    """Its rows are made before the transaction begins, for which others may wait."""
    task = s.task
    attempt = None if s.attempt is None else attempt_row(task.id, s.attempt)
    more = s.begins_run or _others_of(task) != _NO_OTHERS
    if (
        s.status == Status.SUCCEEDED
        and s.max_attempts in (None, task.max_attempts)
        and _besides(s) == _NOTHING_BESIDES
        and task.turn is None
    ):
        succeeded = *fence(task), s.at, code_text(s.status_code), s.response
        return s, SUCCEED, succeeded, attempt, more
    error, reason, waits = s.error, s.reason, s.status == Status.PENDING
    turn_at = None
    if task.ordered and not waits:  # whether it holds its partition
        turn_at = HOLDS if task.holds_after(s.status, reason) else 0
    row = (
        *fence(task), s.at, code_text(s.status_code), error if error is None else plain(error),
        s.response, s.max_attempts, s.deaths, reason if reason is None else str(reason),
        1 if s.uncounted else 0, str(s.status), s.next_try if waits else None, int(s.backed_off),
        turn_at, s.waits_for if s.waits_for is None else plain(s.waits_for),
    )  # fmt: skip
    return s, END, row, attempt, more or waits


def take_steps(session: Session, steps: Sequence[Step]) -> list[Any]:
    """Start and settle several tasks.

    Raises Singly where one of several claims no longer stands, or where a cancel was asked for. One
    that is alone is refused then.
    """
    rows: dict[ManyRows, list[Row]]
    rows = {START: [], SUCCEED: [], END: []}
    attempts: list[Row] = []
    others: list[Start | Settlement] = []
    for s, statement, row, attempt, more in steps:
        rows[statement].append(row)
        if more:
            others.append(s)
        if attempt is not None:
            attempts.append(attempt)
    places = [
        (s.task.id, s.task.replaces, s.status, s.reason)
        for s in others
        if isinstance(s, Settlement) and s.task.replaces is not None
    ]
    if places:
        ids = {s.task.id for s, *_ in steps} | {place for _, place, *_ in places}
        lock_tasks(session, ids)
    for statement, changed in rows.items():
        if not changed:
            continue
        changed.sort(key=_first)  # always in one order, against deadlocks
        if statement.run(session.db, changed) != len(changed):
            if session.db.singly:
                return [_refused(session, steps[0][0])]
            raise Singly
    done = list(map(_first, steps))
    for s in done:
        at = s.last_success_at
        if at is not None:
            session.succeeded(s.task.endpoint_id, s.task.webhook, at)
    for s in others:
        _note(session, s)
    session.moved(Status.RUNNING, Status.SUCCEEDED, len(rows[SUCCEED]))
    for status, count in Counter(map(_status_of, rows[END])).items():
        session.moved(Status.RUNNING, status, count)
    LOOK.run(
        session.db, [(s.task.id, s.at) for s in others if isinstance(s, Settlement) and s.look]
    )
    ATTEMPT.run(session.db, attempts)
    for replacement in places:
        give_place(session, *replacement)
    recurring = [(s.recurring, s.at) for s in done]
    inserted = apply_all_effects(session, list(map(_effects_of, done)), recurring)
    results = [_done(s, new) for s, new in zip(done, inserted, strict=True)]
    for place, s in enumerate(done) if rows[END] else ():
        if isinstance(s, Settlement) and s.task.holds_after(s.status, s.reason):
            results[place] = replace(results[place], holds=True)
    return results


def _refused(session: Session, s: Start | Settlement) -> Any:
    """The result of a step whose claim no longer stands, or where a cancel was asked for, which
    takes the place of another try."""
    if isinstance(s, Start):
        return False, _NONE
    waits = s.status == Status.PENDING
    asked = waits and session.db.one(CANCEL_ASKED, fence(s.task)) is not None
    return Settled(False, _NONE, cancel_asked=asked)


def _note(session: Session, s: Start | Settlement) -> None:
    """Note what depends on a step: the next claim of its key, the turns of a partition, a bulk, and
    a run."""
    task = s.task
    if isinstance(s, Start):
        session.runs.settled(task, Status.RUNNING, begins=True)
        return
    if s.status == Status.PENDING and s.next_try is not None:
        session.heard(task.key, s.next_try)  # it may be written later than that
    # Without an order or a limit, the turn of the next one came with the claim of this one.
    turn = task.turn
    if turn is not None and (turn.partition_rule != 0 or s.status == Status.PENDING):
        session.touch(task)
    session.outcome(task.bulk_id, s.status)
    if task.run_id is not None or s.begins_run:
        session.runs.settled(task, s.status, begins=s.begins_run)


_NONE: Sequence[Inserted] = []  # as `apply_effects` returns it; nothing is put into it
_SETTLED = Settled(True, _NONE)
"""What became of those of whose effects none is a new task, as of most."""


def _done(s: Start | Settlement, new: Sequence[Inserted]) -> Any:
    """The result of a step, of whose effects these are new tasks."""
    if isinstance(s, Start):
        return True, new
    return Settled(True, new) if new else _SETTLED


_first, _effects_of = itemgetter(0), attrgetter("effects")
_status_of = itemgetter(11)
"""Of a row of `END`."""


def attempt_row(task_id: int, row: Attempt) -> tuple[Any, ...]:
    """The row of `ATTEMPT`."""
    error = row.error
    return (
        task_id, row.attempt, row.started_at, row.duration_ms, code_text(row.status_code),
        error if error is None else plain(error), row.delay, plain(row.why),
    )  # fmt: skip
