"""What stands in the place of `orchestratord.values.world` in a universe: time, chance, threads and
locks, all by the baton."""

from __future__ import annotations

import datetime
import fcntl
import math
import os
import queue
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from random import Random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import schedule

from orchestratord.plugin import long_work
from orchestratord.queue.sqlite.sqlite_database import SqliteFile
from orchestratord.values import clock, world
from tests.simulation.baton import Baton, Strand
from tests.simulation.disk import Disk

if TYPE_CHECKING:
    from tests.simulation.process import Process
    from tests.simulation.universe import Universe

RIGHT = 1_800_000_000.0
"""By how much a wall clock that is right is ahead of the time that has passed."""
BUSY_AGAIN = 0.001
"""Seconds until a lock of SQLite is tried again."""


class Machine:
    """The machine of one universe, on which all its processes run."""

    def __init__(self, universe: Universe, chance: Random) -> None:
        self._universe = universe
        self._baton = universe.baton
        self._chance = chance
        self.wall_ahead = RIGHT
        """By how much the wall clock is ahead of the time that has passed."""
        self.put_forward = 0.0
        """Seconds by which the wall clock was put forward in all."""
        self.was_set = False
        """Somebody has set the wall clock: a receiver may have another."""
        self.was_set_far = False
        self.began = 0.0
        """When the machine was started, by the same; what it slept since is taken off."""
        self.slept = 0.0
        """Seconds for which it was suspended; the clock of `monotonic` stood still then."""
        self.jumps: list[float] = []
        """When the wall clock was set, or time went on without its processes."""
        self.booted_at = [-math.inf]
        self.disk = Disk(universe, Random(chance.getrandbits(64)))
        self.statvfs = self.disk.statvfs
        self._flocks: dict[tuple[int, int], list[tuple[Process, int]]] = {}
        self._flock_waiters: list[Strand] = []
        baton = self._baton

        class Own:
            """Each of these knows the baton, and needs no other argument than the real one."""

            _baton = baton

        self.SimpleQueue = type("SimpleQueue", (SimulatedQueue, Own), {})
        self.Lock = type("Lock", (SimulatedLock, Own), {})
        self.Event = type("Event", (SimulatedEvent, Own), {})
        self.Thread = type("Thread", (SimulatedThread, Own), {"_machine": self})
        self.ThreadPoolExecutor = type(
            "ThreadPoolExecutor", (SimulatedExecutor, Own), {"_machine": self}
        )
        self.Connection = type(
            "Connection", (SimulatedConnection,), {"_baton": baton, "_disk": self.disk}
        )

    @contextmanager
    def installed(self) -> Iterator[None]:
        """In the world's place, for the length of a universe."""
        names = [name for name in dir(self) if not name.startswith("_") and hasattr(world, name)]
        before = {name: getattr(world, name) for name in names}
        boot = clock._boot
        clock._boot = lambda: f"boot {len(self.booted_at)}"
        connection, thread = SqliteFile.connection_class, long_work.thread
        for name in names:
            setattr(world, name, getattr(self, name))
        SqliteFile.connection_class = self.Connection
        schedule.datetime = self._datetime()  # it asks for the time by itself
        long_work.thread = OwnThread(self._baton)  # type: ignore[assignment]
        try:
            yield
        finally:
            schedule.datetime = datetime
            clock._boot = boot
            SqliteFile.connection_class, long_work.thread = connection, thread
            for name, real in before.items():
                setattr(world, name, real)

    # -- time --------------------------------------------------------------------------------------

    def monotonic(self) -> float:
        return self._baton.now

    def elapsed(self) -> float:
        return self._baton.now - self.began

    def start_again(self) -> None:
        """The machine was without power. While it was off its clock cannot have been found wrong:
        that has been set right, or nobody could tell the jump from time that has passed."""
        self.jumps.append(self._baton.now)
        self.wall_ahead = RIGHT
        self.began = self._baton.now - self._chance.uniform(5, 50)
        self.booted_at.append(self._baton.now)
        self.wake_all()

    def sleep_for(self, seconds: float) -> None:
        """The machine is suspended: of its clocks, only that of `monotonic` stands still."""
        self.jumps.append(self._baton.now)
        self.began -= seconds
        self.slept += seconds

    def time(self) -> float:
        return self._baton.now + self.slept + self.wall_ahead

    def _datetime(self) -> SimpleNamespace:
        """The module of that name, whose `datetime.now()` is the universe's."""
        machine = self

        class Now(datetime.datetime):
            @classmethod
            def now(cls, tz: datetime.tzinfo | None = None) -> Any:
                return datetime.datetime.fromtimestamp(machine.time(), tz)

        return SimpleNamespace(**{**vars(datetime), "datetime": Now})

    def sleep(self, seconds: float) -> None:
        self._baton.wait(None, self._baton.now + seconds)

    # -- chance ------------------------------------------------------------------------------------

    def Random(self, seed: object = None) -> Random:
        return Random(self._chance.getrandbits(64))

    def uniform(self, low: float, high: float) -> float:
        return self._chance.uniform(low, high)

    def urandom(self, size: int) -> bytes:
        return self._chance.randbytes(size)

    def token_hex(self, size: int = 32) -> str:
        return self._chance.randbytes(size).hex()

    # -- the disk ----------------------------------------------------------------------------------

    def fdatasync(self, descriptor: int) -> None:
        """As fdatasync(2): what other strands write meanwhile is not covered."""
        self._baton.pause("sync")
        strand = self._baton.current
        assert strand is not None
        self.disk.sync(strand.process, descriptor)
        self._baton.pause("synced")

    # -- locks of files ----------------------------------------------------------------------------

    def flock(self, file: Any, operation: int) -> None:
        """As flock(2), by what the universe knows of the locks: who waits has no thread to block.

        A shared lock is never kept: the product only tries one, and closes the file at once.
        """
        descriptor = file if isinstance(file, int) else file.fileno()
        strand = self._baton.current
        assert strand is not None
        if operation & fcntl.LOCK_UN:
            self._release(strand.process, descriptor)
            self._baton.pause("unlock")
            return
        self._baton.pause("lock")
        status = os.fstat(descriptor)
        inode = status.st_dev, status.st_ino
        while self._held(inode, strand.process, descriptor):
            if operation & fcntl.LOCK_NB:
                raise BlockingIOError
            self._baton.wait(self._flock_waiters, self._baton.now + 1.0)
        if operation & fcntl.LOCK_EX:
            self._flocks.setdefault(inode, []).append((strand.process, descriptor))

    def _held(self, inode: tuple[int, int], process: Process, descriptor: int) -> bool:
        """Whether another has it: one that lives, and has not closed the file since."""
        held = [one for one in self._flocks.get(inode, ()) if _is_open(one[1], inode)]
        self._flocks[inode] = [one for one in held if not one[0].dead]
        return any(one != (process, descriptor) for one in self._flocks[inode])

    def _release(self, process: Process, descriptor: int) -> None:
        for inode, held in self._flocks.items():
            self._flocks[inode] = [one for one in held if one != (process, descriptor)]
        self.wake_all()

    def wake_all(self) -> None:
        """Have those look again that wait for a lock of a file."""
        waiting, self._flock_waiters[:] = self._flock_waiters[:], []
        for strand in waiting:
            self._baton.wake([strand])


