"""Decoding within a bound."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestratord.http.response_parser import Inflater

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


def test_nonsense() -> None:
    for coding in CODINGS:
        with pytest.raises(zlib.error):
            decoder(coding).decode(b"\xff\xff\xff\xff", 100)


@pytest.mark.parametrize("coding", [b"br", b"zstd", b"identity", b"", b"gzip, gzip"])
def test_other_codings_are_left_alone(coding: bytes) -> None:
    assert Inflater.for_coding(coding) is None
