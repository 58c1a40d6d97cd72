"""A connection of HTTP/1.1: a request goes out, its answer comes in, and again."""

from __future__ import annotations

import asyncio
import socket
from typing import ClassVar

from orchestratord.engine.connection import Connection
from orchestratord.engine.head import Encoded
from orchestratord.engine.parsed import ParsedAnswer
from orchestratord.engine.trust import refused_by_peer
from orchestratord.errors import SendError
from orchestratord.http.egress import Egress

_PIECE = 65_536  # bytes of a body handed to the transport at once


class Http1Connection(Connection):
    """Carries one exchange at a time."""

    __slots__ = ("_answer", "_deadline", "_paused", "_timer", "_unsent", "_waiter")

    shared: ClassVar[bool] = False

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sock: socket.socket, address: str, egress: Egress
    ) -> None:
        super().__init__(loop, sock, address, egress)
        self._answer: ParsedAnswer | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._unsent: memoryview | None = None
        self._paused = False  # what was written is more than the peer takes at present
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None

    async def exchange(self, encoded: Encoded, limit: int, deadline: float) -> ParsedAnswer:
        """Send one request and read its answer. Cancelled, it closes the connection at once."""
        self._answer = answer = ParsedAnswer(encoded.request.method, limit)
        self._waiter = waiter = self._loop.create_future()
        self._deadline = deadline
        # One timer for many exchanges: an early one looks at the deadline and waits on.
        if self._timer is None or self._timer.when() > deadline:
            self._arm()
        reusable = False
        try:
            if self.closing:
                what = "the connection was closed before anything was sent"
                raise SendError(what, kind="reset", sent=False, stale=self.used)
            body = encoded.body
            if len(body) <= _PIECE:
                self._transport.write(encoded.head + body)
            else:
                self._transport.write(encoded.head)
                self._unsent = memoryview(body)
                self._send_more()
            await waiter
            # An answer may come before the whole body is sent: it counts, the connection is lost.
            reusable = (
                answer.reusable
                and not encoded.closes
                and self._unsent is None
                and not self._transport.get_write_buffer_size()
            )
        finally:
            del waiter  # it may hold an error, whose traceback holds this frame
            self._answer = self._waiter = self._unsent = None
            answer.release()
            if not reusable:
                self.close()
        self.used = True
        return answer

    def usable(self) -> bool:
        """Whether it is still open and, idle as it is, silent. The socket is asked as well: the
        loop may not have come to an end of stream that has already arrived."""
        return not self.closing and self._peek() is None

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._deadline, self._expire)

    def _expire(self) -> None:
        self._timer = None
        answer = self._answer
        if answer is None:
            return
        if self._deadline > self._loop.time():
            self._arm()
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
            self._waiter.exception()  # whoever waits for it may be cancelled at this moment

    def _peer_closed(self, error: Exception | None) -> None:
        answer = self._answer
        if answer is None:
            return
        if not answer.started:
            refusal = None if self.used else refused_by_peer(error)
            if refusal is not None:
                self._fail(refusal)
                return
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
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._peer_closed(error)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._send_more()
