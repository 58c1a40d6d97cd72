"""Endpoints with tasks waiting, and those whose removal was accepted: for judging a configuration.

Who takes a configuration up asks whether it declares what the queue waits for. What was removed on
purpose is remembered, so that a restart does not ask again while its tasks are still being failed.
"""

from __future__ import annotations

import json
import os
import socket
from collections import Counter
from collections.abc import Collection, Sequence

from peewee import fn

from orchestratord.queue import facts
from orchestratord.queue.batch import Rank, long_reads, writes
from orchestratord.queue.connection import BY_HELD, BY_READY, BY_RUNNING, READY, Connection
from orchestratord.queue.models import DaemonRow, sql
from orchestratord.queue.session import Session

REMOVED = "removed_endpoints"
"""The fact that remembers them: a JSON list."""

# what is pasted here are hints, never values

_COUNTS = "SELECT endpoint_id, count(*) FROM retry_schedule {} WHERE {} GROUP BY endpoint_id"
PENDING = (_COUNTS.format(BY_READY, READY), _COUNTS.format(BY_HELD, "held = 1"))
RUNNING = (_COUNTS.format(BY_RUNNING, "status = 'running'"),)


@long_reads
def waiting(db: Connection) -> dict[str, int]:
    """The endpoints whose calls or deliveries wait, and how many tasks that are."""
    return _counts(db, PENDING)


@writes(Rank.KEEP)
def at_stake(session: Session) -> dict[str, int]:
    """How many tasks of each endpoint depend on this daemon: of dead daemons as well, but neither
    of endpoints that others declare, nor of those whose removal was accepted."""
    db = session.db
    found = _counts(db, PENDING + RUNNING)
    for name in _accepted(db) | _declared_by_others(session):
        found.pop(name, None)
    return found


@writes(Rank.KEEP)
def accept(session: Session, removed: Collection[str], declared: Collection[str]) -> None:
    """Remember that these were removed on purpose, and forget what is declared again, or of which
    no task waits any more."""
    before = _accepted(session.db)
    if not before and not removed:
        return
    waiting = _counts(session.db, PENDING + RUNNING).keys()
    after = ((before | set(removed)) & waiting) - set(declared)
    if after != before:
        facts.put(session.db, REMOVED, json.dumps(sorted(after)))


def _counts(db: Connection, statements: Sequence[str]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for statement in statements:
        # One without a slash is no endpoint that files declare: its deliveries tell of the daemon.
        found.update({name: count for name, count in db.all(statement) if "/" in name})
    return found


def _accepted(db: Connection) -> set[str]:
    return set(json.loads(facts.get(db, REMOVED) or "[]"))


def _declared_by_others(session: Session) -> set[str]:
    """What other daemons declare that are alive."""
    session.renew(())  # which asks what the time is by the database's clock
    now = session.leases.now(session.clock)
    own, group = DaemonRow.alias(), fn.COALESCE(DaemonRow.process_group, DaemonRow.owner)
    ours = own.select(own.process_group).where(own.owner == session.owner)
    others = group != fn.COALESCE(ours, session.owner)
    alive = DaemonRow.lease_until >= session.db.dead_before(now)
    fields = DaemonRow.host, DaemonRow.pid, DaemonRow.declared
    rows = session.db.all(*sql(DaemonRow.select(*fields).where(others, alive)))
    return {
        name
        for host, pid, text in rows
        if not _is_gone(host, pid)
        for name in json.loads(text)["endpoints"]
    }


def _is_gone(host: str, pid: int) -> bool:
    """Whether a daemon is known to have died whose lease has not run out: a crash on this machine.

    In a container the one before has often had the pid that is ours now.
    """
    if host != socket.gethostname():
        return False
    if pid == os.getpid():
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:  # another user's
        pass
    return False
