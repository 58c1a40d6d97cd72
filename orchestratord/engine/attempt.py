"""One attempt, from top to bottom: `Pipe._run` is the line that it goes along.

    choose → claim → admit to a slot → prepare → before → started? → send → after → decide → tell →
    feedback → release the slot → settle → what follows

The worker chooses and claims. Here a claimed task is admitted to a slot of its lane, and has an
asyncio task of its own from then on. The slot is free before its end is on disk: what is not
settled yet is the backpressure.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from random import Random
from typing import Any

from orchestratord.engine import task_events
from orchestratord.engine.attempt_result import AttemptResult, ResultTeller, Run
from orchestratord.engine.feedback import Feedback
from orchestratord.engine.lanes.lane_set import LaneSet
from orchestratord.engine.lanes.placement import Placement
from orchestratord.engine.retry import Decision, decide, give_up_at
from orchestratord.engine.settlement import Claims, log_settled, settlement_of
from orchestratord.engine.stats import Stats
from orchestratord.errors import InvalidPayload, Reject, Snooze
from orchestratord.http.api_client import Sender
from orchestratord.model.event import EventType, WebhookEvent
from orchestratord.model.outcome import Outcome
from orchestratord.model.settings import Config
from orchestratord.model.task import FINAL, Attempt, Effect, NewTask, Reason, Status, Task
from orchestratord.plugin.executor import Doomed, Target
from orchestratord.plugin.host import Host, Reached
from orchestratord.plugin.isolation import check_outcome
from orchestratord.queue.operations.settle import start
from orchestratord.queue.records import Born, Insert, Inserted, StoredEffect
from orchestratord.queue.store import Store
from orchestratord.values.clock import Clock
from orchestratord.values.durations import format_duration

log = logging.getLogger("orchestratord.attempt")
worker_log = logging.getLogger("orchestratord.worker")

GRACE = 1.0
"""Seconds over its timeout after which an executor that does not end by itself is cancelled."""

PREFETCHED_MS = 1000
"""How long a claimed task waits for a slot before its claim is released."""


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
        chance: Random,
    ) -> None:
        self._store = store
        self._host = host
        self._events = host.events
        self._sender = sender
        self._lanes = lanes
        self._placement = placement
        self._claims = claims
        self._stats = stats
        self._clock = clock
        self._chance = chance
        self._loop = asyncio.get_running_loop()
        self.feedback = Feedback(lanes, claims, host.events, clock)
        self.results = ResultTeller(host, clock)
        self.stopping = False
        self.sending: dict[asyncio.Task[Any], float] = {}
        """Attempts whose request is under way, and when they have to have ended
        (`time.monotonic`)."""
        self.preparing: set[asyncio.Task[Any]] = set()
        """Attempts in the hands of before_ hooks, which may take their time."""
        self.overdue: set[asyncio.Task[Any]] = set()
        """Attempts that were cancelled because their executor did not end by itself."""

    # -- admit to a slot -----------------------------------------------------------------------

    def start(self, task: Task, lane: str) -> None:
        """Run a claimed task of `lane`, at once or when the lane has a slot."""
        if not self._claims.take(task):
            self._lanes.release_claim(lane, self._clock.now_ms(), task.id)
        elif self._lanes.draining:  # what is claimed or born while the daemon drains goes back
            self._release_claim(task, lane)
        elif task.deaths and not self._claims.poison.admit(task, lane):
            self._lanes.suspend(lane)
        else:
            self._admit(task, lane)

    def start_candidate(self) -> None:
        """Run the poison candidate whose turn it is, if it is one's."""
        found = self._claims.poison.take_turn()
        if found is not None:
            task, lane = found
            self._lanes.resume(lane)
            self._admit(task, lane)

    def release_prefetched(self, longer_than: int = PREFETCHED_MS) -> None:
        """Release the claims that have waited for a slot for so many milliseconds."""
        for task in self._lanes.take_prefetched(self._clock.now_ms(), longer_than):
            self._claims.release_claim_later(task)

    def _admit(self, task: Task, lane: str) -> None:
        now = self._clock.now_ms()
        throttle = self._lanes.lanes[lane].throttle
        if throttle is not None and not throttle.admits(task.id, now):
            # Its lane was throttled while it was on its way from the store.
            self._release_claim(task, lane)
            return
        first = self._lanes.begin(lane, task, now)
        if first is not None:
            self._launch(first, lane)

    def _release_claim(self, task: Task, lane: str) -> None:
        self._lanes.release_claim(lane, self._clock.now_ms(), task.id)
        self._claims.release_claim_later(task)

    def _launch(self, task: Task, lane: str) -> None:
        if self._lanes.lanes[lane].throttle is not None:
            self._lanes.began(lane, self._clock.now_ms())
        if self._events.listening:
            self._events.publish(task_events.started(task, self._clock.now_ms()))
        self._claims.running[task.id] = self._loop.create_task(self._run(task, lane))

    def _release_slot(self, lane: str) -> None:
        """It goes to the next one that is prefetched in its lane, or to a claim."""
        following = self._lanes.release_slot(lane, self._clock.now_ms())
        if following is not None:
            self._launch(following, lane)
        self._lanes.wake.set()

    # -- the line ------------------------------------------------------------------------------

    async def _run(self, task: Task, lane: str) -> None:
        """One attempt of a task that has a slot."""
        running, began, has_slot = self._claims.running[task.id], self._clock.now_ms(), True
        try:
            run = self._begin(task, lane, running, began)
            if run is None:  # the configuration changed since it was claimed
                await self._claims.release_claim(task)
                return
            if await self._prepare(run) and await self._started(run):
                outcome = await self._send(run)
                try:
                    outcome = await self._after(run, outcome)
                    decision = self._decide(run, outcome)
                    run.result = await self._tell(run, outcome, decision)
                except Exception as error:
                    # It was sent: whatever goes wrong from here on must not make it look unsent.
                    log.exception("how task %s ended cannot be told", task.id)
                    run.result = self._unclear(run, error)
            self.feedback.note(run)
            has_slot = False
            self._lanes.unsettled += 1
            self._release_slot(lane)
            try:
                if run.result is not None:
                    await self.settle(task, run.result, run.config, run.target)
            finally:
                self._lanes.unsettled -= 1
                self._lanes.wake.set()
        except asyncio.CancelledError:
            # The daemon stops, and nothing was sent yet.
            await self._claims.release_claim(task)
        except Exception:
            worker_log.exception("task %s was not run; it goes back to pending", task.id)
            await asyncio.sleep(1.0)
            await self._claims.release_claim(task)
        finally:
            if has_slot:
                self._lanes.return_token(lane, self._clock.now_ms(), task.id, began)
                self._release_slot(lane)
            self._claims.gone(task, running)

    # -- the steps, in their order -------------------------------------------------------------

    def _begin(self, task: Task, lane: str, running: asyncio.Task[None], began: int) -> Run | None:
        """What the attempt is made with; None where today's configuration has it wait or fail."""
        standing, executor = self._placement.look(task.key)
        if (
            not isinstance(standing, Target)
            or executor is None
            # Its row says that a repeat is safe, which is what counts should the daemon die.
            or (task.idempotent and not standing.idempotent)
        ):
            return None
        config, send = self._placement.config, self._sender.within(standing)
        return Run(task, lane, standing, executor, config, send, running, began, time.monotonic())

    async def _prepare(self, run: Run) -> bool:
        """Make the request, and let the before_ hooks have it; False where it is not sent."""
        task, target, config = run.task, run.target, run.config
        endpoint, before = target.endpoint, run.executor.phases[0]
        deadline = give_up_at(task, target.retry)
        if deadline is not None and run.began > deadline:
            why = f"give_up_after {format_duration(target.retry.give_up_after or 0)} is over"
            run.result = await self.results.fail(task, endpoint, config, Reason.EXPIRED, why)
            return False
        # An idempotent task's claim counts as its start; but where a start ended with the daemon's
        # death before, the claim had to wait for its turn, and it starts here.
        if target.idempotent and task.deaths and not await self._start(task, ()):
            return False
        self.preparing.add(run.running)
        try:
            run.request = run.executor.prepare(task, target, self._clock.now())
            if self._host.concerned(before, task.kind, endpoint):
                name = "statement" if before == "before_execute" else "request"
                arguments = {
                    name: run.request, "task": task, "endpoint": endpoint, "config": config
                }  # fmt: skip
                run.request = await self._host.fold(before, name, arguments)
            return True
        except (InvalidPayload, Reject) as error:
            reason = Reason.REJECTED if isinstance(error, Reject) else Reason.INVALID_PAYLOAD
            run.result = await self.results.fail(
                task, endpoint, config, reason, str(error), request=run.request, began=run.began
            )
        except Snooze as snooze:
            next_try = run.began + round(snooze.delay * 1000)
            if deadline is not None and next_try > deadline:
                why = f"{snooze}: past give_up_after"
                run.result = await self.results.fail(task, endpoint, config, Reason.EXPIRED, why)
            else:
                decision = Decision(Status.PENDING, str(snooze), None, next_try)
                run.result = AttemptResult(decision, None, None, uncounted=True)
        except (KeyboardInterrupt, asyncio.CancelledError):
            raise
        except BaseException as error:
            # An executor is a plugin's, too.
            log.exception("the executor of task %s cannot prepare its request", task.id)
            run.request = None
            outcome = Outcome("retry", "error", error=f"{type(error).__name__}: {error}")
            run.result = await self._tell(run, outcome, self._decide(run, outcome))
        finally:
            self.preparing.discard(run.running)
        return False

    async def _started(self, run: Run) -> bool:
        """Announce the start, and commit it where its claim does not count as one, before the first
        byte; False where the claim is no longer ours."""
        task, target = run.task, run.target
        effects: Sequence[Effect] = ()
        if self._host.concerned("announce", task.kind, target.endpoint):
            reached = Reached(task, target.endpoint, run.config, None, run.request, run.running)
            reached.phase = run.executor.phases[0]
            effects = await self._host.collect("announce", reached)
        # What is not idempotent counts as started from here on, and not from its claim.
        claimed_as_start = task.idempotent and target.idempotent
        if (effects or not claimed_as_start) and not await self._start(task, effects):
            return False
        if self.stopping:
            raise asyncio.CancelledError
        return True

    async def _start(self, task: Task, effects: Sequence[Effect]) -> bool:
        items = list(self.items(effects))
        try:
            ours, inserted = await self._store.write(start(task, self._clock.now_ms(), items))
        except BaseException:
            self.not_written(items)
            raise
        if ours:
            self.written(items, inserted)
        else:
            self.not_written(items)
        return ours

    async def _send(self, run: Run) -> Outcome:
        task, target, running = run.task, run.target, run.running
        self.sending[running] = time.monotonic() + target.timeout + GRACE
        try:
            outcome = await run.executor.execute(run.request, task, target, run.send)
            check_outcome(outcome)
            # What the executor judges is not a plugin's decision against the rules of retry.
            return replace(outcome, decided_by=None) if outcome.decided_by else outcome
        except KeyboardInterrupt:
            raise
        except BaseException as fault:  # it may be a plugin's, a cancellation of its own too
            cancelled = isinstance(fault, asyncio.CancelledError)
            if cancelled and running in self.overdue:
                error = f"the executor did not end within {format_duration(target.timeout)}"
            elif cancelled and self.stopping:
                # The daemon stops and cannot wait any longer for this answer.
                running.uncancel()
                run.interrupted = True
                error = "the daemon was stopped before an answer came"
                return Outcome("retry", "error", error=error, maybe_done=True)
            else:
                log.exception("the executor of task %s failed", task.id)
                error = f"{type(fault).__name__}: {fault}"
        finally:
            del self.sending[running]
            # Whatever it made of the cancel.
            if running in self.overdue:
                self.overdue.discard(running)
                running.uncancel()
        verdict = "retry" if "error" in target.retry.when else "failure"
        return Outcome(verdict, "error", error=error, maybe_done=True)  # type: ignore[arg-type]

    async def _after(self, run: Run, outcome: Outcome) -> Outcome:
        """The outcome as the after_ hooks leave it."""
        task, endpoint, after = run.task, run.target.endpoint, run.executor.phases[1]
        if (
            outcome.status_code is None
            or run.interrupted
            or not self._host.concerned(after, task.kind, endpoint)
        ):
            return outcome
        arguments = {
            "outcome": outcome,
            "request": run.request,
            "statement": run.request,
            "task": task,
            "endpoint": endpoint,
            "config": run.config,
        }
        changed: Outcome = await self._host.fold(after, "outcome", arguments)
        return changed

    def _decide(self, run: Run, outcome: Outcome) -> Decision:
        now = self._clock.now_ms()
        if run.interrupted and run.target.idempotent:
            why = "stopped: back to pending, the attempt is given back"
            return Decision(Status.PENDING, why, None, now, 0.0)
        return decide(
            run.task,
            run.target.retry,
            run.target.idempotent,
            outcome,
            now=now,
            chance=self._chance,
            fault=self._backoff_fault,
        )

    def _backoff_fault(self, strategy: str, error: BaseException | str) -> None:
        """Log a strategy's fault under the name of the plugin that registered it."""
        plugin = self._host.registry.owners.get(("backoff", strategy), strategy)
        fault = error if isinstance(error, BaseException) else ValueError(error)
        self._host.fault(plugin, f"backoff {strategy}", fault)

    async def _tell(self, run: Run, outcome: Outcome, decision: Decision) -> AttemptResult:
        row = _row(run, outcome, decision)
        if run.interrupted and run.target.idempotent:
            return AttemptResult(decision, outcome, row, uncounted=True)
        unsent = decision.reason is Reason.REJECTED and outcome.status_code is None
        after = None if unsent else run.executor.phases[1]
        reached = Reached(
            run.task, run.target.endpoint, run.config, outcome, run.request, run.running
        )
        return await self.results.tell(reached, decision, row, after)

    def _unclear(self, run: Run, error: Exception) -> AttemptResult:
        text = f"{type(error).__name__}: {error}"
        outcome = Outcome("retry", "error", error=text, maybe_done=True)
        decision = self._decide(run, outcome)
        return AttemptResult(decision, outcome, _row(run, outcome, decision))

    async def settle(
        self, task: Task, result: AttemptResult, config: Config, target: Target | None
    ) -> None:
        """Write how an attempt ended, again and again until the database takes it; then do what
        follows from it."""
        items = list(self.items(result.effects)) if result.effects else []
        now = self._clock.now_ms()
        settlement = settlement_of(task, result, config, target, items, now)
        settled = await self._claims.settle(settlement)
        if settled is None:
            self.not_written(items)
            return
        if not settled.accepted:
            self.not_written(items)
            if settled.status == Status.CANCELLED:
                # A cancel was asked for while it ran: there is no retry to tell of.
                result = await self.results.cancelled(task, result, target, config)
                await self.settle(task, result, config, target)
                return
            worker_log.warning(
                "a late result of task %s is refused: it has another owner now", task.id
            )
            return
        if items:
            self.written(items, settled.inserted)
        log_settled(task, result, settled.status, config)
        self._stats.count(settlement, settled.status)
        if self._events.listening:
            self._events.publish(task_events.settled(settlement, settled.status))
        if settled.status == Status.PENDING:
            self._placement.touched(task.key, result.decision.next_try or now)
        elif settled.status in FINAL:
            self._claims.waiters.finished(task.id)
        if result.decision.reason == Reason.WEBHOOK_DISABLED and result.attempt is not None:
            self._webhook_disabled(task, now)

    def _webhook_disabled(self, task: Task, now: int) -> None:
        """Its receiver wants no more. Of several deliveries in flight, the first one tells."""
        before = self._placement.of(task.key)
        self._placement.standing_changed(task.endpoint_id)
        self._store.tell("tables")
        after = self._placement.of(task.key)
        if isinstance(after, Doomed) and not isinstance(before, Doomed):
            type_, name = EventType.WEBHOOK_DISABLED, task.webhook
            self._events.publish(WebhookEvent(type_, now, task.endpoint_id, name, after.why))

    # -- what follows --------------------------------------------------------------------------

    def items(self, effects: Sequence[Effect]) -> Iterator[StoredEffect]:
        """What to write for these effects: new tasks that can run at once have a slot of their lane
        from now on. `written` or `not_written` has to follow."""
        for item in effects:
            yield self.insert(item) if isinstance(item, NewTask) else item

    def insert(self, task: NewTask) -> Insert:
        """What to write for a new task; `written` or `not_written` has to follow."""
        # With an idempotency key it may turn out not to be new.
        if self._lanes.draining or task.delay > 0 or task.unique_key is not None:
            return Insert(task)
        standing = self._placement.of(task.key)
        if not isinstance(standing, Target):
            return Insert(task)
        if not self._lanes.known(task.key):
            self._placement.place(task.key)
        if not self._lanes.occupy(standing.lane, self._clock.now_ms()):
            return Insert(task)
        return Insert(task, Born(standing.idempotent, standing.lane))

    def written(self, items: Sequence[StoredEffect], inserted: Sequence[Inserted]) -> None:
        """It is on disk: start what was born running, remember when the rest is due."""
        inserts = [item for item in items if isinstance(item, Insert)]
        now = self._clock.now_ms() if self._events.listening else None
        for insert, item in zip(inserts, inserted, strict=True):
            if now is not None and not item.duplicate:
                self._events.publish(task_events.created(insert, item, now))
            if item.running is not None and insert.born is not None:
                self.start(item.running, insert.born.lane)
                continue
            self.not_written((insert,))
            if item.next_try is not None and not item.duplicate:
                self._placement.touched(item.key, item.next_try)

    def not_written(self, items: Sequence[StoredEffect]) -> None:
        """None of it was born running: release the slots that were taken for it."""
        for item in items:
            if isinstance(item, Insert) and item.born is not None:
                self._lanes.release_claim(item.born.lane, self._clock.now_ms())

    # -- what does not end by itself -----------------------------------------------------------

    def interrupt(self) -> None:
        """The daemon stops and waits no longer: end what is under way, begin nothing.

        An attempt that is under way ends by the rule for a daemon that stops; the claim of one that
        has sent nothing is released.
        """
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


def _row(run: Run, outcome: Outcome, decision: Decision) -> Attempt:
    return Attempt(
        run.task.attempts, run.began, run.elapsed(), outcome.status_code, outcome.error,
        decision.delay, decision.why,
    )  # fmt: skip
