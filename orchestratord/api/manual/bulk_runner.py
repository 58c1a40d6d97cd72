"""Bulks: many tasks retried, given up or resolved, at a pace, going on after a restart.

How far a bulk has come, and how it went with what it moved, is a row of the database. A chore moves
its tasks, waits until the last of them has ended, and tells of that.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from orchestratord.api.filters import IN_BULK
from orchestratord.api.manual.task_service import TaskService
from orchestratord.engine import task_events
from orchestratord.engine.worker import Worker
from orchestratord.errors import Conflict, InvalidParams, NotFound, Replaced
from orchestratord.model.event import EventType
from orchestratord.model.task import Key, Reason
from orchestratord.queue.operations import bulk as bulks
from orchestratord.queue.operations import effects
from orchestratord.queue.operations.bulk import PAUSED, RUNNING
from orchestratord.queue.records import CANCEL, CHANGED, NO_SUCCESS, RESOLVE, Bulk, Chore
from orchestratord.values import world

log = logging.getLogger("orchestratord.bulk")

STEP = 200
"""Tasks moved in one transaction at most; what else the store has to do goes in between."""
RESOLVED_AT_ONCE = 50
"""Tasks that are resolved in one step at most, each in a transaction of its own."""
STEPS_PER_SECOND = 10.0
"""How often a paced bulk moves something, where its rate allows more than one at a time."""
CATCH_UP = 1.0
"""Seconds of delay that a paced bulk makes up for at most."""
PROGRESS_EACH = 1.0
"""Seconds between two events of the progress of a bulk; so soon it is noticed that one was paused
or cancelled, however slow it is."""
FIRST_LOOK = 0.1
"""Seconds until it is first looked again whether all that a bulk moved has ended; each time that
nothing has changed it is twice as long, up to …"""
LOOK = 5.0
LET_END = 0.025
"""Where failures are to pause a bulk that has no rate: seconds between two looks how much of what
it moved has not been tried yet."""
IDLE = 2.0
"""Seconds for which nothing of that was under way before it moves more all the same."""


@dataclass(slots=True)
class _Course:
    """How a bulk goes on here; times by `world.monotonic`."""

    bulk: Bulk
    """As it was seen last."""
    due: float
    """When it may move more."""
    active: float = field(default_factory=world.monotonic)
    """When it moved something last, or something of that was under way."""
    told: float = field(default_factory=world.monotonic)
    """When its progress was looked at last …"""
    progress: tuple[int, ...] = ()
    """… and what it was."""
    counts: tuple[int, ...] = ()
    pause: float = FIRST_LOOK


class BulkRunner:
    """Takes the steps of bulks."""

    def __init__(self, worker: Worker) -> None:
        self._store = worker.store
        self._events = worker.host.events
        self._worker = worker
        self._tasks = TaskService(worker)
        self._clock = worker.clock
        self._courses: dict[int, _Course] = {}

    async def step(self, chore: Chore) -> float | None:
        """Take the next step of a bulk: seconds until the one after it, None where it is over."""
        bulk_id = int(chore.subject)
        try:
            course = self._courses.get(bulk_id)
            moved = course is not None and course.bulk.status == RUNNING
            if course is not None and moved and world.monotonic() >= course.due:
                bulk = await self._move(course)
            else:
                bulk = await self._store.read(bulks.row_of(bulk_id))
            if course is None:
                course = self._courses[bulk_id] = self._begin(bulk)
            course.bulk = bulk
            if moved and bulk.status != RUNNING:
                how = bulk.status, bulk.moved, IN_BULK[bulk.action][0], bulk.skipped
                log.info("bulk %d is %s: %d %s, %d skipped", bulk.id, *how)
            await self._publish_progress(bulk, course)
            if bulk.status == RUNNING:
                return min(max(course.due - world.monotonic(), 0.0), PROGRESS_EACH)
            if bulk.status != PAUSED and bulk.ended_at is None:
                bulk = await self._look_after(bulk)
            if bulk.status != PAUSED and bulk.ended_at is None:
                counts = *bulk.counts, bulk.waiting
                course.pause = (
                    FIRST_LOOK if counts != course.counts else min(2 * course.pause, LOOK)
                )
                course.counts = counts
                return course.pause
        except NotFound:  # it was deleted
            await self._store.write(effects.end_chore(chore, ()))
        else:
            await self._end(chore, bulk)
        self._courses.pop(bulk_id, None)
        return None

    def _begin(self, bulk: Bulk) -> _Course:
        if bulk.status == RUNNING and bulk.cursor:
            done = bulk.moved + bulk.skipped
            log.info("bulk %d goes on: %d of %d are done", bulk.id, done, bulk.matched)
        return _Course(bulk, world.monotonic() + self._debt(bulk))

    async def _move(self, course: _Course) -> Bulk:
        """Move the next tasks of a bulk, if it may move some now."""
        now, bulk = world.monotonic(), course.bulk
        limit = await self._limit(bulk, course)
        if not limit:
            course.due = now + LET_END
            return await self._store.read(bulks.row_of(bulk.id))  # it may have paused
        course.active = now
        before = bulk.moved
        bulk, keys = await bulks.step(self._store, bulk.id, limit, self.obstacle, self._resolve)
        now_ms = self._clock.now_ms()
        for key, ids in keys.items():
            self._publish_moved(bulk, key, ids, now_ms)
        if bulk.rate is not None and bulk.moved + bulk.skipped < bulk.matched:
            # Of time that was lost no more is made up for than a moment.
            late = world.monotonic() - CATCH_UP
            course.due = max(course.due, late) + (bulk.moved - before) / bulk.rate
        return bulk

    async def _limit(self, bulk: Bulk, course: _Course) -> int:
        """How many tasks may be moved now.

        One without a rate, that failures are to pause, would be done before the first of them: it
        waits until half of what it may have moved ahead has been tried. Where nothing of that is
        under way, as all wait for a circuit breaker, it goes on: those of others need not.
        """
        if bulk.rate is None and bulk.stop_after:
            most = max(STEP, 2 * bulk.stop_after)
            found, running = await self._store.read(bulks.untried(bulk.id, most + STEP))
            if found <= most // 2:
                return min(STEP, most - found)
            if running:
                course.active = world.monotonic()
            return STEP if world.monotonic() > course.active + IDLE else 0
        return min(_step(bulk.rate), RESOLVED_AT_ONCE if bulk.action == RESOLVE else STEP)

    async def _look_after(self, bulk: Bulk) -> Bulk:
        """Look whether all that a bulk has moved has ended."""
        bulk = await self._store.read(bulks.get(bulk.id))
        if bulk.waiting:
            return bulk
        bulk, ended = await self._store.write(bulks.look_after(bulk.id))
        if ended:
            counts = bulk.id, bulk.succeeded, bulk.failed
            log.info("bulk %d has ended: %d succeeded, %d failed", *counts)
        return bulk

    async def _publish_progress(self, bulk: Bulk, course: _Course) -> None:
        """Tell how far a bulk is, if that has changed since it was told, some time ago."""
        if world.monotonic() < course.told + PROGRESS_EACH:
            return
        if self._events.listening:
            bulk = await self._store.read(bulks.get(bulk.id))
            counts = *bulk.counts, bulk.waiting
            if course.progress != counts:
                self.publish(EventType.BULK_PROGRESS, bulk)
            course.progress = counts
        course.told = world.monotonic()

    async def _end(self, chore: Chore, bulk: Bulk) -> None:
        """Tell that a bulk has paused or ended. Where it has changed meanwhile, its chore is still
        there, and due; where another daemon has that, it is left to it."""
        type_ = EventType.BULK_PAUSED if bulk.ended_at is None else EventType.BULK_FINISHED
        bulk = await self._store.read(bulks.get(bulk.id))
        event = task_events.of_bulk(type_, bulk, self._clock.now_ms())
        new_tasks = self._worker.pipe.new_tasks
        follows = await new_tasks.of_event(event)
        inserted = await self._store.write(bulks.end_chore(chore, bulk, follows))
        if inserted is not None:
            self._events.publish(event)
            await new_tasks.written(follows, inserted)

    def publish(self, type_: EventType, bulk: Bulk) -> None:
        """Tell of a step of a bulk."""
        self._events.publish(task_events.of_bulk(type_, bulk, self._clock.now_ms()))

    def obstacle(self, key: Key) -> str | None:
        """For what reason the tasks of a key would only wait or fail again, if they would."""
        obstacle = self._worker.placement.obstacle(key)
        return obstacle.reason if obstacle else None

    async def _resolve(self, bulk: Bulk, task_id: int) -> str | None:
        """End a task as a bulk says; the reason why it cannot, if any."""
        said = bulk.resolution or {}
        try:
            await self._tasks.resolve(task_id, said["as"], note=said["note"], bulk=bulk)
        except Replaced:
            return Reason.REPLACED
        except (Conflict, NotFound):
            return CHANGED
        except InvalidParams:
            return NO_SUCCESS
        return None

    def _publish_moved(self, bulk: Bulk, key: Key, ids: list[int], now: int) -> None:
        """What became of these tasks, to whom it concerns."""
        happened = task_events.triggered_in_bulk
        if bulk.action == CANCEL:
            happened = task_events.cancelled_in_bulk
            for id_ in ids:
                self._worker.waiters.finished(id_)
        else:
            self._worker.placement.touched(key, now)
        if self._events.listening:
            for id_ in ids:
                self._events.publish(happened(id_, key, now))

    def _debt(self, bulk: Bulk) -> float:
        """Seconds that a bulk has to wait, after a restart, for its next task."""
        if bulk.rate is None:
            return 0.0
        due = bulk.created_at / 1000 + bulk.moved / bulk.rate
        return min(max(due - self._clock.now(), 0.0), 1 / bulk.rate)


def _step(rate: float | None) -> int:
    return STEP if rate is None else max(1, min(STEP, int(rate / STEPS_PER_SECOND)))
