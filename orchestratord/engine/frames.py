"""HTTP/2's frames: cut out of what comes, and made for what goes out (RFC 9113, sections 4 and 6).

What they mean is for the connection to say. Here they are only framed, within the bounds that this
end has announced; header blocks come out whole.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

# Types.
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = 0, 1, 2, 3, 4
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 5, 6, 7, 8, 9

# Flags. The first one is ACK on SETTINGS and PING.
END_STREAM = ACK = 0x1
END_HEADERS = 0x4
_PADDED = 0x8
_PRIORITIZED = 0x20

# Settings.
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS = 1, 2, 3
INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 4, 5, 6

# Error codes.
NO_ERROR, PROTOCOL_ERROR, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR = 0x0, 0x1, 0x3, 0x6
REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 0x7, 0x8, 0x9, 0xB
HTTP_1_1_REQUIRED = 0xD

FRAME_SIZE = 16_384  # the largest payload that is taken; it is what every peer keeps to unasked
MAX_WINDOW = 2**31 - 1
_BLOCK_LIMIT = 131_072  # bytes of one header block as it is packed; a tenth of a second's work

# The lengths that payloads of a type must have: exactly, or at least where they may go on.
_EXACT = {PRIORITY: 5, RST_STREAM: 4, PING: 8, WINDOW_UPDATE: 4}
_LEAST = {GOAWAY: 8}
_ON_STREAM = frozenset({DATA, HEADERS, PRIORITY, RST_STREAM, PUSH_PROMISE, CONTINUATION})
_ON_CONNECTION = frozenset({SETTINGS, PING, GOAWAY})


class ConnectionFaultError(Exception):
    """The peer does not keep to HTTP/2, in a way after which nothing it says can be understood.

    Args:
        code: the error code to tell it.
        why: what it did, for a person.
    """

    def __init__(self, code: int, why: str) -> None:
        self.code = code
        super().__init__(f"it is not HTTP/2: {why}")


class Frame(NamedTuple):
    """One frame, its padding and priority taken off. `size` is what it was on the wire, without
    its header; a block of headers comes as one frame however many it was sent in."""

    type: int
    flags: int
    stream: int
    payload: bytes
    size: int


class FrameReader:
    """Cuts the bytes of a connection into frames."""

    __slots__ = ("_block", "_buffer")

    def __init__(self) -> None:
        self._buffer = b""
        self._block: Frame | None = None  # of headers, to be continued

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are complete with these bytes.

        Raises:
            ConnectionFaultError: what follows is no frame that could be sent here.
        """
        data = self._buffer + data if self._buffer else data
        position, end = 0, len(data)
        try:
            while end - position >= 9:
                length = data[position] << 16 | data[position + 1] << 8 | data[position + 2]
                if length > FRAME_SIZE:
                    raise ConnectionFaultError(FRAME_SIZE_ERROR, "a frame is too large")
                start = position + 9
                if end - start < length:
                    break
                kind, flags = data[position + 3], data[position + 4]
                stream = int.from_bytes(data[position + 5 : start], "big") & MAX_WINDOW
                position = start + length
                frame = self._frame(Frame(kind, flags, stream, data[start:position], length))
                if frame is not None:
                    yield frame
        finally:
            self._buffer = data[position:]

    def _frame(self, frame: Frame) -> Frame | None:
        kind, flags, stream, payload, size = frame
        if self._block is not None:
            return self._continued(self._block, frame)
        if kind in _ON_STREAM and stream == 0:
            raise ConnectionFaultError(PROTOCOL_ERROR, "a frame of a stream names none")
        if kind in _ON_CONNECTION and stream:
            raise ConnectionFaultError(PROTOCOL_ERROR, "a frame of the connection names a stream")
        if _EXACT.get(kind, size) != size or size < _LEAST.get(kind, 0):
            raise ConnectionFaultError(FRAME_SIZE_ERROR, "a frame has not the size of its type")
        if kind == CONTINUATION:
            raise ConnectionFaultError(PROTOCOL_ERROR, "a frame continues nothing")
        if kind == SETTINGS and (size % 6 or (flags & ACK and size)):
            raise ConnectionFaultError(FRAME_SIZE_ERROR, "a frame of settings is cut")
        if kind in (DATA, HEADERS) and flags & (_PADDED | _PRIORITIZED):
            frame = Frame(kind, flags, stream, _bare(kind, flags, payload), size)
        if kind == HEADERS and not flags & END_HEADERS:
            self._block = frame
            return None
        return frame

    def _continued(self, block: Frame, frame: Frame) -> Frame | None:
        if frame.type != CONTINUATION or frame.stream != block.stream:
            raise ConnectionFaultError(PROTOCOL_ERROR, "a block of headers is interrupted")
        # A frame that holds nothing costs its peer nothing, and there could be millions of them.
        size = block.size + max(frame.size, 256)
        if size > _BLOCK_LIMIT:
            raise ConnectionFaultError(ENHANCE_YOUR_CALM, "a block of headers is too large")
        whole = Frame(HEADERS, block.flags, block.stream, block.payload + frame.payload, size)
        if frame.flags & END_HEADERS:
            self._block = None
            return whole
        self._block = whole
        return None


def _bare(kind: int, flags: int, payload: bytes) -> bytes:
    start, padding = 0, 0
    if flags & _PADDED:
        if not payload:
            raise ConnectionFaultError(FRAME_SIZE_ERROR, "a padded frame is empty")
        start, padding = 1, payload[0]
    if kind == HEADERS and flags & _PRIORITIZED:
        start += 5
    if start + padding > len(payload):
        raise ConnectionFaultError(PROTOCOL_ERROR, "a frame is shorter than its padding")
    return payload[start : len(payload) - padding]


def header(length: int, kind: int, flags: int, stream: int) -> bytes:
    """The nine bytes that go before a payload."""
    return struct.pack(">HBBBL", length >> 8, length & 0xFF, kind, flags, stream)


def headers(stream: int, block: bytes, end: bool, size: int) -> bytes:
    """HEADERS and, where the block is larger than `size`, CONTINUATION frames."""
    flags = END_STREAM if end else 0
    if len(block) <= size:
        return header(len(block), HEADERS, flags | END_HEADERS, stream) + block
    pieces = [block[start : start + size] for start in range(0, len(block), size)]
    out = header(size, HEADERS, flags, stream) + pieces[0]
    for piece in pieces[1:-1]:
        out += header(size, CONTINUATION, 0, stream) + piece
    return out + header(len(pieces[-1]), CONTINUATION, END_HEADERS, stream) + pieces[-1]


def settings(values: dict[int, int]) -> bytes:
    """A SETTINGS frame."""
    pairs = b"".join(struct.pack(">HL", name, value) for name, value in values.items())
    return header(len(pairs), SETTINGS, 0, 0) + pairs


def parse_settings(payload: bytes) -> Iterator[tuple[int, int]]:
    """Identifiers and values, in the order in which they are to be applied."""
    return struct.iter_unpack(">HL", payload)


def reset(stream: int, code: int) -> bytes:
    """A RST_STREAM frame."""
    return header(4, RST_STREAM, 0, stream) + code.to_bytes(4, "big")


def window_update(stream: int, size: int) -> bytes:
    """A WINDOW_UPDATE frame; stream 0 is the connection."""
    return header(4, WINDOW_UPDATE, 0, stream) + size.to_bytes(4, "big")


def goaway(code: int) -> bytes:
    """A GOAWAY frame of an end that has taken no streams."""
    return header(8, GOAWAY, 0, 0) + bytes(4) + code.to_bytes(4, "big")
