"""What an operation of the queue sees while the writer runs it inside a transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestratord.clock import Clock
from orchestratord.queue.database import Connection
from orchestratord.queue.leases import Leases
from orchestratord.task import Key, Table

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
