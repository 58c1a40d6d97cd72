"""Rates that all daemons keep together: of each lane, what began lately, charged as it is claimed.

A row for each lane is locked from the look at what is free until the COMMIT of the claim, so that
nobody else takes the same. Who finds it locked claims nothing of the lane for now, and does not
wait: the other one may have been cut off in the middle. Times are by the database's clock.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from orchestratord.queue.connection import Connection
from orchestratord.queue.records import Pick
from orchestratord.queue.session import Session
from orchestratord.values.rate_limit import RateLimit, RateWindow

MAKE = "INSERT INTO rates (lane, stamps) VALUES (?, '[]') ON CONFLICT DO NOTHING"
LOOK = "SELECT stamps FROM rates WHERE lane = ?"
LOCK = f"{LOOK} FOR UPDATE SKIP LOCKED"  # no values
CHARGE = "UPDATE rates SET stamps = ? WHERE lane = ?"
BUSY_MS = 20
"""When to look again at a lane from which somebody else is just claiming."""

NOW = "SELECT lane, stamps, (extract(epoch FROM clock_timestamp()) * 1000)::bigint FROM rates"


def charged(db: Connection) -> dict[str, tuple[int, list[list[int]]]]:
    """Of each lane: the time by the database's clock, and what began lately, pairs of a time and
    how many."""
    return {lane: (now, json.loads(stamps)) for lane, stamps, now in db.all(NOW)}


def charge_past(session: Session, past: Mapping[str, tuple[RateLimit, Sequence[int]]]) -> None:
    """Charge lanes that count nothing any more with what began before, by the attempts of the
    queue: it was moved here, or its daemons had no such limit.

    `past`: of each lane its limit, and when attempts began, in ascending order.
    """
    now = session.leases.now(session.clock)
    for lane, (limit, times) in sorted(past.items()):
        window = _locked(session, lane, limit)
        if window is None or window.stamps(now):
            continue  # who has charged it has done this before
        for at in times:
            window.charge(1, at)
        session.db.run(CHARGE, (json.dumps(window.stamps(now)), lane))


def _locked(session: Session, lane: str, limit: RateLimit) -> RateWindow | None:
    """What of a lane began lately; nobody else charges it before the COMMIT. None where somebody
    else is just doing that."""
    row = session.db.one(LOCK, (lane,))
    if row is None and session.db.one(LOOK, (lane,)) is None:
        session.db.run(MAKE, (lane,))
        row = session.db.one(LOCK, (lane,))
    if row is None:
        return None
    window = RateWindow(limit)
    for at, count in json.loads(row[0]):
        window.charge(count, at)
    return window


class Rates:
    """The rates of one claim."""

    def __init__(self, session: Session, picks: Iterable[Pick]) -> None:
        """Lock the lanes of `picks` that have a rate limit, where nobody else has."""
        self._session = session
        self._now = session.leases.now(session.clock)
        self._windows: dict[str, RateWindow] = {}
        limits = {pick.lane: pick.rate for pick in picks if pick.rate is not None}
        self._busy: set[str] = set()
        for lane, limit in sorted(limits.items()):
            window = _locked(session, lane, limit)
            if window is None:
                self._busy.add(lane)
            else:
                self._windows[lane] = window

    def bounded(self, picks: Sequence[Pick]) -> list[Pick]:
        """The picks, with no more of each lane than is free."""
        left = {lane: window.free(self._now) for lane, window in self._windows.items()}
        left |= dict.fromkeys(self._busy, 0)
        found = []
        for pick in picks:
            if pick.lane in left:
                limit = min(pick.limit, left[pick.lane])
                left[pick.lane] -= limit
                pick = replace(pick, limit=limit)
            found.append(pick)
        return found

    def charge(self, claimed: Iterable[tuple[Pick, int]]) -> dict[str, int]:
        """Write down how many were claimed of each. Lanes with nothing left, and for how many
        milliseconds that is so."""
        for pick, count in claimed:
            if pick.lane in self._windows and count:
                self._windows[pick.lane].charge(count, self._now)
        used_up = dict.fromkeys(self._busy, BUSY_MS)
        for lane, window in self._windows.items():
            self._session.db.run(CHARGE, (json.dumps(window.stamps(self._now)), lane))
            if not window.free(self._now):
                used_up[lane] = max((window.next_free(self._now) or 0) - self._now, 1)
        return used_up
