"""Where the process has one core, what a turn of the loop sends goes out at its end."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack
from typing import Any

import pytest

from orchestratord.errors import SendError
from orchestratord.http.client import HttpClient
from orchestratord.http.http1 import Http1Connection
from orchestratord.http.request_bytes import encode
from orchestratord.model.http_message import Request

AT_ONCE = 3
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture(params=[True, False], ids=["one core", "all cores"])
def gathers(request: pytest.FixtureRequest) -> bool:
    if not request.param and len(os.sched_getaffinity(0)) == 1:
        pytest.skip("this machine has one core")
    found: bool = request.param
    return found


@pytest.fixture
async def client(gathers: bool) -> AsyncIterator[HttpClient]:
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)} if gathers else cores)
    try:
        client = HttpClient()
    finally:
        os.sched_setaffinity(0, cores)
    yield client
    await client.aclose()


@pytest.fixture
async def kept(send: Any) -> AsyncIterator[tuple[str, Sequence[socket.socket]]]:
    """A URL, and the receiver's ends of connections to it that have carried a request."""
    loop = asyncio.get_running_loop()
    with ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listening.setblocking(False)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        sending = [asyncio.create_task(send("GET", url)) for _ in range(AT_ONCE)]
        ends = [stack.enter_context((await loop.sock_accept(listening))[0]) for _ in sending]
        for end in ends:
            end.setblocking(False)
            assert await loop.sock_recv(end, 4096)
            await loop.sock_sendall(end, OK)
        await asyncio.gather(*sending)
        yield url, ends


def readable(ends: Sequence[socket.socket]) -> int:
    return len(select.select(ends, [], [], 0)[0])


def begun(client: HttpClient, url: str) -> tuple[Http1Connection, asyncio.Future[Any]]:
    """A kept connection, and the answer to a request that was begun on it in this turn."""
    [idle] = client._pool._idle.values()
    deadline = asyncio.get_running_loop().time() + 10
    return idle[0], idle[0].exchange(encode(Request("PUT", url, content=b"x")), 10, deadline)


async def test_what_one_turn_sends_goes_out_at_its_end(
    send: Any, kept: tuple[str, Sequence[socket.socket]], gathers: bool
) -> None:
    url, ends = kept
    sending = [asyncio.create_task(send("POST", url, content=b"x")) for _ in ends]
    await asyncio.sleep(0)
    assert readable(ends) == (0 if gathers else AT_ONCE)
    await asyncio.sleep(0)
    assert readable(ends) == AT_ONCE
    for end in ends:
        assert end.recv(4096).endswith(b"\r\n\r\nx")
        end.sendall(OK)
    assert [answer.content for answer in await asyncio.gather(*sending)] == [b"ok"] * AT_ONCE


async def test_what_is_abandoned_within_its_turn_is_not_sent_at_its_end(
    client: HttpClient, kept: tuple[str, Sequence[socket.socket]], gathers: bool
) -> None:
    url, ends = kept
    connection, _ = begun(client, url)
    connection.abandon()
    while not readable(ends):
        await asyncio.sleep(0)
    [got] = [end.recv(4096) for end in ends if readable([end])]
    assert got[-1:] == (b"" if gathers else b"x")


async def test_what_comes_unasked_before_a_request_goes_out_is_not_its_answer(
    client: HttpClient, kept: tuple[str, Sequence[socket.socket]], gathers: bool
) -> None:
    url, ends = kept
    connection, answer = begun(client, url)
    connection.data_received(OK)  # the loop reads before the turn ends
    if not gathers:  # it has gone out, and this counts
        assert (await answer).content == b"ok"
        return
    with pytest.raises(SendError) as caught:
        await answer
    assert (caught.value.stale, caught.value.sent) == (True, False)
    await asyncio.sleep(0)
    assert not any(end.recv(4096) for end in ends if readable([end]))


async def test_what_never_went_out_is_told_as_not_sent(
    client: HttpClient, kept: tuple[str, Sequence[socket.socket]], gathers: bool
) -> None:
    url, _ = kept
    connection, answer = begun(client, url)
    connection.connection_lost(None)  # the loop finds that before the turn ends
    with pytest.raises(SendError) as caught:
        await answer
    assert caught.value.sent is not gathers


@pytest.mark.parametrize("resets", [True, False], ids=["reset", "closed"])
async def test_what_a_reset_connection_did_not_take_is_told_as_not_sent(
    client: HttpClient, kept: tuple[str, Sequence[socket.socket]], resets: bool
) -> None:
    url, ends = kept
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", resets, 0))
        end.close()
    _, answer = begun(client, url)  # the loop has had no turn to find that
    with pytest.raises(SendError) as caught:
        await answer
    assert (caught.value.kind, caught.value.stale) == ("reset", True)
    assert caught.value.sent is not resets
