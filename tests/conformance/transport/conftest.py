"""Real servers that do what they are told, and the two clients that are held against each other."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import trustme

from orchestratord.http.client import HttpClient, SendOptions
from orchestratord.http.egress import Egress, parse_rule

LOOPBACK = Egress((parse_rule("127.0.0.1"),))


@dataclass
class Peer:
    """The server's end of one connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    server: Server

    async def request(self) -> bytes:
        """The next request as it came, head and body; kept in `server.requests` as well."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        raw = head + await self.reader.readexactly(length)
        self.server.requests.append(raw)
        return raw

    async def answer(self, raw: bytes) -> None:
        self.writer.write(raw)
        await self.writer.drain()
        await asyncio.sleep(0)  # draining may take no turn of the loop

    async def eof(self) -> None:
        """Wait until the client hangs up."""
        await self.reader.read()

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Script = Callable[[Peer], Awaitable[None]]


@dataclass
class Server:
    """A server that runs a script on each connection and counts what reaches it."""

    script: Script
    scheme: str = "http"
    host: str = "127.0.0.1"
    port: int = 0
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once a connection of the server has come to its end."""
    _writers: list[asyncio.StreamWriter] = field(default_factory=list)
    _listening: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"

    async def start(self, tls: ssl.SSLContext | None) -> None:
        self._listening = await asyncio.start_server(
            self._serve, self.host, self.port, ssl=tls, backlog=1024
        )
        self.port = self._listening.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._listening is not None
        self._listening.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        try:
            await self.script(Peer(reader, writer, self))
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.hung_up.set()
            writer.close()


Serve = Callable[..., Awaitable[Server]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    servers: list[Server] = []

    async def start(script: Script, tls: ssl.SSLContext | None = None, **kwargs: Any) -> Server:
        server = Server(script, scheme="https" if tls else "http", **kwargs)
        await server.start(tls)
        servers.append(server)
        return server

    yield start
    for server in servers:
        await server.stop()


@pytest.fixture
def loopback() -> Egress:
    """Rules that open 127.0.0.1 and nothing else."""
    return LOOPBACK


@pytest.fixture
def options() -> SendOptions:
    return SendOptions(timeout=10, egress=LOOPBACK)


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    client = HttpClient()
    yield client
    await client.aclose()


Send = Callable[..., Awaitable[httpx.Response]]


@pytest.fixture
def send(client: HttpClient) -> Send:
    """`send(method, url, **of the request, options=SendOptions-keywords)` over our client."""

    async def send(method: str, url: str, *, options: Any = None, **kwargs: Any) -> httpx.Response:
        settings = {"timeout": 10.0, "egress": LOOPBACK, **(options or {})}
        request = httpx.Request(method, url, **kwargs)
        request.read()
        async with asyncio.timeout(60):  # a hang is a failure, not a hang of the suite
            return await client.send(request, options=SendOptions(**settings))

    return send


@pytest.fixture(params=["orchestratord", "httpx"])
async def either(request: pytest.FixtureRequest, send: Send) -> AsyncIterator[Send]:
    """The same over our client and over httpx's, where both have to do the same."""
    if request.param == "orchestratord":
        yield send
        return

    async with httpx.AsyncClient(trust_env=False, timeout=10) as theirs:

        async def send_theirs(method: str, url: str, **kwargs: Any) -> httpx.Response:
            return await theirs.send(httpx.Request(method, url, **kwargs))

        yield send_theirs


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    """A client's context that trusts the test's authority."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture
def certified(authority: trustme.CA) -> Callable[..., ssl.SSLContext]:
    """A server's context with a certificate for the names given."""

    def make(*names: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(*names).configure_cert(context)
        return context

    return make
