"""The store: the one door to the queue. Everything that is kept goes through it.

`await store.write(operation)` and `await store.read(operation)`: an operation is a value, made by a
function in `operations`. Both are called on one asyncio loop. What writes returns after its COMMIT,
and happens although the caller is cancelled meanwhile. Both raise QueueError where the database
fails.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from orchestratord.errors import StorageFull, Unreachable
from orchestratord.model.task import Key, Table
from orchestratord.queue import schema, task_counts
from orchestratord.queue.batch import OnCommitted, Read, Write
from orchestratord.queue.connection import NotOnDisk
from orchestratord.queue.daemon_health import FATAL, Code
from orchestratord.queue.database import Database, Messenger, Wakeups, Workers
from orchestratord.queue.models import CLOCK
from orchestratord.queue.reader import Reader
from orchestratord.queue.session import LEASE, Session
from orchestratord.queue.writer import Writer
from orchestratord.values import world
from orchestratord.values.clock import Clock

T = TypeVar("T")


def open_database(url: str, lease: float = LEASE, workers: Workers | None = None) -> Database:
    """The database of a URL, not yet open.

    Args:
        url: `sqlite:////absolute/path`, or `postgresql://…`.
        lease: seconds for which a claim stands without a word from its daemon.
        workers: the processes that share it, of which this is one. None for a daemon that has a
            file for itself; on PostgreSQL it makes no difference.

    Raises QueueError for a URL that is none, and where what PostgreSQL takes is not installed.
    """
    if url.startswith(("postgresql://", "postgres://")):
        from orchestratord.queue.postgres.postgres_database import PostgresDatabase  # is an extra

        return PostgresDatabase(url, lease)
    from orchestratord.queue.sqlite.shared_file import SharedFile
    from orchestratord.queue.sqlite.sqlite_database import SqliteFile

    return SqliteFile(url, lease) if workers is None else SharedFile(url, lease, workers)


class Store:
    """One open queue."""

    def __init__(
        self,
        database: Database,
        session: Session,
        writer: Writer,
        messenger: Messenger,
        wakeups: Wakeups,
        elected: Wakeups,
    ) -> None:
        """Use `open`."""
        self.instance = session.instance
        """Random, made with the database and kept in it; what tells one queue from another."""
        self.owner = session.owner
        """Random for this opening; stands in `locked_by`."""
        self.clock = session.clock
        """The wall clock that tasks are due by."""
        self.tables = session.tables
        """Those of plugins, by name."""
        self.several_daemons = database.several_daemons
        """Whether other daemons may work on this queue: what they do has to be looked for, what is
        claimed is claimed for all of them, and each claim is dear for that."""
        self.lease = database.leases.seconds
        """Seconds for which a claim stands without a word from its daemon."""
        self.url = database.shown
        """Where it is, without a password."""
        self.health = writer.health
        """How the database is, and what else is wrong with the daemon."""
        self.chore_added = writer.chore_added
        """Set when a chore was added that this process may do."""
        self.wakeups = wakeups
        """What other daemons tell."""
        self.elected = elected
        """Keys of which tasks had their turn come in their partitions, by what was written here."""
        self._database = database
        self._session = session
        self._writer = writer
        self._reader = Reader(database, "reader")
        self._long_reader = Reader(database, "long-reader")
        """For what may take seconds, which the daemon's own looks are not to wait for."""
        self._messenger = messenger
        self.recounted_at: int | None = None
        """What `foreign_changes` was when tasks were last counted anew; None before."""

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        tables: Iterable[Table] = (),
        clock: Clock | None = None,
        lease: float = LEASE,
        workers: Workers | None = None,
    ) -> Store:
        """Open the queue at `url`; make or migrate it where needed.

        Args:
            url: `sqlite:////absolute/path`, whose missing folders are made, or `postgresql://…`.
            tables: those of the plugins.
            clock: the wall clock, unless a test turns one.
            lease: seconds for which a claim stands without a word from its daemon.
            workers: the processes that share it, of which this is one; None for a daemon that has a
                file for itself.

        Raises:
            DatabaseInUse: another daemon has it, or a newer version has changed it.
            PluginError: the declaration of a plugin's table cannot be one.
            QueueError: it cannot be opened.
        """
        database = open_database(url, lease, workers)
        owner, wakeups = world.token_hex(8), Wakeups()
        messenger = database.messenger(owner, wakeups)
        setup = partial(_open_session, database, owner, clock or Clock(), tuple(tables))
        elected = Wakeups()
        writer = Writer(database, setup, messenger, elected)
        try:
            session = await writer.start()
        except BaseException:
            await messenger.stop()
            database.close()
            raise
        messenger.start()
        return cls(database, session, writer, messenger, wakeups, elected)

    async def close(self) -> None:
        """Write what waits, close the database and give it up."""
        await self._reader.close()
        await self._long_reader.close()
        await self._writer.close()
        await self._messenger.stop()
        self._database.close()

    # -- what is done to it ----------------------------------------------------------------------

    async def write(self, operation: Write[T]) -> T:
        """Do an operation in the next transaction; its result, after the COMMIT.

        Raises what the operation raises, StorageFull, and Unreachable.
        """
        self.check_room(operation)
        return await self._writer.submit(operation)

    def check_room(self, operation: Write[Any]) -> None:
        """Raise StorageFull or Unreachable where new work is refused, and this is some."""
        if operation.needs_room and (found := self.health.refusing) is not None:
            full = found.code == Code.FULL
            raise StorageFull(found.why) if full else Unreachable(found.why, found.code)

    def write_told(self, operations: Sequence[Write[Any]], on_committed: OnCommitted) -> None:
        """Write what comes in numbers: `on_committed` is called, once for all operations of a
        transaction that came with it, each of which has its `result` or its `error` then.

        Raises Unreachable, and QueueError where the store is closed: nothing is written then.
        """
        self._writer.submit_all(operations, on_committed)

    async def read(self, operation: Read[T]) -> T:
        """Look something up, while what is written goes on. Raises what the operation raises."""
        # Each try to connect may take seconds, and others wait behind it.
        if (found := self.health.away) is not None:
            raise Unreachable(found.why, found.code)
        reader = self._long_reader if operation.long else self._reader
        try:
            return await reader.run(operation.look)
        except Unreachable as error:
            if error.code == Code.DAMAGED:
                self.health.fatal = str(error)
            found = self.health.troubles.get(error.code)  # says who, if that is known
            raise error if found is None else Unreachable(found.why, found.code) from error
        except NotOnDisk as error:
            self.health.fatal = str(error)
            raise Unreachable(str(error), FATAL) from error

    @property
    def foreign_changes(self) -> int:
        """A number that changes when another program has written, where that can be told."""
        return self._writer.foreign_changes

    async def counts(self) -> dict[str, int]:
        """How many tasks each status has."""
        return await self.read(Read(task_counts.total))

    @property
    def locked(self) -> int:
        """How many operations wait for what others have locked."""
        return len(self._writer.locked)

    # -- what daemons tell each other ------------------------------------------------------------

    @property
    def listening(self) -> bool | None:
        """Whether what other daemons queue is heard of at once, and not only found by looking; None
        where there are no others."""
        return self._messenger.listening

    def tell(self, *flags: str) -> None:
        """Have the other daemons told of what `Wakeup` has a flag for."""
        self._messenger.notify(*flags)

    def expect(self, due: Mapping[Key, int]) -> None:
        """Others have tasks of these keys that are due then: the next claims are to find them."""
        for key, next_try in due.items():
            self._session.heard(key, next_try)


def _open_session(
    database: Database, owner: str, clock: Clock, declared: Sequence[Table]
) -> Session:
    """On the writing thread: connect and prepare everything, or leave no connection open."""
    db = database.connect(writes=True)
    try:
        with database.models(db) as orm:
            tables = schema.prepare(database, orm, declared)
            schema.enter(orm)
            instance = schema.instance_of(orm)
            if (mark := schema.fact(orm, CLOCK)) is not None:
                clock.resume(mark)
        return database.session_class(db, owner, clock, tables, instance, database.leases)
    except database.failures.errors as error:
        db.close()
        raise database.failures.named(error) from error
    except BaseException:
        db.close()
        raise
