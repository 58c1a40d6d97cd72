"""The pace of a lane that refuses more the more it is sent: cut, look, take back.

A receiver that answers 429 or 503 may be overloaded, and then it refuses less where it is sent
less; or it refuses a part of whatever it is sent, and then a slower lane is slow for nothing. Only
a trial tells the two apart. Over windows of a second, while something is due:

- Cut: where more than `TOLERANCE` of it was refused, send what was served and no more.
- Look: where the next window refuses half as much or less, the cut helps and stays.
- Take back: else send as before, and try no cut for half a minute.

A cut that helps is grown back by 2.5 %, 5 %, 10 %, …, with each window that refuses no more, and
cut again where it does: so the lane stays close to what its receiver serves. Where nothing is due
there is no pace. Several daemons at one receiver try it each for itself.

The trial is a micro-experiment of PCC (Dong et al., "PCC: Re-architecting Congestion Control for
Consistent High Performance", NSDI 2015). That there has to be a queue is CoDel's condition (RFC
8289). A cut to what was accepted is the SRE book's ("Handling Overload"). docs/explanation/pace.md
tells it with figures.
"""

from __future__ import annotations

WINDOW_MS = 1_000
"""A receiver's limit is mostly one of a second."""
LONGEST_MS = 10_000
"""A window of a slow lane lasts longer, until it says enough, …"""
LEAST = 100
"""… which are so many answers before a cut, …"""
SURE = 30
"""… and so many refusals after it, had it changed nothing."""
TOLERANCE = 0.05
"""Of the answers, that may be refused beside what a trial has found to be refused anyway."""
LASTING = 2
"""Windows before the one that ends with the first cut: a moment of refusals is no overload."""
FLOOD = 2 / 3
"""Of `LEAST` answers or more: where so many are refused, and not all, the first cut waits for …"""
FLOOD_MS = 100
"""… no longer than this."""
AGAIN_MS = 30_000
"""For how long no cut is tried after one that was in vain."""
GROWTH = 0.025
"""With the first window that refuses no more; twice as much with each that follows, up to the
double."""
LOT_MS = 20.0
"""What begins within this time is claimed together."""
LATE_MS = 100.0
"""What would have begun within this time is made up for."""
QUIET_MS = 10_000
"""Without a refusal, after which nothing of it need be remembered."""
ANY = 1 << 30
"""As many as there are slots."""


