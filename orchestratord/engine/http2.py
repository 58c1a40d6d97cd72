"""A connection of HTTP/2: many requests and their answers at once (RFC 9113).

What one answer does wrong ends that one; only what makes the connection itself unreadable ends all
of them. After a GOAWAY the answers to what the peer has taken still come in.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import ClassVar

import hpack

from orchestratord.engine import frames
from orchestratord.engine.answer import HEAD_LIMIT
from orchestratord.engine.connection import Connection
from orchestratord.engine.frames import ConnectionFaultError, Frame, FrameReader
from orchestratord.engine.head import Encoded
from orchestratord.engine.outflow import Outflow
from orchestratord.engine.stream import Stream, StreamAnswer
from orchestratord.engine.trust import refused_by_peer
from orchestratord.errors import SendError, SendErrorKind
from orchestratord.http.egress import Egress

_STREAM_WINDOW = 262_144  # bytes of one answer that may be on their way
_CONNECTION_WINDOW = 16_777_216  # of all answers; each of them is bounded, and read at once
_UNREAD_LIMIT = 1_048_576  # bytes of replies, such as to PING, that the peer leaves unread
_NOISE_LIMIT = 8_388_608  # bytes of frames, between two answers, that belong to none
_FRAME_COST = 256  # what a frame counts for in that beside its payload
_HEADERS_COST = 16  # how often a byte of headers counts: unpacking is slow
_SETTINGS = {
    frames.ENABLE_PUSH: 0,
    frames.INITIAL_WINDOW_SIZE: _STREAM_WINDOW,
    # Over HEAD_LIMIT an answer is refused by itself. This is where unpacking stops, and with it
    # the whole connection, which is packed as one.
    frames.MAX_HEADER_LIST_SIZE: 4 * HEAD_LIMIT,
}


class Http2Connection(Connection):
    """Carries as many exchanges at once as the peer allows."""

    __slots__ = (
        "_decoder",
        "_heard",
        "_next",
        "_noise",
        "_outflow",
        "_peer_limit",
        "_reader",
        "_ready",
        "_received",
        "_retired",
        "_streams",
    )

    shared: ClassVar[bool] = True

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sock: socket.socket, address: str, egress: Egress
    ) -> None:
        super().__init__(loop, sock, address, egress)
        self._outflow = Outflow(loop)
        self._reader = FrameReader()
        self._decoder = hpack.Decoder(max_header_list_size=_SETTINGS[frames.MAX_HEADER_LIST_SIZE])
        self._ready: asyncio.Future[None] = loop.create_future()
        self._streams: dict[int, Stream] = {}
        self._next = 1
        self._peer_limit = 0  # until its settings have come
        self._retired = False  # takes no new exchange
        self._received = 0  # bytes of bodies since the connection's window was last opened
        self._noise = 0
        self._heard = 0

    async def ready(self) -> None:
        """Wait for the peer's settings: it speaks HTTP/2, and says how many exchanges it takes.

        Raises:
            SendError: it does not, or hung up.
        """
        await self._ready

    @property
    def active(self) -> bool:
        """True while an exchange is under way."""
        return bool(self._streams)

    @property
    def room(self) -> bool:
        """Whether the peer takes one more exchange now."""
        return len(self._streams) < self._peer_limit

    def usable(self) -> bool:
        """Whether it is open for new exchanges at all. The socket is asked as well: the loop may
        not have come to an end of stream that has already arrived."""
        return (
            not self._retired
            and not self.closing
            and self._next < frames.MAX_WINDOW
            and self._peek() != b""
        )

    def retire(self) -> None:
        """Take no new exchange, and close once the last one has ended."""
        self._retired = True
        self._rest()

    async def exchange(self, encoded: Encoded, limit: int, deadline: float) -> StreamAnswer:
        """Send one request and read its answer, beside others. Cancelled, it tells the peer so,
        and the others go on."""
        stream = self._begin(encoded, limit)
        answer = stream.answer
        timer = self._loop.call_at(deadline, self._expire, stream)
        try:
            await stream.waiter
        finally:
            timer.cancel()
            if stream.number in self._streams:
                self._end(stream)
                self._outflow.write()
            del stream  # it may hold an error, whose traceback holds this frame
        return answer

    def _begin(self, encoded: Encoded, limit: int) -> Stream:
        request = encoded.request
        if self.closing or self._retired:
            what = "the connection was closed before anything was sent"
            raise SendError(what, kind="reset", sent=False, stale=self.used)
        if not self.room:
            raise SendError("the peer takes no request at present", kind="send", sent=False)
        number = self._next
        self._next += 2
        stream = Stream(
            number,
            StreamAnswer(request.method, limit),
            self._loop.create_future(),
            request.content,  # as it is: `encoded.body` may be in chunks
            self._heard,
        )
        self._streams[number] = stream
        self._outflow.begin(stream, request)
        return stream

    # -- how exchanges end -----------------------------------------------------------------

    def _end(self, stream: Stream, error: SendError | None = None) -> None:
        """An exchange is over. Where the peer does not know that by itself, it is told."""
        self._drop(stream, error)
        if not stream.answer.ended or stream.unsent is not None:
            self._outflow.add(frames.reset(stream.number, frames.CANCEL))
        self._rest()

    def _drop(self, stream: Stream, error: SendError | None) -> None:
        del self._streams[stream.number]
        self._outflow.drop(stream)
        self.used = True
        self._noise = 0
        stream.settle(error)

    def _rest(self) -> None:
        if not self._streams:
            self.idle_since = self._loop.time()
            if self._retired:
                self._leave(frames.NO_ERROR)

    def _leave(self, code: int) -> None:
        if not self.closing:
            self._outflow.add(frames.goaway(code))
            self._outflow.write()
            self.close()

    def _expire(self, stream: Stream) -> None:
        if stream.number not in self._streams:
            return
        if self._heard == stream.heard:
            self._retired = True  # nothing has come at all: it may be dead, so spare it the next
        self._end(stream, stream.late())
        self._outflow.write()

    def _break(self, fault: ConnectionFaultError) -> None:
        """The peer does not keep to the protocol."""
        self._leave(fault.code)
        for stream in list(self._streams.values()):
            what = f"the answer cannot be used: {fault}"
            self._drop(stream, SendError(what, kind="protocol", sent=True))
        if not self._ready.done():
            what = f"the peer cannot be used: {fault}"
            self._ready.set_exception(SendError(what, kind="protocol", sent=False))

    def _lost(self, error: Exception | None) -> None:
        """There is no connection any more."""
        for stream in list(self._streams.values()):
            self._drop(stream, stream.lost(error))
        if not self._ready.done():
            # With TLS 1.3 it is only now that the peer says what it thinks of a certificate.
            kind: SendErrorKind = "tls" if isinstance(error, ssl.SSLError) else "connect"
            what = "the connection was closed before the peer's HTTP/2 settings came"
            lost = SendError(what, kind=kind, sent=False)
            self._ready.set_exception(refused_by_peer(error) or lost)
        if self._ready.done() and not self._ready.cancelled():
            self._ready.exception()  # whoever waited for it may have gone

    # -- what comes in ---------------------------------------------------------------------

    def _take(self, frame: Frame) -> None:
        kind = frame.type
        if not self._ready.done() and (kind != frames.SETTINGS or frame.flags & frames.ACK):
            raise ConnectionFaultError(frames.PROTOCOL_ERROR, "its settings do not come first")
        stream = self._streams.get(frame.stream)
        if stream is None or kind not in (frames.DATA, frames.HEADERS):
            weight = _HEADERS_COST if kind == frames.HEADERS else 1
            self._noise += frame.size * weight + _FRAME_COST
            if self._noise > _NOISE_LIMIT:
                raise ConnectionFaultError(frames.ENHANCE_YOUR_CALM, "it says too much else")
            if frame.stream and kind != frames.PRIORITY and kind <= frames.CONTINUATION:
                self._check_opened(frame.stream)
        if kind == frames.DATA:
            self._take_data(stream, frame)
        elif kind == frames.HEADERS:
            self._take_headers(stream, frame)
        elif kind == frames.RST_STREAM:
            if stream is not None:
                self._take_reset(stream, int.from_bytes(frame.payload, "big"))
        elif kind == frames.WINDOW_UPDATE:
            self._take_window(stream, frame)
        elif kind == frames.SETTINGS:
            if not frame.flags & frames.ACK:
                self._take_settings(frame.payload)
        elif kind == frames.PING:
            if not frame.flags & frames.ACK:
                self._outflow.add(frames.header(8, frames.PING, frames.ACK, 0) + frame.payload)
        elif kind == frames.GOAWAY:
            self._take_goaway(int.from_bytes(frame.payload[:4], "big") & frames.MAX_WINDOW)
        elif kind == frames.PUSH_PROMISE:
            raise ConnectionFaultError(frames.PROTOCOL_ERROR, "it pushes what nobody asked for")

    def _check_opened(self, number: int) -> None:
        if number % 2 == 0 or number >= self._next:
            raise ConnectionFaultError(frames.PROTOCOL_ERROR, "a frame is of no request's stream")

    def _take_data(self, stream: Stream | None, frame: Frame) -> None:
        self._received += frame.size
        if self._received > _CONNECTION_WINDOW // 2:
            self._outflow.add(frames.window_update(0, self._received))
            self._received = 0
        if stream is None:
            return
        answer = stream.answer
        try:
            answer.take_data(frame.payload, frame.size, bool(frame.flags & frames.END_STREAM))
        except SendError as error:
            self._end(stream, error)
            return
        if answer.done:
            self._end(stream)
            return
        stream.received += frame.size
        if stream.received > _STREAM_WINDOW // 2:
            self._outflow.add(frames.window_update(stream.number, stream.received))
            stream.received = 0

    def _take_headers(self, stream: Stream | None, frame: Frame) -> None:
        # Unpacked in any case: each block changes how the next one is to be read.
        try:
            fields = self._decoder.decode(frame.payload, raw=True)
        except hpack.HPACKError as error:
            why = f"its headers cannot be unpacked: {error}"
            raise ConnectionFaultError(frames.COMPRESSION_ERROR, why) from None
        if stream is None:
            return
        try:
            stream.answer.take_headers(fields, frame.size, bool(frame.flags & frames.END_STREAM))
        except SendError as error:
            self._end(stream, error)
            return
        if stream.answer.done:
            self._end(stream)

    def _take_reset(self, stream: Stream, code: int) -> None:
        if code == frames.REFUSED_STREAM and not stream.answer.started:
            self._drop(stream, stream.unprocessed("refused it"))
        else:
            what = f"the peer broke the exchange off, with HTTP/2's error {code:#x}"
            if code == frames.HTTP_1_1_REQUIRED:
                what = "the peer wants this request over HTTP/1.1"
            self._drop(stream, SendError(what, kind="reset", sent=True))
        self._rest()

    def _take_window(self, stream: Stream | None, frame: Frame) -> None:
        size = int.from_bytes(frame.payload, "big") & frames.MAX_WINDOW
        if frame.stream == 0:
            self._outflow.widen(size)
        elif stream is not None:
            stream.window += size
            if size == 0 or stream.window > frames.MAX_WINDOW:
                what = "the answer cannot be used: its window is no window"
                self._end(stream, SendError(what, kind="protocol", sent=True))
        self._outflow.send_bodies()

    def _take_settings(self, payload: bytes) -> None:
        if not self._ready.done():
            self._peer_limit = frames.MAX_WINDOW  # unless it says another one
        for name, value in frames.parse_settings(payload):
            if name == frames.MAX_CONCURRENT_STREAMS:
                self._peer_limit = value
            else:
                self._outflow.apply(name, value, self._streams.values())
        self._outflow.add(frames.header(0, frames.SETTINGS, frames.ACK, 0))
        if not self._ready.done():
            self._ready.set_result(None)
        self._outflow.send_bodies()

    def _take_goaway(self, last: int) -> None:
        self._retired = True
        for stream in list(self._streams.values()):
            if stream.number > last:
                self._drop(stream, stream.unprocessed("hung up"))
        self._rest()

    # -- asyncio's callbacks ---------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.idle_since = self._loop.time()
        self._outflow.attach(self._transport)
        self._outflow.add(frames.PREFACE + frames.settings(_SETTINGS))
        self._outflow.add(frames.window_update(0, _CONNECTION_WINDOW - 65_535))
        self._outflow.write()

    def data_received(self, data: bytes) -> None:
        self._heard += 1
        try:
            for frame in self._reader.feed(data):
                self._take(frame)
                if self.closing:
                    return
            if self._outflow.paused and self._transport.get_write_buffer_size() > _UNREAD_LIMIT:
                raise ConnectionFaultError(frames.ENHANCE_YOUR_CALM, "it does not read")
        except ConnectionFaultError as fault:
            self._break(fault)
        else:
            self._outflow.write()

    def eof_received(self) -> bool:
        self._lost(None)
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._lost(error)

    def pause_writing(self) -> None:
        self._outflow.paused = True

    def resume_writing(self) -> None:
        self._outflow.paused = False
        self._outflow.send_bodies()
        self._outflow.write()
