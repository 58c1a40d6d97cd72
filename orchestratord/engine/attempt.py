"""One attempt as a pipeline: prepare → before_ → start → send → after_ → decide → tell.

No database here: `started` is called before the first byte, and what comes out is an `Ended` that
the worker settles.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from orchestratord.clock import Clock
from orchestratord.endpoint import Endpoint
from orchestratord.engine.retry import AMBIGUOUS, Decision, decide, give_up_at, last_one
from orchestratord.errors import InvalidPayload, Reject, Snooze
from orchestratord.executor import Executor, Target
from orchestratord.host import Host
from orchestratord.message import Outcome, Send
from orchestratord.settings import Config
from orchestratord.task import Attempt, Effect, Reason, Status, Task
from orchestratord.values import format_duration

log = logging.getLogger("orchestratord.attempt")

POISON_AFTER = 3
"""Starts that end with the daemon's death."""

GRACE = 1.0
"""Seconds over its timeout after which an executor that does not end by itself is cancelled."""

Started = Callable[[Sequence[Effect]], Awaitable[bool]]
"""Commit the start and the effects of the before_ phase; False if the claim is no longer ours."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How an attempt ended and what is to be written with it."""

    task: Task
    """As the hooks saw it: with its new status and reason."""
    decision: Decision
    outcome: Outcome | None
    attempt: Attempt | None
    effects: list[Effect] = field(default_factory=list)
    give_back: bool = False
    deaths: int | None = None
    request: Any = None
    after: str | None = None
    """The after_ phase that was reached, None for none."""


