"""What goes over the wire and what is made of the answer, the same as over httpx's own client."""

from __future__ import annotations

import asyncio
import gc
import gzip
import hashlib
import socket
import zlib
from typing import Any

import httpx
import pytest

from orchestratord.errors import SendError
from orchestratord.http.client import HttpClient
from orchestratord.http.http1 import Http1Connection
from orchestratord.http.response_parser import ResponseParser

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def replying(raw: bytes, step: int | None = None) -> Any:
    """A script that answers each request with `raw`, `step` bytes at a time, and hangs up."""

    async def script(peer: Any) -> None:
        await peer.request()
        if step is None:
            await peer.answer(raw)
        else:
            for start in range(0, len(raw), step):
                await peer.answer(raw[start : start + step])
                await asyncio.sleep(0)
        peer.close()

    return script


@pytest.mark.parametrize(
    "method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE"]
)
async def test_methods(either: Any, serve: Any, method: str) -> None:
    server = await serve(replying(OK))
    response = await either(method, f"{server.url}/thing")
    assert response.status_code == 200
    assert response.content == (b"" if method == "HEAD" else b"ok")
    assert [raw.split(b" ")[0] for raw in server.requests] == [method.encode()]


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"content": b""},
        {"content": b"x"},
        {"content": bytes(range(256)) * 8},
        {"json": {"a": [1, "ü"]}},
        {"data": {"a": "1", "b": "x y"}},
        {"headers": [("X-Twice", "1"), ("x-twice", "2"), ("X-Empty", "")]},
        {"headers": {b"X-Latin": b"caf\xe9", b"Host": b"other.example"}},
        {"headers": {"Connection": "close", "User-Agent": "me"}},
        {"content": [b"abc", b"de"]},
    ],
    ids=str,
)
async def test_the_bytes_of_a_request_are_those_that_httpx_sends(
    send: Any, serve: Any, kwargs: dict[str, Any]
) -> None:
    seen: list[bytes] = []

    async def script(peer: Any) -> None:
        raw = await peer.reader.readuntil(b"\r\n\r\n")
        while b"chunked" in raw and not raw.endswith(b"0\r\n\r\n"):
            raw += await peer.reader.readuntil(b"\r\n")
        if b"Content-Length" in raw:
            raw += await peer.reader.readexactly(
                int(raw.partition(b"Content-Length: ")[2].split(b"\r\n")[0])
            )
        seen.append(raw)
        await peer.answer(OK)

    server = await serve(script)
    await send("POST", f"{server.url}/a?b=c", **kwargs)
    async with httpx.AsyncClient(trust_env=False) as theirs:
        request = httpx.Request("POST", f"{server.url}/a?b=c", **kwargs)
        request.read()
        await theirs.send(request)
    assert seen[0] == seen[1]
    assert seen[0].startswith(b"POST /a?b=c HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("", b"/"),
        ("/a/../b/./c//d", b"/a/../b/./c//d"),
        ("/a%2Fb%2e%2E?x=%zz&y=a+b", b"/a%2Fb%2e%2E?x=%zz&y=a+b"),
        ("/a;p=1,2/'(!*)$@:", b"/a;p=1,2/'(!*)$@:"),
        ("/ü?q=ü#fragment", b"/%C3%BC?q=%C3%BC"),
        ("/a?", b"/a?"),
    ],
)
async def test_the_bytes_of_a_url_stay_as_they_are(
    either: Any, serve: Any, path: str, target: bytes
) -> None:
    server = await serve(replying(OK))
    url = httpx.URL(server.url + path)
    await either("GET", str(url))
    sent = server.requests[0].split(b" ")[1]
    assert sent == url.raw_path
    if path.startswith("/a?") or "%" in path or "ü" in path or not path:
        assert sent == target
    assert b"#" not in sent


