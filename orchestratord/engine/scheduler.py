"""Makes the calls of endpoints with a `schedule`: one task a slot, however often it restarts.

The last slot of each schedule is a row that is advanced by compare-and-set in the transaction of
the slot's task. A slot counts as missed when it passed while no scheduler was looking.

Where daemons disagree about a schedule, as while a change of the files reaches one after the other,
the one that is new to the queue is in force; who still has the one before stands aside. Whoever
goes back to that one in a running daemon means it; a daemon that comes up with it does not, for as
long as others declare what is in force.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Collection, Mapping

from orchestratord.config.params import check_params
from orchestratord.engine import task_events
from orchestratord.engine.lanes.placement import Placement
from orchestratord.errors import InvalidParams, QueueError, Unreachable
from orchestratord.model.endpoint import Endpoint
from orchestratord.model.schedule_slots import next_slot, previous_slot, spec, splay_offset
from orchestratord.model.settings import Config
from orchestratord.model.task import Kind, NewTask
from orchestratord.plugin.event_bus import EventBus
from orchestratord.queue.operations import schedules
from orchestratord.queue.records import Insert
from orchestratord.queue.store import Store
from orchestratord.values.clock import Clock

log = logging.getLogger("orchestratord.scheduler")

AT_ONCE = 64
"""Schedules that are looked at before the loop has a turn."""

LONGEST_SLEEP = 1.0
"""Seconds; the clock may jump."""

AGAIN = 5_000
"""Milliseconds after which a slot is tried again that the database did not take."""


class Scheduler:
    """Watches the clock for all schedules of one daemon."""

    def __init__(self, store: Store, clock: Clock, placement: Placement, events: EventBus) -> None:
        """`placement` is told of each task that was made, and so are `events`."""
        self._store = store
        self._clock = clock
        self._placement = placement
        self._events = events
        self._config: Config | None = None
        self._paused: set[str] = set()
        self._rows: dict[str, tuple[str, int]] = {}
        self._elsewhere: Mapping[str, Collection[str]] = {}
        self._meant: set[str] = set()
        """Endpoints whose schedule was changed while this daemon ran."""
        self._overruled: set[str] = set()
        """Endpoints of which another schedule is in force."""
        self._heap: list[tuple[int, str]] = []
        self._since: dict[str, int] = {}
        """Endpoint → from when on this scheduler looked at its schedule."""
        self._wake = asyncio.Event()

    def adopt(self, config: Config) -> None:
        """Take up a new configuration."""
        before = self._config.endpoints if self._config is not None else {}
        self._config = config
        now = self._clock.now_ms()
        for name, endpoint in config.endpoints.items():
            was = before.get(name)
            if was is endpoint or was is None or was.schedule is None or endpoint.schedule is None:
                continue
            if spec(was.schedule) != spec(endpoint.schedule):
                self._meant.add(name)
        scheduled = {e.id: e for e in config.endpoints.values() if e.schedule is not None}
        self._since = {name: self._since.get(name, now) for name in scheduled}
        # Whose file did not change is looked at when it was to be looked at.
        known = {name: slot for slot, name in self._heap}
        self._heap = [
            (known.get(name, 0) if before.get(name) is endpoint else 0, name)
            for name, endpoint in scheduled.items()
        ]
        heapq.heapify(self._heap)
        self._wake.set()

    def set_paused(self, paused: set[str]) -> None:
        """The endpoints whose slots are skipped."""
        self._paused = set(paused)

    def set_elsewhere(self, schedules: Mapping[str, Collection[str]]) -> None:
        """The schedules that other daemons of the queue declare, by their endpoints."""
        self._elsewhere = schedules

    def next_runs(self) -> dict[str, int]:
        """Endpoint → its next slot, for those that have one."""
        return {name: slot for slot, name in self._heap if slot}

    async def run(self) -> None:
        """Look at each slot when it comes; until cancelled."""
        await self._begin()
        looked = 0
        while True:
            self._wake.clear()
            now = self._clock.now_ms()
            while self._heap and self._heap[0][0] <= now:
                _, name = heapq.heappop(self._heap)
                again = await self._look(name, now)
                if again is not None:
                    heapq.heappush(self._heap, (again, name))
                looked += 1
                if looked % AT_ONCE == 0:  # there may be thousands, with nothing to be written
                    await asyncio.sleep(0)
            due = self._heap[0][0] - now if self._heap else 1000
            timer = asyncio.get_running_loop().call_later(
                min(max(due / 1000, 0.0), LONGEST_SLEEP), self._wake.set
            )
            try:
                await self._wake.wait()
            finally:
                timer.cancel()

    async def _begin(self) -> None:
        while True:
            try:
                self._rows = await self._store.read(schedules.slots())
                return
            except QueueError as error:
                log.warning("how far schedules have come is not known yet: %s", error)
                await asyncio.sleep(1.0)

    async def _look(self, name: str, now: int) -> int | None:
        """Make the task of the slot that has come, if one has; when to look again."""
        endpoint = self._config.endpoints.get(name) if self._config else None
        if endpoint is None or endpoint.schedule is None:
            return None
        try:
            await self._take(endpoint, now)
        except Unreachable as error:
            log.warning("the schedule of %s is tried again in 5 s: %s", name, error)
            return now + AGAIN
        except Exception:
            log.exception("the schedule of %s is tried again in 5 s", name)
            return now + AGAIN
        return next_slot(endpoint.schedule, now)

    async def _take(self, endpoint: Endpoint, now: int) -> None:
        schedule = endpoint.schedule
        assert schedule is not None
        name, wanted = endpoint.id, spec(schedule)
        slot = previous_slot(schedule, now)
        known = self._rows.get(name)
        if slot is None:
            return
        if known is not None and known[0] != wanted and await self._is_overruled(name, wanted):
            return
        if known is None or known[0] != wanted:
            # A schedule that is new, or another one now, has its first run at its next slot.
            await self._advance(endpoint, wanted, self._rows.get(name), slot, None)
            return
        if slot <= known[1]:
            return
        insert = None
        missed = slot < self._since[name]
        if name in self._paused or not endpoint.enabled:
            log.debug("a slot of %s is skipped: it is paused or disabled", name)
        elif missed and not schedule.catch_up:
            log.info("a slot of %s was missed while nothing ran, and is skipped", name)
        elif schedule.overlap == "skip" and await self._store.read(schedules.unfinished(name)):
            log.info("a slot of %s is skipped: the call of the slot before is not done", name)
        else:
            insert = Insert(self._task(endpoint, slot))
        await self._advance(endpoint, wanted, known, slot, insert)

    async def _is_overruled(self, name: str, wanted: str) -> bool:
        """Whether another schedule of an endpoint is in force than the one that is declared here,
        which is the older one: it makes no calls then."""
        row = await self._store.read(schedules.slot(name))
        if row is None:
            return False
        in_force, slot, before = row
        self._rows[name] = (in_force, slot)
        if in_force == wanted:
            self._overruled.discard(name)
            return True  # the next look finds it so
        declared = in_force in self._elsewhere.get(name, ())
        if not declared or wanted != before or name in self._meant:
            self._overruled.discard(name)
            return False
        if name not in self._overruled:
            self._overruled.add(name)
            log.warning(
                "the schedule of %s is another one in the queue, which other daemons declare: this "
                "one is older, and makes no calls", name,
            )  # fmt: skip
        return True

    def _task(self, endpoint: Endpoint, slot: int) -> NewTask:
        schedule = endpoint.schedule
        assert schedule is not None
        try:
            params = check_params(endpoint, schedule.params)
        except InvalidParams as error:
            # `check` refuses such a file; a plugin's change of mind could still bring it here.
            log.error("the schedule of %s has wrong params: %s", endpoint.id, error)
            params = dict(schedule.params)
        return NewTask(
            Kind.CALL,
            endpoint.id,
            params,
            delay=splay_offset(endpoint.id, schedule.splay),
            max_attempts=endpoint.retry.max_attempts,
            scheduled_at=slot,
        )

    async def _advance(
        self,
        endpoint: Endpoint,
        wanted: str,
        previous: tuple[str, int] | None,
        slot: int,
        insert: Insert | None,
    ) -> None:
        inserted = await self._store.write(
            schedules.take_slot(endpoint.id, wanted, previous, slot, insert)
        )
        self._rows[endpoint.id] = (wanted, slot)
        if insert is not None and inserted is not None and inserted.next_try is not None:
            if self._events.listening:
                self._events.publish(task_events.created(insert, inserted, self._clock.now_ms()))
            self._placement.touched(inserted.key, inserted.next_try)
        elif insert is not None or self._store.shared:
            log.debug("another daemon took the slot of %s", endpoint.id)
            row = await self._store.read(schedules.slot(endpoint.id))
            if row is not None:
                self._rows[endpoint.id] = row[:2]
        if self._rows[endpoint.id][0] == wanted:
            self._meant.discard(endpoint.id)
