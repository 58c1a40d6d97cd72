"""New tasks that hooks return or people ask for, from where they are named until they run."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace

from orchestratord.engine import task_events
from orchestratord.engine.attempt_result import ResultTeller
from orchestratord.engine.lanes.call_partition import with_partition
from orchestratord.engine.lanes.lane_set import LaneSet
from orchestratord.engine.lanes.placement import Immediate, Placement
from orchestratord.engine.runs.run_calls import is_root
from orchestratord.engine.settlement import STORED_ERROR, error_record, log_happened
from orchestratord.engine.stats import Stats
from orchestratord.model.task import Effect, NewTask, Task
from orchestratord.plugin.executor import Target
from orchestratord.plugin.host import Host
from orchestratord.queue.operations.reserved_ids import ReservedIds
from orchestratord.queue.operations.slices import SLICE
from orchestratord.queue.records import Born, Happened, Insert, Inserted, StoredEffect
from orchestratord.queue.store import Store
from orchestratord.values.clock import Clock

log = logging.getLogger("orchestratord.attempt")

AT_ONCE = 500
"""Tasks that follow from an attempt, or that were asked for together, that are gone through in one
go."""
EVENTS_AT_ONCE = 25
"""The same for events, since hooks say what follows from each."""


class NewTasks(ABC):
    """Makes of new tasks what is written, and starts those that were born running: that half of
    the pipe which is of tasks that no claim has brought."""

    def __init__(
        self,
        store: Store,
        host: Host,
        lanes: LaneSet,
        placement: Placement,
        results: ResultTeller,
        stats: Stats,
        clock: Clock,
    ) -> None:
        self._host = host
        self._events = host.events
        self._lanes = lanes
        self._placement = placement
        self.results = results
        self._event_ids = ReservedIds(store.write)
        self._stats = stats
        self._clock = clock
        self.slices_wait = asyncio.Event()
        """New tasks are beside the queue, to be written by slices."""

    @abstractmethod
    def start(self, tasks: Sequence[Task], lane: str, now: int) -> None:
        """Run tasks of `lane` that are claimed or were born running."""

    async def items(
        self, effects: Sequence[Effect], level: int = 0, run_id: int | None = None
    ) -> list[StoredEffect]:
        """What to write for these effects: new tasks that can run at once have a slot of their lane
        now, events come with what follows from them. `written` or `not_written` has to follow.

        There may be ten thousand: so many that others have their turn in between, here as in
        `written`. `level`: how many events led to them one after the other within this transaction.
        `run_id`: the run of the calls among them.
        """
        items: list[StoredEffect] = []
        events = self._placement.immediate(effects, level)
        ids = iter(await self._ids(len(events)) if events else ())
        try:
            for number, item in enumerate(effects):
                if not isinstance(item, NewTask):
                    items.append(item)
                elif number in events and (id_ := next(ids, None)) is not None:
                    items.append(await self._event(item, id_, events[number], level, run_id))
                else:
                    new = item
                    if not item.webhook:
                        new = await with_partition(item, self._placement.config)
                    items.append(self.insert(new, run_id))
                if number % (EVENTS_AT_ONCE if events else AT_ONCE) == EVENTS_AT_ONCE - 1:
                    await asyncio.sleep(0)
        except BaseException:
            self.not_written(items)
            raise
        return items

    async def _ids(self, count: int) -> Sequence[int]:
        """Ids for events; none where the database gives none now: they wait like others then."""
        try:
            return await self._event_ids.take(count)
        except Exception as error:
            log.warning("events wait for an attempt, as they cannot be given ids now: %s", error)
            return ()

    async def _event(
        self, new: NewTask, id_: int, place: Immediate, level: int, run_id: int | None
    ) -> Insert:
        """What to write for a task that needs no attempt: already succeeded, with what follows."""
        run_id = new.run_id if run_id is None else run_id
        effects = await self.results.happened(new, id_, run_id, *place, self._placement.config)
        if effects is None:
            return Insert(new, run_id=run_id)  # an attempt of it shows what is wrong
        items = await self.items(effects, level + 1, run_id or id_)
        begins = run_id is None and is_root(new, self._host, self._placement.config, items)
        return Insert(new, None, Happened(id_, items, begins), run_id)

    def insert(self, task: NewTask, run_id: int | None = None) -> Insert:
        """What to write for a new task; `written` or `not_written` has to follow."""
        if task.error is not None and len(task.error) > STORED_ERROR:  # as long as a plugin likes
            task = replace(task, error=error_record(task.error, self._placement.config.redactor))
        # By its idempotency key it may be no new one; another of its partition may have its turn.
        later = task.delay > 0 or task.unique_key is not None or task.partition is not None
        standing = self._placement.of(task.key)
        begins = run_id is None and is_root(task, self._host, self._placement.config)
        if self._lanes.draining or later or not isinstance(standing, Target):
            return Insert(task, None, None, run_id, begins)
        if not self._lanes.known(task.key):
            self._placement.place(task.key)
        if not self._lanes.occupy(standing.lane, task.key, self._clock.now_ms()):
            return Insert(task, None, None, run_id, begins)
        return Insert(task, Born(standing.idempotent, standing.lane), None, run_id, begins)

    async def written(self, items: Sequence[StoredEffect], inserted: Sequence[Inserted]) -> None:
        """It is on disk: start what was born running, remember when the rest is due."""
        if len(items) > SLICE:
            self.slices_wait.set()
        inserts = [item for item in items if isinstance(item, Insert)]
        now = self._clock.now_ms()
        for number, (insert, item) in enumerate(zip(inserts, inserted, strict=True), 1):
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)
                now = self._clock.now_ms()
            if self._events.listening and not item.duplicate:
                self._events.publish(task_events.created(insert, item, now))
            if insert.happened is not None:
                await self._happened(insert, insert.happened, item)
                continue
            if item.running is not None and insert.born is not None:
                self.start((item.running,), insert.born.lane, now)
                continue
            self.not_written((insert,))
            if item.next_try is not None and not item.duplicate:
                self._placement.touched(item.key, item.next_try)

    async def _happened(self, insert: Insert, happened: Happened, item: Inserted) -> None:
        """A task that needed no attempt is on disk, or was there already."""
        if item.duplicate:
            self.not_written(happened.effects)
            return
        self._stats.happened()
        log_happened(insert, item)
        if self._events.listening:
            self._events.publish(task_events.happened(insert, item, self._clock.now_ms()))
        if happened.effects:
            await self.written(happened.effects, item.following)

    def not_written(self, items: Sequence[StoredEffect]) -> None:
        """None of it was born running: release the slots that were taken for it."""
        for item in items:
            if not isinstance(item, Insert):
                continue
            if item.happened is not None:
                self.not_written(item.happened.effects)
            elif item.born is not None:
                self._lanes.release_claim(item.born.lane, item.task.key, self._clock.now_ms())
