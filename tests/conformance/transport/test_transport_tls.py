"""TLS: verified, by the name, whatever address it resolved to."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import httpx
import pytest

from orchestratord.engine.transport import Client, SendOptions
from orchestratord.errors import SendError

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def serving(peer: Any) -> None:
    while True:
        await peer.request()
        await peer.answer(OK)


@pytest.fixture
async def named(loopback: Any) -> Any:
    """`named(url, ssl_context)` sends to a name that resolves to 127.0.0.1."""

    async def resolver(host: str, port: int) -> list[tuple[int, str]]:
        return [(2, "127.0.0.1")]

    client = Client(resolver)

    async def send(method: str, url: str, context: ssl.SSLContext | None, **kw: Any) -> Any:
        options = SendOptions(timeout=10, egress=loopback, ssl_context=context)
        async with asyncio.timeout(20):
            return await client.send(httpx.Request(method, url, **kw), options=options)

    yield send
    await client.aclose()


async def test_verified_by_name(named: Any, serve: Any, certified: Any, trusting: Any) -> None:
    context = certified("api.example")
    names: list[str | None] = []
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    server = await serve(serving, tls=context)
    for _ in range(3):
        response = await named("POST", f"https://api.example:{server.port}/x", trusting)
        assert response.content == b"ok"
    assert (names, server.connections) == (["api.example"], 1)
    assert f"Host: api.example:{server.port}\r\n".encode() in server.requests[0]


async def test_a_trailing_dot_is_no_part_of_the_name(
    named: Any, serve: Any, certified: Any, trusting: Any
) -> None:
    server = await serve(serving, tls=certified("api.example"))
    response = await named("GET", f"https://api.example.:{server.port}/x", trusting)
    assert response.content == b"ok"


async def test_an_address_in_the_certificate(
    send: Any, serve: Any, certified: Any, trusting: Any
) -> None:
    server = await serve(serving, tls=certified("127.0.0.1"))
    response = await send("GET", server.url, options={"ssl_context": trusting})
    assert response.content == b"ok"


async def test_a_wrong_name_is_refused(
    named: Any, serve: Any, certified: Any, trusting: Any
) -> None:
    server = await serve(serving, tls=certified("other.example", "127.0.0.1"))
    with pytest.raises(SendError) as caught:
        await named("POST", f"https://api.example:{server.port}/x", trusting, content=b"x")
    assert (caught.value.kind, caught.value.sent) == ("tls", False)
    assert "api.example" in caught.value.message
    assert server.requests == []


async def test_an_unknown_authority_is_refused_by_default(
    named: Any, serve: Any, certified: Any
) -> None:
    server = await serve(serving, tls=certified("api.example"))
    with pytest.raises(SendError) as caught:
        await named("POST", f"https://api.example:{server.port}/x", None)
    assert (caught.value.kind, caught.value.sent) == ("tls", False)
    assert server.requests == []


@pytest.mark.parametrize("how", ["close", "reset", "plain"])
async def test_a_handshake_that_fails(send: Any, serve: Any, trusting: Any, how: str) -> None:
    async def script(peer: Any) -> None:
        await peer.reader.read(100)
        if how == "plain":
            await peer.answer(b"HTTP/1.1 400 Plain\r\nContent-Length: 0\r\n\r\n")
        else:
            getattr(peer, how)()

    server = await serve(script)
    with pytest.raises(SendError) as caught:
        await send("POST", f"https://127.0.0.1:{server.port}/", options={"ssl_context": trusting})
    assert (caught.value.kind, caught.value.sent) == ("tls", False)


async def test_a_handshake_that_hangs(send: Any, serve: Any, trusting: Any) -> None:
    server = await serve(lambda peer: peer.eof())
    with pytest.raises(SendError) as caught:
        await send(
            "POST",
            f"https://127.0.0.1:{server.port}/",
            options={"ssl_context": trusting, "connect_timeout": 0.2},
        )
    assert (caught.value.kind, caught.value.sent) == ("timeout", False)
    async with asyncio.timeout(5):
        await server.hung_up.wait()


async def test_cancelling_a_handshake_closes_the_connection(
    send: Any, serve: Any, trusting: Any
) -> None:
    there = asyncio.Event()

    async def script(peer: Any) -> None:
        there.set()
        await peer.eof()

    server = await serve(script)
    sending = asyncio.create_task(
        send("POST", f"https://127.0.0.1:{server.port}/", options={"ssl_context": trusting})
    )
    await there.wait()
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    async with asyncio.timeout(5):
        await server.hung_up.wait()


async def test_connections_of_two_contexts_are_kept_apart(
    send: Any, serve: Any, certified: Any, trusting: Any, authority: Any
) -> None:
    server = await serve(serving, tls=certified("127.0.0.1"))
    await send("GET", server.url, options={"ssl_context": trusting})
    with pytest.raises(SendError):  # this one does not trust the authority
        await send("GET", server.url, options={"ssl_context": ssl.create_default_context()})
    other = ssl.create_default_context()
    authority.configure_trust(other)
    await send("GET", server.url, options={"ssl_context": other})
    assert len(server.requests) == 2


@pytest.mark.parametrize("size", [10, 3_000_000])
async def test_large_bodies_both_ways(
    send: Any, serve: Any, certified: Any, trusting: Any, size: int
) -> None:
    async def script(peer: Any) -> None:
        while True:
            body = (await peer.request()).partition(b"\r\n\r\n")[2]
            await peer.answer(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    server = await serve(script, tls=certified("127.0.0.1"))
    body = bytes(i * 11 & 0xFF for i in range(997)) * (size // 997 + 1)
    for _ in range(2):
        response = await send(
            "POST",
            server.url,
            content=body,
            options={"ssl_context": trusting, "max_response": len(body)},
        )
        assert response.content == body
    assert server.connections == 1


async def test_a_body_until_close(send: Any, serve: Any, certified: Any, trusting: Any) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.answer(b"HTTP/1.1 200 OK\r\n\r\nhello")
        peer.close()

    server = await serve(script, tls=certified("127.0.0.1"))
    response = await send("GET", server.url, options={"ssl_context": trusting})
    assert response.content == b"hello"


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_stale_connection(
    send: Any, serve: Any, certified: Any, trusting: Any, how: str
) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.answer(OK)
        await peer.request()
        getattr(peer, how)()

    server = await serve(script, tls=certified("127.0.0.1"))
    await send("GET", server.url, options={"ssl_context": trusting})
    with pytest.raises(SendError) as caught:
        await send("POST", server.url, options={"ssl_context": trusting}, content=b"x")
    error = caught.value
    assert (error.kind, error.sent, error.stale) == ("reset", True, True)
    assert (server.connections, len(server.requests)) == (1, 2)
