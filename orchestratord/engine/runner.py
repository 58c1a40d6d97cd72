"""Running claimed tasks: one asyncio task for each attempt, from its slot to its settlement."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

from orchestratord.engine import task_events
from orchestratord.engine.attempt import Lifecycle
from orchestratord.engine.attempt_result import AttemptResult
from orchestratord.engine.enqueue import Enqueue
from orchestratord.engine.feedback import Feedback
from orchestratord.engine.lanes.lane_set import LaneSet
from orchestratord.engine.lanes.placement import Placement
from orchestratord.engine.poison import PoisonCandidates
from orchestratord.engine.settlement import log_settled, settlement_of
from orchestratord.engine.stats import Stats
from orchestratord.http.api_client import Sender
from orchestratord.model.event import EventType, WebhookEvent
from orchestratord.model.settings import Config
from orchestratord.model.task import FINAL, Effect, Key, Reason, Status, Task
from orchestratord.plugin.event_bus import EventBus
from orchestratord.plugin.executor import Doomed, Executor, Target
from orchestratord.queue.operations import claim, settle
from orchestratord.queue.records import Settled
from orchestratord.queue.store import Store
from orchestratord.values.clock import Clock

log = logging.getLogger("orchestratord.worker")

T = TypeVar("T")

AGAIN = (0.1, 0.5, 1.0, 2.0, 5.0)
"""Seconds between tries to write while the database refuses; the last one is repeated."""

HELD_MS = 1000
"""How long a claimed task waits for a slot before it goes back."""


class Owner(Protocol):
    """The worker, as the runner needs it."""

    clock: Clock
    draining: bool
    scoreboard: Stats
    last_success: dict[str, int]

    @property
    def config(self) -> Config:
        """The configuration in force."""
        ...

    def wake(self) -> None:
        """A slot is free, or something else has changed."""
        ...

    def touched(self, key: Key, next_try: int) -> None:
        """A task of `key` is pending and due at `next_try`."""
        ...

    def finished(self, task_id: int) -> None:
        """A task reached a final state."""
        ...

    def standing_changed(self, endpoint_id: str | None) -> None:
        """Look again at where the tasks of an endpoint stand."""
        ...

    def lane_turned(self) -> None:
        """A lane begins to wait for its receiver, or does so no more."""
        ...


class Runner:
    """Runs what was claimed, and writes how it ended."""

    def __init__(
        self,
        owner: Owner,
        store: Store,
        lanes: LaneSet,
        standings: Placement,
        intake: Enqueue,
        life: Lifecycle,
        sender: Sender,
        events: EventBus,
    ) -> None:
        self._owner = owner
        self._store = store
        self._lanes = lanes
        self._standings = standings
        self._intake = intake
        self._life = life
        self._sender = sender
        self._events = events
        self._loop = asyncio.get_running_loop()
        self.running: dict[int, asyncio.Task[None]] = {}
        """The attempts under way, by the id of their task."""
        self._at_hand: dict[int, Task] = {}
        """Every claim, from its start until its end, or its return, is on the way to the store. Not
        longer: the same transaction may claim what it gives back."""
        self.unsettled = 0
        """Attempts that have ended and are not written yet."""
        self.closing = False
        """The daemon ends: what the database does not take now stays as it is."""
        self._suspects = PoisonCandidates(self._loop, self._begin_suspect)
        self.limits = Feedback(lanes, events, owner.clock, self.put_back, owner.lane_turned)

    def start(self, task: Task, lane: str) -> None:
        """Run a claimed task, at once or when its lane has a slot."""
        at_hand = self._at_hand.get(task.id)
        if at_hand is not None and at_hand.attempts == task.attempts:
            # Its lease ran out before it had begun, as the database was out of reach. Others gave
            # it back, and we have claimed it again: nothing tells the two claims apart, and what
            # has the first one at hand goes on with it.
            self._lanes.forgo(lane)
            self._lanes.gates.withdrawn(lane, task.id, self._owner.clock.now_ms())
            return
        self._at_hand[task.id] = task
        self._admit(task, lane)

    def _admit(self, task: Task, lane: str) -> None:
        if self._owner.draining:  # what is claimed or born while the daemon drains goes back
            self._lanes.forgo(lane)
            self.put_back(task)
        elif task.deaths and not self._suspects.admit(task, lane):
            self._lanes.forgo(lane)
        else:
            self._begin(task, lane)

    def waiting(self) -> list[int]:
        """The claimed tasks that wait for a slot or for their turn."""
        return [*self._lanes.held_ids(), *self._suspects.waiting_ids()]

    def put_back_held(self, longer_than: int = HELD_MS) -> None:
        """Give claims back that have waited for a slot for so many milliseconds."""
        for task in self._lanes.take_held(self._owner.clock.now_ms(), longer_than):
            self.put_back(task)

    def put_back_waiting(self) -> None:
        """Give back what waits for a slot or for its turn: the daemon stops."""
        self.put_back_held(0)
        for task in self._suspects.take_waiting():
            self.put_back(task)

    def put_back(self, task: Task) -> None:
        """Give a claim back in the background."""
        self._let_go(task)
        self.running[task.id] = self._loop.create_task(self._put_back(task))

    async def give_back(self, task: Task) -> None:
        """Give a claim back that did not start, again and again until the database takes it."""
        self._let_go(task)
        released = await self._insist(task, lambda: self._store.write(claim.release_claims([task])))
        if released is not None:
            self._released(task, released[0][0])

    async def settle(
        self, task: Task, ended: AttemptResult, config: Config, target: Target | None
    ) -> None:
        """Write how an attempt ended, again and again until the database takes it."""
        self._let_go(task)
        effects = self._intake.prepare(ended.effects) if ended.effects else []
        now = self._owner.clock.now_ms()
        settlement = settlement_of(task, ended, config, target, effects, now)
        settled: Settled | None = None
        refused: Exception | None = None
        if task.id not in self._at_hand and not self.closing:  # as nearly always
            try:
                settled = await self._store.write(settle.settle(settlement))
            except Exception as error:
                refused = error
        if settled is None:
            written = await self._insist(
                task, lambda: self._store.write(settle.settle(settlement)), refused
            )
            if written is None:
                self._intake.refused(effects)
                return
            settled = written[0]
        if not settled.accepted:
            self._intake.refused(effects)
            if settled.status == Status.CANCELLED:
                # A cancel was asked for while it ran: there is no retry to tell of.
                ended = await self._life.endings.cancelled(task, ended, target, config)
                await self.settle(task, ended, config, target)
                return
            log.warning("a late result of task %s is refused: it has another owner now", task.id)
            return
        if settlement.last_success_at is not None:
            self._owner.last_success[task.endpoint_id] = settlement.last_success_at
        if effects:
            self._intake.took(effects, settled.inserted)
        log_settled(task, ended, settled.status, config)
        self._owner.scoreboard.ended(settlement, settled.status)
        if self._events.listening:
            self._events.publish(task_events.settled(settlement, settled.status))
        if settled.status == Status.PENDING:
            self._placed(task.key, ended.decision.next_try or now)
        elif settled.status in FINAL:
            self._owner.finished(task.id)
        if ended.decision.reason == Reason.WEBHOOK_DISABLED and ended.attempt is not None:
            self._webhook_disabled(task, now)

    # -- within --------------------------------------------------------------------------------

    def _webhook_disabled(self, task: Task, now: int) -> None:
        """Its receiver wants no more. Of several deliveries in flight, the first one tells."""
        before = self._standings.of(task.key)
        self._owner.standing_changed(task.endpoint_id)
        self._store.tell("tables")
        after = self._standings.of(task.key)
        if isinstance(after, Doomed) and not isinstance(before, Doomed):
            type_, name = EventType.WEBHOOK_DISABLED, task.webhook
            self._events.publish(WebhookEvent(type_, now, task.endpoint_id, name, after.why))

    def _begin(self, task: Task, lane: str) -> None:
        now = self._owner.clock.now_ms()
        gate = self._lanes.lanes[lane].gate
        if gate is not None and not gate.admits(task.id, now):
            # Its lane was shut while it was on its way from the store.
            self._lanes.forgo(lane)
            self._lanes.gates.withdrawn(lane, task.id, now)
            self.put_back(task)
            return
        first = self._lanes.begin(lane, task, now)
        if first is not None:
            self._launch(first, lane)

    def _begin_suspect(self, task: Task, lane: str) -> None:
        self._lanes.retake(lane)
        self._admit(task, lane)

    def _launch(self, task: Task, lane: str) -> None:
        if self._lanes.lanes[lane].gate is not None:
            self._lanes.gates.began(lane, self._owner.clock.now_ms())
        if self._events.listening:
            self._events.publish(task_events.started(task, self._owner.clock.now_ms()))
        self.running[task.id] = self._loop.create_task(self._run(task, lane))

    def _free(self, lane: str) -> None:
        """A slot is free: it goes to the next one that is held in its lane, or to a claim."""
        following = self._lanes.release(lane, self._owner.clock.now_ms())
        if following is not None:
            self._launch(following, lane)
        self._owner.wake()

    async def _run(self, task: Task, lane: str) -> None:
        owner, running, held = self._owner, self.running[task.id], True
        # Only a gate wants to know.
        began = owner.clock.now_ms() if self._lanes.lanes[lane].gate is not None else 0
        try:
            standing, executor = self._standings.look(task.key)
            config = owner.config
            if (
                not isinstance(standing, Target)
                or executor is None
                # Its row says that a repeat is safe, which is what counts should the daemon die.
                or (task.idempotent and not standing.idempotent)
            ):
                # The configuration changed since it was claimed.
                self._let_go(task)
                self._released(task, (await self._store.write(claim.release_claims([task])))[0])
                return
            ended = await self._attempt(task, standing, executor, config, running)
            if ended is None:
                self.limits.unsent(lane, task, began)
            else:
                self.limits.ended(lane, task, ended, standing, config.redactor, began)
            self.unsettled += 1
            held = False
            self._free(lane)
            try:
                if ended is not None:
                    await self.settle(task, ended, config, standing)
            finally:
                self.unsettled -= 1
                owner.wake()
        except asyncio.CancelledError:
            # The daemon stops, and nothing was sent yet.
            await self.give_back(task)
        except Exception:
            log.exception("task %s was not run; it goes back to pending", task.id)
            await asyncio.sleep(1.0)
            await self.give_back(task)
        finally:
            if held:
                self.limits.unsent(lane, task, began)
                self._free(lane)
            self._gone(task, running)

    async def _attempt(
        self,
        task: Task,
        target: Target,
        executor: Executor,
        config: Config,
        running: asyncio.Task[None],
    ) -> AttemptResult | None:
        send = self._sender.within(target)

        async def started(effects: Sequence[Effect]) -> bool:
            items = self._intake.prepare(effects)
            try:
                now = self._owner.clock.now_ms()
                ours, inserted = await self._store.write(settle.start(task, now, items))
            except BaseException:
                self._intake.refused(items)
                raise
            if not ours:
                self._intake.refused(items)
                return False
            self._intake.took(items, inserted)
            return True

        return await self._life.run(task, target, executor, config, send, started, running)

    async def _put_back(self, task: Task) -> None:
        running = self.running[task.id]
        try:
            await self.give_back(task)
        finally:
            self._gone(task, running)

    def _gone(self, task: Task, running: asyncio.Task[None]) -> None:
        # It may run again already, after a settlement that put it back at once.
        if self.running.get(task.id) is running:
            del self.running[task.id]
        self._let_go(task)
        if task.deaths:
            self._suspects.ended(task.id)

    def _let_go(self, task: Task) -> None:
        if self._at_hand.get(task.id) is task:
            del self._at_hand[task.id]

    async def _insist(
        self, task: Task, write: Callable[[], Awaitable[T]], error: Exception | None = None
    ) -> tuple[T] | None:
        """Repeat a write until the database takes it; `error` is what became of it by now.

        None where the daemon ends before, or where we have claimed the task again meanwhile: what
        tells the store that a claim is ours may be the same for both.
        """
        tries = 0
        while True:
            if error is not None:
                delay = AGAIN[min(tries, len(AGAIN) - 1)]
                tries += 1
                log.error("task %s cannot be written (%s); again in %gs", task.id, error, delay)
                await asyncio.sleep(delay)
            if self.closing:
                break
            if task.id in self._at_hand:
                return None
            try:
                return (await write(),)
            except Exception as again:
                error = again
        log.error("task %s stays as it is until the next start", task.id)
        return None

    def _released(self, task: Task, status: str | None) -> None:
        now = self._owner.clock.now_ms()
        if status != Status.CANCELLED:
            self._placed(task.key, now)
            return
        # A cancel was asked for while it was claimed.
        self._owner.finished(task.id)
        if self._events.listening:
            gone = replace(task, status=status, attempts=task.attempts - 1, next_try=None)
            self._events.publish(task_events.cancelled(gone, now))

    def _placed(self, key: Key, next_try: int) -> None:
        if not self._owner.draining:
            self._owner.touched(key, next_try)
