"""Watches the clock: follows it, tells of its jumps, and brings back what it has written wrongly.

How a jump is told from time that passes is in `values/clock`, and what lies ahead of now though it
cannot in `queue/housekeeping/future_times`. Here is when they are asked, and who hears of it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from orchestratord.engine.new.scheduler import Scheduler
from orchestratord.engine.worker import Worker
from orchestratord.errors import QueueError
from orchestratord.model.event import ClockEvent, EventType
from orchestratord.queue.housekeeping.future_times import BroughtBack, bring_back
from orchestratord.runtime.throttle_keeper import ThrottleKeeper
from orchestratord.values import world
from orchestratord.values.clock import APART, BACK_AFTER, FORWARD_AFTER, ClockChange, rfc3339
from orchestratord.values.durations import format_duration

log = logging.getLogger("orchestratord.clock")

LOOK = 0.5
"""Seconds between two looks."""
LOOK_BACK_EACH = 600.0
"""Seconds between two looks for what others have written."""
SETTLED = 60.0
"""Seconds for which a clock that was put back has to have stood so, until what lies ahead of it is
changed: it may be this clock that is wrong. One that takes back what it was put forward is not."""
AGAIN = 5.0
"""Seconds after which what the database did not take is tried again."""


class ClockWatch:
    """Watches the clock of one daemon."""

    def __init__(
        self,
        worker: Worker,
        scheduler: Scheduler,
        throttles: ThrottleKeeper,
        *,
        first: bool = True,
    ) -> None:
        """`first`: whether this worker tells of the clock, and brings back what it has written; the
        others of its run only follow."""
        self._first = first
        self._clock = worker.clock
        self._worker = worker
        self._scheduler = scheduler
        self._events = worker.host.events
        self._throttles = throttles
        # What was written before the daemon started is judged by a clock that has stood for a
        # moment: that of a machine that has just started may be about to be set.
        wait = SETTLED if worker.clock.is_behind_mark else BACK_AFTER
        self._look_back_at = world.monotonic() + wait
        self._last: tuple[int, ClockChange] | None = None
        """The last change of the clock, and when it was."""
        self._back: tuple[int, BroughtBack] | None = None
        """What was brought back last, and when."""
        self._machine_logged = False
        """It was told that the machine's clock is not the database's."""

    async def run(self) -> None:
        """Look at the clock until cancelled."""
        while True:
            change = self._clock.look()
            if change is not None:
                self._changed(change)
            self._compare()
            due = world.monotonic() >= self._look_back_at
            if self._first and due and not self._clock.in_doubt:
                # Others may go by another clock for a while, as those that stood still.
                self._look_back_at += LOOK_BACK_EACH
                await self._look_back()
            await asyncio.sleep(LOOK)

    def status(self) -> dict[str, Any]:
        """The clock, as `/v1/status` shows it; times in seconds."""
        last, back = self._last, self._back
        return {
            "source": self._clock.source,
            "machine_ahead": round(self._clock.machine_ahead, 3),
            "last_change": last
            and {"at": rfc3339(last[0]), "what": last[1].what, "by": round(last[1].by, 3)},
            "brought_back": back
            and {"at": rfc3339(back[0]), "tasks": back[1].tasks, "others": back[1].others},
        }

    # -- what has become of the clock ------------------------------------------------------------

    def _changed(self, change: ClockChange) -> None:
        now = self._clock.now_ms()
        self._last = now, change
        of = "this machine" if self._clock.source == "machine" else "the database"
        moved = f"the clock of {of}", _moved(change.by)
        level = logging.WARNING if self._first else logging.DEBUG
        if change.what == "jumped":
            wait = FORWARD_AFTER if change.by > 0 else BACK_AFTER
            log.log(
                level,
                "%s was put %s: the daemon goes on by the time that has passed, and follows once "
                "that has lasted for %s",
                *moved,
                format_duration(wait),
            )
        elif change.what == "returned":
            log.log(level, "%s is right again, after it was put %s: that had no effect", *moved)
            self._look_back_at = world.monotonic()  # leases have: they go by what the database says
        else:
            log.log(level, "%s stays %s: the daemon goes by it from now on", *moved)
            self._worker.lanes.shift(round(change.by * 1000), now)
            self._throttles.shift(round(change.by * 1000))
            self._scheduler.clock_changed()
            if change.by < 0:
                # By then the other workers follow, too: until they do, they write what lies ahead.
                wait = BACK_AFTER if change.takes_back else SETTLED - BACK_AFTER
                self._look_back_at = world.monotonic() + wait
        if self._first:
            type_ = EventType(f"clock.{change.what}")
            self._events.publish(ClockEvent(type_, now, round(change.by, 3)))

    def _compare(self) -> None:
        """Tell once that the machine's clock is not the one that counts."""
        ahead = self._clock.machine_ahead
        if (
            not self._first
            or self._clock.source == "machine"
            or (abs(ahead) > APART) == self._machine_logged
        ):
            return
        self._machine_logged = not self._machine_logged
        if self._machine_logged:
            log.warning(
                "the clock of this machine is %.1f s %s the database's, which all daemons go by; "
                "let NTP set it",
                abs(ahead),
                "ahead of" if ahead > 0 else "behind",
            )
        else:
            log.info("the clock of this machine agrees with the database's again")

    # -- what it has written -------------------------------------------------------------------

    async def _look_back(self) -> None:
        """Bring back what lies ahead of now though no rule can have put it there."""
        worker = self._worker
        try:
            found = await bring_back(worker.store)
            if not found:
                return
            await worker.learn_last_success()
        except Exception as error:
            if isinstance(error, QueueError):
                log.warning("cannot bring back times in the future yet: %s", error)
            else:
                log.exception("cannot bring back times in the future; again in 5 s")
            self._look_back_at = world.monotonic() + AGAIN
            return
        now = self._clock.now_ms()
        self._back = now, found
        for key, next_try in found.due.items():
            worker.placement.touched(key, next_try)
        log.warning(
            "brought back the times of %d tasks, which a clock that was ahead had written: they go "
            "on from now",
            found.tasks,
        )
        self._events.publish(ClockEvent(EventType.CLOCK_BROUGHT_BACK, now, tasks=found.tasks))


def _moved(by: float) -> str:
    return f"{'forward' if by > 0 else 'back'} by {format_duration(round(abs(by)))}"
