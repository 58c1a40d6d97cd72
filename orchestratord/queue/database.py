"""Where a queue is kept, whichever it is: a file of SQLite, or a PostgreSQL that daemons share.

A `Database` makes connections, and the session of the one that writes: `claim` and what else the
two do each in their own way is the session's and the connection's, so that nobody asks which it is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

import peewee

from orchestratord.model.task import Key, Table
from orchestratord.queue.connection import Connection, Failures
from orchestratord.queue.records import Wakeup
from orchestratord.queue.session import Leases, Session
from orchestratord.values.clock import Clock


class Messenger:
    """Tells other daemons, and hears from them; this one has none to tell."""

    listening: bool | None = None
    """Whether what they tell comes through; None where there are none."""

    def start(self) -> None:
        """Begin to listen."""

    def stop(self) -> None:
        """End it; waits for that."""

    def tell(self, due: Mapping[Key, int] | None = None, *flags: str) -> None:
        """Have the others told of keys with tasks that are due, or that a flag of `Wakeup` is up;
        from any thread."""


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
    leases: Leases
    """For how long claims stand that are made here."""

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
        return nullcontext()

    def back_up(self, name: str) -> None:  # noqa: B027  # not every database has that
        """Keep a copy beside it, before its schema changes; nothing where others do that."""

    @abstractmethod
    def session(
        self, connection: Connection, owner: str, clock: Clock, tables: Mapping[str, Table]
    ) -> Session:
        """What operations see of a connection that writes; `tables`: those of plugins, by name."""

    def messenger(self, owner: str, heard: Callable[[Wakeup], None]) -> Messenger:
        """What tells other daemons of what is due, and hears of it.

        `heard` is called on a thread of its own.
        """
        return Messenger()

    def crowded(self) -> bool:
        """True where the disk is too full for new work, as far as that can be seen from here."""
        return False

    def close(self) -> None:  # noqa: B027  # not every database has that
        """Give it up. Connections are closed by their threads before."""
