"""What keeps a PostgreSQL from removing rows that the queue is done with.

Vacuum removes what no transaction can see any more. What may still want to see it, and does so for
long, is named here, with what to do about it: sessions with an old transaction, transactions that
were prepared and never finished, and replication slots that no reader moves on.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from orchestratord.queue.connection import Connection
from orchestratord.queue.records import HoldingBack
from orchestratord.values import world

HOLDING_BACK = """
(SELECT 'session', jsonb_build_array(pid, COALESCE(usename, 'an unnamed role'),
    COALESCE(NULLIF(application_name, ''), 'no application_name'), COALESCE(state, 'working'),
    extract(epoch FROM now() - xact_start)::float8)
FROM pg_stat_activity
WHERE datname = current_database() AND backend_xmin IS NOT NULL AND pid <> pg_backend_pid()
    AND pid NOT IN (SELECT pid FROM pg_stat_progress_vacuum)
    AND xact_start < now() - make_interval(secs => ?::float8)
ORDER BY xact_start LIMIT 3)
UNION ALL
(SELECT 'prepared', jsonb_build_array(quote_literal(gid), owner,
    extract(epoch FROM now() - prepared)::float8)
FROM pg_prepared_xacts
WHERE database = current_database() AND prepared < now() - make_interval(secs => ?::float8)
ORDER BY prepared LIMIT 3)
UNION ALL
(SELECT 'slot', jsonb_build_array(slot_name, rows, xid::text, age(xid), active_pid)
FROM pg_replication_slots
    CROSS JOIN LATERAL (VALUES (true, xmin), (false, catalog_xmin)) AS kept (rows, xid)
WHERE xid IS NOT NULL AND wal_status IS DISTINCT FROM 'lost'
ORDER BY age(xid) DESC)
"""
"""Slots of all databases, for what they keep is kept in each. VACUUM itself keeps nothing back."""
DEAD = """
SELECT n_dead_tup, current_user FROM pg_stat_user_tables
WHERE relid = 'retry_schedule'::regclass AND n_dead_tup > ?
    AND greatest(last_vacuum, last_autovacuum) > now() - interval '5 minutes'
    AND NOT pg_has_role('pg_read_all_stats', 'USAGE')
"""
MANY_DEAD = 100_000
"""Rows that vacuum has left behind, and so may not remove."""
FAR_BEHIND = 100_000
"""Transactions from which on a slot is told of, however lately it was there."""

ROWS = "keeps PostgreSQL from removing what the queue is done with"
SYSTEM = "keeps PostgreSQL from removing its log, and what its own tables are done with"


class Horizon:
    """Looks for it, and remembers between two looks where the slots were, as these have no time."""

    def __init__(self) -> None:
        self._slots: dict[tuple[str, bool], tuple[str, float]] = {}
        """Of each slot, for rows and for the system's tables: the transaction that it is at, and
        since when, by the monotonic clock."""

    def look(self, connection: Connection, longer_than: float) -> list[HoldingBack]:
        """What has been in the way for so many seconds, as far as it may be seen."""
        found: dict[str, list[Any]] = {"session": [], "prepared": [], "slot": []}
        for kind, values in connection.all(HOLDING_BACK, (longer_than, longer_than)):
            found[kind].append(values)
        slots = list(self._left_behind(found["slot"], longer_than))[:3]
        holding = [_session(*values) for values in found["session"]]
        holding += [_prepared(*values) for values in found["prepared"]]
        holding += [_slot(*values) for values in slots]
        named = found["session"] or found["prepared"] or any(rows for _, rows, _, _ in slots)
        if not named:
            holding += [_unseen(*values) for values in connection.all(DEAD, (MANY_DEAD,))]
        return holding

    def _left_behind(self, slots: list[Any], longer_than: float) -> Iterator[Any]:
        now, before, self._slots = world.monotonic(), self._slots, {}
        for name, rows, xid, behind, pid in slots:
            at, since = before.get((name, rows), ("", now))
            if at != xid:
                since = now
            self._slots[name, rows] = xid, since
            if now - since > longer_than or behind > FAR_BEHIND:
                yield name, rows, behind, pid


def _held(subject: str, rest: str) -> HoldingBack:
    return HoldingBack(subject, f"{subject} {rest}")


def _session(pid: int, user: str, application: str, state: str, age: float) -> HoldingBack:
    return _held(
        f"a transaction of {user} ({application}, pid {pid}, {state})",
        f"has been open for {span(age)} and {ROWS}: end it with SELECT "
        f"pg_terminate_backend({pid}), and set idle_in_transaction_session_timeout and "
        f"transaction_timeout for its role",
    )


def _prepared(gid: str, owner: str, age: float) -> HoldingBack:
    return _held(
        f"the prepared transaction {gid} of {owner}",
        f"has been open for {span(age)} and {ROWS}: end it as the application that prepared it "
        f"has decided, with COMMIT PREPARED {gid} or ROLLBACK PREPARED {gid}",
    )


def _unseen(dead: int, user: str) -> HoldingBack:
    return _held(
        f"a transaction that {user} may not see",
        f"has been open for long, and keeps PostgreSQL from removing {dead:,} rows that the queue "
        f"is done with: to have it named here, GRANT pg_read_all_stats TO {user}",
    )


def _slot(name: str, rows: bool, behind: int, pid: int | None) -> HoldingBack:
    drop = f"SELECT pg_drop_replication_slot('{name}')"
    if pid is None:
        remedy = f"nothing reads it; if nothing will, {drop}"
    elif rows:
        remedy = (
            f"end what is open for long on the standby that reads it (pid {pid} in "
            f"pg_stat_replication), or set hot_standby_feedback = off there; if the "
            f"standby is not needed, stop it and {drop}"
        )
    else:
        remedy = (
            f"see why what reads it (pid {pid} in pg_stat_replication) does not come on; if it "
            f"is not needed, stop it and {drop}"
        )
    return _held(
        f"the replication slot {name}",
        f"has been left {behind:,} transactions behind and {ROWS if rows else SYSTEM}: {remedy}",
    )


def span(seconds: float) -> str:
    """Seconds as people say them."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
