"""Chores: what the daemon itself does later, each a row until its last step is done.

A chore is claimed under a lease, as a task is, and one process at a time takes its steps. A step
ends in the transaction that writes what follows from it. What several transactions lock they lock
in one order: what a chore is about before the chore.
"""

from __future__ import annotations

import logging
from collections.abc import Collection

from orchestratord.queue.batch import Rank, reads, writes
from orchestratord.queue.connection import Connection
from orchestratord.queue.records import Chore
from orchestratord.queue.session import Session

log = logging.getLogger("orchestratord.chores")

LEASE = 30.0
"""Seconds for which a claim stands without a word from its daemon, or as long as that of a task if
that is less. Where two daemons take the same step, one of them writes it."""
MOST_DEATHS = 3
"""Daemons that may die during a step of a chore, one after the other, until it is set aside."""

# ruff: noqa: S608  # what is pasted here are hints and question marks, never values

SLICE = "slice"
"""The kind of chore that writes a slice of new tasks."""

ADD = """
INSERT INTO chores (kind, subject, due, at, data) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (kind, subject) DO UPDATE SET due = excluded.due, at = excluded.at, deaths = 0
"""
DUE = f"""
SELECT id, owner, lease_until FROM chores
WHERE due <= ? AND (kind <> '{SLICE}' OR subject = (
    SELECT min(subject) FROM chores WHERE kind = '{SLICE}'))
ORDER BY due, id LIMIT ?
"""
"""Slices are written one after the other, since their tasks may be of ordered partitions."""
FOUND = """
SELECT owner, lease_until, id, kind, subject, failures, deaths FROM chores
WHERE id IN ({ids}) AND due IS NOT NULL ORDER BY id
"""
CLAIM = "UPDATE chores SET owner = ?, lease_until = ?, deaths = ? WHERE id = ?"
_FREE = "owner = NULL, lease_until = NULL"
GET_STUCK = f"UPDATE chores SET due = NULL, {_FREE} WHERE id = ?"
PUT_OFF = f"""
UPDATE chores SET due = ?, at = ?, failures = ?, deaths = CASE WHEN ? = 0 THEN 0 ELSE deaths END,
    {_FREE}
WHERE id = ? AND owner = ?
"""
RELEASE = f"UPDATE chores SET {_FREE} WHERE owner = ?"
END = "DELETE FROM chores WHERE id = ? AND owner = ?"
STUCK = "SELECT id, kind, subject FROM chores WHERE due IS NULL ORDER BY id LIMIT 20"


def add(session: Session, kind: str, subject: object, due: int, data: str | None = None) -> None:
    """Have something done later. A chore that is there already is due then, also one that was set
    aside. `subject`: what it is about; `due`: milliseconds since the epoch; `data`: what it is to
    be done with."""
    session.db.run(ADD, (kind, str(subject), due, session.now(), data))
    session.chore_added = True


@reads
def due(db: Connection, owner: str, now: int, held: Collection[int], most: int) -> list[int]:
    """Up to `most` chores that are due at `now` and that no other daemon than `owner` seems to be
    at; without those in `held`."""
    found = [row for row in db.all(DUE, (now, most + len(held))) if row[0] not in held]
    clock = db.clock_ms() if found else 0
    return [
        id_
        for id_, holder, until in found
        if holder in (None, owner) or not db.lives(holder, until or 0, clock)
    ]


@writes(Rank.KEEP)
def claim(session: Session, ids: Collection[int]) -> list[Chore]:
    """Take these, as far as no other daemon is at them. One at which daemons have died again and
    again is set aside."""
    db, now = session.db, session.leases.now(session.clock)
    claimed = []
    those = FOUND.format(ids=", ".join("?" * len(ids))) + db.skip_locked
    for holder, until, *row in db.all(those, list(ids)):
        chore = Chore(*row)
        if holder not in (None, session.owner):
            if db.lives(holder, until or 0, now):
                continue
            chore = chore._replace(deaths=chore.deaths + 1)
        if chore.deaths >= MOST_DEATHS:
            db.run(GET_STUCK, (chore.id,))
            what = chore.kind, chore.subject, chore.deaths
            log.error("set aside the chore %s %s: %d daemons have died at it", *what)
            continue
        db.run(CLAIM, (session.owner, lease_until(session), chore.deaths, chore.id))
        claimed.append(chore)
    return claimed


def lease_until(session: Session) -> int:
    """Until when a chore is claimed that is claimed now, by the clock that leases go by."""
    return session.leases.now(session.clock) + round(min(session.leases.seconds, LEASE) * 1000)


@writes(Rank.KEEP)
def put_off(session: Session, chore: Chore, failures: int, due: int) -> None:
    """Leave the next step to the daemon that finds it when it is `due`. `failures`: how often it
    has failed since it was last taken; 0: it was taken, and no daemon has died at it since."""
    values = due, session.now(), failures, failures, chore.id, session.owner
    session.db.run(PUT_OFF, values)


@writes(Rank.KEEP)
def release(session: Session) -> None:
    """Leave all that are claimed here to other daemons, which need not wait then."""
    session.db.run(RELEASE, (session.owner,))


@writes(Rank.KEEP)
def end_all(session: Session, those: Collection[Chore]) -> None:
    """There is nothing to do for these."""
    for chore in those:
        end(session, chore)


def end(session: Session, chore: Chore) -> bool:
    """A chore is done; False where another daemon has taken it over."""
    return session.db.run(END, (chore.id, session.owner)) > 0


@reads
def stuck(db: Connection) -> list[Chore]:
    """The first of those at which daemons have died again and again."""
    return [Chore(*row) for row in db.all(STUCK)]
