"""How long a claim stands, and by which clock.

One file has one daemon, and its clock is good enough. Where daemons share a database they go by
the clock of that: each knows how far its own is from it, as of the last time that it asked.
"""

from __future__ import annotations

import time

from orchestratord.clock import Clock


class Leases:
    """The lease of one daemon's claims."""

    def __init__(self, seconds: float) -> None:
        """`seconds`: how long a claim stands without a word from its daemon."""
        self.seconds = seconds
        self.looked = 0
        """Up to when (milliseconds) every lease that had run out was taken over."""
        self._database: tuple[int, float] | None = None

    def asked(self, now: int) -> None:
        """The database's clock stands at `now` (milliseconds)."""
        self._database = (now, time.monotonic())

    def now(self, clock: Clock) -> int:
        """Milliseconds since the epoch, by the clock that leases go by."""
        if self._database is None:
            return clock.now_ms()
        then, at = self._database
        return then + int((time.monotonic() - at) * 1000)

    def until(self, clock: Clock) -> int:
        """When the lease of a claim runs out that is made now."""
        return self.now(clock) + round(self.seconds * 1000)
