"""What is on disk is published: the log, counters, observers, and what waits for it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

from orchestratord.engine import task_events
from orchestratord.engine.attempt_in_progress import AttemptResult
from orchestratord.engine.lanes.placement import Placement
from orchestratord.engine.settle.held_claims import Claims
from orchestratord.engine.stats import Stats
from orchestratord.log import info
from orchestratord.model.task import FINAL, Reason, Status
from orchestratord.plugin.event_bus import EventBus
from orchestratord.queue.records import Settled, Settlement
from orchestratord.values import doc_links
from orchestratord.values.clock import Clock

log = logging.getLogger("orchestratord.worker")


SettledAttempt = tuple[Settlement, Settled, AttemptResult]
"""A claim that has ended, as it is on disk, and what it was settled with."""


class PublishedEnds:
    """Publishes that claims are settled: the log, counters, observers, and what waits for them."""

    def __init__(
        self, claims: Claims, placement: Placement, events: EventBus, stats: Stats, clock: Clock
    ) -> None:
        self._claims = claims
        self._placement = placement
        self._events = events
        self._stats = stats
        self._clock = clock

    def publish(self, attempts: Sequence[SettledAttempt]) -> None:
        """These are on disk, all those of one transaction at once."""
        ends = [settlement for settlement, _, _ in attempts if not settlement.look]
        try:
            log_settled(attempts)
            self._stats.count(ends)
            if self._events.listening:
                self._events.publish_all(task_events.settled(ends))
        except Exception:
            log.exception("cannot publish the ends of %d tasks", len(attempts))
        self._claims.waiters.all_finished(end.task.id for end in ends if end.status in FINAL)
        for settlement, settled, result in attempts:
            if settlement.status == Status.SUCCEEDED:
                continue  # as of nearly all, of which nothing else follows
            try:
                self._follow_up(settlement, settled, result)
            except Exception:
                log.exception("cannot follow up the end of task %s", settlement.task.id)

    def _follow_up(self, settlement: Settlement, settled: Settled, result: AttemptResult) -> None:
        """Tell the lanes what an end means for the task, its partition, or its webhook."""
        task, reason = settlement.task, settlement.reason
        if settlement.status == Status.PENDING:
            self._placement.touched(task.key, settlement.next_try or settlement.at)
        if settled.holds:
            self._placement.arm(task.key, self._clock.steady())  # it may be gone by now
            self._events.publish(task_events.partition_held(task, reason, settlement.at))
        if reason == Reason.WEBHOOK_DISABLED and result.attempt is not None:
            self._claims.webhook_disabled(task, settlement.at)


LINE = 82
"""Bytes of what INFO says of an attempt: a line of 120 with its time, level and logger."""
DOOMED = (Reason.ENDPOINT_REMOVED, Reason.WEBHOOK_REMOVED, Reason.WEBHOOK_DISABLED)


def log_settled(attempts: Iterable[SettledAttempt]) -> None:
    """A line for what became of each of these attempts."""
    lines: list[str] = []
    about: list[SettledAttempt] = []
    for one in attempts:
        settlement, _, result = one
        task, status, outcome = settlement.task, settlement.status, result.outcome
        name = f"{task.endpoint_id} {task.webhook}" if task.webhook else task.endpoint_id
        code = None if outcome is None else outcome.status_code
        line = f"{task.kind} {task.id} {name}: attempt {task.attempts} {code or 'not sent'}, "
        if status == Status.SUCCEEDED:
            line += "succeeded"
        else:
            line += f"{status} ({settlement.reason or result.decision.why})"
            error = _error_of(settlement, result)
            if error is not None and not error.startswith(f"{code} "):
                line += f": {error}"
            # Of what is removed or disabled thousands fail at once: `RemovedTasks` tells of them.
            if status == Status.FAILED and (result.attempt or settlement.reason not in DOOMED):
                info(log, lines, _fields, about)
                lines, about = [], []
                log.warning("%s", line, extra=_fields(*one))
                continue
        if len(encoded := line.encode()) > LINE:  # the task has all of it
            line = f"{encoded[: LINE - 3].decode(errors='ignore')}…"
        lines.append(line)
        about.append(one)
    info(log, lines, _fields, about)


def _fields(settlement: Settlement, _: Settled, result: AttemptResult) -> dict[str, Any]:
    """What the JSON format has beside the line."""
    task, reason, row = settlement.task, settlement.reason, settlement.attempt
    return {
        "task_id": task.id,
        "kind": task.kind,
        "endpoint": task.endpoint_id,
        "webhook": task.webhook or None,
        "attempt": task.attempts,
        "status": settlement.status,
        "reason": reason,
        "status_code": None if result.outcome is None else settlement.status_code,
        "error": _error_of(settlement, result),
        "next_try": settlement.next_try,
        "duration_ms": None if row is None else row.duration_ms,
        **({"help": doc_links.trouble(reason)} if reason else {}),
    }


def _error_of(settlement: Settlement, result: AttemptResult) -> str | None:
    """That of the attempt; where there was none, the task keeps an earlier one's."""
    return None if result.outcome is None else settlement.error
