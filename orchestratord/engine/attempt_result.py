"""How an attempt ended: the decision, told to the hooks, and what they want written with it.

Here are also the ends of what was never sent: refused, expired, removed, lost with a dead daemon.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, replace
from typing import Any

from orchestratord.engine.retry import AMBIGUOUS, Decision, last_one
from orchestratord.model.endpoint import Endpoint
from orchestratord.model.outcome import Outcome, Send
from orchestratord.model.settings import Config
from orchestratord.model.task import Attempt, Effect, Reason, Status, Task
from orchestratord.plugin.executor import Executor, Target
from orchestratord.plugin.hookspecs import END_PHASES
from orchestratord.plugin.host import Host, Reached
from orchestratord.values.clock import Clock

POISON_AFTER = 3
"""Starts that end with the daemon's death."""


@dataclass(slots=True)
class Run:
    """One attempt under way: what it is made with, as it was when it began, and what it came to.

    Args:
        task: as it was claimed.
        lane: whose slot it has.
        target: what the configuration says of its key.
        executor: what carries it out.
        config: the configuration in force.
        send: the client, within the attempt's deadline.
        running: the asyncio task of the attempt.
        began: when it began, milliseconds since the epoch.
        clock: the same by `time.monotonic`.
        request: what is sent, once it is made.
        interrupted: the daemon stopped before it had ended.
        result: how it ended; None until then, and where the claim was lost to another daemon.
    """

    task: Task
    lane: str
    target: Target
    executor: Executor
    config: Config
    send: Send
    running: asyncio.Task[Any]
    began: int
    clock: float
    request: Any = None
    interrupted: bool = False
    result: AttemptResult | None = None

    def elapsed(self) -> float:
        """Milliseconds since it began."""
        return round((time.monotonic() - self.clock) * 1000, 3)


@dataclass(slots=True)  # not frozen: it is made for each attempt, which takes twice as long then
class AttemptResult:
    """How an attempt ended and what is to be written with it."""

    decision: Decision
    outcome: Outcome | None
    attempt: Attempt | None
    effects: list[Effect] = field(default_factory=list)
    uncounted: bool = False
    """The attempt does not count."""
    deaths: int | None = None
    request: Any = None
    after: str | None = None
    """The after_ phase that was reached, None for none."""


class ResultTeller:
    """Tells the hooks how attempts end."""

    def __init__(self, host: Host, clock: Clock) -> None:
        self._host = host
        self._clock = clock

    async def tell(
        self, reached: Reached, decision: Decision, row: Attempt | None, after: str | None
    ) -> AttemptResult:
        """Collect what the telling hooks want written with the decision.

        Args:
            reached: the attempt as it ended: `outcome` as the hooks left it, `task` as it was
                claimed, `endpoint` as it was when the attempt began (None where it is gone).
            decision: what becomes of the task.
            row: the row of the attempt; None where there was none.
            after: the after_ phase that was reached; None for none.
        """
        host, task, endpoint = self._host, reached.task, reached.endpoint
        outcome, phase = reached.outcome, END_PHASES.get(decision.status)
        assert outcome is not None
        announcing = endpoint is not None and host.concerned("announce", task.kind, endpoint)
        telling = None
        if phase is not None and (endpoint is not None or phase == "on_final_failure"):
            telling = host.concerned(phase, task.kind, endpoint)
        if outcome.final_reason != decision.reason:
            outcome = replace(outcome, final_reason=decision.reason)
        effects: list[Effect] = []
        if announcing or telling:  # as for few calls
            reached.outcome, reached.next_try = outcome, decision.next_try
            reached.task = task.after(
                decision.status, decision.reason, decision.next_try,
                outcome.status_code, outcome.error,
            )  # fmt: skip
            if announcing:
                for name in (after, phase):
                    if name is not None:
                        reached.phase = name
                        effects += await host.collect("announce", reached)
            if telling and phase is not None:
                effects += await host.collect(phase, reached)
        return AttemptResult(decision, outcome, row, effects, request=reached.request, after=after)

    async def lost(
        self,
        task: Task,
        endpoint: Endpoint | None,
        target: Target | None,
        executor: Executor | None,
        config: Config,
    ) -> AttemptResult:
        """Settle an attempt that had started when its daemon died.

        `target` and `executor` are None where today's configuration has none for it.
        """
        now = self._clock.now_ms()
        deaths = task.deaths + 1
        error = "the daemon died while this attempt was under way"
        outcome = Outcome("retry", "error", error=error, maybe_done=True)
        allowed = task.max_attempts
        if target is not None:
            allowed = target.retry.max_attempts + task.granted
        if not task.idempotent:
            decision = Decision(Status.FAILED, AMBIGUOUS, Reason.AMBIGUOUS)
        elif deaths >= POISON_AFTER:
            why = f"{deaths} starts ended with the daemon's death"
            decision = Decision(Status.FAILED, why, Reason.POISONED)
        elif task.attempts >= allowed:
            decision = Decision(Status.FAILED, last_one(task, allowed), Reason.EXHAUSTED)
        else:
            decision = Decision(Status.PENDING, "lost with the daemon: again at once", None, now, 0)
        began = task.started_at or now
        row = Attempt(task.attempts, began, 0.0, "error", error, decision.delay, decision.why)
        phase = executor.phases[1] if executor is not None else None
        reached = Reached(task, endpoint, config, outcome)
        result = await self.tell(reached, decision, row, phase)
        result.deaths = deaths
        return result

    async def fail(
        self,
        task: Task,
        endpoint: Endpoint | None,
        config: Config,
        reason: Reason,
        error: str,
        *,
        request: Any = None,
        began: int | None = None,
    ) -> AttemptResult:
        """Fail a task that sent nothing: its status code is null and no after_ phase is reached.

        `began` is given where an attempt was made and is to be logged; without it the claim was
        only made to fail the task, and does not count.
        """
        decision = Decision(Status.FAILED, reason.value, reason)
        row = None
        if began is not None:
            row = Attempt(
                task.attempts, began, float(self._clock.now_ms() - began), None, error, None,
                reason.value)  # fmt: skip
        outcome = Outcome("failure", None, error=error, final_reason=reason)
        reached = Reached(task, endpoint, config, outcome, request)
        result = await self.tell(reached, decision, row, None)
        result.uncounted = began is None
        return result

    async def cancelled(
        self, task: Task, result: AttemptResult, target: Target | None, config: Config
    ) -> AttemptResult:
        """The same end of an attempt, for a task that is cancelled instead of tried again."""
        decision = Decision(Status.CANCELLED, "cancelled while it ran")
        row = result.attempt
        if row is not None:
            row = replace(row, delay=None, why=decision.why)
        if target is None or result.outcome is None:
            return replace(result, decision=decision, attempt=row, effects=[])
        reached = Reached(task, target.endpoint, config, result.outcome, result.request)
        told = await self.tell(reached, decision, row, result.after)
        told.uncounted, told.deaths = result.uncounted, result.deaths
        return told
