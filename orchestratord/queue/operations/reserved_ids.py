"""Ids of tasks that are written soon: what follows from an event names it before it is written."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from orchestratord.queue.batch import Rank, Write, writes
from orchestratord.queue.session import Session
from orchestratord.values import world

MOST_AHEAD = 500
"""Ids that are reserved before they are asked for."""
FRESH = 0.1
"""Seconds for which they serve: later tasks are to have higher ids, about. What is left then is
never used."""


@writes(Rank.NEW)
def reserve_ids(session: Session, count: int) -> Sequence[int]:
    """The ids of so many tasks that are to be written soon."""
    return session.db.reserve_ahead("retry_schedule", count)


class ReservedIds:
    """Ids at hand. While many events come, the next ones are reserved with those that are asked
    for, so that few of them wait for a transaction of their own."""

    def __init__(self, write: Callable[[Write[Sequence[int]]], Awaitable[Sequence[int]]]) -> None:
        """`write`: that of the store."""
        self._write = write
        self._ids: deque[int] = deque()
        self._stale = 0.0
        """When they are not used any more (`world.monotonic`)."""
        self._waiting = 0
        """How many are asked for and not at hand."""
        self._taken = 0
        """How many were taken since the last ones were reserved."""
        self._filling: asyncio.Task[None] | None = None

    async def take(self, count: int) -> Sequence[int]:
        """So many ids, ascending. Raises what the store raises."""
        self._waiting += count
        try:
            while not self._has(count):
                if self._filling is None:
                    self._filling = asyncio.get_running_loop().create_task(self._fill())
                await asyncio.shield(self._filling)
        finally:
            self._waiting -= count
        self._taken += count
        return [self._ids.popleft() for _ in range(count)]

    def _has(self, count: int) -> bool:
        return len(self._ids) >= count and world.monotonic() < self._stale

    async def _fill(self) -> None:
        ahead = min(2 * self._taken, MOST_AHEAD) if world.monotonic() < self._stale + FRESH else 0
        self._taken = 0
        try:
            ids = await self._write(reserve_ids(self._waiting + ahead))
        finally:
            self._filling = None
        self._ids = deque(ids)
        self._stale = world.monotonic() + FRESH
