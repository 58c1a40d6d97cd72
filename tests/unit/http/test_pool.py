"""Keeping connections, with real ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from orchestratord.http.egress import Egress, parse_rule
from orchestratord.http.http1 import Http1Connection, open_connection
from orchestratord.http.pool import IdleConnections
from orchestratord.http.proxy import PoolKey

EGRESS = Egress((parse_rule("127.0.0.1"),))

Open = Callable[[], Awaitable[tuple[PoolKey, Http1Connection]]]


@pytest.fixture
async def connect() -> AsyncIterator[Open]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def resolver(host: str, port: int) -> list[tuple[int, str]]:
        return [(2, host)]

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    opened: list[Http1Connection] = []

    async def connect() -> tuple[PoolKey, Http1Connection]:
        deadline = asyncio.get_running_loop().time() + 5
        key = PoolKey("127.0.0.1", port, None)
        connection = await open_connection(key, resolver=resolver, egress=EGRESS, deadline=deadline)
        opened.append(connection)
        return key, connection

    yield connect
    for connection in opened:
        connection.close()
    server.close()
    await asyncio.sleep(0.01)


async def test_the_last_one_given_is_taken_first(connect: Open) -> None:
    loop = asyncio.get_running_loop()
    pool = IdleConnections(10, 10, 5.0)
    key, first = await connect()
    _, second = await connect()
    pool.give(key, first, loop.time())
    pool.give(key, second, loop.time())
    assert pool.take(key, EGRESS, loop.time()) is second
    assert pool.take(key, EGRESS, loop.time()) is first
    assert pool.take(key, EGRESS, loop.time()) is None
    pool.close()


async def test_one_that_was_idle_too_long_is_closed(connect: Open) -> None:
    loop = asyncio.get_running_loop()
    pool = IdleConnections(10, 10, 5.0)
    key, connection = await connect()
    pool.give(key, connection, loop.time())
    assert pool.take(key, EGRESS, connection.idle_since + 5.0) is None
    assert connection.is_closing()
    pool.close()


async def test_one_key_does_not_serve_another(connect: Open) -> None:
    loop = asyncio.get_running_loop()
    pool = IdleConnections(10, 10, 5.0)
    key, connection = await connect()
    pool.give(key, connection, loop.time())
    assert pool.take(key._replace(host="other"), EGRESS, loop.time()) is None
    assert pool.take(key._replace(port=1), EGRESS, loop.time()) is None
    assert pool.take(key, EGRESS, loop.time()) is connection
    pool.close()


async def test_other_rules_check_the_address_again(connect: Open) -> None:
    loop = asyncio.get_running_loop()
    pool = IdleConnections(10, 10, 5.0)
    key, connection = await connect()
    pool.give(key, connection, loop.time())
    assert pool.take(key, Egress(), loop.time()) is None
    assert not connection.is_closing()
    assert pool.take(key, Egress((parse_rule("127.0.0.0/8"),)), loop.time()) is connection
    pool.close()


async def test_sweeping_leaves_no_key_behind(connect: Open) -> None:
    loop = asyncio.get_running_loop()
    pool = IdleConnections(1, 10, 0.02)
    key, connection = await connect()
    pool.give(key, connection, loop.time())
    async with asyncio.timeout(60):
        while not connection.is_closing():
            await asyncio.sleep(0.01)
    _, another = await connect()
    pool.give(key, another, loop.time())  # there is room again
    assert not another.is_closing()
    pool.close()
    assert another.is_closing()


@pytest.mark.parametrize("idle_for", [0.0, 1.0])
async def test_one_that_is_not_silent_is_not_taken_but_just_after_its_exchange(
    idle_for: float,
) -> None:
    """A second answer that nobody asked for has come, and the loop has not seen it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 500 unasked\r\n\r\n")
        await reader.read()
        writer.close()

    async def resolver(host: str, port: int) -> list[tuple[int, str]]:
        return [(2, host)]

    loop = asyncio.get_running_loop()
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    key = PoolKey("127.0.0.1", port, None)
    connection = await open_connection(
        key, resolver=resolver, egress=EGRESS, deadline=loop.time() + 5
    )
    try:
        connection._transport.pause_reading()  # as a loop that is busy with something else
        connection._socket.send(b"x")
        while connection.usable():
            await asyncio.sleep(0.01)
        pool = IdleConnections(10, 10, 5.0)
        pool.give(key, connection, loop.time())
        taken = pool.take(key, EGRESS, connection.idle_since + idle_for)
        assert taken is (None if idle_for else connection)
        pool.close()
    finally:
        connection.close()
        server.close()
        await asyncio.sleep(0.01)
