"""Each way to fail has its kind, and says honestly whether the request may have arrived."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from orchestratord.errors import SendError
from orchestratord.http.client import HttpClient, SendOptions


async def failure(send: Any, method: str, url: str, **kwargs: Any) -> tuple[str, bool, bool]:
    with pytest.raises(SendError) as caught:
        await send(method, url, **kwargs)
    error = caught.value
    assert error.message
    assert "\n" not in error.message
    return error.kind, error.sent, error.stale


@pytest.fixture
def silent() -> Iterator[int]:
    """A port of 127.0.0.1 that neither accepts nor refuses: its queue is full."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(0)
    fillers = []
    for _ in range(3):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(listening.getsockname())
        fillers.append(filler)
    yield listening.getsockname()[1]
    for sock in (*fillers, listening):
        sock.close()


async def test_refused(send: Any) -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        port = unheard.getsockname()[1]
        assert await failure(send, "POST", f"http://127.0.0.1:{port}/") == ("connect", False, False)


@pytest.mark.parametrize(
    "problem", [socket.gaierror(-2, "Name or service not known"), OSError("x"), UnicodeError("x")]
)
async def test_a_name_that_does_not_resolve(options: SendOptions, problem: Exception) -> None:
    async def resolver(host: str, port: int) -> Any:
        raise problem

    client = HttpClient(resolver)
    with pytest.raises(SendError) as caught:
        await client.send(httpx.Request("GET", "http://nowhere.example/"), options=options)
    assert (caught.value.kind, caught.value.sent) == ("dns", False)
    assert "nowhere.example" in caught.value.message
    await client.aclose()


async def test_a_name_without_an_address(options: SendOptions) -> None:
    async def resolver(host: str, port: int) -> Any:
        return []

    client = HttpClient(resolver)
    with pytest.raises(SendError) as caught:
        await client.send(httpx.Request("GET", "http://empty.example/"), options=options)
    assert (caught.value.kind, caught.value.sent) == ("dns", False)
    await client.aclose()


@pytest.mark.parametrize("limit", [{"timeout": 0.1}, {"connect_timeout": 0.1}])
async def test_resolving_is_part_of_the_deadline(limit: Any, loopback: Any) -> None:
    async def resolver(host: str, port: int) -> Any:
        await asyncio.sleep(60)

    client = HttpClient(resolver)
    options = SendOptions(**{"timeout": 10.0, "egress": loopback, **limit})
    with pytest.raises(SendError) as caught:
        async with asyncio.timeout(60):
            await client.send(httpx.Request("GET", "http://slow.example/"), options=options)
    assert (caught.value.kind, caught.value.sent) == ("timeout", False)
    await client.aclose()


@pytest.mark.parametrize("limit", [{"timeout": 0.1}, {"connect_timeout": 0.1}])
async def test_connecting_is_part_of_the_deadline(send: Any, silent: int, limit: Any) -> None:
    url = f"http://127.0.0.1:{silent}/"
    assert await failure(send, "POST", url, options=limit) == ("timeout", False, False)


@pytest.mark.parametrize("seconds", [0.0, -1.0])
async def test_no_time_at_all(send: Any, serve: Any, seconds: float) -> None:
    async def script(peer: Any) -> None:
        while True:
            await peer.request()
            await peer.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    server = await serve(script)
    await send("POST", server.url)
    kind = await failure(send, "POST", server.url, options={"timeout": seconds})
    assert kind == ("timeout", False, False)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("first", "drip"),
    [
        (b"", b""),
        (b"", b"HTTP/1.1 200 OK\r\nX-Drip: " + b"y" * 200),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n", b"y" * 199),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"y" * 200),
        (b"HTTP/1.1 100 Continue\r\n\r\n", b""),
    ],
    ids=["silence", "headers", "body", "body until close", "interim"],
)
async def test_an_answer_that_drips_ends_at_the_deadline(
    send: Any, serve: Any, first: bytes, drip: bytes
) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.answer(first)
        for byte in drip:
            await asyncio.sleep(0.02)
            await peer.answer(bytes([byte]))
        await peer.eof()

    server = await serve(script)
    loop = asyncio.get_running_loop()
    start = loop.time()
    kind = await failure(send, "POST", server.url, options={"timeout": 0.3})
    assert kind == ("timeout", True, False)
    assert 0.29 < loop.time() - start < 3
    async with asyncio.timeout(60):
        await server.hung_up.wait()
    assert len(server.requests) == 1


