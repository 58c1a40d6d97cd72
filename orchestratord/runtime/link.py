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


class Link:
    """One end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

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

    async def receive(self) -> tuple[str, Any]:
        """The next message. Raises EOFError where the other end has gone."""
        try:
            size = int.from_bytes(await self._reader.readexactly(4))
            found: tuple[str, Any] = pickle.loads(await self._reader.readexactly(size))  # noqa: S301  # see above
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            raise EOFError from error
        return found

    def close(self) -> None:
        """Close it."""
        self._writer.close()
