"""What is wrong with the daemon at this moment: the one value that says so.

The writing thread notes here how the database is, the watchdog which loop stands still. `/readyz`,
status, metrics, the dashboard and `doctor` read it. What goes by is a `Trouble`; what does not ends
the daemon.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from orchestratord.errors import AWAY
from orchestratord.values import world

RECONNECT_WAIT = 5.0
"""Seconds for which what needs a database waits for it to be back."""


class Code(StrEnum):
    """What is wrong with the database, in one word for programs."""

    FULL = "storage_full"
    UNREACHABLE = AWAY
    LOCKED = "database_locked"
    READ_ONLY = "storage_read_only"
    FAILING = "storage_error"
    DAMAGED = "database_damaged"
    """Does not go by."""
    GONE = "database_gone"
    """Does not go by: the file was deleted, moved or replaced."""


DISK = (Code.FULL, Code.READ_ONLY, Code.FAILING, Code.LOCKED)
"""What a transaction is tried for once a second, until one succeeds."""

STALLED = "_stalled"
"""After the name of a part that stands still: the code of that."""


CLAIMS_FAILING = "claims_failing"
"""The code of a database that answers, and refuses what the worker begins with."""

FATAL = "fatal"
"""The code of what does not go by, until the daemon has ended."""

MEMORY = "memory_exhausted"
"""The code of a process that is given no more memory: the watchdog ends it, if that lasts."""

DATABASE = "database"
"""The part that is the writing thread."""


def is_of_database(code: str) -> bool:
    """Whether a trouble is one of the database, which the loops may be waiting for."""
    return code != MEMORY and (not code.endswith(STALLED) or code == DATABASE + STALLED)


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that keeps the daemon from its work, and goes by."""

    code: str
    why: str
    """One line for a person."""
    since: int
    """Milliseconds since the epoch."""
    refuses: bool = True
    """New work is refused for it, if it is one of `DISK`."""


@dataclass(slots=True)
class DaemonHealth:
    """How the database and the loops are. Written by threads, read by all."""

    beat: float = field(default_factory=lambda: world.monotonic())
    """When the writing thread last went round (`world.monotonic`); at least once a second."""
    writer: int = 0
    """The writing thread, by the kernel's number; 0 before it runs."""
    fatal: str | None = None
    """What does not go by: the watchdog ends the daemon."""
    lost_at: float = 0.0
    """Since when the database cannot be reached (`world.monotonic`)."""
    back_at: float = float("-inf")
    """Since when it can be reached again (`world.monotonic`)."""
    troubles: Mapping[str, Trouble] = field(default_factory=lambda: MappingProxyType({}))
    """By their codes, the oldest first."""
    _lock: world.Lock = field(default_factory=lambda: world.Lock())

    def begin(self, code: str, why: str, *, refuses: bool = True) -> bool:
        """Note a trouble; True where it was not known. `refuses` as in `Trouble`."""
        with self._lock:
            if code in self.troubles:
                return False
            found = Trouble(code, why, int(world.time() * 1000), refuses)
            self.troubles = MappingProxyType({**self.troubles, code: found})
            return True

    def end(self, code: str) -> bool:
        """Note that a trouble is over; True where it was known."""
        with self._lock:
            left = {name: found for name, found in self.troubles.items() if name != code}
            known = len(left) < len(self.troubles)
            self.troubles = MappingProxyType(left)
            return known

    @property
    def accepting(self) -> bool:
        """False while the disk has no room for new work: it is over 95 %, or was full."""
        return Code.FULL not in self.troubles

    @property
    def unreachable(self) -> str | None:
        """Why the database cannot be reached; None while it can."""
        found = self.troubles.get(Code.UNREACHABLE)
        return found.why if found is not None else None

    @property
    def away(self) -> Trouble | None:
        """Why no caller need wait for the database; None where it may be back in a moment."""
        found = self.troubles.get(Code.UNREACHABLE)
        return found if world.monotonic() - self.lost_at > RECONNECT_WAIT else None

    @property
    def refusing(self) -> Trouble | None:
        """What new work is refused for without a try."""
        found = (self.troubles[code] for code in DISK if code in self.troubles)
        return next((trouble for trouble in found if trouble.refuses), self.away)
