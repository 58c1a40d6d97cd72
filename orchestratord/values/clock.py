"""Time, in one place: the time that the daemon goes by, without the jumps of a clock.

Stored times are whole milliseconds since the Unix epoch, UTC; durations are seconds.

A machine's clock can be wrong for some seconds, by an hour or by years: a virtual machine that was
resumed, a server of time that lied, a person. What is written with such a time is wrong until that
time comes, and what is deleted or given up by it does not come back. So the daemon measures how
much time passes by a clock that cannot be set, and takes a jump of the wall clock for what it says
only once that has lasted: backwards soon, since nothing is lost by waiting; forwards later.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Literal, overload

from orchestratord.values import world
from orchestratord.values.durations import MAX_DURATION

APART = 2.0
"""Seconds by which a clock may be moved at once: what NTP does in order is less."""
NEAR = 0.0005
"""Seconds within which two readings of two clocks say the same."""
BACK_AFTER = 5.0
"""Seconds for which a clock that was put back has to have stood so, to be followed; at the start of
the daemon the same, before anything is done about times that lie ahead of it."""
FORWARD_AFTER = 60.0
"""Seconds for a clock that was put forward: what is due, expires and is deleted goes by it then."""
REMEMBERED = 20
"""Jumps forward that are remembered."""

_CALENDAR = -62_135_596_800, 253_402_300_799
"""The first second of the year 1, and the last one of 9999."""
_BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class ClockChange:
    """What became of a clock that jumped.

    Args:
        what: it `jumped`, and is not followed yet; it has `returned` to what it was; or the jump
            has lasted, and it is `followed`.
        by: seconds, negative for one that was put back.
        takes_back: whether all of it had been put forward before, and followed.
    """

    what: Literal["jumped", "returned", "followed"]
    by: float
    takes_back: bool = False


class Clock:
    """The time that the daemon goes by: the machine's, or the database's where daemons share one.

    `orchestratord.testing` has one that stands still until it is turned.
    """

    def __init__(self) -> None:
        self._base = _wall_ahead()
        """What is in force is ahead of `elapsed` by so much."""
        self._database: float | None = None
        """How far the database's clock was ahead of it; None where the machine's counts."""
        self._jump: tuple[float, float] | None = None
        """How far the clock is off that jumped and is not followed, and since when."""
        self.is_behind_mark = False
        """Whether it began before the time at which an earlier daemon made its last mark."""
        self._skipped: list[tuple[int, int]] = []
        """Jumps forward that were followed: the time before each, and by how much (milliseconds).
        """

    # -- what time it is -------------------------------------------------------------------------

    def now(self) -> float:
        """Seconds since the Unix epoch; from any thread. A small step of the clock that counts is
        taken with the next `look`."""
        return world.elapsed() + self._base

    def now_ms(self) -> int:
        """Milliseconds since the epoch, as stored."""
        # Not by `now`: it is asked for all the time.
        return int((world.elapsed() + self._base) * 1000)

    def steady(self) -> float:
        """Seconds of a clock that only goes forward, for how long something lasts."""
        return world.elapsed()

    def skipped_since(self, since: int) -> int:
        """How much of the time since then (milliseconds) has not passed, but was jumped over."""
        return sum(by for at, by in self._skipped if since <= at)

    def before(self, seconds: float) -> int:
        """The time (milliseconds) so many seconds ago; what was jumped over does not count. While
        the clock stands behind the time in force, others may go by it already, and it counts."""
        then = self.now_ms() + round((min(self._source() - self._base, 0.0) - seconds) * 1000)
        for at, by in reversed(self._skipped):
            if then < at + by:
                then -= by
        return then

    # -- the clocks that it goes by --------------------------------------------------------------

    @property
    def source(self) -> Literal["machine", "database"]:
        """Whose clock counts."""
        return "machine" if self._database is None else "database"

    @property
    def machine_ahead(self) -> float:
        """By how many seconds the machine's clock is ahead of the time in force."""
        return _wall_ahead() - self._base

    @property
    def in_doubt(self) -> bool:
        """Whether the clock has jumped, and is not followed; from any thread."""
        return self._jump is not None or abs(self._source() - self._base) >= APART

    def asked(self, now: int, took: float = 0.0) -> None:
        """The database said that it is `now` (milliseconds), within `took` seconds: it is its clock
        that counts from here on. From any thread."""
        first, ahead = self._database is None, now / 1000 + took / 2 - world.elapsed()
        if abs(ahead - self._base) <= took / 2 + 0.001:
            # As near as the answer can tell (Cristian's algorithm, 1989): following it would set
            # daemons apart whose clocks agree.
            ahead = self._base
        self._database = ahead
        if first or abs(ahead - self._base) < APART:
            self._base = ahead

    def look(self) -> ClockChange | None:
        """Follow the clock, but for its jumps; to be called about once a second. What has become of
        one since the last look, None for nothing."""
        moment, source = world.elapsed(), self._source()
        off, jump = source - self._base, self._jump
        if abs(off) < APART:
            if abs(off) >= NEAR:
                self._base = source
            self._jump = None
            return None if jump is None else ClockChange("returned", jump[0])
        if jump is None or abs(off - jump[0]) >= APART:
            self._jump = off, moment
            return ClockChange("jumped", off)
        if moment - jump[1] < (FORWARD_AFTER if off > 0 else BACK_AFTER):
            return None
        put_forward = sum(by for _, by in self._skipped)
        self._note(int((moment + self._base) * 1000), round(off * 1000))
        self._base, self._jump = source, None
        return ClockChange("followed", off, takes_back=-off <= put_forward / 1000 + APART)

    def _source(self) -> float:
        """By how much the clock that counts is ahead of `elapsed`."""
        return _wall_ahead() if self._database is None else self._database

    def _note(self, at: int, by: int) -> None:
        """The clock is followed, `by` milliseconds from `at` on."""
        if by > 0:
            self._skipped = [*self._skipped, (at, by)][-REMEMBERED:]
        while by < 0 and self._skipped:  # what was jumped over comes after all
            *others, (then, skipped) = self._skipped
            by += skipped
            self._skipped = [*others, (then, by)] if by > 0 else others

    # -- over a restart --------------------------------------------------------------------------

    def mark(self) -> str:
        """What `resume` needs."""
        moment = world.elapsed()
        found = {"boot": _boot(), "elapsed": moment, "now": moment + self._base}
        return json.dumps({**found, "skipped": self._skipped})

    def resume(self, mark: str) -> None:
        """Go on with the time of an earlier daemon, by the last mark that it made: a clock that
        jumped while none ran is told from one that went on, until the machine starts again."""
        try:
            found = json.loads(mark)
            boot, base = found["boot"], float(found["now"]) - float(found["elapsed"])
            skipped = [(int(at), int(by)) for at, by in found["skipped"]]
        except (ValueError, TypeError, KeyError):
            return
        self._skipped = skipped
        if boot and boot == _boot():
            self._base = base
        self.is_behind_mark = float(found["now"]) > self.now() + APART


