"""The throttle of one scope: how many of its tasks may be claimed now, and when the next one may.

A scope is a lane, the URL of deliveries, or an endpoint or webhook by itself. It has a throttle
while it has a rate limit, while something of it failed lately, while its receiver has told it to
wait, by Retry-After, and while it refuses what it is sent. Most scopes have none.
"""

from __future__ import annotations

from orchestratord.engine.lanes.breaker import LONGEST_PAUSE_MS, Breaker
from orchestratord.engine.lanes.pace import ANY, Pace
from orchestratord.model.event import BREAKER, RETRY_AFTER, StoredThrottle
from orchestratord.values.rate_limit import RateLimit, RateWindow


class Throttle:
    """Of one scope. Times are milliseconds since the epoch.

    While the breaker is open or the receiver has told it to wait, only probes pass, one at a time.
    `heeds` is False for what says `respect_retry_after: false`, and is not held by the latter.
    """

    __slots__ = tuple(
        "breaker by_hand name over pace pace_published probe probe_by_hand probing told_here "
        "told_since told_until told_why window".split()
    )

    def __init__(self, now: int, name: str = "") -> None:
        self.name = name
        """Of the scope."""
        self.window: RateWindow | None = None
        """What the rate limit counts; None where there is none."""
        self.breaker = Breaker(now)
        self.pace: Pace | None = None
        """None where it has refused nothing of late."""
        self.pace_published: int | None = None
        """Since when it is slowed, where that has lasted and was told."""
        self.told_until = 0
        """Until when the receiver has told it to wait, by Retry-After."""
        self.told_since = 0
        """When it did."""
        self.told_why = ""
        self.told_here = False
        """It has to wait for something of this machine, which is no matter of others."""
        self.over: tuple[int, int] | None = None
        """Since when and until when it has waited, until that is told."""
        self.by_hand = False
        """One is wanted now, whatever the throttle says."""
        self.probing = False
        """A probe was chosen, and it is not known yet how it ends."""
        self.probe: int | None = None
        """Its task, once it is claimed."""
        self.probe_by_hand = False
        """It is one that a person wanted."""

    def limit(self, rate: RateLimit | None) -> None:
        """Count by this limit from now on; by none for None."""
        if rate is None:
            self.window = None
        elif self.window is None:
            self.window = RateWindow(rate)
        elif self.window.limit != rate:
            self.window.adopt(rate)

    def idle(self, now: int) -> bool:
        """True where the scope needs no throttle any more."""
        return (
            self.window is None
            and self.pace is None
            and not self.probing
            and not self.told_until
            and self.over is None
            and self.breaker.quiet(now)
        )

    @property
    def exact(self) -> bool:
        """Whether none may be claimed ahead: what is reserved would keep others from beginning."""
        return self.window is not None or self.is_slowed

    @property
    def is_slowed(self) -> bool:
        """Whether it is sent less than is due, since it would refuse more."""
        return self.pace is not None and self.pace.rate is not None

    def holds(self, now: int, heeds: bool = True) -> bool:
        """True while its receiver has told it to wait."""
        return heeds and self.told_until > now

    def probes_only(self, now: int, heeds: bool = True) -> bool:
        """True where only a probe may pass."""
        return self.breaker.opened_at is not None or self.holds(now, heeds)

    def room(self, now: int, heeds: bool = True) -> int:
        """How many may be claimed now."""
        room = ANY
        self.end_hold(now)
        if self.probes_only(now, heeds):
            if self.probing or not (self.by_hand or self._probe_at(now, heeds) <= now):
                return 0
            room = 1
        elif self.pace is not None:
            room = self.pace.room(now)
        return room if self.window is None else min(room, self.window.free(now))

    def opens_at(self, now: int, heeds: bool = True) -> int | None:
        """When there is room if nothing happens meanwhile; None where something has to."""
        at = now
        if self.probes_only(now, heeds):
            if self.probing:
                return None
            at = now if self.by_hand else self._probe_at(now, heeds)
        elif self.pace is not None and not self.pace.room(now):
            at = self.pace.next_at(now)
        if self.window is None:
            return at
        free = self.window.next_free(now)
        return None if free is None else max(at, free)

    def take(self, count: int, now: int, heeds: bool = True) -> bool:
        """So many are claimed, of those for which there is room. True where it is a probe."""
        probe = self.probes_only(now, heeds)
        if probe:
            self.probing, self.probe = True, None
            self.probe_by_hand, self.by_hand = self.by_hand, False
        elif self.pace is not None:
            self.pace.take(count, now)
        if self.window is not None:
            self.window.reserve(count)
        return probe

    def return_token(self, count: int, now: int, since: int | None = None) -> None:
        """So many that were taken do not begin, or began at `since` and came to nothing."""
        if self.window is not None:
            self.window.return_token(count, now, since)
        if self.pace is not None:
            self.pace.return_token(count)

    def admits(self, task_id: int, now: int, heeds: bool = True) -> bool:
        """Whether a claimed task may begin: it may have been claimed before only probes might.

        The claim of one that may not is released.
        """
        return task_id == self.probe or not self.probes_only(now, heeds)

    def probe_over(self) -> None:
        """The probe has ended, however it did, or was not sent at all."""
        self.probing, self.probe, self.probe_by_hand = False, None, False

    def wait_until(self, until: int, why: str, since: int = 0, *, here: bool = False) -> None:
        """The receiver has told it to wait; `since`: when it did. `here`: it waits for something of
        this machine."""
        if until > self.told_until:
            self.told_until, self.told_why, self.told_here = until, why, here
            self.told_since = self.told_since or since

    def end_hold(self, now: int) -> None:
        """It was told to wait until now."""
        if not 0 < self.told_until <= now:
            return
        if not self.told_here:
            self.over = self.told_since, self.told_until
        self.told_until = self.told_since = 0

    def restore(self, row: StoredThrottle, now: int) -> None:
        """Be throttled as the queue has it."""
        if row.kind == RETRY_AFTER and (row.until or 0) > now:
            self.wait_until(row.until or 0, row.why, row.since)
        elif row.kind == BREAKER and self.breaker.opened_at is None:
            # What it was for is not kept: that something answers there may not be enough.
            self.breaker.open(now, row.since, row.why, by_keys=True)

    def shift(self, by: int) -> None:
        """The clock was moved by so many milliseconds: it waits for as long as before."""
        if self.told_until:
            self.told_until += by
            self.told_since += by
        self.breaker.shift(by)
        if self.window is not None:
            self.window.shift(by)
        if self.pace is not None:
            self.pace.shift(by)
        if self.pace_published is not None:
            self.pace_published += by

    def _probe_at(self, now: int, heeds: bool) -> int:
        breaker, until = self.breaker, self.told_until if heeds else 0
        if breaker.opened_at is None:
            return until
        if breaker.next_probe > now + LONGEST_PAUSE_MS:
            breaker.next_probe = now  # the clock was put back
        # A receiver that has said when to come back is not asked before.
        return max(breaker.next_probe, until)
