"""The connections to one database: as many as there are attempts, and used again.

Each has a thread of its own, which carries out one statement after the other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from orchestratord import world
from orchestratord_sql.statement_run import (
    Driver,
    StaleConnection,
    StatementCancelled,
    StatementFailed,
    StatementRun,
    nothing_opens,
)

log = logging.getLogger("orchestratord.sql")

IDLE = 60.0
"""Seconds for which a connection is kept without being used."""
GRACE = 0.7
"""Seconds that a statement may take to end once it was told to."""

Connect = Callable[[StatementRun], Driver]
End = StatementFailed | StatementCancelled | None
"""What became of a statement; None is a success."""
Done = Callable[[End], None]


class ConnectionThread:
    """A thread with a connection of its own; it connects with its first statement.

    Args:
        name: of the thread.
        connect: opens a connection, within the time of the statement that it is for.
    """

    def __init__(self, name: str, connect: Connect) -> None:
        self._connect = connect
        self._connection: Driver | None = None
        self._queue: world.SimpleQueue[tuple[StatementRun, Done] | None] = world.SimpleQueue()
        # Not one that the end of the process waits for: what it is at is not committed then.
        self._thread = world.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def submit(self, run: StatementRun) -> asyncio.Future[End]:
        """Have a statement carried out: None is a success."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[End] = loop.create_future()

        def done(result: End) -> None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(_resolve, future, result)

        self._queue.put((run, done))
        return future

    def interrupt(self) -> None:
        """End the statement that runs. It takes a thread: a database far off takes its time."""
        connection = self._connection
        if connection is not None:
            world.Thread(target=_quietly, args=(connection.interrupt,), daemon=True).start()

    def sever(self) -> bool:
        """Drop the connection under the statement that runs, whose attempt has ended; False where
        there is none."""
        connection = self._connection
        if connection is not None:
            world.Thread(target=_quietly, args=(connection.sever,), daemon=True).start()
        return connection is not None

    def end(self) -> None:
        """Close the connection and end the thread, after what it is at."""
        self._queue.put(None)

    def join(self, seconds: float) -> bool:
        """Wait for the end of the thread; False where it takes longer."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    # -- in the thread ---------------------------------------------------------------------

    def _serve(self) -> None:
        while (item := self._queue.get()) is not None:
            run, done = item
            done(self._carry_out(run))
            connection = self._connection
            if connection is not None and not connection.broken and not run.scan.reads:
                _quietly(connection.refresh)
            if connection is not None and connection.broken:
                self._drop()
        self._drop()

    def _carry_out(self, run: StatementRun) -> End:
        try:
            connection = self._connection
            if connection is not None:
                try:
                    connection.execute(run)
                    return None
                except StaleConnection:
                    # It was closed while it was idle, which says nothing about the statement.
                    self._drop()
            run.check()
            self._connection = connection = self._open(run)
            connection.execute(run)
        except StatementFailed as failure:
            failure.shortage = failure.retryable and not failure.maybe_done and nothing_opens()
            return failure
        except StatementCancelled as end:
            return end
        except StaleConnection as error:
            return StatementFailed(f"the connection was closed at once: {error}", retryable=True)
        except Exception as error:
            log.exception("a statement failed in an unknown way")
            self._drop()
            return StatementFailed(
                f"{type(error).__name__}: {error}", retryable=False, maybe_done=run.committing
            )
        return None

    def _open(self, run: StatementRun) -> Driver:
        try:
            return self._connect(run)
        except StatementFailed as failure:
            failure.unreached = failure.retryable
            raise

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            _quietly(connection.close)


def _resolve(future: asyncio.Future[End], result: End) -> None:
    if not future.done():
        future.set_result(result)


def _quietly(function: Callable[[], None]) -> None:
    try:
        function()
    except Exception as error:  # the connection may be gone, which is as good
        log.debug("a connection: %s", error)


class Stopped(Exception):
    """The daemon stops. `end` is what became of the statement."""

    def __init__(self, end: StatementFailed | StatementCancelled) -> None:
        self.end = end
        super().__init__("stopped")


class ConnectionPool:
    """Carries out statements on one database.

    How many at once is for the lane to say, so that there is no bound here. What writes to a
    database of SQLite takes turns: SQLite would let them wait in no order, by trying again.

    Args:
        name: of the database.
        connect: opens a connection.
        turns: whether those that write take turns.
    """

    def __init__(self, name: str, connect: Connect, *, turns: bool) -> None:
        self._name = name
        self._connect = connect
        self._turn = asyncio.Lock() if turns else None
        self._idle: list[tuple[float, ConnectionThread]] = []
        self._threads: set[ConnectionThread] = set()
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def connections(self) -> int:
        """How many there are, idle ones included."""
        return len(self._threads)

    async def execute(self, run: StatementRun) -> None:
        """Carry out a statement within its time; its answer is in `run.result` then.

        Raises StatementFailed, and Stopped where the attempt was cancelled before it succeeded.
        """
        turn = self._turn if not run.scan.reads else None
        if turn is not None:
            try:
                async with asyncio.timeout(run.left):
                    await turn.acquire()
            except TimeoutError:
                words = f"had no turn within {run.seconds:g}s: other statements write"
                raise StatementFailed(words, retryable=True) from None
            except asyncio.CancelledError:
                raise Stopped(StatementCancelled()) from None
        try:
            await self._execute(run)
        finally:
            if turn is not None:
                turn.release()

    async def _execute(self, run: StatementRun) -> None:
        thread = self._acquire()
        future = thread.submit(run)
        stopped = await _wait(future, run.left)
        if future.done():
            self._release(thread)
            end = future.result()
        else:
            undone = run.cancel()
            thread.interrupt()
            stopped |= await _wait(future, GRACE)
            # It is not used again: the interrupt is still on its way maybe, and would hit another.
            self._end(thread)
            end = future.result() if future.done() else _abandoned(run, thread, undone)
        if end is None:
            return  # a cancel that came too late is none
        if stopped:
            raise Stopped(end)
        if isinstance(end, StatementCancelled):
            end = StatementFailed(
                f"did not end within {run.seconds:g}s, and was cancelled", retryable=True
            )
        raise end

    # -- connections ---------------------------------------------------------------------------

    def _acquire(self) -> ConnectionThread:
        if self._idle:
            return self._idle.pop()[1]
        thread = ConnectionThread(f"sql {self._name}", self._connect)
        self._threads.add(thread)
        return thread

    def _release(self, thread: ConnectionThread) -> None:
        if self._closed:
            self._end(thread)
            return
        self._idle.append((world.monotonic() + IDLE, thread))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(IDLE, self._sweep)

    def _sweep(self) -> None:
        """Close what was not used for a while. The one that was used last is taken first."""
        now = world.monotonic()
        self._timer = None
        while self._idle and self._idle[0][0] <= now:
            self._end(self._idle.pop(0)[1])
        if self._idle:
            delay = self._idle[0][0] - now
            self._timer = asyncio.get_running_loop().call_later(delay, self._sweep)

    def _end(self, thread: ConnectionThread) -> None:
        self._threads.discard(thread)
        thread.end()

    def retire(self) -> list[ConnectionThread]:
        """Use it no more: what is idle is closed now, what is under way afterwards."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        ended = [thread for _, thread in self._idle]
        self._idle.clear()
        for thread in ended:
            self._end(thread)
        return ended


def _abandoned(run: StatementRun, thread: ConnectionThread, undone: bool) -> StatementFailed:
    """What is left of a statement that does not end though it was told to."""
    if not thread.sever():
        failure = StatementFailed(f"had no connection within {run.seconds:g}s", retryable=True)
        failure.unreached = True
        return failure
    words = f"did not end within {run.seconds:g}s"
    words += "" if undone else "; it may have been committed"
    return StatementFailed(words, retryable=True, maybe_done=not undone)


async def _wait(future: asyncio.Future[End], seconds: float) -> bool:
    """Wait for its end; True where the attempt was cancelled meanwhile."""
    try:
        await asyncio.wait((future,), timeout=seconds)
    except asyncio.CancelledError:
        return True
    return False
