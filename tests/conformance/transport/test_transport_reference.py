"""The same cases over our client and over httpx's own.

Every case is held against what its receiver has counted and seen. Where ours is stricter on
purpose, the test says so in its name and shows both.
"""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import trustme

from orchestratord.errors import SendError
from orchestratord.http.client import HttpClient, SendOptions
from orchestratord.http.egress import Egress, parse_rule

LOOPBACK = Egress((parse_rule("127.0.0.1"),))
TIMEOUT = 10.0


@dataclass
class Seen:
    """A request as a receiver saw it; names of headers in lower case."""

    method: bytes
    target: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes


@dataclass
class Said:
    """What a receiver answers."""

    status: int = 200
    body: bytes = b"ok"
    headers: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class Sender:
    """One of the two clients; an error comes out as its own class."""

    name: str
    send: Callable[..., Awaitable[httpx.Response]]

    @property
    def ours(self) -> bool:
        return self.name == "ours"


async def sending(name: str, context: ssl.SSLContext) -> AsyncIterator[Sender]:
    if name == "ours":
        client = HttpClient()

        async def send(method: str, url: str, *, options: Any = None, **kwargs: Any) -> Any:
            request = httpx.Request(method, url, **kwargs)
            request.read()
            settings = {"timeout": TIMEOUT, "egress": LOOPBACK, "ssl_context": context}
            async with asyncio.timeout(60):
                return await client.send(request, options=SendOptions(**settings | (options or {})))

        yield Sender(name, send)
        await client.aclose()
        return
    async with httpx.AsyncClient(verify=context, trust_env=False, timeout=TIMEOUT) as theirs:

        async def send_theirs(
            method: str, url: str, *, options: Any = None, **kwargs: Any
        ) -> httpx.Response:
            options = options or {}
            request = httpx.Request(method, url, **kwargs)
            request.read()
            if "timeout" in options:
                request.extensions["timeout"] = httpx.Timeout(options["timeout"]).as_dict()
            return await theirs.send(
                request, follow_redirects=options.get("follow_redirects", False)
            )

        yield Sender(name, send_theirs)


@pytest.fixture(params=["ours", "httpx"])
async def sender(request: pytest.FixtureRequest, trusting: ssl.SSLContext) -> AsyncIterator[Sender]:
    async for one in sending(request.param, trusting):
        yield one


