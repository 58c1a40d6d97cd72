"""Which connection a request takes, and what becomes of it afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
import weakref
from typing import Any

import httpx
import pytest

from orchestratord.errors import SendError
from orchestratord.http.client import HttpClient, SendOptions
from orchestratord.http.egress import Egress
from orchestratord.http.http1 import Http1Connection
from orchestratord.http.response_parser import ResponseParser

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def serving(peer: Any) -> None:
    while True:
        await peer.request()
        await peer.answer(OK)


async def settle() -> None:
    """Let what is on its way over the loopback arrive."""
    for _ in range(5):
        await asyncio.sleep(0.005)


async def test_a_connection_is_used_again(either: Any, serve: Any) -> None:
    server = await serve(serving)
    for _ in range(5):
        assert (await either("POST", server.url, content=b"x")).status_code == 200
    assert (server.connections, len(server.requests)) == (1, 5)


async def test_a_connection_carries_one_request_at_a_time(send: Any, serve: Any) -> None:
    all_there = asyncio.Event()

    async def script(peer: Any) -> None:
        while True:
            await peer.request()
            if len(peer.server.requests) == 10:
                all_there.set()
            await all_there.wait()
            await peer.answer(OK)

    server = await serve(script)
    await asyncio.gather(*(send("GET", server.url) for _ in range(10)))
    assert server.connections == 10
    await asyncio.gather(*(send("GET", server.url) for _ in range(10)))
    assert (server.connections, len(server.requests)) == (10, 20)


async def test_fresh_takes_a_new_connection_and_leaves_it_to_others(send: Any, serve: Any) -> None:
    server = await serve(serving)
    await send("GET", server.url)
    await send("POST", server.url, options={"fresh": True})
    assert server.connections == 2
    await send("GET", server.url)
    await send("GET", server.url)
    assert server.connections == 2


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and more",
        b"HTTP/1.1 204 No Content\r\n\r\nbody",
    ],
)
async def test_a_connection_is_not_used_again_after(send: Any, serve: Any, raw: bytes) -> None:
    async def script(peer: Any) -> None:
        while True:
            await peer.request()
            await peer.answer(raw)

    server = await serve(script)
    for _ in range(2):
        assert (await send("GET", server.url)).status_code in (200, 204)
    assert (server.connections, len(server.requests)) == (2, 2)


async def test_a_request_that_says_close_closes(send: Any, serve: Any) -> None:
    server = await serve(serving)
    await send("GET", server.url, headers={"Connection": "close"})
    await send("GET", server.url)
    assert server.connections == 2


@pytest.mark.parametrize(
    ("raw", "connections"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", 1),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 2),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 2),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n", 2),
    ],
)
async def test_the_body_of_an_answer_to_head(
    send: Any, serve: Any, raw: bytes, connections: int
) -> None:
    async def script(peer: Any) -> None:
        while True:
            await peer.request()
            await peer.answer(raw)

    server = await serve(script)
    for _ in range(2):
        response = await send("HEAD", server.url)
        assert (response.status_code, response.content) == (200, b"")
    assert server.connections == connections


@pytest.mark.parametrize("parting", [b"", b"HTTP/1.1 408 Timeout\r\nContent-Length: 0\r\n\r\n"])
@pytest.mark.parametrize("noticed", [True, False])
async def test_an_idle_connection_that_ended_is_dropped_before_use(
    send: Any, serve: Any, parting: bytes, noticed: bool
) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.answer(OK)
        if peer.server.connections == 1:
            await answered.wait()
            peer.writer.write(parting)
            peer.close()
        else:
            await serving(peer)

    answered = asyncio.Event()
    server = await serve(script)
    await send("GET", server.url)
    answered.set()
    if noticed:
        await settle()
    else:  # it has arrived, and the loop has had no turn to read it
        await server.hung_up.wait()
        time.sleep(0.05)  # its socket is looked at again a moment after an answer
    assert (await send("POST", server.url)).status_code == 200
    assert (server.connections, len(server.requests)) == (2, 2)


async def test_an_idle_connection_that_said_something_is_dropped(send: Any, serve: Any) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.answer(OK)
        if peer.server.connections == 1:
            await peer.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong")
            await peer.eof()
        else:
            await serving(peer)

    server = await serve(script)
    await send("GET", server.url)
    async with asyncio.timeout(60):
        await server.hung_up.wait()
    assert (await send("GET", server.url)).content == b"ok"
    assert server.connections == 2


async def test_what_an_answer_held_is_free_once_it_is_handed_back(send: Any, serve: Any) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.answer(OK)
        await peer.request()
        await peer.answer(b"nonsense")
        await peer.eof()

    server = await serve(script)
    gc.collect()
    gc.disable()
    try:
        for _ in range(10):
            await send("GET", server.url)
            with contextlib.suppress(SendError):
                await send("GET", server.url)
        left = [thing for thing in gc.get_objects() if type(thing) is ResponseParser]
        assert len(left) <= 1  # the task may still hold its last error
    finally:
        gc.enable()


async def test_a_closed_connection_is_free_long_before_its_deadline(send: Any, serve: Any) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.answer(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")

    server = await serve(script)
    for _ in range(10):
        await send("GET", server.url, options={"timeout": 3600.0})
    await settle()
    gc.collect()
    assert [one for one in gc.get_objects() if type(one) is Http1Connection] == []


@pytest.mark.parametrize(("first", "second"), [(0.2, 5.0), (5.0, 0.2)])
async def test_each_exchange_has_its_own_deadline(
    send: Any, serve: Any, first: float, second: float
) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.answer(OK)
        await peer.request()
        if second > first:
            await asyncio.sleep(0.6)
            await peer.answer(OK)
        await peer.eof()

    server = await serve(script)
    await send("GET", server.url, options={"timeout": first})
    loop = asyncio.get_running_loop()
    began = loop.time()
    if second > first:
        assert (await send("GET", server.url, options={"timeout": second})).content == b"ok"
    else:
        with pytest.raises(SendError) as caught:
            await send("GET", server.url, options={"timeout": second})
        assert (caught.value.kind, caught.value.sent) == ("timeout", True)
        assert 0.19 < loop.time() - began < 4
    assert server.connections == 1


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_kept_connection_that_closes_unanswered_is_stale(
    send: Any, serve: Any, how: str
) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.answer(OK)
        await peer.request()
        getattr(peer, how)()

    server = await serve(script)
    await send("GET", server.url)
    with pytest.raises(SendError) as caught:
        await send("POST", server.url, content=b"once")
    error = caught.value
    assert (error.kind, error.sent, error.stale) == ("reset", True, True)
    await settle()
    assert server.connections == 1
    assert sum(b"once" in raw for raw in server.requests) == 1


async def test_a_new_connection_that_closes_unanswered_is_not_stale(send: Any, serve: Any) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        peer.close()

    server = await serve(script)
    with pytest.raises(SendError) as caught:
        await send("POST", server.url)
    error = caught.value
    assert (error.kind, error.sent, error.stale) == ("reset", True, False)
    assert len(server.requests) == 1


async def test_a_kept_connection_that_closes_within_the_answer_is_not_stale(
    send: Any, serve: Any
) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.answer(OK)
        await peer.request()
        await peer.answer(b"HTTP/1.1 2")
        peer.close()

    server = await serve(script)
    await send("GET", server.url)
    with pytest.raises(SendError) as caught:
        await send("GET", server.url)
    error = caught.value
    assert (error.kind, error.sent, error.stale) == ("reset", True, False)


@pytest.mark.parametrize("when", ["before the answer", "within the answer", "while sending"])
async def test_cancelling_closes_the_connection(send: Any, serve: Any, when: str) -> None:
    there = asyncio.Event()

    async def script(peer: Any) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        if when == "within the answer":
            await peer.answer(OK[:-1])
        there.set()
        if when == "while sending":
            await cancelled.wait()
        await peer.eof()

    cancelled = asyncio.Event()
    server = await serve(script)
    content = bytes(30_000_000) if when == "while sending" else b""
    sending = asyncio.create_task(send("POST", server.url, content=content))
    await there.wait()
    await asyncio.sleep(0.01)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    cancelled.set()
    async with asyncio.timeout(60):
        await server.hung_up.wait()
    await settle()
    assert server.connections == 1


async def test_idle_connections_are_bounded_in_number(serve: Any, options: SendOptions) -> None:
    there = asyncio.Event()
    ended = 0

    async def script(peer: Any) -> None:
        nonlocal ended
        try:
            while True:
                await peer.request()
                if len(peer.server.requests) % 6 == 0:
                    there.set()
                await there.wait()
                await peer.answer(OK)
        finally:
            ended += 1

    client = HttpClient(max_idle=4, max_idle_per_host=3)
    servers = [await serve(script), await serve(script)]
    for server in servers:
        there.clear()
        request = httpx.Request("GET", server.url)
        await asyncio.gather(*(client.send(request, options=options) for _ in range(6)))
        await settle()
        assert ended == (6 - 3 if server is servers[0] else 12 - 4)
    await client.aclose()
    await settle()
    assert ended == 12


async def test_idle_connections_are_closed_after_a_while(serve: Any, options: SendOptions) -> None:
    server = await serve(serving)
    client = HttpClient(idle_timeout=0.05)
    await client.send(httpx.Request("GET", server.url), options=options)
    async with asyncio.timeout(60):
        await server.hung_up.wait()
    await client.aclose()


async def test_a_closed_client_keeps_nothing(serve: Any, options: SendOptions) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        there.set()
        await go_on.wait()
        await peer.answer(OK)
        await peer.eof()

    there, go_on = asyncio.Event(), asyncio.Event()
    server = await serve(script)
    client = HttpClient()
    sending = asyncio.create_task(client.send(httpx.Request("GET", server.url), options=options))
    await there.wait()
    await client.aclose()
    go_on.set()
    assert (await sending).content == b"ok"
    async with asyncio.timeout(60):
        await server.hung_up.wait()


@pytest.mark.parametrize("how", ["refused", "denied", "unanswered", "cut", "late"])
async def test_an_error_is_freed_without_the_collector(send: Any, serve: Any, how: str) -> None:
    """A frame that holds an error which holds the frame keeps the whole attempt, until the
    collector looks: with calls that fail, tens of megabytes of it."""

    async def script(peer: Any) -> None:
        await peer.request()
        if how == "late":
            await peer.eof()
        elif how == "cut":
            await peer.answer(OK[:-1])

    server = await serve(script)
    if how == "refused":
        await server.stop()
    denied = {"egress": Egress(())} if how == "denied" else {}
    gc.collect()
    gc.disable()
    try:
        try:
            await send("GET", server.url, options={"timeout": 0.2, **denied})
        except SendError as error:
            found = weakref.ref(error)
        await settle()
        assert found() is None
    finally:
        gc.enable()


async def test_a_closed_transport_is_freed_without_the_collector(
    send: Any, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[weakref.ref[Any]] = []
    connection_made = Http1Connection.connection_made

    def noted(connection: Http1Connection, transport: asyncio.BaseTransport) -> None:
        made.append(weakref.ref(transport))
        connection_made(connection, transport)

    monkeypatch.setattr(Http1Connection, "connection_made", noted)

    async def script(peer: Any) -> None:
        await peer.request()
        await peer.answer(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))

    server = await serve(script)
    gc.collect()
    gc.disable()
    try:
        assert (await send("GET", server.url)).status_code == 200
        await settle()
        assert [transport() for transport in made] == [None]
    finally:
        gc.enable()
