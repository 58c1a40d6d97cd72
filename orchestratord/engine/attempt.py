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

from orchestratord.engine.attempt_result import AttemptResult, AttemptResults
from orchestratord.engine.retry import Decision, decide, give_up_at
from orchestratord.errors import InvalidPayload, Reject, Snooze
from orchestratord.model.outcome import Outcome, Send
from orchestratord.model.settings import Config
from orchestratord.model.task import Attempt, Effect, Reason, Status, Task
from orchestratord.plugin.executor import Executor, Target
from orchestratord.plugin.host import Host
from orchestratord.plugin.isolation import check_outcome
from orchestratord.values.clock import Clock
from orchestratord.values.durations import format_duration

log = logging.getLogger("orchestratord.attempt")

GRACE = 1.0
"""Seconds over its timeout after which an executor that does not end by itself is cancelled."""

Started = Callable[[Sequence[Effect]], Awaitable[bool]]
"""Commit the start and the effects of the before_ phase; False if the claim is no longer ours."""


@dataclass(slots=True)
class Run:
    """What one attempt is made with, as it was when it began.

    Args:
        task: as it was claimed.
        target: what the configuration says of its key.
        executor: who carries it out.
        config: the configuration in force.
        running: the asyncio task of the attempt.
        began: when it began, milliseconds since the epoch.
        clock: the same by `time.monotonic`.
    """

    task: Task
    target: Target
    executor: Executor
    config: Config
    running: asyncio.Task[Any]
    began: int
    clock: float

    def elapsed(self) -> float:
        """Milliseconds since it began."""
        return round((time.monotonic() - self.clock) * 1000, 3)