class Pace:
    """How many tasks may begin in a second. Times are milliseconds since the epoch."""

    def __init__(self, now: int, served: int = 0) -> None:
        """`served`: how many were served in this second of the clock, before the first refusal."""
        self._free_until = 0
        """Until when no cut is tried."""
        self._base = 0.0
        """The share that is refused at whatever rate, as the last trial has it."""
        self._refused_at = now
        self.end(now)
        self._start = now - now % WINDOW_MS
        self._by_attempt[1] = [served, 0]

    def end(self, now: int) -> None:
        """Nothing is due any more."""
        self.rate: float | None = None
        """How many may begin in a second; None for any number."""
        self.since = now
        """Since when it is so, or since when there is a rate."""
        self._next = float(now)
        """When the next one may begin."""
        self._cut: float | None = None
        """The share that was refused before the cut that is looked at, …"""
        self._old: float | None = None
        """… and the rate before it."""
        self._growth, self._lasted, self._settles = GROWTH, 0, False
        self._begin_window(now)

    def _begin_window(self, now: int) -> None:
        self._start = now
        self._by_attempt: dict[int, list[int]] = {}
        """Of first attempts, second ones and so on: how many were answered, and refused."""

    # -- what the answers say ------------------------------------------------------------------

    def note(self, now: int, began: int, attempt: int, *, refused: bool, due: bool) -> bool:
        """An attempt was answered. True where the rate has become lower.

        Args:
            now: the time.
            began: when it began.
            attempt: its number, from 1.
            refused: the answer was 429 or 503.
            due: others wait for their turn.
        """
        if refused:
            self._refused_at = now
        if not due:
            self.end(now)
        if not due or began < self._start <= now:
            return False  # it says nothing of this rate
        counts = self._by_attempt.setdefault(attempt, [0, 0])
        counts[0] += 1
        counts[1] += refused
        before = self.rate
        self._look_at_window(now, max(now - self._start, 0))
        return self.rate is not None and (before is None or self.rate < before)

    def _look_at_window(self, now: int, passed: int) -> None:
        counts = self._by_attempt.values()
        answers, refused = sum(of for of, _ in counts), sum(bad for _, bad in counts)
        # Who refuses all first attempts, say, does so at any rate: only those count, first or
        # second or later ones, of which some were served.
        some = [(of, bad) for of, bad in counts if bad < of]
        share = sum(bad for _, bad in some) / max(sum(of for of, _ in some), 1)
        flood = passed < WINDOW_MS
        if flood:
            first = self.rate is None and not self._free_until and passed >= FLOOD_MS
            if not (first and answers >= LEAST and share >= FLOOD):
                return
        elif passed < LONGEST_MS and not self._settles:
            enough = answers >= LEAST or refused <= answers * (self._base + TOLERANCE)
            if not (enough if self._cut is None else answers * self._cut >= SURE):
                return
        served = (answers - refused) * 1000 / max(passed, WINDOW_MS)
        if self._settles:
            self._settles = False  # the receiver's own second may hold some of before the cut
        elif self._cut is not None:
            self._look(now, self._cut, share, served)
        else:
            self._decide(now, share, served, answers * 1000 / max(passed, 1), flood=flood)
        self._begin_window(now)

    def _decide(self, now: int, share: float, served: float, begun: float, *, flood: bool) -> None:
        """Cut, or grow: of what has `begun` in a second this share was refused."""
        differs = share > self._base + (1 - self._base) / 4  # from what the trial has found
        if self._free_until and (differs or now >= self._free_until):
            self._free_until, self._base = 0, 0.0
        if share > self._base + TOLERANCE:
            lasts = self.rate is not None or flood or self._lasted >= LASTING
            self._lasted += 1
            # Where nothing is served the receiver is down, which is the breaker's.
            if lasts and served and not self._free_until:
                self._old = self.rate
                self._cut_to(served, share, now)
            return
        self._lasted = 0
        if self.rate is not None:
            # Where half of it is not used, there is no need for it.
            self._set(None if begun < self.rate / 2 else self.rate * (1 + self._growth), now)
            self._growth = min(2 * self._growth, 1.0)

    def _look(self, now: int, cut: float, share: float, served: float) -> None:
        """The window after a cut is over."""
        self._cut, self._growth = None, GROWTH
        if share <= cut / 2:
            self._base = share
        elif share <= cut * 3 / 4 and served:  # it helps, and was not enough
            self._cut_to(served, share, now)
        else:
            self._base = share
            self.take_back(self._old, now)

    def take_back(self, rate: float | None, now: int) -> None:
        """Go on at this rate, and try no cut for a while."""
        self._free_until, self._cut = now + AGAIN_MS, None
        self._set(rate, now)

    def _cut_to(self, served: float, share: float, now: int) -> None:
        self._cut, self._settles = share, share > 0.5
        self._set(max(served, 1.0), now)

    def _set(self, rate: float | None, now: int) -> None:
        if self.rate is None or rate is None:
            self.since, self._next = now, float(now)
        self.rate = rate

    def is_over(self, now: int) -> bool:
        """Whether nothing of it need be remembered."""
        return self.rate is None and not 0 <= now - self._refused_at < QUIET_MS

    def is_idle(self, now: int) -> bool:
        """Whether nothing has begun for a window. What is refused waits for its backoff, and at
        moments nothing is due while the lane is as busy as its rate allows."""
        return now - self._next > WINDOW_MS

    # -- what may begin ------------------------------------------------------------------------

    def room(self, now: int) -> int:
        """How many may begin now."""
        if self.rate is None:
            return ANY
        apart = 1000 / self.rate
        following = self._following(now, apart)
        free = int((now - following) / apart) + 1 if now >= following else 0
        return free if free >= _lot(apart) else 0

    def next_at(self, now: int) -> int:
        """When there is room."""
        apart = 1000 / (self.rate or ANY)
        return max(now, int(self._next + (_lot(apart) - 1) * apart) + 1)

    def take(self, count: int, now: int) -> None:
        """So many of those for which there is room begin."""
        if self.rate is not None:
            apart = 1000 / self.rate
            self._next = self._following(now, apart) + count * apart

    def return_token(self, count: int) -> None:
        """So many that were taken do not begin."""
        if self.rate is not None:
            self._next -= count * 1000 / self.rate

    def _following(self, now: int, apart: float) -> float:
        """When the next one may begin. What was not used is lost, but for a little: the worker
        comes late at times."""
        return max(self._next, now - max((2 * _lot(apart) - 1) * apart, LATE_MS - apart))

    def shift(self, by: int) -> None:
        """The clock was moved by so many milliseconds: all is as long ago as before."""
        self.since += by
        self._start += by
        self._refused_at += by
        self._next += by
        self._free_until += by if self._free_until else 0


def _lot(apart: float) -> int:
    return max(int(LOT_MS / apart), 1)
