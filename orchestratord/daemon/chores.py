"""The daemon's own housekeeping.

A chore runs as a task on the loop, never twice at once, and a fault of one harms no other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from orchestratord.errors import Unreachable
from orchestratord.values import world

log = logging.getLogger("orchestratord.chores")

Chore = Callable[[], Awaitable[object]]


class Chores:
    """Runs chores at their intervals until cancelled."""

    def __init__(self) -> None:
        self._chores: dict[str, tuple[int, Chore]] = {}
        self._due: dict[str, float] = {}
        """When each is to run next (`world.monotonic`)."""
        self._running: dict[str, asyncio.Task[None]] = {}

    def every(self, seconds: int, name: str, chore: Chore, *, at_once: bool = False) -> None:
        """Run `chore` each `seconds`; left out while its last run is still going on. `at_once`: it
        is due from the start, too, for a daemon that never lives so long."""
        self._chores[name] = seconds, chore
        self._due[name] = world.monotonic() + (0 if at_once else seconds)

    async def run(self) -> None:
        """Look once a second what is due; until cancelled."""
        try:
            while True:
                now = world.monotonic()
                for name, (seconds, chore) in self._chores.items():
                    if now >= self._due[name]:
                        self._due[name] = now + seconds
                        self._begin(name, chore)
                await asyncio.sleep(1.0)
        finally:
            for running in self._running.values():
                running.cancel()

    def _begin(self, name: str, chore: Chore) -> None:
        if name not in self._running:
            running = asyncio.get_running_loop().create_task(self._carry_out(name, chore))
            self._running[name] = running
            running.add_done_callback(lambda _: self._running.pop(name, None))

    async def _carry_out(self, name: str, chore: Chore) -> None:
        try:
            await chore()
        except Unreachable as error:
            log.warning("the chore %r is tried again at its next time: %s", name, error)
        except Exception:
            log.exception("the chore %r failed; it is tried again at its next time", name)
