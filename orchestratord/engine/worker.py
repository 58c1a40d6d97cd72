"""The worker: claims what is due, runs it, settles it, until it is told to drain.

One loop, one claim at a time, as many attempts at once as there are slots. What an attempt leaves
behind is settled in one transaction with the tasks that follow from it; where their lane has a
free slot they are born running and need no claim.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from random import Random
from typing import Any, TypeVar

from orchestratord.clock import Clock
from orchestratord.engine.attempt import Ended, Lifecycle
from orchestratord.engine.intake import Intake
from orchestratord.engine.lanes import Choice, Lanes
from orchestratord.engine.removal import Removal
from orchestratord.engine.sending import Sender
from orchestratord.engine.settling import log_settled, settlement_of
from orchestratord.engine.standings import Standings
from orchestratord.engine.transport import Client
from orchestratord.engine.waiters import Waiters
from orchestratord.executor import Doomed, Executor, Target
from orchestratord.host import Host
from orchestratord.queue.records import Inserted, Pick
from orchestratord.queue.store import Store
from orchestratord.settings import Config
from orchestratord.task import FINAL, Effect, Key, NewTask, Reason, Status, Task

log = logging.getLogger("orchestratord.worker")

T = TypeVar("T")

LONGEST_SLEEP = 1.0
"""Seconds; the clock may jump, and the watchdog wants a sign of life."""

AGAIN = (0.1, 0.5, 1.0, 2.0, 5.0)
"""Seconds between tries to write while the database refuses; the last one is repeated."""

INTERRUPTED_WITHIN = 5.0
"""Seconds for what was interrupted to be settled before the daemon goes."""

DOOM_BATCH = 50
"""Tasks of a doomed key that are failed at a time."""


class Worker:
    """Runs the queue of one daemon. Everything here happens on one asyncio loop."""

    def __init__(
        self, store: Store, host: Host, client: Client, clock: Clock, chance: Random | None = None
    ) -> None:
        self.store = store
        self.host = host
        self.clock = clock
        self.lanes = Lanes()
        self.beat = time.monotonic()
        """When the loop last went round."""
        self.last_success: dict[str, int] = {}
        self._life = Lifecycle(host, clock, chance or Random())  # noqa: S311  # jitter is no secret
        self._sender = Sender(client)
        self._standings = Standings(host.registry)
        self._config: Config | None = None
        self._running: dict[int, asyncio.Task[None]] = {}
        self._unsettled = 0
        self.draining = False
        self._wake = asyncio.Event()
        self._ended = asyncio.Event()
        self._closing = False
        self._suspects = asyncio.Lock()
        self._waiters = Waiters()
        self._intake = Intake(self, store, self.lanes, self._standings)
        self._removal = Removal(store, self._life, self._standings, self._settle, self._give_back)
        for executor in host.registry.executors:
            executor.bind(store.instance, self.last_success)

    # -- what others tell the worker -----------------------------------------------------------

    def adopt(self, config: Config) -> None:
        """Take up a new configuration: waiting tasks follow it, those in flight keep theirs."""
        self._config = config
        self.lanes.concurrency = config.daemon.concurrency
        self._standings.adopt(config)
        for key in self.lanes.all_keys():
            self.place(key)
        self._wake.set()

    def set_paused(self, paused: set[str]) -> None:
        """The endpoints whose calls wait; their deliveries go on."""
        changed = self._standings.set_paused(paused)
        for endpoint_id in changed:
            self.standing_changed(endpoint_id)

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
        lanes = [
            {"name": lane.name, "in_flight": lane.in_flight, "concurrency": lane.concurrency,
             "due": len(lane.line)}
            for lane in self.lanes.lanes.values()
        ]  # fmt: skip
        return {
            "in_flight": self.lanes.in_flight,
            "concurrency": self.config.daemon.concurrency,
            "draining": self.draining,
            "next_due": self.lanes.next_due(),
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
            self.last_success.update(await self.store.last_success())
            await self._recover()
            for key, next_try in (await self.store.earliest()).items():
                self.touched(key, next_try)
            await self._go_round()
        finally:
            self._ended.set()

    async def _recover(self) -> None:
        while not self.draining:
            try:
                await self._removal.recover(self.config)
                return
            except Exception:
                log.exception("what a dead daemon held cannot be taken over; again in a second")
                self.beat = time.monotonic()
                await asyncio.sleep(1.0)

    async def _go_round(self) -> None:
        loop = asyncio.get_running_loop()
        while not self.draining:
            self.beat = time.monotonic()
            self._wake.clear()
            self._removal.sweep(self.config, self.clock.now())
            # Claims wait while settlements pile up: the store is what is slow then.
            choices = self.lanes.choose(self.clock.now_ms(), self._unsettled)
            if choices:
                await self._claim(choices)
                continue
            timer = loop.call_later(self._sleep(), self._wake.set)
            await self._wake.wait()
            timer.cancel()

    async def drain(self, timeout: float) -> None:  # noqa: ASYNC109
        """No new claim; wait up to `timeout` seconds for what is in flight, then interrupt it."""
        self.draining = True
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
        self._closing = True
        self._removal.stop()

    async def _wait(self, timeout: float) -> int:  # noqa: ASYNC109
        """Wait until nothing is under way any more; how much still is."""
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        while (busy := {*self._running.values(), *self._intake.under_way}) and loop.time() < end:
            await asyncio.wait(busy, timeout=end - loop.time(), return_when=asyncio.FIRST_COMPLETED)
        return len(busy)

    def _sleep(self) -> float:
        due = self.lanes.next_due()
        if due is None:
            return LONGEST_SLEEP
        return min(max((due - self.clock.now() * 1000) / 1000, 0.0), LONGEST_SLEEP)

    async def _claim(self, choices: list[Choice]) -> None:
        now = self.clock.now_ms()
        picks = []
        for choice in choices:
            target = self._standings.of(choice.key)
            safe = isinstance(target, Target) and target.idempotent
            picks.append(Pick(choice.key, choice.limit, safe, now))
        tasks: list[Task] = []
        earliest: dict[Key, int | None] = {choice.key: now + 1000 for choice in choices}
        try:
            claimed = await self.store.claim(picks)
            tasks, earliest = claimed.tasks, claimed.earliest
        except Exception:
            log.exception("claiming failed; trying again in a second")
        by_key: dict[Key, list[Task]] = {}
        for task in tasks:
            by_key.setdefault(task.key, []).append(task)
        for choice in choices:
            found = by_key.get(choice.key, [])
            self.lanes.claimed(choice, len(found), earliest.get(choice.key))
            for task in found:
                self.start(task, choice.lane)

    def start(self, task: Task, lane: str) -> None:
        """Run a claimed task; its slot of `lane` and of the daemon is taken already."""
        # What is claimed or born while the daemon drains goes back.
        run = self._return(task, lane) if self.draining else self._run(task, lane)
        running = asyncio.get_running_loop().create_task(run)
        self._running[task.id] = running
        running.add_done_callback(lambda _: self._running.pop(task.id, None))

    async def _run(self, task: Task, lane: str) -> None:
        standing = self._standings.of(task.key)
        executor = self._standings.executor(task.key)
        config = self.config
        ended: Ended | None = None
        held = True

        def let_go() -> None:
            nonlocal held
            if held:
                held = False
                self.lanes.release(lane)
                self._wake.set()

        try:
            if not isinstance(standing, Target) or executor is None:
                # The configuration changed between the claim and its answer.
                await self.store.release([task])
                self._placed(task.key, self.clock.now_ms())
                return
            ended = await self._attempt(task, standing, executor, config)
            self._unsettled += 1
            let_go()
            try:
                if ended is not None:
                    await self._settle(task, ended, config, standing)
            finally:
                self._unsettled -= 1
                self._wake.set()
        except asyncio.CancelledError:
            # The daemon stops, and nothing was sent yet.
            await self._give_back(task)
        except Exception:
            log.exception("task %s was not run; it goes back to pending", task.id)
            await asyncio.sleep(1.0)
            await self._give_back(task)
        finally:
            let_go()

    async def _attempt(
        self, task: Task, target: Target, executor: Executor, config: Config
    ) -> Ended | None:
        send = self._sender.within(target)

        async def started(effects: Sequence[Effect]) -> bool:
            items = self._intake.prepare(effects)
            try:
                ours, inserted = await self.store.start(task, self.clock.now_ms(), items)
            except BaseException:
                self._intake.refused(items)
                raise
            if not ours:
                self._intake.refused(items)
                return False
            self._intake.took(items, inserted)
            return True

        if not task.deaths:
            return await self._life.run(task, target, executor, config, send, started)
        # One whose start ended with the daemon's death may be the cause of it. Suspects run one at
        # a time, so that the next death is charged to one of them alone.
        async with self._suspects:
            return await self._life.run(task, target, executor, config, send, started)

    async def _return(self, task: Task, lane: str) -> None:
        self.lanes.release(lane)
        await self._give_back(task)

    async def _give_back(self, task: Task) -> None:
        """Give a claim back that did not start, again and again until the database takes it."""
        if await self._insist(task, lambda: self.store.release([task])) is not None:
            self._placed(task.key, self.clock.now_ms())

    async def _insist(self, task: Task, write: Callable[[], Awaitable[T]]) -> tuple[T] | None:
        """Repeat a write until the database takes it; None where the daemon ends before."""
        tries = 0
        while not self._closing:
            try:
                return (await write(),)
            except Exception as error:
                delay = AGAIN[min(tries, len(AGAIN) - 1)]
                tries += 1
                log.error("task %s cannot be written (%s); again in %gs", task.id, error, delay)
                await asyncio.sleep(delay)
        log.error("task %s stays as it is until the next start", task.id)
        return None

    # -- settling ------------------------------------------------------------------------------

    async def _settle(
        self, task: Task, ended: Ended, config: Config, target: Target | None
    ) -> None:
        """Write how an attempt ended, again and again until the database takes it."""
        effects = self._intake.prepare(ended.effects)
        settlement = settlement_of(task, ended, config, target, effects, self.clock.now_ms())
        written = await self._insist(task, lambda: self.store.settle(settlement))
        if written is None:
            return
        settled = written[0]
        if not settled.accepted:
            self._intake.refused(effects)
            if settled.status == Status.CANCELLED:
                # A cancel was asked for while it ran: there is no retry to tell of.
                ended = await self._life.cancelled(task, ended, target, config)
                await self._settle(task, ended, config, target)
                return
            log.warning("a late result of task %s is refused: it has another owner now", task.id)
            return
        if settlement.last_success_at is not None:
            self.last_success[task.endpoint_id] = settlement.last_success_at
        self._intake.took(effects, settled.inserted)
        log_settled(task, ended, settled.status, config)
        if settled.status == Status.PENDING:
            self._placed(task.key, ended.decision.next_try or self.clock.now_ms())
        elif settled.status in FINAL:
            self.finished(task.id)
        if ended.decision.reason == Reason.WEBHOOK_DISABLED and ended.attempt is not None:
            self.standing_changed(task.endpoint_id)

    # -- where keys stand ----------------------------------------------------------------------

    def place(self, key: Key) -> None:
        """Put a key where it belongs today: into its lane, or aside."""
        standing = self._standings.of(key)
        self._standings.arm(key, self.clock.now())
        if isinstance(standing, Target):
            self.lanes.place(key, standing.lane, standing.concurrency)
        else:
            self.lanes.park(key)

    def _placed(self, key: Key, next_try: int) -> None:
        if not self.draining:
            self.touched(key, next_try)
