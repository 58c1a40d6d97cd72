"""The worker: claims what is due and has it run, until it is told to drain.

One loop, one claim at a time, as many attempts at once as there are slots (`attempt`). What an
attempt leaves behind is settled in one transaction with the tasks that follow from it; where their
lane has a free slot they are born running and need no claim.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from random import Random
from typing import Any

from orchestratord.engine.attempt import Pipe
from orchestratord.engine.enqueue import Enqueue
from orchestratord.engine.feedback import lane_view, waiting_view
from orchestratord.engine.lanes.lane_set import Choice, LaneSet
from orchestratord.engine.lanes.placement import Placement
from orchestratord.engine.lanes.wait_reason import Waiting, waits
from orchestratord.engine.removed_tasks import RemovedTasks
from orchestratord.engine.settlement import Claims
from orchestratord.engine.stats import Stats
from orchestratord.errors import Unreachable
from orchestratord.http.api_client import Sender
from orchestratord.http.client import HttpClient
from orchestratord.model.task import Key, Status, Task
from orchestratord.plugin.executor import Target
from orchestratord.plugin.host import Host
from orchestratord.queue.operations import claim, settle
from orchestratord.queue.records import Pick
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
        self.lanes = LaneSet(shared=store.shared)
        # What is born running is not claimed, and would not be charged for all daemons.
        self.lanes.forget_past()
        self.placement = Placement(host.registry, self.lanes, clock)
        self.stats = Stats(time.monotonic())
        self.beat = time.monotonic()
        """When the loop last went round."""
        self.claims = Claims(store, self.lanes, self.placement, host.events, clock)
        self.pipe = Pipe(
            store, host, Sender(client, self.placement.learn_secrets), self.lanes, self.placement,
            self.claims, self.stats, clock, chance or Random(),  # noqa: S311  # jitter is no secret
        )  # fmt: skip
        self.feedback, self.waiters = self.pipe.feedback, self.claims.waiters
        self.enqueue = Enqueue(store, self.pipe)
        self._removed = RemovedTasks(store, self.placement, self.pipe, self.claims)
        self._stopped = asyncio.Event()
        self._next_tick = 0.0
        for executor in host.registry.executors:
            executor.bind(store.instance, self.stats.last_success)

    # -- what others ask of the worker ---------------------------------------------------------

    def claimed_ids(self) -> set[int]:
        """The tasks that are claimed here, whether they run already or wait for a slot."""
        claims = self.claims
        waiting = [*self.lanes.prefetched_ids(), *claims.poison.waiting_ids()]
        return {*claims.running, *waiting, *self._removed.at_work}

    async def take_over(self) -> bool:
        """Take over what daemons had claimed that have died since; whether there was anything."""
        return await self._removed.recover(self.claimed_ids())

    def try_now(self, key: Key) -> None:
        """A task of `key` is wanted now: where its lane waits, it is the next probe."""
        self.lanes.try_now(key, self.clock.now_ms())
        self.lanes.wake.set()

    def waiting_lanes(self) -> list[dict[str, Any]]:
        """The lanes that wait for their receiver, as other daemons are told of them."""
        now, redactor = self.clock.now_ms(), self.placement.config.redactor
        found = (waiting_view(lane, now, redactor) for lane in self.lanes.lanes.values())
        return [view for view in found if view is not None]

    def waits(self, task: Task) -> Waiting | None:
        """What a task waits for beside its `next_try`; None for nothing."""
        if task.status != Status.PENDING or task.next_try is None:
            return None
        standing = self.placement.of(task.key)
        return waits(standing, task.next_try, self.lanes, self.clock.now_ms())

    def snapshot(self) -> dict[str, Any]:
        """What `status` shows of the worker."""
        now = self.clock.now_ms()
        lanes = [lane_view(lane, now) for lane in self.lanes.lanes.values()]
        declared = self.placement.config.endpoints
        failing = [item for item in self.stats.failing() if item.key.endpoint_id in declared]
        return {
            "in_flight": self.lanes.in_flight,
            "concurrency": self.lanes.concurrency,
            "draining": self.lanes.draining,
            "next_due": self.lanes.next_due(),
            "rates": self.stats.rates(time.monotonic()),
            "failing": failing,
            "lanes": lanes,
        }

    # -- the loop ------------------------------------------------------------------------------

    async def run(self) -> None:
        """Take over what a dead daemon had claimed, then claim and run until `drain` is called."""
        try:
            await self._begin()
            await self._go_round()
        finally:
            self._stopped.set()

    async def _begin(self) -> None:
        """Learn how the queue stands, as soon as the database says it."""
        while not self.lanes.draining:
            try:
                self.stats.last_success.update(await self.store.read(settle.last_success()))
                await self.take_over()
                past = await self._past()
                await self.store.write(claim.charge_past(past))
                self.lanes.learn_past({lane: times for lane, (_, times) in past.items()})
                for key, next_try in (await self.store.read(claim.earliest())).items():
                    self.placement.touched(key, next_try)
                return
            except Unreachable as error:
                log.warning("how the queue stands is not known yet: %s", error)
            except Exception:
                log.exception(
                    "what a dead daemon had claimed cannot be taken over; again in a second"
                )
            self.beat = time.monotonic()
            await asyncio.sleep(1.0)

    async def _past(self) -> dict[str, tuple[RateLimit, list[int]]]:
        """Of lanes with a rate limit: that, and when calls began before this daemon did."""
        limits = [api.rate_limit for api in self.placement.config.apis.values() if api.rate_limit]
        if not limits:
            return {}
        reach = max(limit.window + limit.margin for limit in limits)
        past: dict[str, tuple[RateLimit, list[int]]] = {}
        for key, began in await self.store.read(claim.begun(self.clock.now_ms() - reach)):
            standing = self.placement.of(key)
            if isinstance(standing, Target) and standing.rate is not None:
                past.setdefault(standing.lane, (standing.rate, []))[1].append(began)
        for _, times in past.values():
            times.sort()
        return past

    async def _go_round(self) -> None:
        loop, wake = asyncio.get_running_loop(), self.lanes.wake
        while not self.lanes.draining:
            self.beat = time.monotonic()
            wake.clear()
            self._tick()
            self.pipe.start_candidate()
            choices = self.lanes.choose(self.clock.now_ms())
            if choices:
                await self._claim(choices)
                continue
            timer = loop.call_later(self._sleep(), wake.set)
            await wake.wait()
            timer.cancel()

    def _tick(self) -> None:
        if self.beat < self._next_tick:
            return
        self._next_tick = self.beat + TICK
        self.stats.sample(self.beat)
        self._removed.sweep(self.clock.now())
        self.pipe.release_prefetched()
        self.pipe.expire(self.beat)

    async def drain(self, timeout: float) -> None:  # noqa: ASYNC109
        """No new claim; wait up to `timeout` seconds for what is in flight, then interrupt it."""
        self.lanes.draining = True
        self.pipe.release_prefetched(0)
        for task in self.claims.poison.take_waiting():
            self.claims.release_claim_later(task)
        self.lanes.wake.set()
        end = asyncio.get_running_loop().time() + timeout
        # A claim that is under way comes back with tasks, which are released.
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopped.wait(), timeout)
        left = await self._wait(end - asyncio.get_running_loop().time())
        self.pipe.interrupt()
        if left:
            log.warning("%d attempts did not end within drain_timeout; interrupted", left)
            await self._wait(INTERRUPTED_WITHIN)
        self.claims.closing = True
        self._removed.stop()

    async def _wait(self, timeout: float) -> int:  # noqa: ASYNC109
        """Wait until nothing is under way any more; how much still is."""
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        while (
            busy := {*self.claims.running.values(), *self.enqueue.under_way}
        ) and loop.time() < end:
            rest = min(end - loop.time(), TICK)
            await asyncio.wait(busy, timeout=rest, return_when=asyncio.FIRST_COMPLETED)
            self.pipe.expire(time.monotonic())
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
            target = self.placement.of(choice.key)
            safe = isinstance(target, Target) and target.idempotent
            rate = target.rate if isinstance(target, Target) else None
            picks.append(Pick(choice.key, choice.limit, safe, now, choice.lane, rate))
        tasks: list[Task] = []
        earliest: dict[Key, int | None] = {choice.key: now + 1000 for choice in choices}
        try:
            claimed = await self.store.write(claim.claim(picks))
            tasks, earliest = claimed.tasks, claimed.earliest
            for lane, wait in claimed.used_up.items():
                self.lanes.used_up(lane, self.clock.now_ms() + wait, now)
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
                self.lanes.probe_claimed(choice.lane, found[0].id)
            for task in found:
                self.pipe.start(task, choice.lane)
