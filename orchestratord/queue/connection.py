"""A connection to the queue's database, whichever it is: SQLite or PostgreSQL.

Statements are written once, with question marks for their values. Where the two databases do not
speak alike, or one is quicker another way, the connection has the difference: `sqlite` and
`postgres` are the only folders that know one of them. What SQLite has to be told of its indexes
(`BY_READY` and so on) PostgreSQL does not read.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

from orchestratord.errors import QueueError, StorageFull, Unreachable, Unstorable
from orchestratord.queue.daemon_health import Code
from orchestratord.queue.records import HoldingBack
from orchestratord.values import world

T = TypeVar("T")
Row = tuple[Any, ...]

# Without statistics SQLite takes one equality to be as good as another, and the status for what
# finds the fewest rows. A hint keeps each statement on the index that was made for it, and turns an
# index that is missing into an error instead of a slow queue.
BY_READY = "INDEXED BY retry_schedule_ready"
BY_RUNNING = "INDEXED BY retry_schedule_running"
BY_FINISHED = "INDEXED BY retry_schedule_finished"
BY_CREATED = "INDEXED BY retry_schedule_created"
BY_ENDPOINT = "INDEXED BY retry_schedule_endpoint"
BY_STATUS = "INDEXED BY retry_schedule_status"
BY_PARENT = "INDEXED BY retry_schedule_parent"
BY_BULK = "INDEXED BY retry_schedule_bulk"
BY_HELD = "INDEXED BY retry_schedule_held"
BY_HEAD = "INDEXED BY retry_schedule_head"
BY_BLOCKS = "INDEXED BY retry_schedule_blocks"
BY_STOPPED = "INDEXED BY retry_schedule_stopped"
BY_ORDERED = "INDEXED BY retry_schedule_ordered"
BY_PARTITION = "INDEXED BY retry_schedule_partition"
BY_REASON = "INDEXED BY retry_schedule_reason"
BY_RUN = "INDEXED BY retry_schedule_run"
BY_ID = "NOT INDEXED"  # the primary key is no index of its own

LISTED = "status <> 'running'"
"""What the indexes by status and by endpoint hold, on PostgreSQL also the one by creation: a
statement that is to use one has to say so."""
RUNNING = "status = 'running'"
READY = "status = 'pending' AND held = 0"
"""What a claim may see: it waits, and not for its turn in a partition."""
FAIR_HELD = "held = 1 AND turn_at = 0"
"""What waits for its turn in a partition that is not ordered."""
_BY_HEAD = """partition_rule >= 0 AND held = 0
    AND (status = 'pending' OR (partition_rule > 0 AND status = 'running'))"""
FAIR_HEAD = f"{_BY_HEAD} AND status = 'pending'"
"""Ready to be claimed, and at the head of a partition that is not ordered."""
LIMITED = f"{_BY_HEAD} AND status = 'running'"
"""What counts against the limit of a partition."""
BLOCKS = "turn_at > 0 AND id > 0"
"""What later ones of an ordered partition wait for: it has not ended, or holds the partition.
PostgreSQL takes `retry_schedule_blocks` only where `id > 0` is said, as below."""
STOPPED = "turn_at = 1 AND held = 0 AND status = 'failed'"
"""What has failed, and holds its partition."""
OF_PARTITION = "partition = ? AND id > 0"
"""The tasks of a partition, in the order of ids. PostgreSQL takes `retry_schedule_partition` only
where this is said, and not where another index was made for it."""
ORDERED = "turn_at > 1 AND held = 0"
"""The one of an ordered partition that has its turn, or runs."""


_WORDS = {
    Code.FULL: "the disk takes no more",
    Code.UNREACHABLE: "the database cannot be reached",
    Code.LOCKED: "another program has locked the database",
    Code.READ_ONLY: "the database can only be read",
    Code.FAILING: "the disk of the database fails",
    Code.DAMAGED: "the database is damaged; keep a copy, and restore a backup",
}


@dataclass(frozen=True, slots=True)
class Failures:
    """How the failures of one kind of database are told apart."""

    errors: tuple[type[Exception], ...]
    """What they are raised as."""
    trouble: Callable[[BaseException], Code | None]
    """What is wrong with the database, its disk or its server; None for what is wrong with one
    statement."""
    is_unfit: Callable[[BaseException], bool]
    """True where a value cannot be stored or breaks a constraint: it will never be taken."""
    is_lost: Callable[[BaseException], bool] = lambda error: False
    """True where the connection is gone, or the server that it led to."""
    is_passing: Callable[[BaseException], bool] = lambda error: False
    """True where the same transaction may well succeed when it is done again."""
    is_locked: Callable[[BaseException], bool] = lambda error: False
    """True where others have locked a row that one operation wants: the rest can go on."""
    who: Callable[[Code], Sequence[str]] = lambda code: ()
    """Who causes a trouble, in words, where that can be told."""

    def named(self, error: Exception, *, of_one: bool = False) -> QueueError:
        """What the queue raises for a failure of the database; `of_one`: of one operation, and not
        of all that were to be committed together."""
        code, text = self.trouble(error), str(error)
        if self.is_locked(error):
            code, text = Code.LOCKED, text.partition("\n")[0]
        if code is None:
            kind = Unstorable if of_one and self.is_unfit(error) else QueueError
            # Further lines quote the statement.
            return kind(f"the database refused: {text.partition(chr(10))[0]}")
        who = f" ({', '.join(names)})" if (names := self.who(code)) else ""
        words = f"{_WORDS[code]}{who}: {' '.join(text.split())}"
        return StorageFull(words) if code is Code.FULL else Unreachable(words, code)

    def twice(self, do: Callable[[], T]) -> T:
        """What `do` returns; where it fails and may well not the next time, that of the next time.
        Raises what it raises."""
        try:
            return do()
        except Exception as error:
            if not self.is_passing(error.__cause__ or error):
                raise
            return do()


class NotOnDisk(Exception):
    """What was committed could not be brought to the disk. What is there is not known from here on,
    and a second try would say that all is well: the daemon has to end."""


class Connection(ABC):
    """One connection, used by the thread that made it, in transactions that are asked for."""

    failures: Failures
    for_update: str = ""
    """At the end of a SELECT whose rows are then changed: keeps others from changing them."""
    skip_locked: str = ""
    """In its place: leaves out the rows that others are just changing."""
    queues: bool = False
    """Whether `begin` waits for others who write, and they for the end of our transaction."""
    singly: bool = False
    """What is written is undone by itself where it fails, and not with all of the transaction."""
    _raw: Any
    """The driver's own connection."""

    @abstractmethod
    def all(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """Every row of a statement."""

    @abstractmethod
    def one(self, sql: str, parameters: Sequence[Any] = ()) -> Row | None:
        """The first row of a statement, None for none."""

    def value(self, sql: str, parameters: Sequence[Any] = (), default: Any = None) -> Any:
        """The first value of the first row of a statement; where there is none, or it is NULL,
        `default`."""
        row = self.one(sql, parameters)
        return default if row is None or row[0] is None else row[0]

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

    def reserve_ahead(self, table: str, count: int) -> Sequence[int]:
        """The ids of rows of a later transaction: no other row gets them."""
        return self.reserve(table, count)

    @contextmanager
    def one_by_one(self) -> Iterator[None]:
        """What is written inside is written `singly`."""
        before, self.singly = self.singly, True
        try:
            yield
        finally:
            self.singly = before

    def guard(self) -> AbstractContextManager[None]:
        """Keeps a statement that fails inside from spoiling the transaction."""
        return nullcontext()

    @abstractmethod
    def begin(self, lock_wait: float = 1.0) -> None:
        """Begin to write. `lock_wait`: seconds that a statement waits for rows that others have
        locked, where the database locks rows."""

    def blockers(self, wait: Callable[[], Any]) -> list[str]:
        """Who holds the rows that `wait` waits for, a line each; what it writes is undone."""
        return []

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

    def checkpoint(self, *, wait: bool = True) -> None:  # noqa: B027  # not every database has that
        """Bring everything into the main file, and give back the room of the journal.

        `wait`: for others who read what is older; else what they keep stays.
        """

    def tend(self) -> None:  # noqa: B027  # not every database has that
        """Look after the files, about once a second."""

    def free_bytes(self) -> int:
        """Bytes of the database that are free for what is written next, where that can be told."""
        return 0

    def look(self) -> AbstractContextManager[None]:
        """Everything that is read inside is of one moment, where others may write meanwhile."""
        return nullcontext()

    def mend(self) -> bool | None:
        """Connect again after the connection was lost; raises what the database raises.

        Whether the transaction was committed whose COMMIT went unanswered; None where there was
        none, or where that cannot be told.
        """
        return None

    @property
    def in_doubt(self) -> bool:
        """True while it is not known whether a transaction was committed."""
        return False

    @abstractmethod
    def size(self) -> int:
        """Bytes on disk."""

    def holding_back(self, longer_than: float) -> list[HoldingBack]:
        """What has kept the database from cleaning up for so many seconds."""
        return []

    @abstractmethod
    def earliest_keys(self) -> Iterable[Row]:
        """Every key with pending tasks, and when its first one is due: its endpoint, its webhook,
        milliseconds. One look into the index a key, however many tasks a key has."""

    def dead_before(self, now: int) -> int:
        """Other daemons are dead where their lease has run out before this; milliseconds.

        Where daemons share a database that is `now`, by its clock. One file has one daemon: all
        others are dead, whenever their leases run out.
        """
        return 1 << 62

    @abstractmethod
    def lives(self, owner: str, until: int, now: int) -> bool:
        """Whether another owner lives, which holds something under a lease that runs out at
        `until`; milliseconds, by the clock that leases go by.

        Where daemons share a database the lease says it. In a file it is the row in `daemons`: a
        worker that stands still keeps what it holds, however long.
        """

    @abstractmethod
    def claims_run_out(self, owner: str, held: Collection[int]) -> bool:
        """False where `Session.reclaim` of `owner`, who holds `held`, would find nothing; it is
        asked where the answer may take long, for which claims are not to wait."""

    def clock_ms(self) -> int:
        """Milliseconds since the epoch, by the clock that all see who share the database."""
        return int(world.time() * 1000)

    @abstractmethod
    def close(self) -> None:
        """Close it; in the thread that made it."""


# -- One statement over many rows ------------------------------------------------------------------


class Singly(Exception):
    """One of them is not as it usually is: each has to be looked at by itself."""


class ManyRows:
    """A statement with `VALUES {rows}` where its rows go.

    `OR ROLLBACK`: without that, SQLite would keep a copy of each page that the statement changes,
    in case of a conflict. So the transaction has to be one that can be done again, and what is
    written `singly` goes without.
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
        is for the caller to undo. What is written `singly` raises what the database raises.
        """
        if not rows:
            return 0
        if db.singly:
            return db.many(self._alone, self.types, rows)
        try:
            return db.many(self.sql, self.types, rows)
        except Exception as error:
            raise Singly(str(error)) from error
