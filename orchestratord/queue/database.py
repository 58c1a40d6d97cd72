"""What the queue asks of a database, whichever it is: SQLite or PostgreSQL.

Statements are written once, with question marks for their values. Where the two databases do not
speak alike, or one is quicker another way, the connection has the difference: `sqlite` and
`postgres` are the only files that know one of them. What SQLite has to be told of its indexes
(`BY_DUE` and so on) PostgreSQL does not read.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import peewee

from orchestratord.errors import QueueError, StorageFull, Unreachable

if TYPE_CHECKING:
    from orchestratord.queue.postgres.notify import Wakeups
    from orchestratord.queue.records import Wakeup

Row = tuple[Any, ...]

# Without statistics SQLite takes one equality to be as good as another, and the status for what
# finds the fewest rows. A hint keeps each statement on the index that was made for it, and turns an
# index that is missing into an error instead of a slow queue.
BY_DUE = "INDEXED BY retry_schedule_due"
BY_RUNNING = "INDEXED BY retry_schedule_running"
BY_FINISHED = "INDEXED BY retry_schedule_finished"
BY_CREATED = "INDEXED BY retry_schedule_created"
BY_ENDPOINT = "INDEXED BY retry_schedule_endpoint"
BY_STATUS = "INDEXED BY retry_schedule_status"
BY_PARENT = "INDEXED BY retry_schedule_parent"
BY_ID = "NOT INDEXED"  # the primary key is no index of its own


@dataclass(frozen=True, slots=True)
class Failures:
    """How the failures of one kind of database are told apart."""

    errors: tuple[type[Exception], ...]
    """What they are raised as."""
    is_full: Callable[[BaseException], bool]
    """True where the disk had no room."""
    is_unfit: Callable[[BaseException], bool]
    """True where a value cannot be stored or breaks a constraint: it will never be taken."""
    is_lost: Callable[[BaseException], bool] = lambda error: False
    """True where the connection is gone, or the server that it led to."""
    is_passing: Callable[[BaseException], bool] = lambda error: False
    """True where the same transaction may well succeed when it is done again."""

    def named(self, error: Exception) -> QueueError:
        """What the queue raises for a failure of the database."""
        if self.is_full(error):
            return StorageFull(f"the disk takes no more: {error}")
        if self.is_lost(error):
            return Unreachable(f"the database cannot be reached: {' '.join(str(error).split())}")
        # Further lines quote the statement.
        return QueueError(f"the database refused: {str(error).partition(chr(10))[0]}")


class Connection(ABC):
    """One connection, used by the thread that made it, in transactions that are asked for."""

    failures: Failures
    shared: bool = False
    """Whether others may write at the same time."""
    for_update: str = ""
    """At the end of a SELECT whose rows are then changed: keeps others from changing them."""

    @abstractmethod
    def all(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """Every row of a statement."""

    @abstractmethod
    def one(self, sql: str, parameters: Sequence[Any] = ()) -> Row | None:
        """The first row of a statement, None for none."""

    @abstractmethod
    def run(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run a statement; the number of rows that it changed."""

    @abstractmethod
    def insert(self, sql: str, parameters: Sequence[Any]) -> int:
        """Insert one row; its id."""

    @abstractmethod
    def many(self, sql: str, types: Sequence[str], rows: Sequence[Sequence[Any]]) -> int:
        """Run a statement over many rows, in their order; the number of rows that it changed.

        Args:
            sql: with `VALUES {rows}` where the rows go; their columns are `column1` and so on.
            types: of the columns: bigint, text or float8.
            rows: some.
        """

    @abstractmethod
    def reserve(self, table: str, count: int) -> Sequence[int]:
        """The ids of the next rows of a table, ascending, within a transaction."""

    def guard(self) -> AbstractContextManager[None]:
        """Keeps a statement that fails inside from spoiling the transaction."""
        return _nothing()

    @abstractmethod
    def begin(self) -> None:
        """Begin to write."""

    @abstractmethod
    def commit(self) -> None:
        """Make the transaction durable."""

    @abstractmethod
    def rollback(self) -> None:
        """Undo the transaction, if there still is one."""

    @property
    @abstractmethod
    def in_transaction(self) -> bool:
        """False once the transaction has ended, however it has."""

    @abstractmethod
    def savepoint(self) -> None:
        """Mark the point that `undo` goes back to."""

    @abstractmethod
    def keep(self) -> None:
        """Forget the savepoint and keep what was written since."""

    @abstractmethod
    def undo(self) -> None:
        """Undo what was written since the savepoint."""

    @property
    @abstractmethod
    def written(self) -> int:
        """A number that grows with every row that is written."""

    def foreign_changes(self) -> int:
        """A number that changes when another program has written, where that can be told."""
        return 0

    def checkpoint(self) -> None:  # noqa: B027  # not every database has that
        """Bring everything into the main file."""

    def shrink(self) -> None:  # noqa: B027  # not every database has that
        """Let go of the pages that are kept in memory."""

    def look(self) -> AbstractContextManager[None]:
        """Everything that is read inside is of one moment, where others may write meanwhile."""
        return _nothing()

    def mend(self) -> bool | None:
        """Connect again after the connection was lost; raises what the database raises.

        Whether the transaction was committed whose COMMIT went unanswered; None where there was
        none, or where nobody can tell.
        """
        return None

    @property
    def in_doubt(self) -> bool:
        """True while nobody knows whether a transaction was committed."""
        return False

    @abstractmethod
    def close(self) -> None:
        """Close it; in the thread that made it."""


