"""Receivers that do what no receiver should: the attempt ends, memory stays, others go on."""

from __future__ import annotations

import asyncio
import gzip
import socket
import struct
from collections.abc import Iterable
from typing import Any

import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon, retry
from tests.acceptance.receiver import Connection, Received, Receiver
from tests.acceptance.waiting import until

pytestmark = pytest.mark.slow

TIMEOUT = 1.0
"""Seconds of an attempt."""
ROOM = 16 << 20
"""Bytes by which memory may grow."""
AT_ONCE = 5

OK = b"HTTP/1.1 200 OK\r\n"


async def hang(request: Received, connection: Connection) -> None:
    await connection.reader.read()


async def drip_head(request: Received, connection: Connection) -> None:
    await connection.write(OK)
    while True:
        await connection.write(b"X: y\r\n")
        await asyncio.sleep(0.05)


async def drip_body(request: Received, connection: Connection) -> None:
    await connection.write(OK + b"Content-Length: 1000000\r\n\r\n")
    while True:
        await connection.write(b".")
        await asyncio.sleep(0.05)


async def reset(request: Received, connection: Connection) -> None:
    sock: socket.socket = connection.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.writer.transport.abort()
    raise ConnectionError


async def reset_in_body(request: Received, connection: Connection) -> None:
    await connection.write(OK + b"Content-Length: 1000\r\n\r\nabc")
    await reset(request, connection)


async def garbage(request: Received, connection: Connection) -> None:
    await connection.write(bytes(range(256)) * 40)
    await connection.reader.read()


async def ten_gigabytes(request: Received, connection: Connection) -> None:
    await connection.write(OK + b"Content-Length: 10737418240\r\n\r\n")
    block = b"x" * 65536
    while True:
        await connection.write(block)


async def endless_chunks(request: Received, connection: Connection) -> None:
    await connection.write(OK + b"Transfer-Encoding: chunked\r\n\r\n")
    block = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    while True:
        await connection.write(block)


def zeros(count: int) -> bytes:
    return gzip.compress(bytes(count))


BOMB = zeros(16 << 20) * 64  # members one after the other: a gigabyte in a megabyte


async def gzip_bomb(request: Received, connection: Connection) -> None:
    head = f"Content-Encoding: gzip\r\nContent-Length: {len(BOMB)}\r\n\r\n"
    await connection.write(OK + head.encode() + BOMB)


async def many_headers(request: Received, connection: Connection) -> None:
    lines = "".join(f"X-{number}: {number}\r\n" for number in range(5000))
    await connection.write(OK + lines.encode() + b"Content-Length: 0\r\n\r\n")


async def long_header(request: Received, connection: Connection) -> None:
    await connection.write(OK + b"X: " + b"y" * (64 << 20) + b"\r\n\r\n")


SCRIPTS = {
    "hang": hang,
    "drip_head": drip_head,
    "drip_body": drip_body,
    "reset": reset,
    "reset_in_body": reset_in_body,
    "garbage": garbage,
    "ten_gigabytes": ten_gigabytes,
    "endless_chunks": endless_chunks,
    "gzip_bomb": gzip_bomb,
    "many_headers": many_headers,
    "long_header": long_header,
}
CUT = ("ten_gigabytes", "endless_chunks", "gzip_bomb")
"""A body that is too long is cut, and the status code decides."""


@pytest.fixture(scope="module")
def daemon(make_shared: MakeDaemon, shared_receiver: Receiver) -> Daemon:
    daemon = make_shared()
    daemon.api("good", shared_receiver.url)
    shared_receiver.on("/good", 200)
    daemon.endpoint("good/get", "/good", params={"n": {}})
    daemon.api("bad", shared_receiver.url, concurrency=AT_ONCE)
    for name, script in SCRIPTS.items():
        # An API each: the breaker of one that they shared would open.
        daemon.api(f"bad-{name}", shared_receiver.url, concurrency=AT_ONCE)
        shared_receiver.on(f"/{name}", script)
        daemon.endpoint(f"bad-{name}/get", f"/{name}", timeout=TIMEOUT, retry=retry(attempts=1))
    shared_receiver.hold("/held")
    daemon.endpoint("bad/held", "/held", timeout="60s")
    daemon.start()
    # What the first calls load and allocate is nobody's fault.
    done(daemon, daemon.batch("good/get", [{}] * 300))
    return daemon


def done(daemon: Daemon, ids: Iterable[int]) -> list[dict[str, Any]]:
    return [daemon.finish(task_id) for task_id in ids]


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_attempt_ends_and_memory_stays(daemon: Daemon, name: str) -> None:
    before = daemon.memory()
    daemon.reset_peak()
    ids = daemon.batch(f"bad-{name}/get", [{}] * AT_ONCE)
    for task in done(daemon, ids):
        (attempt,) = task["attempt_log"]
        # None of them ends by itself. The margin is for a machine that is busy.
        assert attempt["duration_ms"] < (TIMEOUT + 3) * 1000
        if name in CUT:
            assert task["status"] == "succeeded"
            assert task["last_status_code"] == 200
            assert task["response"]["truncated"] is True
        else:
            assert task["last_status_code"] == "error"
            assert task["status"] == "failed"
            assert task["last_error"]
    assert daemon.memory("VmHWM") - before < ROOM


def test_another_endpoint_keeps_its_pace(daemon: Daemon, shared_receiver: Receiver) -> None:
    # A full lane and more behind it, for as long as this test takes.
    daemon.batch("bad/held", [{}] * (3 * AT_ONCE))
    until(lambda: lane(daemon, "bad") == AT_ONCE, "the bad lane to be full")
    before = shared_receiver.count("/good")
    daemon.batch("good/get", [{}] * 300)
    daemon.settle(endpoint="good/get")
    assert shared_receiver.count("/good") - before == 300
    assert lane(daemon, "bad") == AT_ONCE
    assert shared_receiver.count("/held") == AT_ONCE
    shared_receiver.let_go("/held")
    daemon.settle()
    assert len(daemon.tasks(endpoint="bad/held", status="succeeded")) == 3 * AT_ONCE


def lane(daemon: Daemon, api: str) -> int:
    """How many calls of an API are in flight."""
    lanes = {item["name"]: item["in_flight"] for item in daemon.status()["lanes"]}
    found: int = lanes.get(f"api:{api}", 0)
    return found
