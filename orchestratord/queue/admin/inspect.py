"""Looking at a database from outside without changing it: is it whole, and who works on it?"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from orchestratord.errors import QueueError
from orchestratord.queue import facts
from orchestratord.queue.connection import Connection
from orchestratord.queue.database import Database
from orchestratord.queue.operations.daemons import seen
from orchestratord.queue.records import DaemonSeen, HoldingBack
from orchestratord.queue.schema import HALF, VERSION
from orchestratord.queue.sqlite.sqlite_database import INCREMENTAL
from orchestratord.queue.store import open_database
from orchestratord.values import world

_LISTED = 5
"""Faults of a database that are listed; one is enough to be worried."""


def faults(database: Path, seconds: float) -> list[str] | None:
    """What is wrong within the file, nothing for a good one; None where it took too long to see.

    Args:
        database: an existing file.
        seconds: how long to look.
    """
    deadline = world.monotonic() + seconds
    try:
        with closing(_open(database)) as connection:
            connection.set_progress_handler(lambda: world.monotonic() > deadline, 10_000)
            rows = connection.execute(f"PRAGMA quick_check({_LISTED})").fetchall()
    except sqlite3.Error as error:
        interrupted = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT
        return None if interrupted else [str(error)]
    return [] if rows == [("ok",)] else [str(row[0]) for row in rows]


def pages(database: Path) -> tuple[int, int, bool]:
    """Of a file: its bytes that hold something, those that are free for what is written next, and
    whether it can give them back. All 0 where it cannot be read."""
    try:
        with closing(_open(database)) as connection:
            count, free, size, kind = (
                int(connection.execute(f"PRAGMA {name}").fetchone()[0])
                for name in ("page_count", "freelist_count", "page_size", "auto_vacuum")
            )
    except sqlite3.Error:
        return 0, 0, False
    return (count - free) * size, free * size, kind == INCREMENTAL


def too_new(database: Path) -> int | None:
    """The schema that a daemon has to know to use this database, where this version does not."""
    try:
        with closing(_open(database)) as connection:
            row = connection.execute("SELECT compatible_from FROM schema WHERE id = 1").fetchone()
    except sqlite3.Error:
        return None  # a file without tables is a new one, and what is broken is told by `faults`
    return int(row[0]) if row is not None and row[0] > VERSION else None


def _open(database: Path) -> sqlite3.Connection:
    path = f"file:{quote(str(database))}?mode=ro"
    # Without a journal beside it the file is all there is, and no process has it open. A reader
    # would make a journal, though it needs none.
    if not database.with_name(database.name + "-wal").exists():
        path += "&immutable=1"
    return sqlite3.connect(path, uri=True, timeout=1.0)


# -- Looking at a queue on a server without changing it --------------------------------------------

OLD_TRANSACTION = 60.0
"""Seconds for which others may hold a transaction open."""

_SERVER = """
SELECT split_part(current_setting('server_version'), ' ', 1),
    pg_is_in_recovery() OR current_setting('default_transaction_read_only') = 'on',
    (extract(epoch FROM now()) * 1000)::bigint, to_regclass('schema') IS NOT NULL
"""
_MAY_CREATE = "SELECT COALESCE(has_schema_privilege(current_schema(), 'CREATE'), false)"
_MAY_WRITE = """
SELECT bool_and(has_table_privilege(name, right_))
FROM unnest(ARRAY['retry_schedule', 'attempts', 'daemons']) AS t (name),
    unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS r (right_)
"""
_SCHEMA = "SELECT version, compatible_from FROM schema WHERE id = 1"


@dataclass(frozen=True, slots=True)
class Seen:
    """What was found.

    Args:
        shown: the database's URL, without a password.
        server: the version of PostgreSQL.
        now_ms: what time it is there.
        read_only: nothing can be written to it.
        schema: the version of the queue's tables; None where there are none.
        too_new: the version that one has to know to use it, where this one is older; else None.
        half: where the rest of the queue is, which is being moved here; else None.
        rights: this user may do with it what a daemon does.
        size: of the tables that grow, in bytes.
        daemons: their workers that gave a sign of life within the last hour.
        problems: what keeps it from cleaning up.
    """

    shown: str
    server: str
    now_ms: int
    read_only: bool
    schema: int | None
    too_new: int | None
    half: str | None
    rights: bool
    size: int
    daemons: tuple[DaemonSeen, ...]
    problems: tuple[HoldingBack, ...]


def look(url: str) -> Seen:
    """Look into the database of a URL, for some seconds at most.

    Raises QueueError where it cannot be reached or is none.
    """
    database = open_database(url)
    database.open()
    connection = database.connect(writes=False)
    try:
        with connection.look():
            return _look(database, connection)
    except database.failures.errors as error:
        raise database.failures.named(error) from None
    finally:
        connection.close()
        database.close()


def _look(database: Database, connection: Connection) -> Seen:
    row = connection.one(_SERVER)
    if row is None:
        raise QueueError(f"{database.shown} does not say what it is")
    server, read_only, now, there = row
    schema = connection.one(_SCHEMA) if there else None
    rights = connection.one(_MAY_CREATE if schema is None else _MAY_WRITE)
    usable = schema is not None and schema[1] <= VERSION
    # Before the first daemon of this version the tables have not all columns.
    known = usable and schema is not None and schema[0] >= VERSION
    return Seen(
        shown=database.shown,
        server=server,
        now_ms=now,
        read_only=read_only,
        schema=schema[0] if schema is not None else None,
        too_new=schema[1] if schema is not None and not usable else None,
        half=facts.get(connection, HALF) if usable else None,
        rights=bool(rights and rights[0]),
        size=connection.size() if usable else 0,
        daemons=tuple(seen().look(connection)) if known else (),
        problems=tuple(connection.holding_back(OLD_TRANSACTION)) if usable else (),
    )
