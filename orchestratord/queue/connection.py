"""A connection to the queue's database, whichever it is: SQLite or PostgreSQL.

Statements are written once, with question marks for their values. Where the two databases do not
speak alike, or one is quicker another way, the connection has the difference: `sqlite` and
`postgres` are the only folders that know one of them. What SQLite has to be told of its indexes
(`BY_DUE` and so on) PostgreSQL does not read.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from orchestratord.errors import QueueError, StorageFull, Unreachable

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
    """Whether other daemons may write at the same time. Then it is a server, too, to which each
    statement is a journey."""
    for_update: str = ""
    """At the end of a SELECT whose rows are then changed: keeps others from changing them."""
    _raw: Any
    """The driver's own connection."""

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
        return nullcontext()

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

    def savepoint(self) -> None:
        """Mark the point that `undo` goes back to."""
        self._raw.execute("SAVEPOINT operation")

    def keep(self) -> None:
        """Forget the savepoint and keep what was written since."""
        self._raw.execute("RELEASE operation")

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
        return nullcontext()

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
    def size(self) -> int:
        """Bytes on disk."""

    def holding_back(self, longer_than: float) -> list[str]:
        """What has kept the database from cleaning up for so many seconds, in words."""
        return []

    def claims_run_out(self, owner: str, held: Collection[int]) -> bool:
        """False where `Session.reclaim` of `owner`, who holds `held`, would find nothing; it is
        asked where the answer may take long, for which claims are not to wait."""
        return True

    def charged_rates(self) -> dict[str, tuple[int, list[list[int]]]]:
        """Of lanes with a rate that daemons keep together: the time by the database's clock, and
        what of it began lately, pairs of a time and how many."""
        return {}

    @abstractmethod
    def close(self) -> None:
        """Close it; in the thread that made it."""


# -- One statement over many rows ------------------------------------------------------------------


class Singly(Exception):
    """One of them is not as it usually is: each has to be looked at by itself."""


class ManyRows:
    """A statement with `VALUES {rows}` where its rows go.

    `OR ROLLBACK`: without that, SQLite would keep a copy of each page that the statement changes,
    in case of a conflict. So the transaction has to be one that can be done again.
    """

    def __init__(self, sql: str, *types: str) -> None:
        """`types`: of the columns of a row, which are called `column1` and so on: bigint, text or
        float8."""
        self.sql = sql
        self.types = types
        self._alone = sql.replace(" OR ROLLBACK", "")

    def run(self, db: Connection, rows: Sequence[Sequence[Any]]) -> int:
        """Run it for all of them, in their order; the number of rows that were changed.

        Raises Singly where the database does not take one of them; what it did is undone then, or
        is for the caller to undo.
        """
        if not rows:
            return 0
        try:
            return db.many(self.sql, self.types, rows)
        except Exception as error:
            raise Singly(str(error)) from error

    def one(self, db: Connection, row: Sequence[Any]) -> int:
        """The same for one row, which fails by itself: raises what the database raises."""
        return db.many(self._alone, self.types, (row,))
