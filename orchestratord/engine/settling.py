"""From how an attempt ended to what is written of it: bounded, and without secrets."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from orchestratord.engine.ending import Ended
from orchestratord.engine.record import error_record, response_record
from orchestratord.executor import Target
from orchestratord.log import info
from orchestratord.queue.records import Insert, Settlement
from orchestratord.settings import Config
from orchestratord.task import Delete, Kind, Status, Task, Upsert

log = logging.getLogger("orchestratord.worker")


def settlement_of(
    task: Task,
    ended: Ended,
    config: Config,
    target: Target | None,
    effects: Sequence[Insert | Upsert | Delete],
    now: int,
) -> Settlement:
    """What to write for `task`, as it was claimed; `now` in milliseconds since the epoch."""
    decision, outcome, row = ended.decision, ended.outcome, ended.attempt
    redactor = config.redactor
    response = None
    if outcome is not None and outcome.response is not None:
        response = response_record(outcome.response, redactor, outcome.status_code)
    error = error_record(outcome.error, redactor) if outcome is not None else task.last_error
    if row is not None:
        why = redactor.text(row.why)
        kept = error if outcome is not None and row.error == outcome.error else None
        kept = kept or error_record(row.error, redactor)
        if kept != row.error or why != row.why:
            row = replace(row, error=kept, why=why)
    last_success_at = None
    if decision.status is Status.SUCCEEDED and task.kind == Kind.CALL and row is not None:
        last_success_at = row.started_at
    return Settlement(
        task=task,
        status=decision.status,
        at=now,
        reason=decision.reason,
        next_try=decision.next_try,
        status_code=outcome.status_code if outcome is not None else task.last_status_code,
        error=error,
        response=response,
        attempt=row,
        give_back=ended.give_back,
        max_attempts=target.retry.max_attempts + task.granted if target is not None else None,
        deaths=ended.deaths,
        effects=effects,
        last_success_at=last_success_at,
        ask=True,
    )


def log_settled(task: Task, ended: Ended, status: str, config: Config) -> None:
    """One line for what became of an attempt."""
    level = logging.WARNING if status == Status.FAILED else logging.INFO
    if not log.isEnabledFor(level):
        return
    decision, outcome = ended.decision, ended.outcome
    name = f"{task.endpoint_id} {task.webhook}" if task.webhook else task.endpoint_id
    code = outcome.status_code if outcome is not None else None
    words = f"{task.kind} {task.id} {name}: attempt {task.attempts} {code or 'not sent'}, {status}"
    error = error_record(outcome.error, config.redactor) if outcome is not None else None
    if status != Status.SUCCEEDED:
        words += f" ({decision.reason or decision.why})"
        if error is not None and not isinstance(code, int):
            words += f": {error}"

    def fields() -> dict[str, Any]:
        return {
            "task_id": task.id,
            "kind": task.kind,
            "endpoint": task.endpoint_id,
            "webhook": task.webhook or None,
            "attempt": task.attempts,
            "status": status,
            "reason": decision.reason,
            "status_code": code,
            "error": error,
            "next_try": decision.next_try,
            "duration_ms": ended.attempt.duration_ms if ended.attempt is not None else None,
        }

    if level == logging.INFO:
        info(log, words, fields)
    else:
        log.log(level, "%s", words, extra=fields())