class Database(ABC):
    """Where a queue is kept."""

    failures: Failures
    shared: bool = False
    """Whether other daemons work on it at the same time."""
    gather: float = 0.0
    """Seconds for which what is in no hurry waits for others, while there is much to do: where a
    transaction costs as much as what is done in it for many tasks."""
    shown: str
    """Its URL without a password."""

    @abstractmethod
    def open(self) -> None:
        """Make it ready to be connected to; raises QueueError where that cannot be."""

    @abstractmethod
    def connect(self, *, writes: bool) -> Connection:
        """A connection for the calling thread. Raises QueueError where it is no database of ours.

        `writes`: one that only reads cannot write even by mistake.
        """

    @abstractmethod
    def models(self, connection: Connection) -> AbstractContextManager[peewee.Database]:
        """The database for queries that peewee builds: its schema's."""

    def alone(self) -> AbstractContextManager[None]:
        """Keeps other daemons from changing the schema meanwhile."""
        return _nothing()

    def back_up(self, name: str) -> None:  # noqa: B027  # not every database has that
        """Keep a copy beside it, before its schema changes; nothing where others do that."""

    def wakeups(self, owner: str, heard: Callable[[Wakeup], None]) -> Wakeups | None:
        """What tells other daemons of what is due, and hears of it; None where there are none."""
        return None

    def holding_back(self, connection: Connection, longer_than: float) -> list[str]:
        """What has kept the database from cleaning up for so many seconds, in words."""
        return []

    def crowded(self) -> bool:
        """True where the disk is too full for new work, as far as that can be seen from here."""
        return False

    @abstractmethod
    def size(self, connection: Connection) -> int:
        """Bytes on disk."""

    def close(self) -> None:  # noqa: B027  # not every database has that
        """Give it up. Connections are closed by their threads before."""


def open_database(url: str) -> Database:
    """The database of a URL, not yet open.

    Raises QueueError for a URL that is none, and where what PostgreSQL takes is not installed.
    """
    if url.startswith(("postgresql://", "postgres://")):
        from orchestratord.queue.postgres.postgres_database import PostgresDatabase  # is an extra

        return PostgresDatabase(url)
    from orchestratord.queue.sqlite_database import SqliteFile

    return SqliteFile(url)


@contextmanager
def _nothing() -> Iterator[None]:
    yield
