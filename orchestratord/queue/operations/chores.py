"""Chores: what the daemon itself does later, each a row until its last step is done.

A chore is claimed under a lease, as a task is, and one process at a time takes its steps. A step
ends in the transaction that writes what follows from it. What several transactions lock they lock
in one order: what a chore is about before the chore.

Those of plugins stand in lines. The first one of a line is claimed, and the others wait for it;
lines take turns, so that one with a hundred thousand chores delays no other.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection

from orchestratord.model.task import NewChore
from orchestratord.queue.batch import Rank, reads, writes
from orchestratord.queue.connection import Connection
from orchestratord.queue.records import Chore
from orchestratord.queue.session import Session
from orchestratord.values import world

log = logging.getLogger("orchestratord.chores")

LEASE = 30.0
"""Seconds for which a claim stands without a word from its daemon, or as long as that of a task if
that is less. Where two daemons take the same step, one of them writes it."""
MOST_DEATHS = 3
"""Daemons that may die during a step of a chore, one after the other, until it is set aside."""

# ruff: noqa: S608  # what is pasted here are hints and question marks, never values

SLICE = "slice"
"""The kind of chore that writes a slice of new tasks."""

LINE = "line"
"""The kind of plugins' chores, which are done line by line; their subjects begin with the line."""
NAME = 16
"""Characters by which a line is told from others."""
IN_TURN = 1 << 62
"""When one of a line is due that has not failed: in its turn, and never by the clock."""
FIRST = f"""
SELECT id, subject, due > {IN_TURN // 2} FROM chores
WHERE kind = '{LINE}' AND due IS NOT NULL AND subject > ? ORDER BY subject LIMIT 1
"""
"""The first of the next line, and whether that is its turn: a clock that was put back moves it."""

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


def add_to_line(session: Session, new: NewChore) -> None:
    """Have a plugin do something later, behind what its line has already."""
    session.last_in_line = max(session.leases.now(session.clock) * 1000, session.last_in_line + 1)
    line = f"{new.kind} {new.line}"
    name = hashlib.blake2b(line.encode("utf-8", "replace"), digest_size=NAME // 2).hexdigest()
    subject = f"{name}-{session.last_in_line:018d}-{world.token_hex(4)} {line[:200]}"
    add(session, LINE, subject, IN_TURN, new.data)


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


@reads
def firsts(db: Connection, after: str, held: Collection[int], most: int) -> dict[int, str]:
    """The first chores of up to `most` lines, each with its line, those behind the line `after`
    first; without those in `held`, and those that wait since they have failed."""
    found: dict[int, str] = {}
    for line in (after, ""):
        while len(found) < most and (row := db.one(FIRST, (line,))) is not None:
            line = f"{row[1][:NAME]}~"
            if row[0] not in held and row[2]:
                found.setdefault(row[0], line)
    return found


@reads
def data_of(db: Connection, chore: Chore) -> tuple[str, str] | None:
    """The kind and the data of one of a line; None where it is done."""
    found = db.one("SELECT data FROM chores WHERE id = ?", (chore.id,))
    return None if found is None else (chore.subject.split(" ")[1], found[0])


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