@pytest.fixture
async def both(authority: trustme.CA) -> AsyncIterator[list[Sender]]:
    """Both of them, for what has to come out the same."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    makers = [sending(name, context) for name in ("ours", "httpx")]
    yield [await anext(maker) for maker in makers]
    for maker in makers:
        async for _ in maker:
            pass


class Receiver:
    """A server that answers what it is told and counts."""

    def __init__(self, server: Any, seen: list[Seen]) -> None:
        self.server = server
        self.seen = seen

    @property
    def url(self) -> str:
        return str(self.server.url)

    @property
    def connections(self) -> int:
        return int(self.server.connections)


@pytest.fixture
def receive(serve: Any, certified: Any) -> Any:
    """`receive(answer)` starts a receiver; `answer(seen)` gives what is Said."""

    async def start(answer: Callable[[Seen], Said] = lambda seen: Said()) -> Receiver:
        seen: list[Seen] = []

        async def script(peer: Any) -> None:
            while True:
                raw = await _request(peer.reader)
                seen.append(raw)
                said = answer(raw)
                head = [f"HTTP/1.1 {said.status} X"]
                head += [f"{name}: {value}" for name, value in said.headers]
                if said.status not in (204, 304):
                    head += [f"Content-Length: {len(said.body)}"]
                body = b"" if raw.method == b"HEAD" else said.body
                await peer.answer("\r\n".join(head).encode() + b"\r\n\r\n" + body)

        return Receiver(await serve(script, tls=certified("127.0.0.1")), seen)

    return start


async def _request(reader: asyncio.StreamReader) -> Seen:
    head = await reader.readuntil(b"\r\n\r\n")
    line, *lines = head[:-4].split(b"\r\n")
    method, target, _ = line.split(b" ")
    headers = [(name.lower(), value) for name, _, value in (one.partition(b": ") for one in lines)]
    fields = dict(headers)
    body = b""
    if b"transfer-encoding" in fields:
        while size := int(await reader.readline(), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readline()
    elif b"content-length" in fields:
        body = await reader.readexactly(int(fields[b"content-length"]))
    return Seen(method, target, headers, body)


# -- requests ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE"]
)
async def test_methods(sender: Sender, receive: Any, method: str) -> None:
    receiver = await receive()
    response = await sender.send(method, f"{receiver.url}/thing")
    assert (response.status_code, response.http_version) == (200, "HTTP/1.1")
    assert response.content == (b"" if method == "HEAD" else b"ok")
    assert [(one.method, one.target) for one in receiver.seen] == [(method.encode(), b"/thing")]


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"content": b""},
        {"content": b"x"},
        {"content": bytes(range(256)) * 4096},
        {"json": {"a": [1, "ü"]}},
        {"data": {"a": "1", "b": "x y"}},
        {"headers": [("X-Twice", "1"), ("Accept", "*/*"), ("x-twice", "2"), ("X-Empty", "")]},
        {"headers": {b"X-Latin": b"caf\xe9", b"Host": b"other.example"}},
        {"headers": {"User-Agent": "me", "Cookie": "a=b; c=d", "Authorization": "Basic eDp5"}},
        {"content": [b"abc", b"de"]},
    ],
    ids=lambda kwargs: str(kwargs)[:40],
)
async def test_both_say_the_same(both: list[Sender], receive: Any, kwargs: dict[str, Any]) -> None:
    receiver = await receive()
    for sender in both:
        await sender.send("POST", f"{receiver.url}/a?b=c", **kwargs)
    ours, theirs = receiver.seen
    assert ours == theirs
    assert ours.body == httpx.Request("POST", "https://x/", **kwargs).read()


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/a/../b/./c//d",
        "//double//",
        "/a%2Fb%2e%2E%7e?x=%zz&y=a+b&y=%20",
        "/a;p=1,2/'(!*)$@:",
        "/ü/漢?q=ü&r=漢#fragment",
        "/a?",
        "/?",
        "/a?b?c/d",
        "/a b?c d",
        "/a[1]|{2}^`",
    ],
)
async def test_both_take_a_url_to_the_same_bytes(
    both: list[Sender], receive: Any, path: str
) -> None:
    receiver = await receive()
    for sender in both:
        await sender.send("GET", receiver.url + path)
    ours, theirs = receiver.seen
    assert ours.target == theirs.target == httpx.URL(receiver.url + path).raw_path
    assert ours.headers == theirs.headers


async def test_no_cookie_is_kept(sender: Sender, receive: Any) -> None:
    receiver = await receive(lambda seen: Said(headers=[("set-cookie", "session=1; Path=/")]))
    for _ in range(2):
        response = await sender.send("GET", receiver.url)
        assert response.headers["set-cookie"] == "session=1; Path=/"
    assert [name for one in receiver.seen for name, _ in one.headers if name == b"cookie"] == []


async def test_proxies_of_the_environment_are_ignored(
    sender: Sender, receive: Any, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = await serve(lambda peer: peer.eof())
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, proxy.url)
    receiver = await receive()
    assert (await sender.send("GET", receiver.url)).status_code == 200
    assert (proxy.connections, len(receiver.seen)) == (0, 1)


# -- answers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201, 204, 302, 304, 404, 410, 429, 500, 503, 599])
async def test_statuses(sender: Sender, receive: Any, status: int) -> None:
    body = b"" if status in (204, 304) else b"some words"
    receiver = await receive(
        lambda seen: Said(status, body, [("retry-after", "5"), ("location", "/x")])
    )
    response = await sender.send("POST", receiver.url)
    assert (response.status_code, response.content) == (status, body)
    assert response.headers["retry-after"] == "5"
    assert len(receiver.seen) == 1


@pytest.mark.parametrize("coding", ["gzip", "deflate", "identity", "rot13"])
async def test_content_codings(sender: Sender, receive: Any, coding: str) -> None:
    text = "eins zwei drei ü " * 5000
    packed = {"gzip": gzip.compress, "deflate": zlib.compress}.get(coding, bytes)(text.encode())
    headers = [("content-type", "text/plain; charset=utf-8"), ("content-encoding", coding)]
    receiver = await receive(lambda seen: Said(200, packed, headers))
    response = await sender.send("GET", receiver.url)
    assert response.text == text
    assert response.headers["content-encoding"] == coding


async def test_a_response_is_the_same_object_to_work_with(both: list[Sender], receive: Any) -> None:
    headers = [
        ("content-type", "application/json"),
        ("x-twice", "1"),
        ("x-twice", "2"),
        ("link", '<https://x/>; rel="next"'),
    ]
    receiver = await receive(lambda seen: Said(418, b'{"a": [1, 2]}', headers))
    ours, theirs = [await sender.send("POST", f"{receiver.url}/x") for sender in both]
    for name in ("status_code", "reason_phrase", "http_version", "content", "text", "encoding"):
        assert getattr(ours, name) == getattr(theirs, name), name
    for name in ("url", "links", "charset_encoding", "is_error", "is_closed", "history"):
        assert getattr(ours, name) == getattr(theirs, name), name
    for name in ("is_stream_consumed", "num_bytes_downloaded", "cookies", "has_redirect_location"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.json() == theirs.json() == {"a": [1, 2]}
    assert ours.headers.raw == theirs.headers.raw
    assert repr(ours) == repr(theirs)
    assert await ours.aread() == await theirs.aread()
    assert list(ours.iter_lines()) == list(theirs.iter_lines())
    for response in (ours, theirs):
        with pytest.raises(httpx.HTTPStatusError):
            response.raise_for_status()


# -- connections ------------------------------------------------------------------------------


async def test_a_connection_is_used_again(sender: Sender, receive: Any) -> None:
    receiver = await receive()
    for _ in range(5):
        assert (await sender.send("POST", receiver.url, content=b"x")).status_code == 200
    assert (receiver.connections, len(receiver.seen)) == (1, 5)


async def test_each_request_arrives_once(sender: Sender, receive: Any) -> None:
    receiver = await receive(lambda seen: Said(body=seen.target))
    numbers = range(40)
    responses = await asyncio.gather(
        *(sender.send("POST", f"{receiver.url}/{n}", content=b"x" * n * 100) for n in numbers)
    )
    assert [response.content for response in responses] == [b"/%d" % n for n in numbers]
    assert sorted(int(one.target[1:]) for one in receiver.seen) == list(numbers)
    assert {len(one.body): one.target for one in receiver.seen} == {
        n * 100: b"/%d" % n for n in numbers
    }


async def test_a_request_that_was_cancelled_leaves_nothing_behind(
    sender: Sender, serve: Any, certified: Any
) -> None:
    there = asyncio.Event()

    async def script(peer: Any) -> None:
        await peer.request()
        if peer.server.connections == 1:
            there.set()
            await peer.eof()
        await peer.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond")

    server = await serve(script, tls=certified("127.0.0.1"))
    cancelled = asyncio.create_task(sender.send("POST", server.url))
    async with asyncio.timeout(60):
        await there.wait()
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert (await sender.send("POST", server.url)).content == b"second"
    assert server.connections == 2
    assert len(server.requests) == 2


# -- redirects --------------------------------------------------------------------------------

FOLLOW = {"follow_redirects": True}


def redirecting(status: int, location: str) -> Callable[[Seen], Said]:
    def answer(seen: Seen) -> Said:
        if seen.target == b"/first":
            return Said(status, b"", [("location", location)])
        return Said()

    return answer


@pytest.mark.parametrize(
    ("status", "method"),
    [
        (status, method)
        for status in (301, 302, 303, 307, 308)
        for method in ("GET", "HEAD", "POST", "PUT", "DELETE")
        if (status, method) not in ((302, "PUT"), (302, "DELETE"))
    ],
)
async def test_both_follow_within_the_origin_alike(
    both: list[Sender], receive: Any, status: int, method: str
) -> None:
    receiver = await receive(redirecting(status, "/next?a=b"))
    content = b"body" if method in ("POST", "PUT") else b""
    for sender in both:
        response = await sender.send(
            method, f"{receiver.url}/first", content=content, options=FOLLOW
        )
        assert (response.status_code, response.url.raw_path) == (200, b"/next?a=b")
    _, ours, _, theirs = receiver.seen
    assert (ours.method, ours.target, ours.body) == (theirs.method, theirs.target, theirs.body)
    assert sorted(ours.headers) == sorted(theirs.headers)


async def test_ours_is_stricter_a_302_makes_a_get_of_a_post_alone(
    both: list[Sender], receive: Any
) -> None:
    receiver = await receive(redirecting(302, "/next"))
    for sender in both:
        await sender.send("PUT", f"{receiver.url}/first", content=b"body", options=FOLLOW)
    assert [one.method for one in receiver.seen] == [b"PUT", b"PUT", b"PUT", b"GET"]


async def test_ours_is_stricter_no_header_crosses_to_another_origin(
    both: list[Sender], receive: Any
) -> None:
    other = await receive()
    receiver = await receive(redirecting(302, f"{other.url}/next"))
    for sender in both:
        response = await sender.send(
            "GET", f"{receiver.url}/first", headers={"X-API-Key": "k"}, options=FOLLOW
        )
        assert response.status_code == (302 if sender.ours else 200)
    [crossed] = other.seen
    assert (b"x-api-key", b"k") in crossed.headers  # httpx's


# -- errors -----------------------------------------------------------------------------------


async def failing(sender: Sender, url: str, **kwargs: Any) -> tuple[str, bool] | type:
    """What came out: kind and `sent` of ours, the class of httpx's."""
    with pytest.raises((SendError, httpx.TransportError)) as caught:
        await sender.send("POST", url, content=b"once", **kwargs)
    error = caught.value
    return (error.kind, error.sent) if isinstance(error, SendError) else type(error)


