"""New tasks, from where they are named until they run."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Container, Sequence
from dataclasses import replace

from orchestratord.engine import task_events
from orchestratord.engine.call_tree import is_root
from orchestratord.engine.lanes.placement import Immediate, Placement
from orchestratord.engine.new.call_partition import with_partition
from orchestratord.engine.phase_hooks import PhaseHooks
from orchestratord.engine.stats import Stats
from orchestratord.engine.stored_answer import STORED_ERROR, error_record
from orchestratord.log import info
from orchestratord.model.event import Event
from orchestratord.model.task import Effect, NewTask
from orchestratord.plugin.host import Host
from orchestratord.plugin.long_work import off_loop
from orchestratord.queue.operations.reserved_ids import ReservedIds
from orchestratord.queue.operations.slices import SLICE, sliced
from orchestratord.queue.records import Happened, Insert, Inserted, StoredEffect
from orchestratord.queue.store import Store
from orchestratord.values.clock import Clock

log = logging.getLogger("orchestratord.attempt")
worker_log = logging.getLogger("orchestratord.worker")

AT_ONCE = 500
"""Tasks that follow from an attempt, or that were asked for together, that are gone through in one
go."""
EVENTS_AT_ONCE = 25
"""Events among them that are, since hooks say what follows from each."""


class NewTasks:
    """Makes of new tasks what is written, and remembers what is due once it is."""

    def __init__(
        self,
        store: Store,
        host: Host,
        hooks: PhaseHooks,
        placement: Placement,
        running: Container[int],
        stats: Stats,
        clock: Clock,
    ) -> None:
        """`running`: the ids of the tasks that run here."""
        self._host, self._events = host, host.events
        self._hooks = hooks
        self._placement = placement
        self._running = running
        self._stats, self._clock = stats, clock
        self._event_ids = ReservedIds(store.write)

    async def items(
        self, effects: Sequence[Effect], level: int = 0, run_id: int | None = None
    ) -> list[StoredEffect]:
        """What to write for these effects: events come with what follows from them. `written` has
        to follow.

        There may be ten thousand: so many that others have their turn in between, here as in
        `written`. `level`: how many events led to them one after the other within this transaction.
        `run_id`: the run of the calls among them.
        """
        items: list[StoredEffect] = []
        events = self._placement.immediate(effects, level)
        ids = iter(await self._ids(len(events)) if events else ())
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
        return items

    async def following(
        self, effects: Sequence[Effect], run_id: int | None = None
    ) -> list[StoredEffect]:
        """What to write for effects that follow from a change: `items`, and slices of the new tasks
        that are too many for one transaction."""
        if len(effects) <= SLICE:
            return await self.items(effects, run_id=run_id)
        kept, slices = await off_loop(sliced, effects, self._clock.now_ms(), run_id)
        return [*await self.items(kept, run_id=run_id), *slices]

    async def of_event(self, event: Event) -> list[StoredEffect]:
        """What `on_event` has written with what this tells of; `written` has to follow."""
        now = self._clock.now_ms() / 1000
        return await self.items(self._host.record(event, self._placement.config, now))

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
        effects = await self._hooks.happened(new, id_, run_id, *place, self._placement.config)
        if effects is None:
            return Insert(new, run_id=run_id)  # an attempt of it shows what is wrong
        items = await self.items(effects, level + 1, run_id or id_)
        begins = run_id is None and is_root(new, self._host, self._placement.config, items)
        return Insert(new, Happened(id_, items), run_id, begins)

    def insert(self, task: NewTask, run_id: int | None = None) -> Insert:
        """What to write for a new task; `written` has to follow."""
        if task.error is not None and len(task.error) > STORED_ERROR:  # as long as a plugin likes
            task = replace(task, error=error_record(task.error, self._placement.config.redactor))
        begins = run_id is None and is_root(task, self._host, self._placement.config)
        return Insert(task, None, run_id, begins)

    def expect(self, items: Sequence[StoredEffect]) -> None:
        """New tasks are about to be written: have the worker look for those that are due then."""
        now = self._clock.now_ms()
        found = [item.task for item in items if isinstance(item, Insert) and item.happened is None]
        for key in dict.fromkeys(task.key for task in found if not task.waits):
            self._placement.touched(key, now)

    async def written(
        self, items: Sequence[StoredEffect], inserted: Sequence[Inserted | Exception | None]
    ) -> None:
        """It is on disk: remember when it is due. `inserted`: one for each `Insert` among `items`;
        what else it is was not written."""
        inserts = [item for item in items if isinstance(item, Insert)]
        due: list[Inserted] = []
        for number, (insert, item) in enumerate(zip(inserts, inserted, strict=True), 1):
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)
            if not isinstance(item, Inserted) or item.duplicate:
                continue
            if self._events.listening:
                self._events.publish(task_events.created(insert, item, self._clock.now_ms()))
            if insert.happened is not None:
                await self._happened(insert, insert.happened, item)
            elif item.next_try is not None:
                due.append(item)
        if due:  # those that were claimed in the same transaction start now
            await asyncio.sleep(0)
        for item in due:
            if item.next_try is not None and item.id not in self._running:
                self._placement.touched(item.key, item.next_try)

    async def _happened(self, insert: Insert, happened: Happened, item: Inserted) -> None:
        """A task that needed no attempt is on disk."""
        self._stats.happened()
        _log_happened(insert, item)
        if self._events.listening:
            self._events.publish(task_events.happened(insert, item, self._clock.now_ms()))
        if happened.effects:
            await self.written(happened.effects, item.following)


def _log_happened(insert: Insert, inserted: Inserted) -> None:
    """One line for a task that needed no attempt."""
    new = insert.task
    words = f"{new.kind} {inserted.id} {new.endpoint_id}: an event, succeeded"
    about = {"task_id": inserted.id, "kind": new.kind, "endpoint": new.endpoint_id}
    info(worker_log, (words,), dict, ((about,),))
