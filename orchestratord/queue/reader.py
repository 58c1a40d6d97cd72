"""A reading thread: what people and the worker look up, while the writer goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from orchestratord.errors import QueueError
from orchestratord.queue.connection import Connection
from orchestratord.queue.database import Database
from orchestratord.values import world

T = TypeVar("T")


class Reader:
    """One thread with a connection that cannot write."""

    def __init__(self, database: Database, name: str) -> None:
        """`name`: of its thread. It connects when it is first asked for something."""
        self._database = database
        self._thread = world.ThreadPoolExecutor(1, thread_name_prefix=f"orchestratord-{name}")
        self._connection: Connection | None = None
        self._closed = False

    async def run(self, read: Callable[[Connection], T]) -> T:
        """Run `read` on the reading thread. Raises QueueError where the database fails."""
        if self._closed:
            raise QueueError("the queue is closed")
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._run, read)

    def _run(self, read: Callable[[Connection], T]) -> T:
        failures = self._database.failures
        if self._connection is None:
            self._connection = self._database.connect(writes=False)
        try:
            try:
                return self._look(self._connection, read)
            except failures.errors as error:
                if failures.is_lost(error):  # perhaps since long ago, and only noticed now
                    self._connection.mend()
                elif not failures.is_passing(error):
                    raise
                return self._look(self._connection, read)
        except failures.errors as error:
            raise failures.named(error) from error

    def _look(self, db: Connection, read: Callable[[Connection], T]) -> T:
        with db.look():
            return read(db)

    async def close(self) -> None:
        """Close the connection and end the thread."""
        if not self._closed:
            self._closed = True
            await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
            self._thread.shutdown()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