async def test_a_body_that_nobody_reads_ends_at_the_deadline(send: Any, serve: Any) -> None:
    async def script(peer: Any) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        peer.writer.transport.pause_reading()
        await asyncio.sleep(5)

    server = await serve(script)
    kind = await failure(
        send, "POST", server.url, content=bytes(30_000_000), options={"timeout": 0.3}
    )
    assert kind == ("timeout", True, False)


async def test_reset_while_sending(send: Any, serve: Any) -> None:
    async def script(peer: Any) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        peer.reset()

    server = await serve(script)
    kind = await failure(send, "POST", server.url, content=bytes(30_000_000))
    assert kind == ("send", True, False)


LARGE = {
    "with a length": b"HTTP/1.1 413 Large\r\nContent-Length: 2\r\n\r\nno",
    "until its end": b"HTTP/1.0 413 Large\r\n\r\nno",
    "with a reset": b"",
}


@pytest.fixture(params=LARGE)
def impatient(request: pytest.FixtureRequest) -> Iterator[tuple[int, bool]]:
    """A port whose receiver, in a thread, hangs up within a request, and whether it says why."""
    listening = socket.create_server(("127.0.0.1", 0))
    answer = LARGE[request.param]

    def serve() -> None:
        while True:
            try:
                sock, _ = listening.accept()
            except OSError:
                return
            with sock:
                read = 0
                while read < 3_000_000:  # more than goes out in one turn
                    read += len(sock.recv(65_536))
                if answer:
                    sock.sendall(answer)
                    sock.shutdown(socket.SHUT_WR)
                else:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listening.getsockname()[1], bool(answer)
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join(10)


async def test_a_receiver_that_hangs_up_in_the_middle_of_a_body(
    send: Any, impatient: tuple[int, bool], caplog: pytest.LogCaptureFixture
) -> None:
    port, answers = impatient
    content = bytes(10_000_000)
    for _ in range(30):
        if answers:  # however the end is found, it is read before
            answer = await send("POST", f"http://127.0.0.1:{port}/", content=content)
            assert (answer.status_code, answer.content) == (413, b"no")
        else:
            kind = await failure(send, "POST", f"http://127.0.0.1:{port}/", content=content)
            # All of it may have gone as far as this machine's buffers.
            assert kind in [("send", True, False), ("reset", True, False)]
    assert caplog.messages == []  # asyncio's


@pytest.mark.parametrize("impatient", ["with a length"], indirect=True)
async def test_an_exchange_ends_where_reading_its_last_bytes_fails(
    send: Any, impatient: tuple[int, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    def feed(self: object, data: bytes) -> None:
        raise MemoryError

    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    monkeypatch.setattr("orchestratord.http.response_parser.ResponseParser.feed", feed)
    url = f"http://127.0.0.1:{impatient[0]}/"
    for _ in range(5):
        kind = await failure(send, "POST", url, content=bytes(10_000_000))
        assert kind == ("reset", True, False)


async def test_reset_after_sending(send: Any, serve: Any) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        peer.reset()

    server = await serve(script)
    assert await failure(send, "POST", server.url, content=b"x") == ("reset", True, False)


async def test_reset_at_once(send: Any, serve: Any) -> None:
    async def script(peer: Any) -> None:
        peer.reset()

    server = await serve(script)
    kind, sent, stale = await failure(send, "POST", server.url, content=b"x")
    # The bytes were handed over before the reset came: nobody can tell what became of them.
    assert (kind, sent, stale) == ("reset", True, False)


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
    ],
)
@pytest.mark.parametrize("how", ["close", "reset"])
async def test_an_answer_that_breaks_off(send: Any, serve: Any, raw: bytes, how: str) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.answer(raw)
        await asyncio.sleep(0.02)
        getattr(peer, how)()

    server = await serve(script)
    assert await failure(send, "POST", server.url) == ("reset", True, False)


