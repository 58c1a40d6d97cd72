"""The queue in a file of SQLite.

One run at a time has a database, by a lock on a file beside it that is held for life. Inside the
daemon one connection writes, on one thread, and one reads, on another; each thread makes its own.
Where a run has several workers, `shared_file` has what they do besides.
"""

from __future__ import annotations

import codecs
import errno
import fcntl
import os
import sqlite3
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import lru_cache, partial
from itertools import chain
from operator import methodcaller
from pathlib import Path
from typing import Any

from peewee import PeeweeException, SqliteDatabase

from orchestratord.errors import DatabaseInUse, QueueError
from orchestratord.model.task import Key
from orchestratord.queue.connection import Connection, Failures, Row
from orchestratord.queue.daemon_health import Code
from orchestratord.queue.database import Database
from orchestratord.queue.records import HoldingBack
from orchestratord.queue.rows import NO_TEXT
from orchestratord.queue.session import LEASE, Leases
from orchestratord.queue.sqlite.claim_sqlite import NEXT_KEY, OF_DEAD, SqliteSession
from orchestratord.queue.sqlite.file_locks import readers, writers
from orchestratord.queue.sqlite.main_file import MainFile
from orchestratord.queue.sqlite.network_mounts import MOUNTS, network_type
from orchestratord.values import world

BUSY_TIMEOUT = 5.0
"""Seconds to wait for a lock; only a person with a shell can hold one."""

STATEMENTS = 512
"""Statements that a connection keeps prepared."""

JOURNAL = 64 << 20
"""Bytes of the journal that are kept for what is written next."""

JOURNAL_SHARE = 32
"""Of a small disk they are no more than this part."""

TIGHT = 64 << 20
"""Bytes that are free on a disk on which each commit brings the journal into the main file. Else
the disk may be full of a journal that has no room any more to go there."""

HELD = JOURNAL + (16 << 20)
"""Bytes; the journal is larger only while what is in it cannot be given up."""

END_OF_OTHER = 3.0
"""Seconds for which one that finds a journal without a lock waits: who has the database open, and
had its lock deleted, sees that within a second, and ends."""

TRIED = 64 * 1024
"""Bytes that are written to ask the system what is wrong with its disk."""

CHECKPOINT = 4000
"""Pages in the journal from which a commit brings them into the main file: a page that changes
often is written once for all of it. More would be cheaper still, and hold that commit up longer."""

CACHE_KIB = 16 * 1024
"""Of pages, for the connection that writes; what is read for people comes from far apart anyway."""

CROWDED = 0.95
"""The share of the disk in use over which no new work is accepted; free pages are not in use."""

SPARE = 8
"""Free pages are given back to the disk while they are more than this part of the file: what is
kept is used again soon, and costs nothing."""

STEP = 256
"""Pages that are given back at a time, about once a second: some five milliseconds."""

INCREMENTAL = 2
"""Of `auto_vacuum`: free pages are given back when that is asked for."""

MOST = 256
"""Rows in one statement over many."""
SIXTEENTHS = 64
"""Up to so many, a statement is made for any number of rows with four binary digits that count, as
22 or 52: then two are enough. Over that for 64, 128 and 256. So each of them stays prepared, and
there are few. A statement gives the interpreter up to the busy event loop, and other workers wait
until it has it back."""


