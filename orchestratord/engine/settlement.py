"""From how an attempt ended to what is written of it: bounded, and without secrets."""

from __future__ import annotations

import base64
import codecs
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import httpx

from orchestratord.engine.attempt_result import AttemptResult
from orchestratord.log import info
from orchestratord.model.http_message import header_items
from orchestratord.model.settings import Config
from orchestratord.model.task import Delete, Kind, Status, Task, Upsert
from orchestratord.plugin.executor import Target
from orchestratord.queue.records import Insert, Settlement
from orchestratord.values.redact import Redactor
from orchestratord.values.status_set import StatusCode

log = logging.getLogger("orchestratord.worker")


def settlement_of(
    task: Task,
    ended: AttemptResult,
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
        uncounted=ended.give_back,
        max_attempts=target.retry.max_attempts + task.granted if target is not None else None,
        deaths=ended.deaths,
        effects=effects,
        last_success_at=last_success_at,
        ask=True,
    )


def log_settled(task: Task, ended: AttemptResult, status: str, config: Config) -> None:
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


# -- What is kept of an answer in the table --------------------------------------------------------

STORED_BODY = 20_000
"""Bytes."""
_LONGEST_SECRET = 16_384
"""Bytes."""
STORED_ERROR = 2_000
"""Characters."""


def response_record(
    response: httpx.Response, redactor: Redactor, status_code: StatusCode
) -> dict[str, Any]:
    """Status code, headers and the start of the body, as JSON-like data with secrets masked.

    `status_code` is the attempt's, which need not be a number.
    """
    content = response.content
    truncated = len(content) > STORED_BODY or bool(response.extensions.get("truncated"))
    if len(content) > STORED_BODY:
        content = response.extensions.get("excerpt", content)
    # A secret that the cut would go through is masked before it is cut.
    start = content[: STORED_BODY + _LONGEST_SECRET]
    whole = len(start) == len(content)
    try:
        if whole:
            text, coding = start.decode(), "utf-8"
        else:
            decoder = codecs.getincrementaldecoder("utf-8")()
            text, coding = decoder.decode(start), "utf-8"
    except UnicodeDecodeError:
        text, coding = start.decode("latin-1"), "latin-1"
    shown = redactor.text(text)
    masked = shown.encode(coding)
    if not whole:
        # The end of what was looked at may be half a secret, which masks before it bring nearer.
        masked = masked[: len(masked) + STORED_BODY - len(text.encode(coding))]
    record: dict[str, Any] = {
        "status_code": status_code,
        "headers": [list(pair) for pair in redactor.headers(header_items(response))],
    }
    if coding == "utf-8":
        fits = whole and len(masked) <= STORED_BODY
        record["body"] = shown if fits else masked[:STORED_BODY].decode(errors="ignore")
    else:
        record["body"] = base64.b64encode(masked[:STORED_BODY]).decode()
        record["encoding"] = "base64"
    record["truncated"] = truncated
    return record


def error_record(text: str | None, redactor: Redactor) -> str | None:
    """An error as it is stored: one line of bounded length, without secrets."""
    if text is None:
        return None
    # Before the lines are joined, which may break a secret up, and after, which may make one.
    line = redactor.text(" ".join(redactor.text(text).split()))
    return line if len(line) <= STORED_ERROR else line[: STORED_ERROR - 1] + "…"
