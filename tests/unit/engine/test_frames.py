"""HTTP/2's frames, held against hyperframe's."""

from __future__ import annotations

import pytest
from hyperframe import frame as theirs
from hypothesis import given
from hypothesis import strategies as st

from orchestratord.engine import frames
from orchestratord.engine.frames import ConnectionFaultError, Frame, FrameReader

STREAMS = st.integers(1, 2**31 - 1)
PAYLOADS = st.binary(max_size=300)


def data(stream: int, payload: bytes, padding: int | None, end: bool) -> theirs.Frame:
    frame = theirs.DataFrame(stream, payload)
    if padding is not None:
        frame.flags.add("PADDED")
        frame.pad_length = padding
    if end:
        frame.flags.add("END_STREAM")
    return frame


def headers(stream: int, payload: bytes, padding: int | None, priority: bool) -> theirs.Frame:
    frame = theirs.HeadersFrame(stream, payload)
    frame.flags.add("END_HEADERS")
    if padding is not None:
        frame.flags.add("PADDED")
        frame.pad_length = padding
    if priority:
        frame.flags.add("PRIORITY")
        frame.depends_on = 0
    return frame


FRAMES = st.one_of(
    st.builds(data, STREAMS, PAYLOADS, st.none() | st.integers(0, 255), st.booleans()),
    st.builds(headers, STREAMS, PAYLOADS, st.none() | st.integers(0, 255), st.booleans()),
    st.builds(lambda payload: theirs.PingFrame(0, payload), st.binary(min_size=8, max_size=8)),
    st.builds(lambda stream, code: theirs.RstStreamFrame(stream, code), STREAMS, st.integers(0, 9)),
    st.builds(lambda stream, size: theirs.WindowUpdateFrame(stream, size), STREAMS, STREAMS),
)


def read(raw: bytes, sizes: list[int]) -> list[Frame]:
    reader, found = FrameReader(), []
    for size in sizes:
        found += reader.feed(raw[:size])
        raw = raw[size:]
    return found + list(reader.feed(raw))


@given(st.lists(FRAMES, max_size=8), st.lists(st.integers(1, 40)))
def test_any_pieces_come_to_the_same_frames(sent: list[theirs.Frame], sizes: list[int]) -> None:
    found = read(b"".join(frame.serialize() for frame in sent), sizes)
    assert [frame.type for frame in found] == [frame.type for frame in sent]
    assert [frame.stream for frame in found] == [frame.stream_id for frame in sent]
    for frame, original in zip(found, sent, strict=True):
        assert frame.size == len(original.serialize()) - 9
        if isinstance(original, theirs.DataFrame | theirs.HeadersFrame):
            assert frame.payload == original.data
            assert bool(frame.flags & frames.END_STREAM) == ("END_STREAM" in original.flags)


@given(STREAMS, st.binary(max_size=500), st.booleans(), st.integers(1, 100))
def test_a_block_of_headers_is_cut_and_comes_out_whole(
    stream: int, block: bytes, end: bool, size: int
) -> None:
    raw = frames.headers(stream, block, end, size)
    [frame] = read(raw, [])
    assert (frame.type, frame.stream, frame.payload) == (frames.HEADERS, stream, block)
    assert bool(frame.flags & frames.END_STREAM) is end
    first, length = theirs.Frame.parse_frame_header(memoryview(raw[:9]))
    assert isinstance(first, theirs.HeadersFrame)
    assert length == min(size, len(block))


@pytest.mark.parametrize(
    ("raw", "frame"),
    [
        (frames.reset(7, 8), theirs.RstStreamFrame(7, 8)),
        (frames.window_update(3, 99), theirs.WindowUpdateFrame(3, 99)),
        (frames.goaway(11), theirs.GoAwayFrame(0, 0, 11)),
        (frames.settings({2: 0, 4: 70_000}), theirs.SettingsFrame(0, {2: 0, 4: 70_000})),
        (frames.header(3, frames.DATA, frames.END_STREAM, 5) + b"abc", data(5, b"abc", None, True)),
    ],
    ids=["reset", "window update", "goaway", "settings", "data"],
)
def test_frames_are_made_as_hyperframe_makes_them(raw: bytes, frame: theirs.Frame) -> None:
    assert raw == frame.serialize()


def raw_frame(length: int, kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return frames.header(length, kind, flags, stream) + payload


@pytest.mark.parametrize(
    "raw",
    [
        raw_frame(16_385, frames.DATA, 0, 1),
        raw_frame(0, frames.DATA, 0, 0),
        raw_frame(0, frames.HEADERS, 4, 0),
        raw_frame(4, frames.RST_STREAM, 0, 0, bytes(4)),
        raw_frame(6, frames.SETTINGS, 0, 1, bytes(6)),
        raw_frame(5, frames.SETTINGS, 0, 0, bytes(5)),
        raw_frame(6, frames.SETTINGS, 1, 0, bytes(6)),
        raw_frame(8, frames.PING, 0, 1, bytes(8)),
        raw_frame(7, frames.PING, 0, 0, bytes(7)),
        raw_frame(7, frames.GOAWAY, 0, 0, bytes(7)),
        raw_frame(8, frames.GOAWAY, 0, 1, bytes(8)),
        raw_frame(3, frames.WINDOW_UPDATE, 0, 1, bytes(3)),
        raw_frame(3, frames.RST_STREAM, 0, 1, bytes(3)),
        raw_frame(0, frames.DATA, 8, 1),
        raw_frame(3, frames.DATA, 8, 1, b"\x03ab"),
        raw_frame(4, frames.HEADERS, 0x24, 1, bytes(4)),
        raw_frame(0, frames.CONTINUATION, 4, 1),
        raw_frame(0, frames.HEADERS, 0, 1) + raw_frame(0, frames.CONTINUATION, 4, 3),
        raw_frame(0, frames.HEADERS, 0, 1) + raw_frame(8, frames.PING, 0, 0, bytes(8)),
        raw_frame(0, frames.HEADERS, 0, 1) + raw_frame(0, frames.CONTINUATION, 0, 1) * 2000,
    ],
    ids=range(20),
)
def test_what_is_no_frame(raw: bytes) -> None:
    with pytest.raises(ConnectionFaultError):
        read(raw, [])


def test_what_is_not_known_is_a_frame_all_the_same() -> None:
    [frame] = read(raw_frame(3, 0xBA, 0xFF, 9, b"abc"), [])
    assert frame == Frame(0xBA, 0xFF, 9, b"abc", 3)
