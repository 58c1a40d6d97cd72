"""How many attempts of each webhook's deliveries failed lately: the table `webhook_attempts`.

A row is an hour of a webhook. It is counted up in the transaction that settles an attempt, so that
it is right of all daemons together, and after any of them was killed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orchestratord import Delete, Table, Upsert

COUNTS = Table(
    "webhook_attempts",
    {
        "endpoint_id": "TEXT NOT NULL",
        "name": "TEXT NOT NULL",
        "since": "INTEGER NOT NULL",  # times are milliseconds since the epoch
        "until": "INTEGER",  # when it says no more how the webhook fares
        "attempts": "INTEGER",
        "failed": "INTEGER",
    },
    key=("endpoint_id", "name", "since"),
)

HOUR_MS = 3_600_000
COUNTED_MS = 2 * HOUR_MS
"""From the beginning of an hour until it is looked at no more: an hour and what has passed of the
next one are always known."""
_BREATH = 100
"""Rows that are looked at in one go."""

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


class AttemptCounts:
    """Counts attempts by the hour, and deletes the hours that are over."""

    def __init__(self) -> None:
        self._hours: dict[Name, tuple[int, ...]] = {}
        """Of each webhook the hours that have rows, by what is known here."""

    def adopt(
        self,
        names: Collection[Name],
        rows: Iterable[Mapping[str, Any]],
        now: int,
        elsewhere: Collection[str] = (),
    ) -> Iterator[Delete | None]:
        """Compare the rows of the table with the webhooks that are declared; yields which to
        delete, and a None in between for others to have their turn.

        The rows of endpoints that are declared `elsewhere` stay.
        """
        hours: dict[Name, tuple[int, ...]] = {}
        for number, row in enumerate(rows):
            name = row["endpoint_id"], row["name"]
            gone = name not in names and name[0] not in elsewhere
            if gone or (row["until"] or 0) <= now:
                yield Delete(COUNTS.name, _key(name, row["since"]))
            else:
                hours[name] = (*hours.get(name, ()), row["since"])
                if number % _BREATH == _BREATH - 1:
                    yield None
        self._hours = hours

    def count(self, name: Name, now: int, failed: bool) -> tuple[Upsert, list[Delete]]:
        """What has to be written with an attempt that was decided at `now` (milliseconds): what
        counts it, and what deletes the hours that are over."""
        since = now - now % HOUR_MS
        known = self._hours.get(name, ())
        over = [hour for hour in known if hour + COUNTED_MS <= now]
        if over or since not in known:
            self._hours[name] = (*(hour for hour in known if hour not in (since, *over)), since)
        values, add = {"until": since + COUNTED_MS}, {"attempts": 1, "failed": int(failed)}
        counted = Upsert(COUNTS.name, _key(name, since), values, add=add)
        return counted, [Delete(COUNTS.name, _key(name, hour)) for hour in over]


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


def _key(name: Name, since: int) -> dict[str, Any]:
    return {"endpoint_id": name[0], "name": name[1], "since": since}
