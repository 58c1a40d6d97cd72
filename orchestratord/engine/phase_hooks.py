"""The hooks of the phases are asked what they want written: with a start, with an end, with what
was never sent (refused, expired, removed, lost with a dead daemon)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from orchestratord.engine.attempt_in_progress import AttemptInProgress, AttemptResult
from orchestratord.engine.plan import MOST_CODES, Plans, Recurrence
from orchestratord.engine.poison import POISON_AFTER
from orchestratord.engine.retry import AMBIGUOUS, Decision, succeeded
from orchestratord.model.endpoint import Endpoint
from orchestratord.model.outcome import Outcome
from orchestratord.model.recurring_rows import RecurringRows, upserts_of
from orchestratord.model.settings import Config
from orchestratord.model.task import Attempt, Effect, Key, NewTask, Reason, Status, Task, made
from orchestratord.plugin.executor import Executor, Target
from orchestratord.plugin.hookspecs import ANNOUNCE, END_PHASES
from orchestratord.plugin.host import Host, Reached
from orchestratord.queue.operations.insert import HAPPENED_CODE
from orchestratord.values.clock import Clock

log = logging.getLogger("orchestratord.attempt")


DIED = "the daemon died while this attempt was under way"
UNHELD = "nothing in the daemon held this attempt any more"


class PhaseHooks:
    """Asks the hooks of the phases what they want written."""

    def __init__(self, host: Host, plans: Plans, clock: Clock) -> None:
        self._host = host
        self._plans = plans
        self._clock = clock

    async def started(self, attempt: AttemptInProgress) -> Sequence[Effect]:
        """What the hooks want written before the first byte is sent."""
        before = attempt.plan.executor.phases[0]
        if before not in attempt.plan.announces:
            return ()
        reached = attempt.reached(None)
        reached.phase = before
        return await self._host.collect(ANNOUNCE, reached)

    async def ask(
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
        phases = (after, phase) if endpoint is not None else ()
        concerned = partial(host.concerned, ANNOUNCE, task.kind, endpoint)
        announced = [name for name in phases if name is not None and concerned(name)]
        telling = None
        if phase is not None and (endpoint is not None or phase == "on_final_failure"):
            telling = host.concerned(phase, task.kind, endpoint)
        if outcome.final_reason != decision.reason:
            outcome = replace(outcome, final_reason=decision.reason)
        effects: list[Effect] = []
        self._ask_again(task.key, phase)
        if announced or telling:  # as for few calls
            reached.outcome, reached.next_try = outcome, decision.next_try
            reached.task = task.after(
                decision.status, decision.reason, decision.next_try,
                outcome.status_code, outcome.error,
            )  # fmt: skip
            for name in announced:
                reached.phase = name
                effects += await host.collect(ANNOUNCE, reached)
            if telling and phase is not None:
                recurring: list[RecurringRows] | None = [] if phase == "on_success" else None
                effects += await host.collect(phase, reached, recurring)
                effects += upserts_of(recurring or (), self._clock.now_ms())
        self._ask_again(task.key, phase)  # what they said meanwhile is from before they were told
        return AttemptResult(
            decision, outcome, row, effects, decision.uncounted, None, reached.request, after,
            endpoint=endpoint,
        )  # fmt: skip

    def _ask_again(self, key: Key, phase: str | None) -> None:
        """Have hooks asked about the next success of a key, where they are told of another end."""
        if phase != "on_success" and (plan := self._plans.in_force(key)) is not None:
            plan.answers = {}

    def succeeded(self, attempt: AttemptInProgress, outcome: Outcome) -> AttemptResult:
        """What `ask` makes of a success of which no phase is announced, as of most. Where hooks
        are to be told of it and nothing recurs, they are still to be asked: `ask_success`."""
        decision, plan = succeeded(outcome), attempt.plan
        row = attempt.row(outcome, decision)
        result = AttemptResult(decision, outcome, row, [], False, None, attempt.request, plan.after)
        if plan.tells and outcome.error is None:
            known = plan.answers.get(outcome.status_code)
            if (
                known is not None
                and known.since <= self._clock.now_ms() < known.until
                and self._plans.in_force(plan.key) is plan  # its webhook may be gone
            ):
                result.recurring = known.rows
        return result

    async def ask_success(
        self, attempt: AttemptInProgress, outcome: Outcome, result: AttemptResult
    ) -> None:
        """Ask the hooks what they want written with a success, and put that into its `result`."""
        decided_at = self._clock.now_ms()
        task, plan = attempt.task, attempt.plan
        remembered = plan.answers  # another one, where an attempt ends otherwise meanwhile
        reached = attempt.reached(outcome)
        reached.task = task.after("succeeded", None, None, outcome.status_code, outcome.error)
        reached.phase = "on_success"
        recurring: list[RecurringRows] = []
        effects = await self._host.collect("on_success", reached, recurring)
        asked = self._host.concerned("on_success", task.kind, plan.target.endpoint) or ()
        if len(recurring) == len(asked) and outcome.error is None:
            if len(remembered) >= MOST_CODES:
                remembered.clear()
            until = min(one.until for one in recurring)
            remembered[outcome.status_code] = Recurrence(decided_at, until, recurring)
            result.recurring = recurring
            return
        effects += upserts_of(recurring, decided_at)
        result.effects = effects

    async def happened(
        self,
        new: NewTask,
        id_: int,
        run_id: int | None,
        target: Target,
        executor: Executor,
        config: Config,
    ) -> list[Effect] | None:
        """What the telling hooks want written with a task that needs no attempt, and is going to be
        written as succeeded, in this run; None where a hook finds that it has not."""
        now, endpoint, after = self._clock.now_ms(), target.endpoint, executor.phases[1]
        task = made(
            id=id_, kind=new.kind, endpoint_id=new.endpoint_id, webhook=new.webhook,
            phase=new.phase, status=Status.RUNNING, reason=None, attempts=0,
            max_attempts=new.max_attempts, next_try=None, params=new.params, payload=None,
            parent_id=new.parent_id, created_at=now, updated_at=now,
            scheduled_at=new.scheduled_at or now, depth=new.depth, run_id=run_id,
        )  # fmt: skip
        outcome = Outcome("success", HAPPENED_CODE)
        if self._host.concerned(after, task.kind, endpoint):
            outcome = await self._host.fold_after(after, Reached(task, endpoint, config, outcome))
        if outcome.verdict != "success":
            return None
        decision = Decision(Status.SUCCEEDED, "it has happened", None)
        reached = Reached(task, endpoint, config, outcome)
        return (await self.ask(reached, decision, None, None)).effects

    async def lost(
        self,
        task: Task,
        endpoint: Endpoint | None,
        executor: Executor | None,
        config: Config,
        error: str = DIED,
    ) -> AttemptResult:
        """Settle an attempt that had started when its daemon died: it costs a death, no attempt.

        `executor` is None where today's configuration has none for it. `UNHELD` costs no death: the
        daemon lives, and a repeat is not safe.
        """
        now, died = self._clock.now_ms(), error is DIED
        deaths = task.deaths + died
        outcome = Outcome("retry", "error", error=error, maybe_done=True, lost=True)
        if not task.idempotent:
            decision = Decision(Status.FAILED, AMBIGUOUS, Reason.AMBIGUOUS)
        elif deaths >= POISON_AFTER and task.alone:
            why = f"{deaths} starts ended with the daemon's death, the last one while it ran alone"
            decision = Decision(Status.FAILED, why, Reason.POISONED)
        else:
            # In its former place, before what became due since.
            due = min(task.next_try or now, now)
            decision = Decision(Status.PENDING, "lost with the daemon: again at once", None, due, 0)
        began = task.started_at or now
        row = Attempt(task.attempts, began, 0.0, "error", error, decision.delay, decision.why)
        phase = executor.phases[1] if executor is not None else None
        reached = Reached(task, endpoint, config, outcome)
        result = await self.ask(reached, decision, row, phase)
        result.deaths, result.uncounted = deaths, died
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
        result = await self.ask(reached, decision, row, None)
        result.uncounted = began is None
        return result

    async def cancelled(self, task: Task, result: AttemptResult, config: Config) -> AttemptResult:
        """The end of an attempt whose task is cancelled instead of tried again."""
        decision = Decision(Status.CANCELLED, "cancelled while it ran")
        row = result.attempt
        if row is not None:
            row = replace(row, delay=None, why=decision.why)
        if result.endpoint is None or result.outcome is None:
            return replace(result, decision=decision, attempt=row, effects=[])
        reached = Reached(task, result.endpoint, config, result.outcome, result.request)
        told = await self.ask(reached, decision, row, result.after)
        told.uncounted, told.deaths = result.uncounted, result.deaths
        return told
