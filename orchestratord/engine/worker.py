"""The worker: claims what is due and has it run, until it is told to drain.

One loop, one claim at a time, as many attempts at once as there are slots (`attempt`). What an
attempt leaves behind is settled in one transaction with the tasks that follow from it, which are
claimed like all others.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from functools import partial
from typing import Any

from orchestratord.engine.attempt.pipe import Pipe
from orchestratord.engine.lanes.lane_set import Choice, LaneSet
from orchestratord.engine.lanes.placement import Placement
from orchestratord.engine.lanes.share import Share
from orchestratord.engine.lanes.throttle_view import lane_view, scope_views
from orchestratord.engine.lanes.wait_reason import Waiting, behind, wait_reason
from orchestratord.engine.new.enqueue import Enqueue
from orchestratord.engine.settle.held_claims import Claims
from orchestratord.engine.settle.removed_tasks import RemovedTasks
from orchestratord.engine.stats import Stats
from orchestratord.errors import QueueError, Unreachable
from orchestratord.http.api_client import MakeKeeper, Sender
from orchestratord.http.client import HttpClient
from orchestratord.http.oauth import TokenKeeper
from orchestratord.model.task import Key, Status, Task
from orchestratord.plugin.executor import Target
from orchestratord.plugin.host import Host
from orchestratord.queue.daemon_health import CLAIMS_FAILING
from orchestratord.queue.operations import claim, partitions, search, settle, stored_throttles
from orchestratord.queue.records import Pick
from orchestratord.queue.shared_rates import Past
from orchestratord.queue.store import Store
from orchestratord.values import world
from orchestratord.values.clock import Clock
from orchestratord.values.rate_limit import RateLimit

log = logging.getLogger("orchestratord.worker")

LONGEST_SLEEP = 1.0
"""Seconds; the clock may jump, and the watchdog wants a sign of life."""

INTERRUPTED_WITHIN = 2.0
"""Seconds for what was interrupted to be settled before the daemon goes."""

CLAIMS_FAIL_AFTER = 10.0
"""Seconds for which claiming may fail until the daemon is not ready."""

MOST_LOCKED = 5_000
"""How many ends of attempts may wait in memory for rows that others have locked, before claims wait
for them, too."""

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
        share: Share | None = None,
        make_keeper: MakeKeeper = TokenKeeper,
    ) -> None:
        self.store = store
        self.host = host
        self.clock = clock
        self.lanes = LaneSet(several_daemons=store.several_daemons, share=share, now=clock.now_ms())
        self.placement = Placement(host.registry, self.lanes, clock)
        self.stats = Stats(world.monotonic())
        self._failing_since = 0.0
        """Since when nothing could be claimed (`world.monotonic`); 0 where it could."""
        self.beat: float | None = None
        """When the loop last went round; None until it does so."""
        self.claims = Claims(store, self.lanes, self.placement, host.events, clock)
        self.sender = Sender(client, self.placement.learn_secrets, make_keeper)
        self.pipe = Pipe(
            store, host, self.sender, self.lanes, self.placement, self.claims, self.stats, clock
        )
        self.feedback, self.waiters = self.pipe.feedback, self.claims.waiters
        self.enqueue = Enqueue(store, self.pipe.new_tasks)
        self._coming_forward: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._coming_forward.set_result(None)
        self.removed = RemovedTasks(
            store, self.placement, self.pipe.hooks, self.claims, self.pipe.ends, clock
        )
        self._stopped = asyncio.Event()
        self._next_tick = 0.0
        for executor in host.registry.executors:
            executor.bind(store.instance, self.stats.last_success)
            executor.now, executor.skipped_since = clock.now, clock.skipped_since

    # -- what others ask of the worker ---------------------------------------------------------

    def claimed_ids(self) -> set[int]:
        """The tasks that are claimed here, whether they run already or wait for a slot."""
        waiting = [*self.lanes.prefetched_ids(), *self.claims.poison.waiting_ids()]
        return {*self.claims.running, *waiting, *self.removed.at_work}

    async def take_over(self) -> bool:
        """Take over what daemons had claimed that have died since; whether there was anything."""
        return await self.removed.recover(self.claimed_ids())

    async def learn_last_success(self) -> None:
        """Learn when each endpoint last succeeded; what is still to come was a wrong clock's."""
        found, known = await self.store.read(settle.last_success()), self.stats.last_success
        latest = self.clock.now_ms()
        for endpoint_id in [name for name, at in known.items() if at > latest]:
            del known[endpoint_id]
        known.update(found)

    def try_now(self, key: Key) -> None:
        """A task of `key` is wanted now: where its lane waits, it is the next probe."""
        self.lanes.try_now(key, self.clock.now_ms())
        self.lanes.wake.set()

    def waiting_lanes(self) -> list[dict[str, Any]]:
        """The scopes that wait for their receiver, as other daemons are told of them."""
        return self.feedback.waiting(self.placement.config.redactor)

    async def wait_reason(self, task: Task) -> Waiting | None:
        """What a task waits for beside its `next_try`; None for nothing."""
        if not task.held:
            return self._wait_reason(task)
        found = await self.store.read(partitions.holder(task))
        if found is None:  # its turn comes at this moment, or once its hook lets it
            return self._wait_reason(task)
        other = await self.store.read(search.get(found))
        return behind(task, other, self._wait_reason(other))

    def _wait_reason(self, task: Task) -> Waiting | None:
        if task.status != Status.PENDING or task.next_try is None:
            return None
        standing, now = self.placement.of(task.key), self.clock.now_ms()
        found = wait_reason(task.key, standing, task.next_try, self.lanes, now)
        if found is None and task.waits_for is not None and task.next_try > now:
            return Waiting("snooze", task.waits_for, until=task.next_try)
        return found

    def snapshot(self) -> dict[str, Any]:
        """What `status` shows of the worker."""
        now = self.clock.now_ms()
        lanes = [lane_view(lane, now) for lane in self.lanes.lanes.values()]
        return {
            "in_flight": self.lanes.in_flight,
            "concurrency": self.lanes.declared,
            "draining": self.lanes.draining,
            "events_dropped": self.host.events.dropped,
            "unheld_claims": self.removed.unheld,
            "next_due": self.lanes.next_due(),
            "rates": self.stats.rates(world.monotonic()),
            "lanes": lanes,
            "throttled": scope_views(self.lanes, now),
        }

    # -- the loop ------------------------------------------------------------------------------

    async def run(self) -> None:
        """Take over what a dead daemon had claimed, then claim and run until `drain` is called."""
        try:
            async with asyncio.TaskGroup() as group:
                steps = self._follow_elected(), self.pipe.deadlines.watch()
                beside = [group.create_task(step) for step in steps]
                await self._begin()
                await self._go_round()
                for one in beside:
                    one.cancel()
        finally:
            self._stopped.set()

    async def _follow_elected(self) -> None:
        """In partitions the turn of other tasks comes with what is written here."""
        while True:
            elected = (await self.store.elected.take()).due or {}
            for key, next_try in elected.items():
                try:
                    self.placement.touched(key, next_try)
                except Exception:
                    log.exception("cannot mark the tasks of %s %s as due", *key)

    async def _begin(self) -> None:
        """Learn how the queue stands, as soon as the database says it."""
        past: Past | None = None
        while not self.lanes.draining:
            try:
                await self.learn_last_success()
                if past is None:  # what was under way is known as long as it is claimed
                    past = await self._past()
                    self.lanes.learn_past({lane: times for lane, (_, times) in past.items()})
                await self.take_over()
                await self.removed.mend_partitions()
                await claim.charge_past(self.store, past)
                for key, next_try in (await self.store.read(claim.earliest())).items():
                    self.placement.touched(key, next_try)
                return
            except QueueError as error:
                log.warning("cannot read the queue yet: %s", error)
                if not isinstance(error, Unreachable):  # which the health tells of
                    self._claims_fail(error)
            except Exception as error:
                log.exception("cannot take over a dead daemon's claims; again in a second")
                self._claims_fail(error)
            await asyncio.sleep(1.0)

    def _claims_fail(self, error: Exception) -> None:
        """Be unready where it goes on: nothing is sent, and the database answers all the same."""
        now = world.monotonic()
        self._failing_since = self._failing_since or now
        if now - self._failing_since >= CLAIMS_FAIL_AFTER:
            self.store.health.begin(CLAIMS_FAILING, f"nothing can be claimed: {error}")

    async def _past(self) -> Past:
        """Of lanes with a rate limit: that, and when calls began before this daemon did."""
        apis, endpoints = self.placement.config.apis, self.placement.config.endpoints
        limits = {name: api.rate_limit for name, api in apis.items() if api.rate_limit}
        if not limits:
            return {}
        reach = max(limit.window + limit.margin for limit in limits.values())
        now, past = self.clock.now_ms(), dict[str, tuple[RateLimit, list[int]]]()
        waiting = [id_ for id_, one in endpoints.items() if getattr(one.spec, "poll", None)]
        found = await self.store.read(claim.begun(now - reach))
        for key, began in found + await self.store.read(claim.looked(waiting, now - reach)):
            standing, api = self.placement.of(key), key.endpoint_id.partition("/")[0]
            # Where its endpoint is gone, only statements cannot be told from calls.
            counts = standing.rate if isinstance(standing, Target) else not key.webhook
            if counts and api in limits:
                # What was still to come was a wrong clock's.
                past.setdefault(f"api:{api}", (limits[api], []))[1].append(min(began, now))
        return {lane: (limit, sorted(times)) for lane, (limit, times) in past.items()}

    async def _go_round(self) -> None:
        loop, wake = asyncio.get_running_loop(), self.lanes.wake
        while not self.lanes.draining:
            self.beat = now = world.monotonic()
            wake.clear()
            self._tick(now)
            await self.pipe.start_candidate()
            self.lanes.locked = min(self.store.locked, MOST_LOCKED)
            choices = self.lanes.choose(self.clock.now_ms())
            if choices:
                await self._claim(choices)
                continue
            timer = loop.call_later(self._sleep(), wake.set)
            await wake.wait()
            timer.cancel()

    def _tick(self, now: float) -> None:
        if now < self._next_tick:
            return
        self._next_tick = now + TICK
        self.stats.sample(now)
        self.feedback.tick()
        if self.feedback.reopened and self._coming_forward.done():
            self._coming_forward = asyncio.get_running_loop().create_task(self._come_forward())
        self.removed.sweep(self.clock.steady())
        self.pipe.release_prefetched()

    async def _come_forward(self) -> None:
        """What failures have put off is due, where its breaker has closed, or a person wants it; it
        begins at the pace of its lane."""
        while self.feedback.reopened:
            key, since = self.feedback.reopened.popitem()
            standing = self.placement.of(key)
            if since and isinstance(standing, Target) and standing.guarded_by.breaker.off:
                continue
            touched = partial(self.placement.touched, key, self.clock.now_ms())
            try:
                await stored_throttles.bring_forward(self.store, key, since, touched)
            except Exception as error:
                log.warning("cannot bring forward the retries of %s %s yet: %s", *key, error)

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
            async with asyncio.timeout(timeout):
                await self._stopped.wait()
        left = await self._wait(end - asyncio.get_running_loop().time())
        self.pipe.deadlines.interrupt()
        if left:
            log.warning("%d attempts did not end within drain_timeout; interrupted", left)
            await self._wait(INTERRUPTED_WITHIN)
        self.claims.closing = True
        self.removed.stop()
        self._coming_forward.cancel()

    async def _wait(self, timeout: float) -> int:  # noqa: ASYNC109
        """Wait until nothing is under way any more; how much still is."""
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        claims, under_way = self.claims, self.enqueue.under_way
        while (left := len(claims.running) + len(under_way)) and loop.time() < end:
            waits = [*claims.running.values(), *under_way]
            busy = {*(one for one in waits if not one.done()), claims.next_told()}
            rest = min(end - loop.time(), TICK)
            await asyncio.wait(busy, timeout=rest, return_when=asyncio.FIRST_COMPLETED)
            self.pipe.deadlines.expire(world.monotonic())
        return left

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
            of_all = target.global_concurrency if isinstance(target, Target) else None
            lane, avoid, quick = choice.lane, choice.avoid, choice.quick
            pick = Pick(choice.key, choice.limit, safe, now, lane, rate, avoid, quick, of_all)
            picks.append(pick)
        tasks: list[Task] = []
        earliest: dict[Key, int | None] = {choice.key: now + 1000 for choice in choices}
        try:
            self.pipe.ends.write_ended()  # which have room in the same transaction
            claimed = await self.store.write(claim.claim(picks))
            tasks, earliest = claimed.tasks, claimed.earliest
            if self._failing_since:
                self._failing_since = 0.0
                self.store.health.end(CLAIMS_FAILING)
            for lane, wait in claimed.used_up.items():
                self.lanes.used_up(lane, self.clock.now_ms() + wait, now)
            for lane, wait in claimed.full.items():
                self.lanes.lanes[lane].full_until = self.clock.now_ms() + wait
        except Unreachable as error:
            log.warning("cannot claim tasks for now: %s", error)
        except Exception as error:
            log.exception("claiming failed; trying again in a second")
            self._claims_fail(error)
        by_key: dict[tuple[str, str], list[Task]] = {}
        for task in tasks:  # a tuple that equals its key, and costs no call
            by_key.setdefault((task.endpoint_id, task.webhook), []).append(task)
        now = self.clock.now_ms()
        for choice in choices:
            found = by_key.get(choice.key, [])
            self.lanes.answered(choice, len(found), earliest.get(choice.key))
            if choice.probe and found:
                self.lanes.scopes.probe_claimed(choice.key, found[0].id)
            if found:
                self.pipe.start(found, choice.lane, now)
