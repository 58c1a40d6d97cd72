"""Receivers of strangers that rebind, redirect, never end, hang, are gone: they harm themselves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon
from tests.acceptance.processes import free_port
from tests.acceptance.receiver import Answer, Connection, Received, Receiver
from tests.acceptance.subscriptions.tenants import Tenants, declare, settings
from tests.acceptance.subscriptions.test_subscriptions import SHOP
from tests.acceptance.waiting import until

ORDERS = 20
IN_TIME = 3.0
"""Seconds until a good receiver has an event; it takes some hundredths."""
TEN_GB = 10_000_000_000
# What the name stands for at each look-up in turn: an address that may be dialled, as all public
# ones may, and then one that may not.
RESOLVER = """
import itertools
import socket

real, turns = socket.getaddrinfo, itertools.count()


def getaddrinfo(host, port, *args, **named):
    if host == "rebinds.example" and not named.get("flags"):
        host = "127.0.0.1" if next(turns) % 2 == 0 else "127.0.0.2"
    return real(host, port, *args, **named)


socket.getaddrinfo = getaddrinfo
"""


class Endless:
    """Answers 10 GB, or a head without an end; counts what each connection took of it."""

    def __init__(self) -> None:
        self.taken: list[int] = []

    async def body(self, request: Received, connection: Connection) -> None:
        await connection.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % TEN_GB)
        await self._write(connection, b"x" * 65536)

    async def head(self, request: Received, connection: Connection) -> None:
        await connection.write(b"HTTP/1.1 200 OK\r\n")
        await self._write(connection, b"X-More: %b\r\n" % (b"x" * 1000))

    async def drips(self, request: Received, connection: Connection) -> None:
        await connection.write(b"HTTP/1.1 200 OK\r\nX: ")
        while True:
            await connection.write(b"x")
            await asyncio.sleep(0.2)

    async def _write(self, connection: Connection, piece: bytes) -> None:
        self.taken.append(0)
        number = len(self.taken) - 1
        while True:
            await connection.write(piece)
            self.taken[number] += len(piece)


@pytest.fixture
def inside() -> Iterator[Receiver]:
    """A service of the operator's own network."""
    with Receiver("127.0.0.2") as receiver:
        receiver.reply("/", lambda request: Answer())
        yield receiver


@pytest.fixture
def tenants(make_daemon: MakeDaemon, receiver: Receiver, inside: Receiver) -> Tenants:
    dead = free_port()
    ports = [receiver.port, inside.port, dead]
    said = settings(receiver, timeout="2s", ports=ports)
    daemon = make_daemon(plugins={"dirs": ["plugins"]}, subscriptions=said)
    daemon.plugin("resolver", RESOLVER)
    declare(daemon)
    receiver.reply("/", lambda request: Answer())
    daemon.start()
    tenants = Tenants(daemon, receiver.url)
    for tenant in ("acme", "mallory"):
        tenants.put(tenant)
    for url in (f"http://rebinds.example:{port}/rebinds" for port in (receiver.port, inside.port)):
        made = tenants.ask("POST", "/mallory/subscriptions", {"url": url})
        assert made.status_code == 201, made.text
    body = {"url": f"http://127.0.0.1:{dead}/"}
    assert tenants.ask("POST", "/mallory/subscriptions", body).status_code == 201
    return tenants


def reason_of(tenants: Tenants, url: str) -> tuple[bool, str | None]:
    """Whether a subscription is enabled, and its last error."""
    [one] = [one for one in tenants.of("mallory") if one["url"].endswith(url)]
    return one["enabled"], one["last_error"]


def test_they_harm_only_themselves(tenants: Tenants, receiver: Receiver, inside: Receiver) -> None:
    daemon, endless = tenants.daemon, Endless()
    assert isinstance(daemon, Daemon)
    receiver.on("/endless", endless.body)
    receiver.on("/head", endless.head)
    receiver.on("/drips", endless.drips)
    receiver.on("/gone", 410)
    receiver.on("/rebinds", Answer(200, headers={"Connection": "close"}))
    elsewhere = {"Location": f"{inside.url}/elsewhere"}
    receiver.on("/redirects", Answer(307, headers=elsewhere))
    receiver.hold("/slow")
    for path in ("/endless", "/head", "/drips", "/gone", "/redirects", "/slow", "/also-good"):
        tenants.add("mallory", path)
    tenants.add("acme", "/good")
    before, called = daemon.memory(), []
    for order in range(ORDERS):
        called.append(time.monotonic())
        for tenant in ("mallory", "acme"):
            daemon.call(SHOP, tenant=tenant, order=order)
        time.sleep(0.1)
    until(lambda: receiver.count("/good") == ORDERS, "those of another tenant")
    arrived: dict[Any, float] = {
        one.json()["data"]["order"]: one.at for one in receiver.received("/good")
    }
    delays = [arrived[order] - at for order, at in enumerate(called)]
    assert max(delays) < IN_TIME, delays
    until(lambda: receiver.count("/also-good") == ORDERS, "those of the same tenant", timeout=90)

    def refused() -> bool:
        tasks = daemon.tasks(tenant="mallory")
        return any("127.0.0.2" in str(task["last_error"]) for task in tasks)

    until(refused, "that what rebinds is refused")
    assert inside.connections == 0, "an address inside was dialled"
    assert receiver.count("/rebinds") > 0
    until(lambda: not reason_of(tenants, "/gone")[0], "that it is disabled")
    assert "307" in str(reason_of(tenants, "/redirects")[1])
    assert endless.taken
    assert max(endless.taken) < 16 << 20  # what fits into the buffers of sockets, and not 10 GB
    assert daemon.memory() - before < 100 << 20
    receiver.let_go("/slow")


def test_the_portal_itself_is_never_called(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    own = free_port()
    portal = {"bind": f"127.0.0.1:{own}", "url": f"http://127.0.0.1:{own}"}
    said = settings(receiver, ports=[receiver.port, own], portal=portal)
    daemon = make_daemon(subscriptions=said)
    declare(daemon)
    tenants = Tenants(daemon.start(), receiver.url)
    tenants.put("mallory")
    body = {"url": f"{portal['url']}/session"}
    made = tenants.ask("POST", "/mallory/subscriptions", body).json()
    daemon.call(SHOP, tenant="mallory", order=1)
    daemon.settle()
    [task] = daemon.tasks(tenant="mallory")
    assert task["reason"] == "rejected"
    shown = tenants.ask("GET", tenants.one(made)).json()
    assert shown["last_error"] == "its host leads to an address that is not public"
