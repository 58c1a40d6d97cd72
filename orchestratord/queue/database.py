"""Where a queue is kept, whichever it is: a file of SQLite, or a PostgreSQL that daemons share.

A `Database` makes connections, and the session of the one that writes: `claim` and what else the
two do each in their own way is the session's and the connection's: no caller asks which it is.
"""

from __future__ import annotations

import asyncio
import socket
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace

import peewee

from orchestratord.queue.connection import Connection, Failures
from orchestratord.queue.records import Wakeup
from orchestratord.queue.session import Leases, Session
from orchestratord.queue.wakeup_text import WakeupText
from orchestratord.values import world


@dataclass(frozen=True, slots=True)
class Workers:
    """The processes of one group that share a queue, as one of them sees them.

    It is made before they are forked, and they inherit its sockets. A message that finds no room is
    lost: nothing depends on one but how soon another worker begins.
    """

    number: int
    """Which of them this is, from 1; 0 for the process that starts them."""
    count: int
    mailboxes: tuple[tuple[socket.socket, socket.socket], ...]
    """Of each worker, what it receives by, and what the others send to it by."""
    group: str
    """Random: names the process group."""

    @classmethod
    def make(cls, count: int) -> Workers:
        """For the process that starts `count` of them. Raises OSError."""
        pairs = []
        for _ in range(count):
            pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            for end in pair:
                end.setblocking(False)
            pairs.append(pair)
        return cls(0, count, tuple(pairs), world.token_hex(8))

    def worker(self, number: int) -> Workers:
        """What the worker with this number sees; also one that takes a dead one's place."""
        return replace(self, number=number)

    def post(self, message: bytes) -> None:
        """Send a message to all workers but this one; one whose mailbox is full is passed over."""
        for number, (_, sending) in enumerate(self.mailboxes, 1):
            if number != self.number:
                with suppress(OSError):
                    sending.send(message)

    def close(self) -> None:
        """Close the mailboxes, in this process."""
        for pair in self.mailboxes:
            for end in pair:
                end.close()


class Wakeups:
    """What other daemons tell: from the thread that hears it to the loop that follows it."""

    def __init__(self) -> None:
        """For the running loop."""
        self._loop = asyncio.get_running_loop()
        self._waiting: asyncio.Queue[Wakeup] = asyncio.Queue()

    def put(self, wakeup: Wakeup) -> None:
        """Something was heard; from any thread."""
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._waiting.put_nowait, wakeup)

    async def take(self) -> Wakeup:
        """The next one, once there is one."""
        return await self._waiting.get()


class Messenger:
    """Tells other daemons, and hears from them; this one has none to tell."""

    listening: bool | None = None
    """Whether what they tell comes through; None where there are none."""
    words: WakeupText | None = None
    """What to notify them of; None where there are none."""

    def start(self) -> None:
        """Begin to listen."""

    async def stop(self) -> None:
        """End it; waits for that."""

    def notify(self, *flags: str) -> None:
        """Have the others told of what `Wakeup` has a flag for; from any thread."""
        if self.words is not None and self.words.add_flags(*flags):
            self.wake()

    def committed(self, session: Session) -> None:
        """A transaction was committed: have the others told of what is due now. On its thread."""
        if self.words is not None and self.words.add_due(session):
            self.wake()

    def wake(self) -> None:
        """There is something to notify the others of; from any thread."""


class Database(ABC):
    """Where a queue is kept."""

    failures: Failures
    several_daemons: bool = False
    """Whether other daemons may work on it at the same time."""
    shown: str
    """Its URL without a password."""
    session_class: type[Session]
    """What operations see of a connection that writes."""
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

    def take_for_workers(self, held: int | None = None) -> int | None:
        """Take it for the workers of one run, before they are forked; without `open`. A second run
        is refused until this descriptor is closed here, and in all of them that inherited it. None
        where a queue may have several daemons anyway.

        `held`: a descriptor that the version before has left, which is returned where it is that of
        this queue.

        Raises DatabaseInUse where another run has it, QueueError where it cannot be opened or is
        not to be shared.
        """
        return None

    def back_up(self, name: str) -> None:  # noqa: B027  # not every database has that
        """Keep a copy beside it, before its schema changes; nothing where others do that."""

    def messenger(self, owner: str, wakeups: Wakeups) -> Messenger:
        """What tells other daemons of what is due; what it hears of them goes into `wakeups`."""
        return Messenger()

    def crowded(self, connection: Connection) -> bool:
        """True where the disk is too full for new work, as far as that can be seen from here; what
        the database has free within counts as room."""
        return False

    def gone(self) -> str | None:
        """Why what is committed from now on will not be found again; None where it will."""
        return None

    def close(self) -> None:  # noqa: B027  # not every database has that
        """Give it up. Connections are closed by their threads before."""