@pytest.mark.parametrize("size", [0, 1, 1024, 65_536, 65_537, 3_000_000])
async def test_bodies_arrive_whole(either: Any, serve: Any, size: int) -> None:
    async def script(peer: Any) -> None:
        body = (await peer.request()).partition(b"\r\n\r\n")[2]
        await peer.answer(
            b"HTTP/1.1 200 OK\r\nContent-Length: 64\r\n\r\n"
            + hashlib.sha256(body).hexdigest().encode()
        )

    server = await serve(script)
    body = bytes(i * 7 & 0xFF for i in range(1000)) * (size // 1000 + 1)
    body = body[:size]
    response = await either("POST", server.url, content=body)
    assert response.text == hashlib.sha256(body).hexdigest()


ANSWERS = {
    "content-length": (b"HTTP/1.1 201 Created\r\nContent-Length: 5\r\n\r\nhello", 201, b"hello"),
    "chunked": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"2;ext=1\r\nhe\r\n3\r\nllo\r\n0\r\nX-Trailer: t\r\n\r\n",
        200,
        b"hello",
    ),
    "until close": (b"HTTP/1.1 200 OK\r\nX: y\r\n\r\nhello", 200, b"hello"),
    "until close, empty": (b"HTTP/1.1 200 OK\r\n\r\n", 200, b""),
    "http 1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, b"hello"),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
    "not modified": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", 304, b""),
    "no reason": (b"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello", 200, b"hello"),
    "line feeds": (b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", 200, b"hello"),
    "offered upgrade": (
        b"HTTP/1.1 200 OK\r\nUpgrade: h2,h2c\r\nConnection: Upgrade\r\n"
        b"Content-Length: 5\r\n\r\nhello",
        200,
        b"hello",
    ),
    "interim": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
        b"HTTP/1.1 202 Accepted\r\nContent-Length: 5\r\n\r\nhello",
        202,
        b"hello",
    ),
    "odd status": (b"HTTP/1.1 799 Odd\r\nContent-Length: 5\r\n\r\nhello", 799, b"hello"),
    "empty gzip": (
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 0\r\n\r\n",
        200,
        b"",
    ),
    "unknown coding": (
        b"HTTP/1.1 200 OK\r\nContent-Encoding: rot13\r\nContent-Length: 5\r\n\r\nuryyb",
        200,
        b"uryyb",
    ),
}


@pytest.mark.parametrize("step", [None, 1, 7])
@pytest.mark.parametrize(("raw", "status", "content"), ANSWERS.values(), ids=ANSWERS.keys())
async def test_answers(
    either: Any, serve: Any, raw: bytes, status: int, content: bytes, step: int | None
) -> None:
    server = await serve(replying(raw, step))
    response = await either("GET", server.url)
    assert (response.status_code, response.content) == (status, content)
    assert "link" not in response.headers
    assert response.is_closed
    assert response.elapsed.total_seconds() >= 0


@pytest.mark.parametrize("step", [None, 7])  # httpx fails at a bare deflate byte by byte
@pytest.mark.parametrize("coding", ["gzip", "deflate", "bare deflate"])
async def test_content_codings(either: Any, serve: Any, coding: str, step: int | None) -> None:
    text = "eins zwei drei ü " * 500
    packed = {
        "gzip": gzip.compress(text.encode()),
        "deflate": zlib.compress(text.encode()),
        "bare deflate": zlib.compress(text.encode())[2:-4],
    }[coding]
    header = coding.split()[-1].encode()
    raw = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Encoding: %b\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (header, len(packed), packed)
    )
    server = await serve(replying(raw, step))
    response = await either("GET", server.url)
    assert response.text == text
    assert response.headers["content-encoding"] == header.decode()
    assert response.headers["content-length"] == str(len(packed))


async def test_a_response_is_what_httpx_makes_of_it(either: Any, serve: Any) -> None:
    server = await serve(
        replying(
            b"HTTP/1.1 404 Nothing Here\r\nX-Twice: 1\r\nx-twice: 2 \t\r\nX-Empty:\r\n"
            b"Content-Type: text/plain; charset=latin-1\r\nContent-Length: 4\r\n\r\ncaf\xe9"
        )
    )
    response = await either("GET", f"{server.url}/x")
    assert response.headers.raw[:3] == [(b"X-Twice", b"1"), (b"x-twice", b"2"), (b"X-Empty", b"")]
    assert response.reason_phrase == "Nothing Here"
    assert response.http_version == "HTTP/1.1"
    assert response.text == "caf\xe9"
    assert str(response.url) == f"{server.url}/x"
    with pytest.raises(httpx.HTTPStatusError):
        response.raise_for_status()


async def test_no_cookie_is_kept(send: Any, serve: Any) -> None:
    async def script(peer: Any) -> None:
        while True:
            await peer.request()
            await peer.answer(
                b"HTTP/1.1 200 OK\r\nSet-Cookie: session=1; Path=/\r\nContent-Length: 0\r\n\r\n"
            )

    server = await serve(script)
    response = await send("GET", server.url)
    assert response.headers["set-cookie"].startswith("session=1")
    await send("GET", server.url)
    assert len(server.requests) == 2
    assert b"cookie" not in server.requests[1].lower()


async def test_nothing_is_added_to_a_request(send: Any, serve: Any) -> None:
    server = await serve(replying(OK))
    await send("GET", f"{server.url}/x")
    host = f"127.0.0.1:{server.port}".encode()
    assert server.requests == [b"GET /x HTTP/1.1\r\nHost: " + host + b"\r\n\r\n"]


async def test_proxies_in_the_environment_are_ignored(
    send: Any, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = await serve(replying(b"HTTP/1.1 502 Proxy\r\nContent-Length: 0\r\n\r\n"))
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy.url)
    server = await serve(replying(OK))
    assert (await send("GET", server.url)).status_code == 200
    assert (proxy.connections, server.connections) == (0, 1)


