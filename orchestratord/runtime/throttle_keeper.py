"""What is throttled, between the memory of this daemon and the table that all of them share.

In memory first: an attempt's end holds its scope at once, and the row is written a moment later. If
the power fails in between, the next attempt is answered as that one was. At the start the rows are
read before anything is sent. Other daemons look every two seconds, and as soon as they are told.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Collection, Iterable

from orchestratord.engine.worker import Worker
from orchestratord.model.event import (
    BREAKER,
    LIFTED,
    RETRY_AFTER,
    SAME_MS,
    BreakerEvent,
    EventType,
    StoredThrottle,
    ThrottleEvent,
)
from orchestratord.queue.operations import stored_throttles
from orchestratord.queue.operations.stored_throttles import Change

APART_MS = 500
"""What is less is no difference of clocks."""
LONGER_MS = 1_000
"""By so much longer a receiver has to be waited for to be written again."""

_Id = tuple[str, str, str]


class ThrottleKeeper:
    """Keeps the table `throttles` as the throttles in memory are, and the other way round."""

    def __init__(self, worker: Worker) -> None:
        self._store = worker.store
        self._worker = worker
        self._clock = worker.clock
        self.behind = False
        """Something is still to be written."""
        self._keeping = asyncio.Lock()
        self._changes: list[Change] = []
        """What has begun or ended and is being written: plugins are asked once what follows from
        it, however often that has to be tried."""
        self._offset = 0
        """By how many milliseconds the database's clock is ahead of this daemon's."""
        self._rows: dict[_Id, StoredThrottle] = {}
        """What the table holds, as far as it is known; by the clock of this daemon."""
        self._lifted: dict[str, int] = {}
        """Since when what scopes had been throttled by does not count."""
        self._over: dict[tuple[str, str], int] = {}
        """When what throttled a scope, by its name and kind, was last over here; by the database's
        clock."""

    def set_clock(self, now: int) -> None:
        """The database's clock stands at `now` (milliseconds)."""
        ahead = now - self._clock.now_ms()
        # The answer took its time, and clocks of one machine are the same.
        self._offset = ahead if abs(ahead) >= APART_MS else 0

    def shift(self, by: int) -> None:
        """The daemon's clock was moved by so many milliseconds: all is as long ago as before."""
        self._rows = {id_: _moved(row, by) for id_, row in self._rows.items()}
        self._lifted = {name: at + by for name, at in self._lifted.items()}

    async def restore(self, now: int, alive: Collection[str]) -> None:
        """At the start: be throttled as before it. `now` by the database's clock; `alive`: the
        daemons that are."""
        # Where there is no other daemon, all rows are of what was here before.
        host = socket.gethostname() if set(alive) - {self._store.owner} else ""
        rows = await self._store.write(stored_throttles.adopt(host, alive, now))
        self._heed(self._here(rows))

    async def learn(self) -> None:
        """Be throttled as the other daemons are told to be, and lift what they have lifted."""
        self._heed(self._here(await self._store.read(stored_throttles.stored())), others=True)

    async def keep(self) -> None:
        """Write what is throttled here by now, and what is so no more."""
        self.behind = True
        # The daemon's end cancels who asks, and what is being written is not to be written again.
        await asyncio.shield(self._keep())

    async def leave(self) -> None:
        """The daemon ends: write what has begun or ended of late."""
        if self.behind or self._worker.feedback.changes:
            await self.keep()

    async def _keep(self) -> None:
        async with self._keeping:
            await self._write()

    async def _write(self) -> None:
        feedback, store = self._worker.feedback, self._store
        for name, at in list(feedback.lifted.items()):
            await self._note_lifted(self._worker.placement.config.redactor.text(name), at)
            del feedback.lifted[name]
        found = feedback.rows(store.owner, self._worker.placement.config.redactor)
        wanted = {_id(row): row for row in found}
        put = [row for id_, row in wanted.items() if _longer(row, self._rows.get(id_))]
        drop = [row for id_, row in self._rows.items() if id_ not in wanted and self._is_over(row)]
        if not self._changes:
            events = feedback.changes.copy()
            feedback.changes.clear()
            self._changes = [await self._change(event) for event in events]
        if not (put or drop or self._changes):
            self.behind = False
            return
        there = self._there(put), self._there(drop)
        note = stored_throttles.note(socket.gethostname(), *there, self._changes)
        inserted = await store.write(note)
        effects = [effect for one in self._changes for effect in one.effects]
        self._changes = []
        await self._worker.pipe.new_tasks.written(effects, inserted)
        self._rows |= {_id(row): row for row in put}
        for row in drop:
            self._rows.pop(_id(row), None)
        self.behind = bool(feedback.changes)
        store.tell("lanes")

    async def _change(self, event: BreakerEvent | ThrottleEvent) -> Change:
        """What is to be written of what has begun or ended, with what follows from it."""
        if isinstance(event, BreakerEvent):
            name, kind, began = event.lane, BREAKER, event.type == EventType.BREAKER_OPENED
        else:
            name, kind = event.scope, event.cause
            began = event.type == EventType.THROTTLE_BEGAN
        now = event.at + self._offset
        # What is long after now was noted before the clocks were put back.
        self._over = {key: at for key, at in self._over.items() if abs(at - now) < SAME_MS}
        after = self._over.get((name, kind), 0)
        if not began:
            self._over[name, kind] = now
        effects = await self._worker.pipe.new_tasks.of_event(event)
        return Change(name, kind, began, after, effects)

    async def lift(self, name: str) -> bool:
        """Lift all that throttles a scope, for all daemons; whether there was anything."""
        now, redactor = self._clock.now_ms(), self._worker.placement.config.redactor
        known = any(row.name == name and row.kind != LIFTED for row in self._rows.values())
        lifted = self._worker.feedback.lift(name, now, redactor)
        await self._note_lifted(name, now)
        if lifted or known:
            self._worker.feedback.reopen(name, redactor)
        return lifted or known

    async def _note_lifted(self, name: str, at: int) -> None:
        self._lifted[name] = max(at, self._lifted.get(name, at))
        await self._store.write(stored_throttles.lift(name, at + self._offset))
        for row in [row for row in self._rows.values() if row.name == name and row.since <= at]:
            del self._rows[_id(row)]
        self._store.tell("lanes")

    def _heed(self, rows: Iterable[StoredThrottle], *, others: bool = False) -> None:
        feedback, redactor = self._worker.feedback, self._worker.placement.config.redactor
        self._rows = {_id(row): row for row in rows}
        for row in self._rows.values():
            if row.kind == LIFTED and row.since > self._lifted.get(row.name, 0):
                self._lifted[row.name] = row.since
                feedback.lift(row.name, row.since, redactor)
        holding = [
            row
            for row in self._rows.values()
            if row.since > self._lifted.get(row.name, 0)
            and row.kind != LIFTED
            and (row.kind == RETRY_AFTER or not others)
        ]
        feedback.restore(holding, redactor)

    def _is_over(self, row: StoredThrottle) -> bool:
        """Whether a row that nothing here asks for is ours to delete."""
        if row.owner:
            return row.owner == self._store.owner
        return row.kind == RETRY_AFTER and (row.until or 0) <= self._clock.now_ms()

    def _here(self, rows: Iterable[StoredThrottle]) -> list[StoredThrottle]:
        # What begins after now was written by a clock that was ahead: it is to last as long.
        now = self._clock.now_ms()
        return [_moved(row, min(-self._offset, now - row.since)) for row in rows]

    def _there(self, rows: Iterable[StoredThrottle]) -> list[StoredThrottle]:
        return [_moved(row, self._offset) for row in rows]


def _id(row: StoredThrottle) -> _Id:
    return row.name, row.kind, row.owner


def _moved(row: StoredThrottle, by: int) -> StoredThrottle:
    return row._replace(since=row.since + by, until=row.until and row.until + by)


def _longer(row: StoredThrottle, known: StoredThrottle | None) -> bool:
    """Whether a row is to be written, where `known` is there already."""
    return known is None or (row.until or 0) > (known.until or 0) + LONGER_MS