def _is_open(descriptor: int, inode: tuple[int, int]) -> bool:
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return (status.st_dev, status.st_ino) == inode


# -- what threads share ----------------------------------------------------------------------------


class SimulatedQueue:
    """As `queue.SimpleQueue`."""

    _baton: Baton

    def __init__(self) -> None:
        self._items: deque[Any] = deque()
        self._waiters: list[Strand] = []

    def put(self, item: Any) -> None:
        self._items.append(item)
        self._baton.wake(self._waiters)
        self._baton.pause("put")

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        self._baton.pause("get")
        until = None if timeout is None else self._baton.now + timeout
        while not self._items:
            if not block or not self._baton.wait(self._waiters, until):
                raise queue.Empty
        return self._items.popleft()

    def get_nowait(self) -> Any:
        return self.get(block=False)

    def empty(self) -> bool:
        return not self._items

    def qsize(self) -> int:
        return len(self._items)


class SimulatedLock:
    """As `threading.Lock`."""

    _baton: Baton

    def __init__(self) -> None:
        self._held = False
        self._waiters: list[Strand] = []

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        self._baton.pause("lock")
        until = None if timeout < 0 else self._baton.now + timeout
        while self._held:
            if not blocking or not self._baton.wait(self._waiters, until):
                return False
        self._held = True
        return True

    def release(self) -> None:
        self._held = False
        self._baton.wake(self._waiters)

    def locked(self) -> bool:
        return self._held

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class SimulatedEvent:
    """As `threading.Event`."""

    _baton: Baton

    def __init__(self) -> None:
        self._set = False
        self._waiters: list[Strand] = []

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True
        while self._waiters:
            self._baton.wake(self._waiters)
        self._baton.pause("set")

    def clear(self) -> None:
        self._set = False

    def wait(self, timeout: float | None = None) -> bool:
        self._baton.pause("wait")
        if not self._set:
            until = None if timeout is None else self._baton.now + timeout
            self._baton.wait(self._waiters, until)
        return self._set


