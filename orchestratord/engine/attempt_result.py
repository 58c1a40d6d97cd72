"""How an attempt ends: the decision, told to the hooks, and what they want written with it.

Here are also the ends of what was never sent: refused, expired, removed, lost with a dead daemon.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import Any

from orchestratord.engine.retry import AMBIGUOUS, Decision, last_one
from orchestratord.model.endpoint import Endpoint
from orchestratord.model.outcome import Outcome
from orchestratord.model.settings import Config
from orchestratord.model.task import Attempt, Effect, Reason, Status, Task
from orchestratord.plugin.executor import Executor, Target
from orchestratord.plugin.host import Host
from orchestratord.values.clock import Clock

POISON_AFTER = 3
"""Starts that end with the daemon's death."""

_TOLD = {
    Status.SUCCEEDED: "on_success",
    Status.PENDING: "on_retry",
    Status.FAILED: "on_final_failure",
}
"""The phase that each decision reaches."""


@dataclass(slots=True)  # not frozen: it is made for each attempt, which takes twice as long then
class AttemptResult:
    """How an attempt ended and what is to be written with it."""

    decision: Decision
    outcome: Outcome | None
    attempt: Attempt | None
    effects: list[Effect] = field(default_factory=list)
    give_back: bool = False
    deaths: int | None = None
    request: Any = None
    after: str | None = None
    """The after_ phase that was reached, None for none."""


class AttemptResults:
    """Tells the hooks how tasks end."""

    def __init__(self, host: Host, clock: Clock) -> None:
        self._host = host
        self._clock = clock

    async def tell(
        self,
        task: Task,
        endpoint: Endpoint | None,
        config: Config,
        outcome: Outcome,
        request: Any,
        decision: Decision,
        row: Attempt | None,
        after: str | None,
        running: asyncio.Task[Any] | None = None,
    ) -> AttemptResult:
        """Collect what the telling hooks want written with the decision.

        Args:
            task: as it was claimed.
            endpoint: as it was when the attempt began; None where it is gone.
            config: the configuration in force.
            outcome: as the hooks left it.
            request: what was sent; None for nothing.
            decision: what becomes of the task.
            row: the row of the attempt; None where there was none.
            after: the after_ phase that was reached; None for none.
            running: the asyncio task that this runs in, where the caller knows it.
        """
        host, kind, phase = self._host, task.kind, _TOLD.get(decision.status)
        announcing = endpoint is not None and host.concerned("announce", kind, endpoint)
        telling = None
        if phase is not None and (endpoint is not None or phase == "on_final_failure"):
            telling = host.concerned(phase, kind, endpoint)
        if outcome.final_reason != decision.reason:
            outcome = replace(outcome, final_reason=decision.reason)
        effects: list[Effect] = []
        if not announcing and not telling:  # most calls
            return AttemptResult(decision, outcome, row, effects, request=request, after=after)
        task = task.after(
            decision.status, decision.reason, decision.next_try, outcome.status_code, outcome.error
        )
        if announcing and endpoint is not None:
            for name in (after, phase):
                if name is not None:
                    effects += await self.announce(
                        name, outcome, request, task, endpoint, decision.next_try, config,
                        running,
                    )  # fmt: skip
        if telling and phase is not None:
            effects += await host.collect(
                phase,
                {
                    "outcome": outcome,
                    "task": task,
                    "endpoint": endpoint,
                    "next_try": decision.next_try,
                    "config": config,
                },
                running,
            )
        return AttemptResult(decision, outcome, row, effects, request=request, after=after)

    async def announce(
        self,
        phase: str,
        outcome: Outcome | None,
        request: Any,
        task: Task,
        endpoint: Endpoint,
        next_try: int | None,
        config: Config,
        running: asyncio.Task[Any] | None = None,
    ) -> list[Effect]:
        """What the hook `announce` wants written when a phase was reached."""
        if not self._host.concerned("announce", task.kind, endpoint):
            return []
        return await self._host.collect(
            "announce",
            {
                "phase": phase,
                "outcome": outcome,
                "request": request,
                "task": task,
                "endpoint": endpoint,
                "next_try": next_try,
                "config": config,
            },
            running,
        )

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
        ended = await self.tell(task, endpoint, config, outcome, None, decision, row, phase)
        return replace(ended, deaths=deaths)

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
        ended = await self.tell(task, endpoint, config, outcome, request, decision, row, None)
        return replace(ended, give_back=began is None)

    async def cancelled(
        self, task: Task, ended: AttemptResult, target: Target | None, config: Config
    ) -> AttemptResult:
        """The same end of an attempt, for a task that is cancelled instead of tried again."""
        decision = Decision(Status.CANCELLED, "cancelled while it ran")
        row = ended.attempt
        if row is not None:
            row = replace(row, delay=None, why=decision.why)
        if target is None or ended.outcome is None:
            return replace(ended, decision=decision, attempt=row, effects=[])
        told = await self.tell(
            task, target.endpoint, config, ended.outcome, ended.request, decision, row, ended.after
        )
        return replace(told, give_back=ended.give_back, deaths=ended.deaths)
