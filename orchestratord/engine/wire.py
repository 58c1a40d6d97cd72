"""One connection: a request goes out, its answer comes in, and again."""

from __future__ import annotations

import asyncio
import socket
from typing import cast

from orchestratord.engine.answer import Answer
from orchestratord.engine.egress import Egress
from orchestratord.errors import SendError

_PIECE = 65_536  # bytes of a body handed to the transport at once


class Connection(asyncio.Protocol):
    """A connection to one address, for one exchange at a time.

    No task belongs to it: the loop's callbacks move the exchange on, and one timer ends it.

    Args:
        sock: the connected socket beneath the transport.
        address: the address that was checked and dialled.
        egress: the rules that `address` was last checked by.
    """

    __slots__ = (
        "_answer",
        "_loop",
        "_paused",
        "_socket",
        "_transport",
        "_unsent",
        "_waiter",
        "address",
        "egress",
        "idle_since",
        "used",
    )

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
        self._answer: Answer | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._unsent: memoryview | None = None
        self._paused = False

    async def exchange(self, head: bytes, body: bytes, answer: Answer, deadline: float) -> bool:
        """Send one request and read its answer. Cancelled, it closes the connection at once.

        Args:
            head: request line and headers, up to the empty line.
            body: the bytes that follow.
            answer: takes what comes.
            deadline: the loop's time at which the last byte of the answer has to be there.

        Returns:
            True when the connection can carry another exchange; otherwise it is closed.

        Raises:
            SendError: there is no usable answer.
        """
        self._answer = answer
        self._waiter = waiter = self._loop.create_future()
        timer = self._loop.call_at(deadline, self._expire)
        reusable = False
        try:
            if self.closing:
                what = "the connection was closed before anything was sent"
                raise SendError(what, kind="reset", sent=False, stale=self.used)
            if len(body) <= _PIECE:
                self._transport.write(head + body)
            else:
                self._transport.write(head)
                self._unsent = memoryview(body)
                self._send_more()
            await waiter
            # An answer may come before the whole body is sent: it counts, the connection is lost.
            reusable = (
                answer.reusable
                and self._unsent is None
                and not self._transport.get_write_buffer_size()
                and not self.closing
            )
        finally:
            timer.cancel()
            del waiter  # it may hold an error, whose traceback holds this frame
            self._answer = self._waiter = self._unsent = None
            answer.release()
            if not reusable:
                self.close()
        self.used = True
        return reusable

    @property
    def closing(self) -> bool:
        """True when the connection is closed, or about to be."""
        return self._transport.is_closing()

    def usable(self) -> bool:
        """Whether an idle connection is still open and silent. The socket is asked as well: the
        loop may not have come to an end of stream that has already arrived."""
        if self.closing:
            return False
        try:
            self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def close(self) -> None:
        """Close at once; what is not yet sent is dropped."""
        self._transport.abort()

    def _expire(self) -> None:
        answer = self._answer
        if answer is None:
            return
        if answer.started:
            what = "the answer did not come to its end in time"
        elif self._unsent is not None:
            what = "the request could not be sent in time"
        else:
            what = "no answer came in time"
        self._fail(SendError(what, kind="timeout", sent=True))

    def _send_more(self) -> None:
        while self._unsent is not None and not self._paused:
            piece, rest = self._unsent[:_PIECE], self._unsent[_PIECE:]
            self._unsent = rest if rest else None
            self._transport.write(piece)

    def _succeed(self) -> None:
        self._answer = None
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, error: SendError) -> None:
        self._answer = None
        self.close()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)

    def _peer_closed(self, error: Exception | None) -> None:
        answer = self._answer
        if answer is None:
            return
        if not answer.started:
            if self._unsent is not None:
                what, sending = "the connection was closed while the request was being sent", True
            else:
                what, sending = "the connection was closed without an answer", False
            self._fail(
                SendError(what, kind="send" if sending else "reset", sent=True, stale=self.used)
            )
        elif error is not None:
            what = "the connection was reset in the middle of the answer"
            self._fail(SendError(what, kind="reset", sent=True))
        else:
            try:
                answer.end()
            except SendError as missing:
                self._fail(missing)
            else:
                self._succeed()

    # asyncio's callbacks.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        answer = self._answer
        if answer is None:  # nobody asked for anything
            self.close()
            return
        try:
            answer.feed(data)
        except SendError as error:
            self._fail(error)
        else:
            if answer.done:
                self._succeed()

    def eof_received(self) -> bool:
        self._peer_closed(None)
        return False  # nothing is left to say to a peer that hung up

    def connection_lost(self, error: Exception | None) -> None:
        self._peer_closed(error)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._send_more()
