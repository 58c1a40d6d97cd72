"""A stream of messages between two workers of one run: Python objects, each behind its length.

Both ends are forked from one process that no one else can write to, which is why they may be
pickled.
"""

from __future__ import annotations

import asyncio
import pickle
import socket
from typing import Any

MOST_UNREAD = 16 << 20
"""Bytes that wait for the other end, beyond which it is told no more of what can be missed."""
_ANSWER = "answer"


class Link:
    """One end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._questions = 0

    @classmethod
    async def over(cls, sock: socket.socket) -> Link:
        """The link over a connected socket."""
        return cls(*await asyncio.open_unix_connection(sock=sock))

    @property
    def slow(self) -> bool:
        """Whether the other end reads so slowly that what can be missed is not sent."""
        return self._writer.transport.get_write_buffer_size() > MOST_UNREAD

    def send(self, kind: str, *values: Any) -> None:
        """Send a message soon; nothing happens where the other end has gone."""
        if not self._writer.is_closing():
            data = pickle.dumps((kind, values), protocol=5)
            self._writer.write(len(data).to_bytes(4) + data)

    async def ask(self, kind: str, *values: Any) -> Any:
        """Send a question, before whose `values` stands its number; what the other end answers,
        which comes while someone receives. Raises EOFError where this end is closed before."""
        self._questions += 1
        number = self._questions
        self._asked[number] = answer = asyncio.get_running_loop().create_future()
        self.send(kind, number, *values)
        try:
            return await answer
        finally:
            del self._asked[number]

    def answer(self, number: int, found: Any) -> None:
        """Send the answer to the question of this number."""
        self.send(_ANSWER, number, found)

    async def receive(self) -> tuple[str, Any]:
        """The next message that is no answer. Raises EOFError where the other end has gone."""
        while True:
            kind, values = await self._next()
            if kind != _ANSWER:
                return kind, values
            number, found = values
            asked = self._asked.get(number)  # none where it is waited for no more
            if asked is not None and not asked.done():
                asked.set_result(found)

    async def _next(self) -> tuple[str, Any]:
        try:
            size = int.from_bytes(await self._reader.readexactly(4))
            found: tuple[str, Any] = pickle.loads(await self._reader.readexactly(size))  # noqa: S301  # see above
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            raise EOFError from error
        return found

    def close(self) -> None:
        """Close it: no answer comes any more."""
        self._disconnect()
        for asked in self._asked.values():
            if not asked.done():
                asked.set_exception(EOFError())

    def _disconnect(self) -> None:
        self._writer.close()
