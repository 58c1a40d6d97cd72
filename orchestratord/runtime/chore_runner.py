"""Carries out chores: claims those that are due, and takes their steps until they are done.

Chores use none of the slots of `concurrency`. One that waits for its next step holds up no other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from orchestratord.errors import QueueError, Unreachable
from orchestratord.queue.operations import chores
from orchestratord.queue.records import Chore
from orchestratord.queue.store import Store

log = logging.getLogger("orchestratord.chores")

LOOK = 1.0
"""Seconds between two looks for chores that others have left, or that come due."""
AT_ONCE = 20
"""Steps that are under way at a time."""
KEPT = 5.0
"""Seconds: a chore whose next step is due sooner stays claimed until then."""
AGAIN = 1.0
"""Seconds until a step that failed is tried again; each time it is twice as long, up to …"""
LONGEST = 60.0

Step = Callable[[Chore], Awaitable[float | None]]
"""Takes the next step of a chore: seconds until the one after it, None where there is none."""


class ChoreRunner:
    """Carries out the chores that no other process is at."""

    def __init__(
        self,
        store: Store,
        steps: Mapping[str, Step],
        is_needless: Callable[[Chore], bool] = lambda chore: False,
    ) -> None:
        """`steps`: by the kind of chore. `is_needless`: whether there is nothing to do for one."""
        self._store = store
        self._steps = steps
        self._is_needless = is_needless
        self._held: dict[int, asyncio.Task[None]] = {}
        self._waiting = 0
        """Chores of these whose next step is not due."""
        self._after = ""
        """The line that had its turn last."""

    async def run(self) -> None:
        """Carry out what is due, until cancelled; others go on with what is left then."""
        wake = self._store.chore_added
        try:
            while True:
                wake.clear()
                try:
                    await self._look()
                except Unreachable as error:  # which is logged where it is found
                    log.debug("chores wait: %s", error)
                except QueueError as error:
                    log.warning("cannot look for chores yet: %s", error)
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK):
                        await wake.wait()
        finally:
            held = list(self._held.values())
            for task in held:
                task.cancel()
            await asyncio.gather(*held, return_exceptions=True)
            with suppress(QueueError):
                await self._store.write(chores.release())

    async def _look(self) -> None:
        room = AT_ONCE - len(self._held) + self._waiting
        if room <= 0:
            return
        now, held = self._store.clock.now_ms(), frozenset(self._held)
        ids = await self._store.read(chores.due(self._store.owner, now, held, room))
        lines = await self._store.read(chores.firsts(self._after, held, room - len(ids)))
        ids += lines
        self._after = list(lines.values())[-1] if lines else ""
        claimed = await self._store.write(chores.claim(ids)) if ids else []
        if needless := [chore for chore in claimed if self._is_needless(chore)]:
            await self._store.write(chores.end_all(needless))
            self._store.chore_added.set()  # there is room for as many
        for chore in claimed:
            if chore not in needless:
                step = asyncio.get_running_loop().create_task(self._carry_out(chore))
                self._held[chore.id] = step

    async def _carry_out(self, chore: Chore) -> None:
        failures = chore.failures
        try:
            while True:
                try:
                    pause = await self._steps[chore.kind](chore)
                    failures = 0
                except Exception as error:
                    failures += 1
                    pause = min(AGAIN * 2.0 ** (failures - 1), LONGEST)
                    level = logging.DEBUG if isinstance(error, Unreachable) else logging.ERROR
                    what = f"{chore.kind} {chore.subject}"
                    log.log(level, "cannot do the chore %s yet: %s", what, error)
                if pause is None:
                    return
                if failures or chore.deaths or pause > KEPT:
                    with suppress(QueueError):
                        due = self._store.clock.now_ms() + round(pause * 1000)
                        await self._store.write(chores.put_off(chore, failures, due))
                        return
                await self._wait(pause)
        finally:
            del self._held[chore.id]
            self._store.chore_added.set()  # there is room for the next one

    async def _wait(self, seconds: float) -> None:
        self._waiting += 1
        try:
            await asyncio.sleep(seconds)
        finally:
            self._waiting -= 1
