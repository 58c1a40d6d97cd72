"""What an operation of the queue sees while the writer runs it inside a transaction."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestratord.model.task import Key, Table, Task
from orchestratord.queue.connection import Connection, ManyRows
from orchestratord.queue.records import Claimed, Pick
from orchestratord.values.clock import Clock
from orchestratord.values.rate_limit import RateLimit

LEASE = 90.0
"""Seconds for which a claim stands without a word from its daemon, if nothing else is said."""


SUCCESS = ManyRows(
    """
INSERT OR ROLLBACK INTO endpoint_state (endpoint_id, last_success_at) VALUES {rows}
ON CONFLICT (endpoint_id) DO UPDATE SET last_success_at = excluded.last_success_at
WHERE excluded.last_success_at > COALESCE(endpoint_state.last_success_at, 0)
""",
    "text",
    "bigint",
)


@dataclass(slots=True)
class Session(ABC):
    """The writing connection, and who writes. How each database claims is its session's."""

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

    def write_successes(self) -> None:
        """Write what was noted of successes. Raises Singly."""
        SUCCESS.run(self.db, sorted(self.successes.items()))

    def begin(self, committed: bool) -> None:
        """Forget what was noted for the last transaction; `committed`: whether that was."""
        self.moves, self.due, self.successes = Counter(), {}, {}

    # -- what each database does in its own way ------------------------------------------------

    @abstractmethod
    def claim(self, picks: Sequence[Pick]) -> Claimed:
        """Take up to so many due tasks of each key."""

    @abstractmethod
    def reclaim(self, held: Collection[int]) -> tuple[int, list[Task]]:
        """Take over what other owners held and have lost: how many claims had not started and are
        pending again, and a page of those that had, which are ours now.

        `held`: the tasks that we know to hold; they stay as they are.
        """

    def renew(self, held: Collection[int]) -> int:
        """Renew the leases of tasks that we hold, as far as they need it; how many did."""
        return 0

    def charge_past(self, past: Mapping[str, tuple[RateLimit, Sequence[int]]]) -> None:  # noqa: B027  # not every database has that
        """Charge lanes whose rate daemons keep together with what began before any of them did.

        `past`: of each lane its limit, and when attempts began (milliseconds), in ascending order.
        Nothing happens to lanes that others have charged lately.
        """

    def heard(self, key: Key, next_try: int) -> None:  # noqa: B027  # not every database has that
        """A task of `key` is due at `next_try`, which may be before what was claimed last; from any
        thread."""


# -- What tells a claim of ours from another -------------------------------------------------------

RUNNING = "retry_schedule.status || '' = 'running'"
"""So that rows whose ids are known are found by these: to PostgreSQL the index of what runs looks
shorter, and is full of entries that are dead and cannot be removed yet."""

HELD = f"id = ? AND {RUNNING} AND locked_by = ? AND attempts = ?"
"""The fence: true while a claim stands. Parameters from `fence`."""

RELEASE_CLAIM = """
UPDATE retry_schedule
SET status = CASE WHEN cancel_requested = 1 THEN 'cancelled' ELSE 'pending' END,
    next_try = CASE WHEN cancel_requested = 1 THEN NULL ELSE next_try END,
    finished_at = CASE WHEN cancel_requested = 1 THEN CAST(? AS bigint) END,
    attempts = attempts - 1, started_at = NULL, locked_by = NULL, lease_until = NULL,
    cancel_requested = 0, updated_at = ?
"""


def fence(task: Task) -> tuple[int, str | None, int]:
    """What `HELD` compares."""
    return task.id, task.locked_by, task.attempts


def turn(task: Task) -> tuple[int, int]:
    """What the tasks of a key are in order by."""
    return task.next_try or 0, task.id


# -- How long a claim stands, and by which clock ---------------------------------------------------

LOOK_BACK_MS = 10_000
"""How long before the last look a lease may have run out, to be found by the next one: a claim may
reach the database late."""
ALL_EACH = 300.0
"""Seconds between two looks at all of them, however long ago they ran out."""


class Leases:
    """The lease of one daemon's claims: how long they stand, and by which clock.

    One file has one daemon, and its clock is good enough. Where daemons share a database they go by
    the clock of that: each knows how far its own is from it, as of the last time that it asked.
    """

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
