"""The pace of what is overloaded: halved when it is said, and back step by step, as TCP has it.

A receiver that answers 429 or 503 takes less than it is sent. What it took of late is known; half
of that is sent from then on. The pace is back at nearly that much within a third of a second, since
most of what was asked for was served; then it grows slowly for three seconds, and where still
nothing is refused it doubles with each second. So the pace stays close below what the receiver
serves, and finds out soon when that is more.

It grows with what is sent and not with the time: a pace that is not used says nothing of what the
receiver would take. Tasks begin evenly spaced, in lots of what goes within 20 ms, since each claim
has its price.
"""

from __future__ import annotations

RECOVER_MS = 300.0
"""Of sending, until the pace is back at `NEARLY` of what was served."""
NEARLY = 0.95
STEADY_MS = 3_000.0
"""Of sending after that, until it is back at all of what was served."""
DOUBLE_MS = 1_000.0
"""Of sending after that, in which it doubles, again and again."""
SURE_MS = 1_000
"""What was served is known once it was counted for so long; the pace doubles at once else."""
LOT_MS = 20.0
"""What goes within this time is claimed together."""
LATE_MS = 100.0
"""What would have begun within this time is made up for."""
SLOWEST = 1.0
"""Tasks a second, however often it is refused."""
IN_VAIN = 16
"""At this part of what was served first it cannot be what it is sent that is too much …"""
IN_VAIN_TIMES = 3
"""… where so many refusals, one after the other, have halved it there, or at the slowest, …"""
IN_VAIN_AFTER_MS = 5_000
"""… once it has been slowed for so long."""
IN_VAIN_MS = 60_000
"""For how long it is sent all then, whatever it refuses."""
GENTLE = 10.0
"""Tasks a second to begin with at least, where a breaker has closed or a hold has ended."""
ROOM_LEFT_MS = 300
"""For how long room has to be left."""
QUIET_MS = 2_000
"""Without a refusal and with room left, until what refusals have put off comes forward; each time
it has to be twice as long, for it may be one task that is refused again and again."""
FORGOTTEN = 20.0
"""Times what was served: so much more is taken by now that no pace is needed."""
FORGOTTEN_MS = 60_000
"""After which it is not needed either, if it was never overloaded meanwhile."""