async def test_a_body_until_close_that_is_reset(send: Any, serve: Any) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.answer(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        await asyncio.sleep(0.02)
        peer.reset()

    server = await serve(script)
    assert await failure(send, "POST", server.url) == ("reset", True, False)


GARBAGE = [
    b"SSH-2.0-OpenSSH_9.2p1\r\n",
    b"\x15\x03\x01\x00\x02\x02\x16",
    b"<html>hello</html>",
    b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 099 Low\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 OK\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nxx",
    b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
    b"HTTP/1.1 200 OK\r\nX: a\x00b\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX y: z\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n\x1f\x8b",
    b"HTTP/1.1 200 OK\r\nContent-Encoding: deflate\r\nContent-Length: 1\r\n\r\n\x78",
]


@pytest.mark.parametrize("raw", GARBAGE)
async def test_garbage(send: Any, serve: Any, raw: bytes) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.answer(raw)
        await peer.eof()

    server = await serve(script)
    assert await failure(send, "POST", server.url) == ("protocol", True, False)
    async with asyncio.timeout(60):
        await server.hung_up.wait()


UNSENDABLE: list[tuple[str, dict[str, Any]]] = [
    ("http://user:secret@127.0.0.1:PORT/", {}),
    ("http://user@127.0.0.1:PORT/", {}),
    ("ftp://127.0.0.1:PORT/", {}),
    ("http:///path", {}),
    ("/path", {}),
    ("http://127.0.0.1:PORT/", {"headers": {"X-A": "1\r\nX-Injected: 2"}}),
    ("http://127.0.0.1:PORT/", {"headers": {"X-A": "1\nX-Injected: 2"}}),
    ("http://127.0.0.1:PORT/", {"headers": {"X-A": "1\r\n\r\nGET / HTTP/1.1"}}),
    ("http://127.0.0.1:PORT/", {"headers": {"X-A": "nul\0"}}),
    ("http://127.0.0.1:PORT/", {"headers": {"X A": "1"}}),
    ("http://127.0.0.1:PORT/", {"headers": {"": "1"}}),
    ("http://127.0.0.1:PORT/", {"headers": {"Content-Length": "7"}, "content": b"abc"}),
    ("http://127.0.0.1:PORT/", {"headers": {"Transfer-Encoding": "gzip"}, "content": b"abc"}),
    ("http://127.0.0.1:PORT/", {"headers": {"Transfer-Encoding": "chunked"}, "content": b"abc"}),
    ("http://127.0.0.1:PORT/", {"headers": [("Host", "a"), ("Host", "b")]}),
]


@pytest.mark.parametrize(("url", "kwargs"), UNSENDABLE)
async def test_a_request_that_cannot_be_sent(
    send: Any, serve: Any, url: str, kwargs: dict[str, Any]
) -> None:
    async def script(peer: Any) -> None:
        await peer.request()

    server = await serve(script)
    url = url.replace("PORT", str(server.port))
    assert await failure(send, "POST", url, **kwargs) == ("protocol", False, False)
    assert server.connections == 0


async def test_a_method_with_a_line_break(send: Any, serve: Any) -> None:
    server = await serve(lambda peer: peer.request())
    kind = await failure(send, "GET / HTTP/1.1\r\nX: y\r\n\r\nGET", server.url)
    assert kind == ("protocol", False, False)
    assert server.connections == 0


async def test_content_that_was_not_read(client: HttpClient, options: SendOptions) -> None:
    async def content() -> Any:
        yield b"x"

    request = httpx.Request("POST", "http://127.0.0.1:9/", content=content())
    with pytest.raises(SendError) as caught:
        await client.send(request, options=options)
    assert (caught.value.kind, caught.value.sent) == ("protocol", False)


async def test_no_secret_is_in_a_message(send: Any, serve: Any) -> None:
    with pytest.raises(SendError) as caught:
        await send("GET", "http://user:hunter2@127.0.0.1/?token=hunter2")
    assert "hunter2" not in caught.value.message

    async def script(peer: Any) -> None:
        await peer.request()
        peer.close()

    server = await serve(script)
    with pytest.raises(SendError) as caught:
        await send("GET", f"{server.url}/hunter2?token=hunter2", headers={"X-Key": "hunter2"})
    assert "hunter2" not in caught.value.message
