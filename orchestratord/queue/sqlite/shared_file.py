"""A file of SQLite that workers of a process group share, by the rules of daemons on PostgreSQL.

Writers take turns, by a lock that queues them; who reads waits for none. The process that starts
them holds the file against other runs: see `Database.take_for_workers`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from peewee import SqliteDatabase

from orchestratord.queue.connection import Connection, Failures, NotOnDisk
from orchestratord.queue.database import Wakeups, Workers
from orchestratord.queue.records import Claimed, Pick
from orchestratord.queue.sqlite.claim_sqlite import SqliteSession
from orchestratord.queue.sqlite.mailboxes import SqliteMessenger
from orchestratord.queue.sqlite.main_file import MainFile
from orchestratord.queue.sqlite.sqlite_database import (
    SqliteConnection,
    SqliteFile,
    create,
    files_of,
)
from orchestratord.queue.sqlite.turn import TURN, Turn
from orchestratord.values import world


class SharedConnection(SqliteConnection):
    """A connection to the file, beside those of other workers."""

    queues = True

    def __init__(
        self,
        database: SqliteDatabase,
        path: Path,
        failures: Failures,
        main_file: MainFile,
        journal: Journal,
        turn: Turn | None,
    ) -> None:
        """
        Args:
            database: connected.
            path: of the file.
            failures: how its failures are told apart.
            main_file: the same, as the system has it.
            journal: brings to the disk what is committed.
            turn: what writers take turns by; None for a connection that only reads.
        """
        super().__init__(database, path, failures, main_file)
        self._journal = journal
        self._turn = turn

    @property
    def turn(self) -> Turn:
        """What writers take turns by; only one that writes has it."""
        assert self._turn is not None
        return self._turn

    def begin(self, lock_wait: float = 1.0) -> None:
        """Begin to write, when it is our turn."""
        self.turn.take()
        try:
            super().begin()
        except BaseException:
            self.turn.release()
            raise

    def commit(self) -> None:
        """Make the transaction durable. Where that brings the journal into the main file, others do
        not write meanwhile: it would never be empty, and never begin anew. They do while the
        journal comes to the disk, with what they write upon this: see `Journal`."""
        super().commit()
        self.turn.release()
        self.sync()

    def rollback(self) -> None:
        """Undo the transaction, if there still is one."""
        try:
            super().rollback()
        finally:
            self.turn.release()

    @contextmanager
    def look(self) -> Iterator[None]:
        """As in the interface. What was seen, or not, is on the disk before it is told."""
        try:
            with super().look():
                yield
        finally:
            self.sync()

    def sync(self) -> None:
        """Have on the disk what is committed by now, by whichever worker. Raises NotOnDisk."""
        self._journal.sync()

    def foreign_changes(self) -> int:
        """As in the interface: who of the workers has written cannot be told from others."""
        return 0

    def checkpoint(self, *, wait: bool = True) -> None:
        """As in the interface. The last word is that of the worker that closes the file last, for
        which SQLite does it by itself."""
        if not wait:
            with self.turn.ours():
                super().checkpoint(wait=False)

    def release_pages(self, pages: int) -> None:
        """As in the interface."""
        with self.turn.ours():
            super().release_pages(pages)

    def close(self) -> None:
        """Close it; in the thread that made it."""
        super().close()
        if self._turn is not None:
            self._turn.release()


class Journal:
    """The journal of a shared file, which each worker brings to the disk by itself.

    SQLite would do so within COMMIT, while it keeps all others from writing. It does it in the same
    way, by fdatasync(2), and finds the end of what is whole by checksums: what one worker syncs
    covers all that others wrote before, and a transaction is lost with those that built on it. So
    what was written, or seen, is told only once it is synced.
    """

    def __init__(self, path: Path) -> None:
        """`path`: of the main file."""
        self._path = files_of(path)[1]
        self._opening = world.Lock()
        self._descriptor: int | None = None
        self._failed: str | None = None

    def sync(self) -> None:
        """Bring to the disk what is in it by now; from any thread. Raises NotOnDisk, and from then
        on each time: the system tells of a page that it could not write once."""
        if self._failed is not None:
            raise NotOnDisk(self._failed)
        try:
            with self._opening:
                if self._descriptor is None:
                    self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            world.fdatasync(self._descriptor)
        except OSError as error:
            what = f"{self._path} cannot be brought to the disk ({error.strerror or error})"
            self._failed = f"{what}: what is there is not known"
            raise NotOnDisk(self._failed) from error

    def close(self) -> None:
        """Sync no more."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


@dataclass(slots=True)
class SharedSession(SqliteSession):
    """The session of one worker among several."""

    def claim(self, picks: Sequence[Pick]) -> Claimed:
        """As in the interface."""
        picks = list({pick.key: pick for pick in picks}.values())
        return self._within(picks, picks)


class SharedFile(SqliteFile):
    """One file, as one of the workers has it open."""

    several_daemons = True
    session_class = SharedSession
    synchronous = "NORMAL"
    """What is brought in from the journal; the journal itself is synced without it (`Journal`)."""

    def __init__(self, url: str, lease: float, workers: Workers) -> None:
        """As `SqliteFile`. `workers`: of which this is one."""
        super().__init__(url, lease)
        self._workers = workers
        self._folder = self.path.with_name(f"{self.path.name}.workers")
        self._turn: Turn | None = None
        self._journal = Journal(self.path)

    def open(self) -> None:
        """Make what is missing. Raises QueueError where it cannot be opened."""
        try:
            self.path.parent.mkdir(parents=True, mode=0o750, exist_ok=True)
            if not self._folder.is_dir():
                self._folder.mkdir(mode=0o750, exist_ok=True)
                self._folder.chmod(0o750)
            create(self.path)
            create(self._lock_path)  # which the process that starts the workers has taken
            self._turn = Turn(self._folder / TURN)
            self._names += (str(self._folder / TURN),)  # else others would write out of turn
        except OSError as error:
            raise self.unusable(error) from error

    def connect(self, *, writes: bool) -> Connection:
        """As in the interface. The first one makes the journal, which others are not to do at the
        same time."""
        if not writes:
            return super().connect(writes=False)
        assert self._turn is not None
        with self._turn.ours():
            connection = super().connect(writes=True)
            # What a daemon could not bring to the disk may look as if it were there: it is written
            # anew, into the main file.
            connection.one("PRAGMA wal_checkpoint(PASSIVE)")
            return connection

    def _connection(self, database: SqliteDatabase, writes: bool) -> SharedConnection:
        turn = self._turn if writes else None
        return SharedConnection(
            database, self.path, self.failures, self._main_file, self._journal, turn
        )

    @contextmanager
    def models(self, connection: Connection) -> Iterator[SqliteDatabase]:
        """As in the interface. Others do not write meanwhile, nor change the schema."""
        assert isinstance(connection, SharedConnection)
        with connection.turn.ours():
            yield connection.orm
        connection.sync()

    def messenger(self, owner: str, wakeups: Wakeups) -> SqliteMessenger:
        """As in the interface."""
        return SqliteMessenger(self._workers, owner, wakeups)

    def close(self) -> None:
        """Give it up. Connections are closed by their threads before."""
        self._main_file.close()
        if self._turn is not None:
            self._turn.close()
            self._turn = None
        self._journal.close()
