"""Decoding within a bound."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestratord.errors import SendError
from orchestratord.http.response_parser import HEAD_LIMIT, MEMBERS, Inflater, ResponseParser

CODINGS: dict[bytes, Callable[[bytes], bytes]] = {
    b"gzip": gzip.compress,
    b"x-gzip": gzip.compress,
    b"deflate": zlib.compress,
}


def decoder(coding: bytes) -> Inflater:
    inflater = Inflater.for_coding(coding)
    assert inflater is not None
    return inflater


@given(st.binary(max_size=2000), st.lists(st.integers(1, 50)), st.sampled_from(sorted(CODINGS)))
def test_any_pieces_come_to_the_same(data: bytes, sizes: list[int], coding: bytes) -> None:
    packed = CODINGS[coding](data)
    inflater, made = decoder(coding), b""
    for size in sizes:
        made += inflater.decode(packed[:size], 10_000)
        packed = packed[size:]
    made += inflater.decode(packed, 10_000)
    assert made == data
    assert inflater.finished


@given(st.binary(max_size=500))
def test_deflate_without_its_header(data: bytes) -> None:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    packed = packer.compress(data) + packer.flush()
    inflater = decoder(b"deflate")
    assert b"".join(inflater.decode(bytes([byte]), 10_000) for byte in packed) == data
    assert inflater.finished


def test_no_more_is_made_than_asked_for() -> None:
    inflater = decoder(b"gzip")
    assert inflater.decode(gzip.compress(bytes(1_000_000)), 100) == bytes(100)
    assert not inflater.finished


def test_an_end_that_is_missing() -> None:
    for coding, pack in CODINGS.items():
        inflater = decoder(coding)
        assert inflater.finished  # an empty body is one
        inflater.decode(pack(b"hello")[:-1], 100)
        assert not inflater.finished


def test_what_follows_the_end_is_dropped() -> None:
    inflater = decoder(b"gzip")
    assert inflater.decode(gzip.compress(b"hello") + b"\0" * 20, 100) == b"hello"
    assert inflater.decode(b"more", 100) == b""
    assert inflater.finished


def test_a_body_of_several_members() -> None:
    packed = gzip.compress(b"one, ") + gzip.compress(b"") + gzip.compress(b"two")
    assert decoder(b"gzip").decode(packed, 100) == b"one, two"
    assert decoder(b"gzip").decode(packed, 6) == b"one, t"
    inflater = decoder(b"x-gzip")
    pieces = [inflater.decode(bytes([byte]), 100) for byte in packed + b"\0\x1f\x8b"]
    assert b"".join(pieces) == b"one, two"
    assert inflater.finished
    inflater.decode(packed, 100)
    broken = decoder(b"gzip")
    assert broken.decode(packed[:-1], 100) == b"one, two"
    assert not broken.finished
    assert decoder(b"deflate").decode(zlib.compress(b"one") + packed, 100) == b"one"


def test_members_are_bounded() -> None:
    with pytest.raises(zlib.error):
        decoder(b"gzip").decode(gzip.compress(b"") * (MEMBERS + 1), 100)


def test_nonsense() -> None:
    for coding in CODINGS:
        with pytest.raises(zlib.error):
            decoder(coding).decode(b"\xff\xff\xff\xff", 100)


@pytest.mark.parametrize("coding", [b"br", b"zstd", b"identity", b"", b"gzip, gzip"])
def test_other_codings_are_left_alone(coding: bytes) -> None:
    assert Inflater.for_coding(coding) is None


# -- a whole answer --------------------------------------------------------------------------------

PIECES = [1, 100, 1 << 20]
"""How many bytes come at once."""


def parsed(data: bytes, piece: int, method: str = "GET") -> ResponseParser:
    answer = ResponseParser(method, 1000)
    for start in range(0, len(data), piece):
        answer.feed(data[start : start + piece])
        if answer.done:  # as a connection, which asks no more
            break
    return answer


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_second_answer_says_nothing_of_the_first(method: str) -> None:
    first = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b"
    head = first % (2, b"" if method == "HEAD" else b"ok")
    second = b"HTTP/1.1 500 Other\r\nX: y\r\nContent-Encoding: gzip\r\nContent-Length: 0\r\n\r\n"
    answer = parsed(head + second, 1 << 20, method)
    assert (answer.status, answer.reason, answer.done) == (200, b"OK", True)
    assert answer.headers == [(b"Content-Length", b"2")]
    assert answer.names == ("content-length",)
    assert not answer.reusable
    assert parsed(head, 1 << 20, method).reusable


def many(count: int, name: bytes = b"A", value: bytes = b"b") -> bytes:
    return b"%b: %b\r\n" % (name, value) * count


@pytest.mark.parametrize("piece", PIECES)
def test_interim_headers_and_trailers_count(piece: int) -> None:
    def answered(early: int, own: int, late: int, value: bytes = b"b") -> bytes:
        interim = b"HTTP/1.1 103 Early\r\n" + many(early, value=value) + b"\r\n" if early else b""
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n" + many(own - 1, value=value)
        return interim + head + b"\r\n2\r\nok\r\n0\r\n" + many(late, value=value) + b"\r\n"

    for early, own, late in ((0, 200, 0), (0, 100, 100), (60, 100, 40), (100, 100, 0)):
        answer = parsed(answered(early, own, late), piece)
        assert (bytes(answer.body), answer.reusable, len(answer.names)) == (b"ok", True, own)
        assert len(answer.headers) == own
        for more in ((early, own, late + 1), (early, own + 1, late), (early + 1, own, late)):
            with pytest.raises(SendError, match="more than 200 headers"):
                parsed(answered(*more), piece)
    size = HEAD_LIMIT // 4
    for early, own, late in ((1, 2, 1), (0, 2, 2), (0, 4, 0), (2, 2, 0)):
        assert parsed(answered(early, own, late, b"b" * (size - 100)), piece).done
        with pytest.raises(SendError, match="its headers are larger than 64 KiB"):
            parsed(answered(early, own + 1, late, b"b" * size), piece)
        with pytest.raises(SendError, match="its headers are larger than 64 KiB"):
            parsed(answered(early, own, late + 2, b"b" * size), piece)


def test_an_encoding_that_is_given_twice_is_left_alone() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"
    assert parsed(head + many(2, b"CONTENT-encoding", b"gzip") + b"\r\nok", 9).body == b"ok"
    with pytest.raises(SendError, match="its body does not decode"):
        parsed(head + many(1, b"CONTENT-encoding", b"GZIP") + b"\r\nok", 9)
