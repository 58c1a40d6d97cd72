"""What makes attempts end that do not: their timeout, their lease, the stop of the daemon."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from orchestratord.engine.attempt_in_progress import AttemptInProgress
from orchestratord.engine.lanes.lane_set import LaneSet
from orchestratord.plugin.long_work import seconds_queued
from orchestratord.queue.shared_rates import postpone
from orchestratord.queue.store import Store
from orchestratord.values import world
from orchestratord.values.durations import format_duration
from orchestratord.values.rate_limit import MOST_AHEAD, RateWindow

log = logging.getLogger("orchestratord.attempt")

GRACE = 1.0
"""Seconds over its timeout after which an executor that does not end by itself is cancelled."""
LEASE_MARGIN = 2.0
"""Seconds before a lease may run out at which attempts of ordered partitions end."""
LOOK = 0.5
"""Seconds between two looks at them."""
LOST_SOON = "the daemon could not renew its lease, and another one may send it"


class LeaseGuard:
    """Whether attempts of ordered partitions have to end, since their leases could not be renewed:
    another daemon would send the same, and then what comes after it, while this one still sends."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.renewed = world.elapsed()
        """When the leases of all claims were last known to be renewed (`elapsed`)."""

    def leased(self, attempt: AttemptInProgress) -> float:
        """When an attempt was claimed (`elapsed`): it may have waited for the database, for a slot,
        or for its turn since."""
        took = max(self._store.clock.now_ms() - attempt.task.updated_at, attempt.elapsed())
        return world.elapsed() - took / 1000

    def may_be_lost(self, attempt: AttemptInProgress) -> bool:
        """Whether the lease of an attempt may run out soon."""
        began = self.leased(attempt) if attempt.leased is None else attempt.leased
        # What a renewal leaves alone has two thirds of its lease left.
        lease = self._store.lease
        sure = lease * 2 / 3 - min(LEASE_MARGIN, lease / 6)
        return self._store.several_daemons and world.elapsed() > max(self.renewed, began) + sure


class RateGuard:
    """Has attempts that begin late, as by a slow disk, count from when they do: what others of
    their lane may begin goes by that."""

    def __init__(self, store: Store, lanes: LaneSet) -> None:
        self._store = store
        self._lanes = lanes
        self.stopping = False
        """The daemon stops: what is not sent yet is not sent."""

    def _in_queue(self, window: RateWindow) -> bool:
        """Whether it is counted in the queue, and not by this daemon alone."""
        return self._store.several_daemons or window.limit.is_kept

    def late_in(self, attempt: AttemptInProgress) -> RateWindow | None:
        """Where its rate counts an attempt, if it begins too late for that."""
        throttle = self._lanes.lanes[attempt.lane].throttle
        if throttle is None or (window := throttle.window) is None:
            return None
        if not attempt.counted:  # the queue counts a task as it is claimed
            claimed = self._in_queue(window)
            attempt.counted = attempt.task.updated_at if claimed else attempt.began
        in_time = attempt.counted + window.limit.margin // 2
        return window if self._store.clock.now_ms() > in_time else None

    async def keep(self, attempt: AttemptInProgress) -> None:
        """Have one that is late count anew; where others have begun in its place, it waits."""
        granted = 0
        while not self.stopping and (window := self.late_in(attempt)):
            limit, now = window.limit, self._store.clock.now_ms()
            within = min(2 * granted + limit.margin, MOST_AHEAD)
            if self._in_queue(window):
                later = postpone(attempt.lane, limit, attempt.counted, within)
                wait = await self._store.write(later)
            else:
                wait = window.postpone(attempt.counted, now, now + within)
            if wait:
                await asyncio.sleep(min(wait / 1000, LOOK))
            else:
                granted, attempt.counted = within, now + within - limit.margin // 2


class Deadlines:
    """Attempts that are being prepared or sent, and when they have to end."""

    def __init__(self, store: Store, lanes: LaneSet) -> None:
        self.leases = LeaseGuard(store)
        self.rates = RateGuard(store, lanes)
        self.stopping = False
        """The daemon stops, and waits no longer."""
        self.sending: dict[asyncio.Task[Any], AttemptInProgress] = {}
        """Attempts whose request is under way."""
        self.preparing: set[asyncio.Task[Any]] = set()
        """Attempts in the hands of before_ hooks, which may take their time."""
        self.overdue: dict[asyncio.Task[Any], str] = {}
        """Attempts that were cancelled since they did not end in time, and why that is wrong."""

    def begin(self, attempt: AttemptInProgress) -> None:
        """An attempt sends from now on, for as long as its timeout says."""
        attempt.sent = world.monotonic()
        self.sending[attempt.running] = attempt
        if (task := attempt.task).turn is not None and task.ordered:
            attempt.leased = self.leases.leased(attempt)

    def end(self, running: asyncio.Task[Any]) -> None:
        """It sends no more, whatever it made of a cancel."""
        del self.sending[running]
        if self.overdue and self.overdue.pop(running, None) is not None:
            running.uncancel()

    def interrupt(self) -> None:
        """The daemon stops and waits no longer: end what is under way, begin nothing.

        An attempt that is under way ends by the rule for a daemon that stops; the claim of one that
        has sent nothing is released.
        """
        self.stopping = self.rates.stopping = True
        for running in [*self.sending, *self.preparing]:
            running.cancel()

    async def watch(self) -> None:
        """Call `expire` until cancelled: whatever the worker waits for, as for the database."""
        while True:
            await asyncio.sleep(LOOK)
            try:
                self.expire(world.monotonic())
            except Exception:
                log.exception("cannot check the deadlines of attempts; again in %gs", LOOK)

    def expire(self, now: float) -> None:
        """End what its executor did not end in time; to be called about once a second.

        A deadline for each attempt of its own would cost more than the rest of its bookkeeping;
        the client keeps the exact one. `now` is of `world.monotonic`.
        """
        for running, attempt in list(self.sending.items()):
            began, allowed = attempt.sent, attempt.plan.target.timeout + GRACE
            if running in self.overdue:
                continue
            if attempt.leased is not None and self.leases.may_be_lost(attempt):
                self.overdue[running] = LOST_SOON
                running.cancel()
                continue
            if now <= began + allowed:
                continue
            # Its answer is there: looking into it may take as long again, once it is its turn.
            queued = seconds_queued(running)
            if queued is not None and now <= began + queued + 2 * allowed:
                continue
            allowed_words = format_duration(allowed - GRACE)
            self.overdue[running] = f"the executor did not end within {allowed_words}"
            running.cancel()
