"""TLS: verified, by the name, whatever address it resolved to."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest
import trustme

from orchestratord.errors import SendError
from orchestratord.http.client import HttpClient, SendOptions
from orchestratord.http.tls import context_of
from orchestratord.model.auth import PemFile, Tls

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

    client = HttpClient(resolver)

    async def send(method: str, url: str, context: ssl.SSLContext | None, **kw: Any) -> Any:
        options = SendOptions(timeout=10, egress=loopback, ssl_context=context)
        async with asyncio.timeout(60):
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
    assert (caught.value.kind, caught.value.sent) == ("certificate", False)
    assert "api.example" in caught.value.message
    assert server.requests == []


async def test_an_unknown_authority_is_refused_by_default(
    named: Any, serve: Any, certified: Any
) -> None:
    server = await serve(serving, tls=certified("api.example"))
    with pytest.raises(SendError) as caught:
        await named("POST", f"https://api.example:{server.port}/x", None)
    assert (caught.value.kind, caught.value.sent) == ("certificate", False)
    assert server.requests == []


@pytest.fixture
def wanting(certified: Any, authority: Any) -> Iterator[Callable[..., int]]:
    """`wanting(version)` is the port of a server that wants a certificate of the authority.

    It is none of asyncio's, which hang up without a word about what they do not like.
    """
    listening: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def serve(server: socket.socket, context: ssl.SSLContext) -> None:
        peer, _ = server.accept()
        with peer, suppress(OSError):
            peer.settimeout(5)
            # With a second handle the alert is read before the reset that follows unread bytes.
            with peer.dup() as kept:
                try:
                    with context.wrap_socket(peer, server_side=True) as secured:
                        secured.recv(65536)
                        secured.sendall(OK)
                except ssl.SSLError:
                    kept.settimeout(5)
                    kept.shutdown(socket.SHUT_WR)
                    while kept.recv(65536):
                        pass

    def start(version: ssl.TLSVersion) -> int:
        context: ssl.SSLContext = certified("127.0.0.1")
        context.minimum_version = context.maximum_version = version
        context.verify_mode = ssl.CERT_REQUIRED
        authority.configure_trust(context)
        context.set_alpn_protocols(["http/1.1"])
        server = socket.create_server(("127.0.0.1", 0))
        listening.append(server)
        threads.append(threading.Thread(target=serve, args=(server, context)))
        threads[-1].start()
        return int(server.getsockname()[1])

    yield start
    for thread in threads:
        thread.join(10)
    for server in listening:
        server.close()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("shown", ["none", "another's"])
async def test_a_peer_that_does_not_accept_our_certificate(
    send: Any, wanting: Any, authority: Any, version: Any, shown: str
) -> None:
    tls = {"ca": PemFile("ca.pem", authority.cert_pem.bytes())}
    if shown != "none":
        pem = trustme.CA().issue_cert("client.example").private_key_and_cert_chain_pem.bytes()
        tls["cert"] = PemFile("cert.pem", pem)
    url = f"https://127.0.0.1:{wanting(version)}/"
    options = {"ssl_context": context_of(Tls(**tls))}
    with pytest.raises(SendError) as caught:
        await send("POST", url, content=b"x", options=options)
    if version == ssl.TLSVersion.TLSv1_2 and caught.value.kind == "tls":
        # What it says of none at all is that the handshake failed, and nothing more.
        assert (shown, "handshake failure" in caught.value.message) == ("none", True)
        return
    assert (caught.value.kind, caught.value.sent) == ("certificate", False)
    assert caught.value.message.startswith("the peer does not accept the certificate of tls.cert")


async def test_a_peer_that_accepts_our_certificate(send: Any, wanting: Any, authority: Any) -> None:
    pem = authority.issue_cert("client.example").private_key_and_cert_chain_pem.bytes()
    ca = PemFile("ca.pem", authority.cert_pem.bytes())
    context = context_of(Tls(ca=ca, cert=PemFile("cert.pem", pem)))
    url = f"https://127.0.0.1:{wanting(ssl.TLSVersion.TLSv1_3)}/"
    assert (await send("POST", url, options={"ssl_context": context})).content == b"ok"


async def test_what_is_trusted_is_named(send: Any, serve: Any, certified: Any) -> None:
    other = PemFile("tls/other.pem", trustme.CA().cert_pem.bytes())
    server = await serve(serving, tls=certified("127.0.0.1"))
    with pytest.raises(SendError) as caught:
        await send("GET", server.url, options={"ssl_context": context_of(Tls(ca=other))})
    assert caught.value.message.startswith(
        "the certificate of 127.0.0.1 is not signed by tls.ca (tls/other.pem) ("
    )


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
    async with asyncio.timeout(60):
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
    async with asyncio.timeout(60):
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
