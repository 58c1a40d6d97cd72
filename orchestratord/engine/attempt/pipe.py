"""One attempt, from top to bottom: `Pipe._run` is the line that it goes along.

    choose → claim → admit to a slot → prepare → before → started? → send → after → decide →
    ask hooks → feedback → release the slot → settle → what follows

The worker chooses and claims. Here a claimed task is admitted to a slot of its lane, and has an
asyncio task of its own until its end is on its way to the disk; `AttemptEnds` does the rest. The
slot is free before its end is on disk: what is not settled yet is the backpressure.

What a step returns says which way out is left: `NotSent` until a byte has left, and an
`AttemptResult`, which can only be settled, from then on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from functools import partial
from itertools import takewhile
from operator import attrgetter
from typing import Any, Literal

from orchestratord.engine import task_events
from orchestratord.engine.attempt.deadlines import LOST_SOON, Deadlines
from orchestratord.engine.attempt_in_progress import AttemptInProgress, AttemptResult
from orchestratord.engine.call_tree import begins_run, run_of
from orchestratord.engine.decisions import Decisions
from orchestratord.engine.feedback import Feedback
from orchestratord.engine.lanes.breaker import is_down
from orchestratord.engine.lanes.lane_set import LaneSet
from orchestratord.engine.lanes.placement import Placement
from orchestratord.engine.new.call_partition import lacks_partition, partition_of
from orchestratord.engine.new.new_tasks import NewTasks
from orchestratord.engine.phase_hooks import PhaseHooks
from orchestratord.engine.plan import Plans
from orchestratord.engine.poison import SURELY
from orchestratord.engine.retry import (
    MOST_OVER_QUOTA,
    OVER_QUOTA,
    Decision,
    decide_over_quota,
    decide_probe,
    give_up_at,
    give_up_from,
)
from orchestratord.engine.retry_delay import SHORTEST_DELAY
from orchestratord.engine.settle.attempt_ends import AttemptEnds
from orchestratord.engine.settle.held_claims import Claims, WayOut
from orchestratord.engine.settle.published_ends import PublishedEnds
from orchestratord.engine.stats import Stats
from orchestratord.engine.stored_answer import error_record
from orchestratord.errors import InvalidPayload, Reject, Snooze
from orchestratord.http.api_client import AttemptClient, Sender
from orchestratord.model.outcome import Outcome, Send, is_over_quota
from orchestratord.model.task import Effect, Reason, Status, Task, UnreadableParams
from orchestratord.plugin.host import Host
from orchestratord.plugin.isolation import HookFault, check_outcome, is_ctrl_c, words
from orchestratord.plugin.long_work import bounded, count_anew
from orchestratord.queue.operations import search, stored_throttles
from orchestratord.queue.operations.settle import start
from orchestratord.queue.store import Store
from orchestratord.values import world
from orchestratord.values.budget import INLINE_STEPS, Budget, TooCostly, within_budget
from orchestratord.values.clock import Clock
from orchestratord.values.durations import format_duration

log = logging.getLogger("orchestratord.attempt")
worker_log = logging.getLogger("orchestratord.worker")

HALT = 0.25
"""Seconds without a claim where this machine lacks what it takes to send."""
SHORTAGE_DELAY = 1.0
"""Seconds after which what could not be sent for that is tried again."""
NO_PORT = "this machine has no local port left towards it"
SHORTAGE_TOLD = 10.0
"""Seconds between two lines of the log about what this machine lacks."""

_deaths = attrgetter("deaths")
PREFETCHED_MS = 1000
"""How long a claimed task waits for a slot before its claim is released."""


NotSent = AttemptResult | Literal["released", "lost"]
"""How an attempt ends that has sent nothing."""
Stage = Literal["in_slot", "ended", "on_its_way"]
"""An attempt has a slot; its slot is free; its end is with the thread that writes."""


class Pipe:
    """Takes claimed tasks, and brings each of them to its end."""

    def __init__(
        self,
        store: Store,
        host: Host,
        sender: Sender,
        lanes: LaneSet,
        placement: Placement,
        claims: Claims,
        stats: Stats,
        clock: Clock,
    ) -> None:
        events = host.events
        self._plans = Plans(placement, host, sender)
        self.hooks = PhaseHooks(host, self._plans, clock)
        self._events = events
        self._lanes, self._claims, self._clock = lanes, claims, clock
        self._store, self._host = store, host
        self._loop = asyncio.get_running_loop()
        self.feedback = Feedback(lanes, claims, events, clock)
        self.deadlines = Deadlines(store, lanes)
        running = claims.running
        self.new_tasks = NewTasks(store, host, self.hooks, placement, running, stats, clock)
        self._decisions = Decisions(host, clock)
        self._shortage_told = -SHORTAGE_TOLD
        """When the log last said what this machine lacks (`world.monotonic`)."""
        self.published = PublishedEnds(claims, placement, events, stats, clock)
        self.ends = AttemptEnds(
            store, host, self.hooks, lanes, claims, self.new_tasks, self.published, clock,
            self._decisions,
        )  # fmt: skip

    # -- admit to a slot -----------------------------------------------------------------------

    def start(self, tasks: Sequence[Task], lane: str, now: int) -> None:
        """Run claimed tasks of `lane`, in their order, at once or when the lane has slots."""
        if any(map(_deaths, tasks)) and not self._lanes.draining:
            for task in filter(_deaths, tasks):
                self._claims.poison.admit(task, lane)
                self._lanes.waits_for_turn(lane, task)
            tasks = [task for task in tasks if not task.deaths]
        self._admit(tasks, lane, now)

    async def start_candidate(self) -> None:
        """Run the poison candidate whose turn it is, if there is one."""
        poison = self._claims.poison
        alone = poison.company()
        if alone is not None and await self._claims.note_company(alone):
            poison.end_alone()
        found = poison.take_turn()
        if found is not None:
            task, lane = found
            self._lanes.has_turn(lane, task)
            self._admit((task,), lane, self._clock.now_ms())
        elif self._lanes.held:
            self.release_prefetched(0)

    def release_prefetched(self, longer_than: int = PREFETCHED_MS) -> None:
        """Release the claims that have waited for a slot for so many milliseconds."""
        for task in self._lanes.take_prefetched(self._clock.now_ms(), longer_than):
            self._claims.release_claim_later(task)

    def _admit(self, tasks: Sequence[Task], lane: str, now: int) -> None:
        # What is claimed while the daemon drains goes back.
        admitted = () if self._lanes.draining else self._lanes.admitted(lane, tasks, now)
        if len(admitted) < len(tasks):
            ids = {task.id for task in admitted}
            for task in tasks:
                if task.id not in ids:
                    self._release_claim(task, lane)
        self._launch(self._lanes.begin(lane, admitted, now), lane, now)

    def _release_claim(self, task: Task, lane: str) -> None:
        self._lanes.release_claim(lane, task.key, self._clock.now_ms(), task.id)
        self._claims.release_claim_later(task)

    def _launch(self, tasks: Sequence[Task], lane: str, now: int) -> None:
        """These have slots of their lane since `now`."""
        if self._lanes.lanes[lane].throttle is not None:
            for _ in tasks:
                self._lanes.began(lane, now)
        if self._events.listening:
            self._events.publish_all(task_events.started(tasks, now))
        running, loop = self._claims.running, self._loop
        for task in tasks:
            # `create_task` does no more, and takes a call.
            running[task.id] = asyncio.Task(self._run(task, lane, now), loop=loop)

    def _release_slot(self, task: Task, lane: str, now: int) -> None:
        """It goes to the next one that is prefetched in its lane, or to a claim."""
        following = self._lanes.release_slot(lane, task, now)
        if following is not None:
            self._launch((following,), lane, now)
        self._lanes.wake.set()

    # -- the line ------------------------------------------------------------------------------

    async def _run(self, task: Task, lane: str, began: int) -> WayOut:
        """One attempt of a task that has a slot since `began`."""
        # Its lease may have run out, and it be claimed here again: only the store tells the two.
        running = asyncio.current_task()
        assert running is not None
        attempt: AttemptInProgress | None = None
        stage: Stage = "in_slot"
        try:
            attempt = self._begin(task, lane, running, began)
            if attempt is None:  # the configuration changed since it was claimed
                return await self._claims.release_claim(task)
            ready = attempt if self._is_made(attempt) else await self._prepare(attempt)
            if isinstance(ready, AttemptInProgress):
                ready = await self._send(ready)
            if isinstance(ready, str):
                return ready if ready == "lost" else await self._claims.release_claim(task)
            result = attempt.result = ready
            now = self._clock.now_ms()
            self.feedback.note(attempt, now)
            stage = "ended"
            self._lanes.ended()
            self._release_slot(task, lane, now)
            effects, run_id = result.effects, run_of(attempt.task)
            items = await self.new_tasks.following(effects, run_id) if effects else []
            if self._claims.closing:
                return "left"
            self.ends.write_soon(attempt, result, items, now)
            stage = "on_its_way"
            return "settled"
        except (Exception, asyncio.CancelledError) as error:
            return await self.ends.end_anyway(task, attempt, error)
        finally:
            if stage == "in_slot":
                now = self._clock.now_ms()
                if attempt is None or not attempt.sent:
                    self._lanes.return_token(lane, now, task.id, began)
                self._release_slot(task, lane, now)
            elif stage == "ended":
                self._lanes.settled()
            if stage != "on_its_way":
                self._claims.gone(task, running)

    def _begin(
        self, task: Task, lane: str, running: asyncio.Task[Any], began: int
    ) -> AttemptInProgress | None:
        """What the attempt is made with; None where today's configuration has it wait or fail."""
        plan = self._plans.of(task)
        # Its row says that a repeat is safe, which is what counts should the daemon die.
        if plan is None or (task.idempotent and not plan.target.idempotent):
            return None
        early = began < (task.backoff_until or 0)
        return AttemptInProgress(task, plan, lane, running, began, world.monotonic(), early)

    # -- up to the first byte ------------------------------------------------------------------

    def _is_made(self, attempt: AttemptInProgress) -> bool:
        """Make the request where nothing else is to be done before it is sent, and that takes a
        moment; where it is False, `_prepare` finds out why."""
        task, plan = attempt.task, attempt.plan
        if (
            not plan.direct
            or not task.idempotent
            or task.deaths
            or (task.turn is not None and task.ordered)
            or self.deadlines.stopping
            or task.is_large
            or isinstance(task.params, UnreadableParams)
            or self.deadlines.rates.late_in(attempt)
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

    async def _prepare(self, attempt: AttemptInProgress) -> AttemptInProgress | NotSent:
        """Make the request, let the before_ hooks have it, and start; the attempt where it is to be
        sent."""
        task, plan = attempt.task, attempt.plan
        target, executor, config = plan.target, plan.executor, plan.config
        endpoint, before = target.endpoint, executor.phases[0]
        deadline = give_up_at(task, target.retry, self._clock.skipped_since)
        if deadline is not None and attempt.began > deadline:
            why = f"give_up_after {format_duration(target.retry.give_up_after or 0)} is over"
            return await self.hooks.fail(task, endpoint, config, Reason.EXPIRED, why)
        # An idempotent task's claim counts as its start; but where a start ended with the daemon's
        # death before, the claim had to wait for its turn, and it starts here.
        if target.idempotent and task.deaths and not await self._start(attempt, ()):
            return "lost"
        self.deadlines.preparing.add(attempt.running)
        try:
            task.check_readable()
            if endpoint.partition is not None and lacks_partition(task):
                await partition_of(endpoint, task.params)  # which did not render either before
            prepare, now = executor.prepare, attempt.began / 1000
            large = task.is_large or attempt.costly
            attempt.request = await bounded(large, prepare, task, target, now)
            if before and self._host.concerned(before, task.kind, endpoint):
                name = "statement" if before == "before_execute" else "request"
                send: Send = AttemptClient(plan.client).send
                given = {"task": task, "endpoint": endpoint, "config": config, "send": send}
                given[name] = attempt.request
                attempt.request = await self._host.fold(before, name, given)
        except (InvalidPayload, Reject) as error:
            reason = Reason.INVALID_PAYLOAD
            if isinstance(error, Reject):
                reason = Reason.REJECTED
            elif error.stored:
                reason = Reason.INVALID
            fail = partial(self.hooks.fail, request=attempt.request, began=attempt.began)
            return await fail(task, endpoint, config, reason, str(error))
        except Snooze as snooze:
            earliest = attempt.began + round(SHORTEST_DELAY * 1000)
            wanted = snooze.until or attempt.began + (snooze.delay or 0) * 1000
            next_try = max(round(wanted), earliest)
            if deadline is not None and next_try > deadline:
                why = f"{snooze}: past give_up_after"
                return await self.hooks.fail(task, endpoint, config, Reason.EXPIRED, why)
            decision = Decision(Status.PENDING, str(snooze), None, next_try)
            return AttemptResult(decision, None, None, uncounted=True, waits_for=str(snooze))
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # an executor is a plugin's, too
            if is_ctrl_c(error):
                raise
            said = str(error)
            if not isinstance(error, HookFault):  # which is logged with its plugin
                self._host.executor_fault(executor, f"preparing task {task.id}", error)
                said = words(error)
            attempt.request = None
            outcome = Outcome("retry", "error", error=said)
            decision = self._decisions.decide(attempt, outcome)
            return await self._ask(attempt, outcome, decision)
        finally:
            self.deadlines.preparing.discard(attempt.running)
        return await self._started(attempt)

    async def _started(self, attempt: AttemptInProgress) -> AttemptInProgress | NotSent:
        """Announce the start, and commit it where its claim does not count as one, before the first
        byte. What was announced stays, should nothing be sent: the next start is another one."""
        task = attempt.task
        # A look is announced once, as what it belongs to.
        effects = () if task.looks else await self.hooks.started(attempt)
        # Another daemon may have it soon, and a person may have it go on there.
        if self.deadlines.leases.may_be_lost(attempt):
            return "released"
        # What is not idempotent counts as started from here on, and not from its claim.
        claimed_as_start = task.idempotent and attempt.plan.target.idempotent
        if (effects or not claimed_as_start) and not await self._start(attempt, effects):
            return "lost"
        await self.deadlines.rates.keep(attempt)
        if self.deadlines.stopping or self.deadlines.leases.may_be_lost(attempt):
            return "released"  # it has started, and still nothing was sent
        count_anew(attempt.running)
        return attempt

    async def _start(self, attempt: AttemptInProgress, effects: Sequence[Effect]) -> bool:
        task = attempt.task
        items = await self.new_tasks.following(effects, run_of(task))
        alone, begins = self._claims.poison.is_alone(task), begins_run(task, items)
        begun = start(task, self._clock.now_ms(), items, alone=alone, begins_run=begins)
        ours, inserted = await self._store.write(begun)
        if alone:
            self._claims.poison.written(task)
        if ours:
            if begins:
                attempt.task = replace(task, run_id=task.id)
            await self.new_tasks.written(items, inserted)
        return ours

    # -- the request ---------------------------------------------------------------------------

    async def _send(self, attempt: AttemptInProgress) -> AttemptResult | NotSent:
        """Have the executor send it. From the first byte on it may have been carried out: whatever
        goes wrong must not make it look unsent."""
        plan, task = attempt.plan, attempt.task
        client = AttemptClient(plan.client)
        self.deadlines.begin(attempt)
        try:
            try:
                send: Send = client.send
                if self._claims.poison.is_alone(task) and task.deaths < SURELY:
                    send = partial(self._send_alone, task, send)
                outcome = await plan.executor.execute(attempt.request, task, plan.target, send)
                check_outcome(outcome)
                # What the executor judges is not a plugin's decision against the rules of retry.
                outcome = replace(outcome, decided_by=None) if outcome.decided_by else outcome
            except BaseException as fault:  # it may be a plugin's, a cancellation of its own too
                if (ended := self._fault(attempt, fault, client.has_sent)) is None:
                    attempt.sent = 0.0
                    return "released"
                outcome = ended
            finally:
                self.deadlines.end(attempt.running)
            if outcome.shortage and not outcome.maybe_done:
                return self._not_sent(attempt, outcome)
            return await self._conclude(attempt, outcome)
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

    def _fault(
        self, attempt: AttemptInProgress, fault: BaseException, sent: bool
    ) -> Outcome | None:
        """The outcome of an executor that has raised; None where the daemon has ended it before a
        byte had left."""
        running, plan = attempt.running, attempt.plan
        if is_ctrl_c(fault):
            raise fault
        cancelled = isinstance(fault, asyncio.CancelledError)
        may_be_done = sent or not plan.executor.only_sends
        if cancelled and running in self.deadlines.overdue:
            error = self.deadlines.overdue[running]
            if error == LOST_SOON and not may_be_done:
                return None
        elif cancelled and self.deadlines.stopping:
            # The daemon stops and cannot wait any longer for this answer.
            running.uncancel()
            if not may_be_done:
                return None
            attempt.interrupted = True
            error = "the daemon stopped before an answer came"
            return Outcome("retry", "error", error=error, maybe_done=True)
        else:
            self._host.executor_fault(plan.executor, f"task {attempt.task.id}", fault)
            error = f"{type(fault).__name__}: {fault}"
        verdict = "retry" if "error" in plan.target.retry.when else "failure"
        outcome = Outcome(verdict, "error", error=error, maybe_done=may_be_done)  # type: ignore[arg-type]
        return replace(outcome, lost=error == LOST_SOON)

    def _not_sent(self, attempt: AttemptInProgress, outcome: Outcome) -> AttemptResult:
        """Nothing was sent, and the receiver cannot help it: the attempt is given back."""
        next_try = self._clock.now_ms() + round(SHORTAGE_DELAY * 1000)
        if outcome.receiver_only:
            self.feedback.wait_here(attempt.lane, next_try, NO_PORT)
        else:
            self._lanes.halt(HALT)
        error = error_record(outcome.error, attempt.plan.config.redactor)
        if world.monotonic() >= self._shortage_told + SHORTAGE_TOLD:
            self._shortage_told = world.monotonic()
            worker_log.error(
                "this daemon lacks what it takes to send (%s): such attempts do not count, and are "
                "repeated after %gs; `orchestratord doctor` shows its limits",
                error,
                SHORTAGE_DELAY,
            )
        why = "not sent, as this machine lacks something: the attempt does not count"
        decision = Decision(Status.PENDING, why, None, next_try)
        return AttemptResult(decision, outcome, None, uncounted=True)

    # -- what becomes of the task --------------------------------------------------------------

    async def _conclude(self, attempt: AttemptInProgress, outcome: Outcome) -> AttemptResult:
        """What follows from an attempt that was made: after, decide, ask hooks."""
        plan = attempt.plan
        if outcome.look:
            decision = self._decisions.decide(attempt, outcome)
            if decision.status is Status.PENDING:
                request = attempt.request
                return AttemptResult(
                    decision, outcome, None, uncounted=True, look=True, request=request
                )
        if plan.decides and outcome.status_code is not None and not attempt.interrupted:
            after = plan.executor.phases[1]
            outcome = await self._host.fold_after(after, attempt.reached(outcome))
        decision = self._decisions.decide(attempt, outcome)
        if outcome.verdict != "success":
            guarded = not (attempt.early or plan.target.guarded_by.breaker.off)
            if guarded and is_down(outcome) and self.feedback.probes_open_breaker(attempt):
                decision = await self._decide_probe(attempt, decision)
            if is_over_quota(outcome) and outcome.decided_by is None:
                decision = await self._decide_over_quota(attempt, outcome, decision)
        if attempt.interrupted and plan.target.idempotent:
            row = attempt.row(outcome, decision)
            return AttemptResult(decision, outcome, row, uncounted=True)
        return await self._ask(attempt, outcome, decision)

    def _ask(
        self, attempt: AttemptInProgress, outcome: Outcome, decision: Decision
    ) -> Coroutine[Any, Any, AttemptResult]:
        """Ask the hooks what they want written with a decision."""
        plan, row = attempt.plan, attempt.row(outcome, decision)
        before_sending = decision.reason is Reason.REJECTED and outcome.status_code is None
        deaths = attempt.task.deaths if outcome.lost else None  # which says so in its event
        result = AttemptResult(
            decision, outcome, row, [], decision.uncounted, deaths, attempt.request,
            None if before_sending else plan.after, (), plan.target.endpoint,
        )  # fmt: skip
        return self.hooks.ask(attempt.task, result, plan.config, plan, attempt.running)

    async def _decide_over_quota(
        self, attempt: AttemptInProgress, outcome: Outcome, decision: Decision
    ) -> Decision:
        task, before = attempt.task, MOST_OVER_QUOTA
        try:
            found = await self._store.read(search.last_words(task.id, MOST_OVER_QUOTA))
            before = sum(1 for _ in takewhile(lambda why: why.startswith(OVER_QUOTA), found))
        except Exception as error:  # it counts then, as any failure
            log.warning("cannot read the attempts of task %s: %s", task.id, error)
        policy, until = attempt.plan.target.retry, outcome.quota_until or 0
        now, skipped = self._clock.now_ms(), self._clock.skipped_since
        return decide_over_quota(
            task, policy, decision, until, now=now, before=before, skipped=skipped
        )

    async def _decide_probe(self, attempt: AttemptInProgress, decision: Decision) -> Decision:
        task, policy = attempt.task, attempt.plan.target.retry
        first, now = give_up_from(task), self._clock.now_ms()
        if policy.give_up_after is None:
            try:
                found = await self._store.read(stored_throttles.first_attempt(task.id, first))
                first = found or attempt.began
            except Exception as error:  # the probe failed, and not what was asked of it
                log.warning("cannot read the first attempt of task %s: %s", task.id, error)
                first = attempt.began
        first += self._clock.skipped_since(first)
        fault = self._host.backoff_fault
        return decide_probe(task, policy, decision, now=now, first=first, fault=fault)
