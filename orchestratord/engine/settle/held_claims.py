"""The claims that run here, and their way back to the store."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Literal, TypeVar

from orchestratord.engine import task_events
from orchestratord.engine.attempt_in_progress import AttemptInProgress
from orchestratord.engine.lanes.lane_set import LaneSet
from orchestratord.engine.lanes.placement import Placement
from orchestratord.engine.poison import PoisonCandidates
from orchestratord.engine.settle.waiters import Waiters
from orchestratord.model.event import EventType, WebhookEvent
from orchestratord.model.task import Status, Task
from orchestratord.plugin.event_bus import EventBus
from orchestratord.plugin.executor import Doomed
from orchestratord.queue.batch import Write
from orchestratord.queue.operations import claim
from orchestratord.queue.operations.settle import settle, start
from orchestratord.queue.records import Settled, Settlement
from orchestratord.queue.store import Store
from orchestratord.values.clock import Clock

log = logging.getLogger("orchestratord.worker")


AGAIN = (0.1, 0.5, 1.0, 2.0, 5.0)
"""Seconds between tries to write while the database refuses; the last one is repeated."""

T = TypeVar("T")

WayOut = Literal["released", "settled", "lost", "left"]
"""How the claim of an attempt ends; there is no other way.

released: nothing was sent; it is pending again, and its attempt is given back.
settled: how it ended is on disk, or on its way there.
lost: the store says that the claim is another's.
left: the daemon ends; it stays as it is until a daemon takes it over.
"""


class Claims:
    """The claims that run here, and their way back to the store."""

    def __init__(
        self, store: Store, lanes: LaneSet, placement: Placement, events: EventBus, clock: Clock
    ) -> None:
        self._store = store
        self._lanes = lanes
        self._placement = placement
        self._events = events
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self.poison = PoisonCandidates(lanes)
        self.waiters = Waiters()
        self.running: dict[int, asyncio.Task[WayOut]] = {}
        """The attempts, and the releases of claims, that are under way, by the id of their task;
        and attempts that have ended, until how they did is written."""
        self._next_told: asyncio.Future[None] | None = None
        self.closing = False
        """The daemon ends: what the database does not take now stays as it is."""

    def release_claim_later(self, task: Task) -> None:
        """Release a claim in the background."""
        self.running[task.id] = self._loop.create_task(self._release_claim(task))

    async def release_claim(self, task: Task) -> WayOut:
        """Release a claim of which nothing was sent, again and again until the database takes
        it."""
        released = await self._insist(task, lambda: claim.release_claims([task]))
        if released is None:
            return "left"
        status, now = released[0], self._clock.now_ms()
        if status != Status.CANCELLED:
            self._placement.touched(task.key, now)
            return "lost" if status is None else "released"
        # A cancel was asked for while it was claimed.
        self.waiters.finished(task.id)
        if self._events.listening:
            gone = replace(task, status=status, attempts=task.attempts - 1, next_try=None)
            self._events.publish(task_events.by_hand(EventType.TASK_CANCELLED, gone, now))
        return "released"

    async def settle(
        self, settlement: Settlement, error: Exception | None = None
    ) -> Settled | None:
        """Write how a claim ended, again and again until the database takes it; `error` is why it
        did not by now. None where the daemon ends before."""
        return await self._insist(settlement.task, lambda: settle(settlement), error)

    def hand_over(
        self, task_id: int, before: asyncio.Task[WayOut], after: asyncio.Task[WayOut]
    ) -> None:
        """What ran for a claim goes on as `after`. It may run again already, as in `gone`."""
        if self.running.get(task_id) is before:
            self.running[task_id] = after

    def next_told(self) -> asyncio.Future[None]:
        """Is done when some of what was to be settled soon is."""
        if self._next_told is None:
            self._next_told = self._loop.create_future()
        return self._next_told

    def told(self, runs: Iterable[AttemptInProgress]) -> None:
        """How these have ended is written: they run no more."""
        for attempt in runs:
            self.gone(attempt.task, attempt.running)
        if self._next_told is not None:
            self._next_told.set_result(None)
            self._next_told = None

    async def note_company(self, task: Task, *, alone: bool = False) -> bool:
        """Write that a poison candidate which has started no longer runs alone, or does so again: a
        death may be another one's. False where the database does not take it now."""
        try:
            await self._store.write(start(task, self._clock.now_ms(), (), alone=alone))
        except Exception as error:
            log.warning("cannot let others run beside task %s yet: %s", task.id, error)
            return False
        return True

    def webhook_disabled(self, task: Task, now: int) -> None:
        """Its receiver wants no more. Of several deliveries in flight, the first one tells."""
        before = self._placement.of(task.key)
        self._placement.standing_changed(task.endpoint_id, task.webhook)
        self._store.tell("tables")
        after = self._placement.of(task.key)
        if isinstance(after, Doomed) and not isinstance(before, Doomed):
            type_, name = EventType.WEBHOOK_DISABLED, task.webhook
            self._events.publish(WebhookEvent(type_, now, task.endpoint_id, name, after.why))

    def gone(self, task: Task, running: asyncio.Task[Any] | None) -> None:
        """What ran for a claim has ended."""
        # It may run again already, after a settlement that put it back at once.
        if self.running.get(task.id) is running:
            del self.running[task.id]
        if task.deaths:
            self.poison.ended(task)

    async def _release_claim(self, task: Task) -> WayOut:
        running = asyncio.current_task()
        try:
            return await self.release_claim(task)
        finally:
            self.gone(task, running)

    async def _insist(
        self, task: Task, operation: Callable[[], Write[T]], error: Exception | None = None
    ) -> T | None:
        """Repeat an operation until the database takes it; `error` is what became of it by now.

        None where the daemon ends before.
        """
        tries = 0
        while True:
            if error is not None:
                delay = AGAIN[min(tries, len(AGAIN) - 1)]
                tries += 1
                log.error("cannot write task %s (%s); again in %gs", task.id, error, delay)
                await asyncio.sleep(delay)
            if self.closing:
                break
            try:
                return await self._store.write(operation())
            except Exception as again:
                error = again
        log.error("gave up writing task %s until the next start", task.id)
        return None
