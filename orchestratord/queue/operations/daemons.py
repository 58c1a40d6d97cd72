"""The daemons that work on a queue: a row for each, renewed while it lives."""

from __future__ import annotations

import json
from collections.abc import Collection

from orchestratord.queue import facts
from orchestratord.queue.batch import Rank, reads, writes
from orchestratord.queue.connection import Connection
from orchestratord.queue.models import CLOCK, GOES_ON, BulkRow, DaemonRow, sql
from orchestratord.queue.records import Beat, DaemonSeen
from orchestratord.queue.schema import VERSION
from orchestratord.queue.session import Session

FORGOTTEN_MS = 3600 * 1000
"""How long after its lease a daemon that said nothing more is still listed, as gone."""

ALIVE = """
UPDATE daemons SET generation = ?, lanes = ?, beat_at = ?, lease_until = ?
WHERE owner = ? RETURNING fingerprint
"""
SEEN = """
SELECT owner, host, pid, version, generation, fingerprint, started_at, beat_at, lease_until, lanes
FROM daemons ORDER BY started_at, owner
"""
FORGOTTEN = "SELECT owner FROM daemons WHERE owner <> ? AND lease_until < ?"
BULKS, WHOSE = sql(BulkRow.select(BulkRow.id).where(BulkRow.owner == "", GOES_ON))


@writes(Rank.CLAIM)
def give_sign(session: Session, beat: Beat) -> int:
    """Give a sign of life; the time by the database's clock, milliseconds since the epoch."""
    now, until = session.leases.now(session.clock), session.leases.until(session.clock)
    alive = {"generation": beat.generation, "lanes": json.dumps(list(beat.lanes))}
    alive |= {"beat_at": now, "lease_until": until}
    row = session.db.one(ALIVE, (*alive.values(), session.owner))
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
        own = DaemonRow.owner == session.owner
        session.db.run(*sql(DaemonRow.update(**_said(beat)).where(own)))
    free = session.db.skip_locked  # no sign of life waits for a row of another kind
    for (id_,) in session.db.all(BULKS + free, (session.owner, *WHOSE[1:])):
        session.db.run(*sql(BulkRow.update(lease_until=until).where(BulkRow.id == id_)))
    before = session.db.dead_before(now - FORGOTTEN_MS)
    for (owner,) in session.db.all(FORGOTTEN + free, (session.owner, before)):
        session.db.run(*sql(DaemonRow.delete().where(DaemonRow.owner == owner)))
    if session.clock.source == "machine":
        facts.put(session.db, CLOCK, session.clock.mark())
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
    return [DaemonSeen(*(*row[:-1], json.loads(row[-1] or "[]"))) for row in db.all(SEEN)]


@reads
def declared(db: Connection, owners: Collection[str]) -> dict[str, Beat]:
    """What these daemons can carry out; those that have gone meanwhile are left out."""
    row = DaemonRow
    query = row.select(row.owner, row.fingerprint, row.declared).where(row.owner.in_(owners))
    return {
        owner: Beat(fingerprint=fingerprint, **json.loads(declared))
        for owner, fingerprint, declared in db.all(*sql(query))
    }