def is_one_of(sender: Sender, outcome: Any, ours: tuple[str, bool], *theirs: type) -> None:
    assert outcome == ours if sender.ours else outcome in theirs


async def test_refused(sender: Sender) -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        outcome = await failing(sender, f"http://127.0.0.1:{unheard.getsockname()[1]}/")
    is_one_of(sender, outcome, ("connect", False), httpx.ConnectError)


async def test_a_name_that_does_not_resolve(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolve(*args: Any, **kwargs: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    outcome = await failing(sender, "https://nowhere.example/")
    is_one_of(sender, outcome, ("dns", False), httpx.ConnectError)


@pytest.mark.parametrize("what", ["wrong name", "self-signed", "expired", "not yet valid"])
async def test_certificates_are_verified(
    sender: Sender, serve: Any, authority: trustme.CA, what: str
) -> None:
    async def script(peer: Any) -> None:
        await peer.request()

    issuer = trustme.CA() if what == "self-signed" else authority
    name = "other.example" if what == "wrong name" else "127.0.0.1"
    now, day = datetime.now(UTC), timedelta(days=1)
    dates = {"expired": (now - 3 * day, now - day), "not yet valid": (now + day, now + 2 * day)}
    valid = dict(zip(("not_before", "not_after"), dates.get(what, ()), strict=False))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issuer.issue_cert(name, **valid).configure_cert(context)
    server = await serve(script, tls=context)
    outcome = await failing(sender, server.url)
    # What time mends may be tried again.
    kind = "tls" if what in dates else "certificate"
    is_one_of(sender, outcome, (kind, False), httpx.ConnectError)
    assert server.requests == []


ENDS: dict[str, tuple[bytes | None, str, tuple[str, bool]]] = {
    "closed before the answer": (b"", "close", ("reset", True)),
    "reset before the answer": (b"", "reset", ("reset", True)),
    "closed within the headers": (b"HTTP/1.1 200 OK\r\nX: y", "close", ("reset", True)),
    "closed within the body": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab",
        "close",
        ("reset", True),
    ),
    "closed within the chunks": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        "close",
        ("reset", True),
    ),
    "garbage": (b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n", "close", ("protocol", True)),
    "two lengths": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nab",
        "close",
        ("protocol", True),
    ),
    "silence": (None, "close", ("timeout", True)),
}


