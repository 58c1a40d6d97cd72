"""What becomes of a task by the outcome of its attempt: the rules of `retry`, for one under way."""

from __future__ import annotations

import logging

from orchestratord.engine.attempt_in_progress import AttemptInProgress, AttemptResult
from orchestratord.engine.retry import Decision, decide, decide_early, decide_look, succeeded
from orchestratord.model.outcome import Outcome
from orchestratord.model.task import Status
from orchestratord.plugin.host import Host
from orchestratord.values import world
from orchestratord.values.clock import Clock

log = logging.getLogger("orchestratord.attempt")


class Decisions:
    """Decides what becomes of tasks."""

    def __init__(self, host: Host, clock: Clock) -> None:
        self._host, self._clock = host, clock
        self._chance = world.Random()

    def decide(self, attempt: AttemptInProgress, outcome: Outcome) -> Decision:
        """What becomes of the task."""
        if outcome.verdict == "success" and not attempt.early:  # as for most
            return succeeded(outcome)
        # Before now: the delay is one from the end that its row has.
        attempt.took, now, target = attempt.elapsed(), self._clock.now_ms(), attempt.plan.target
        if attempt.interrupted and target.idempotent:
            why = "stopped: back to pending, the attempt does not count"
            return Decision(Status.PENDING, why, None, now, 0.0)
        if outcome.look:
            poll, skipped = target.endpoint.spec.poll, self._clock.skipped_since
            return decide_look(attempt.task, target.retry, poll, outcome, now=now, skipped=skipped)
        decision = decide(
            attempt.task, target.retry, target.idempotent, outcome,
            now=now, chance=self._chance, fault=self._host.backoff_fault,
            skipped=self._clock.skipped_since,
        )  # fmt: skip
        return decide_early(decision, attempt.task.floor(now)) if attempt.early else decision

    def unclear(self, attempt: AttemptInProgress, error: BaseException) -> AttemptResult:
        """The end of what was sent, where no more can be known of it."""
        log.exception("cannot determine how task %s ended", attempt.task.id)
        text = f"{type(error).__name__}: {error}"
        outcome = Outcome("retry", "error", error=text, maybe_done=True)
        decision = self.decide(attempt, outcome)
        row = attempt.row(outcome, decision)
        return AttemptResult(decision, outcome, row, uncounted=decision.uncounted)
