"""Limits that all daemons keep together: of each lane, what began lately, charged as it is claimed,
and how many calls of an API run, as its rows say: what a silent daemon holds runs until it is taken
over.

A row for each lane is locked from the look at what is free until the COMMIT of the claim, so that
no other daemon takes the same. On PostgreSQL, one that finds it locked claims nothing of the lane
for now, and does not wait: the other one may have been cut off in the middle. Workers on a file of
SQLite claim one after the other. Times are by the database's clock; a file has that of its machine.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from orchestratord.queue.batch import Rank, writes
from orchestratord.queue.connection import BY_RUNNING, Connection
from orchestratord.queue.records import Pick
from orchestratord.queue.session import Session
from orchestratord.values.rate_limit import RateLimit, RateWindow

# ruff: noqa: S608  # what is pasted here is a hint, never a value

MAKE = "INSERT INTO rates (lane, stamps) VALUES (?, '[]') ON CONFLICT DO NOTHING"
LOOK = "SELECT stamps FROM rates WHERE lane = ?"
CHARGE = "UPDATE rates SET stamps = ? WHERE lane = ?"
Past = Mapping[str, tuple[RateLimit, Sequence[int]]]
"""Of lanes: the limit, and when attempts began (milliseconds), in ascending order."""

BUSY_MS = 20
"""When to look again at a lane from which another daemon is just claiming."""

FULL_MS = 100
"""When to look again whether one more may run in all daemons together."""

AHEAD_MS = 60_000
"""By more than this is ahead only what a clock that was wrong has counted."""

STAMPS = "SELECT lane, stamps FROM rates"

RUNNING = f"""
SELECT count(*) FROM retry_schedule {BY_RUNNING}
WHERE status = 'running' AND webhook = ''
    AND substr(endpoint_id, 1, length(CAST(? AS TEXT))) = CAST(? AS TEXT)
"""


def charged(db: Connection) -> dict[str, tuple[int, list[list[int]]]]:
    """Of each lane: the time by the database's clock, and what began lately, pairs of a time and
    how many."""
    now = db.clock_ms()
    return {lane: (now, json.loads(stamps)) for lane, stamps in db.all(STAMPS)}


def charge_past(session: Session, past: Past) -> None:
    """Charge lanes with what began before, where the attempts of the queue are more than what was
    charged: its daemon counted by itself, or had no such limit."""
    db, now = session.db, session.leases.now(session.clock)
    for lane, (limit, times) in sorted(past.items()):
        stamps = _locked(db, lane)
        if stamps is None:  # another daemon, which has charged it, is just claiming
            continue
        window = RateWindow(limit, json.loads(stamps))
        began = RateWindow(limit, [(at, 1) for at in times])
        if (missing := began.count(now) - window.count(now)) > 0:
            for at in times[-missing:]:
                window.charge(1, at)
            db.run(CHARGE, (json.dumps(window.stamps(now)), lane))


def bring_back(session: Session) -> int:
    """Have what began when now was still to come, by a clock that was ahead, count from now on; of
    how many lanes."""
    db, now, changed = session.db, session.leases.now(session.clock), 0
    for lane, _ in db.all(STAMPS):
        stamps = json.loads(_locked(db, lane) or "[]")
        if stamps and stamps[-1][0] > now + AHEAD_MS:
            began = [[min(at, now), count] for at, count in stamps]
            changed += db.run(CHARGE, (json.dumps(began), lane))
    return changed


@writes(Rank.CLAIM)
def postpone(session: Session, lane: str, limit: RateLimit, since: int, within: int) -> int:
    """Charge one that was claimed at `since` from when it begins, in the next `within`
    milliseconds: 0, or in how many milliseconds to ask again, since others have begun in its
    place."""
    db, now = session.db, session.leases.now(session.clock)
    if (stamps := _locked(db, lane)) is None:
        return BUSY_MS
    window = RateWindow(limit, json.loads(stamps))
    wait = window.postpone(since, now, now + within)
    db.run(CHARGE, (json.dumps(window.stamps(now)), lane))
    return wait


def _locked(db: Connection, lane: str) -> str | None:
    """What of a lane began lately; no other daemon claims from it before the COMMIT. None where one
    is just doing that."""
    lock = LOOK + db.skip_locked
    stamps: str | None = db.value(lock, (lane,))
    if stamps is None and db.one(LOOK, (lane,)) is None:
        db.run(MAKE, (lane,))
        stamps = db.value(lock, (lane,))
    return stamps


class SharedLimits:
    """Those of one claim."""

    def __init__(self, db: Connection, now: int, picks: Iterable[Pick]) -> None:
        """Lock the lanes of `picks` that have a limit, where no other daemon has."""
        self._db = db
        self._now = now
        self._windows: dict[str, RateWindow] = {}
        self._room: dict[str, int] = {}
        """Of lanes with a `global_concurrency`: how many more may run."""
        limited = {
            pick.lane: pick
            for pick in picks
            if pick.rate is not None or pick.global_concurrency is not None
        }
        self._busy: set[str] = set()
        for lane, pick in sorted(limited.items()):
            stamps = _locked(db, lane)
            if stamps is None:
                self._busy.add(lane)
                continue
            if pick.rate is not None:
                self._windows[lane] = RateWindow(pick.rate, json.loads(stamps))
            if pick.global_concurrency is not None:
                api = pick.key.endpoint_id.partition("/")[0] + "/"
                running = db.value(RUNNING, (api, api))
                self._room[lane] = max(pick.global_concurrency - running, 0)

    def __bool__(self) -> bool:
        """Whether a lane has one."""
        return bool(self._windows or self._room or self._busy)

    def bounded(self, picks: Sequence[Pick]) -> list[Pick]:
        """The picks, with no more of each lane than is free."""
        left = {lane: window.free(self._now) for lane, window in self._windows.items()}
        for lane, room in self._room.items():
            left[lane] = min(left.get(lane, room), room)
        left |= dict.fromkeys(self._busy, 0)
        found = []
        for pick in picks:
            if pick.lane in left:
                limit = min(pick.limit, left[pick.lane])
                left[pick.lane] -= limit
                pick = pick._replace(limit=limit)
            found.append(pick)
        return found

    def charge(self, claimed: Iterable[tuple[Pick, int]]) -> dict[str, int]:
        """Write down how many were claimed of each. Lanes with nothing left, and for how many
        milliseconds that is so."""
        for pick, count in claimed:
            if pick.lane in self._windows and count:
                self._windows[pick.lane].charge(count, self._now)
            if pick.lane in self._room:
                self._room[pick.lane] -= count
        used_up = dict.fromkeys(self._busy, BUSY_MS)
        for lane, window in self._windows.items():
            self._db.run(CHARGE, (json.dumps(window.stamps(self._now)), lane))
            if not window.free(self._now):
                used_up[lane] = max((window.next_free(self._now) or 0) - self._now, 1)
        return used_up

    def full(self) -> dict[str, int]:
        """Lanes of which no more may run, once all is charged, or from which another daemon just
        claims, and in how many milliseconds to look at them again."""
        full = {lane: FULL_MS for lane, room in self._room.items() if room <= 0}
        return full | dict.fromkeys(self._busy, BUSY_MS)
