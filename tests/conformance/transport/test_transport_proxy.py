"""Through a proxy: Debian's tinyproxy, one with TLS before it, and some that misbehave."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from orchestratord.errors import EgressDenied, SendError
from orchestratord.http.client import HttpClient, SendOptions
from orchestratord.http.egress import Egress, parse_rule
from orchestratord.http.proxy import ProxyRoute
from orchestratord.model.auth import Proxy
from orchestratord.values.secret import Text

TINYPROXY = shutil.which("tinyproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CONFIG = """
Listen 127.0.0.1
Port {port}
Timeout 30
MaxClients 50
LogFile "{folder}/log"
LogLevel Connect
BasicAuth user pass-word
DisableViaHeader Yes
Filter "{folder}/filter"
FilterURLs No
"""


async def serving(peer: Any) -> None:
    while True:
        await peer.request()
        await peer.answer(OK)


@dataclass
class Tinyproxy:
    port: int
    folder: Path

    def route(self, who: str = "user:pass%2Dword@") -> ProxyRoute:
        return ProxyRoute(Proxy.parse(f"http://{who}127.0.0.1:{self.port}"))

    async def logged(self, pattern: str) -> None:
        async with asyncio.timeout(60):
            while pattern not in (self.folder / "log").read_text():
                await asyncio.sleep(0.01)


@pytest.fixture(scope="module")
def tinyproxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tinyproxy]:
    if TINYPROXY is None:
        pytest.skip("tinyproxy is not installed")
    folder = tmp_path_factory.mktemp("tinyproxy")
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    (folder / "filter").write_text("^filtered\\.example$\n")
    (folder / "conf").write_text(CONFIG.format(port=port, folder=folder))
    server = subprocess.Popen([TINYPROXY, "-d", "-c", str(folder / "conf")])
    try:
        for _ in range(250):
            with socket.socket() as sock:
                if sock.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert server.poll() is None
            time.sleep(0.02)
        yield Tinyproxy(port, folder)
    finally:
        server.terminate()
        server.wait(10)


async def test_a_plain_request_is_handed_over(tinyproxy: Tinyproxy, send: Any, serve: Any) -> None:
    server = await serve(serving)
    url = f"{server.url}/a%2Fb?c=d"
    for _ in range(2):
        response = await send("POST", url, content=b"x", options={"route": tinyproxy.route()})
        assert response.content == b"ok"
    head = server.requests[0].partition(b"\r\n\r\n")[0]
    assert head.startswith(b"POST /a%2Fb?c=d HTTP/1.")
    assert b"proxy-authorization" not in head.lower()
    await tinyproxy.logged(f"POST http://127.0.0.1:{server.port}/a%2Fb?c=d HTTP/1.1")


async def test_tls_goes_through_a_tunnel(
    tinyproxy: Tinyproxy, send: Any, serve: Any, certified: Any, trusting: Any
) -> None:
    server = await serve(serving, tls=certified("127.0.0.1"))
    options = {"route": tinyproxy.route(), "ssl_context": trusting}
    for _ in range(3):
        assert (await send("GET", server.url, options=options)).content == b"ok"
    assert server.connections == 1, "a tunnel is kept like any connection"
    await tinyproxy.logged(f"CONNECT 127.0.0.1:{server.port} HTTP/1.1")


async def test_a_target_that_speaks_first(
    tinyproxy: Tinyproxy, send: Any, serve: Any, certified: Any, trusting: Any, monkeypatch: Any
) -> None:
    """What it says has come before anything is sent."""
    loop = asyncio.get_running_loop()
    start_tls = loop.start_tls

    async def slow(*args: Any, **kwargs: Any) -> Any:
        secured = await start_tls(*args, **kwargs)
        await asyncio.sleep(0.1)
        return secured

    async def script(peer: Any) -> None:
        await peer.answer(OK)
        await peer.eof()

    monkeypatch.setattr(loop, "start_tls", slow)
    server = await serve(script, tls=certified("127.0.0.1"))
    options = {"route": tinyproxy.route(), "ssl_context": trusting}
    with pytest.raises(SendError) as caught:
        await send("POST", server.url, options=options)
    assert (caught.value.kind, caught.value.sent) == ("reset", False)
    async with asyncio.timeout(60):
        await server.hung_up.wait()


async def test_a_certificate_is_still_that_of_the_target(
    tinyproxy: Tinyproxy, send: Any, serve: Any, certified: Any, trusting: Any
) -> None:
    server = await serve(serving, tls=certified("other.example"))
    options = {"route": tinyproxy.route(), "ssl_context": trusting}
    with pytest.raises(SendError, match=r"the certificate of 127.0.0.1 is for another name") as no:
        await send("GET", server.url, options=options)
    assert (no.value.kind, no.value.sent) == ("certificate", False)


@pytest.mark.parametrize(("who", "status"), [("", 407), ("user:wr0ng@", 401)])
async def test_a_wrong_password(
    tinyproxy: Tinyproxy,
    send: Any,
    serve: Any,
    certified: Any,
    trusting: Any,
    who: str,
    status: int,
) -> None:
    options = {"route": tinyproxy.route(who), "ssl_context": trusting}
    server = await serve(serving, tls=certified("127.0.0.1"))
    with pytest.raises(SendError) as caught:
        await send("GET", server.url, options=options)
    assert (caught.value.kind, caught.value.sent) == ("access", False)
    assert f"wants a user and a password that it accepts ({status}" in caught.value.message
    assert "wr0ng" not in caught.value.message
    plain = await serve(serving)
    response = await send("GET", plain.url, options=options)
    assert (response.status_code, plain.requests) == (status, [])


async def test_what_the_proxy_does_not_let_through(
    tinyproxy: Tinyproxy, send: Any, trusting: Any
) -> None:
    options = {"route": tinyproxy.route(), "ssl_context": trusting}
    with pytest.raises(SendError, match=r"refuses to connect to filtered.example:443: 403") as no:
        await send("GET", "https://filtered.example/", options=options)
    assert (no.value.kind, no.value.sent) == ("access", False)


async def test_a_target_that_the_proxy_does_not_reach(
    tinyproxy: Tinyproxy, send: Any, trusting: Any
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"https://127.0.0.1:{taken.getsockname()[1]}/"
        options = {"route": tinyproxy.route(), "ssl_context": trusting}
        with pytest.raises(SendError, match=r"does not reach 127.0.0.1:[0-9]+: 5") as caught:
            await send("GET", url, options=options)
    assert (caught.value.kind, caught.value.sent) == ("connect", False)


# -- a proxy with TLS of its own ------------------------------------------------------------------


@pytest.fixture
async def secured(tinyproxy: Tinyproxy, certified: Any) -> AsyncIterator[int]:
    """The port of TLS before tinyproxy."""
    writers: list[asyncio.StreamWriter] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
                await asyncio.sleep(0)
        except OSError:
            pass
        writer.transport.abort()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", tinyproxy.port)
        writers.extend((writer, back))
        await asyncio.gather(pump(reader, back), pump(there, writer))

    server = await asyncio.start_server(relay, "127.0.0.1", 0, ssl=certified("127.0.0.1"))
    yield server.sockets[0].getsockname()[1]
    server.close()
    for writer in writers:
        writer.transport.abort()
    await asyncio.sleep(0)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_with_tls(
    secured: int, send: Any, serve: Any, certified: Any, trusting: Any, authority: Any, scheme: str
) -> None:
    own = ssl.create_default_context()
    authority.configure_trust(own)
    proxy = Proxy.parse(f"https://user:pass-word@127.0.0.1:{secured}")
    options = {"route": ProxyRoute(proxy, own), "ssl_context": trusting}
    server = await serve(serving, tls=certified("127.0.0.1") if scheme == "https" else None)
    # tinyproxy closes a connection after each plain request.
    for _ in range(1 if scheme == "http" else 2):
        assert (await send("GET", server.url, options=options)).status_code == 200
    assert server.connections == 1


async def test_a_proxy_whose_certificate_is_not_trusted(secured: int, send: Any) -> None:
    proxy = Proxy.parse(f"https://user:pass-word@127.0.0.1:{secured}")
    route = ProxyRoute(proxy, ssl.create_default_context())
    with pytest.raises(SendError, match=r"the certificate of 127.0.0.1 is not signed by") as caught:
        await send("GET", "http://api.example/", options={"route": route})
    assert (caught.value.kind, caught.value.sent) == ("certificate", False)


# -- which addresses -------------------------------------------------------------------------------


async def test_the_proxys_address_is_checked_and_a_targets_that_is_one(
    tinyproxy: Tinyproxy, send: Any, serve: Any
) -> None:
    server = await serve(serving)
    route = tinyproxy.route()
    only_proxy = Egress((parse_rule(f"127.0.0.1:{tinyproxy.port}"),))
    both = Egress((*only_proxy.rules, parse_rule(f"127.0.0.1:{server.port}")))
    assert (await send("GET", server.url, options={"route": route, "egress": both})).is_success
    # One that is kept is checked as well.
    with pytest.raises(EgressDenied, match=f"127.0.0.1:{server.port}"):
        await send("GET", server.url, options={"route": route, "egress": only_proxy})
    target = Egress((parse_rule(f"127.0.0.1:{server.port}"),))
    with pytest.raises(EgressDenied, match=f"127.0.0.1:{tinyproxy.port}"):
        await send("GET", server.url, options={"route": route, "egress": target})
    # A name is the proxy's to resolve.
    named = f"http://localhost:{server.port}/"
    assert (await send("GET", named, options={"route": route, "egress": only_proxy})).is_success
    assert len(server.requests) == 2


async def test_the_target_is_not_resolved_here(tinyproxy: Tinyproxy, loopback: Egress) -> None:
    asked: list[str] = []

    async def resolver(host: str, port: int) -> list[tuple[int, str]]:
        asked.append(host)
        return [(2, "127.0.0.1")]

    client = HttpClient(resolver)
    options = SendOptions(timeout=10, egress=loopback, route=tinyproxy.route())
    response = await client.send(httpx.Request("GET", "http://filtered.example/"), options=options)
    await client.aclose()
    assert (response.status_code, asked) == (403, ["127.0.0.1"])


async def test_routes_do_not_share_connections(
    tinyproxy: Tinyproxy, send: Any, serve: Any, certified: Any, trusting: Any
) -> None:
    server = await serve(serving, tls=certified("127.0.0.1"))
    for route in (tinyproxy.route(), tinyproxy.route(), None):
        await send("GET", server.url, options={"route": route, "ssl_context": trusting})
    assert server.connections == 3


# -- proxies that misbehave ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (b"SSH-2.0-x\r\n\r\n", "does not answer as a proxy does"),
        (b"HTTP/1.1 200 OK\r\n\r\nearly", "does not answer as a proxy does"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20_000, "does not answer as a proxy does"),
        (b"HTTP/1.1 200", "hung up"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "TLS with api.example through the proxy http://127.0.0.1"),
    ],
)
async def test_a_proxy_that_is_none(
    send: Any, serve: Any, trusting: Any, answer: bytes, complaint: str
) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.answer(answer)
        peer.close()

    server = await serve(script)
    options = {"route": ProxyRoute(Proxy.parse(server.url)), "ssl_context": trusting}
    with pytest.raises(SendError) as caught:
        await send("POST", "https://api.example/", content=b"x", options=options)
    assert complaint in caught.value.message
    assert (caught.value.kind in ("connect", "tls"), caught.value.sent) == (True, False)


async def test_a_proxy_that_hangs(send: Any, serve: Any, trusting: Any) -> None:
    server = await serve(lambda peer: peer.eof())
    route = ProxyRoute(Proxy.parse(server.url))
    options = {"route": route, "ssl_context": trusting, "connect_timeout": 0.2}
    with pytest.raises(SendError) as caught:
        await send("POST", "https://api.example/", options=options)
    assert (caught.value.kind, caught.value.sent) == ("timeout", False)
    said = f"no connection to api.example through the proxy {server.url} in time"
    assert caught.value.message == said
    async with asyncio.timeout(60):
        await server.hung_up.wait()


# -- the URL ---------------------------------------------------------------------------------------


def test_the_url_of_a_proxy() -> None:
    password = ("p@ss:/%41", True)
    parts = [("http://us%2Fer:", False), password, ("@[::1]:3128/", False)]
    proxy = Proxy.parse(
        Text.of(parts, secret=True, source="http://us%2Fer:${secret:P}@[::1]:3128/")
    )
    assert (proxy.scheme, proxy.host, proxy.port) == ("http", "::1", 3128)
    assert (proxy.username, proxy.password) == ("us/er", "p@ss:/%41")
    assert str(proxy) == "http://us/er:***@[::1]:3128"
    assert "p@ss" not in repr(proxy)
    whole = Proxy.parse(
        Text.of([("https://u:p%40@h:443", True)], secret=True, source="${secret:X}")
    )
    assert (whole.port, whole.password) == (443, "p@")


@pytest.mark.parametrize(
    "url",
    ["proxy:3128", "socks5://proxy:1080", "http://proxy", "http://:3128", "http://pro xy:3128",
     "http://proxy:3128/path", "http://proxy:99999", "http://", 3128],
)  # fmt: skip
def test_what_is_no_url_of_a_proxy(url: Any) -> None:
    with pytest.raises(ValueError):
        Proxy.parse(url)
