"""The guard before the API over TCP: who is let in, from where, and what they may do."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import closing
from typing import Any, NamedTuple

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from orchestratord.api.server import browser_sessions as callers_module
from orchestratord.api.server.guard import Guard
from orchestratord.api.server.server import Server, TcpListener
from orchestratord.errors import OrchestratordError
from orchestratord.model.settings import Http

TOKEN = "the-token-of-the-operators"
READ = "the-token-of-the-spectators"
FORM = "application/x-www-form-urlencoded"
CAREFUL = {
    "content-security-policy": "default-src 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "deny",
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
}


class Answered(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        return str(json.loads(self.body)["code"])

    @property
    def cookie(self) -> str:
        return self.headers["set-cookie"].partition(";")[0]


class Served:
    """A guarded application on a socket of its own."""

    def __init__(self) -> None:
        self.http = Http.model_validate({"token": TOKEN, "read_token": READ})
        listener = TcpListener("127.0.0.1:0")
        self.port = listener.port
        self.host = f"127.0.0.1:{self.port}"
        self.asked: list[tuple[str, str]] = []
        self.chunks: asyncio.Queue[bytes] = asyncio.Queue()
        self.guard = Guard(self._application(), "127.0.0.1", self.port, lambda: self.http)
        self.server = Server(self.guard, listener)

    def _application(self) -> Any:
        async def anything(request: Request) -> Any:
            self.asked.append((request.method, request.url.path))
            await request.body()
            return JSONResponse({"caller": getattr(request.state, "caller", None)})

        async def stream(request: Request) -> Any:
            async def chunks() -> AsyncIterator[bytes]:
                while True:
                    yield await self.chunks.get()

            return StreamingResponse(chunks())

        every = ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"]
        app = Starlette(
            routes=[Route("/stream", stream), Route("/{path:path}", anything, methods=every)]
        )

        async def run(scope: Scope, receive: Receive, send: Send) -> None:
            await app(scope, receive, send)

        return run

    def change(self, **settings: Any) -> None:
        self.http = Http.model_validate({"token": TOKEN, "read_token": READ, **settings})

    async def send(
        self, line: str, *headers: str, body: bytes = b"", host: str | None = None
    ) -> Answered:
        """A request as it is written, but for Host and the length of a body."""
        lines = [f"{line} HTTP/1.1", f"Host: {self.host if host is None else host}", *headers]
        lines += [f"Content-Length: {len(body)}"] if body else []
        return await self.raw("\r\n".join([*lines, "Connection: close", "", ""]).encode() + body)

    async def raw(self, data: bytes) -> Answered:
        async with asyncio.timeout(60):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.write(data)
            answer = await reader.read()
            writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        first, *rest = head.decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in rest)
        }
        for name, value in CAREFUL.items():
            assert headers.get(name, "").lower().startswith(value), (first, name)
        assert not any(name.startswith("access-control-") for name in headers)
        return Answered(int(first.split()[1]), headers, body)

    async def log_in(self, token: str = TOKEN, *headers: str, next_: str = "") -> Answered:
        body = f"token={token}&next={next_}".encode()
        return await self.send("POST /login", f"Content-Type: {FORM}", *headers, body=body)

    async def session(self, token: str = TOKEN) -> str:
        """The header of a browser that is logged in."""
        answer = await self.log_in(token)
        assert answer.status == 303
        return f"Cookie: {answer.cookie}"


BEARER = f"Authorization: Bearer {TOKEN}"
READER = f"Authorization: Bearer {READ}"
OWN = "Sec-Fetch-Site: same-origin"
JSON = "Content-Type: application/json"


@pytest.fixture
async def served(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    monkeypatch.setattr(callers_module, "LONGEST_DELAY", 0.01)
    served = Served()
    served.server.start()
    yield served
    await served.server.stop()


# -- which host ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "localhost", "",
     "localhost.:{port}", "127.0.0.1:{port}.evil.example", "evil@127.0.0.1:{port}",
     "127.1:{port}", "[::1]:{port}", "127.0.0.1:{port}, evil.example"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/", "/v1/status", "/healthz", "/readyz", "/login"])
async def test_another_host_is_refused(served: Served, host: str, path: str) -> None:
    answer = await served.send(f"GET {path}", BEARER, host=host.format(port=served.port))
    assert (answer.status, answer.code) == (421, "unknown_host")
    assert served.asked == []


@pytest.mark.parametrize("hosts", ["", "Host: 127.0.0.1:{port}\r\nHost: evil.example\r\n"])
async def test_a_request_without_a_host_or_with_two(served: Served, hosts: str) -> None:
    head = f"GET /healthz HTTP/1.1\r\n{hosts.format(port=served.port)}Connection: close\r\n\r\n"
    assert (await served.raw(head.encode())).status == 421


async def test_hosts_by_default_and_as_they_are_set(served: Served) -> None:
    local = f"LocalHost:{served.port}"
    assert (await served.send("GET /x", BEARER)).status == 200
    assert (await served.send("GET /x", BEARER, host=local)).status == 200
    served.change(hosts=["queue.example.com"])
    assert (await served.send("GET /x", BEARER, host=local)).status == 421
    assert (await served.send("GET /x", BEARER)).status == 421
    assert (await served.send("GET /x", BEARER, host="queue.example.com")).status == 200


# -- tokens ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_what_needs_no_token(served: Served, path: str) -> None:
    assert (await served.send(f"GET {path}")).status == 200
    assert (await served.send(f"HEAD {path}")).status == 200
    assert (await served.send(f"POST {path}")).status == 401


@pytest.mark.parametrize(
    "path", ["/", "/v1/status", "/metrics", "/v1/events", "/%68ealthz", "/healthz/", "//healthz"]
)
async def test_everything_else_needs_one(served: Served, path: str) -> None:
    answer = await served.send(f"GET {path}")
    assert (answer.status, answer.code) == (401, "no_token")
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert served.asked == []


@pytest.mark.parametrize(
    "header",
    [f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer", "Bearer ", f"Basic {TOKEN}", TOKEN,
     f"Bearer {TOKEN.upper()}", "Bearer \xe9", f"Bearer {TOKEN}, Bearer {TOKEN}"],
)  # fmt: skip
async def test_a_wrong_token(served: Served, header: str) -> None:
    session = await served.session()
    answer = await served.send("GET /x", f"Authorization: {header}", session)
    assert (answer.status, answer.code) == (401, "wrong_token")
    assert TOKEN.encode() not in answer.body


async def test_two_tokens_are_none(served: Served) -> None:
    assert (await served.send("GET /x", BEARER, READER)).status == 401


async def test_a_right_token(served: Served) -> None:
    for header in (BEARER, f"authorization: bearer  {TOKEN}"):
        answer = await served.send("POST /x", header)
        assert answer.status == 200
        assert json.loads(answer.body) == {"caller": "token, 127.0.0.1"}


async def test_tokens_follow_the_configuration(served: Served) -> None:
    served.change(token="another-token-another", read_token=None)
    assert (await served.send("GET /x", BEARER)).status == 401
    assert (await served.send("GET /x", READER)).status == 401
    assert (
        await served.send("GET /x", "Authorization: Bearer another-token-another")
    ).status == 200


async def test_the_read_token_only_looks(served: Served) -> None:
    session = await served.session(READ)
    for header in (READER, session):
        assert (await served.send("GET /x", header)).status == 200
        assert (await served.send("HEAD /x", header)).status == 200
        for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
            answer = await served.send(f"{method} /x", header, OWN)
            assert (answer.status, answer.code) == (403, "read_only"), method
    assert {method for method, _ in served.asked} == {"GET", "HEAD"}


# -- logging in ------------------------------------------------------------------------------------


async def test_a_browser_is_shown_the_form(served: Served) -> None:
    answer = await served.send("GET /tasks?status=failed&x=%22%3E", "Accept: text/html,*/*;q=0.8")
    assert answer.status == 401
    assert b'value="/tasks?status=failed&amp;x=%22%3E"' in answer.body
    assert "style-src 'sha256-" in answer.headers["content-security-policy"]
    assert b"<script" not in answer.body
    assert (await served.send("GET /login")).status == 200


async def test_the_style_is_the_one_that_the_policy_allows(served: Served) -> None:
    import base64
    import hashlib

    answer = await served.send("GET /login")
    style = answer.body.partition(b"<style>")[2].partition(b"</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style).digest()).decode()
    assert f"'sha256-{digest}'" in answer.headers["content-security-policy"]


async def test_a_session(served: Served) -> None:
    answer = await served.log_in(next_="%2Ftasks%3Fa%3Db", token=TOKEN)
    assert (answer.status, answer.headers["location"]) == (303, "/tasks?a=b")
    name, _, value = answer.cookie.partition("=")
    assert name == f"orchestratord-{served.port}"
    assert len(value) > 40
    assert TOKEN not in value
    flags = {flag.strip() for flag in answer.headers["set-cookie"].split(";")[1:]}
    assert flags == {"HttpOnly", "Path=/", "SameSite=Strict"}
    again = await served.log_in()
    assert again.cookie != answer.cookie
    seen = await served.send("GET /x", f"Cookie: {answer.cookie}")
    assert json.loads(seen.body) == {"caller": "a session of token, 127.0.0.1"}


async def test_behind_tls_the_cookie_is_for_tls(served: Served) -> None:
    answer = await served.log_in(TOKEN, f"Origin: https://{served.host}")
    assert "; Secure" in answer.headers["set-cookie"]


@pytest.mark.parametrize(
    "next_",
    ["//evil.example", "/%5Cevil.example", "https://evil.example/", "evil", "/a%0D%0AX: y", "",
     "/login", "/logout", "/%09/evil.example", "javascript:alert(1)", "/" + "a" * 5000],
)  # fmt: skip
async def test_a_login_leads_nowhere_else(served: Served, next_: str) -> None:
    assert (await served.log_in(next_=next_)).headers["location"] == "/"


async def test_a_failed_login(served: Served) -> None:
    for token in ("wrong", "", TOKEN + "x"):
        answer = await served.log_in(token)
        assert answer.status == 401
        assert "set-cookie" not in answer.headers
        assert b"not known here" in answer.body
    answer = await served.log_in("x", next_="%22%3E%3Cscript%3E")
    assert b"<script>" not in answer.body


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [("application/json", b'{"token": "x"}', 415), ("text/plain", b"token=x", 415),
     (FORM, b"token=" + b"x" * 20_000, 413), (FORM, b"token=%ff\xff", 400),
     (FORM, b"&".join([b"a=b"] * 20), 400)],
)  # fmt: skip
async def test_what_is_no_login(served: Served, kind: str, body: bytes, status: int) -> None:
    answer = await served.send("POST /login", f"Content-Type: {kind}", body=body)
    assert answer.status == status


async def test_methods_of_the_door(served: Served) -> None:
    assert (await served.send("PUT /login")).headers["allow"] == "GET, HEAD, POST"
    assert (await served.send("GET /logout")).headers["allow"] == "POST"


async def test_logging_out(served: Served) -> None:
    session, other = await served.session(), await served.session()
    assert (await served.send("POST /logout", session)).status == 403
    answer = await served.send("POST /logout", session, OWN)
    assert (answer.status, answer.headers["location"]) == (303, "/login")
    assert "Max-Age=0" in answer.headers["set-cookie"]
    assert (await served.send("GET /x", session)).status == 401
    assert (await served.send("GET /x", other)).status == 200


async def test_a_session_ends_with_its_token(served: Served) -> None:
    session, reader = await served.session(), await served.session(READ)
    served.change(token="another-token-another")
    assert (await served.send("GET /x", session)).status == 401
    assert (await served.send("GET /x", reader)).status == 200
    served.change(read_token=None)
    assert (await served.send("GET /x", reader)).status == 401
    served.change()
    assert (await served.send("GET /x", session)).status == 401


async def test_a_made_up_session(served: Served) -> None:
    for value in ("", "x", TOKEN):
        answer = await served.send("GET /x", f"Cookie: {served.guard.cookie}={value}")
        assert answer.status == 401


@pytest.mark.parametrize("by_cookie", [True, False])
async def test_a_stream_ends_with_its_token(served: Served, by_cookie: bool) -> None:
    header = await served.session() if by_cookie else BEARER
    async with asyncio.timeout(60):
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(f"GET /stream HTTP/1.1\r\nHost: {served.host}\r\n{header}\r\n\r\n".encode())
        served.chunks.put_nowait(b"seen by who may")
        assert b"seen by who may" in await reader.readuntil(b"seen by who may")
        served.change(token="another-token-another")
        served.chunks.put_nowait(b"not for them")
        rest = await reader.readuntil(b"0\r\n\r\n")
        assert b"not for them" not in rest
        writer.close()


async def test_wrong_tokens_wait_and_right_ones_do_not(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(callers_module, "LONGEST_DELAY", 3.0)
    original = asyncio.sleep

    async def sleep(seconds: float) -> None:
        waited.append(seconds)
        await original(0)

    monkeypatch.setattr("orchestratord.api.server.guard.asyncio.sleep", sleep)
    for _ in range(6):
        await served.log_in("wrong")
    for _ in range(4):
        await served.send("GET /x", "Authorization: Bearer wrong")
    delays = [seconds for seconds in waited if seconds != 1.0]  # the server's own round
    assert delays[:3] == [0, 0, 0]
    assert delays[3:] == sorted(delays[3:])
    assert 0.4 < delays[3] < 0.6
    assert delays[-1] == 3.0
    waited.clear()
    assert (await served.log_in()).status == 303
    assert (await served.send("GET /x", BEARER)).status == 200
    assert [seconds for seconds in waited if seconds != 1.0] == []


# -- from where ------------------------------------------------------------------------------------

FOREIGN = [
    "Origin: http://evil.example",
    "Origin: null",
    "Origin: http://127.0.0.1",
    "Origin: http://127.0.0.1:1",
    "Origin: http://{host}.evil.example",
    "Origin: http://evil@{host}",
    "Origin: ftp://{host}",
    "Origin: {host}",
    "Origin:",
    "Origin: http://{host}\r\nOrigin: http://evil.example",
    "Origin: http://{host}\r\nSec-Fetch-Site: cross-site",
    "Sec-Fetch-Site: cross-site",
    "Sec-Fetch-Site: same-site",
    "Sec-Fetch-Site: nonsense",
    "Sec-Fetch-Site: same-origin\r\nSec-Fetch-Site: cross-site",
]


@pytest.mark.parametrize("headers", FOREIGN)
async def test_what_other_sites_send(served: Served, headers: str) -> None:
    session = await served.session()
    header = headers.format(host=served.host)
    for who in (BEARER, session, READER):
        for method in ("POST", "PUT", "DELETE", "GET"):
            answer = await served.send(f"{method} /x", who, header)
            assert (answer.status, answer.code) == (403, "cross_site"), (who, method)
    # With what a link brings along, a write is still one.
    link = "Sec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document"
    for who in (BEARER, session):
        assert (await served.send("POST /x", who, header, link)).status == 403
    assert (await served.log_in(TOKEN, header)).status == 403
    assert served.asked == []


async def test_a_link_from_elsewhere_may_be_followed(served: Served) -> None:
    session = await served.session()
    link = "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document"
    assert (await served.send("GET /x", session, link)).status == 200
    assert (await served.send("GET /x", link, "Accept: text/html")).status == 401
    frame = link.replace("document", "iframe")
    assert (await served.send("GET /x", session, frame)).status == 403
    assert (await served.send("GET /x", BEARER, link)).status == 403


async def test_a_write_by_cookie_shows_where_it_comes_from(served: Served) -> None:
    session = await served.session()
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        for headers in ((), ("Sec-Fetch-Site: none",)):
            answer = await served.send(f"{method} /x", session, *headers)
            assert (answer.status, answer.code) == (403, "cross_site")
        for header in (
            OWN,
            f"Origin: http://{served.host}",
            f"Origin: http://LOCALHOST:{served.port}",
        ):
            assert (await served.send(f"{method} /x", session, header)).status == 200
    assert (await served.send("GET /x", session)).status == 200


async def test_no_preflight_is_answered(served: Served) -> None:
    answer = await served.send(
        "OPTIONS /x", "Origin: http://evil.example", "Access-Control-Request-Method: POST"
    )
    assert answer.status == 403


# -- bodies ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    ["", "Content-Type: text/plain", f"Content-Type: {FORM}", "Content-Type: multipart/form-data",
     "Content-Type: text/plain; application/json", f"{JSON}\r\nContent-Type: text/plain",
     "Content-Type: application/jsonx"],
)  # fmt: skip
async def test_a_body_is_json(served: Served, kind: str) -> None:
    session = await served.session()
    headers = [kind] if kind else []
    for who in (BEARER, session):
        answer = await served.send("POST /x", who, OWN, *headers, body=b'{"a": 1}')
        assert (answer.status, answer.code) == (415, "not_json")
        chunked = ("Transfer-Encoding: chunked", *headers)
        raw = "\r\n".join(
            ["POST /x HTTP/1.1", f"Host: {served.host}", who, OWN, *chunked, "Connection: close",
             "", "2", "{}", "0", "", ""]
        )  # fmt: skip
        assert (await served.raw(raw.encode())).status == 415
    assert served.asked == []


async def test_json_and_nothing(served: Served) -> None:
    for kind in (JSON, "content-type: Application/JSON; charset=utf-8"):
        assert (await served.send("POST /x", BEARER, kind, body=b"{}")).status == 200
    assert (await served.send("POST /x", BEARER, "Content-Length: 0")).status == 200
    # With a form's type and nothing in it, as `curl -d ''` sends it.
    assert (await served.send("POST /x", BEARER, f"Content-Type: {FORM}")).status == 200


# -- the socket ------------------------------------------------------------------------------------


async def test_what_the_server_itself_refuses_has_the_headers_too(served: Served) -> None:
    assert (await served.raw(b"nonsense\r\n\r\n")).status == 400
    head = f"GET /x HTTP/1.1\r\nHost: {served.host}\r\nX: {'x' * 70_000}\r\n\r\n"
    assert (await served.raw(head.encode())).status == 431


async def test_an_address_in_use(served: Served) -> None:
    with pytest.raises(OrchestratordError, match=r"http\.bind: cannot listen at .* in use"):
        TcpListener(served.host)


async def test_answers_do_not_wait_until_their_head_is_acknowledged() -> None:
    loop = asyncio.get_running_loop()
    with closing(TcpListener("127.0.0.1:0")) as listener:
        with socket.create_connection((listener.address, listener.port)):
            accepted, _ = await loop.sock_accept(listener.socket)
        transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, accepted)
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        transport.close()


def test_addresses_as_people_read_them() -> None:
    with closing(TcpListener("localhost:0")) as listener:
        assert listener.url == f"http://127.0.0.1:{listener.port}"