class SimulatedThread:
    """As `threading.Thread`: a strand of the process that starts it."""

    _baton: Baton
    _machine: Machine

    def __init__(
        self,
        target: Callable[..., Any],
        name: str = "thread",
        args: tuple[Any, ...] = (),
        daemon: bool = False,
    ) -> None:
        self._run = lambda: target(*args)
        self.name = name
        self.daemon = daemon
        self._strand: Strand | None = None
        self._ended = self._machine.Event()

    def start(self) -> None:
        current = self._baton.current
        assert current is not None

        def run() -> None:
            self._run()
            self._ended.set()

        self._strand = self._baton.spawn(current.process, run, self.name)

    def is_alive(self) -> bool:
        return self._strand is not None and not self._ended.is_set()

    def join(self, timeout: float | None = None) -> None:
        self._ended.wait(timeout)


class SimulatedExecutor:
    """As `ThreadPoolExecutor`."""

    _machine: Machine

    def __init__(self, max_workers: int = 1, thread_name_prefix: str = "pool") -> None:
        self._most = max_workers
        self._name = thread_name_prefix
        self._threads: list[Any] = []
        self._idle = 0
        self._queue = self._machine.SimpleQueue()

    def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        future: Future[Any] = Future()
        if self._idle <= self._queue.qsize() and len(self._threads) < self._most:
            thread = self._machine.Thread(self._work, f"{self._name}-{len(self._threads)}")
            self._threads.append(thread)
            thread.start()
        self._queue.put((future, function, args))
        return future

    def _work(self) -> None:
        while True:
            self._idle += 1
            item = self._queue.get()
            self._idle -= 1
            if item is None:
                return
            future, function, args = item
            if future.set_running_or_notify_cancel():
                try:
                    result = function(*args)
                except Exception as error:
                    future.set_exception(error)
                else:
                    future.set_result(result)
            del item, future, function, args

    def shutdown(self, wait: bool = True) -> None:
        for _ in self._threads:
            self._queue.put(None)


class OwnThread:
    """In the place of the one for long work: that of the process whose turn it is."""

    def __init__(self, baton: Baton) -> None:
        self._baton = baton

    def __getattr__(self, name: str) -> Any:
        strand = self._baton.current
        assert strand is not None
        return getattr(strand.process.answer_thread, name)


# -- SQLite ----------------------------------------------------------------------------------------


class SimulatedCursor(sqlite3.Cursor):
    """Each statement is a turn, and whoever finds the file locked tries again in virtual time."""

    connection: SimulatedConnection

    def execute(self, sql: str, parameters: Any = ()) -> SimulatedCursor:
        connection = self.connection
        if sql.startswith("PRAGMA busy_timeout"):
            connection.patience = float(sql.rpartition("=")[2]) / 1000
            return self
        if sql.startswith("PRAGMA synchronous"):
            connection.is_durable = "FULL" in sql
        connection.tried(sqlite3.Cursor.execute, self, sql, parameters)
        return self

    def executemany(self, sql: str, parameters: Any) -> SimulatedCursor:
        self.connection.tried(sqlite3.Cursor.executemany, self, sql, parameters)
        return self

    def executescript(self, sql: str) -> SimulatedCursor:
        self.connection.tried(sqlite3.Cursor.executescript, self, sql)
        return self


class SimulatedConnection(sqlite3.Connection):
    """A connection to the file, whose statements are turns."""

    _baton: Baton
    _disk: Disk

    def __init__(self, database: str, timeout: float = 5.0, **options: Any) -> None:
        self.patience = timeout
        self.is_durable = False
        """SQLite syncs what it commits."""
        super().__init__(database, timeout=0.0, **options)
        strand = self._baton.current
        assert strand is not None
        self.process = strand.process
        self.process.connections.append(self)

    def cursor(self, factory: Any = SimulatedCursor) -> Any:
        return super().cursor(factory)

    def commit(self) -> None:
        if self.in_transaction:
            self._baton.pause("write")
            self._disk.commit(self)
        self.tried(sqlite3.Connection.commit, self)
        self._baton.pause("committed")

    def tried(self, do: Callable[..., Any], *args: Any) -> None:
        """Do it, once nothing else has the file locked; raises that it is after a while."""
        baton, disk = self._baton, self._disk
        baton.pause("write" if self.in_transaction else "sql")
        if disk.refuses == "read" and len(args) > 1:
            disk.read(self, args[1])
        until = baton.now + self.patience
        while True:
            try:
                do(*args)
                break
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or baton.now >= until:
                    raise
            baton.wait(None, baton.now + BUSY_AGAIN)
        if disk.recovers:
            disk.recovered()
        if self.is_durable and not self.in_transaction:
            disk.synced(disk.written()[0])

    def drop(self) -> None:
        """As the death of its process closes it: what was not committed is undone."""
        sqlite3.Connection.close(self)
