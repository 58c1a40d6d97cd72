"""What becomes of a task by the outcome of its attempt: after, decide, ask."""

from __future__ import annotations

import logging

from orchestratord.engine.attempt_in_progress import AttemptInProgress, AttemptResult
from orchestratord.engine.feedback import Feedback
from orchestratord.engine.lanes.breaker import is_down
from orchestratord.engine.phase_hooks import PhaseHooks
from orchestratord.engine.retry import (
    Decision,
    decide,
    decide_early,
    decide_probe,
    give_up_from,
    succeeded,
)
from orchestratord.model.outcome import Outcome
from orchestratord.model.task import Reason, Status
from orchestratord.plugin.host import Host
from orchestratord.queue.operations import stored_throttles
from orchestratord.queue.store import Store
from orchestratord.values import world
from orchestratord.values.clock import Clock

log = logging.getLogger("orchestratord.attempt")


class Decisions:
    """Decides how attempts end that were made, and asks hooks what they want written with it."""

    def __init__(
        self, store: Store, host: Host, hooks: PhaseHooks, feedback: Feedback, clock: Clock
    ) -> None:
        self._store, self._host, self._hooks = store, host, hooks
        self._feedback = feedback
        self._clock = clock
        self._chance = world.Random()

    async def conclude(self, attempt: AttemptInProgress, outcome: Outcome) -> AttemptResult:
        """What follows from an attempt that was made: after, decide, ask hooks."""
        plan = attempt.plan
        if plan.decides and outcome.status_code is not None and not attempt.interrupted:
            outcome = await self._after(attempt, plan.executor.phases[1], outcome)
        if (
            outcome.verdict == "success"
            and outcome.final_reason is None
            and not (attempt.interrupted or attempt.early)
            and not (plan.after in plan.announces or "on_success" in plan.announces)
        ):
            result = self._hooks.succeeded(attempt, outcome)
            if plan.tells and not result.recurring:
                await self._hooks.ask_success(attempt, outcome, result)
            return result
        decision = self.decide(attempt, outcome)
        guarded = not (attempt.early or plan.target.guarded_by.breaker.off)
        if guarded and is_down(outcome) and self._feedback.probes_open_breaker(attempt):
            decision = await self._decide_probe(attempt, decision)
        return await self.ask(attempt, outcome, decision)

    async def _after(self, attempt: AttemptInProgress, after: str, outcome: Outcome) -> Outcome:
        """The outcome as the hooks of this after_ phase leave it."""
        arguments = {
            "outcome": outcome, "request": attempt.request, "statement": attempt.request,
            "task": attempt.task, "endpoint": attempt.plan.target.endpoint,
            "config": attempt.plan.config,
        }  # fmt: skip
        changed: Outcome = await self._host.fold(after, "outcome", arguments)
        return changed

    def decide(self, attempt: AttemptInProgress, outcome: Outcome) -> Decision:
        """What becomes of the task."""
        if outcome.verdict == "success" and not attempt.early:  # as for most
            return succeeded(outcome)
        # Before now: the delay is one from the end that its row has.
        attempt.took, now, target = attempt.elapsed(), self._clock.now_ms(), attempt.plan.target
        if attempt.interrupted and target.idempotent:
            why = "stopped: back to pending, the attempt is given back"
            return Decision(Status.PENDING, why, None, now, 0.0)
        decision = decide(
            attempt.task, target.retry, target.idempotent, outcome,
            now=now, chance=self._chance, fault=self._host.backoff_fault,
            skipped=self._clock.skipped_since,
        )  # fmt: skip
        return decide_early(decision, attempt.task.floor(now)) if attempt.early else decision

    async def _decide_probe(self, attempt: AttemptInProgress, decision: Decision) -> Decision:
        task, policy = attempt.task, attempt.plan.target.retry
        first, now = give_up_from(task), self._clock.now_ms()
        if policy.give_up_after is None:
            try:
                found = await self._store.read(stored_throttles.first_attempt(task.id, first))
                first = found or attempt.began
            except Exception as error:  # the probe failed, and not what was asked of it
                log.warning("when task %s was tried first is not known now: %s", task.id, error)
                first = attempt.began
        first += self._clock.skipped_since(first)
        fault = self._host.backoff_fault
        return decide_probe(task, policy, decision, now=now, first=first, fault=fault)

    async def ask(
        self, attempt: AttemptInProgress, outcome: Outcome, decision: Decision
    ) -> AttemptResult:
        """Ask the hooks what they want written with a decision."""
        row = attempt.row(outcome, decision)
        if attempt.interrupted and attempt.plan.target.idempotent:
            return AttemptResult(decision, outcome, row, uncounted=True)
        before_sending = decision.reason is Reason.REJECTED and outcome.status_code is None
        after = None if before_sending else attempt.plan.after
        return await self._hooks.ask(attempt.reached(outcome), decision, row, after)

    def unclear(self, attempt: AttemptInProgress, error: BaseException) -> AttemptResult:
        """The end of what was sent, where no more can be known of it."""
        log.exception("how task %s ended cannot be told", attempt.task.id)
        text = f"{type(error).__name__}: {error}"
        outcome = Outcome("retry", "error", error=text, maybe_done=True)
        decision = self.decide(attempt, outcome)
        row = attempt.row(outcome, decision)
        return AttemptResult(decision, outcome, row, uncounted=decision.uncounted)