@pytest.mark.parametrize(("said", "end", "ours"), ENDS.values(), ids=ENDS.keys())
async def test_ends_without_an_answer(
    sender: Sender, serve: Any, said: bytes | None, end: str, ours: tuple[str, bool]
) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        if said is None:
            await peer.eof()
        elif said:
            await peer.answer(said)
            await asyncio.sleep(0.01)
        getattr(peer, end)()

    server = await serve(script)
    outcome = await failing(sender, server.url, options={"timeout": 0.3 if said is None else 10})
    is_one_of(sender, outcome, ours, httpx.RemoteProtocolError, httpx.ReadError, httpx.ReadTimeout)
    await asyncio.sleep(0.02)
    assert len(server.requests) == 1


async def test_a_connection_that_closes_under_the_second_request_gets_it_once(
    sender: Sender, serve: Any
) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await peer.request()
        peer.reset()

    server = await serve(script)
    await sender.send("POST", server.url, content=b"first")
    outcome = await failing(sender, server.url)
    is_one_of(sender, outcome, ("reset", True), httpx.ReadError, httpx.RemoteProtocolError)
    await asyncio.sleep(0.02)
    assert (server.connections, len(server.requests)) == (1, 2)


# -- where ours is stricter -------------------------------------------------------------------


async def test_ours_is_stricter_a_deadline_ends_a_body_that_drips(
    both: list[Sender], serve: Any
) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n")
        for _ in range(20):
            await asyncio.sleep(0.04)
            await peer.answer(b"x")

    server = await serve(script)
    for sender in both:
        sent = sender.send("POST", server.url, options={"timeout": 0.3})
        if sender.ours:
            with pytest.raises(SendError) as caught:
                await sent
            assert (caught.value.kind, caught.value.sent) == ("timeout", True)
        else:
            assert (await sent).content == b"x" * 20
    assert len(server.requests) == 2


async def test_ours_is_stricter_a_gzip_bomb_is_cut(both: list[Sender], receive: Any) -> None:
    bomb = gzip.compress(bytes(20_000_000))
    receiver = await receive(lambda seen: Said(200, bomb, [("content-encoding", "gzip")]))
    for sender in both:
        response = await sender.send("GET", receiver.url)
        assert len(response.content) == (1_048_576 if sender.ours else 20_000_000)


async def test_ours_is_stricter_five_thousand_headers_are_refused(
    both: list[Sender], serve: Any
) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        many = b"".join(b"x%d: y\r\n" % number for number in range(5000))
        await peer.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + many + b"\r\n")

    server = await serve(script)
    for sender in both:
        if sender.ours:
            with pytest.raises(SendError, match="more than 200 headers"):
                await sender.send("GET", server.url)
        else:
            assert len((await sender.send("GET", server.url)).headers.raw) == 5001
