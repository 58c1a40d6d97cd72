"""How often something may happen: `100/min`, and the window in which it is counted.

Never more than so many in any minute, not only in those that begin with a full one: the
other side counts in windows of its own, and its windows begin when it likes. What was free for
a while may go at once; a bucket that is filled while it is used would let nearly twice as many
through in one minute.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from orchestratord.values.yaml_value import REFERENCE, YamlValue

_WRITTEN = re.compile(r"(\d{1,7})\s*/\s*(s|sec|second|m|min|minute|h|hour|d|day)", re.ASCII)
_UNITS = {"s": ("s", 1_000), "m": ("min", 60_000), "h": ("h", 3_600_000), "d": ("d", 86_400_000)}
MOST = 1_000_000
"""Times in one unit."""

MOST_AHEAD = 10_000
"""Milliseconds for which one is counted before it begins, at most."""

EXACT = 100
"""Up to so many times are remembered one by one; more are gathered in so many parts of the unit."""


@dataclass(frozen=True, slots=True)
class RateLimit(YamlValue):
    """So many `times` in each `s`, `min`, `h` or `d`."""

    times: int
    unit: str

    json_schema: ClassVar[Mapping[str, Any]] = {
        "anyOf": [
            {
                "type": "string",
                "pattern": r"^\s*\d{1,7}\s*/\s*(s|sec|second|m|min|minute|h|hour|d|day)\s*$",
            },
            REFERENCE,
        ],
        "description": "how often at most: 10/s, 100/min, 500/h, 5000/d",
    }

    @property
    def window(self) -> int:
        """Milliseconds of the unit."""
        return _UNITS[self.unit[0]][1]

    @property
    def is_kept(self) -> bool:
        """Whether what began is always counted in the queue: a day outlasts a daemon, and what
        `retention` leaves of its attempts."""
        return self.unit == "d"

    @property
    def margin(self) -> int:
        """Milliseconds for which each time counts longer than the unit. The way to the other side
        takes one request longer than another, which must not bring too many into its window: half
        of the margin is for that, and by the other half one may begin later than it is counted."""
        return 50 if self.unit == "s" else 1_000

    def __str__(self) -> str:
        return f"{self.times}/{self.unit}"

    @classmethod
    def parse(cls, value: Any) -> RateLimit:
        """Read `10/s`, `100/min`, `500/h` or `5000/d`. Raises ValueError for anything else."""
        match = _WRITTEN.fullmatch(value.strip()) if isinstance(value, str) else None
        if match is None or not 1 <= int(match[1]) <= MOST:
            raise ValueError(
                f"{value!r} is not a rate limit: write a whole number of times a second, minute, "
                "hour or day, such as 10/s, 100/min or 5000/d"
            )
        return cls(int(match[1]), _UNITS[match[2][0]][0])


class RateWindow:
    """What began within the last unit of a limit, and what is about to begin.

    It knows of one daemon's doings. Where several share a limit, who counts for all of them says by
    `used_up` that there is nothing left, whatever is counted here. Times are milliseconds since the
    epoch.
    """

    __slots__ = ("_back", "_grid", "_length", "_stamps", "_used_up", "limit", "reserved", "used")

    def __init__(self, limit: RateLimit, stamps: Iterable[Sequence[int]] = ()) -> None:
        """`stamps`: pairs of a time and how many began then, as of `stamps` elsewhere."""
        self.used = 0
        """How many began and count still, as of the last look."""
        self.reserved = 0
        """How many are about to begin."""
        self._stamps: deque[list[int]] = deque()
        """Pairs of a time and how many began then."""
        self._used_up = 0
        self.adopt(limit)
        for at, count in stamps:
            self.charge(count, at)

    def adopt(self, limit: RateLimit) -> None:
        """Count by another limit from now on; what began before stays counted."""
        self.limit = limit
        self._length = limit.window + limit.margin
        self._grid = 1 if limit.times <= EXACT else limit.window // EXACT
        self._back = 0
        if limit.is_kept:  # its parts are so long that their ends would look like a wrong clock's
            self._back = self._grid - 1
            self._length += self._back

    def count(self, now: int) -> int:
        """How many began and count still."""
        self._expire(now)
        return self.used

    def free(self, now: int) -> int:
        """How many may be reserved now."""
        self._expire(now)
        return 0 if now < self._used_up else max(self.limit.times - self.used - self.reserved, 0)

    def next_free(self, now: int) -> int | None:
        """When at least one may be reserved; None where what is reserved has to begin before."""
        self._expire(now)
        left = self.used + self.reserved - self.limit.times
        if left < 0:
            return max(now, self._used_up)
        for at, count in self._stamps:
            left -= count
            if left < 0:
                return max(at + self._length, self._used_up)
        return None

    def stamps(self, now: int) -> list[list[int]]:
        """What counts still: pairs of a time and how many began then, for `charge` elsewhere."""
        self._expire(now)
        return [list(stamp) for stamp in self._stamps]

    def used_up(self, until: int) -> None:
        """Others have taken what is left until then; what was said of it before is out of date."""
        self._used_up = until

    def reserve(self, count: int) -> None:
        """So many are about to begin."""
        self.reserved += count

    def begin(self, now: int) -> None:
        """One that was reserved begins."""
        self.return_token(1, now)
        self.charge(1, now)

    def charge(self, count: int, now: int) -> None:
        """So many begin; also more than are free, as when it is learnt of what went before."""
        at = now + self._grid - 1 - now % self._grid - self._back
        last = self._stamps[-1] if self._stamps else None
        if last is not None and last[0] >= at:  # later is on the safe side
            last[1] += count
        else:
            self._stamps.append([at, count])
        self.used += count

    def return_token(self, count: int, now: int, since: int | None = None) -> None:
        """So many that were reserved do not begin, or so many that began at `since` came to
        nothing.

        Of those that began the oldest are struck out instead, which lets nothing through too early;
        where those of `since` count no longer, none.
        """
        if since is None:
            # A limit that came with a reload has not seen what was reserved before it.
            self.reserved = max(self.reserved - count, 0)
            return
        self._expire(now)
        if now - since >= self._length:
            return
        while count > 0 and self._stamps:
            first = self._stamps[0]
            struck = min(count, first[1])
            first[1] -= struck
            self.used -= struck
            count -= struck
            if not first[1]:
                self._stamps.popleft()

    def postpone(self, since: int, now: int, until: int) -> int:
        """Count one from `until`, when it begins at the latest, and no longer from `since`.

        Returns 0; or, where that counts no longer and nothing is free, in how many milliseconds to
        ask again.
        """
        if now - since < self.limit.window:
            self.return_token(1, now, since)
        elif not self.free(now):
            return max((self.next_free(now) or 0) - now, 1)
        self.charge(1, until)
        return 0

    def shift(self, by: int) -> None:
        """The clock was moved by so many milliseconds: what began is as long ago as before."""
        for stamp in self._stamps:
            stamp[0] += by
        self._used_up += by

    def _expire(self, now: int) -> None:
        stamps = self._stamps
        if stamps and stamps[-1][0] > now + self._grid + MOST_AHEAD:
            # The clock was put back: what lies ahead of it would count for as long as it was.
            for stamp in stamps:
                stamp[0] = min(stamp[0], now)
        if self._used_up > now + self._length:
            self._used_up = now
        while stamps and stamps[0][0] + self._length <= now:
            self.used -= stamps.popleft()[1]
