"""Bulks: many tasks moved back to pending or given up, at a pace, going on after a restart.

How far a bulk has come is a row of the database; here is only who takes its steps.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from orchestratord.engine import task_events
from orchestratord.engine.worker import Worker
from orchestratord.errors import QueueError
from orchestratord.model.task import Key
from orchestratord.plugin.event_bus import EventBus
from orchestratord.queue.operations import bulk as bulks
from orchestratord.queue.records import CANCEL, Bulk
from orchestratord.queue.store import Store
from orchestratord.values.clock import Clock

log = logging.getLogger("orchestratord.bulk")

RUNNING = "running"

STEP = 200
"""Tasks moved in one transaction at most; what else the store has to do goes in between."""
STEPS_PER_SECOND = 10.0
"""How often a paced bulk moves something, where its rate allows more than one at a time."""
CATCH_UP = 1.0
"""Seconds of delay that a paced bulk makes up for at most."""
LOOK = 5.0
"""Seconds between two looks for bulks whose daemon has died, where there are several."""
AGAIN = 5.0
"""Seconds until a step that the database refused is tried again."""


class BulkRunner:
    """Takes the steps of every running bulk, each in an asyncio task of its own."""

    def __init__(self, store: Store, worker: Worker, clock: Clock, events: EventBus) -> None:
        self._store = store
        self._events = events
        self._worker = worker
        self._clock = clock
        self._movers: dict[int, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Go on with what earlier daemons left unfinished, until cancelled.

        Then all bulks stop where they are, and the next daemon goes on with them.
        """
        try:
            while True:
                try:
                    await self._look()
                except QueueError as error:
                    log.warning("bulks that others left cannot be looked for yet: %s", error)
                await asyncio.sleep(LOOK)
        finally:
            for mover in list(self._movers.values()):
                await _stop(mover)
            with suppress(QueueError):
                await self._store.write(bulks.release())

    async def _look(self) -> None:
        owner, now = self._store.owner, self._clock.now_ms()
        for bulk in await self._store.read(bulks.left_to(owner, now)):
            if bulk.id not in self._movers:
                done = bulk.moved + bulk.skipped
                log.info("bulk %d goes on: %d of %d are done", bulk.id, done, bulk.matched)
                self.begin(bulk)

    def begin(self, bulk: Bulk) -> None:
        """Start to move the tasks of a bulk; one that is not running is left alone."""
        if bulk.status == RUNNING and bulk.id not in self._movers:
            mover = asyncio.get_running_loop().create_task(self._move(bulk))
            self._movers[bulk.id] = mover
            mover.add_done_callback(lambda _: self._movers.pop(bulk.id, None))

    async def _move(self, bulk: Bulk) -> None:
        await asyncio.sleep(self._debt(bulk))
        loop = asyncio.get_running_loop()
        due = loop.time()
        while bulk.status == RUNNING:
            before = bulk.moved
            try:
                limit = _step(bulk.rate)
                bulk, keys = await bulks.step(self._store, bulk.id, limit, self._obstacle)
            except Exception as error:
                log.error("bulk %d cannot go on (%s); again in %gs", bulk.id, error, AGAIN)
                await asyncio.sleep(AGAIN)
                continue
            if bulk.status == RUNNING and bulk.owner != self._store.owner:
                log.info("bulk %d is carried out by another daemon", bulk.id)
                return
            now = self._clock.now_ms()
            for key, ids in keys.items():
                self._tell(bulk, key, ids, now)
            done = bulk.moved + bulk.skipped >= bulk.matched
            if bulk.rate is not None and bulk.status == RUNNING and not done:
                # Of time that was lost no more is made up for than a moment.
                due = max(due, loop.time() - CATCH_UP) + (bulk.moved - before) / bulk.rate
                await asyncio.sleep(due - loop.time())
        log.info(
            "bulk %d is %s: %d %s, %d skipped",
            bulk.id,
            bulk.status,
            bulk.moved,
            "cancelled" if bulk.action == CANCEL else "retried",
            bulk.skipped,
        )

    def _obstacle(self, key: Key) -> str | None:
        """For what reason the tasks of a key would only wait or fail again, if they would."""
        obstacle = self._worker.placement.obstacle(key)
        return obstacle.reason if obstacle else None

    def _tell(self, bulk: Bulk, key: Key, ids: list[int], now: int) -> None:
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
