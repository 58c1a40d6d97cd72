"""A breaker: whether a receiver, an endpoint or a webhook is down, and when it is tried meanwhile.

What fails to connect speaks of the receiver, which is the lane. A timeout after that, a 5xx, an
answer that was lost speak of the endpoint or webhook alone, which has a breaker of its own. But
where the breakers of all keys of a lane are open that were tried of late, it is the receiver again:
the lane's opens. Keys that are tried too rarely for one of their own, and of which nothing at all
was answered, count for that as one.

It opens where nearly everything has failed lately, and not where much has: a receiver that answers
one of five has retries for that. While it is open single attempts, the probes, find out whether
the receiver is back; pauses between them grow. The first one that is answered closes it.

A failure is no answer, or one that speaks of the server: 5xx but for 501. Whatever else is
answered, 4xx and 429 too, shows that the receiver is there.
"""

from __future__ import annotations

from orchestratord.model.endpoint import LASTING_MS, BreakerRule
from orchestratord.model.outcome import Outcome, is_down_code

WINDOW_MS = 120_000
"""Over how long attempts are counted: between one and two of its halves."""
LEAST = 20
"""Attempts before it opens; a receiver that hangs until the timeout has twice its lane's 10. This
and the window are what `BreakerRule` says by default."""
SHARE = 0.9
"""Of them that have failed."""
FIRST_PAUSE_MS = 500
"""Before the first probe; then it doubles, …"""
STEADY_PAUSE_MS = 10_000
"""… up to this."""
PART = 60
"""Where the receiver is down for longer, the pause is this part of how long that is already."""
LONGEST_PAUSE_MS = 30_000
"""Between two probes, and so about the longest that a receiver is back unnoticed."""


def is_down(outcome: Outcome) -> bool:
    """Whether an attempt that was sent speaks of a receiver that is down."""
    if outcome.verdict == "success":
        return False
    # One that is final is about the request, as where a database refuses a statement.
    return is_down_code(outcome.status_code) and (
        isinstance(outcome.status_code, int) or outcome.verdict == "retry"
    )


class Breaker:
    """Of one lane, endpoint or webhook. Times are milliseconds since the epoch."""

    __slots__ = tuple(
        "_answered _before _began _failed _pause _since _window by_keys failing_since next_probe "
        "opened_at probes why".split()
    )

    def __init__(self, now: int) -> None:
        self.opened_at: int | None = None
        """Since when it is open; None while it is closed."""
        self.failing_since = 0
        """From when on failures count for that it opened; what has failed since comes forward when
        it closes."""
        self.why = ""
        """The last failure, in words."""
        self.next_probe = 0
        """When a probe may go, while it is open."""
        self.probes = 0
        """That have failed since it opened."""
        self.by_keys = False
        """A lane's, which is open since those of all its keys are: to connect is not enough."""
        self._window = WINDOW_MS
        self._pause = 0
        self._failed = self._answered = 0
        self._before = (0, 0)
        """What failed and was answered in the half before."""
        self._began = now
        """Of the present half."""
        self._since = 0
        """When the first of those failed that are counted."""

    @property
    def failures(self) -> int:
        """Attempts that failed, within the window."""
        return self._failed + self._before[0]

    def answers(self, now: int) -> int:
        """Attempts that were answered, within the window."""
        self._turn(now)
        return self._answered + self._before[1]

    def quiet(self, now: int) -> bool:
        """True where it is closed and nothing has failed within the window."""
        self._turn(now)
        return self.opened_at is None and self.failures == 0

    def answered(self, now: int) -> bool:
        """An attempt was answered. True where that closes it."""
        if self.opened_at is not None:
            self.opened_at, self.probes, self.by_keys = None, 0, False
            # Nothing of before counts.
            self._failed = self._answered = 0
            self._before, self._began = (0, 0), now
            return True
        self._turn(now)
        self._answered += 1
        return False

    def count(self, now: int, why: str, rule: BreakerRule | None = None) -> bool:
        """An attempt that was no probe failed. True where it is to open, by `rule`."""
        if self.opened_at is not None:
            return False  # it was under way already
        least, lasting = LEAST, LASTING_MS
        if rule is not None and rule.model_fields_set:
            least, lasting = rule.failures, rule.lasting_ms
            self._window = round(rule.window * 1000)
        self._turn(now)
        failures = self.failures + 1
        if failures == 1 or now < self._since:
            self._since = now
        self._failed += 1
        self.why = why
        if failures < least or now - self._since < lasting:
            return False
        return failures >= SHARE * (failures + self._answered + self._before[1])

    def open(self, now: int, since: int, why: str, *, by_keys: bool = False) -> None:
        """It is open since then; the first probe goes soon."""
        self.opened_at, self.why, self.by_keys = since, why, by_keys
        self.failing_since = since - self._window
        self._pause = FIRST_PAUSE_MS
        self.next_probe = now + self._pause

    def probe_failed(self, now: int, why: str) -> None:
        """The next one goes after a longer pause."""
        self.why = why
        self.probes += 1
        self._pause = min(2 * self._pause, STEADY_PAUSE_MS)
        lasted = now - self.opened_at if self.opened_at is not None else 0
        self.next_probe = now + min(max(self._pause, lasted // PART), LONGEST_PAUSE_MS)

    def shift(self, by: int) -> None:
        """The clock was moved by so many milliseconds: all is as long ago as before."""
        self.next_probe += by
        self._began += by
        self._since += by
        self.failing_since += by
        if self.opened_at is not None:
            self.opened_at += by

    def _turn(self, now: int) -> None:
        """Begin another half where this one is over, or the clock was put back."""
        passed = now - self._began
        if 0 <= passed < self._window // 2:
            return
        self._before = (self._failed, self._answered) if 0 <= passed < self._window else (0, 0)
        self._failed = self._answered = 0
        self._began = now
