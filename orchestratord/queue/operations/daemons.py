"""The daemons that work on a queue: a row for each of their workers, renewed while it lives."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict

from orchestratord.queue import facts
from orchestratord.queue.batch import Rank, reads, writes
from orchestratord.queue.connection import Connection, Row
from orchestratord.queue.daemon_health import Trouble
from orchestratord.queue.models import CLOCK, ChoreRow, DaemonRow, sql
from orchestratord.queue.operations import chores
from orchestratord.queue.records import Beat, DaemonSeen
from orchestratord.queue.schema import VERSION
from orchestratord.queue.session import Session

FORGOTTEN_MS = 3600 * 1000
"""How long after its lease a daemon that said nothing more is still listed, as gone."""

ALIVE = """
UPDATE daemons SET generation = ?, lanes = ?, troubles = ?, beat_at = ?, lease_until = ?
WHERE owner = ? RETURNING fingerprint
"""
SEEN = """
SELECT owner, host, pid, version, generation, fingerprint, started_at, beat_at, lease_until, lanes,
    COALESCE(process_group, owner), worker, troubles
FROM daemons ORDER BY started_at, owner
"""
FORGOTTEN = """
SELECT owner FROM daemons WHERE COALESCE(process_group, owner) <> ? AND lease_until < ?
"""
CHORES = "SELECT id FROM chores WHERE owner = ?"


@writes(Rank.CLAIM)
def give_sign(session: Session, beat: Beat) -> int:
    """Give a sign of life; the time by the database's clock, milliseconds since the epoch."""
    now, until = session.leases.now(session.clock), session.leases.until(session.clock)
    alive = {"generation": beat.generation, "lanes": json.dumps(list(beat.lanes))}
    alive |= {"troubles": json.dumps([asdict(one) for one in beat.troubles])}
    alive |= {"beat_at": now, "lease_until": until}
    group = beat.process_group or session.owner
    row = session.db.one(ALIVE, (*alive.values(), session.owner))
    if row is None:
        first = DaemonRow.insert(
            owner=session.owner,
            host=beat.host,
            pid=beat.pid,
            version=beat.version,
            started_at=now - beat.age,
            schema_version=VERSION,
            process_group=group,
            worker=beat.worker,
            **alive,
            **_said(beat),
        )
        session.db.run(*sql(first))
    elif row[0] != beat.fingerprint:
        own = DaemonRow.owner == session.owner
        session.db.run(*sql(DaemonRow.update(**_said(beat)).where(own)))
    free = session.db.skip_locked  # no sign of life waits for a row of another kind
    held = ChoreRow.update(lease_until=chores.lease_until(session))
    for (id_,) in session.db.all(CHORES + free, (session.owner,)):
        session.db.run(*sql(held.where(ChoreRow.id == id_)))
    before = session.db.dead_before(now - FORGOTTEN_MS)
    for (owner,) in session.db.all(FORGOTTEN + free, (group, before)):
        session.db.run(*sql(DaemonRow.delete().where(DaemonRow.owner == owner)))
    if session.clock.source == "machine":
        facts.put(session.db, CLOCK, session.clock.mark())
    return now


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
    """All workers that gave a sign of life within the last hour, the oldest first."""
    return [_seen(row) for row in db.all(SEEN)]


def _seen(row: Row) -> DaemonSeen:
    lanes, group, worker, troubles = row[-4:]
    found = [Trouble(**one) for one in json.loads(troubles or "[]")]
    return DaemonSeen(*(*row[:-4], json.loads(lanes or "[]"), group, worker, found))


@reads
def declared(db: Connection, owners: Collection[str]) -> dict[str, Beat]:
    """What these daemons can carry out; those that have gone meanwhile are left out."""
    row = DaemonRow
    query = row.select(row.owner, row.fingerprint, row.declared).where(row.owner.in_(owners))
    return {
        owner: Beat(fingerprint=fingerprint, **json.loads(declared))
        for owner, fingerprint, declared in db.all(*sql(query))
    }
