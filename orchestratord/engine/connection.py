"""What HTTP/1.1's connections and HTTP/2's have in common."""

from __future__ import annotations

import asyncio
import socket
from abc import abstractmethod
from typing import ClassVar, cast

from orchestratord.engine.answer import HttpAnswer
from orchestratord.engine.head import Encoded
from orchestratord.http.egress import Egress


class Connection(asyncio.Protocol):
    """A connection to one address, which carries exchanges of a request and its answer.

    No task belongs to it: the loop's callbacks move an exchange on, and a timer ends it.

    Args:
        sock: the connected socket beneath the transport.
        address: the address that was checked and dialled.
        egress: the rules that `address` was last checked by.
    """

    __slots__ = (
        "_loop",
        "_socket",
        "_transport",
        "address",
        "egress",
        "idle_since",
        "used",
    )

    shared: ClassVar[bool]
    """Whether it carries several exchanges at once."""

    _transport: asyncio.Transport

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sock: socket.socket, address: str, egress: Egress
    ) -> None:
        self.address = address
        self.egress = egress
        self.used = False  # has carried an exchange before
        self.idle_since = 0.0
        self._loop = loop
        self._socket = sock

    async def ready(self) -> None:
        """Wait until it can carry its first exchange.

        Raises:
            SendError: it cannot.
        """

    @abstractmethod
    async def exchange(self, encoded: Encoded, limit: int, deadline: float) -> HttpAnswer:
        """Send one request and read its answer. Where the connection can carry no other one
        afterwards, it is closed.

        Args:
            encoded: the request.
            limit: how many bytes of the answer's decoded body are kept.
            deadline: the loop's time at which the last byte of the answer has to be there.

        Raises:
            SendError: there is no usable answer.
        """

    @abstractmethod
    def usable(self) -> bool:
        """Whether it can be used for another exchange."""

    @property
    def closing(self) -> bool:
        """True when the connection is closed, or about to be."""
        return self._transport.is_closing()

    def close(self) -> None:
        """Close at once; what is not yet sent is dropped."""
        self._transport.abort()

    def _peek(self) -> bytes | None:
        """What the socket has that the loop has not come to yet: b"" for the end of the stream,
        None for nothing."""
        try:
            return self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
