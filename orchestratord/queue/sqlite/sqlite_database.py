"""The queue in a file of SQLite.

One daemon at a time has a database, by a lock on a file beside it that is held for life. Inside the
daemon one connection writes, on one thread, and one reads, on another; each thread makes its own.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

from peewee import PeeweeException, SqliteDatabase

from orchestratord.errors import DatabaseInUse, QueueError
from orchestratord.model.task import Table
from orchestratord.queue.connection import Connection, Failures, Row
from orchestratord.queue.database import Database
from orchestratord.queue.session import LEASE, Leases
from orchestratord.queue.sqlite.claim_sqlite import SqliteSession
from orchestratord.values.clock import Clock

BUSY_TIMEOUT = 5.0
"""Seconds to wait for a lock; only a person with a shell can hold one."""

STATEMENTS = 256
"""Statements that a connection keeps prepared."""

CHECKPOINT = 4000
"""Pages in the journal from which a commit brings them into the main file: a page that changes
often is written once for all of it. More would be cheaper still, and hold that commit up longer."""

CACHE_KIB = 16 * 1024
"""Of pages, for the connection that writes; what is read for people comes from far apart anyway."""

CROWDED = 0.95
"""The share of the disk in use over which no new work is accepted."""

MOST = 256
"""Rows in one statement over many; it is made for 1, 2, 4, … rows, so that any number of rows takes
a few statements out of a few, and each of them stays prepared."""


def is_full(error: BaseException) -> bool:
    """True where the disk had no room: SQLite says so plainly, or as an I/O error."""
    if not isinstance(error, sqlite3.Error):
        return False
    code = getattr(error, "sqlite_errorcode", None) or 0
    return code & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)


def is_unfit(error: BaseException) -> bool:
    """True where a value cannot be stored or breaks a constraint: it will never be taken."""
    return isinstance(
        error,
        sqlite3.IntegrityError
        | sqlite3.InterfaceError
        | sqlite3.ProgrammingError
        | sqlite3.DataError
        | OverflowError
        | UnicodeError,
    )


FAILURES = Failures((sqlite3.Error, PeeweeException), is_full, is_unfit)


class SqliteConnection(Connection):
    """One connection to the file. Whoever begins to write keeps all others from it."""

    failures = FAILURES

    def __init__(self, database: SqliteDatabase) -> None:
        self.orm = database
        """For queries that peewee builds."""
        self._raw: sqlite3.Connection = database.connection()  # type: ignore[no-untyped-call]

    def all(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """Every row of a statement."""
        return self._raw.execute(sql, parameters).fetchall()

    def one(self, sql: str, parameters: Sequence[Any] = ()) -> Row | None:
        """The first row of a statement, None for none."""
        # Reading to the end finishes the statement: an open one would stand in the way of COMMIT.
        rows = self._raw.execute(sql, parameters).fetchall()
        return rows[0] if rows else None

    def run(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run a statement; the number of rows that it changed."""
        return self._raw.execute(sql, parameters).rowcount

    def insert(self, sql: str, parameters: Sequence[Any]) -> int:
        """Insert one row; its id."""
        return self._raw.execute(sql, parameters).lastrowid or 0

    def many(self, sql: str, types: Sequence[str], rows: Sequence[Sequence[Any]]) -> int:
        """As in the interface. Without ROLLBACK for a conflict, SQLite would keep a copy of each
        page that the statement changes; so it has to be a transaction that can be repeated."""
        changed = done = 0
        while left := len(rows) - done:
            size = min(1 << left.bit_length() - 1, MOST)
            values = list(chain.from_iterable(rows[done : done + size]))
            changed += self.run(statement(sql, len(types), size), values)
            done += size
        return changed

    def reserve(self, table: str, count: int) -> Sequence[int]:
        """As in the interface: nobody else can write meanwhile, so they need not be noted."""
        row = self.one("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,))
        first = 1 if row is None else int(row[0]) + 1
        return range(first, first + count)

    def begin(self) -> None:
        """Begin to write; no other connection can from here on."""
        self._raw.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """Make the transaction durable."""
        self._raw.execute("COMMIT")

    def rollback(self) -> None:
        """Undo the transaction, if there still is one: a full disk ends it by itself."""
        try:
            if self._raw.in_transaction:
                self._raw.execute("ROLLBACK")
        except sqlite3.Error:
            if self._raw.in_transaction:
                raise

    @property
    def in_transaction(self) -> bool:
        """False once the transaction has ended, however it has."""
        return self._raw.in_transaction

    def undo(self) -> None:
        """Undo what was written since the savepoint."""
        self._raw.execute("ROLLBACK TO operation")
        self._raw.execute("RELEASE operation")

    @property
    def written(self) -> int:
        """A number that grows with every row that is written."""
        return self._raw.total_changes

    def foreign_changes(self) -> int:
        """A number that changes when another program has written."""
        row = self.one("PRAGMA data_version")
        return int(row[0]) if row else 0

    def checkpoint(self) -> None:
        """Bring everything into the main file."""
        self.one("PRAGMA wal_checkpoint(TRUNCATE)")

    def shrink(self) -> None:
        """Let go of the pages that are kept in memory."""
        self.one("PRAGMA shrink_memory")

    def size(self) -> int:
        """Bytes on disk, the journal included."""
        path = Path(self.orm.database)
        names = (path, path.with_name(path.name + "-wal"))
        return sum(name.stat().st_size for name in names if name.exists())

    def close(self) -> None:
        """Close it; in the thread that made it."""
        self.orm.close()


class SqliteFile(Database):
    """One file, locked for this daemon from `open` to `close`."""

    failures = FAILURES

    def __init__(self, url: str, lease: float = LEASE) -> None:
        """`url`: `sqlite:////absolute/path`. Raises QueueError for any other.

        `lease`: seconds for which a claim stands without a word from its daemon.
        """
        prefix, path = url[:10], url[10:]
        if prefix != "sqlite:///" or not path.startswith("/"):
            raise QueueError(
                f"{url!r} is not a database: write sqlite:////absolute/path or postgresql://…"
            )
        self.shown = url
        self.leases = Leases(lease)
        # Two names of one file must meet at one lock.
        self.path = Path(os.path.realpath(path))
        self._lock: int | None = None

    def open(self) -> None:
        """Make folder and file where they are missing, and take the lock.

        Raises DatabaseInUse where another daemon has it, QueueError where it cannot be opened.
        """
        try:
            if not self.path.parent.exists():
                self.path.parent.mkdir(parents=True, mode=0o750)
                self.path.parent.chmod(0o750)
            self._take_lock()
            _create(self.path)
        except OSError as error:
            self.close()
            raise QueueError(f"the database {self.path} cannot be opened: {error}") from error

    def _take_lock(self) -> None:
        path = self.path.with_name(self.path.name + ".lock")
        _create(path)
        self._lock = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(self._lock, 20).decode("ascii", "replace").strip()
            self.close()
            holder = f"the daemon with pid {pid}" if pid.isdigit() else "another daemon"
            raise DatabaseInUse(f"{self.path} is in use by {holder}") from None
        os.ftruncate(self._lock, 0)
        os.write(self._lock, f"{os.getpid()}\n".encode("ascii"))

    def connect(self, *, writes: bool) -> Connection:
        """A connection for the calling thread. Raises QueueError where it is no database of ours.

        `writes`: one that only reads cannot write even by mistake.
        """
        pragmas: list[tuple[str, Any]] = [
            ("journal_mode", "WAL"),
            ("synchronous", "FULL"),
            ("journal_size_limit", 64 << 20),
            ("cache_size", -CACHE_KIB if writes else -CACHE_KIB // 4),
            ("wal_autocheckpoint", CHECKPOINT),
        ]
        if not writes:
            pragmas.append(("query_only", 1))
        database = SqliteDatabase(
            str(self.path),
            pragmas=pragmas,
            lock_type="IMMEDIATE",
            timeout=BUSY_TIMEOUT,
            cached_statements=STATEMENTS,
        )
        try:
            return SqliteConnection(database)
        except Exception as error:  # peewee raises its own, or the driver's
            database.close()
            raise QueueError(f"the database {self.path} cannot be opened: {error}") from error

    def session(
        self, connection: Connection, owner: str, clock: Clock, tables: Mapping[str, Table]
    ) -> SqliteSession:
        """As in the interface."""
        return SqliteSession(connection, owner, clock, tables, self.leases)

    def crowded(self) -> bool:
        """True where the disk is too full for new work."""
        disk = os.statvfs(self.path)
        used = disk.f_blocks - disk.f_bfree
        return used > CROWDED * (used + disk.f_bavail)

    @contextmanager
    def models(self, connection: Connection) -> Iterator[SqliteDatabase]:
        """As in the interface; it is the same connection."""
        assert isinstance(connection, SqliteConnection)
        yield connection.orm

    def back_up(self, name: str) -> None:
        """Keep a copy beside the file, under its name and `name`; one that is there stays."""
        copy = self.path.with_name(f"{self.path.name}.{name}")
        if copy.exists():
            return
        half = copy.with_name(f"{copy.name}.part")
        half.unlink(missing_ok=True)
        _create(half)
        with (
            closing(sqlite3.connect(self.path)) as source,
            closing(sqlite3.connect(half)) as target,
        ):
            source.backup(target)
        # Whole, or not there: a daemon that dies half-way makes it anew.
        descriptor = os.open(half, os.O_RDONLY | os.O_CLOEXEC)
        os.fsync(descriptor)
        os.close(descriptor)
        half.rename(copy)

    def close(self) -> None:
        """Give the lock up. Connections are closed by their threads before."""
        if self._lock is not None:
            # The file stays: who waits for its name to vanish could lock a file without a name.
            os.close(self._lock)
            self._lock = None


@lru_cache(maxsize=256)
def statement(sql: str, columns: int, size: int) -> str:
    """A statement over many rows, for `size` of them."""
    row = f"({', '.join('?' * columns)})"
    return sql.format(rows=", ".join([row] * size))


def _create(path: Path) -> None:
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
    except FileExistsError:
        return
    os.fchmod(handle, 0o640)
    os.close(handle)
