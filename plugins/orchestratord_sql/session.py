"""A thread with a connection of its own, which carries out one statement after the other."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue

from orchestratord_sql.work import Connection, Failure, GivenUp, Stale, Work

log = logging.getLogger("orchestratord.sql")

Connect = Callable[[Work], Connection]
End = Failure | GivenUp | None
"""What became of a statement; None is a success."""
Done = Callable[[End], None]


class Session:
    """See above. The thread is begun with the first statement, and connects then.

    Args:
        name: of the thread.
        connect: opens a connection, within the time of the statement that it is for.
    """

    def __init__(self, name: str, connect: Connect) -> None:
        self._connect = connect
        self._connection: Connection | None = None
        self._work: SimpleQueue[tuple[Work, Done] | None] = SimpleQueue()
        # Not one that the end of the process waits for: what it is at is not committed then.
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def submit(self, work: Work) -> asyncio.Future[End]:
        """Have a statement carried out: None is a success."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[End] = loop.create_future()

        def done(result: End) -> None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(_resolve, future, result)

        self._work.put((work, done))
        return future

    def interrupt(self) -> None:
        """End the statement that runs. It takes a thread: a database far off takes its time."""
        connection = self._connection
        if connection is not None:
            threading.Thread(target=_quietly, args=(connection.interrupt,), daemon=True).start()

    @property
    def connected(self) -> bool:
        """It has a connection."""
        return self._connection is not None

    def sever(self) -> None:
        """Drop the connection under the statement that runs; nobody waits for it any more."""
        connection = self._connection
        if connection is not None:
            threading.Thread(target=_quietly, args=(connection.sever,), daemon=True).start()

    def end(self) -> None:
        """Close the connection and end the thread, after what it is at."""
        self._work.put(None)

    def join(self, seconds: float) -> bool:
        """Wait for the end of the thread; False where it takes longer."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    # -- in the thread ---------------------------------------------------------------------

    def _serve(self) -> None:
        while (item := self._work.get()) is not None:
            work, done = item
            done(self._carry_out(work))
            connection = self._connection
            if connection is not None and not connection.broken and not work.scan.reads:
                _quietly(connection.refresh)
            if connection is not None and connection.broken:
                self._drop()
        self._drop()

    def _carry_out(self, work: Work) -> End:
        try:
            connection = self._connection
            if connection is not None:
                try:
                    connection.run(work)
                    return None
                except Stale:
                    # It was closed while nobody used it, which says nothing about the statement.
                    self._drop()
            work.check()
            self._connection = connection = self._connect(work)
            connection.run(work)
        except (Failure, GivenUp) as end:
            return end
        except Stale as error:
            return Failure(f"the connection was closed at once: {error}", again=True)
        except Exception as error:
            log.exception("a statement failed in an unknown way")
            self._drop()
            return Failure(
                f"{type(error).__name__}: {error}", again=False, maybe_done=work.committing
            )
        return None

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