@dataclass(slots=True)
class Lifecycle:
    """What every attempt needs: the plugins, the clock and chance."""

    host: Host
    clock: Clock
    chance: Random
    endings: AttemptResults
    stopping: bool = False
    sending: dict[asyncio.Task[Any], float] = field(default_factory=dict)
    """Attempts whose request is under way, and when they have to have ended (`time.monotonic`)."""
    preparing: set[asyncio.Task[Any]] = field(default_factory=set)
    """Attempts in the hands of before_ hooks, which may take their time."""
    overdue: set[asyncio.Task[Any]] = field(default_factory=set)
    """Attempts that were cancelled because their executor did not end by itself."""

    def interrupt(self) -> None:
        """The daemon stops and waits no longer: end what is under way, begin nothing."""
        self.stopping = True
        for attempt in [*self.sending, *self.preparing]:
            attempt.cancel()

    def expire(self, now: float) -> None:
        """End what its executor did not end in time; to be called about once a second.

        A deadline for each attempt of its own would cost more than the rest of its bookkeeping;
        the client keeps the exact one. `now` is of `time.monotonic`.
        """
        for attempt, limit in list(self.sending.items()):
            if now > limit and attempt not in self.overdue:
                self.overdue.add(attempt)
                attempt.cancel()

    async def run(
        self,
        task: Task,
        target: Target,
        executor: Executor,
        config: Config,
        send: Send,
        started: Started,
        running: asyncio.Task[Any],
    ) -> AttemptResult | None:
        """Carry out one attempt of `task`. None where the claim was lost to somebody else.

        `running` is the asyncio task that this runs in. After `interrupt`, an attempt that is
        under way ends by the rule for a daemon that stops; one that has sent nothing raises
        CancelledError.
        """
        run = Run(task, target, executor, config, running, self.clock.now_ms(), time.monotonic())
        endings, endpoint = self.endings, target.endpoint
        before, after = executor.phases
        request: Any = None
        deadline = give_up_at(task, target.retry)
        if deadline is not None and run.began > deadline:
            limit = format_duration(target.retry.give_up_after or 0)
            why = f"give_up_after {limit} is over"
            return await endings.fail(task, endpoint, config, Reason.EXPIRED, why)
        # An idempotent task's claim counts as its start; but where a start ended with the daemon's
        # death before, the claim had to wait for its turn, and it starts here.
        if target.idempotent and task.deaths and not await started(()):
            return None
        self.preparing.add(running)
        try:
            request = executor.prepare(task, target, self.clock.now())
            if self.host.concerned(before, task.kind, endpoint):
                name = before_name(before)
                arguments = {
                    name: request, "task": task, "endpoint": endpoint, "config": config
                }  # fmt: skip
                request = await self.host.fold(before, name, arguments)
        except (InvalidPayload, Reject) as error:
            reason = Reason.REJECTED if isinstance(error, Reject) else Reason.INVALID_PAYLOAD
            return await endings.fail(
                task, endpoint, config, reason, str(error), request=request, began=run.began
            )
        except Snooze as snooze:
            next_try = run.began + round(snooze.delay * 1000)
            if deadline is not None and next_try > deadline:
                why = f"{snooze}: past give_up_after"
                return await endings.fail(task, endpoint, config, Reason.EXPIRED, why)
            decision = Decision(Status.PENDING, str(snooze), None, next_try)
            return AttemptResult(decision, None, None, give_back=True)
        except (KeyboardInterrupt, asyncio.CancelledError):
            raise
        except BaseException as error:
            # An executor is a plugin's, too.
            log.exception("the executor of task %s cannot prepare its request", task.id)
            outcome = Outcome("retry", "error", error=f"{type(error).__name__}: {error}")
            return await self._finish(run, outcome, None)
        finally:
            self.preparing.discard(running)
        effects = await endings.announce(
            before, None, request, task, endpoint, None, config, running
        )
        # What is not idempotent counts as started from here on, and not from its claim.
        claimed_as_start = task.idempotent and target.idempotent
        if (effects or not claimed_as_start) and not await started(effects):
            return None
        if self.stopping:
            raise asyncio.CancelledError
        self.sending[running] = time.monotonic() + target.timeout + GRACE
        try:
            outcome = await self._execute(run, request, send)
        except asyncio.CancelledError:
            return await self._interrupted(run, request)
        finally:
            del self.sending[running]
        try:
            if outcome.status_code is not None and self.host.concerned(after, task.kind, endpoint):
                arguments = {
                    "outcome": outcome,
                    "request": request,
                    "statement": request,
                    "task": task,
                    "endpoint": endpoint,
                    "config": config,
                }
                outcome = await self.host.fold(after, "outcome", arguments)
            return await self._finish(run, outcome, request)
        except Exception as error:
            # It was sent: whatever goes wrong from here on must not make it look unsent.
            log.exception("how task %s ended cannot be told", task.id)
            return self._unclear(run, error)

    # -- the steps -------------------------------------------------------------------------

    async def _execute(self, run: Run, request: Any, send: Send) -> Outcome:
        target = run.target
        try:
            outcome = await run.executor.execute(request, run.task, target, send)
            check_outcome(outcome)
            # What the executor judges is not a plugin's decision against the rules of retry.
            return replace(outcome, decided_by=None) if outcome.decided_by else outcome
        except KeyboardInterrupt:
            raise
        except BaseException as fault:  # it may be a plugin's, a cancellation of its own too
            cancelled = isinstance(fault, asyncio.CancelledError)
            if cancelled and run.running in self.overdue:
                error = f"the executor did not end within {format_duration(target.timeout)}"
            elif cancelled and self.stopping:
                raise
            else:
                log.exception("the executor of task %s failed", run.task.id)
                error = f"{type(fault).__name__}: {fault}"
        finally:
            # Whatever it made of the cancel.
            if run.running in self.overdue:
                self.overdue.discard(run.running)
                run.running.uncancel()
        verdict = "retry" if "error" in target.retry.when else "failure"
        return Outcome(verdict, "error", error=error, maybe_done=True)  # type: ignore[arg-type]

    def _unclear(self, run: Run, error: Exception) -> AttemptResult:
        text = f"{type(error).__name__}: {error}"
        outcome = Outcome("retry", "error", error=text, maybe_done=True)
        decision = self._decide(run, outcome)
        return AttemptResult(decision, outcome, _row(run, outcome, decision))

    async def _interrupted(self, run: Run, request: Any) -> AttemptResult:
        """The daemon stops and cannot wait any longer for this answer."""
        run.running.uncancel()
        error = "the daemon was stopped before an answer came"
        outcome = Outcome("retry", "error", error=error, maybe_done=True)
        if run.target.idempotent:
            why = "stopped: back to pending, the attempt is given back"
            decision = Decision(Status.PENDING, why, None, self.clock.now_ms(), 0.0)
            row = _row(run, outcome, decision)
            return AttemptResult(decision, outcome, row, give_back=True)
        return await self._finish(run, outcome, request)

    async def _finish(self, run: Run, outcome: Outcome, request: Any) -> AttemptResult:
        decision = self._decide(run, outcome)
        row = _row(run, outcome, decision)
        unsent = decision.reason is Reason.REJECTED and outcome.status_code is None
        after = None if unsent else run.executor.phases[1]
        return await self.endings.tell(
            run.task, run.target.endpoint, run.config, outcome, request, decision, row, after,
            run.running,
        )  # fmt: skip

    def _decide(self, run: Run, outcome: Outcome) -> Decision:
        return decide(
            run.task,
            run.target.retry,
            run.target.idempotent,
            outcome,
            now=self.clock.now_ms(),
            chance=self.chance,
            fault=self.backoff_fault,
        )

    def backoff_fault(self, strategy: str, error: BaseException | str) -> None:
        """Log a strategy's fault under the name of the plugin that registered it."""
        plugin = self.host.registry.owners.get(("backoff", strategy), strategy)
        fault = error if isinstance(error, BaseException) else ValueError(error)
        self.host.fault(plugin, f"backoff {strategy}", fault)


def before_name(phase: str) -> str:
    """What a before_ hook calls the thing that it may change."""
    return "statement" if phase == "before_execute" else "request"


def _row(run: Run, outcome: Outcome, decision: Decision) -> Attempt:
    return Attempt(
        run.task.attempts, run.began, run.elapsed(), outcome.status_code, outcome.error,
        decision.delay, decision.why,
    )  # fmt: skip
