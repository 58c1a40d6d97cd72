"""Settling: how an attempt ended, with everything that follows from it, in one transaction."""

from __future__ import annotations

from orchestratord.queue.claims import HELD, fence
from orchestratord.queue.inserts import apply
from orchestratord.queue.records import Settled, Settlement
from orchestratord.queue.rows import code_text, json_text, plain
from orchestratord.queue.session import Session
from orchestratord.task import Attempt, Status

# A cancel that was asked for while it ran takes the place of another try, and of nothing else.
SETTLE = f"""
UPDATE retry_schedule
SET status = CASE WHEN cancel_requested = 1 AND ? THEN 'cancelled' ELSE ? END,
    next_try = CASE WHEN cancel_requested = 1 THEN NULL ELSE ? END,
    finished_at = CASE WHEN cancel_requested = 1 OR NOT ? THEN ? END,
    started_at = CASE WHEN ? THEN NULL ELSE started_at END,
    attempts = attempts - ?, reason = ?, last_status_code = ?, last_error = ?,
    response = COALESCE(?, response), max_attempts = COALESCE(?, max_attempts),
    deaths = COALESCE(?, deaths), locked_by = NULL, lease_until = NULL, cancel_requested = 0,
    updated_at = ?
WHERE {HELD}
"""  # noqa: S608  # the fence is text of ours

CANCEL_ASKED = f"SELECT 1 FROM retry_schedule WHERE {HELD} AND cancel_requested = 1"  # noqa: S608

STATUS = "SELECT status FROM retry_schedule WHERE id = ?"

ATTEMPT = """
INSERT INTO attempts (task_id, attempt, started_at, duration_ms, status_code, error, delay, why)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""

SUCCESS = """
INSERT INTO endpoint_state (endpoint_id, last_success_at) VALUES (?, ?)
ON CONFLICT (endpoint_id) DO UPDATE SET last_success_at = excluded.last_success_at
WHERE excluded.last_success_at > COALESCE(endpoint_state.last_success_at, 0)
"""


def settle(session: Session, settlement: Settlement) -> Settled:
    """Write it, if the claim still stands; else nothing."""
    s, task = settlement, settlement.task
    waits = s.status == Status.PENDING
    if waits and s.ask and session.db.one(CANCEL_ASKED, fence(task)):
        return Settled(False, Status.CANCELLED, [])
    held = session.db.run(
        SETTLE,
        (
            waits, s.status, s.next_try, waits, s.at, s.give_back, int(s.give_back), s.reason,
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
        _log_attempt(session, task.id, s.attempt)
    if s.last_success_at is not None:
        session.db.run(SUCCESS, (task.endpoint_id, s.last_success_at))
    return Settled(True, status, apply(session, s.effects))


def _log_attempt(session: Session, task_id: int, row: Attempt) -> None:
    session.db.run(
        ATTEMPT,
        (
            task_id, row.attempt, row.started_at, row.duration_ms, code_text(row.status_code),
            plain(row.error), row.delay, plain(row.why),
        ),
    )  # fmt: skip