async def test_an_answer_counts_that_comes_before_the_body_is_sent(send: Any, serve: Any) -> None:
    async def script(peer: Any) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.answer(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
        await peer.eof()

    server = await serve(script)
    response = await send("POST", server.url, content=bytes(30_000_000))
    assert (response.status_code, response.content) == (413, b"big")
    await send("POST", server.url, content=bytes(30_000_000))
    assert server.connections == 2  # what is left of the first body can be followed by nothing


async def test_hundreds_at_once_need_no_task_of_their_own(send: Any, serve: Any) -> None:
    waiting = 0
    everybody = asyncio.Event()

    async def script(peer: Any) -> None:
        nonlocal waiting
        await peer.request()
        waiting += 1
        if waiting == 300:
            everybody.set()
        await everybody.wait()
        await peer.answer(OK)

    server = await serve(script)
    before = len(asyncio.all_tasks())
    sends = [asyncio.create_task(send("GET", server.url)) for _ in range(300)]
    await everybody.wait()
    # One task a send (ours, here) and one a connection (the server's): none of the client's own.
    assert len(asyncio.all_tasks()) - before <= 600
    assert {response.status_code for response in await asyncio.gather(*sends)} == {200}


async def test_an_answer_that_comes_again_is_parsed_once(
    send: Any, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ok = b"HTTP/1.1 200 OK\r\nX: 1\r\nContent-Length: 2\r\n\r\nok"
    other, head = ok.replace(b"X: 1", b"X: 2"), ok.removesuffix(b"ok")
    answers = [(ok,), (ok,), (other,), (ok,), (head,), (head,), (head, b"ok"), (ok,), (ok,)]
    parsed: list[str] = []

    def parser(method: str, limit: int) -> ResponseParser:
        parsed.append(method)
        return ResponseParser(method, limit)

    async def script(peer: Any) -> None:
        for pieces in answers:
            await peer.request()
            for piece in pieces:
                await peer.answer(piece)
                await asyncio.sleep(0.02)

    monkeypatch.setattr("orchestratord.http.http1.ResponseParser", parser)
    server = await serve(script)
    first = await send("GET", server.url)
    first.headers["x"] = "changed"
    first.extensions["truncated"] = True
    found = [await send("GET", server.url) for _ in range(3)]
    assert [answer.headers["x"] for answer in found] == ["1", "2", "1"]
    assert [answer.content for answer in found] == [b"ok"] * 3
    assert not found[0].extensions["truncated"]
    assert len(parsed) == 3
    # To another method, and within another limit, the same bytes are another answer.
    for method, content in (("HEAD", b""), ("HEAD", b""), ("GET", b"ok"), ("GET", b"ok")):
        assert (await send(method, server.url)).content == content
    assert (await send("GET", server.url, options={"max_response": 1})).content == b"o"
    assert (server.connections, len(server.requests)) == (1, len(answers))


async def test_what_the_socket_does_not_take_at_once_follows(
    client: HttpClient, send: Any, serve: Any
) -> None:
    body = bytes(range(256)) * 240

    async def script(peer: Any) -> None:
        sock = peer.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        while True:
            await peer.request()
            await peer.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    server = await serve(script)
    await send("GET", server.url)
    [[connection]] = client._pool._idle.values()
    connection._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    sending = asyncio.create_task(send("POST", server.url, content=body))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert connection._transport.get_write_buffer_size() > 0
    assert (await sending).status_code == 200
    assert (await send("PUT", server.url, content=b"x")).status_code == 200
    assert [raw.endswith(body) for raw in server.requests] == [False, True, False]
    assert server.connections == 1


@pytest.mark.parametrize(
    ("second", "stale"),
    [
        (b"no answer\r\n\r\n", True),  # and so it is sent again, on a connection of its own
        (b"HTTP/1.1 201 Created\r\nContent-Length: no\r\n\r\n", False),
    ],
)
async def test_what_is_no_answer_on_a_kept_connection_may_have_been_there_before(
    send: Any, serve: Any, second: bytes, stale: bool
) -> None:
    async def script(peer: Any) -> None:
        for answer in (OK, second):
            await peer.request()
            await peer.answer(answer)

    server = await serve(script)
    await send("PUT", server.url, content=b"x")
    with pytest.raises(SendError, match=r"not HTTP/1\.1") as caught:
        await send("PUT", server.url, content=b"x")
    assert caught.value.stale is stale
    assert server.connections == 1


async def test_a_connection_that_is_closed_is_freed_at_once(
    client: HttpClient, send: Any, serve: Any
) -> None:
    server = await serve(replying(OK))
    await send("GET", server.url)
    gc.collect()
    gc.disable()
    try:
        async with asyncio.timeout(60):
            while client._pool._idle:
                await asyncio.sleep(0.01)
                client._pool._sweep(asyncio.get_running_loop())
            while any(type(found) is Http1Connection for found in gc.get_objects()):
                await asyncio.sleep(0.01)
    finally:
        gc.enable()