@dataclass(slots=True)
class Lifecycle:
    """What every attempt needs: the plugins, the clock and chance."""

    host: Host
    clock: Clock
    chance: Random
    stopping: bool = False
    sending: set[asyncio.Task[Any]] = field(default_factory=set)
    """Attempts whose request is under way."""
    preparing: set[asyncio.Task[Any]] = field(default_factory=set)
    """Attempts in the hands of before_ hooks, which may take their time."""

    def interrupt(self) -> None:
        """The daemon stops and waits no longer: end what is under way, begin nothing."""
        self.stopping = True
        for attempt in [*self.sending, *self.preparing]:
            attempt.cancel()

    async def run(
        self,
        task: Task,
        target: Target,
        executor: Executor,
        config: Config,
        send: Send,
        started: Started,
    ) -> Ended | None:
        """Carry out one attempt of `task`. None where the claim was lost to somebody else.

        After `interrupt`, an attempt that is under way ends by the rule for a daemon that stops;
        one that has sent nothing raises CancelledError.
        """
        began, clock = self.clock.now_ms(), time.monotonic()
        before, after = executor.phases
        request: Any = None
        deadline = give_up_at(task, target.retry)
        if deadline is not None and began > deadline:
            limit = format_duration(target.retry.give_up_after or 0)
            return await self.fail(task, target.endpoint, config, Reason.EXPIRED,
                                   f"give_up_after {limit} is over")  # fmt: skip
        # An idempotent task's claim counts as its start; but where a start ended with the daemon's
        # death before, the claim had to wait for its turn, and it starts here.
        if target.idempotent and task.deaths and not await started(()):
            return None
        running = asyncio.current_task()
        assert running is not None
        self.preparing.add(running)
        try:
            request = executor.prepare(task, target, self.clock.now())
            arguments = {before_name(before): request, "task": task, "endpoint": target.endpoint}
            request = await self.host.fold(before, before_name(before), arguments)
        except (InvalidPayload, Reject) as error:
            reason = Reason.REJECTED if isinstance(error, Reject) else Reason.INVALID_PAYLOAD
            return await self.fail(
                task, target.endpoint, config, reason, str(error), request=request, began=began
            )
        except Snooze as snooze:
            next_try = began + round(snooze.delay * 1000)
            if deadline is not None and next_try > deadline:
                why = f"{snooze}: past give_up_after"
                return await self.fail(task, target.endpoint, config, Reason.EXPIRED, why)
            decision = Decision(Status.PENDING, str(snooze), None, next_try)
            return Ended(task, decision, None, None, give_back=True)
        except (KeyboardInterrupt, asyncio.CancelledError):
            raise
        except BaseException as error:
            # An executor is a plugin's, too.
            log.exception("the executor of task %s cannot prepare its request", task.id)
            outcome = Outcome("retry", "error", error=f"{type(error).__name__}: {error}")
            return await self._finish(task, target, config, outcome, None, began, clock, after)
        finally:
            self.preparing.discard(running)
        effects = await self._announce(before, None, request, task, target.endpoint, None, config)
        # What is not idempotent counts as started from here on, and not from its claim.
        claimed_as_start = task.idempotent and target.idempotent
        if (effects or not claimed_as_start) and not await started(effects):
            return None
        if self.stopping:
            raise asyncio.CancelledError
        self.sending.add(running)
        try:
            outcome = await self._execute(executor, request, task, target, send)
        except asyncio.CancelledError:
            return await self._interrupted(task, target, config, request, began, clock, after)
        finally:
            self.sending.discard(running)
        try:
            if outcome.status_code is not None and self.host.compiled(after):
                arguments = {
                    "outcome": outcome,
                    "request": request,
                    "statement": request,
                    "task": task,
                    "endpoint": target.endpoint,
                }
                outcome = await self.host.fold(after, "outcome", arguments)
            return await self._finish(task, target, config, outcome, request, began, clock, after)
        except Exception as error:
            # It was sent: whatever goes wrong from here on must not make it look unsent.
            log.exception("how task %s ended cannot be told", task.id)
            return self._unclear(task, target, error, began, clock)

    async def lost(
        self,
        task: Task,
        endpoint: Endpoint | None,
        target: Target | None,
        executor: Executor | None,
        config: Config,
    ) -> Ended:
        """Settle an attempt that had started when its daemon died.

        `target` and `executor` are None where today's configuration has none for it.
        """
        now = self.clock.now_ms()
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
        ended = await self._tell(task, endpoint, config, outcome, None, decision, row, phase)
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
    ) -> Ended:
        """Fail a task that sent nothing: its status code is null and no after_ phase is reached.

        `began` is given where an attempt was made and is to be logged; without it the claim was
        only made to fail the task, and does not count.
        """
        decision = Decision(Status.FAILED, reason.value, reason)
        row = None
        if began is not None:
            row = Attempt(
                task.attempts, began, float(self.clock.now_ms() - began), None, error, None,
                reason.value)  # fmt: skip
        outcome = Outcome("failure", None, error=error, final_reason=reason)
        ended = await self._tell(task, endpoint, config, outcome, request, decision, row, None)
        return replace(ended, give_back=began is None)

    async def cancelled(
        self, task: Task, ended: Ended, target: Target | None, config: Config
    ) -> Ended:
        """The same end of an attempt, for a task that is cancelled instead of tried again."""
        decision = Decision(Status.CANCELLED, "cancelled while it ran")
        row = ended.attempt
        if row is not None:
            row = replace(row, delay=None, why=decision.why)
        if target is None or ended.outcome is None:
            return replace(ended, decision=decision, attempt=row, effects=[])
        told = await self._tell(
            task, target.endpoint, config, ended.outcome, ended.request, decision, row, ended.after
        )
        return replace(told, give_back=ended.give_back, deaths=ended.deaths)

    # -- the steps -------------------------------------------------------------------------

    async def _execute(
        self, executor: Executor, request: Any, task: Task, target: Target, send: Send
    ) -> Outcome:
        try:
            async with asyncio.timeout(target.timeout + GRACE):
                outcome = await executor.execute(request, task, target, send)
            # What the executor judges is not a plugin's decision against the rules of retry.
            return replace(outcome, decided_by=None) if outcome.decided_by else outcome
        except TimeoutError:
            error = f"the executor did not end within {format_duration(target.timeout)}"
        except (KeyboardInterrupt, asyncio.CancelledError):
            raise
        except BaseException as fault:  # it may be a plugin's
            log.exception("the executor of task %s failed", task.id)
            error = f"{type(fault).__name__}: {fault}"
        verdict = "retry" if "error" in target.retry.when else "failure"
        return Outcome(verdict, "error", error=error, maybe_done=True)  # type: ignore[arg-type]

    def _unclear(
        self, task: Task, target: Target, error: Exception, began: int, clock: float
    ) -> Ended:
        text = f"{type(error).__name__}: {error}"
        outcome = Outcome("retry", "error", error=text, maybe_done=True)
        decision = self._decide(task, target, outcome)
        row = Attempt(
            task.attempts, began, _elapsed(clock), "error", text, decision.delay, decision.why
        )
        return Ended(task, decision, outcome, row)

    async def _interrupted(
        self,
        task: Task,
        target: Target,
        config: Config,
        request: Any,
        began: int,
        clock: float,
        after: str,
    ) -> Ended:
        """The daemon stops and cannot wait any longer for this answer."""
        running = asyncio.current_task()
        assert running is not None
        running.uncancel()
        error = "the daemon was stopped before an answer came"
        outcome = Outcome("retry", "error", error=error, maybe_done=True)
        if target.idempotent:
            row = Attempt(task.attempts, began, _elapsed(clock), "error", error, 0.0,
                          "stopped: back to pending, the attempt is given back")  # fmt: skip
            decision = Decision(Status.PENDING, row.why, None, self.clock.now_ms(), 0.0)
            return Ended(task, decision, outcome, row, give_back=True)
        return await self._finish(task, target, config, outcome, request, began, clock, after)

    async def _finish(
        self,
        task: Task,
        target: Target,
        config: Config,
        outcome: Outcome,
        request: Any,
        began: int,
        clock: float,
        after: str,
    ) -> Ended:
        elapsed = _elapsed(clock)
        decision = self._decide(task, target, outcome)
        row = Attempt(
            task.attempts, began, elapsed, outcome.status_code, outcome.error, decision.delay,
            decision.why)  # fmt: skip
        phase = (
            None if decision.reason is Reason.REJECTED and outcome.status_code is None else after
        )
        return await self._tell(
            task, target.endpoint, config, outcome, request, decision, row, phase
        )

    def _decide(self, task: Task, target: Target, outcome: Outcome) -> Decision:
        return decide(
            task,
            target.retry,
            target.idempotent,
            outcome,
            now=self.clock.now_ms(),
            chance=self.chance,
            fault=self.backoff_fault,
        )

    async def _tell(
        self,
        task: Task,
        endpoint: Endpoint | None,
        config: Config,
        outcome: Outcome,
        request: Any,
        decision: Decision,
        row: Attempt | None,
        after: str | None,
    ) -> Ended:
        """Collect what the telling hooks want written with the decision."""
        task = replace(
            task,
            status=decision.status,
            reason=decision.reason,
            next_try=decision.next_try,
            last_status_code=outcome.status_code,
            last_error=outcome.error,
        )
        outcome = replace(outcome, final_reason=decision.reason)
        phase = {
            Status.SUCCEEDED: "on_success",
            Status.PENDING: "on_retry",
            Status.FAILED: "on_final_failure",
        }.get(decision.status)
        effects: list[Effect] = []
        if endpoint is not None:
            for name in (after, phase):
                if name is not None:
                    effects += await self._announce(
                        name, outcome, request, task, endpoint, decision.next_try, config
                    )
        told = endpoint is not None or phase == "on_final_failure"
        if phase is not None and told and self.host.compiled(phase):
            effects += await self.host.collect(
                phase,
                {
                    "outcome": outcome,
                    "task": task,
                    "endpoint": endpoint,
                    "next_try": decision.next_try,
                },
            )
        return Ended(task, decision, outcome, row, effects, request=request, after=after)

    async def _announce(
        self,
        phase: str,
        outcome: Outcome | None,
        request: Any,
        task: Task,
        endpoint: Endpoint,
        next_try: int | None,
        config: Config,
    ) -> list[Effect]:
        if not self.host.compiled("announce"):
            return []
        return await self.host.collect(
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
        )

    def backoff_fault(self, strategy: str, error: BaseException | str) -> None:
        """Log a strategy's fault under the name of the plugin that registered it."""
        plugin = self.host.registry.owners.get(("backoff", strategy), strategy)
        fault = error if isinstance(error, BaseException) else ValueError(error)
        self.host.fault(plugin, f"backoff {strategy}", fault)


def before_name(phase: str) -> str:
    """What a before_ hook calls the thing that it may change."""
    return "statement" if phase == "before_execute" else "request"


def _elapsed(clock: float) -> float:
    return round((time.monotonic() - clock) * 1000, 3)
