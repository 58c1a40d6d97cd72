"""The executor sends the request of an attempt; from here on it may have been carried out."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from functools import partial
from typing import Any

from orchestratord.engine.attempt.deadlines import Deadlines
from orchestratord.engine.attempt.decide import Decisions
from orchestratord.engine.attempt_in_progress import AttemptInProgress, AttemptResult
from orchestratord.engine.feedback import Feedback
from orchestratord.engine.lanes.lane_set import LaneSet
from orchestratord.engine.poison import SURELY
from orchestratord.engine.retry import Decision
from orchestratord.engine.settle.held_claims import Claims
from orchestratord.engine.stored_answer import error_record
from orchestratord.http.api_client import AttemptClient
from orchestratord.model.outcome import Outcome, Send
from orchestratord.model.task import Status, Task
from orchestratord.plugin.isolation import check_outcome, is_ctrl_c
from orchestratord.values import world
from orchestratord.values.clock import Clock

log = logging.getLogger("orchestratord.attempt")
worker_log = logging.getLogger("orchestratord.worker")

HALT = 0.25
"""Seconds without a claim where this machine lacks what it takes to send."""
SHORTAGE_DELAY = 1.0
"""Seconds after which what could not be sent for that is tried again."""
NO_PORT = "this machine has no local port left towards it"

SHORTAGE_TOLD = 10.0
"""Seconds between two lines of the log about what this machine lacks."""


class ShortageLog:
    """Says now and then that this machine lacks what it takes to send."""

    def __init__(self) -> None:
        self._again = 0.0
        """When it may say so again (`world.monotonic`)."""

    def log(self, error: str | None, delay: float) -> None:
        """Attempts are given back for this, and made again after so many seconds."""
        if world.monotonic() < self._again:
            return
        self._again = world.monotonic() + SHORTAGE_TOLD
        worker_log.error(
            "this daemon lacks what it takes to send (%s): such attempts are given back, and made "
            "again after %gs; `orchestratord doctor` shows its limits",
            error, delay,
        )  # fmt: skip


class Sending:
    """Has executors send, and makes of whatever they do how the attempt ended."""

    def __init__(
        self,
        claims: Claims,
        lanes: LaneSet,
        deadlines: Deadlines,
        decisions: Decisions,
        feedback: Feedback,
        clock: Clock,
    ) -> None:
        self._claims, self._lanes = claims, lanes
        self._deadlines = deadlines
        self._decisions = decisions
        self._feedback = feedback
        self._clock = clock
        self._shortages = ShortageLog()

    async def send(self, attempt: AttemptInProgress) -> AttemptResult:
        """Have the executor send it. From here on it may have been carried out: whatever goes wrong
        must not make it look unsent."""
        plan, task = attempt.plan, attempt.task
        self._deadlines.begin(attempt)
        try:
            try:
                send: Send = AttemptClient(plan.client).send
                if self._claims.poison.is_alone(task) and task.deaths < SURELY:
                    send = partial(self._send_alone, task, send)
                outcome = await plan.executor.execute(attempt.request, task, plan.target, send)
                check_outcome(outcome)
                # What the executor judges is not a plugin's decision against the rules of retry.
                outcome = replace(outcome, decided_by=None) if outcome.decided_by else outcome
            except BaseException as fault:  # it may be a plugin's, a cancellation of its own too
                outcome = self._fault(attempt, fault)
            finally:
                self._deadlines.end(attempt.running)
            if outcome.shortage and not outcome.maybe_done:
                return self._not_sent(attempt, outcome)
            return await self._decisions.conclude(attempt, outcome)
        except (Exception, asyncio.CancelledError) as error:
            return self._decisions.unclear(attempt, error)

    async def _send_alone(self, task: Task, send: Send, *words: Any, **options: Any) -> Any:
        """Send the request of a poison candidate. While an answer is waited for, nothing of it is
        carried out here: a death comes from outside then."""
        await self._claims.note_company(task)
        try:
            return await send(*words, **options)
        finally:
            if self._claims.poison.is_alone(task):
                await self._claims.note_company(task, alone=True)

    def _fault(self, attempt: AttemptInProgress, fault: BaseException) -> Outcome:
        """The outcome of an executor that has raised."""
        running, plan = attempt.running, attempt.plan
        if is_ctrl_c(fault):
            raise fault
        cancelled = isinstance(fault, asyncio.CancelledError)
        if cancelled and running in self._deadlines.overdue:
            error = self._deadlines.overdue[running]
        elif cancelled and self._deadlines.stopping:
            # The daemon stops and cannot wait any longer for this answer.
            running.uncancel()
            attempt.interrupted = True
            error = "the daemon was stopped before an answer came"
            return Outcome("retry", "error", error=error, maybe_done=True)
        else:
            log.exception("the executor of task %s failed", attempt.task.id)
            error = f"{type(fault).__name__}: {fault}"
        verdict = "retry" if "error" in plan.target.retry.when else "failure"
        return Outcome(verdict, "error", error=error, maybe_done=True)  # type: ignore[arg-type]

    def _not_sent(self, attempt: AttemptInProgress, outcome: Outcome) -> AttemptResult:
        """Nothing was sent, and the receiver cannot help it: the attempt is given back."""
        next_try = self._clock.now_ms() + round(SHORTAGE_DELAY * 1000)
        if outcome.receiver_only:
            self._feedback.wait_here(attempt.lane, next_try, NO_PORT)
        else:
            self._lanes.halt(HALT)
        error = error_record(outcome.error, attempt.plan.config.redactor)
        self._shortages.log(error, SHORTAGE_DELAY)
        why = "not sent, as this machine lacks something: the attempt is given back"
        decision = Decision(Status.PENDING, why, None, next_try)
        return AttemptResult(decision, outcome, None, uncounted=True)
