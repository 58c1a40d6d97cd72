"""The worker: claims what is due and has it run, until it is told to drain.

One loop, one claim at a time, as many attempts at once as there are slots (`runner`). What an
attempt leaves behind is settled in one transaction with the tasks that follow from it; where their
lane has a free slot they are born running and need no claim.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from random import Random
from typing import Any

from orchestratord.engine.attempt import Lifecycle
from orchestratord.engine.attempt_result import AttemptResults
from orchestratord.engine.enqueue import Enqueue
from orchestratord.engine.feedback import lane_view, waiting_view
from orchestratord.engine.lanes.lane_set import Choice, LaneSet
from orchestratord.engine.lanes.placement import Placement
from orchestratord.engine.lanes.wait_reason import Waiting, waits
from orchestratord.engine.removed_tasks import RemovedTasks
from orchestratord.engine.runner import Runner
from orchestratord.engine.stats import Stats
from orchestratord.errors import Unreachable
from orchestratord.http.api_client import Sender
from orchestratord.http.client import HttpClient
from orchestratord.model.settings import Config
from orchestratord.model.task import Effect, Key, NewTask, Status, Task
from orchestratord.plugin.executor import Doomed, Target
from orchestratord.plugin.host import Host
from orchestratord.queue.operations import claim, settle
from orchestratord.queue.records import Inserted, Pick
from orchestratord.queue.store import Store
from orchestratord.values.clock import Clock
from orchestratord.values.rate_limit import RateLimit

log = logging.getLogger("orchestratord.worker")

LONGEST_SLEEP = 1.0
"""Seconds; the clock may jump, and the watchdog wants a sign of life."""

INTERRUPTED_WITHIN = 5.0
"""Seconds for what was interrupted to be settled before the daemon goes."""

TICK = 0.5
"""Seconds between two looks at what waits or runs for too long."""


class Worker:
    """Runs the queue of one daemon. Everything here happens on one asyncio loop."""

    def __init__(
        self,
        store: Store,
        host: Host,
        client: HttpClient,
        clock: Clock,
        chance: Random | None = None,
    ) -> None:
        self.store = store
        self.host = host
        self.clock = clock
        self.lanes = LaneSet()
        # What is born running is not claimed, and would not be charged for all daemons.
        self.lanes.gates.shared = self.lanes.thrifty = store.shared
        self.lanes.gates.forget_past()
        self.scoreboard = Stats(time.monotonic())
        self.beat = time.monotonic()
        """When the loop last went round."""
        self.last_success: dict[str, int] = {}
        self.turned: Callable[[], None] = lambda: None
        """Called when a lane begins to wait for its receiver, or does so no more."""
        endings = AttemptResults(host, clock)
        self._life = Lifecycle(host, clock, chance or Random(), endings)  # noqa: S311  # jitter is no secret
        self._standings = Placement(host.registry)
        self._config: Config | None = None
        self.draining = False
        self._wake = asyncio.Event()
        self._ended = asyncio.Event()
        self._next_tick = 0.0
        self._waiters = Waiters()
        self._intake = Enqueue(self, store, self.lanes, self._standings, host.events)
        self._runner = Runner(
            self, store, self.lanes, self._standings, self._intake, self._life,
            Sender(client, self._learn), host.events,
        )  # fmt: skip
        self._removal = RemovedTasks(
            store, endings, self._standings, self._runner.settle, self._runner.give_back
        )
        for executor in host.registry.executors:
            executor.bind(store.instance, self.last_success)

    # -- what others tell the worker -----------------------------------------------------------

    def adopt(self, config: Config) -> None:
        """Take up a new configuration: waiting tasks follow it, those in flight keep theirs."""
        self._config = config
        self.lanes.concurrency = config.daemon.concurrency
        changed = self._standings.adopt(config)
        for key in self.lanes.all_keys():
            if changed(key):
                self.place(key)
                # What kept a receiver from answering may be mended by this.
                self.lanes.try_now(key, self.clock.now_ms())
        self._wake.set()

    def _learn(self, owner: str, secrets: tuple[str, ...]) -> None:
        self.config.redactor.learn(owner, secrets)

    def set_paused(self, paused: set[str]) -> None:
        """The endpoints whose calls wait; their deliveries go on."""
        changed = self._standings.set_paused(paused)
        for endpoint_id in changed:
            self.standing_changed(endpoint_id)

    def set_elsewhere(self, elsewhere: Mapping[str, bool]) -> None:
        """The endpoints that other daemons of the queue declare, and whether as we do: their tasks
        are left to those."""
        for endpoint_id in self._standings.set_elsewhere(elsewhere):
            self.standing_changed(endpoint_id)

    def held(self) -> set[int]:
        """The tasks that are claimed here, whether they run already or wait for a slot."""
        return {*self._runner.running, *self._runner.waiting(), *self._removal.at_work}

    async def take_over(self) -> bool:
        """Take over what daemons held that have died since; whether there was anything."""
        return await self._removal.recover(self.config, self.held())

    def standing_changed(self, endpoint_id: str | None) -> None:
        """Look again at where the tasks of an endpoint (of all for None) stand."""
        self._standings.forget(endpoint_id)
        for key in self.lanes.all_keys():
            if endpoint_id is None or key.endpoint_id == endpoint_id:
                self.place(key)
        self._wake.set()

    def touched(self, key: Key, next_try: int) -> None:
        """A task of `key` is pending and due at `next_try` (milliseconds)."""
        if not self.lanes.known(key) or isinstance(self._standings.of(key), Doomed):
            self.place(key)
        self.lanes.touch(key, next_try)
        self._wake.set()

    def try_now(self, key: Key) -> None:
        """Somebody wants a task of `key` tried: where its lane waits, it is the next probe."""
        self.lanes.try_now(key, self.clock.now_ms())
        self._wake.set()

    def lane_turned(self) -> None:
        """A lane begins to wait for its receiver, or does so no more."""
        self.turned()

    def waiting_lanes(self) -> list[dict[str, Any]]:
        """The lanes that wait for their receiver, as other daemons are told of them."""
        now, redactor = self.clock.now_ms(), self.config.redactor
        found = (waiting_view(lane, now, redactor) for lane in self.lanes.lanes.values())
        return [view for view in found if view is not None]

    def told_to_wait(self, lane: str, until: int, why: str) -> None:
        """Another daemon was asked for patience by the receiver of a lane, until then
        (milliseconds)."""
        self._runner.limits.told(lane, until, why)
        self._wake.set()

    def waits(self, task: Task) -> Waiting | None:
        """What a task waits for beside its `next_try`; None for nothing."""
        if task.status != Status.PENDING or task.next_try is None:
            return None
        standing = self._standings.of(task.key)
        return waits(standing, task.next_try, self.lanes, self.clock.now_ms())

    async def accept(self, tasks: Sequence[NewTask]) -> list[Inserted]:
        """Write new tasks, all or none, and start those that have a free slot.

        Raises what `Store.enqueue` raises.
        """
        return await self._intake.accept(tasks)

    async def write(self, effects: Sequence[Effect]) -> list[int]:
        """Write effects in one transaction; the ids of the new tasks, in order."""
        return await self._intake.write(effects)

    def finished(self, task_id: int) -> None:
        """A task reached a final state; whoever waits for it is woken."""
        self._waiters.finished(task_id)

    async def wait_final(self, task_id: int, timeout: float) -> None:  # noqa: ASYNC109
        """Return when the task has reached a final state, or after `timeout` seconds."""
        await self._waiters.wait(task_id, timeout)

    def snapshot(self) -> dict[str, Any]:
        """What `status` shows of the worker."""
        now = self.clock.now_ms()
        lanes = [lane_view(lane, now) for lane in self.lanes.lanes.values()]
        declared = self.config.endpoints
        failing = [item for item in self.scoreboard.failing() if item.key.endpoint_id in declared]
        return {
            "in_flight": self.lanes.in_flight,
            "concurrency": self.config.daemon.concurrency,
            "draining": self.draining,
            "next_due": self.lanes.next_due(),
            "rates": self.scoreboard.rates(time.monotonic()),
            "failing": failing,
            "lanes": lanes,
        }

    @property
    def config(self) -> Config:
        """The configuration in force."""
        if self._config is None:
            raise RuntimeError("the worker has no configuration yet")
        return self._config

    # -- the loop ------------------------------------------------------------------------------

    async def run(self) -> None:
        """Take over what a dead daemon held, then claim and run until `drain` is called."""
        try:
            await self._begin()
            await self._go_round()
        finally:
            self._ended.set()

    async def _begin(self) -> None:
        """Learn how the queue stands, as soon as the database says it."""
        while not self.draining:
            try:
                self.last_success.update(await self.store.read(settle.last_success()))
                await self._removal.recover(self.config, self.held())
                past = await self._past()
                await self.store.write(claim.charge_past(past))
                self.lanes.gates.learn_past({lane: times for lane, (_, times) in past.items()})
                for key, next_try in (await self.store.read(claim.earliest())).items():
                    self.touched(key, next_try)
                return
            except Unreachable as error:
                log.warning("how the queue stands is not known yet: %s", error)
            except Exception:
                log.exception("what a dead daemon held cannot be taken over; again in a second")
            self.beat = time.monotonic()
            await asyncio.sleep(1.0)

    async def _past(self) -> dict[str, tuple[RateLimit, list[int]]]:
        """Of lanes with a rate limit: that, and when calls began before this daemon did."""
        limits = [api.rate_limit for api in self.config.apis.values() if api.rate_limit]
        if not limits:
            return {}
        reach = max(limit.window + limit.margin for limit in limits)
        past: dict[str, tuple[RateLimit, list[int]]] = {}
        for key, began in await self.store.read(claim.begun(self.clock.now_ms() - reach)):
            standing = self._standings.of(key)
            if isinstance(standing, Target) and standing.rate is not None:
                past.setdefault(standing.lane, (standing.rate, []))[1].append(began)
        for _, times in past.values():
            times.sort()
        return past

    async def _go_round(self) -> None:
        loop = asyncio.get_running_loop()
        while not self.draining:
            self.beat = time.monotonic()
            self._wake.clear()
            self._tick()
            # Claims wait while settlements pile up: the store is what is slow then.
            choices = self.lanes.choose(self.clock.now_ms(), self._runner.unsettled)
            if choices:
                await self._claim(choices)
                continue
            timer = loop.call_later(self._sleep(), self._wake.set)
            await self._wake.wait()
            timer.cancel()

    def _tick(self) -> None:
        if self.beat < self._next_tick:
            return
        self._next_tick = self.beat + TICK
        self.scoreboard.sample(self.beat)
        self._removal.sweep(self.config, self.clock.now())
        self._runner.put_back_held()
        self._life.expire(self.beat)

    def wake(self) -> None:
        """Go round once more: a slot is free, or something else has changed."""
        self._wake.set()

    async def drain(self, timeout: float) -> None:  # noqa: ASYNC109
        """No new claim; wait up to `timeout` seconds for what is in flight, then interrupt it."""
        self.draining = True
        self._runner.put_back_waiting()
        self._wake.set()
        end = asyncio.get_running_loop().time() + timeout
        # A claim that is under way comes back with tasks, which are given back.
        with suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), timeout)
        left = await self._wait(end - asyncio.get_running_loop().time())
        self._life.interrupt()
        if left:
            log.warning("%d attempts did not end within drain_timeout; interrupted", left)
            await self._wait(INTERRUPTED_WITHIN)
        self._runner.closing = True
        self._removal.stop()

    async def _wait(self, timeout: float) -> int:  # noqa: ASYNC109
        """Wait until nothing is under way any more; how much still is."""
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        while (
            busy := {*self._runner.running.values(), *self._intake.under_way}
        ) and loop.time() < end:
            rest = min(end - loop.time(), TICK)
            await asyncio.wait(busy, timeout=rest, return_when=asyncio.FIRST_COMPLETED)
            self._life.expire(time.monotonic())
        return len(busy)

    def _sleep(self) -> float:
        due = self.lanes.next_look()
        if due is None:
            return LONGEST_SLEEP
        return min(max((due - self.clock.now() * 1000) / 1000, 0.0), LONGEST_SLEEP)

    async def _claim(self, choices: list[Choice]) -> None:
        now = self.clock.now_ms()
        picks = []
        for choice in choices:
            target = self._standings.of(choice.key)
            safe = isinstance(target, Target) and target.idempotent
            rate = target.rate if isinstance(target, Target) else None
            picks.append(Pick(choice.key, choice.limit, safe, now, choice.lane, rate))
        tasks: list[Task] = []
        earliest: dict[Key, int | None] = {choice.key: now + 1000 for choice in choices}
        try:
            claimed = await self.store.write(claim.claim(picks))
            tasks, earliest = claimed.tasks, claimed.earliest
            for lane, wait in claimed.used_up.items():
                self.lanes.gates.used_up(lane, self.clock.now_ms() + wait, now)
        except Unreachable as error:
            log.warning("nothing is claimed for now: %s", error)
        except Exception:
            log.exception("claiming failed; trying again in a second")
        by_key: dict[Key, list[Task]] = {}
        for task in tasks:
            by_key.setdefault(task.key, []).append(task)
        for choice in choices:
            found = by_key.get(choice.key, [])
            self.lanes.answered(choice, len(found), earliest.get(choice.key))
            if choice.probe and found:
                self.lanes.gates.probe(choice.lane, found[0].id)
            for task in found:
                self.start(task, choice.lane)

    def start(self, task: Task, lane: str) -> None:
        """Run a claimed task of `lane`, at once or when the lane has a slot."""
        self._runner.start(task, lane)

    # -- where keys stand ----------------------------------------------------------------------

    def place(self, key: Key) -> None:
        """Put a key where it belongs today: into its lane, or aside."""
        standing = self._standings.of(key)
        self._standings.arm(key, self.clock.now())
        if isinstance(standing, Target):
            self.lanes.place(key, standing.lane, standing.concurrency, standing.rate)
        else:
            self.lanes.park(key)


# -- Who waits for the end of a task ---------------------------------------------------------------


class Waiters:
    """Futures by task id."""

    def __init__(self) -> None:
        self._futures: dict[int, list[asyncio.Future[None]]] = {}

    def finished(self, task_id: int) -> None:
        """The task reached a final state: wake all who wait for it."""
        for future in self._futures.pop(task_id, ()):
            if not future.done():
                future.set_result(None)

    async def wait(self, task_id: int, timeout: float) -> None:  # noqa: ASYNC109
        """Return when the task has reached a final state, or after `timeout` seconds."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._futures.setdefault(task_id, []).append(future)
        try:
            await asyncio.wait((future,), timeout=timeout)
        finally:
            waiting = self._futures.get(task_id, [])
            if future in waiting:
                waiting.remove(future)
                if not waiting:
                    del self._futures[task_id]
