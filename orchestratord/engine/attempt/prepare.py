"""The request of an attempt is made, and its start written where its claim is none."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

from orchestratord.engine.attempt.deadlines import Deadlines
from orchestratord.engine.attempt.decide import Decisions
from orchestratord.engine.attempt_in_progress import AttemptInProgress, AttemptResult
from orchestratord.engine.call_tree import begins_run, run_of
from orchestratord.engine.new.call_partition import lacks_partition, partition_of
from orchestratord.engine.new.new_tasks import NewTasks
from orchestratord.engine.phase_hooks import PhaseHooks
from orchestratord.engine.retry import Decision, give_up_at
from orchestratord.engine.retry_delay import SHORTEST_DELAY
from orchestratord.engine.settle.held_claims import Claims
from orchestratord.errors import InvalidPayload, Reject, Snooze
from orchestratord.model.outcome import Outcome
from orchestratord.model.task import Effect, Reason, Status, UnreadableParams
from orchestratord.plugin.host import Host
from orchestratord.plugin.isolation import is_ctrl_c
from orchestratord.plugin.long_work import bounded, count_anew
from orchestratord.queue.operations.settle import start
from orchestratord.queue.store import Store
from orchestratord.values.budget import INLINE_STEPS, Budget, TooCostly, within_budget
from orchestratord.values.clock import Clock
from orchestratord.values.durations import format_duration

log = logging.getLogger("orchestratord.attempt")

NotSent = AttemptResult | Literal["released", "lost"]
"""How an attempt ends that has sent nothing."""


class Preparation:
    """Brings an attempt up to its first byte."""

    def __init__(
        self,
        store: Store,
        host: Host,
        hooks: PhaseHooks,
        claims: Claims,
        new_tasks: NewTasks,
        deadlines: Deadlines,
        decisions: Decisions,
        clock: Clock,
    ) -> None:
        self._store, self._host, self._hooks = store, host, hooks
        self._claims = claims
        self._new_tasks = new_tasks
        self._deadlines = deadlines
        self._decisions = decisions
        self._clock = clock

    def is_made(self, attempt: AttemptInProgress) -> bool:
        """Make the request where nothing else is to be done before it is sent, and that takes a
        moment; where it is False, `prepare` finds out why."""
        task, plan = attempt.task, attempt.plan
        if (
            not plan.direct
            or not task.idempotent
            or task.deaths
            or (task.turn is not None and task.ordered)
            or self._deadlines.stopping
            or task.is_large
            or isinstance(task.params, UnreadableParams)
            or self._deadlines.rates.late_in(attempt)
        ):
            return False
        prepare, now = plan.executor.prepare, attempt.began / 1000
        try:
            if plan.evaluates:
                budget = Budget(INLINE_STEPS)
                attempt.request = within_budget(budget, prepare, task, plan.target, now)
            else:
                attempt.request = prepare(task, plan.target, now)
        except TooCostly:
            attempt.costly = True
            return False
        except BaseException as error:  # an executor is a plugin's, too
            if is_ctrl_c(error):
                raise
            return False
        return True

    async def prepare(self, attempt: AttemptInProgress) -> AttemptInProgress | NotSent:
        """Make the request, let the before_ hooks have it, and start; the attempt where it is to be
        sent."""
        task, plan = attempt.task, attempt.plan
        target, executor, config = plan.target, plan.executor, plan.config
        endpoint, before = target.endpoint, executor.phases[0]
        deadline = give_up_at(task, target.retry, self._clock.skipped_since)
        if deadline is not None and attempt.began > deadline:
            why = f"give_up_after {format_duration(target.retry.give_up_after or 0)} is over"
            return await self._hooks.fail(task, endpoint, config, Reason.EXPIRED, why)
        # An idempotent task's claim counts as its start; but where a start ended with the daemon's
        # death before, the claim had to wait for its turn, and it starts here.
        if target.idempotent and task.deaths and not await self._start(attempt, ()):
            return "lost"
        self._deadlines.preparing.add(attempt.running)
        try:
            task.check_readable()
            if endpoint.partition is not None and lacks_partition(task):
                await partition_of(endpoint, task.params)  # which did not render either before
            prepare, now = executor.prepare, attempt.began / 1000
            large = task.is_large or attempt.costly
            attempt.request = await bounded(large, prepare, task, target, now)
            if before and self._host.concerned(before, task.kind, endpoint):
                name = "statement" if before == "before_execute" else "request"
                arguments = {
                    name: attempt.request, "task": task, "endpoint": endpoint, "config": config
                }  # fmt: skip
                attempt.request = await self._host.fold(before, name, arguments)
        except (InvalidPayload, Reject) as error:
            reason = Reason.INVALID_PAYLOAD
            if isinstance(error, Reject):
                reason = Reason.REJECTED
            elif error.stored:
                reason = Reason.INVALID
            fail = partial(self._hooks.fail, request=attempt.request, began=attempt.began)
            return await fail(task, endpoint, config, reason, str(error))
        except Snooze as snooze:
            next_try = attempt.began + round(max(snooze.delay, SHORTEST_DELAY) * 1000)
            if deadline is not None and next_try > deadline:
                why = f"{snooze}: past give_up_after"
                return await self._hooks.fail(task, endpoint, config, Reason.EXPIRED, why)
            decision = Decision(Status.PENDING, str(snooze), None, next_try)
            return AttemptResult(decision, None, None, uncounted=True)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # an executor is a plugin's, too
            if is_ctrl_c(error):
                raise
            log.exception("the executor of task %s cannot prepare its request", task.id)
            attempt.request = None
            outcome = Outcome("retry", "error", error=f"{type(error).__name__}: {error}")
            return await self._decisions.ask(
                attempt, outcome, self._decisions.decide(attempt, outcome)
            )
        finally:
            self._deadlines.preparing.discard(attempt.running)
        return await self._started(attempt)

    async def _started(self, attempt: AttemptInProgress) -> AttemptInProgress | NotSent:
        """Announce the start, and commit it where its claim does not count as one, before the first
        byte. What was announced stays, should nothing be sent: the next start is another one."""
        task = attempt.task
        effects = await self._hooks.started(attempt)
        # Another daemon may have it soon, and a person may have it go on there.
        if self._deadlines.leases.may_be_lost(attempt):
            return "released"
        # What is not idempotent counts as started from here on, and not from its claim.
        claimed_as_start = task.idempotent and attempt.plan.target.idempotent
        if (effects or not claimed_as_start) and not await self._start(attempt, effects):
            return "lost"
        await self._deadlines.rates.keep(attempt)
        if self._deadlines.stopping or self._deadlines.leases.may_be_lost(attempt):
            return "released"  # it has started, and still nothing was sent
        count_anew(attempt.running)
        return attempt

    async def _start(self, attempt: AttemptInProgress, effects: Sequence[Effect]) -> bool:
        task = attempt.task
        items = await self._new_tasks.items(effects, run_id=run_of(task))
        alone, begins = self._claims.poison.is_alone(task), begins_run(task, items)
        begun = start(task, self._clock.now_ms(), items, alone=alone, begins_run=begins)
        ours, inserted = await self._store.write(begun)
        if alone:
            self._claims.poison.written(task)
        if ours:
            if begins:
                attempt.task = replace(task, run_id=task.id)
            await self._new_tasks.written(items, inserted)
        return ours
