"""How many attempts of each webhook's deliveries failed lately: the table `webhook_attempts`.

A row is an hour of a webhook, as one worker counts it. It is counted up in the transaction that
settles an attempt, so that the sum is right after any of them was killed; no transaction waits for
that of another worker.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestratord import Table, Upsert

HOUR_MS = 3_600_000
COUNTED_MS = 2 * HOUR_MS
"""From the beginning of an hour until it is looked at no more: an hour and what has passed of the
next one are always known."""

COUNTS = Table(
    "webhook_attempts",
    {
        "endpoint_id": "TEXT NOT NULL",
        "name": "TEXT NOT NULL",
        "at": "INTEGER NOT NULL",  # when the hour began; times are milliseconds since the epoch
        "until": "INTEGER",  # when it says no more how the webhook fares
        "attempts": "INTEGER",
        "failed": "INTEGER",
        "worker": "TEXT NOT NULL",  # random for each start of one; empty from before version 26
    },
    key=("endpoint_id", "name", "at", "worker"),
    keep=COUNTED_MS / 1000,
)

Name = tuple[str, str]
"""Endpoint and webhook."""


@dataclass(slots=True)
class RecentAttempts:
    """The attempts of one webhook's deliveries in this hour and the last one."""

    since: int
    """Milliseconds since the epoch."""
    attempts: int = 0
    failed: int = 0

    @property
    def success_rate(self) -> float | None:
        """The part of them that succeeded, from 0 to 1; None where there were none."""
        return round(1 - self.failed / self.attempts, 4) if self.attempts else None


def counted(name: Name, worker: str, now: int, *, failed: bool) -> Upsert:
    """What counts an attempt that was decided at `now` (milliseconds)."""
    at = now - now % HOUR_MS
    key = {"endpoint_id": name[0], "name": name[1], "at": at, "worker": worker}
    add = {"attempts": 1, "failed": int(failed)}
    return Upsert(COUNTS.name, key, {"until": at + COUNTED_MS}, add=add)


def recent(rows: Iterable[Mapping[str, Any]], now: int) -> dict[Name, RecentAttempts]:
    """How each webhook fares by the rows of the table; those without attempts are not in it."""
    found: dict[Name, RecentAttempts] = {}
    for row in rows:
        if (row["until"] or 0) > now:
            one = found.setdefault(
                (row["endpoint_id"], row["name"]), RecentAttempts(counted_since(now))
            )
            one.attempts += row["attempts"] or 0
            one.failed += row["failed"] or 0
    return found


def counted_since(now: int) -> int:
    """Since when (milliseconds) attempts are counted that are told at `now`."""
    return now - now % HOUR_MS - COUNTED_MS + HOUR_MS
