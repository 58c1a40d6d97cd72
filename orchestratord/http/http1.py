"""A connection of HTTP/1.1: opened, a request goes out, its answer comes in, and again."""

from __future__ import annotations

import asyncio
import math
import select
import socket
from collections.abc import Callable, Sized
from contextlib import suppress
from functools import partial
from typing import Any, cast

from orchestratord.errors import SendError, SendErrorKind
from orchestratord.http.connect import Resolver, address_text, connect
from orchestratord.http.egress import Egress
from orchestratord.http.gathered_writes import GatheredWrites
from orchestratord.http.proxy import PoolKey, ProxyAnswer, connect_through
from orchestratord.http.request_bytes import Encoded
from orchestratord.http.response_parser import ReceivedAnswer, ResponseParser, SavingParser
from orchestratord.http.saved_answer import SavedAnswer
from orchestratord.http.streamed_body import StreamedBody
from orchestratord.http.tls import certificate_name, refused_by_peer, tls_failure

_PIECE = 65_536  # bytes of a body handed to the transport at once
_REMEMBERED = 1024  # bytes of an answer, and of its decoded body, that the next one may repeat


class Http1Connection(asyncio.Protocol):
    """A connection to one address. It carries one request and its answer at a time.

    No task belongs to it: the loop's callbacks move an exchange on, and a timer ends it. Servers
    that have little to say often give one answer again and again, which is parsed once: for as long
    as its Date stays the same, byte for byte.

    Args:
        sock: the connected socket beneath the transport.
        address: the address that was checked and dialled.
        egress: the rules that `address` was last checked by.
        gathered: what writes requests at the end of a turn of the loop; None for at once.
    """

    __slots__ = tuple(
        "_answer _answered _asked _buffers _closes _deadline _feeding _gathered _look _loop "
        "not_sent _parser _paused _rest _room _saved _socket _timer _timer_at _transport _waiter "
        "_write address egress idle_since is_closing reusable used".split()
    )

    is_closing: Callable[[], bool]
    """True when the connection is closed, or about to be."""
    _answer: ReceivedAnswer
    """What `_answered` says."""
    _transport: asyncio.Transport
    _write: Callable[[bytes], None]

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        address: str,
        egress: Egress,
        gathered: GatheredWrites | None = None,
    ) -> None:
        self.address = address
        self.egress = egress
        self.used = False  # has carried an exchange before
        self.idle_since = 0.0
        self.reusable = False
        """Whether it can carry another request, once an exchange has ended."""
        self._gathered = gathered
        self._loop = loop
        self._socket = sock
        self._look: Callable[[int], Sized] | None = None
        """What tells whether the socket has something to read."""
        self._waiter: asyncio.Future[ReceivedAnswer] | None = None
        """While an exchange is under way."""
        self._parser: ResponseParser | None = None
        """Of its answer, once the first byte has come."""
        self._asked = "", 0
        """The request's method, and how much is kept of its answer."""
        self._closes = False
        self._buffers = True
        """Whether its transport may hold some of a request back."""
        self.not_sent = False
        """Nothing of the request has gone out: it waits for the end of the turn, or the connection
        is broken. What comes then is not its answer."""
        self._answered = b""
        """The bytes of the last answer to such a request, where it may be repeated; else none."""
        self._rest: memoryview | None = None
        self._feeding: asyncio.Task[None] | None = None
        """Reads a body from files, while `_rest` is empty and no None."""
        self._room: asyncio.Future[None] | None = None
        """What that waits for."""
        self._saved: SavedAnswer | None = None
        self._paused = False  # what was written is more than the peer takes at present
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf

    def exchange(
        self, encoded: Encoded, limit: int, deadline: float
    ) -> asyncio.Future[ReceivedAnswer]:
        """Send one request; what is awaited is its answer. The connection is `reusable` then where
        it can carry another one, and closed where it cannot.

        To be called while it is open and carries nothing. A caller that waits no longer calls
        `abandon`.

        Args:
            encoded: the request.
            limit: how many bytes of the answer's decoded body are kept.
            deadline: the loop's time at which the last byte of the answer has to be there.

        Awaiting raises SendError where there is no usable answer.
        """
        # `create_future` does no more, and takes a call.
        waiter: asyncio.Future[ReceivedAnswer] = asyncio.Future(loop=self._loop)
        self._waiter = waiter
        asked = encoded.request.method, limit
        if asked != self._asked:
            self._asked, self._answered = asked, b""
        self._closes, self._deadline = encoded.closes, deadline
        # One timer for many exchanges: an early one looks at the deadline and waits on.
        if self._timer_at > deadline:
            self._arm()
        body, self._saved = encoded.body, encoded.saved
        if self._saved is not None:
            self._answered = b""
        if encoded.sent is not None:
            self._buffers, self.not_sent, self._rest = True, False, memoryview(b"")
            self._transport.write(encoded.head)
            self._feeding = self._loop.create_task(self._feed(encoded.sent))
        elif len(body) <= _PIECE:
            self.not_sent = self._gathered is not None
            self._write(encoded.head + body)
        else:
            self._buffers, self.not_sent = True, False
            write = self._transport.write if self._over_tls() else self._write_now
            write(encoded.head)
            self._rest = memoryview(body)
            self._send_more()
        return waiter

    def abandon(self) -> None:
        """The answer is not waited for any more: close at once."""
        self.reusable = False
        if self._parser is not None:
            self._parser.release()
        if self._feeding is not None:
            self._feeding.cancel()
        self._waiter = self._parser = self._rest = self._feeding = self._saved = None
        self.close()

    def usable(self) -> bool:
        """Whether it is still open and, idle as it is, silent. The socket is asked as well: the
        loop may not have come to an end of stream, or to bytes, that have already arrived."""
        if self.is_closing():
            return False
        if self._look is None:
            poll = select.poll()
            poll.register(self._socket, select.POLLIN)
            self._look = poll.poll  # a third of what a read takes that finds nothing
        return not self._look(0)

    def close(self) -> None:
        """Close at once; what is not yet sent is dropped."""
        self._transport.abort()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = self._deadline
        self._timer = self._loop.call_at(self._deadline, self._expire)

    def _expire(self) -> None:
        self._timer, self._timer_at = None, math.inf
        if self._waiter is None:
            return
        if self._deadline > self._loop.time():
            self._arm()
            return
        if self._parser is not None:
            what = "the answer did not come to its end in time"
        elif self._rest is not None:
            what = "the request could not be sent in time"
        else:
            what = "no answer came in time"
        self._fail(SendError(what, kind="timeout", sent=not self.not_sent))

    def _send_more(self) -> None:
        """Write a piece a turn: what is written to a connection that broke is dropped, and logged
        piece by piece, until the turn is over and the loop tells of it."""
        if self._rest is not None and not self._paused:
            piece, rest = self._rest[:_PIECE], self._rest[_PIECE:]
            self._rest = rest if rest else None
            self._transport.write(piece)
            if rest and not self._paused:  # else `resume_writing` goes on
                self._loop.call_soon(self._send_more)

    async def _feed(self, body: StreamedBody) -> None:
        """Write a body that is read meanwhile, no faster than the peer takes it."""
        try:
            async for piece in body.pieces():
                self._transport.write(piece)
                if self._paused:
                    self._room = self._loop.create_future()
                    await self._room
        except OSError as error:
            self._feeding = None
            what = f"the request could not be sent: {error}"
            self._fail(SendError(what, kind="send", sent=True))
        else:
            self._rest = self._feeding = None

    def _send_gathered(self, write: Callable[[bytes], None], data: bytes) -> None:
        self.not_sent = False
        if self._waiter is not None:  # else abandoned before the end of the turn
            write(data)

    def _write_now(self, data: bytes) -> None:
        """Send it by the socket itself: nothing is queued before it, and the transport would take
        three times as long. What the socket does not take is left to the transport."""
        try:
            sent = self._socket.send(data)
        except OSError as error:  # it is full; or broken, which the transport finds, too
            self.not_sent = isinstance(error, ConnectionError)
            sent = 0
        if sent < len(data):
            self._buffers = True
            self._transport.write(data[sent:])

    def _over_tls(self) -> bool:
        return self._transport.get_extra_info("sslcontext") is not None

    def _succeed(self, answer: ReceivedAnswer, reusable: bool) -> None:
        waiter = self._waiter
        self._waiter, self.used = None, True
        # An answer may come before the whole body is sent: it counts, the connection is lost.
        if (
            not reusable
            or self._closes
            or self._rest is not None
            or (self._buffers and self._transport.get_write_buffer_size())
        ):
            self.abandon()
        else:
            self.reusable = True
        if waiter is not None and not waiter.done():
            waiter.set_result(answer)

    def _fail(self, error: SendError) -> None:
        waiter = self._waiter
        self.abandon()
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)
            waiter.exception()  # what waits for it may be cancelled at this moment

    def _peer_closed(self, error: Exception | None) -> None:
        if self._waiter is None:
            return
        parser = self._parser
        if parser is None:
            refusal = None if self.used else refused_by_peer(error)
            if refusal is not None:
                self._fail(refusal)
                return
            kind: SendErrorKind = "reset"
            when = "without an answer"
            if self.not_sent:
                when = "before the request was sent"
            elif self._rest is not None:
                kind, when = "send", "while the request was being sent"
            what = f"the connection was closed {when}"
            self._fail(SendError(what, kind=kind, sent=not self.not_sent, stale=self.used))
        elif error is not None:
            what = "the connection was reset in the middle of the answer"
            self._fail(SendError(what, kind="reset", sent=True))
        else:
            try:
                parser.end()
            except SendError as missing:
                self._fail(missing)
            else:
                self._parsed(parser)

    # asyncio's callbacks.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast("asyncio.Transport", transport)
        self.is_closing = transport.is_closing
        self._buffers = self._over_tls()
        write = transport.write if self._buffers else self._write_now
        if self._gathered is not None:
            write = partial(self._gathered.add, partial(self._send_gathered, write))
        self._write = write

    def data_received(self, data: bytes) -> None:
        if self._waiter is None:  # nothing was asked for
            self.close()
            return
        if self.not_sent:  # nor for this
            what = "the receiver sent something before the request was sent"
            self._fail(SendError(what, kind="reset", sent=False, stale=self.used))
            return
        parser, whole = self._parser, False
        if parser is None:
            if data == self._answered:
                self._succeed(self._answer, True)
                return
            if self._saved is None:
                parser = ResponseParser(*self._asked)
            else:
                parser = SavingParser(*self._asked, self._saved, self._transport)
            self._parser, whole = parser, True
        try:
            parser.feed(data)
        except SendError as error:
            # What is no beginning of an answer may have come behind the one before, unasked.
            error.stale = whole and self.used and not data.lstrip().startswith(b"HTTP/")
            self._fail(error)
            return
        if parser.done:
            answer = self._parsed(parser)
            if (
                self._saved is None
                and whole
                and self.reusable
                and len(data) <= _REMEMBERED >= len(answer.content)
            ):
                self._answered, self._answer = data, answer

    def _read_the_rest(self) -> None:
        """Read what came before the connection broke: a receiver that refuses a body says so, and
        hangs up; where that is found as the body is written, its answer has not been read.

        Not over TLS, whose own these bytes are.
        """
        with suppress(OSError):
            while self._waiter is not None and (data := self._socket.recv(_PIECE)):
                self.data_received(data)

    def _parsed(self, parser: ResponseParser) -> ReceivedAnswer:
        answer = parser.answer()
        parser.release()
        self._parser = None
        self._succeed(answer, parser.reusable)
        return answer

    def eof_received(self) -> bool:
        self._peer_closed(None)
        return False  # nothing is left to say to a peer that hung up

    def connection_lost(self, error: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._timer_at = None, math.inf
        self._write = self._transport.write  # which holds no reference to this, as the others do
        try:
            if self._waiter is not None and not self._over_tls():
                self._read_the_rest()
                if isinstance(error, BrokenPipeError):
                    error = None  # the receiver had closed before: nothing that it sent is missing
        finally:  # no timer ends the exchange any more
            self._peer_closed(error)
            # Methods that it holds of itself are a cycle of asyncio's, from 3.12 on two.
            self._transport._read_ready_cb = None  # type: ignore[attr-defined]
            self._transport._write_ready = None  # type: ignore[attr-defined]

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self._feeding is not None:
            if self._room is not None and not self._room.done():
                self._room.set_result(None)
            return
        # The transport is in the middle of its own write: should ours fail within, it would tell of
        # the end twice, and of no error.
        self._loop.call_soon(self._send_more)


async def open_connection(
    key: PoolKey,
    *,
    resolver: Resolver,
    egress: Egress,
    deadline: float,
    gathered: GatheredWrites | None = None,
) -> Http1Connection:
    """Open a connection to a name, or an address; TLS verifies it.

    Args:
        key: where to; of a proxy, its addresses are those that are tried, and checked.
        resolver: asked once.
        egress: the rules.
        deadline: the loop's time at which the connection has to stand.
        gathered: what its requests are written by, if not at once.

    Raises:
        EgressDenied: no address of the name is allowed.
        SendError: of kind dns, connect, tls, certificate, access or timeout.
    """
    loop = asyncio.get_running_loop()
    peer, peer_port, context, route = key
    through = route is not None and context is not None
    if route is not None:
        route.check_target(egress, peer, peer_port)
        peer, peer_port, context = route.proxy.host, route.proxy.port, route.context
    sock, address = await connect(
        peer, peer_port, resolver=resolver, egress=egress, deadline=deadline
    )
    connection = Http1Connection(loop, sock, address, egress, gathered)
    # Without TLS with the target, the proxy is handed the requests themselves. asyncio closes the
    # socket itself when what follows does not succeed.
    if context is None and not through:
        await loop.create_connection(lambda: connection, sock=sock)
        return connection
    name = certificate_name(peer) if context is not None else None
    what = f"{peer} ({address_text(address, peer_port)})"
    try:
        async with asyncio.timeout_at(deadline) as limit:
            secured: dict[str, Any] = {"sock": sock, "ssl": context, "server_hostname": name}
            if route is None or not through:
                await loop.create_connection(lambda: connection, **secured)
            else:
                made = partial(ProxyAnswer, loop, route.proxy)
                transport, answer = await loop.create_connection(made, **secured)
                await connect_through(transport, answer, key, connection)
    except (OSError, ValueError) as error:  # TimeoutError is an OSError
        if limit.expired():
            late = f"the TLS handshake with {what} did not end in time"
            if route is not None and through:
                late = f"no connection to {key.host} through the proxy {route.proxy} in time"
            raise SendError(late, kind="timeout", sent=False) from None
        raise tls_failure(error, peer, what, context) from error
    return connection
