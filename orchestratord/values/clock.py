"""Time, in one place, so that a test can turn it.

Stored times are whole milliseconds since the Unix epoch, UTC; durations are seconds.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime


class Clock:
    """The wall clock. `orchestratord.testing` has one that stands still until it is turned."""

    def now(self) -> float:
        """Seconds since the Unix epoch."""
        return time.time()

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch, as stored."""
        return int(self.now() * 1000)


def rfc3339(milliseconds: int | None) -> str | None:
    """`2026-11-24T22:00:00.000Z` for a stored time, None for none."""
    if milliseconds is None:
        return None
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{milliseconds % 1000:03d}Z"


def from_rfc3339(text: str) -> int:
    """The stored time of an RFC 3339 text. Raises ValueError for anything else."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone; write it like 2026-11-24T22:00:00Z")
    return round(moment.timestamp() * 1000)
