"""The throttle of a lane: how many of its tasks may be claimed now, and when the next one may.

A lane has one while it has a rate limit, while something of it failed lately, and while its
receiver has told it to wait, by Retry-After. Most lanes have none.
"""

from __future__ import annotations

from orchestratord.engine.lanes.breaker import LONGEST_PAUSE_MS, Breaker
from orchestratord.values.rate_limit import RateLimit, RateWindow

ANY = 1 << 30
"""As many as there are slots."""


class Throttle:
    """Of one lane. Times are milliseconds since the epoch.

    While the breaker is open or the receiver has told it to wait, only probes pass, one at a time.
    """

    __slots__ = (
        "breaker", "by_hand", "probe", "probing", "told_here", "told_until", "told_why", "window",
    )  # fmt: skip

    def __init__(self, now: int) -> None:
        self.window: RateWindow | None = None
        """What the rate limit counts; None where there is none."""
        self.breaker = Breaker(now)
        self.told_until = 0
        """Until when the receiver has told it to wait, by Retry-After."""
        self.told_why = ""
        self.told_here = True
        """It has told this daemon, and not another one."""
        self.by_hand = False
        """One is wanted now, whatever the throttle says."""
        self.probing = False
        """A probe was chosen, and it is not known yet how it ends."""
        self.probe: int | None = None
        """Its task, once it is claimed."""

    def limit(self, rate: RateLimit | None) -> None:
        """Count by this limit from now on; by none for None."""
        if rate is None:
            self.window = None
        elif self.window is None:
            self.window = RateWindow(rate)
        elif self.window.limit != rate:
            self.window.adopt(rate)

    def idle(self, now: int) -> bool:
        """True where the lane needs no throttle any more."""
        return (
            self.window is None
            and not self.probing
            and self.told_until <= now
            and self.breaker.quiet(now)
        )

    def probes_only(self, now: int) -> bool:
        """True where only a probe may pass."""
        return self.breaker.opened_at is not None or self.told_until > now

    def room(self, now: int) -> int:
        """How many may be claimed now."""
        room = ANY
        if self.probes_only(now):
            if self.probing or not (self.by_hand or self._probe_at(now) <= now):
                return 0
            room = 1
        return room if self.window is None else min(room, self.window.free(now))

    def opens_at(self, now: int) -> int | None:
        """When there is room if nothing happens meanwhile; None where something has to."""
        at = now
        if self.probes_only(now):
            if self.probing:
                return None
            at = now if self.by_hand else self._probe_at(now)
        if self.window is None:
            return at
        free = self.window.next_free(now)
        return None if free is None else max(at, free)

    def take(self, count: int, now: int) -> bool:
        """So many are claimed, of those for which there is room. True where it is a probe."""
        probe = self.probes_only(now)
        if probe:
            self.probing, self.probe, self.by_hand = True, None, False
        if self.window is not None:
            self.window.reserve(count)
        return probe

    def return_token(self, count: int) -> None:
        """So many that were taken do not begin."""
        if self.window is not None:
            self.window.unreserve(count)

    def admits(self, task_id: int, now: int) -> bool:
        """Whether a claimed task may begin: it may have been claimed before only probes might.

        The claim of one that may not is released.
        """
        return task_id == self.probe or not self.probes_only(now)

    def probe_over(self) -> None:
        """The probe has ended, however it did, or was not sent at all."""
        self.probing, self.probe = False, None

    def wait_until(self, until: int, why: str, *, here: bool = True) -> None:
        """The receiver has told it to wait; `here`: it told this daemon, and not another one."""
        if until > self.told_until:
            self.told_until, self.told_why, self.told_here = until, why, here

    def _probe_at(self, now: int) -> int:
        breaker = self.breaker
        if breaker.opened_at is None:
            return self.told_until
        if breaker.next_probe > now + LONGEST_PAUSE_MS:
            breaker.next_probe = now  # the clock was put back
        # Whoever has said when to come back is not asked before.
        return max(breaker.next_probe, self.told_until)
