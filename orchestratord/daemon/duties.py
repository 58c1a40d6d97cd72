"""What each process does for itself again and again: when it is due says `schedule`, running it is
ours.

A duty runs as a task on the loop, never twice at once, and a fault of one harms no other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import schedule

from orchestratord.errors import Unreachable
from orchestratord.values import world

log = logging.getLogger("orchestratord.duties")

Duty = Callable[[], Awaitable[object]]


class Duties:
    """Runs duties at their intervals until cancelled."""

    def __init__(self) -> None:
        self._timetable = schedule.Scheduler()
        self._running: dict[str, asyncio.Task[None]] = {}
        self._looked = datetime.fromtimestamp(world.time())  # what `schedule` goes by

    def every(self, seconds: int, name: str, duty: Duty, *, at_once: bool = False) -> None:
        """Run `duty` each `seconds`; left out while its last run is still going on. `at_once`: it
        is due from the start, too, for a daemon that never lives so long."""
        job = self._timetable.every(seconds).seconds.do(self._begin, name, duty)
        if at_once:
            job.next_run = self._looked

    async def run(self) -> None:
        """Look once a second what is due; until cancelled."""
        try:
            while True:
                self.look(datetime.fromtimestamp(world.time()))
                await asyncio.sleep(1.0)
        finally:
            for running in self._running.values():
                running.cancel()

    def look(self, now: datetime) -> None:
        """Begin what is due; `now` is the local wall clock, which `schedule` goes by."""
        if now < self._looked:
            # The clock was set back, or summer time ended: what was due then would wait for long.
            for job in self._timetable.get_jobs():
                job.next_run = now + timedelta(seconds=job.interval)
        self._looked = now
        self._timetable.run_pending()

    def _begin(self, name: str, duty: Duty) -> None:
        if name not in self._running:
            running = asyncio.get_running_loop().create_task(self._carry_out(name, duty))
            self._running[name] = running
            running.add_done_callback(lambda _: self._running.pop(name, None))

    async def _carry_out(self, name: str, duty: Duty) -> None:
        try:
            await duty()
        except Unreachable as error:
            log.warning("cannot do the duty %r now; again at its next time: %s", name, error)
        except Exception:
            log.exception("the duty %r failed; it is tried again at its next time", name)
