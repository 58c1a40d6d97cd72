"""Makes the calls of endpoints with a `schedule`: one task a slot, however often it restarts.

Which slots of a schedule were taken is a row, changed by compare-and-set in the transaction of the
slot's task: none is ever taken twice, wherever the clock goes meanwhile, and none that lies between
two of them is left out. A slot counts as missed when it passed while no scheduler was looking.

Where daemons disagree about a schedule, as while a change of the files reaches one after the other,
the one that is new to the queue is in force; a daemon that still has the one before leaves it be.
What a reload has declared elsewhere is known here within 22 seconds, and waited for. A reload that
goes back to that one is meant; a daemon that starts with it leaves it be, for as long as others
declare what is in force.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress

from orchestratord.config.params import check_params
from orchestratord.engine.new.call_partition import partition_of
from orchestratord.engine.new.new_tasks import NewTasks
from orchestratord.errors import InvalidParams, InvalidPayload, QueueError, Unreachable
from orchestratord.model.endpoint import Endpoint
from orchestratord.model.event import EventType, ScheduleEvent
from orchestratord.model.schedule_slots import (
    Run,
    is_taken,
    next_free_slot,
    previous_slot,
    run_before,
    slots_between,
    spec,
    splay_offset,
    take,
)
from orchestratord.model.settings import Config
from orchestratord.model.task import Kind, NewTask
from orchestratord.plugin.event_bus import EventBus
from orchestratord.queue.operations import schedules
from orchestratord.queue.records import Insert, StoredEffect
from orchestratord.queue.store import Store
from orchestratord.values import world
from orchestratord.values.clock import Clock

log = logging.getLogger("orchestratord.scheduler")

AT_ONCE = 64
"""Schedules that are looked at before the loop has a turn."""

LONGEST_SLEEP = 1.0
"""Seconds; the clock may jump."""

UNSAID = 1_000
"""Milliseconds after which a schedule is looked at again of which it is not known yet whether
another daemon declares it."""

AGAIN = 5_000
"""Milliseconds after which a slot is tried again that the database did not take."""


class Scheduler:
    """Watches the clock for all schedules, as each worker does."""

    def __init__(self, store: Store, clock: Clock, new_tasks: NewTasks, events: EventBus) -> None:
        """`events` are told of slots that were missed."""
        self._store = store
        self._clock = clock
        self._new_tasks = new_tasks
        self._events = events
        self._config: Config | None = None
        self._paused: set[str] = set()
        self._rows: dict[str, schedules.SlotRow] = {}
        self._elsewhere: Mapping[str, Collection[str]] = {}
        self._said_within = 0.0
        self._looked_since: int | None = None
        self._unsaid: dict[str, tuple[str, float]] = {}
        """Endpoint → the schedule in force which no other daemon is known to declare, and since
        when that is so (`world.monotonic`)."""
        self._meant: set[str] = set()
        """Endpoints whose schedule was changed while this daemon ran."""
        self._overruled: set[str] = set()
        """Endpoints of which another schedule is in force."""
        self._heap: list[tuple[int, str]] = []
        self._since: dict[str, int] = {}
        """Endpoint → from when on this scheduler looked at its schedule."""
        self._wake = asyncio.Event()
        self.beat: float | None = None
        """When it last went round."""
        self._anew = False
        """The clock was moved."""

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
        self._unsaid.clear()
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

    def set_elsewhere(
        self,
        schedules: Mapping[str, Collection[str]],
        said_within: float = 0.0,
        looked_since: int | None = None,
    ) -> None:
        """What others do for the schedules.

        Args:
            schedules: those that other daemons of the queue declare, by their endpoints.
            said_within: seconds after which it is known what another worker declares by now.
            looked_since: since when another worker of this daemon has looked at the schedules, in
                milliseconds; None where none has.
        """
        self._elsewhere, self._said_within = schedules, said_within
        self._looked_since = looked_since

    def clock_changed(self) -> None:
        """The clock was moved: look at every schedule anew."""
        self._anew = True
        self._wake.set()

    def next_runs(self) -> dict[str, int]:
        """Endpoint → its next slot, for those that have one."""
        return {name: slot for slot, name in self._heap if slot}

    async def run(self) -> None:
        """Look at each slot when it comes; until cancelled."""
        await self._begin()
        looked = 0
        while True:
            self._wake.clear()
            self.beat = world.monotonic()
            if self._anew:
                self._anew = False
                self._begin_anew()
            now = self._clock.now_ms()
            while self._heap and self._heap[0][0] <= now:
                _, name = heapq.heappop(self._heap)
                again = await self._look(name, now)
                self.beat = world.monotonic()
                if again is not None:
                    heapq.heappush(self._heap, (again, name))
                looked += 1
                if looked % AT_ONCE == 0:  # there may be thousands, with nothing to be written
                    await asyncio.sleep(0)
            due = self._heap[0][0] - now if self._heap else 1000
            with suppress(TimeoutError):
                async with asyncio.timeout(min(max(due / 1000, 0.0), LONGEST_SLEEP)):
                    await self._wake.wait()

    async def _begin(self) -> None:
        while True:
            try:
                self._rows = await self._store.read(schedules.slots())
                return
            except QueueError as error:
                log.warning("cannot read the slots of schedules yet: %s", error)
                self.beat = world.monotonic()
                await asyncio.sleep(1.0)

    def _begin_anew(self) -> None:
        now = self._clock.now_ms()
        self._since = {name: min(since, now) for name, since in self._since.items()}
        self._heap = [(0, name) for name in self._since]

    async def _look(self, name: str, now: int) -> int | None:
        """Make the task of the slot that has come, if one has; when to look again."""
        endpoint = self._config.endpoints.get(name) if self._config else None
        if endpoint is None or endpoint.schedule is None:
            return None
        try:
            await self._take(endpoint, now)
        except Unreachable as error:
            log.warning("cannot fire the schedule of %s; again in 5 s: %s", name, error)
            return now + AGAIN
        except Exception:
            log.exception("cannot fire the schedule of %s; again in 5 s", name)
            return now + AGAIN
        if name in self._unsaid:
            return now + UNSAID
        known = self._rows.get(name)
        return next_free_slot(known.runs(now) if known else (), endpoint.schedule, now)

    async def _take(self, endpoint: Endpoint, now: int) -> None:
        schedule = endpoint.schedule
        assert schedule is not None
        name, wanted = endpoint.id, spec(schedule)
        slot = previous_slot(schedule, now)
        while slot is not None:
            known = self._rows.get(name)
            if known is not None and known.spec != wanted:
                if await self._is_overruled(name, wanted):
                    return
                known = self._rows.get(name)
            runs = [] if known is None else known.runs(now)
            insert = missed = None
            if known is not None and known.spec == wanted:
                self._meant.discard(name)
                if is_taken(runs, slot):
                    return
                if (before := run_before(runs, slot)) is not None:
                    insert = await self._insert(endpoint, slot)
                    missed = self._missed(endpoint, before[1], slot, now, ran=insert is not None)
            # One that is new, another one now, or was first looked at by a clock that was ahead,
            # has its first run at its next slot.
            runs = take(runs, schedule, slot, now)
            if await self._advance(endpoint, known, slot, runs, insert, missed):
                return
            known = self._rows.get(name)
            if known is None or known.spec != wanted:
                return  # who declares that may not be known yet: the next look decides

    async def _insert(self, endpoint: Endpoint, slot: int) -> Insert | None:
        """The task of a slot; None where it is skipped."""
        schedule, name = endpoint.schedule, endpoint.id
        assert schedule is not None
        missed = self._is_missed(name, slot)
        if name in self._paused or not endpoint.enabled:
            log.debug("a slot of %s is skipped: it is paused or disabled", name)
        elif missed and not schedule.catch_up:
            log.info("a slot of %s was missed while nothing ran, and is skipped", name)
        elif schedule.overlap == "skip" and await self._store.read(schedules.unfinished(name)):
            log.info("a slot of %s is skipped: the call of the slot before is not done", name)
        else:
            return self._new_tasks.insert(await self._task(endpoint, slot))
        return None

    def _is_missed(self, name: str, slot: int) -> bool:
        """Whether a slot passed before this worker looked, and any other one of its daemon."""
        since = self._since[name]
        return slot < (since if self._looked_since is None else min(since, self._looked_since))

    def _missed(
        self, endpoint: Endpoint, last: int, slot: int, now: int, *, ran: bool
    ) -> schedules.MissedSlots | None:
        """What is noted of the slots after `last`, where some passed while no daemon looked."""
        schedule = endpoint.schedule
        assert schedule is not None
        if endpoint.id in self._paused or not endpoint.enabled:
            return None
        late = self._is_missed(endpoint.id, slot)
        passed = slots_between(schedule, last, slot if late else slot - 1)
        if not passed:
            return None
        # Not the last of those that were counted, of which there may be more.
        end = slot if late else previous_slot(schedule, slot - 1) or passed[-1]
        return schedules.MissedSlots(len(passed), passed[0], end, now, late and ran)

    async def _is_overruled(self, name: str, wanted: str) -> bool:
        """Whether another schedule of an endpoint is in force than the one that is declared here,
        which is the older one: it makes no calls then."""
        row = await self._store.read(schedules.slot(name))
        if row is None:
            self._unsaid.pop(name, None)
            return False
        self._rows[name] = row
        declared = row.spec in self._elsewhere.get(name, ())
        ours = row.spec == wanted or wanted != row.before or name in self._meant
        if not (ours or declared) and self._may_be_said(name, row.spec):
            return True
        self._unsaid.pop(name, None)
        if ours or not declared:
            self._overruled.discard(name)
            return False
        if name not in self._overruled:
            self._overruled.add(name)
            log.warning(
                "ignored the schedule of %s as declared here: other daemons declare a newer one, "
                "and this one makes no calls",
                name,
            )
        return True

    def _may_be_said(self, name: str, found: str) -> bool:
        """Whether another daemon may declare this, as after a reload a moment ago."""
        known = self._unsaid.get(name)
        if known is None or known[0] != found:
            self._unsaid[name] = known = found, world.monotonic()
        return world.monotonic() < known[1] + self._said_within

    async def _task(self, endpoint: Endpoint, slot: int) -> NewTask:
        schedule = endpoint.schedule
        assert schedule is not None
        partition = None
        try:
            params = check_params(endpoint, schedule.params)
            partition = await partition_of(endpoint, params)
        except (InvalidParams, InvalidPayload) as error:
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
            partition=partition,
        )

    async def _advance(
        self,
        endpoint: Endpoint,
        previous: schedules.SlotRow | None,
        slot: int,
        runs: Sequence[Run],
        insert: Insert | None,
        missed: schedules.MissedSlots | None,
    ) -> bool:
        """Take a slot, with its task; False where another daemon has taken one meanwhile."""
        assert endpoint.schedule is not None
        name, wanted = endpoint.id, spec(endpoint.schedule)
        event, effects = None, list[StoredEffect]()
        if missed is not None:
            type_, (slots, first, last, at, ran) = EventType.SCHEDULE_MISSED, missed
            event = ScheduleEvent(type_, at, name, last, ran, first, slots)
            effects = await self._new_tasks.of_event(event)
        taken = await self._store.write(
            schedules.take_slot(name, wanted, previous, slot, runs, insert, missed, effects)
        )
        if taken is None:
            row = await self._store.read(schedules.slot(name))
            if row is None:
                self._rows.pop(name, None)
            else:
                self._rows[name] = row
            return False
        self._rows[name] = schedules.SlotRow(wanted, slot, None, schedules.runs_text(runs))
        self._meant.discard(name)
        if event is not None:
            self._events.publish(event)
        made = [] if taken.inserted is None else [taken.inserted]
        items = [*effects, *([] if insert is None else [insert])]
        await self._new_tasks.written(items, [*taken.following, *made])
        return True
