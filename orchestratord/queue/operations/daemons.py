"""The daemons that work on a queue: a row for each, renewed while it lives."""

from __future__ import annotations

import json
from collections.abc import Collection

from orchestratord.queue.batch import Rank, reads, writes
from orchestratord.queue.connection import Connection
from orchestratord.queue.models import CLOCK, GOES_ON, BulkRow, DaemonRow, Fact, sql
from orchestratord.queue.records import Beat, DaemonSeen
from orchestratord.queue.schema import VERSION
from orchestratord.queue.session import Session

FORGOTTEN_MS = 3600 * 1000
"""How long after its lease a daemon that said nothing more is still listed, as gone."""


@writes(Rank.CLAIM)
def give_sign(session: Session, beat: Beat) -> int:
    """Give a sign of life; the time by the database's clock, milliseconds since the epoch."""
    leases = session.leases
    now, until = leases.now(session.clock), leases.until(session.clock)
    own = DaemonRow.owner == session.owner
    alive = {"generation": beat.generation, "lanes": json.dumps(list(beat.lanes))}
    alive |= {"beat_at": now, "lease_until": until}
    told = DaemonRow.update(**alive).where(own).returning(DaemonRow.fingerprint)
    row = session.db.one(*sql(told))
    session.look_for_older()
    if row is None:
        first = DaemonRow.insert(
            owner=session.owner,
            host=beat.host,
            pid=beat.pid,
            version=beat.version,
            started_at=now - beat.age,
            schema_version=VERSION,
            **alive,
            **_said(beat),
        )
        session.db.run(*sql(first))
    elif row[0] != beat.fingerprint:
        session.db.run(*sql(DaemonRow.update(**_said(beat)).where(own)))
    free = session.db.skip_locked  # no sign of life waits for a row of another kind
    bulks = BulkRow.select(BulkRow.id).where(BulkRow.owner == session.owner, GOES_ON)
    statement, values = sql(bulks)
    for (id_,) in session.db.all(statement + free, values):
        session.db.run(*sql(BulkRow.update(lease_until=until).where(BulkRow.id == id_)))
    forgotten = DaemonRow.lease_until < session.db.dead_before(now - FORGOTTEN_MS)
    others = DaemonRow.select(DaemonRow.owner).where(DaemonRow.owner != session.owner, forgotten)
    statement, values = sql(others)
    for (owner,) in session.db.all(statement + free, values):
        session.db.run(*sql(DaemonRow.delete().where(DaemonRow.owner == owner)))
    if session.clock.source == "machine":
        mark = Fact.insert(name=CLOCK, value=session.clock.mark())
        mark = mark.on_conflict(conflict_target=[Fact.name], preserve=[Fact.value])
        session.db.run(*sql(mark))
    return now


@writes(Rank.CLAIM)
def look(session: Session) -> int:
    """Learn who works on the queue, without a sign of life of one's own; the time as above."""
    session.look_for_older()
    return session.leases.now(session.clock)


def _said(beat: Beat) -> dict[str, str]:
    parts = {"endpoints": beat.endpoints, "schedules": beat.schedules, "plugins": beat.plugins}
    declared = json.dumps({name: dict(part) for name, part in parts.items()})
    return {"fingerprint": beat.fingerprint, "declared": declared}


@writes(Rank.KEEP)
def leave(session: Session) -> None:
    """The daemon ends: it is no longer listed."""
    session.db.run(*sql(DaemonRow.delete().where(DaemonRow.owner == session.owner)))


@reads
def seen(db: Connection) -> list[DaemonSeen]:
    """All that gave a sign of life within the last hour, the oldest first."""
    row = DaemonRow
    fixed = (row.owner, row.host, row.pid, row.version, row.generation, row.fingerprint)
    times = (row.started_at, row.beat_at, row.lease_until)
    query = row.select(*fixed, *times, row.lanes).order_by(row.started_at, row.owner)
    rows = ((*found[:-1], json.loads(found[-1] or "[]")) for found in db.all(*sql(query)))
    return [DaemonSeen(*found) for found in rows]


@reads
def declared(db: Connection, owners: Collection[str]) -> dict[str, Beat]:
    """What these daemons can carry out; those that have gone meanwhile are left out."""
    row = DaemonRow
    query = row.select(row.owner, row.fingerprint, row.declared).where(row.owner.in_(owners))
    return {
        owner: Beat(fingerprint=fingerprint, **json.loads(declared))
        for owner, fingerprint, declared in db.all(*sql(query))
    }