class Pace:
    """How many tasks may begin in a second. Times are milliseconds since the epoch."""

    __slots__ = (
        "_age", "_began", "_estimated_at", "_first", "_in_vain", "_next", "_start", "_sure",
        "reduced_at", "served",
    )  # fmt: skip

    def __init__(self, now: int, served: float, *, sure: bool, start: float) -> None:
        """
        Args:
            now: the time.
            served: how many tasks a second were served of late.
            sure: whether that was counted for a second.
            start: how many a second begin at first.
        """
        self.served = max(served, start)
        self.reduced_at = now
        """When it was halved last: what began before says nothing of the pace since."""
        self._start = start
        self._sure = sure
        self._began = now
        self._first = self.served
        self._in_vain = 0
        """How many refusals in a row have halved it where that was slow already."""
        self._estimated_at = now
        self._age = 0.0
        """Milliseconds of sending since it was halved."""
        self._next = now + 1000 / start
        """When the next one may begin."""

    @classmethod
    def overloaded(cls, now: int, served: float, *, sure: bool, slowest: float = SLOWEST) -> Pace:
        """Of what was unlimited until now; `slowest`: so many a second begin at least."""
        return cls(now, served, sure=sure, start=max(served / 2, slowest))

    @classmethod
    def after_a_pause(cls, now: int, served: float) -> Pace:
        """Of what comes after an open breaker or a hold, and took so many a second before."""
        pace = cls(now, max(served, GENTLE), sure=served > GENTLE, start=max(served / 2, GENTLE))
        pace._next = now
        return pace

    @property
    def rate(self) -> float:
        """How many a second."""
        nearly, age = self.served * NEARLY, self._age
        recover = RECOVER_MS if self._sure else 2 * RECOVER_MS
        if self._start < nearly and age < recover:
            return self._start + (nearly - self._start) * age / recover
        age -= recover
        if self._sure:
            if age < STEADY_MS:
                return nearly + (self.served - nearly) * max(age, 0.0) / STEADY_MS
            age -= STEADY_MS
        return float(self.served * 2 ** min(max(age, 0.0) / DOUBLE_MS, 16.0))

    def refused(
        self, now: int, began: int, served: float, *, sure: bool, slowest: float = SLOWEST
    ) -> bool:
        """One that began at `began` was refused. True where that halves the pace."""
        if began < self.reduced_at <= now:
            return False
        slow = self.rate <= max(self._first / IN_VAIN, 2 * SLOWEST)
        lasts = now - self._began >= IN_VAIN_AFTER_MS
        self._in_vain = self._in_vain + 1 if slow and lasts else 0
        if not 0 <= now - self._estimated_at < SURE_MS:
            # It takes what was served, and at times nearly what it was sent.
            served = max(served, (served + self.rate) / 2, slowest)
            self.served, self._sure, self._estimated_at = served, sure, now
            start = served / 2
        else:
            start = self.rate / 2  # once more, and what was served is still the same
        self._start = max(min(start, self.served), slowest)
        self._age, self.reduced_at = 0.0, now
        self._next = now + 1000 / self._start
        return True

    @property
    def is_in_vain(self) -> bool:
        """Whether it refuses as many of the few that it is sent as of many."""
        return self._in_vain >= IN_VAIN_TIMES

    def over(self, now: int) -> bool:
        """Whether there is no need for it any more."""
        return self.rate >= self.served * FORGOTTEN or not (
            0 <= now - self.reduced_at < FORGOTTEN_MS
        )

    def has_room_left(self, now: int) -> bool:
        """Whether more might have begun for a moment, and nothing was due."""
        return now - self._next >= ROOM_LEFT_MS

    def room(self, now: int) -> int:
        """How many may begin now."""
        apart = 1000 / self.rate
        lot = max(int(LOT_MS / apart), 1)
        if self._next > now + 1000 / SLOWEST:
            self._next = now  # the clock was put back
        following = self._following(now)
        free = int((now - following) / apart) + 1 if now >= following else 0
        return free if free >= lot else 0

    def next_at(self, now: int) -> int:
        """When there is room."""
        apart = 1000 / self.rate
        return max(now, int(self._next + (max(int(LOT_MS / apart), 1) - 1) * apart) + 1)

    def take(self, count: int, now: int) -> None:
        """So many of those for which there is room begin."""
        apart = 1000 / self.rate
        self._next = self._following(now) + count * apart
        self._age += count * apart

    def _following(self, now: int) -> float:
        """When the next one may begin. What was not used is lost, but for a little: the worker
        comes late at times."""
        apart = 1000 / self.rate
        lot = max(int(LOT_MS / apart), 1)
        return max(self._next, now - max((2 * lot - 1) * apart, LATE_MS - apart))

    def return_token(self, count: int) -> None:
        """So many that were taken do not begin."""
        self._next -= count * 1000 / self.rate

    def shift(self, by: int) -> None:
        """The clock was moved by so many milliseconds: all is as long ago as before."""
        self.reduced_at += by
        self._began += by
        self._estimated_at += by
        self._next += by


class Served:
    """What was tried of one key of late, and how much of it was served: in seconds of the clock."""

    __slots__ = ("_before", "_count", "_last", "_second", "at", "down", "refused_at")

    def __init__(self) -> None:
        self.at = 0
        """When one was tried last (milliseconds)."""
        self.down = False
        """The last one failed as if nothing was there."""
        self.refused_at = -(1 << 62)
        """When it was answered last that this is too much."""
        self._second = 0
        self._count = self._before = 0
        self._last = 0
        """Served in the last whole second in which any were."""

    def tried(self, now: int, *, served: bool) -> None:
        """One ended at `now`."""
        second = now // 1000
        if second != self._second:
            self._turn(second)
        self.at = now
        if served:
            self._count += 1

    def was_served(self, now: int) -> None:
        """`tried`, for what was served, as nearly all."""
        second = now // 1000
        if second != self._second:
            self._turn(second)
        self.at, self.down = now, False
        self._count += 1

    def rate(self, now: int) -> tuple[float, bool]:
        """How many a second are served at present, and whether they were for a whole one."""
        second = now // 1000
        if second != self._second:
            self._turn(second)
        left = 1 - now % 1000 / 1000
        return self._count + self._before * left, bool(self._before)

    @property
    def last_rate(self) -> float:
        """How many a second were served when any were."""
        return max(self._last, self._before, self._count)

    def shift(self, by: int) -> None:
        """The clock was moved by so many milliseconds: all is as long ago as before."""
        self.at += by
        self.refused_at += by
        self._second += by // 1000

    def _turn(self, second: int) -> None:
        if self._count:
            self._last = self._count
        self._before = self._count if second == self._second + 1 else 0
        self._second, self._count = second, 0
