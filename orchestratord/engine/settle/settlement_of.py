"""What is written of an attempt that has ended."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from orchestratord.engine.attempt_in_progress import AttemptResult
from orchestratord.engine.retry import SUCCESS
from orchestratord.engine.stored_answer import STORED_ERROR, error_record, response_record
from orchestratord.model.outcome import Outcome
from orchestratord.model.settings import Config
from orchestratord.model.task import Attempt, Status, Task
from orchestratord.plugin.executor import Target
from orchestratord.queue.records import Settlement, StoredEffect
from orchestratord.values.redact import Redactor

log = logging.getLogger("orchestratord.worker")


# -- What is written of an attempt -----------------------------------------------------------------


def settlement_of(
    task: Task,
    result: AttemptResult,
    config: Config,
    target: Target | None,
    effects: Sequence[StoredEffect],
    now: int,
) -> Settlement:
    """What to write for `task`, as it was claimed; `now` in milliseconds since the epoch."""
    decision, outcome, row = result.decision, result.outcome, result.attempt
    status, redactor = decision.status, config.redactor
    code, error, response = task.last_status_code, task.last_error, None
    if outcome is not None:
        code, error = outcome.status_code, None
        if outcome.error is not None and not result.look:  # which is no failure
            error = error_record(outcome.error, redactor)
        if outcome.response is not None:
            try:
                response = response_record(outcome.response, redactor.data, code)
            except Exception:  # it may be a plugin's; it was sent, and must not look unsent
                log.exception("cannot keep the answer to task %s", task.id)
    next_try, last_success_at = decision.next_try, None
    if result.uncounted and next_try is not None:
        # What costs no attempt does not shorten the delay that the last one which did has chosen.
        next_try = max(next_try, task.floor(now))
    if row is not None:
        if status is Status.SUCCEEDED:
            last_success_at = row.started_at
        if row.error is not None or row.why is not SUCCESS:
            row = _attempt_record(row, outcome, error, redactor)
    most = None if target is None else target.retry.max_attempts + task.granted
    waits_for = result.waits_for and error_record(result.waits_for, redactor)
    # By their places: by their names it takes more than twice as many instructions.
    return Settlement(
        task, status, now, decision.reason, next_try, code, error, response, row, result.uncounted,
        most, result.deaths, effects, last_success_at, decision.backed_off, False, result.recurring,
        result.look, waits_for,
    )  # fmt: skip


def _attempt_record(
    row: Attempt, outcome: Outcome | None, error: str | None, redactor: Redactor
) -> Attempt:
    """The row of an attempt as it is stored; `error`: that of its outcome, as it is stored."""
    why = redactor.text(row.why)
    if len(why) > STORED_ERROR:  # a plugin's reason can be as long as it likes
        why = f"{why[: STORED_ERROR - 1]}…"
    kept = row.error
    if kept is not None:
        same = outcome is not None and kept == outcome.error
        kept = error if same and error else error_record(kept, redactor)
    if kept != row.error or why != row.why:
        return replace(row, error=kept, why=why)
    return row
