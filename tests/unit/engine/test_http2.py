"""A connection of HTTP/2 under peers that do anything at all, over a real pair of sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import hpack
import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestratord.engine import frames
from orchestratord.engine.head import encode
from orchestratord.engine.http2 import Http2Connection
from orchestratord.engine.stream import StreamAnswer
from orchestratord.errors import SendError
from orchestratord.http.egress import Egress

REQUEST = encode(httpx.Request("POST", "https://127.0.0.1/", content=b"x" * 100))
ANSWER = hpack.Encoder().encode([(":status", "200"), ("content-length", "2")])


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[Http2Connection, socket.socket, list[Any]]]:
    """Our end, the peer's socket, and what the loop has had to complain of."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    complaints: list[Any] = []
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    _, connection = await loop.create_connection(
        lambda: Http2Connection(loop, ours, "127.0.0.1", Egress()), sock=ours
    )
    theirs.setblocking(False)
    yield connection, theirs, complaints
    connection.close()
    theirs.close()
    await asyncio.sleep(0)


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return frames.header(len(payload), kind, flags, stream) + payload


STREAMS = st.sampled_from([0, 1, 3, 5, 2])
ANYTHING = st.builds(
    frame, st.integers(0, 10), st.integers(0, 255), STREAMS, st.binary(max_size=40)
)
PLAUSIBLE = st.one_of(
    st.builds(frame, st.just(frames.HEADERS), st.sampled_from([4, 5]), STREAMS, st.just(ANSWER)),
    st.builds(frame, st.just(frames.DATA), st.sampled_from([0, 1]), STREAMS, st.just(b"ok")),
    st.builds(frames.reset, STREAMS, st.integers(0, 13)),
    st.builds(frames.window_update, STREAMS, st.sampled_from([0, 1, 2**31 - 1])),
    st.builds(
        lambda last, code: frame(7, 0, 0, last.to_bytes(4, "big") + code.to_bytes(4, "big")),
        st.sampled_from([0, 1, 3, 2**31 - 1]),
        st.integers(0, 13),
    ),
    st.builds(
        frames.settings,
        st.dictionaries(st.integers(1, 6), st.sampled_from([0, 1, 16_384, 2**31 - 1, 2**31])),
    ),
)


@settings(max_examples=300)
@given(st.lists(ANYTHING | PLAUSIBLE, max_size=12), st.binary(max_size=20), st.booleans())
def test_whatever_a_peer_says_each_exchange_ends(
    said: list[bytes], rest: bytes, settled: bool
) -> None:
    async def main() -> None:
        async with connected() as (connection, peer, complaints):
            peer.send(frames.settings({}) if settled else b"")
            exchanges: list[asyncio.Task[StreamAnswer]] = []
            deadline = asyncio.get_running_loop().time() + 10
            if settled:
                await connection.ready()
                exchanges = [
                    asyncio.create_task(connection.exchange(REQUEST, 1000, deadline))
                    for _ in range(2)
                ]
                await asyncio.sleep(0)
            peer.send(b"".join(said) + rest)
            peer.shutdown(socket.SHUT_WR)
            async with asyncio.timeout(5):
                outcomes = await asyncio.gather(*exchanges, return_exceptions=True)
                if not settled:
                    outcomes += await asyncio.gather(connection.ready(), return_exceptions=True)
            for outcome in outcomes:
                assert outcome is None or isinstance(outcome, StreamAnswer | SendError), outcome
                if isinstance(outcome, StreamAnswer):
                    assert (outcome.status, bytes(outcome.body)) == (200, b"ok")
            assert not connection.active
            assert complaints == []

    asyncio.run(main())


@pytest.mark.parametrize("said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", frames.reset(1, 0), b""])
async def test_a_peer_that_does_not_begin_with_its_settings(said: bytes) -> None:
    async with connected() as (connection, peer, _):
        peer.send(said)
        if not said:
            peer.shutdown(socket.SHUT_WR)
        with pytest.raises(SendError) as caught:
            async with asyncio.timeout(5):
                await connection.ready()
        assert caught.value.sent is False
        assert caught.value.kind == ("protocol" if said else "connect")


async def test_no_stream_is_left_for_another_exchange() -> None:
    async with connected() as (connection, peer, _):
        peer.send(frames.settings({}))
        await connection.ready()
        assert connection.usable()
        connection._next = 2**31 - 1
        deadline = asyncio.get_running_loop().time() + 10
        last = asyncio.create_task(connection.exchange(REQUEST, 1000, deadline))
        await asyncio.sleep(0)
        peer.send(frame(frames.HEADERS, 4, 2**31 - 1, ANSWER))
        peer.send(frame(frames.DATA, 1, 2**31 - 1, b"ok"))
        assert (await last).status == 200
        assert not connection.usable()


async def test_headers_that_nobody_waits_for_are_not_unpacked_for_ever() -> None:
    async with connected() as (connection, peer, _):
        peer.send(frames.settings({}))
        await connection.ready()
        deadline = asyncio.get_running_loop().time() + 10
        exchange = asyncio.create_task(connection.exchange(REQUEST, 1000, deadline))
        await asyncio.sleep(0)
        exchange.cancel()
        await asyncio.sleep(0)
        loop = asyncio.get_running_loop()
        for _ in range(40):  # 640 KiB of what is slowest to unpack
            if connection.closing:
                break
            await loop.sock_sendall(peer, frame(frames.HEADERS, 4, 1, b"\x20" * 16_000))
            await asyncio.sleep(0)
        async with asyncio.timeout(5):
            while not connection.closing:
                await asyncio.sleep(0.01)
