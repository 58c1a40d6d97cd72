"""The store: the one door to the queue. Everything that is kept goes through it.

`await store.write(operation)` and `await store.read(operation)`: an operation is a value, made by a
function in `operations`. Both are called on one asyncio loop. What writes returns after its COMMIT,
and happens although the caller is cancelled meanwhile. Both raise QueueError where the database
fails.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import TypeVar

from orchestratord.errors import StorageFull, Unreachable
from orchestratord.model.task import Key, Table
from orchestratord.queue import schema
from orchestratord.queue.batch import Read, Write
from orchestratord.queue.database import Database, Messenger
from orchestratord.queue.reader import Reader
from orchestratord.queue.records import Wakeup
from orchestratord.queue.session import LEASE, Session
from orchestratord.queue.writer import Writer, counted
from orchestratord.values.clock import Clock

T = TypeVar("T")

DUE_SOON_MS = 1_000
"""How soon a task has to be due, for other daemons to be told of it."""
COUNTED_FOR = 1.0
"""Seconds for which a count in a shared database serves, but for what this daemon adds."""
COUNT_SHARE = 20.0
"""A count that takes long serves for so many times as long."""


def open_database(url: str, lease: float = LEASE) -> Database:
    """The database of a URL, not yet open.

    `lease`: seconds for which a claim stands without a word from its daemon. Raises QueueError for
    a URL that is none, and where what PostgreSQL takes is not installed.
    """
    if url.startswith(("postgresql://", "postgres://")):
        from orchestratord.queue.postgres.postgres_database import PostgresDatabase  # is an extra

        return PostgresDatabase(url, lease)
    from orchestratord.queue.sqlite.sqlite_database import SqliteFile

    return SqliteFile(url, lease)


class Store:
    """One open queue."""

    def __init__(self, url: str, tables: Iterable[Table], clock: Clock, lease: float) -> None:
        """Use `open`."""
        self.instance = ""
        """Random, made with the database and kept in it; part of each webhook-id."""
        self.owner = secrets.token_hex(8)
        """Random for this opening; stands in `locked_by`."""
        self.clock = clock
        """The wall clock that tasks are due by."""
        self._database = open_database(url, lease)
        self.shared = self._database.shared
        """Whether other daemons work on it at the same time, and how dear each claim is for that:
        what they do has to be looked for, and what is claimed is claimed for all of them."""
        self.url = self._database.shown
        """Where it is, without a password."""
        self.tables: Mapping[str, Table] = {}
        """Those of plugins, by name."""
        self.heard: Callable[[Wakeup], None] = lambda wakeup: None
        """Called on the loop with what other daemons tell."""
        self._declared = tuple(tables)
        self._count_again = 0.0
        self._session: Session | None = None
        self._writer = Writer(self._database, self._setup)
        self._reader = Reader(self._database)
        self.health = self._writer.health
        """How the database is."""
        self._messenger = Messenger()
        self._loop = asyncio.get_running_loop()

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        tables: Iterable[Table] = (),
        clock: Clock | None = None,
        lease: float = LEASE,
    ) -> Store:
        """Open the queue at `url`; make or migrate it where needed.

        Args:
            url: `sqlite:////absolute/path`, whose missing folders are made, or `postgresql://…`.
            tables: those of the plugins.
            clock: the wall clock, unless a test turns one.
            lease: seconds for which a claim stands without a word from its daemon.

        Raises:
            DatabaseInUse: another daemon has it, or a newer version has changed it.
            PluginError: the declaration of a plugin's table cannot be one.
            QueueError: it cannot be opened.
        """
        store = cls(url, tables, clock or Clock(), lease)
        try:
            await store._writer.start()
        except BaseException:
            store._database.close()
            raise
        if store.shared:
            store._writer.committed = store._committed
        store._messenger = store._database.messenger(store.owner, store._hear)
        store._messenger.start()
        return store

    def _setup(self) -> Session:
        """On the writing thread: open everything, or leave no connection open."""
        self._database.open()
        db = self._database.connect(writes=True)
        try:
            with self._database.models(db) as orm:
                self.tables = schema.prepare(self._database, orm, self._declared)
                schema.enter(orm)
                self.instance = schema.instance_of(orm)
            self._session = self._database.session(db, self.owner, self.clock, self.tables)
        except self._database.failures.errors as error:
            db.close()
            raise self._database.failures.named(error) from error
        except BaseException:
            db.close()
            raise
        return self._session

    async def close(self) -> None:
        """Write what waits, close the database and give it up."""
        messenger, self._messenger = self._messenger, Messenger()
        await asyncio.to_thread(messenger.stop)
        await self._reader.close()
        await self._writer.close()
        self._database.close()

    # -- what is done to it ----------------------------------------------------------------------

    async def write(self, operation: Write[T]) -> T:
        """Do an operation in the next transaction; its result, after the COMMIT.

        Raises what the operation raises, and StorageFull.
        """
        if operation.needs_room:
            self._check_reachable()
            if not self.health.accepting:
                raise StorageFull("the disk has no room for new work; what is queued goes on")
        return await self._writer.submit(operation)

    async def read(self, operation: Read[T]) -> T:
        """Look something up, while what is written goes on. Raises what the operation raises."""
        self._check_reachable()
        return await self._reader.run(operation.look)

    def _check_reachable(self) -> None:
        """Each try to connect may take seconds, and others wait behind it."""
        if (why := self.health.refusing) is not None:
            raise Unreachable(why)

    async def counts(self) -> dict[str, int]:
        """How many tasks each status has; what other daemons did may be missing for a while."""
        if self.shared and time.monotonic() >= self._count_again:
            began = time.monotonic()
            self._count_again = began + 1.0
            self._writer.counts = await self.read(Read(counted))
            took = time.monotonic() - began
            self._count_again = time.monotonic() + max(COUNTED_FOR, took * COUNT_SHARE)
        return dict(self._writer.counts)

    # -- what daemons tell each other ------------------------------------------------------------

    @property
    def listening(self) -> bool | None:
        """Whether what other daemons queue is heard of at once, and not only found by looking; None
        where there are no others."""
        return self._messenger.listening

    def tell(self, *flags: str) -> None:
        """Have the other daemons told of what `Wakeup` has a flag for."""
        self._messenger.tell(None, *flags)

    def expect(self, due: Mapping[Key, int]) -> None:
        """Others have tasks of these keys that are due then: the next claims are to find them."""
        if self._session is not None:
            for key, next_try in due.items():
                self._session.heard(key, next_try)

    def _hear(self, wakeup: Wakeup) -> None:
        """On the messenger's thread."""
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(lambda: self.heard(wakeup))

    def _committed(self, session: Session) -> None:
        """On the writing thread, after each COMMIT: others may begin with what is due now."""
        soon = session.now() + DUE_SOON_MS
        due = {key: next_try for key, next_try in session.due.items() if next_try <= soon}
        if due:
            self._messenger.tell(due)
