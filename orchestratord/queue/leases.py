"""How long a claim stands, and by which clock.

One file has one daemon, and its clock is good enough. Where daemons share a database they go by
the clock of that: each knows how far its own is from it, as of the last time that it asked.
"""

from __future__ import annotations

import time

from orchestratord.clock import Clock

LOOK_BACK_MS = 10_000
"""How long before the last look a lease may have run out, to be found by the next one: a claim may
reach the database late."""
ALL_EACH = 300.0
"""Seconds between two looks at all of them, however long ago they ran out."""


class Leases:
    """The lease of one daemon's claims."""

    def __init__(self, seconds: float) -> None:
        """`seconds`: how long a claim stands without a word from its daemon."""
        self.seconds = seconds
        self._looked = 0
        self._all_again = 0.0
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

    def since(self) -> int:
        """From when on (milliseconds) leases may have run out that nobody has taken over."""
        return 0 if time.monotonic() >= self._all_again else self._looked - LOOK_BACK_MS

    def looked(self, now: int) -> None:
        """Of those that `since` began with, none has run out at `now`."""
        if time.monotonic() >= self._all_again:
            self._all_again = time.monotonic() + ALL_EACH
        self._looked = now