def _no_text(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return NO_TEXT, error.end


codecs.register_error("orchestratord.no_text", _no_text)

# One row that is no UTF-8 would else fail each statement that meets it, and a claim for ever. It
# costs no more than `str`, and a second look with another would find nothing of RETURNING.
_text = methodcaller("decode", "utf-8", "orchestratord.no_text")


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


_TROUBLES = {
    sqlite3.SQLITE_FULL: Code.FULL,
    sqlite3.SQLITE_BUSY: Code.LOCKED,
    sqlite3.SQLITE_LOCKED: Code.LOCKED,
    sqlite3.SQLITE_PROTOCOL: Code.LOCKED,
    sqlite3.SQLITE_READONLY: Code.READ_ONLY,
    sqlite3.SQLITE_IOERR: Code.FAILING,
    sqlite3.SQLITE_CANTOPEN: Code.FAILING,
    sqlite3.SQLITE_CORRUPT: Code.DAMAGED,
    sqlite3.SQLITE_NOTADB: Code.DAMAGED,
}
_READING = (sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR | 33 << 8)
"""The second one is SQLITE_IOERR_CORRUPTFS, which not every version of Python names."""
_OF_THE_SYSTEM = {
    errno.ENOSPC: Code.FULL,
    errno.EDQUOT: Code.FULL,
    errno.EROFS: Code.READ_ONLY,
}


def _code(error: BaseException) -> int:
    if isinstance(error, PeeweeException) and error.__context__ is not None:
        error = error.__context__  # it wraps them
    code = getattr(error, "sqlite_errorcode", None) if isinstance(error, sqlite3.Error) else None
    return code or 0


def is_of_reading(error: BaseException) -> bool:
    """Whether it has to be looked at again: SQLite may call damaged what the disk did not give it
    once."""
    code = _code(error)
    return code in _READING or _TROUBLES.get(code & 0xFF) is Code.DAMAGED


def trouble(error: BaseException, folder: Path) -> Code | None:
    """What is wrong with the file in `folder`, by what SQLite says, and the system where SQLite
    says no more than that an I/O failed."""
    found = _TROUBLES.get(_code(error) & 0xFF)
    if found is Code.FAILING:
        try:
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(b"x" * TRIED)
                file.flush()
                os.fsync(file.fileno())
        except OSError as why:
            return _OF_THE_SYSTEM.get(why.errno or 0, found)
    return found


def _who(path: Path, code: Code) -> list[str]:
    return writers(path) if code is Code.LOCKED else []


class SqliteConnection(Connection):
    """One connection to the file. The one that begins to write keeps all others from it."""

    def __init__(
        self, database: SqliteDatabase, path: Path, failures: Failures, main_file: MainFile
    ) -> None:
        self.failures = failures
        self._path = path
        self._main_file = main_file
        self._checkpoint_each = 0
        """Pages; 0 until it is set."""
        self.orm = database
        """For queries that peewee builds."""
        self._raw: sqlite3.Connection = database.connection()  # type: ignore[no-untyped-call]
        self._raw.text_factory = _text
        self._shrinks = self.one("PRAGMA auto_vacuum") == (INCREMENTAL,)
        """It can give free pages back: older versions made files that cannot."""

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
        # `execute` gives the interpreter up once more, to ask for the id of a row.
        return self._raw.executemany(sql, (parameters,)).rowcount

    def insert(self, sql: str, parameters: Sequence[Any]) -> int:
        """Insert one row; its id."""
        return self._raw.execute(sql, parameters).lastrowid or 0

    def many(self, sql: str, types: Sequence[str], rows: Sequence[Sequence[Any]]) -> int:
        """As in the interface. Without ROLLBACK for a conflict, SQLite would keep a copy of each
        page that the statement changes; so it has to be a transaction that can be repeated."""
        changed = done = 0
        while left := len(rows) - done:
            size = at_once(left)
            values = list(chain.from_iterable(rows[done : done + size]))
            changed += self.run(statement(sql, len(types), size), values)
            done += size
        return changed

    def reserve(self, table: str, count: int) -> Sequence[int]:
        """As in the interface: nothing else can write meanwhile, so they need not be noted."""
        first = 1 + self.value("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,), 0)
        return range(first, first + count)

    def reserve_ahead(self, table: str, count: int) -> Sequence[int]:
        """As in the interface: noted as if the rows had been there."""
        ids = self.reserve(table, count)
        if not self.run("UPDATE sqlite_sequence SET seq = ? WHERE name = ?", (ids[-1], table)):
            self.run("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table, ids[-1]))
        return ids

    def begin(self, lock_wait: float = 1.0) -> None:
        """Begin to write; no other connection can from here on."""
        self._raw.executemany("BEGIN IMMEDIATE", ((),))

    def commit(self) -> None:
        """Make the transaction durable."""
        if not self._raw.in_transaction:  # SQLite has undone it, for which `commit` is silent
            raise sqlite3.OperationalError("cannot commit: the transaction was undone")
        if 0 < self._checkpoint_each < CHECKPOINT:
            self._reserve()
        self._raw.commit()

    def _reserve(self) -> None:
        """Take what the transaction adds to the main file off a disk that has little room."""
        try:
            self._main_file.reserve(self._pages("page_count") * self._pages("page_size"))
        except OSError as error:
            if _OF_THE_SYSTEM.get(error.errno or 0) is Code.FULL:
                full = sqlite3.OperationalError("database or disk is full")
                full.sqlite_errorcode = sqlite3.SQLITE_FULL
                raise full from error
            # Whatever else is wrong, COMMIT says.

    def rollback(self) -> None:
        """Undo the transaction, if there still is one: a full disk ends it by itself."""
        try:
            if self._raw.in_transaction:
                self._raw.execute("ROLLBACK")
        except sqlite3.Error:
            if self._raw.in_transaction:
                raise

    @contextmanager
    def look(self) -> Iterator[None]:
        """As in the interface: each statement alone would see what was written since the last."""
        self._raw.execute("BEGIN")
        try:
            yield
        finally:
            SqliteConnection.rollback(self)  # not a worker's own, which gives its turn back

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
        return int(self.value("PRAGMA data_version"))

    def checkpoint(self, *, wait: bool = True) -> None:
        """As in the interface."""
        self.one(f"PRAGMA busy_timeout = {BUSY_TIMEOUT * 1000 * wait:.0f}")
        try:
            self.one("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            self.one(f"PRAGMA busy_timeout = {BUSY_TIMEOUT * 1000:.0f}")

    def tend(self) -> None:
        """As in the interface: bring the journal in more often while there is little room."""
        if (pages := _checkpoint_each(self._path)) != self._checkpoint_each:
            self._checkpoint_each = pages
            self.one(f"PRAGMA wal_autocheckpoint = {pages}")
        free, pages = self._pages("freelist_count"), self._pages("page_count")
        if self._shrinks and free > pages // SPARE:
            with suppress(sqlite3.Error):  # without room in the journal, perhaps later
                self.release_pages(min(STEP, free - pages // SPARE))

    def release_pages(self, pages: int) -> None:
        """Give so many free pages back to the disk."""
        # It is a row for each page, of no columns, which `execute` takes for the end.
        self._raw.executescript(f"PRAGMA incremental_vacuum({pages})")

    def free_bytes(self) -> int:
        """How much of the file waits for what is written next."""
        return self._pages("freelist_count") * self._pages("page_size")

    def _pages(self, name: str) -> int:
        return int(self.value(f"PRAGMA {name}"))

    def holding_back(self, longer_than: float) -> list[HoldingBack]:
        """As in the interface: who reads, while the journal grows. What has grown so large has done
        so for long."""
        return held_back(self._path)

    def size(self) -> int:
        """Bytes on disk, the journal included."""
        return sum(name.stat().st_size for name in files_of(self._path)[:2] if name.exists())

    def earliest_keys(self) -> Iterator[Row]:
        """As in the interface."""
        key: Row = Key("")
        while row := self.one(NEXT_KEY, key):
            yield row
            key = row[:2]

    def lives(self, owner: str, until: int, now: int) -> bool:
        """As in the interface."""
        return self.one("SELECT 1 FROM daemons WHERE owner = ?", (owner,)) is not None

    def claims_run_out(self, owner: str, held: Collection[int]) -> bool:
        """As in the interface."""
        return bool(self.value(f"SELECT EXISTS ({OF_DEAD})", (owner,)))

    def close(self) -> None:
        """Close it; in the thread that made it."""
        self.orm.close()


class SqliteFile(Database):
    """One file, locked for this daemon from `open` to `close`."""

    synchronous = "FULL"
    """What SQLite itself brings to the disk: all that is committed."""
    session_class = SqliteSession
    connection_class = sqlite3.Connection
    """What a simulation puts its own in the place of, which waits for locks in its time."""

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
        self.path = file = Path(os.path.realpath(path))
        self._lock: int | None = None
        self._main_file = MainFile(file)
        self._lock_path = file.with_name(f"{file.name}.lock")
        self._names: tuple[str, ...] = tuple(map(str, (*files_of(file), self._lock_path)))
        """The files that have to stay where they are."""
        self._kept: Sequence[tuple[float, ...]] = ()
        """The files that are open, by inode and device."""
        self.failures = Failures(
            (sqlite3.Error, PeeweeException),
            partial(trouble, folder=file.parent),
            is_unfit,
            is_passing=is_of_reading,
            who=partial(_who, file),
        )

    def open(self) -> None:
        """Make folder and file where they are missing, and take the lock.

        Raises DatabaseInUse where another daemon has it, QueueError where it cannot be opened.
        """
        self._lock = self.take_instance_lock()
        try:
            create(self.path)
        except OSError as error:
            self.close()
            raise self.unusable(error) from error

    def take_instance_lock(self) -> int:
        """Take the file for one run; its folder is made where it is missing. The descriptor: the
        lock lasts until it is closed, and closed in all processes that have inherited it.

        Raises DatabaseInUse where another run has it, QueueError where it cannot be opened.
        """
        try:
            if not self.path.parent.exists():
                self.path.parent.mkdir(parents=True, mode=0o750)
                self.path.parent.chmod(0o750)
            if not self._lock_path.exists() and files_of(self.path)[1].exists():
                world.sleep(END_OF_OTHER)
            create(self._lock_path)
            lock = os.open(self._lock_path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise self.unusable(error) from error
        try:
            world.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(lock, 0)
            os.write(lock, f"{os.getpid()}\n".encode("ascii"))
        except BlockingIOError:
            pid = os.read(lock, 20).decode("ascii", "replace").strip()
            os.close(lock)
            holder = f"the daemon with pid {pid}" if pid.isdigit() else "another daemon"
            raise DatabaseInUse(
                f"{self.path} is in use by {holder}: end that, or set `database` to another file"
            ) from None
        except OSError as error:
            os.close(lock)
            raise self.unusable(error) from error
        return lock

    def take_for_workers(self, held: int | None = None) -> int:
        """As in the interface."""
        kind = network_type(self.path.parent, MOUNTS)
        if kind is not None:
            raise QueueError(
                f"the database {self.path} is on a network file system ({kind}), where workers "
                "cannot share it: put it on a disk of this machine, use postgresql://…, or set "
                "`workers: 1`"
            )
        path = self._lock_path
        if held is not None and path.exists() and os.path.samestat(os.fstat(held), path.stat()):
            return held
        return self.take_instance_lock()

    def unusable(self, error: OSError) -> QueueError:
        """What is raised where its files cannot be opened."""
        full = _OF_THE_SYSTEM.get(error.errno or 0) is Code.FULL
        remedy = "make room on its disk" if full else "let this user write to it and to its folder"
        return QueueError(
            f"the database {self.path} cannot be opened: {error}; {remedy}, or set `database`"
        )

    def connect(self, *, writes: bool) -> Connection:
        """A connection for the calling thread. Raises QueueError where it is no database of ours.

        `writes`: one that only reads cannot write even by mistake.
        """
        disk = world.statvfs(self.path)
        limit = min(JOURNAL, disk.f_blocks * disk.f_frsize // JOURNAL_SHARE)
        pragmas: list[tuple[str, Any]] = [
            ("journal_mode", "WAL"),
            ("synchronous", self.synchronous),
            ("journal_size_limit", limit),
            ("cache_size", -CACHE_KIB if writes else -CACHE_KIB // 4),
            ("wal_autocheckpoint", _checkpoint_each(self.path)),
        ]
        if not writes:
            pragmas.append(("query_only", 1))
        elif not self.path.stat().st_size:  # before anything is written to it
            pragmas.insert(0, ("auto_vacuum", INCREMENTAL))
        database = SqliteDatabase(
            str(self.path),
            pragmas=pragmas,
            lock_type="IMMEDIATE",
            timeout=BUSY_TIMEOUT,
            cached_statements=STATEMENTS,
            factory=self.connection_class,
        )
        try:
            return self._connection(database, writes)
        except Exception as error:  # peewee raises its own, or the driver's
            database.close()
            why = self.failures.named(error)
            raise QueueError(f"the database {self.path} cannot be opened: {why}") from error

    def _connection(self, database: SqliteDatabase, writes: bool) -> SqliteConnection:
        return SqliteConnection(database, self.path, self.failures, self._main_file)

    def crowded(self, connection: Connection) -> bool:
        """True where the disk is too full for new work."""
        disk = world.statvfs(self.path)
        used = disk.f_blocks - disk.f_bfree
        excess = used - CROWDED * (used + disk.f_bavail)
        return excess > 0 and excess * disk.f_frsize > connection.free_bytes()

    def gone(self) -> str | None:
        """As in the interface. The first call notes which files are open."""
        try:
            kept = [os.stat(name)[1:3] for name in self._names]  # at each COMMIT
        except (FileNotFoundError, NotADirectoryError) as error:
            return f"{error.filename} was deleted or moved while the daemon had it open"
        except OSError:
            return None  # the disk says it itself
        self._kept = self._kept or kept
        if kept == self._kept:
            return None
        return f"{self.path} or a file beside it was replaced while the daemon had it open"

    @contextmanager
    def models(self, connection: Connection) -> Iterator[SqliteDatabase]:
        """As in the interface; it is the same connection."""
        assert isinstance(connection, SqliteConnection)
        yield connection.orm

    def back_up(self, name: str) -> None:
        """Keep a copy beside the file, under its name and `name`. One of an older schema stays: the
        change was broken off, and begins again. Raises QueueError."""
        copy = self.path.with_name(f"{self.path.name}.{name}")
        half = copy.with_name(f"{copy.name}.part")
        try:
            if copy.exists() and _schema(copy) != _schema(self.path):
                return
            half.unlink(missing_ok=True)
            create(half)
            with (
                closing(sqlite3.connect(self.path)) as source,
                closing(sqlite3.connect(half)) as target,
            ):
                target.execute("PRAGMA journal_mode = OFF")
                source.backup(target)
            # Whole, or not there: a daemon that dies half-way makes it anew.
            with half.open("rb") as file:
                os.fsync(file.fileno())
            half.rename(copy)
        except (OSError, sqlite3.Error) as error:
            half.unlink(missing_ok=True)  # the daemon of before needs the room
            raise QueueError(
                f"make room for {copy}, a copy from before the change: {error}"
            ) from error

    def close(self) -> None:
        """Give the lock up. Connections are closed by their threads before."""
        self._main_file.close()
        if self._lock is not None:
            # The file stays: who waits for its name to vanish could lock a file without a name.
            os.close(self._lock)
            self._lock = None


def at_once(rows: int) -> int:
    """How many of so many rows one statement takes."""
    digits = rows.bit_length()
    if rows < SIXTEENTHS:
        return rows >> max(digits - 4, 0) << max(digits - 4, 0)
    return min(1 << digits - 1, MOST)


@lru_cache(maxsize=512)
def statement(sql: str, columns: int, size: int) -> str:
    """A statement over many rows, for `size` of them."""
    row = f"({', '.join('?' * columns)})"
    return sql.format(rows=", ".join([row] * size))


def files_of(path: Path) -> tuple[Path, Path, Path]:
    """A database, its journal, and the index of that."""
    return path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")


def _schema(path: Path) -> Any:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT version FROM schema").fetchone()


def _checkpoint_each(path: Path) -> int:
    disk = world.statvfs(path)
    return 1 if disk.f_bavail * disk.f_frsize < TIGHT else CHECKPOINT


def held_back(path: Path) -> list[HoldingBack]:
    """What keeps the journal of a database from being emptied, where it has grown beyond what it
    may keep."""
    journal = files_of(path)[1]
    size = journal.stat().st_size if journal.exists() else 0
    if size <= HELD:
        return []
    grown = f"{size / (1 << 20):,.0f} MiB"
    who = readers(path) or [f"a program that cannot be named from here (`fuser {path}` may),"]
    return [
        HoldingBack(
            subject,
            f"{subject} has been reading the database for so long that {journal.name} beside it "
            f"has grown to {grown}, and goes on growing: end that, and it shrinks by itself",
        )
        for subject in who
    ]


def create(path: Path) -> None:
    """Make an empty file, unless there is one, which this user may write to. Raises OSError."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
    except FileExistsError:
        # SQLite would say that it is the disk which fails.
        if not os.access(path, os.R_OK | os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path)) from None
        return
    os.fchmod(handle, 0o640)
    os.close(handle)
