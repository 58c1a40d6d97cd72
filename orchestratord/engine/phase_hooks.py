"""The hooks of the phases are asked what they want written: with a start, with an end, with what
was never sent (refused, expired, removed, lost with a dead daemon)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from orchestratord.engine.attempt_in_progress import AttemptInProgress, AttemptResult
from orchestratord.engine.plan import MOST_CODES, Plan, Plans, Recurrence
from orchestratord.engine.poison import POISON_AFTER
from orchestratord.engine.retry import AMBIGUOUS, Decision
from orchestratord.errors import QueueError, Reject, Snooze
from orchestratord.model.endpoint import Endpoint
from orchestratord.model.outcome import Outcome
from orchestratord.model.recurring_rows import RecurringRows, upserts_of
from orchestratord.model.settings import Config
from orchestratord.model.task import Attempt, Effect, Key, NewTask, Reason, Status, Task, made
from orchestratord.plugin.executor import Executor, Target
from orchestratord.plugin.hookspecs import ANNOUNCE, END_PHASES
from orchestratord.plugin.host import Host, Reached
from orchestratord.plugin.isolation import HookFault, call
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
        reached.phase, reached.waits = before, True
        return await self._host.collect(ANNOUNCE, reached)

    async def ask(
        self,
        task: Task,
        result: AttemptResult,
        config: Config,
        plan: Plan | None = None,
        running: asyncio.Task[Any] | None = None,
    ) -> AttemptResult:
        """Collect what the telling hooks want written with the end of an attempt.

        Args:
            task: as it was claimed.
            result: the end, with its outcome as the deciding hooks left it, and the endpoint as it
                was when the attempt began (None where it is gone). The effects are added to it.
            config: what the attempt was made with.
            plan: remembers what is written with each success; None for a task without an attempt.
            running: the asyncio task that this runs in, where the caller knows it.

        Returns:
            `result`.

        Raises:
            HookFault: a hook that is required is at fault, and there is no attempt that waits.
        """
        decision, outcome, endpoint = result.decision, result.outcome, result.endpoint
        assert outcome is not None
        host, phase = self._host, END_PHASES.get(decision.status)
        announced, telling = host.concerned_by_end(task.kind, endpoint, result.after, phase)
        if outcome.final_reason != decision.reason:
            result.outcome = outcome = replace(outcome, final_reason=decision.reason)
        if phase != "on_success":
            self._ask_again(task.key)
        elif telling and plan is not None and (known := self._known(plan, outcome)):
            result.recurring, telling = known, 0
        if announced or telling:
            about = task.after(
                decision.status,
                decision.reason and str(decision.reason),  # JMESPath takes no enumeration for text
                decision.next_try, outcome.status_code, outcome.error,
            )  # fmt: skip
            reached = Reached(about, endpoint, config, outcome, result.request, running)
            reached.next_try = decision.next_try
            reached.waits = plan is not None or decision.status is Status.CANCELLED
            for name in announced:
                reached.phase = name
                result.effects += await host.collect(ANNOUNCE, reached)
            if phase == "on_success" and telling:
                await self._ask_success(reached, result, plan, telling)
            elif phase is not None and telling:
                result.effects += await host.collect(phase, reached)
        if phase != "on_success":  # what they said meanwhile is from before they were told
            self._ask_again(task.key)
        return result

    def _known(self, plan: Plan, outcome: Outcome) -> Sequence[RecurringRows]:
        """What is written with one more success of this plan; empty where hooks are to be asked."""
        known = plan.answers.get(outcome.status_code) if outcome.error is None else None
        if (
            known is None
            or not known.since <= self._clock.now_ms() < known.until
            or self._plans.in_force(plan.key) is not plan  # its webhook may be gone
        ):
            return ()
        return known.rows

    async def _ask_success(
        self, reached: Reached, result: AttemptResult, plan: Plan | None, asked: int
    ) -> None:
        """Ask so many hooks about a success, and remember what they said where all return what
        recurs."""
        outcome, decided_at = reached.outcome, self._clock.now_ms()
        # Another one, where an attempt ends otherwise meanwhile.
        remembered = None if plan is None else plan.answers
        recurring: list[RecurringRows] = []
        result.effects += await self._host.collect("on_success", reached, recurring)
        if (
            remembered is None
            or outcome is None
            or outcome.error is not None
            or len(recurring) != asked
        ):
            result.effects += upserts_of(recurring, decided_at)
            return
        if len(remembered) >= MOST_CODES:
            remembered.clear()
        until = min(one.until for one in recurring)
        remembered[outcome.status_code] = Recurrence(decided_at, until, recurring)
        result.recurring = recurring

    def _ask_again(self, key: Key) -> None:
        """Have hooks asked about the next success of a key, as they are told of another end."""
        if (plan := self._plans.in_force(key)) is not None:
            plan.answers = {}

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
        result = AttemptResult(decision, outcome, None, endpoint=endpoint)
        with suppress(HookFault):  # an attempt of it waits for the hook
            return (await self.ask(task, result, config)).effects
        return None

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
        result = AttemptResult(
            decision, outcome, row, [], died, deaths, after=phase, endpoint=endpoint
        )
        return await self.ask(task, result, config)

    async def look_again(self, executor: Executor, key: Key) -> None:
        """Have an executor read its table anew, within `plugins.timeout`.

        Raises QueueError, and HookFault for all else that the executor raises, which is logged.
        """
        try:
            await call(executor.look_again, [*key], self._host.timeout)
        except (HookFault, Reject, Snooze) as fault:
            cause = fault.__cause__
            if isinstance(cause, QueueError):
                raise cause from cause.__cause__
            self._host.executor_fault(executor, f"looking again at {key.name}", fault)
            raise HookFault(str(fault)) from fault

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
            took = float(self._clock.now_ms() - began)
            row = Attempt(task.attempts, began, took, None, error, None, reason.value)
        outcome = Outcome("failure", None, error=error, final_reason=reason)
        result = AttemptResult(
            decision, outcome, row, [], began is None, request=request, endpoint=endpoint
        )
        return await self.ask(task, result, config)

    async def cancelled(self, task: Task, result: AttemptResult, config: Config) -> AttemptResult:
        """The end of an attempt whose task is cancelled instead of tried again."""
        decision = Decision(Status.CANCELLED, "cancelled while it ran")
        row = result.attempt
        if row is not None:
            row = replace(row, delay=None, why=decision.why)
        cancelled = replace(result, decision=decision, attempt=row, effects=[])
        if result.endpoint is None or result.outcome is None:
            return cancelled
        return await self.ask(task, cancelled, config)
