"""What goes out on a connection of HTTP/2: frames at once, bodies as the peer's windows allow."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

import hpack
import httpx

from orchestratord.engine import frames
from orchestratord.engine.frames import ConnectionFaultError
from orchestratord.engine.head import http2_fields
from orchestratord.engine.stream import Stream

# It writes every header down below this level, secrets among them.
logging.getLogger("hpack").setLevel(logging.WARNING)

_TABLE_SIZE = 4096  # bytes of headers that the peer is made to remember, at most
_PIECE = 65_536  # bytes handed to the transport at once


class Outflow:
    """The way out, and what the peer's settings say of it.

    Args:
        loop: the connection's.
    """

    __slots__ = (
        "_encoder",
        "_frame_size",
        "_initial_window",
        "_loop",
        "_out",
        "_scheduled",
        "_sending",
        "_transport",
        "_window",
        "paused",
    )

    _transport: asyncio.Transport

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.paused = False  # what was written is more than the peer takes at present
        self._loop = loop
        self._encoder = hpack.Encoder()
        self._out = bytearray()
        self._scheduled = False
        self._sending: dict[int, Stream] = {}  # those whose body is not all sent
        self._initial_window = self._window = 65_535
        self._frame_size = frames.FRAME_SIZE

    def attach(self, transport: asyncio.Transport) -> None:
        """The transport is there."""
        self._transport = transport

    def add(self, frame: bytes) -> None:
        """Have a frame sent with the next `write`."""
        self._out += frame

    def begin(self, stream: Stream, request: httpx.Request) -> None:
        """Send a request: its headers, and as much of its body as goes now."""
        stream.window = self._initial_window
        block = self._encoder.encode(http2_fields(request), huffman=False)
        end = stream.unsent is None
        self._out += frames.headers(stream.number, block, end, self._frame_size)
        if not end:
            self._sending[stream.number] = stream
            self.send_bodies()
        # Those who begin in the same round of the loop go out in one piece.
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._write_scheduled)

    def drop(self, stream: Stream) -> None:
        """Send no more of this stream's body."""
        self._sending.pop(stream.number, None)

    def widen(self, size: int) -> None:
        """The peer takes more of all bodies together.

        Raises:
            ConnectionFaultError: more than there can be.
        """
        self._window += size
        if size == 0 or self._window > frames.MAX_WINDOW:
            raise ConnectionFaultError(frames.FLOW_CONTROL_ERROR, "its window is no window")

    def apply(self, name: int, value: int, streams: Iterable[Stream]) -> None:
        """Keep to one of the peer's settings.

        Raises:
            ConnectionFaultError: it has no such value.
        """
        if name == frames.HEADER_TABLE_SIZE:
            self._encoder.header_table_size = min(value, _TABLE_SIZE)
        elif name == frames.MAX_FRAME_SIZE:
            if not frames.FRAME_SIZE <= value < 2**24:
                raise ConnectionFaultError(frames.PROTOCOL_ERROR, "its frames have no size")
            self._frame_size = min(value, _PIECE)
        elif name == frames.INITIAL_WINDOW_SIZE:
            change = value - self._initial_window
            self._initial_window = value
            for stream in streams:
                stream.window += change
            if max((value, *(stream.window for stream in streams))) > frames.MAX_WINDOW:
                raise ConnectionFaultError(frames.FLOW_CONTROL_ERROR, "its window is no window")

    def send_bodies(self) -> None:
        """Send what the windows allow, a frame of each body in turn."""
        moved = True
        while moved:
            moved = False
            for stream in list(self._sending.values()):
                unsent = stream.unsent
                size = min(self._window, stream.window, self._frame_size)
                if unsent is None or size <= 0 or self.paused:
                    continue
                piece, rest = unsent[:size], unsent[size:]
                stream.unsent = rest or None
                if not rest:
                    del self._sending[stream.number]
                flags = 0 if rest else frames.END_STREAM
                self._out += frames.header(len(piece), frames.DATA, flags, stream.number)
                self._out += piece
                stream.window -= len(piece)
                self._window -= len(piece)
                moved = True
                if len(self._out) >= _PIECE:
                    self.write()

    def write(self) -> None:
        """Hand over what there is."""
        if self._out and not self._transport.is_closing():
            out, self._out = self._out, bytearray()
            self._transport.write(out)

    def _write_scheduled(self) -> None:
        self._scheduled = False
        self.write()
