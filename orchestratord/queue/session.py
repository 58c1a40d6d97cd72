"""What an operation of the queue sees while the writer runs it inside a transaction."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestratord.model.task import Key, Table
from orchestratord.queue.database import Connection
from orchestratord.values.clock import Clock

LEASE = 90.0
"""Seconds for which a claim stands without a word from its daemon, if nothing else is said."""

FRONT = -(1 << 62)
NEVER = 1 << 62


@dataclass(slots=True)
class Session:
    """The writing connection, and who writes."""

    db: Connection
    owner: str
    """Random for this opening of the store; stands in `locked_by`."""
    clock: Clock
    tables: Mapping[str, Table]
    """Those of plugins, by name."""
    leases: Leases
    """For how long claims stand."""
    statements: dict[Any, Any] = field(default_factory=dict)
    """Those that were made for what plugins write, by its shape."""
    moves: Counter[str] = field(default_factory=Counter)
    """By how much each status has more or fewer tasks than before the transaction."""
    due: dict[Key, int] = field(default_factory=dict)
    """What became pending in the transaction: each key, and its earliest `next_try`."""
    successes: dict[str, int] = field(default_factory=dict)
    """Endpoints that had a success in the transaction, and when that call began. They are written
    just before COMMIT: all daemons change the same few rows, and wait for each other there."""
    floors: dict[Key, int] = field(default_factory=dict)
    """Of keys that were claimed from in a database that is shared: before which `next_try` nothing
    was left."""
    told: dict[Key, int] = field(default_factory=dict)
    """What was heard of since."""

    def now(self) -> int:
        """Milliseconds since the epoch."""
        return self.clock.now_ms()

    def moved(self, source: str | None, target: str | None, count: int = 1) -> None:
        """Note that `count` tasks changed their status; None is outside of the table."""
        if count and source != target:
            if source is not None:
                self.moves[source] -= count
            if target is not None:
                self.moves[target] += count

    def succeeded(self, endpoint_id: str, at: int) -> None:
        """Note that a call of an endpoint, which began at `at`, succeeded."""
        if at > self.successes.get(endpoint_id, 0):
            self.successes[endpoint_id] = at

    def lease_until(self) -> int:
        """Until when a claim stands that is made now, by the clock that leases go by."""
        return self.leases.until(self.clock)

    def waits(self, key: Key, next_try: int) -> None:
        """Note that a task of `key` is pending and due at `next_try`."""
        known = self.due.get(key)
        if known is None or next_try < known:
            self.due[key] = next_try
        self.heard(key, next_try)

    def heard(self, key: Key, next_try: int) -> None:
        """A task of `key` is due at `next_try`, which may be before what was claimed last; from any
        thread."""
        if next_try < self.told.get(key, NEVER):
            self.told[key] = next_try

    def floor(self, key: Key) -> int:
        """Before which `next_try` there is nothing to be claimed of a key."""
        told, known = self.told.pop(key, NEVER), self.floors.get(key, FRONT)
        return min(told, known)


# -- How long a claim stands, and by which clock ---------------------------------------------------

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
