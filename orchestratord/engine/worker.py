"""The worker: claims what is due, runs it, settles it, until it is told to drain.

One loop, one claim at a time, as many attempts at once as there are slots. What an attempt leaves
behind is settled in one transaction with the tasks that follow from it; where their lane has a
free slot they are born running and need no claim.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Sequence
from random import Random
from typing import Any

from orchestratord.clock import Clock
from orchestratord.endpoint import Endpoint
from orchestratord.engine.attempt import Ended, Lifecycle
from orchestratord.engine.lanes import Choice, Lanes
from orchestratord.engine.record import error_record, response_record
from orchestratord.engine.sending import Sender
from orchestratord.engine.standings import FOREVER, Standings
from orchestratord.engine.transport import Client
from orchestratord.executor import Doomed, Executor, Target
from orchestratord.host import Host
from orchestratord.queue.records import Born, Insert, Inserted, Pick, Settlement
from orchestratord.queue.store import Store
from orchestratord.settings import Config
from orchestratord.task import FINAL, Attempt, Effect, Key, Kind, NewTask, Reason, Status, Task

log = logging.getLogger("orchestratord.worker")

LONGEST_SLEEP = 1.0
"""Seconds; the clock may jump, and the watchdog wants a sign of life."""

SETTLE_AGAIN = (0.1, 0.5, 1.0, 2.0, 5.0)
"""Seconds between tries to settle while the database refuses; the last one is repeated."""

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
        self._in_flight = 0
        self._unsettled = 0
        self._draining = False
        self._wake = asyncio.Event()
        self._suspects = asyncio.Lock()
        self._waiters: dict[int, list[asyncio.Future[None]]] = {}
        self._helpers: set[asyncio.Task[None]] = set()
        for executor in host.registry.executors:
            executor.bind(store.instance, self.last_success)

    # -- what others tell the worker -----------------------------------------------------------

    def adopt(self, config: Config) -> None:
        """Take up a new configuration: waiting tasks follow it, those in flight keep theirs."""
        self._config = config
        self._standings.adopt(config)
        for key in self.lanes.all_keys():
            self._place(key)
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
                self._place(key)
        self._wake.set()

    def touched(self, key: Key, next_try: int) -> None:
        """A task of `key` is pending and due at `next_try` (milliseconds)."""
        if not self.lanes.known(key) or isinstance(self._standings.of(key), Doomed):
            self._place(key)
        self.lanes.touch(key, next_try)
        self._wake.set()

    async def accept(self, tasks: Sequence[NewTask]) -> list[Inserted]:
        """Write new tasks, all or none, and start those that have a free slot.

        Raises what `Store.enqueue` raises.
        """
        inserts = [self._insert(task) for task in tasks]
        try:
            inserted = await self.store.enqueue(inserts)
        except BaseException:
            self._unoccupy(inserts)
            raise
        self.took(inserts, inserted)
        return inserted

    async def write(self, effects: Sequence[Effect]) -> list[int]:
        """Write effects in one transaction; the ids of the new tasks, in order."""
        inserts = [self._effect(effect) for effect in effects]
        new = [item for item in inserts if isinstance(item, Insert)]
        try:
            inserted = await self.store.write(inserts)
        except BaseException:
            self._unoccupy(new)
            raise
        self.took(new, inserted)
        return [item.id for item in inserted]

    def finished(self, task_id: int) -> None:
        """A task reached a final state; whoever waits for it is woken."""
        for future in self._waiters.pop(task_id, ()):
            if not future.done():
                future.set_result(None)

    async def wait_final(self, task_id: int, timeout: float) -> None:  # noqa: ASYNC109
        """Return when the task has reached a final state, or after `timeout` seconds."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(task_id, []).append(future)
        try:
            await asyncio.wait((future,), timeout=timeout)
        finally:
            waiting = self._waiters.get(task_id, [])
            if future in waiting:
                waiting.remove(future)
                if not waiting:
                    del self._waiters[task_id]

    def snapshot(self) -> dict[str, Any]:
        """What `status` shows of the worker."""
        lanes = [
            {"name": lane.name, "in_flight": lane.in_flight, "concurrency": lane.concurrency,
             "due": len(lane.line)}
            for lane in self.lanes.lanes.values()
        ]  # fmt: skip
        return {
            "in_flight": self._in_flight,
            "concurrency": self.config.daemon.concurrency,
            "draining": self._draining,
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
        self.last_success.update(await self.store.last_success())
        await self._recover()
        for key, next_try in (await self.store.earliest()).items():
            self.touched(key, next_try)
        loop = asyncio.get_running_loop()
        while not self._draining:
            self.beat = time.monotonic()
            self._wake.clear()
            self._sweep()
            # Claims wait while settlements pile up: the store is what is slow then.
            free = self.config.daemon.concurrency - max(self._in_flight, self._unsettled)
            choices = self.lanes.choose(self.clock.now_ms(), free)
            if choices:
                await self._claim(choices)
                continue
            timer = loop.call_later(self._sleep(), self._wake.set)
            await self._wake.wait()
            timer.cancel()

    async def drain(self, timeout: float) -> None:  # noqa: ASYNC109
        """No new claim; wait up to `timeout` seconds for what is in flight, then interrupt it."""
        self._draining = True
        self._wake.set()
        if self._running:
            await asyncio.wait(self._running.values(), timeout=timeout)
        if self._running:
            left = list(self._running.values())
            log.warning("%d attempts did not end within drain_timeout; interrupted", len(left))
            self._life.interrupt()
            await asyncio.wait(left, timeout=INTERRUPTED_WITHIN)
        for helper in list(self._helpers):
            helper.cancel()

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
        self._in_flight += sum(choice.limit for choice in choices)
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
            self._in_flight -= choice.limit - len(found)
            self.lanes.claimed(choice, len(found), earliest.get(choice.key))
            for task in found:
                self._start(task, choice.lane)

    def _start(self, task: Task, lane: str) -> None:
        """Run a claimed task; its slot of `lane` and of the daemon is taken already."""
        running = asyncio.get_running_loop().create_task(self._run(task, lane))
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
                self._in_flight -= 1
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
            items = [self._effect(effect) for effect in effects]
            new = [item for item in items if isinstance(item, Insert)]
            try:
                ours, inserted = await self.store.start(task, self.clock.now_ms(), items)
            except BaseException:
                self._unoccupy(new)
                raise
            if not ours:
                self._unoccupy(new)
                return False
            self.took(new, inserted)
            return True

        if not task.deaths:
            return await self._life.run(task, target, executor, config, send, started)
        # One whose start ended with the daemon's death may be the cause of it. Suspects run one at
        # a time, so that the next death is charged to one of them alone.
        async with self._suspects:
            return await self._life.run(task, target, executor, config, send, started)

    async def _give_back(self, task: Task) -> None:
        try:
            await self.store.release([task])
        except Exception:
            log.exception("task %s stays claimed until the next start", task.id)
            return
        self._placed(task.key, self.clock.now_ms())

    # -- settling ------------------------------------------------------------------------------

    async def _settle(
        self, task: Task, ended: Ended, config: Config, target: Target | None
    ) -> None:
        """Write how an attempt ended, again and again until the database takes it."""
        effects = [self._effect(effect) for effect in ended.effects]
        new = [item for item in effects if isinstance(item, Insert)]
        settlement = self._settlement(task, ended, config, target, effects)
        tries = 0
        while True:
            try:
                settled = await self.store.settle(settlement)
                break
            except Exception as error:
                delay = SETTLE_AGAIN[min(tries, len(SETTLE_AGAIN) - 1)]
                tries += 1
                log.error("task %s cannot be settled (%s); again in %gs", task.id, error, delay)
                await asyncio.sleep(delay)
        if not settled.accepted:
            self._unoccupy(new)
            log.warning("a late result of task %s is refused: it has another owner now", task.id)
            return
        if settlement.last_success_at is not None:
            self.last_success[task.endpoint_id] = settlement.last_success_at
        self.took(new, settled.inserted)
        self._log(task, ended, settled.status, config)
        if settled.status == Status.PENDING:
            self._placed(task.key, ended.decision.next_try or self.clock.now_ms())
        elif settled.status in FINAL:
            self.finished(task.id)
        if ended.decision.reason == Reason.WEBHOOK_DISABLED:
            self.standing_changed(task.endpoint_id)

    def _settlement(
        self,
        task: Task,
        ended: Ended,
        config: Config,
        target: Target | None,
        effects: list[Any],
    ) -> Settlement:
        decision, outcome, row = ended.decision, ended.outcome, ended.attempt
        redactor = config.redactor
        response = None
        if outcome is not None and outcome.response is not None:
            response = response_record(outcome.response, redactor)
        error = error_record(outcome.error, redactor) if outcome is not None else None
        if row is not None:
            row = Attempt(
                row.attempt, row.started_at, row.duration_ms, row.status_code,
                error_record(row.error, redactor), row.delay, redactor.text(row.why))  # fmt: skip
        succeeded = decision.status is Status.SUCCEEDED and task.kind == Kind.CALL
        allowed = target.retry.max_attempts + task.granted if target is not None else None
        return Settlement(
            task=task,
            status=decision.status,
            at=self.clock.now_ms(),
            reason=decision.reason,
            next_try=decision.next_try,
            status_code=outcome.status_code if outcome is not None else task.last_status_code,
            error=error if outcome is not None else task.last_error,
            response=response,
            attempt=row,
            give_back=ended.give_back,
            max_attempts=allowed,
            deaths=ended.deaths,
            effects=effects,
            last_success_at=row.started_at if succeeded and row is not None else None,
        )

    def _log(self, task: Task, ended: Ended, status: str, config: Config) -> None:
        decision, outcome = ended.decision, ended.outcome
        level = logging.WARNING if status == Status.FAILED else logging.INFO
        if not log.isEnabledFor(level):
            return
        name = f"{task.endpoint_id} {task.webhook}".strip()
        code = outcome.status_code if outcome is not None else None
        words = f"{task.kind} {task.id} {name}: attempt {task.attempts} {code}, {status}"
        if status != Status.SUCCEEDED:
            words += f" ({decision.reason or decision.why})"
        log.log(
            level,
            "%s",
            config.redactor.text(words),
            extra={
                "task_id": task.id,
                "kind": task.kind,
                "endpoint": task.endpoint_id,
                "webhook": task.webhook or None,
                "attempt": task.attempts,
                "status": status,
                "reason": decision.reason,
                "status_code": code,
                "error": error_record(outcome.error, config.redactor) if outcome else None,
                "next_try": decision.next_try,
                "duration_ms": ended.attempt.duration_ms if ended.attempt else None,
            },
        )

    # -- new tasks -----------------------------------------------------------------------------

    def _effect(self, effect: Effect) -> Any:
        return self._insert(effect) if isinstance(effect, NewTask) else effect

    def _insert(self, task: NewTask) -> Insert:
        """With a slot taken for it where one is free, to be born running."""
        if self._draining or task.delay > 0 or self._config is None or task.unique_key:
            return Insert(task)
        standing = self._standings.of(task.key)
        if not isinstance(standing, Target):
            return Insert(task)
        if not self.lanes.known(task.key):
            self._place(task.key)
        if self._in_flight >= self.config.daemon.concurrency:
            return Insert(task)
        if not self.lanes.occupy(standing.lane, self.clock.now_ms()):
            return Insert(task)
        self._in_flight += 1
        return Insert(task, Born(standing.idempotent, standing.lane))

    def _unoccupy(self, inserts: Iterable[Insert]) -> None:
        for insert in inserts:
            if insert.born is not None:
                self._in_flight -= 1
                self.lanes.release(insert.born.lane)
        self._wake.set()

    def took(self, inserts: Sequence[Insert], inserted: Sequence[Inserted]) -> None:
        """New tasks are on disk: start those born running, remember when the others are due."""
        for insert, item in zip(inserts, inserted, strict=True):
            if item.running is not None and insert.born is not None:
                self._start(item.running, insert.born.lane)
                continue
            self._unoccupy((insert,))
            if not item.duplicate and item.next_try is not None:
                self.touched(item.key, item.next_try)

    # -- where keys stand ----------------------------------------------------------------------

    def _place(self, key: Key) -> None:
        standing = self._standings.of(key)
        self._standings.arm(key, self.clock.now())
        if isinstance(standing, Target):
            self.lanes.place(key, standing.lane, standing.concurrency)
        else:
            self.lanes.park(key)

    def _placed(self, key: Key, next_try: int) -> None:
        if not self._draining:
            self.touched(key, next_try)

    def _sweep(self) -> None:
        """Start failing the tasks of keys that have been doomed for long enough."""
        for key, doomed in self._standings.ripe(self.clock.now()):
            helper = asyncio.get_running_loop().create_task(self._doom(key, doomed))
            self._helpers.add(helper)
            helper.add_done_callback(self._helpers.discard)

    async def _doom(self, key: Key, doomed: Doomed) -> None:
        done = False
        try:
            while not (done or self._draining):
                pick = Pick(key, DOOM_BATCH, idempotent=False, due_before=FOREVER)
                claimed = await self.store.claim([pick])
                config = self.config
                endpoint = config.endpoints.get(key.endpoint_id)
                for task in claimed.tasks:
                    await self._fail(task, endpoint, config, Reason(doomed.reason), doomed.why)
                done = len(claimed.tasks) < DOOM_BATCH
        except Exception:
            log.exception("the tasks of %s are not failed yet (%s)", key, doomed.reason)
            await asyncio.sleep(1.0)
        finally:
            self._standings.swept(key, done=done)

    async def _fail(
        self, task: Task, endpoint: Endpoint | None, config: Config, reason: Reason, why: str
    ) -> None:
        ended = await self._life.fail(task, endpoint, config, reason, why)
        await self._settle(task, ended, config, None)

    # -- after a crash ---------------------------------------------------------------------------

    async def _recover(self) -> None:
        """Take over what a dead daemon held: claims go back, started attempts are settled."""
        unstarted = lost = 0
        while True:
            count, tasks = await self.store.reclaim()
            unstarted += count
            lost += len(tasks)
            for task in tasks:
                standing = self._standings.of(task.key)
                executor = self._standings.executor(task.key)
                config = self.config
                target = standing if isinstance(standing, Target) else None
                endpoint = config.endpoints.get(task.endpoint_id)
                ended = await self._life.lost(task, endpoint, target, executor, config)
                await self._settle(task, ended, config, target)
            if not tasks:
                break
        if unstarted or lost:
            log.warning(
                "took over from a dead daemon: %d claims went back, %d attempts were under way",
                unstarted,
                lost,
            )
