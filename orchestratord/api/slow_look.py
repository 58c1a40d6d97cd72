"""What is quick to look up in most queues, and takes a second in one with millions of tasks."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Generic, TypeVar

from orchestratord.queue.batch import Read
from orchestratord.queue.store import Store
from orchestratord.values import world

R = TypeVar("R")

SHARE = 20
"""What takes long is looked up again after so many times the time that the last look took."""
QUICK = 0.01
"""Seconds; what takes no longer is looked up each time, and waited for. Where the last look took
longer, the next one is waited for only so long."""
FRESH = 120.0
"""Seconds for which what is known serves meanwhile."""
WAIT = 1.0
"""Seconds for which a look is waited for otherwise."""


class SlowLook(Generic[R]):
    """Looks something up, and says what was known before where that takes long."""

    def __init__(self, store: Store, known: R | None = None) -> None:
        """`known`: what is said until the first look is over; None to wait for it."""
        self._store, self._known = store, known
        self._at, self._took = float("-inf"), 0.0
        self._looking: asyncio.Task[R] | None = None

    async def latest(self, read: Read[R]) -> R:
        """What `read` finds, or has found lately. Raises QueueError."""
        now, slow = world.monotonic(), self._took > QUICK
        if (before := self._looking) is not None and before.done() and before.exception():
            self._looking = None  # why it failed then says nothing about now
        if self._looking is None and (not slow or now >= self._at + self._took * SHARE):
            self._looking = asyncio.create_task(self._look(read))
        if (looking := self._looking) is not None:
            serves = slow and now < self._at + FRESH
            await asyncio.wait((looking,), timeout=QUICK if serves else WAIT)
            if looking.done():
                self._looking = None if self._looking is looking else self._looking
                # Its thread may be the one for which there is no memory: the rest is still said.
                with suppress(MemoryError, RuntimeError):
                    looking.result()
        return await self._look(read) if self._known is None else self._known

    async def _look(self, read: Read[R]) -> R:
        began = world.monotonic()
        self._known = found = await self._store.read(read)
        self._at = world.monotonic()
        self._took = self._at - began
        return found
