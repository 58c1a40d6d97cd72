"""An answer costs what it may cost, whatever it claims to be."""

from __future__ import annotations

import asyncio
import gc
import gzip
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from orchestratord.errors import SendError

MIB = 1_048_576


@contextmanager
def growth_below(limit: int) -> Iterator[None]:
    """What Python allocates at its peak, zlib's and the loop's buffers included."""
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        yield
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert peak < limit, f"{peak / MIB:.1f} MiB"


def gzip_bomb(megabytes: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join(packer.compress(bytes(MIB)) for _ in range(megabytes)) + packer.flush()


@pytest.mark.parametrize("header", [b"gzip", b"deflate"])
async def test_a_bomb_costs_no_more_than_the_limit(send: Any, serve: Any, header: bytes) -> None:
    bomb = gzip_bomb(200) if header == b"gzip" else zlib.compress(bytes(200 * MIB), 9)
    assert len(bomb) < MIB // 4

    async def script(peer: Any) -> None:
        await peer.request()
        await peer.answer(
            b"HTTP/1.1 500 Bomb\r\nContent-Encoding: %b\r\nContent-Length: %d\r\n\r\n"
            % (header, len(bomb))
            + bomb
        )
        await peer.eof()

    server = await serve(script)
    with growth_below(6 * MIB):
        response = await send("GET", server.url)
    assert response.status_code == 500
    assert len(response.content) == MIB
    assert response.extensions["truncated"] is True


async def test_an_endless_body_is_cut_and_the_connection_closed(send: Any, serve: Any) -> None:
    written = 0

    async def script(peer: Any) -> None:
        nonlocal written
        await peer.request()
        await peer.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 10737418240\r\n\r\n")
        piece = bytes(65_536)
        while True:  # ends by the error of writing to a connection that is closed
            await peer.answer(piece)
            written += len(piece)

    server = await serve(script)
    with growth_below(6 * MIB):
        response = await send("GET", server.url)
        await server.hung_up.wait()
    assert response.status_code == 200
    assert response.content == bytes(MIB)
    assert response.extensions["truncated"] is True
    assert written < 64 * MIB  # what fits into the kernel's buffers, of 10 GiB


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("size", "cut"), [(999, False), (1000, False), (1001, True)])
async def test_the_limit_is_exact(
    send: Any, serve: Any, framing: str, packed: bool, size: int, cut: bool
) -> None:
    body = bytes(i & 0xFF for i in range(size))
    raw = gzip.compress(body) if packed else body

    async def script(peer: Any) -> None:
        await peer.request()
        head = b"HTTP/1.1 200 OK\r\n" + (b"Content-Encoding: gzip\r\n" if packed else b"")
        if framing == "length":
            await peer.answer(head + b"Content-Length: %d\r\n\r\n" % len(raw) + raw)
        elif framing == "chunked":
            await peer.answer(
                head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(raw), raw)
            )
        else:
            await peer.answer(head + b"\r\n" + raw)

    server = await serve(script)
    response = await send("GET", server.url, options={"max_response": 1000})
    assert response.content == body[:1000]
    assert response.extensions["truncated"] is cut


async def test_a_body_of_single_byte_chunks_costs_its_size(send: Any, serve: Any) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(300):
            await peer.answer(b"1\r\nx\r\n" * 1000)
        await peer.answer(b"0\r\n\r\n")

    server = await serve(script)
    with growth_below(3 * MIB):
        response = await send("GET", server.url)
    assert len(response.content) == 300_000


def many_headers(count: int) -> bytes:
    return b"".join(b"X-%d: y\r\n" % n for n in range(count))


REFUSED = {
    "5,000 headers": b"HTTP/1.1 200 OK\r\n" + many_headers(5000) + b"Content-Length: 0\r\n\r\n",
    "a header too many": b"HTTP/1.1 200 OK\r\n" + many_headers(201) + b"\r\n",
    "a header of 70 KiB": b"HTTP/1.1 200 OK\r\nX: " + b"y" * 71_680 + b"\r\n\r\n",
    "70 KiB of headers": b"HTTP/1.1 200 OK\r\n" + (b"X: " + b"y" * 1000 + b"\r\n") * 70 + b"\r\n",
    "an endless reason": b"HTTP/1.1 200 " + b"y" * 300_000,
    "an endless name": b"HTTP/1.1 200 OK\r\n" + b"y" * 300_000,
    "endless interim answers": b"HTTP/1.1 102 Processing\r\n\r\n" * 50,
    "endless empty lines": b"\r\n" * 200_000,
    "200 trailers": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
    + many_headers(300)
    + b"\r\n",
}


@pytest.mark.parametrize("raw", REFUSED.values(), ids=REFUSED.keys())
async def test_headers_are_bounded(send: Any, serve: Any, raw: bytes) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.answer(raw)
        await peer.eof()

    server = await serve(script)
    with growth_below(3 * MIB), pytest.raises(SendError) as caught:
        await send("GET", server.url)
    assert (caught.value.kind, caught.value.sent) == ("protocol", True)
    await server.hung_up.wait()


async def test_two_hundred_headers_are_fine(send: Any, serve: Any) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.answer(b"HTTP/1.1 200 OK\r\n" + many_headers(199) + b"Content-Length: 0\r\n\r\n")

    server = await serve(script)
    assert len((await send("GET", server.url)).headers.raw) == 200


@pytest.mark.parametrize("what", ["chunk extension", "gzip of nothing"])
async def test_framing_without_content_comes_to_an_end(send: Any, serve: Any, what: str) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
        if what == "chunk extension":
            await peer.answer(head + b"\r\n5;x=")
            piece = b"y" * 65_536
        else:
            start = gzip.compress(b"")[:10]
            await peer.answer(head + b"Content-Encoding: gzip\r\n\r\na\r\n" + start + b"\r\n")
            empty = b"\x00\x00\x00\xff\xff" * 10_000  # stored blocks of no bytes
            piece = b"%x\r\n%b\r\n" % (len(empty), empty)
        while True:
            await peer.answer(piece)

    server = await serve(script)
    with pytest.raises(SendError) as caught:
        await send("GET", server.url, options={"max_response": 100_000})
    assert (caught.value.kind, caught.value.sent) == ("protocol", True)
    assert "framing" in caught.value.message


async def test_a_slow_reader_holds_up_the_sender_and_not_memory(send: Any, serve: Any) -> None:
    go_on = asyncio.Event()

    async def script(peer: Any) -> None:
        head = await peer.reader.readuntil(b"\r\n\r\n")
        await go_on.wait()
        left = int(head.partition(b"Content-Length: ")[2].split(b"\r\n")[0])
        while left:
            left -= len(await peer.reader.read(1 << 20))
        await peer.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    server = await serve(script)
    body = bytes(40 * MIB)
    with growth_below(4 * MIB):
        sending = asyncio.create_task(send("POST", server.url, content=body))
        await asyncio.sleep(0.2)
        go_on.set()
        assert (await sending).status_code == 200
