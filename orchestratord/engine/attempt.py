"""One attempt, from top to bottom: `Pipe._run` is the line that it goes along.

    choose → claim → admit to a slot → prepare → before → started? → send → after → decide → tell →
    feedback → release the slot → settle → what follows

The worker chooses and claims. Here a claimed task is admitted to a slot of its lane, and has an
asyncio task of its own until its end is on its way to the disk; `_ends_told` does the rest. The
slot is free before its end is on disk: what is not settled yet is the backpressure.

What a step returns says which way out is left. Before the executor is called, that is `NotSent`;
`_send` calls it and returns an `AttemptResult`, which can only be settled.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from operator import attrgetter
from typing import Any, Literal

from orchestratord.engine import task_events
from orchestratord.engine.attempt_result import AttemptResult, Deadlines, Plans, ResultTeller, Run
from orchestratord.engine.feedback import Feedback
from orchestratord.engine.lanes.breaker import is_down
from orchestratord.engine.lanes.call_partition import lacks_partition, partition_of, with_partition
from orchestratord.engine.lanes.lane_set import LaneSet
from orchestratord.engine.lanes.placement import Immediate, Placement
from orchestratord.engine.poison import SURELY
from orchestratord.engine.retry import (
    Decision,
    decide,
    decide_early,
    decide_probe,
    give_up_at,
    give_up_from,
    succeeded,
)
from orchestratord.engine.retry_delay import SHORTEST_DELAY
from orchestratord.engine.run_calls import begins_run, has_calls, is_root, is_run, run_of
from orchestratord.engine.settlement import (
    STORED_ERROR,
    Claims,
    SettledAttempt,
    SettlementTeller,
    ShortageLog,
    WayOut,
    error_record,
    log_happened,
    settlement_of,
)
from orchestratord.engine.stats import Stats
from orchestratord.errors import InvalidPayload, Reject, Snooze
from orchestratord.http.api_client import AttemptClient, Sender
from orchestratord.model.outcome import Outcome, Send
from orchestratord.model.settings import Config
from orchestratord.model.task import Effect, Kind, NewTask, Reason, Status, Task, UnreadableParams
from orchestratord.plugin.executor import Target
from orchestratord.plugin.host import Host
from orchestratord.plugin.isolation import check_outcome, is_ctrl_c
from orchestratord.plugin.long_work import bounded, count_anew
from orchestratord.queue.batch import Write
from orchestratord.queue.operations import stored_throttles
from orchestratord.queue.operations.reserved_ids import ReservedIds
from orchestratord.queue.operations.settle import settle, start
from orchestratord.queue.operations.slices import SLICE
from orchestratord.queue.records import (
    Happened,
    Insert,
    Inserted,
    Settled,
    Settlement,
    StoredEffect,
)
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
_deaths = attrgetter("deaths")
PREFETCHED_MS = 1000
"""How long a claimed task waits for a slot before its claim is released."""

NotSent = AttemptResult | Literal["released", "lost"]
"""How an attempt ends that has sent nothing."""


AT_ONCE = 500
"""Tasks that follow from an attempt, or that were asked for together, that are gone through in one
go."""
EVENTS_AT_ONCE = 25
"""The same for events, since hooks say what follows from each."""


class Pipe:
    """Takes claimed tasks, and brings each of them to its end; makes of new tasks what is
    written."""

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
        self._plans = Plans(placement, host, sender)
        self.results = ResultTeller(host, self._plans, clock)
        self._host, self._events = host, host.events
        self._lanes, self._placement = lanes, placement
        self._stats, self._clock = stats, clock
        self._store = store
        self._event_ids = ReservedIds(store.write)
        self.slices_wait = asyncio.Event()
        """New tasks are beside the queue, to be written by slices."""
        self._claims = claims
        self.teller = SettlementTeller(claims, placement, host.events, stats, clock)
        self._chance = world.Random()
        self._loop = asyncio.get_running_loop()
        self._ended: list[Write[Settled]] = []
        """How attempts have ended in this turn of the loop."""
        self.feedback = Feedback(lanes, claims, host.events, clock)
        self._shortages = ShortageLog()
        self.deadlines = Deadlines(store, lanes)

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
        running, has_slot, ended = asyncio.current_task(), True, False
        assert running is not None
        run: Run | None = None
        try:
            run = self._begin(task, lane, running, began)
            if run is None:  # the configuration changed since it was claimed
                return await self._claims.release_claim(task)
            ready = run if self._is_made(run) else await self._prepare(run)
            if isinstance(ready, str):
                return ready if ready == "lost" else await self._claims.release_claim(task)
            result = run.result = await self._send(run) if isinstance(ready, Run) else ready
            now = self._clock.now_ms()
            self.feedback.note(run, now)
            has_slot = False
            self._lanes.ended()
            self._release_slot(task, lane, now)
            effects = result.effects
            items = await self.items(effects, run_id=run_of(run.task)) if effects else []
            if self._claims.closing:
                return "left"
            self._end(run, result, items, now)
            ended = True
            return "settled"
        except (Exception, asyncio.CancelledError) as error:
            return await self._end_anyway(task, run, error)
        finally:
            if has_slot:
                now = self._clock.now_ms()
                if run is None or not run.sent:
                    self._lanes.return_token(lane, now, task.id, began)
                self._release_slot(task, lane, now)
            elif not ended:
                self._lanes.settled()
            if not ended:
                self._claims.gone(task, running)

    async def _end_anyway(self, task: Task, run: Run | None, error: BaseException) -> WayOut:
        """The way out of an attempt that `error` has ended: the daemon stops, or there is a bug."""
        if self._claims.closing:
            return "left"
        if run is None or not run.sent:
            if not isinstance(error, asyncio.CancelledError):
                worker_log.exception("task %s was not run; it goes back to pending", task.id)
                await asyncio.sleep(1.0)
            return await self._claims.release_claim(task)
        result = run.result = self._unclear(run, error)
        config, target, now = run.plan.config, run.plan.target, self._clock.now_ms()
        return await self.settle(run.task, result, config, target, now)

    # -- the steps, in their order -------------------------------------------------------------

    def _begin(self, task: Task, lane: str, running: asyncio.Task[Any], began: int) -> Run | None:
        """What the attempt is made with; None where today's configuration has it wait or fail."""
        plan = self._plans.of(task)
        # Its row says that a repeat is safe, which is what counts should the daemon die.
        if plan is None or (task.idempotent and not plan.target.idempotent):
            return None
        counted = self.deadlines.rates.counted_at(task, began)
        early = began < (task.backoff_until or 0)
        return Run(task, plan, lane, running, began, world.monotonic(), counted, early)

    def _is_made(self, run: Run) -> bool:
        """Make the request where nothing else is to be done before it is sent, and that takes a
        moment; where it is False, `_prepare` finds out why."""
        task, plan = run.task, run.plan
        if (
            not plan.direct
            or not task.idempotent
            or task.deaths
            or (task.turn is not None and task.ordered)
            or self.deadlines.stopping
            or task.is_large
            or isinstance(task.params, UnreadableParams)
            or self.deadlines.rates.late_in(run)
        ):
            return False
        prepare, now = plan.executor.prepare, run.began / 1000
        try:
            if plan.evaluates:
                budget = Budget(INLINE_STEPS)
                run.request = within_budget(budget, prepare, task, plan.target, now)
            else:
                run.request = prepare(task, plan.target, now)
        except TooCostly:
            run.costly = True
            return False
        except BaseException as error:  # an executor is a plugin's, too
            if is_ctrl_c(error):
                raise
            return False
        return True

    async def _prepare(self, run: Run) -> Run | NotSent:
        """Make the request, let the before_ hooks have it, and start; the run where it is to be
        sent."""
        task, plan = run.task, run.plan
        target, executor, config = plan.target, plan.executor, plan.config
        endpoint, before = target.endpoint, executor.phases[0]
        deadline = give_up_at(task, target.retry, self._clock.skipped_since)
        if deadline is not None and run.began > deadline:
            why = f"give_up_after {format_duration(target.retry.give_up_after or 0)} is over"
            return await self.results.fail(task, endpoint, config, Reason.EXPIRED, why)
        # An idempotent task's claim counts as its start; but where a start ended with the daemon's
        # death before, the claim had to wait for its turn, and it starts here.
        if target.idempotent and task.deaths and not await self._start(run, ()):
            return "lost"
        self.deadlines.preparing.add(run.running)
        try:
            task.check_readable()
            if endpoint.partition is not None and lacks_partition(task):
                await partition_of(endpoint, task.params)  # which did not render either before
            prepare, now = executor.prepare, run.began / 1000
            large = task.is_large or run.costly
            run.request = await bounded(large, prepare, task, target, now)
            if before and self._host.concerned(before, task.kind, endpoint):
                name = "statement" if before == "before_execute" else "request"
                arguments = {
                    name: run.request, "task": task, "endpoint": endpoint, "config": config
                }  # fmt: skip
                run.request = await self._host.fold(before, name, arguments)
        except (InvalidPayload, Reject) as error:
            reason = Reason.INVALID_PAYLOAD
            if isinstance(error, Reject):
                reason = Reason.REJECTED
            elif error.stored:
                reason = Reason.INVALID
            return await self.results.fail(
                task, endpoint, config, reason, str(error), request=run.request, began=run.began
            )
        except Snooze as snooze:
            next_try = run.began + round(max(snooze.delay, SHORTEST_DELAY) * 1000)
            if deadline is not None and next_try > deadline:
                why = f"{snooze}: past give_up_after"
                return await self.results.fail(task, endpoint, config, Reason.EXPIRED, why)
            decision = Decision(Status.PENDING, str(snooze), None, next_try)
            return AttemptResult(decision, None, None, uncounted=True)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # an executor is a plugin's, too
            if is_ctrl_c(error):
                raise
            log.exception("the executor of task %s cannot prepare its request", task.id)
            run.request = None
            outcome = Outcome("retry", "error", error=f"{type(error).__name__}: {error}")
            return await self._tell(run, outcome, self._decide(run, outcome))
        finally:
            self.deadlines.preparing.discard(run.running)
        return await self._started(run)

    async def _started(self, run: Run) -> Run | NotSent:
        """Announce the start, and commit it where its claim does not count as one, before the first
        byte. What was announced stays, should nothing be sent: the next start is another one."""
        task = run.task
        effects = await self.results.started(run)
        # Another daemon may have it soon, and a person may have it go on there.
        if self.deadlines.leases.may_be_lost(run):
            return "released"
        # What is not idempotent counts as started from here on, and not from its claim.
        claimed_as_start = task.idempotent and run.plan.target.idempotent
        if (effects or not claimed_as_start) and not await self._start(run, effects):
            return "lost"
        await self.deadlines.rates.keep(run)
        if self.deadlines.stopping or self.deadlines.leases.may_be_lost(run):
            return "released"  # it has started, and still nothing was sent
        count_anew(run.running)
        return run

    async def _start(self, run: Run, effects: Sequence[Effect]) -> bool:
        task = run.task
        items = await self.items(effects, run_id=run_of(task))
        alone, begins = self._claims.poison.is_alone(task), begins_run(task, items)
        begun = start(task, self._clock.now_ms(), items, alone=alone, begins_run=begins)
        ours, inserted = await self._store.write(begun)
        if alone:
            self._claims.poison.written(task)
        if ours:
            if begins:
                run.task = replace(task, run_id=task.id)
            await self.written(items, inserted)
        return ours

    async def _send(self, run: Run) -> AttemptResult:
        """Have the executor send it. From here on it may have been carried out: whatever goes wrong
        must not make it look unsent."""
        plan = run.plan
        self.deadlines.begin(run)
        try:
            try:
                send: Send = AttemptClient(plan.client).send
                if self._claims.poison.is_alone(run.task) and run.task.deaths < SURELY:
                    send = partial(self._send_alone, run.task, send)
                outcome = await plan.executor.execute(run.request, run.task, plan.target, send)
                check_outcome(outcome)
                # What the executor judges is not a plugin's decision against the rules of retry.
                outcome = replace(outcome, decided_by=None) if outcome.decided_by else outcome
            except BaseException as fault:  # it may be a plugin's, a cancellation of its own too
                outcome = self._fault(run, fault)
            finally:
                self.deadlines.end(run.running)
            if outcome.shortage and not outcome.maybe_done:
                return self._not_sent(run, outcome)
            return await self._conclude(run, outcome)
        except (Exception, asyncio.CancelledError) as error:
            return self._unclear(run, error)

    async def _send_alone(self, task: Task, send: Send, *words: Any, **options: Any) -> Any:
        """Send the request of a poison candidate. While an answer is waited for, nothing of it is
        carried out here: a death comes from outside then."""
        await self._claims.note_company(task)
        try:
            return await send(*words, **options)
        finally:
            if self._claims.poison.is_alone(task):
                await self._claims.note_company(task, alone=True)

    def _fault(self, run: Run, fault: BaseException) -> Outcome:
        """The outcome of an executor that has raised."""
        running, plan = run.running, run.plan
        if is_ctrl_c(fault):
            raise fault
        cancelled = isinstance(fault, asyncio.CancelledError)
        if cancelled and running in self.deadlines.overdue:
            error = self.deadlines.overdue[running]
        elif cancelled and self.deadlines.stopping:
            # The daemon stops and cannot wait any longer for this answer.
            running.uncancel()
            run.interrupted = True
            error = "the daemon was stopped before an answer came"
            return Outcome("retry", "error", error=error, maybe_done=True)
        else:
            log.exception("the executor of task %s failed", run.task.id)
            error = f"{type(fault).__name__}: {fault}"
        verdict = "retry" if "error" in plan.target.retry.when else "failure"
        return Outcome(verdict, "error", error=error, maybe_done=True)  # type: ignore[arg-type]

    def _not_sent(self, run: Run, outcome: Outcome) -> AttemptResult:
        """Nothing was sent, and the receiver cannot help it: the attempt is given back."""
        next_try = self._clock.now_ms() + round(SHORTAGE_DELAY * 1000)
        if outcome.receiver_only:
            self.feedback.wait_here(run.lane, next_try, NO_PORT)
        else:
            self._lanes.halt(HALT)
        self._shortages.tell(error_record(outcome.error, run.plan.config.redactor), SHORTAGE_DELAY)
        why = "not sent, as this machine lacks something: the attempt is given back"
        decision = Decision(Status.PENDING, why, None, next_try)
        return AttemptResult(decision, outcome, None, uncounted=True)

    async def _conclude(self, run: Run, outcome: Outcome) -> AttemptResult:
        """What follows from an attempt that was made: after, decide, tell."""
        plan = run.plan
        if plan.decides and outcome.status_code is not None and not run.interrupted:
            outcome = await self._after(run, plan.executor.phases[1], outcome)
        if (
            outcome.verdict == "success"
            and outcome.final_reason is None
            and not (run.interrupted or run.early)
            and not (plan.after in plan.announces or "on_success" in plan.announces)
        ):
            result = self.results.succeeded(run, outcome)
            if plan.tells and not result.recurring:
                await self.results.tell_success(run, outcome, result)
            return result
        decision = self._decide(run, outcome)
        guarded = not (run.early or plan.target.guarded_by.breaker.off)
        if guarded and is_down(outcome) and self.feedback.probes_open_breaker(run.task, run.lane):
            decision = await self._decide_probe(run, decision)
        return await self._tell(run, outcome, decision)

    async def _after(self, run: Run, after: str, outcome: Outcome) -> Outcome:
        """The outcome as the hooks of this after_ phase leave it."""
        arguments = {
            "outcome": outcome, "request": run.request, "statement": run.request, "task": run.task,
            "endpoint": run.plan.target.endpoint, "config": run.plan.config,
        }  # fmt: skip
        changed: Outcome = await self._host.fold(after, "outcome", arguments)
        return changed

    def _decide(self, run: Run, outcome: Outcome) -> Decision:
        if outcome.verdict == "success" and not run.early:  # as for most
            return succeeded(outcome)
        # Before now: the delay is one from the end that its row has.
        run.took, now, target = run.elapsed(), self._clock.now_ms(), run.plan.target
        if run.interrupted and target.idempotent:
            why = "stopped: back to pending, the attempt is given back"
            return Decision(Status.PENDING, why, None, now, 0.0)
        decision = decide(
            run.task, target.retry, target.idempotent, outcome,
            now=now, chance=self._chance, fault=self._host.backoff_fault,
            skipped=self._clock.skipped_since,
        )  # fmt: skip
        return decide_early(decision, run.task.floor(now)) if run.early else decision

    async def _decide_probe(self, run: Run, decision: Decision) -> Decision:
        task, policy = run.task, run.plan.target.retry
        first, now = give_up_from(task), self._clock.now_ms()
        if policy.give_up_after is None:
            try:
                found = await self._store.read(stored_throttles.first_attempt(task.id, first))
                first = found or run.began
            except Exception as error:  # the probe failed, and not what was asked of it
                log.warning("cannot read the first attempt of task %s: %s", task.id, error)
                first = run.began
        first += self._clock.skipped_since(first)
        fault = self._host.backoff_fault
        return decide_probe(task, policy, decision, now=now, first=first, fault=fault)

    async def _tell(self, run: Run, outcome: Outcome, decision: Decision) -> AttemptResult:
        row = run.row(outcome, decision)
        if run.interrupted and run.plan.target.idempotent:
            return AttemptResult(decision, outcome, row, uncounted=True)
        before_sending = decision.reason is Reason.REJECTED and outcome.status_code is None
        after = None if before_sending else run.plan.after
        return await self.results.tell(run.reached(outcome), decision, row, after)

    def _unclear(self, run: Run, error: BaseException) -> AttemptResult:
        """The end of what was sent, where no more can be known of it."""
        log.exception("cannot determine how task %s ended", run.task.id)
        text = f"{type(error).__name__}: {error}"
        outcome = Outcome("retry", "error", error=text, maybe_done=True)
        decision = self._decide(run, outcome)
        row = run.row(outcome, decision)
        return AttemptResult(decision, outcome, row, uncounted=decision.uncounted)

    def _end(
        self, run: Run, result: AttemptResult, items: Sequence[StoredEffect], now: int
    ) -> None:
        """Have the end of an attempt written; `_ends_told` learns what became of it."""
        plan = run.plan
        settlement = settlement_of(run.task, result, plan.config, plan.target, items, now)
        if items or plan.tells_runs:
            self._note_run(settlement, plan.config)
        operation = settle(settlement)
        operation.about = run
        if not self._ended:
            self._loop.call_soon(self.write_ended)
        self._ended.append(operation)

    def write_ended(self) -> None:
        """Have it written how attempts have ended in this turn of the loop: the thread that writes
        would have begun a transaction with the first of them."""
        ended, self._ended = self._ended, []
        try:
            self._store.write_told(ended, self._ends_told)
        except Exception as error:  # or their claims would have no way out
            for operation in ended:
                operation.error = error
            self._ends_told(ended)

    def _ends_told(self, operations: Sequence[Write[Settled]]) -> None:
        """What became of the ends of attempts, all those that were written at once."""
        written: list[SettledAttempt] = []
        taken: list[Run] = []
        following: list[tuple[Run, SettledAttempt]] = []
        for operation in operations:
            end, run, error = operation.item, operation.about, operation.error
            settled = operation.result if error is None else None
            if settled is None or not settled.accepted:
                again = self._loop.create_task(self._settle_again(run, end, settled, error))
                self._claims.hand_over(run.task.id, run.running, again)
            elif settled.inserted or len(end.effects) > SLICE:
                following.append((run, (end, settled, run.result)))
            else:
                written.append((end, settled, run.result))
                taken.append(run)
        self._claims.told(taken)
        self._lanes.settled(len(taken))
        self.teller.tell(written)
        if following:
            task = self._loop.create_task(self._follow_all(following))
            for run, _ in following:
                self._claims.hand_over(run.task.id, run.running, task)

    async def _follow_all(self, attempts: Sequence[tuple[Run, SettledAttempt]]) -> WayOut:
        """Do what follows from ends that were written, of all those that have new tasks."""
        running = asyncio.current_task()
        try:
            await self._are_on_disk([attempt for _, attempt in attempts])
        finally:
            self._lanes.settled(len(attempts))
            for run, _ in attempts:
                self._claims.gone(run.task, running)
        return "settled"

    async def _settle_again(
        self, run: Run, settlement: Settlement, settled: Settled | None, error: Exception | None
    ) -> WayOut:
        """Bring an end to disk that was not taken: the database refused it, or a cancel was asked
        for."""
        running, task, result = asyncio.current_task(), run.task, run.result
        assert result is not None
        try:
            if error is not None:
                settled = await self._claims.settle(settlement, error)
            return await self._follow(settlement, settled, result, run.plan.config, run.plan.target)
        except (Exception, asyncio.CancelledError) as again:
            return await self._end_anyway(task, run, again)
        finally:
            self._lanes.settled()
            self._claims.gone(task, running)

    async def settle(
        self, task: Task, result: AttemptResult, config: Config, target: Target | None, now: int
    ) -> WayOut:
        """Write how an attempt ended `now`, again and again until the database takes it; then do
        what follows from it."""
        items = await self.items(result.effects, run_id=run_of(task))
        settlement = settlement_of(task, result, config, target, items, now)
        self._note_run(settlement, config)
        settled = await self._claims.settle(settlement)
        return await self._follow(settlement, settled, result, config, target)

    def _note_run(self, settlement: Settlement, config: Config) -> None:
        """Note where a run begins with a task that ends so."""
        task = settlement.task
        if task.run_id is None and task.kind == Kind.CALL:
            settlement.begins_run = has_calls(settlement.effects) or is_run(
                task, settlement.status, self._host, config
            )

    async def _follow(
        self,
        settlement: Settlement,
        settled: Settled | None,
        result: AttemptResult,
        config: Config,
        target: Target | None,
    ) -> WayOut:
        """What follows from an end that was written; None where the daemon ended before."""
        task = settlement.task
        if settled is None:
            return "left"
        if not settled.accepted:
            if settled.cancel_asked:  # there is no retry to tell of
                result = await self.results.cancelled(task, result, config)
                return await self.settle(task, result, config, target, self._clock.now_ms())
            worker_log.warning(
                "a late result of task %s is refused: it has another owner now", task.id
            )
            return "lost"
        await self._are_on_disk([(settlement, settled, result)])
        return "settled"

    async def _are_on_disk(self, attempts: Sequence[SettledAttempt]) -> None:
        """Tell of ends that were written, and of the new tasks that were written with them."""
        try:
            try:
                items = [item for end, *_ in attempts for item in end.effects]
                await self.written(items, [one for _, how, _ in attempts for one in how.inserted])
            finally:
                self.teller.tell(attempts)
        except Exception:
            ids = ", ".join(str(end.task.id) for end, *_ in attempts)
            worker_log.exception("cannot follow up the end of task %s", ids)

    # -- new tasks, from where they are named until they run -----------------------------------

    async def items(
        self, effects: Sequence[Effect], level: int = 0, run_id: int | None = None
    ) -> list[StoredEffect]:
        """What to write for these effects: events come with what follows from them. `written` has
        to follow.

        There may be ten thousand: so many that others have their turn in between, here as in
        `written`. `level`: how many events led to them one after the other within this transaction.
        `run_id`: the run of the calls among them.
        """
        items: list[StoredEffect] = []
        events = self._placement.immediate(effects, level)
        ids = iter(await self._ids(len(events)) if events else ())
        for number, item in enumerate(effects):
            if not isinstance(item, NewTask):
                items.append(item)
            elif number in events and (id_ := next(ids, None)) is not None:
                items.append(await self._event(item, id_, events[number], level, run_id))
            else:
                new = item
                if not item.webhook:
                    new = await with_partition(item, self._placement.config)
                items.append(self.insert(new, run_id))
            if number % (EVENTS_AT_ONCE if events else AT_ONCE) == EVENTS_AT_ONCE - 1:
                await asyncio.sleep(0)
        return items

    async def _ids(self, count: int) -> Sequence[int]:
        """Ids for events; none where the database gives none now: they wait like others then."""
        try:
            return await self._event_ids.take(count)
        except Exception as error:
            log.warning("events wait for an attempt, as they cannot be given ids now: %s", error)
            return ()

    async def _event(
        self, new: NewTask, id_: int, place: Immediate, level: int, run_id: int | None
    ) -> Insert:
        """What to write for a task that needs no attempt: already succeeded, with what follows."""
        run_id = new.run_id if run_id is None else run_id
        effects = await self.results.happened(new, id_, run_id, *place, self._placement.config)
        if effects is None:
            return Insert(new, run_id=run_id)  # an attempt of it shows what is wrong
        items = await self.items(effects, level + 1, run_id or id_)
        begins = run_id is None and is_root(new, self._host, self._placement.config, items)
        return Insert(new, Happened(id_, items, begins), run_id)

    def insert(self, task: NewTask, run_id: int | None = None) -> Insert:
        """What to write for a new task; `written` has to follow."""
        if task.error is not None and len(task.error) > STORED_ERROR:  # as long as a plugin likes
            task = replace(task, error=error_record(task.error, self._placement.config.redactor))
        begins = run_id is None and is_root(task, self._host, self._placement.config)
        return Insert(task, None, run_id, begins)

    def expect(self, items: Sequence[StoredEffect]) -> None:
        """New tasks are about to be written: have the worker look for those that are due then."""
        now = self._clock.now_ms()
        found = [item.task for item in items if isinstance(item, Insert) and item.happened is None]
        for key in dict.fromkeys(task.key for task in found if task.delay <= 0):
            self._placement.touched(key, now)

    async def written(self, items: Sequence[StoredEffect], inserted: Sequence[Inserted]) -> None:
        """It is on disk: remember when it is due."""
        if len(items) > SLICE:
            self.slices_wait.set()
        inserts = [item for item in items if isinstance(item, Insert)]
        due: list[Inserted] = []
        for number, (insert, item) in enumerate(zip(inserts, inserted, strict=True), 1):
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)
            if self._events.listening and not item.duplicate:
                self._events.publish(task_events.created(insert, item, self._clock.now_ms()))
            if item.duplicate:
                continue
            if insert.happened is not None:
                await self._happened(insert, insert.happened, item)
            elif item.next_try is not None:
                due.append(item)
        if due:  # those that were claimed in the same transaction start now
            await asyncio.sleep(0)
        for item in due:
            if item.next_try is not None and item.id not in self._claims.running:
                self._placement.touched(item.key, item.next_try)

    async def _happened(self, insert: Insert, happened: Happened, item: Inserted) -> None:
        """A task that needed no attempt is on disk."""
        self._stats.happened()
        log_happened(insert, item)
        if self._events.listening:
            self._events.publish(task_events.happened(insert, item, self._clock.now_ms()))
        if happened.effects:
            await self.written(happened.effects, item.following)
