"""Bulks: many tasks retried, given up or resolved, at a pace, going on after a restart.

How far a bulk has come, and how it went with what it moved, is a row of the database; here is only
who takes its steps, and tells of them until the last of its tasks has ended.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from orchestratord.api.filters import IN_BULK
from orchestratord.api.manual.task_service import TaskService
from orchestratord.engine import task_events
from orchestratord.engine.worker import Worker
from orchestratord.errors import Conflict, InvalidParams, NotFound, QueueError, Replaced
from orchestratord.model.event import EventType
from orchestratord.model.task import Key, Reason
from orchestratord.queue.operations import bulk as bulks
from orchestratord.queue.operations.bulk import PAUSED, RUNNING
from orchestratord.queue.records import CANCEL, CHANGED, NO_SUCCESS, RESOLVE, Bulk
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
LOOK = 5.0
"""Seconds between two looks for bulks whose daemon has died, where there are several."""
AGAIN = 5.0
"""Seconds until a step that the database refused is tried again."""
PROGRESS_EACH = 1.0
"""Seconds between two events of the progress of a bulk; so soon it is noticed that one was paused
or cancelled, however slow it is."""
FIRST_LOOK = 0.1
"""Seconds until it is first looked again whether all that a bulk moved has ended; each time that
nothing has changed it is twice as long, up to `LOOK`."""
LET_END = 0.025
"""Where failures are to pause a bulk that has no rate: seconds between two looks how much of what
it moved has not been tried yet."""
IDLE = 2.0
"""Seconds for which nothing of that was under way before it moves more all the same."""
RENEW = 5.0
"""Seconds after which it then says that it is still carried out."""


class BulkRunner:
    """Takes the steps of every running bulk, each in an asyncio task of its own."""

    def __init__(self, worker: Worker) -> None:
        self._store = worker.store
        self._events = worker.host.events
        self._worker = worker
        self._tasks = TaskService(worker)
        self._clock = worker.clock
        self._movers: dict[int, asyncio.Task[None]] = {}
        self._published: dict[int, tuple[float, tuple[int, ...]]] = {}
        """Of each bulk: when its progress was last told (`world.monotonic`), and what it was."""
        self._ends: dict[int, Bulk] = {}
        """Bulks of which it was published that they have paused or ended. That is written down with
        the next look: a plugin that listens has had time to store it then."""

    async def run(self) -> None:
        """Go on with what earlier daemons left unfinished, until cancelled.

        Then all bulks stop where they are, and the next daemon goes on with them.
        """
        try:
            while True:
                try:
                    await self._look()
                except QueueError as error:
                    log.warning("cannot look for bulks that others left yet: %s", error)
                await asyncio.sleep(LOOK)
        finally:
            for mover in list(self._movers.values()):
                await _stop(mover)
            with suppress(QueueError):
                for bulk in self._ends.values():
                    await self._store.write(bulks.published(bulk))
                await self._store.write(bulks.release())

    async def _look(self) -> None:
        owner, now = self._store.owner, self._clock.now_ms()
        for bulk in await self._store.read(bulks.left_to(owner, now)):
            if bulk.id not in self._movers and await self._take(bulk):
                if bulk.status == RUNNING:
                    done = bulk.moved + bulk.skipped
                    log.info("bulk %d goes on: %d of %d are done", bulk.id, done, bulk.matched)
                self.begin(bulk)

        for bulk in await self._store.read(bulks.unpublished(owner, now)):
            published = self._ends.get(bulk.id)
            if published is not None and published.status == bulk.status:
                await self._store.write(bulks.published(bulk))
                del self._ends[bulk.id]
            elif bulk.id not in self._movers and await self._take(bulk):
                self._publish_end(bulk)

    async def _take(self, bulk: Bulk) -> bool:
        """Whether it is this worker that goes on with one which its owner has left."""
        return bulk.owner == self._store.owner or await self._store.write(bulks.take(bulk.id))

    def begin(self, bulk: Bulk, happened: EventType | None = None) -> None:
        """Start to move the tasks of a bulk, or to wait for those that it moved; one that is paused
        or has ended is left alone. `happened`: what is told of it."""
        if happened is not None:
            self._publish(happened, bulk)
            if bulk.ended_at is not None:  # it had nothing to do
                self._publish(EventType.BULK_FINISHED, bulk)
        if bulk.status == PAUSED or bulk.ended_at is not None or bulk.id in self._movers:
            return
        self._ends.pop(bulk.id, None)
        mover = asyncio.get_running_loop().create_task(self._carry_out(bulk))
        self._movers[bulk.id] = mover
        mover.add_done_callback(lambda _: self._forget(bulk.id))

    def _forget(self, bulk_id: int) -> None:
        self._movers.pop(bulk_id, None)
        self._published.pop(bulk_id, None)

    async def _carry_out(self, bulk: Bulk) -> None:
        if bulk.status == RUNNING:
            moved = await self._move(bulk)
            if moved is None:
                return
            bulk = moved
        if bulk.status == PAUSED:
            with suppress(QueueError):
                bulk = await self._store.read(bulks.get(bulk.id))
        if bulk.status == PAUSED or bulk.ended_at is not None:  # what it cancelled has
            self._publish_end(bulk)
        else:
            await self._look_after(bulk)

    async def _look_after(self, bulk: Bulk) -> None:
        """Wait until all that a bulk has moved has ended."""
        pause, looked = FIRST_LOOK, False
        known: tuple[int, ...] = ()
        while True:
            try:
                bulk = await self._store.read(bulks.get(bulk.id))
                if not (looked and bulk.waiting):
                    row, ended = await self._store.write(bulks.look_after(bulk.id))
                    if ended:
                        self._publish_end(row)
                        counts = bulk.id, row.succeeded, row.failed
                        log.info("bulk %d has ended: %d succeeded, %d failed", *counts)
                    if ended or row.ended_at is not None or row.owner != self._store.owner:
                        return
                    looked = True
            except NotFound:  # it was deleted
                return
            except QueueError as error:
                log.warning("cannot read the progress of bulk %d now: %s", bulk.id, error)
            self._publish_progress(bulk)
            now = *bulk.counts, bulk.waiting
            pause = FIRST_LOOK if now != known else min(2 * pause, LOOK)
            known = now
            await asyncio.sleep(pause)

    async def _move(self, bulk: Bulk) -> Bulk | None:
        """Move the tasks of a bulk: it, once it moves no more; None where another daemon does."""
        await self._pause(bulk.id, self._debt(bulk))
        loop = asyncio.get_running_loop()
        due = loop.time()
        while bulk.status == RUNNING:
            before = bulk.moved
            try:
                limit = _step(bulk.rate)
                if bulk.rate is None and bulk.stop_after:
                    limit = min(limit, await self._room(bulk))
                elif bulk.action == RESOLVE:
                    limit = min(limit, RESOLVED_AT_ONCE)
                about = bulk.id, limit, self._obstacle, self._resolve
                bulk, keys = await bulks.step(self._store, *about)
            except Exception as error:
                log.error("bulk %d cannot go on (%s); again in %gs", bulk.id, error, AGAIN)
                await asyncio.sleep(AGAIN)
                continue
            if bulk.status == RUNNING and bulk.owner != self._store.owner:
                log.info("bulk %d is carried out by another daemon", bulk.id)
                return None
            now = self._clock.now_ms()
            for key, ids in keys.items():
                self._publish_moved(bulk, key, ids, now)
            done = bulk.moved + bulk.skipped >= bulk.matched
            if bulk.status != RUNNING or done:
                continue
            if bulk.rate is not None:
                # Of time that was lost no more is made up for than a moment.
                due = max(due, loop.time() - CATCH_UP) + (bulk.moved - before) / bulk.rate
                await self._pause(bulk.id, due - loop.time())
            else:
                await self._pause(bulk.id, 0)
        log.info(
            "bulk %d is %s: %d %s, %d skipped",
            bulk.id,
            bulk.status,
            bulk.moved,
            IN_BULK[bulk.action][0],
            bulk.skipped,
        )
        return bulk

    async def _pause(self, bulk_id: int, seconds: float) -> None:
        """Wait for so long, or until the bulk is paused or cancelled."""
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds
        while True:
            if self._is_due(bulk_id):
                with suppress(QueueError):
                    bulk = await self._store.read(bulks.get(bulk_id))
                    self._publish_progress(bulk)
                    if bulk.status != RUNNING:
                        return
            left = due - loop.time()
            await asyncio.sleep(min(max(left, 0.0), PROGRESS_EACH))
            if left <= PROGRESS_EACH:
                return

    async def _room(self, bulk: Bulk) -> int:
        """How many more a bulk without a rate may move, that failures are to pause: without a bound
        it would be done before the first of them.

        It waits until half of what it may have moved ahead has been tried. Where nothing of that is
        under way, as all wait for a circuit breaker, it goes on: those of others need not.
        """
        most = max(STEP, 2 * bulk.stop_after)
        active = renewed = world.monotonic()
        while True:
            found, running = await self._store.read(bulks.untried(bulk.id, most + STEP))
            now = world.monotonic()
            active = now if running else active
            if found <= most // 2 or now > active + IDLE:
                return STEP if found > most // 2 else most - found
            await self._pause(bulk.id, LET_END)
            seen = await self._store.read(bulks.row_of(bulk.id))
            if now > renewed + RENEW:
                seen, _ = await self._store.write(bulks.move_on(seen, (), {}, seen.cursor, False))
                renewed = now
            if seen.status != RUNNING or seen.owner != self._store.owner:
                return STEP  # of which the step takes none

    def _is_due(self, bulk_id: int) -> bool:
        at, _ = self._published.setdefault(bulk_id, (world.monotonic(), ()))
        return world.monotonic() >= at + PROGRESS_EACH

    def _publish_progress(self, bulk: Bulk) -> None:
        """Tell how far a bulk is, if that has changed since it was told, some time ago."""
        counts = *bulk.counts, bulk.waiting
        if self._is_due(bulk.id):
            if self._published[bulk.id][1] != counts and self._events.listening:
                self._publish(EventType.BULK_PROGRESS, bulk)
            self._published[bulk.id] = world.monotonic(), counts

    def _publish_end(self, bulk: Bulk) -> None:
        """Tell that a bulk has paused or ended."""
        ended = bulk.ended_at is not None
        self._publish(EventType.BULK_FINISHED if ended else EventType.BULK_PAUSED, bulk)
        self._ends[bulk.id] = bulk

    def _publish(self, type_: EventType, bulk: Bulk) -> None:
        self._events.publish(task_events.of_bulk(type_, bulk, self._clock.now_ms()))

    def cancelled(self, bulk: Bulk) -> None:
        """A bulk moves no more tasks: what it has moved is looked after."""
        self._publish(EventType.BULK_CANCELLED, bulk)
        self.begin(bulk)

    def _obstacle(self, key: Key) -> str | None:
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


async def _stop(mover: asyncio.Task[None]) -> None:
    mover.cancel()
    await asyncio.wait((mover,))