def _wall_ahead() -> float:
    """By how much the machine's clock is ahead of `elapsed`."""
    # Another thread may have its turn between two readings: of three tries, the shortest counts.
    return min(_compared() for _ in range(3))[1]


def _compared() -> tuple[float, float]:
    """How long it took to read both clocks, and by how much the machine's is ahead."""
    before, wall, after = world.elapsed(), world.time(), world.elapsed()
    return after - before, wall - (before + after) / 2


def _boot() -> str:
    try:
        return _BOOT.read_text(encoding="ascii").strip()
    except OSError:
        return ""


@overload
def rfc3339(milliseconds: int) -> str: ...
@overload
def rfc3339(milliseconds: int | None) -> str | None: ...
def rfc3339(milliseconds: int | None) -> str | None:
    """`2026-11-24T22:00:00.000Z` for a stored time, None for none; the nearest that a calendar has
    for one before its first year or after its last."""
    if milliseconds is None:
        return None
    return f"{_second_text(milliseconds // 1000)}.{milliseconds % 1000:03d}Z"


@lru_cache(maxsize=64)
def _second_text(second: int) -> str:
    """All that happens in one second shares this."""
    second = min(max(second, _CALENDAR[0]), _CALENDAR[1])  # a list shows whatever stands in a row
    return datetime.fromtimestamp(second, UTC).replace(tzinfo=None).isoformat()


def from_rfc3339(text: str) -> int:
    """The stored time of an RFC 3339 text. Raises ValueError for anything else."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone; write it like 2026-11-24T22:00:00Z")
    return round(moment.timestamp() * 1000)


def parse_first_try(text: object) -> int:
    """The stored time of an RFC 3339 text that says when a first try is due.

    Raises ValueError: it is no time, or more than ten years ahead.
    """
    try:
        found = from_rfc3339(text) if isinstance(text, str) else None
    except ValueError:
        found = None
    if found is None:
        raise ValueError("expected a time with its zone, such as 2026-11-24T22:00:00Z")
    return first_try(found)


def first_try(milliseconds: float) -> int:
    """The stored time of a first try. Raises ValueError where it is more than ten years ahead."""
    if milliseconds / 1000 > world.time() + MAX_DURATION:
        raise ValueError("is more than ten years ahead")
    return round(max(milliseconds, 0))
