"""The daemons that work on a queue: a row for each, renewed while it lives."""

from __future__ import annotations

import json
from collections.abc import Collection

from orchestratord.queue.batch import Rank, reads, writes
from orchestratord.queue.connection import Connection
from orchestratord.queue.records import Beat, DaemonSeen
from orchestratord.queue.session import Session

FORGOTTEN_MS = 3600 * 1000
"""How long after its lease a daemon that said nothing more is still listed, as gone."""

BEAT = """
UPDATE daemons SET generation = ?, lanes = ?, beat_at = ?, lease_until = ? WHERE owner = ?
RETURNING fingerprint
"""

FIRST = """
INSERT INTO daemons (owner, host, pid, version, generation, fingerprint, declared, lanes,
    started_at, beat_at, lease_until)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""

DECLARE = "UPDATE daemons SET fingerprint = ?, declared = ? WHERE owner = ?"

KEEP_BULKS = "UPDATE bulks SET lease_until = ? WHERE owner = ? AND status = 'running'"

SEEN = """
SELECT owner, host, pid, version, generation, fingerprint, started_at, beat_at, lease_until, lanes
FROM daemons ORDER BY started_at, owner
"""


@writes(Rank.CLAIM)
def give_sign(session: Session, beat: Beat) -> int:
    """Give a sign of life; the time by the database's clock, milliseconds since the epoch."""
    leases = session.leases
    now, until = leases.now(session.clock), leases.until(session.clock)
    lanes = json.dumps(list(beat.lanes))
    row = session.db.one(BEAT, (beat.generation, lanes, now, until, session.owner))
    if row is None:
        fixed = (session.owner, beat.host, beat.pid, beat.version, beat.generation)
        said = (beat.fingerprint, _declared(beat), lanes)
        session.db.run(FIRST, (*fixed, *said, now - beat.age, now, until))
    elif row[0] != beat.fingerprint:
        session.db.run(DECLARE, (beat.fingerprint, _declared(beat), session.owner))
    session.db.run(KEEP_BULKS, (until, session.owner))
    if session.db.shared:
        session.db.run("DELETE FROM daemons WHERE lease_until < ?", (now - FORGOTTEN_MS,))
    else:  # one daemon has the file
        session.db.run("DELETE FROM daemons WHERE owner <> ?", (session.owner,))
    return now


def _declared(beat: Beat) -> str:
    parts = {"endpoints": beat.endpoints, "schedules": beat.schedules, "plugins": beat.plugins}
    return json.dumps({name: dict(part) for name, part in parts.items()})


@writes(Rank.KEEP)
def leave(session: Session) -> None:
    """The daemon ends: it is no longer listed."""
    session.db.run("DELETE FROM daemons WHERE owner = ?", (session.owner,))


@reads
def seen(db: Connection) -> list[DaemonSeen]:
    """All that gave a sign of life within the last hour, the oldest first."""
    rows = ((*row[:-1], json.loads(row[-1] or "[]")) for row in db.all(SEEN))
    return [DaemonSeen(*row) for row in rows]


@reads
def declared(db: Connection, owners: Collection[str]) -> dict[str, Beat]:
    """What these daemons can carry out; those that have gone meanwhile are left out."""
    found: dict[str, Beat] = {}
    for owner in owners:
        row = db.one("SELECT fingerprint, declared FROM daemons WHERE owner = ?", (owner,))
        if row is not None:
            found[owner] = Beat(fingerprint=row[0], **json.loads(row[1]))
    return found
