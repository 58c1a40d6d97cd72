"""The socket and its connections, spoken to by hand."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from orchestratord.api import service as service_module
from orchestratord.api.api_routes import application
from orchestratord.api.server import http_connection as connection_module
from orchestratord.api.server import received_body
from orchestratord.api.server import request_body as body_module
from orchestratord.api.server import server as server_module
from orchestratord.api.server.server import Listener, Server, TcpListener
from orchestratord.errors import OrchestratordError
from orchestratord.model.settings import Port
from tests.unit.api.control_parts import Parts, until

GET = b"GET /healthz HTTP/1.1\r\nHost: d\r\n\r\n"
POST = b"POST /v1/endpoints/demo/get/calls HTTP/1.1\r\nHost: d\r\n"


class Wire:
    """A raw connection to the control socket, or to a TCP one."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._read = b""

    @classmethod
    async def to(cls, parts: Parts) -> Wire:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, str(parts.path))
        return cls(sock)

    @classmethod
    async def over_tcp(cls, listener: TcpListener) -> Wire:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        address = (listener.address, listener.port)
        await asyncio.get_running_loop().sock_connect(sock, address)
        return cls(sock)

    async def send(self, data: bytes) -> None:
        async with asyncio.timeout(60):
            await self._loop.sock_sendall(self._sock, data)

    async def keep_sending(self, data: bytes, pause: float, most: int = 10_000) -> int:
        """Send it again and again until the other end hangs up; how often that was possible."""
        for count in range(most):
            try:
                await self.send(data)
            except ConnectionError:
                return count
            await asyncio.sleep(pause)
        raise AssertionError("nobody hangs up")

    async def answer(self) -> tuple[int, dict[str, str], Any]:
        async with asyncio.timeout(60):
            while b"\r\n\r\n" not in self._read:
                await self._more()
            head, _, self._read = self._read.partition(b"\r\n\r\n")
            lines = head.decode().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in lines[1:])
            length = int(headers["content-length"])
            while len(self._read) < length:
                await self._more()
        body, self._read = self._read[:length], self._read[length:]
        return int(lines[0].split()[1]), headers, json.loads(body)

    async def _more(self) -> None:
        data = await self._loop.sock_recv(self._sock, 1 << 16)
        if not data:
            raise ConnectionError("closed")
        self._read += data

    async def is_closed(self, seconds: float = 5.0) -> bool:
        try:
            async with asyncio.timeout(seconds):
                return await self._loop.sock_recv(self._sock, 1) == b""
        except ConnectionError:
            return True
        except TimeoutError:
            return False

    async def close(self) -> None:
        self._sock.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "SWEEP_EVERY", 0.02)
    for name in ("HEAD_WITHIN", "KEEP_ALIVE", "SILENCE", "READ_WITHIN"):
        monkeypatch.setattr(connection_module, name, 0.5)
    monkeypatch.setattr(connection_module, "BODY_WITHIN", 1.2)


# -- the socket ------------------------------------------------------------------------------------


async def test_modes(parts: Parts) -> None:
    assert stat.S_IMODE(parts.path.stat().st_mode) == 0o660
    assert stat.S_IMODE(parts.path.parent.stat().st_mode) == 0o750


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_modes_do_not_depend_on_the_umask(tmp_path: Path, umask: int) -> None:
    old = os.umask(umask)
    try:
        listener = Listener(tmp_path / "a" / "b" / "s.sock")
        assert os.umask(umask) == umask
    finally:
        os.umask(old)
    assert stat.S_IMODE(listener.path.stat().st_mode) == 0o660
    for folder in (tmp_path / "a", tmp_path / "a" / "b"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o750
    listener.close()
    assert not listener.path.exists()


def test_a_folder_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    Listener(folder / "s.sock").close()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize(("mode", "warns"), [(0o777, True), (0o1777, True), (0o755, False)])
def test_a_folder_that_others_may_write_to_is_warned_of(
    tmp_path: Path, mode: int, warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    folder.chmod(mode)
    Listener(folder / "s.sock").close()
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == warns
    if warns:
        assert f"{folder} has mode {mode:04o}" in said[0]


@pytest.mark.parametrize("others", [True, False])
def test_a_folder_of_another_group_is_warned_of(
    tmp_path: Path, others: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    folder.chmod(0o770)
    group = folder.stat().st_gid + others
    monkeypatch.setattr(server_module.os, "getegid", lambda: group)
    Listener(folder / "s.sock").close()
    assert len(caplog.records) == others


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    listener = Listener(path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    listener.close()


@pytest.mark.parametrize("busy", [False, True])
def test_a_socket_that_somebody_listens_at_is_left_alone(tmp_path: Path, busy: bool) -> None:
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as other, socket.socket(socket.AF_UNIX) as waiting:
        other.bind(str(path))
        other.listen(0)
        if busy:
            waiting.connect(str(path))
        with pytest.raises(
            OrchestratordError, match="another daemon listens there; stop it, or set"
        ):
            Listener(path)
        assert path.exists()


def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    path.write_text("precious")
    with pytest.raises(OrchestratordError, match=r"^control_socket: .* not a socket .*; remove it"):
        Listener(path)
    assert path.read_text() == "precious"
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere.sock")
    with pytest.raises(OrchestratordError):
        Listener(tmp_path / "link")


def test_a_path_that_is_too_long_is_named(tmp_path: Path) -> None:
    with pytest.raises(OrchestratordError, match="too long"):
        Listener(tmp_path / ("x" * 120))


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OrchestratordError, match=f"let this user write to {tmp_path}/file, or set"):
        Listener(tmp_path / "file" / "s.sock")


def test_closing_leaves_anothers_socket_alone(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    first = Listener(path)
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        first.close()
        assert path.exists()
    path.unlink()


# -- HTTP ------------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
async def test_curl(parts: Parts) -> None:
    async def curl(*arguments: str) -> dict[str, Any]:
        process = await asyncio.create_subprocess_exec(
            "curl", "-sS", "--max-time", "10", "--unix-socket", str(parts.path), *arguments,
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        output, _ = await process.communicate()
        result: dict[str, Any] = json.loads(output)
        return result

    made = await curl("-d", '{"params": {"id": "c"}}', "http://d/v1/endpoints/demo/get/calls")
    assert (await curl(f"http://d/v1/retries/{made['id']}?wait=5"))["status"] == "succeeded"
    assert (await curl("-X", "POST", "http://d/v1/reload"))["changed"] is True
    assert (await curl("--http2", "http://d/healthz")) == {"status": "ok"}


async def test_connections_are_kept_and_requests_can_queue(parts: Parts) -> None:
    wire = await Wire.to(parts)
    for _ in range(2):
        await wire.send(GET)
        assert (await wire.answer())[0] == 200
    task_id = (await parts.later(1))[0]
    slow = f"GET /v1/retries/{task_id}?wait=0.2 HTTP/1.1\r\nHost: d\r\n\r\n".encode()
    await wire.send(slow + GET + GET)
    assert (await wire.answer())[2]["id"] == task_id
    assert (await wire.answer())[2] == {"status": "ok"}
    assert (await wire.answer())[2] == {"status": "ok"}
    await wire.close()


async def test_a_head_and_its_body_come_together(parts: Parts) -> None:
    wire = await Wire.to(parts)
    await wire.send(GET)
    await wire._more()  # what one write has sent
    assert wire._read.endswith(b'\r\n\r\n{"status":"ok"}')
    await wire.close()


async def test_a_turn_of_the_loop_accepts_many(parts: Parts) -> None:
    listener = TcpListener("127.0.0.1:0")
    server = Server(application(parts.service, parts.host), listener)
    server.start()
    await asyncio.sleep(0)
    waiting = [await Wire.over_tcp(listener) for _ in range(server_module.AT_ONCE)]
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(server._connections()) == server_module.AT_ONCE
    for wire in waiting:
        await wire.close()
    await server.stop()


@pytest.mark.parametrize(
    "request_",
    [
        b"hello\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
        b"GET /caf\xc3\xa9 HTTP/1.1\r\nHost: d\r\n\r\n",
        b"CONNECT d:80 HTTP/1.1\r\nHost: d\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: d\r\nContent-Length: x\r\n\r\n",
        POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
async def test_what_is_not_http_is_refused(parts: Parts, request_: bytes) -> None:
    wire = await Wire.to(parts)
    await wire.send(request_)
    status, headers, problem = await wire.answer()
    assert (status, headers["content-type"]) == (400, "application/problem+json")
    assert problem["code"] == "bad_request"
    assert await wire.is_closed()
    await wire.close()


async def test_a_head_may_be_so_large_and_no_larger(parts: Parts) -> None:
    wire = await Wire.to(parts)
    await wire.send(b"GET /healthz HTTP/1.1\r\nX: " + b"a" * 60_000 + b"\r\n\r\n")
    assert (await wire.answer())[0] == 200
    await wire.send(b"GET /healthz HTTP/1.1\r\nX: " + b"a" * 70_000 + b"\r\n\r\n" + GET)
    status, _, problem = await wire.answer()
    assert (status, problem["code"]) == (431, "head_too_large")
    assert await wire.is_closed()
    await wire.close()


@pytest.mark.parametrize(
    "piece", [b"X-Header-%d: value\r\n", b"a" * 997], ids=["many headers", "one long header"]
)
async def test_a_head_that_never_ends_is_cut_off(parts: Parts, piece: bytes) -> None:
    wire = await Wire.to(parts)
    await wire.send(b"GET /healthz HTTP/1.1\r\nX: ")
    assert await wire.keep_sending(piece, 0) * len(piece) < 1 << 19
    assert (await wire.answer())[0] == 431
    await wire.close()


@pytest.mark.parametrize("how", ["length", "chunked", "expect"])
async def test_a_body_may_be_so_large_and_no_larger(
    parts: Parts, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body_module, "MAX_BODY", 300_000)
    wire = await Wire.to(parts)
    fits = b'{"params": {"deep": "%s"}}' % (b"x" * 260_000) + b" " * 39_900
    await wire.send(POST + b"Content-Length: %d\r\n\r\n" % len(fits) + fits)
    assert (await wire.answer())[0] == 202
    large = b"x" * 400_000
    if how == "length":
        await wire.send(POST + b"Content-Length: 400000\r\n\r\n" + large)
    elif how == "chunked":
        chunk = b"%x\r\n%s\r\n" % (len(large), large)
        await wire.send(POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunk + b"0\r\n\r\n")
    else:
        await wire.send(POST + b"Content-Length: 400000\r\nExpect: 100-continue\r\n\r\n")
    status, _, problem = await wire.answer()
    assert (status, problem["code"]) == (413, "too_large")
    if how != "expect":
        await wire.send(GET)
        assert (await wire.answer())[0] == 200
    await wire.close()


async def test_a_body_that_never_ends_is_cut_off(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, impatient: None
) -> None:
    monkeypatch.setattr(body_module, "MAX_BODY", 100_000)
    monkeypatch.setattr(body_module, "_READ_ON", 400_000)
    wire = await Wire.to(parts)
    await wire.send(POST + b"Transfer-Encoding: chunked\r\n\r\n")
    # In large pieces: what is too long is to be known long before it has taken too long.
    await wire.keep_sending(b"c350\r\n" + b"x" * 50_000 + b"\r\n", 0.005)
    assert (await wire.answer())[0] == 413
    await wire.close()


# -- patience --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("impatient")
class TestPatience:
    async def test_who_says_nothing_is_hung_up_on(self, parts: Parts) -> None:
        wire = await Wire.to(parts)
        assert await wire.is_closed()
        await wire.close()

    async def test_who_does_not_finish_a_head(self, parts: Parts) -> None:
        wire = await Wire.to(parts)
        await wire.send(b"GET /healthz HT")
        status, headers, problem = await wire.answer()
        assert (status, problem["code"]) == (408, "timeout")
        assert headers["connection"] == "close"
        assert await wire.is_closed()
        await wire.close()

    async def test_who_drips_a_head(self, parts: Parts) -> None:
        wire = await Wire.to(parts)
        await wire.send(b"GET /healthz HTTP/1.1\r\nX: ")
        await wire.keep_sending(b"a", 0.01, 200)
        assert (await wire.answer())[0] == 408
        await wire.close()

    async def test_who_falls_silent_in_a_body(self, parts: Parts) -> None:
        wire = await Wire.to(parts)
        await wire.send(POST + b"Content-Length: 10\r\n\r\n{")
        assert (await wire.answer())[0] == 408
        assert await wire.is_closed()
        await until(lambda: not parts.server._state.tasks)
        await wire.close()

    async def test_who_drips_a_body(self, parts: Parts) -> None:
        wire = await Wire.to(parts)
        await wire.send(POST + b"Content-Length: 10000\r\n\r\n")
        began = asyncio.get_running_loop().time()
        await wire.keep_sending(b" ", 0.05, 100)
        assert asyncio.get_running_loop().time() - began > 1
        await until(lambda: not parts.server._state.tasks)
        await wire.close()

    async def test_who_is_slow_but_not_too_slow_is_served(self, parts: Parts) -> None:
        wire = await Wire.to(parts)
        await wire.send(POST + b"Content-Length: 4\r\n\r\n")
        for piece in (b"{", b" ", b" ", b"}"):
            await asyncio.sleep(0.15)
            await wire.send(piece)
        assert (await wire.answer())[0] == 202
        await wire.close()

    async def test_who_waits_for_an_answer_is_left_alone(self, parts: Parts) -> None:
        [task_id] = await parts.later(1)
        wire = await Wire.to(parts)
        await wire.send(f"GET /v1/retries/{task_id}?wait=1 HTTP/1.1\r\nHost: d\r\n\r\n".encode())
        # The next request is begun meanwhile; its time runs from the answer on.
        await wire.send(b"GET /heal")
        assert (await wire.answer())[0] == 200
        assert (await wire.answer())[0] == 408
        await wire.close()

    async def test_who_does_not_read_is_hung_up_on(self, parts: Parts) -> None:
        await parts.post(
            "/v1/endpoints/demo/get/calls",
            {"batch": [{"deep": "x" * 10_000}] * 500, "delay": "1h"},
        )
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(parts.path))
            sock.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(sock, GET.replace(b"/healthz", b"/v1/retries?limit=1000"))
            await until(lambda: any(c._unread_since for c in parts.server._connections()))
            await until(lambda: len(parts.server._connections()) <= 1)

    async def test_idle_connections_do_not_stay(self, parts: Parts) -> None:
        wire = await Wire.to(parts)
        await wire.send(GET)
        await wire.answer()
        assert await wire.is_closed()
        await wire.close()


# -- many, and the end -----------------------------------------------------------------------------


async def test_a_silent_connection_gives_its_place_to_a_new_one(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = 40
    monkeypatch.setattr(parts.server, "_places", places)
    await parts.client.aclose()
    await until(lambda: not parts.server._connections())
    wires = [await Wire.to(parts) for _ in range(places)]
    await until(lambda: len(parts.server._connections()) == places)
    await wires[0].send(GET)
    assert (await wires[0].answer())[0] == 200
    late = await Wire.to(parts)
    await late.send(GET)
    assert (await late.answer())[0] == 200
    assert await wires[1].is_closed()  # it was silent for longest
    assert len(parts.server._connections()) == places
    for wire in (wires[0], wires[2], late):
        await wire.send(GET)
        assert (await wire.answer())[0] == 200
    for wire in (*wires, late):
        await wire.close()


async def test_where_all_places_are_at_work_probes_have_some_of_their_own(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "SHARE", 2.0)
    monkeypatch.setattr(connection_module, "SILENCE", 60.0)
    monkeypatch.setattr(connection_module, "HEAD_WITHIN", 60.0)
    places = server_module.MAX_CONNECTIONS
    listener = TcpListener("127.0.0.1:0")
    server = Server(application(parts.service, parts.host), listener)
    server.start()
    busy = [await Wire.over_tcp(listener) for _ in range(places)]
    for wire in busy:
        await wire.send(POST + b"Content-Length: 2\r\n\r\n{")
    await until(lambda: len(server._state.tasks) == places)
    for connection in server._connections():  # they have shown a token
        connection.seat.known = True
    silent = [await Wire.over_tcp(listener) for _ in range(server_module.FOR_PROBES)]
    for wire in silent[1:]:
        await wire.send(GET[:9])  # a head that does not end
    probe, other = await Wire.over_tcp(listener), await Wire.over_tcp(listener)
    await probe.send(GET)
    assert (await probe.answer())[0] == 200
    await other.send(GET.replace(b"/healthz", b"/v1/status"))
    status, headers, problem = await other.answer()
    assert (status, problem["code"], headers["retry-after"]) == (503, "busy", "1")
    for wire in busy:
        await wire.send(b"}")
        assert (await wire.answer())[0] == 202
    for wire in (*busy, *silent, probe, other):
        await wire.close()
    await server.stop()


class Crowd:
    """A port with ten places, and connections to it from several addresses of this machine."""

    def __init__(self, parts: Parts, *proxies: str) -> None:
        self._listener = TcpListener("0.0.0.0:0")
        named = Port(bind="127.0.0.1:1", proxies=proxies).proxies
        self.server = Server(application(parts.service, parts.host), self._listener, lambda: named)
        self.server.start()

    async def connect(self, address: str, sent: bytes = b"") -> Wire:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.bind((address, 0))
        there = ("127.0.0.1", self._listener.port)
        await asyncio.get_running_loop().sock_connect(sock, there)
        wire = Wire(sock)
        await wire.send(sent)
        return wire

    async def taken(self, number: int) -> None:
        await until(lambda: len(self.server._connections()) == number)


@pytest.fixture
def ten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "MAX_CONNECTIONS", 10)
    monkeypatch.setattr(connection_module, "SPARED", 60.0)
    monkeypatch.setattr(server_module, "SPARED", 60.0)


@pytest.mark.usefixtures("ten")
@pytest.mark.parametrize(
    ("half", "more"),
    [(b"P", b"OST /" + b"x" * 4_000), (POST + b"Content-Length: 9000\r\n\r\n", b" " * 4_000)],
    ids=["head", "body"],
)
async def test_a_peer_with_more_than_its_share_gives_its_slowest_to_others(
    parts: Parts, half: bytes, more: bytes
) -> None:
    crowd = Crowd(parts)
    many = [await crowd.connect("127.0.0.2", half) for _ in range(8)]
    await crowd.taken(8)
    await many[0].send(more)  # it is not the slowest
    other = [await crowd.connect("127.0.0.3", half)]
    await crowd.taken(9)
    for _ in range(20):
        asking = await crowd.connect("127.0.0.2", GET)
        assert (await asking.answer())[0] == 200
        await asking.close()
    asking = await crowd.connect("127.0.0.4", GET)
    assert (await asking.answer())[0] == 200
    assert not await other[0].is_closed(0.1)
    assert not await many[0].is_closed(0.1)
    status, _, problem = await many[1].answer()
    assert (status, problem["code"]) == (503, "busy")
    for wire in (*many, *other, asking):
        await wire.close()
    await crowd.server.stop()


@pytest.mark.usefixtures("ten")
async def test_a_proxy_has_no_share(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    crowd = Crowd(parts, "127.0.0.2", "10.0.0.0/8")
    many = [await crowd.connect("127.0.0.2", b"P") for _ in range(10)]
    await crowd.taken(10)
    asking = [await crowd.connect(f"127.0.0.{number}", GET) for number in (2, 3)]
    await asyncio.sleep(0.2)
    assert not [wire for wire in many if await wire.is_closed(0.02)]
    monkeypatch.setattr(server_module, "SPARED", 0.1)  # they had time to say what they ask for
    for wire in asking:
        assert (await wire.answer())[0] == 200
    for wire in (*many, *asking):
        await wire.close()
    await crowd.server.stop()


async def test_at_the_control_socket_a_request_waits_for_a_place(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts.server, "_places", 4)
    monkeypatch.setattr(connection_module, "SPARED", 0.2)
    await parts.client.aclose()
    await until(lambda: not parts.server._connections())
    body = [await Wire.to(parts) for _ in range(2)]
    head = [await Wire.to(parts) for _ in range(2)]
    for wire in body:
        await wire.send(POST + b"Content-Length: 2\r\n\r\n{")
    for wire in head:
        await wire.send(GET[:9])
    late = [await Wire.to(parts) for _ in range(8)]
    for wire in late:
        await wire.send(GET)
    await asyncio.sleep(0.6)
    assert len(parts.server._connections()) == 4
    for wire in head:
        await wire.send(GET[9:])
    for wire in (*head, *late):
        assert (await wire.answer())[0] == 200
    for wire in body:
        await wire.send(b"}")
        assert (await wire.answer())[0] == 202
    for wire in (*body, *head, *late):
        await wire.close()


async def test_who_waits_takes_no_place(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts.server, "_places", 4)
    monkeypatch.setattr(service_module, "MAX_WAITING", 6)
    parts.receiver.gate.clear()
    task_id = await parts.made()
    waiting = f"GET /v1/retries/{task_id}?wait=30 HTTP/1.1\r\nHost: d\r\n\r\n".encode()
    waits: list[Wire] = []
    while len(waits) < 6:
        waits.append(await Wire.to(parts))
        await waits[-1].send(waiting)
        await until(lambda: parts.service._waiting == len(waits))
    late = await Wire.to(parts)
    await late.send(waiting)
    status, _, task = await late.answer()  # as it is, at once
    assert (status, task["status"]) == (200, "running")
    parts.receiver.gate.set()
    for wire in waits:
        assert (await wire.answer())[2]["status"] == "succeeded"
    for wire in (*waits, late):
        await wire.close()


async def test_large_bodies_are_bounded_together(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(received_body, "MAX_TOGETHER", 300_000)
    head = POST + b"Content-Length: 300000\r\n\r\n{"
    first, second, small = [await Wire.to(parts) for _ in range(3)]
    await first.send(head + b" " * 250_000)
    await until(lambda: body_module.ROOM.taken > 150_000)
    await second.send(head + b" " * 250_000)
    status, headers, problem = await second.answer()
    assert (status, problem["code"], headers["retry-after"]) == (503, "busy", "1")
    await small.send(POST + b"Content-Length: 2\r\n\r\n{}")
    assert (await small.answer())[0] == 202
    await first.send(b" " * 49_998 + b"}")
    assert (await first.answer())[0] == 202
    await until(lambda: body_module.ROOM.taken == 0)
    for wire in (first, second, small):
        await wire.close()


async def test_stopping_lets_requests_end(parts: Parts) -> None:
    parts.receiver.gate.clear()
    task_id = await parts.made()
    await until(lambda: parts.receiver.targets)
    idle, busy, waits = [await Wire.to(parts) for _ in range(3)]
    await idle.send(GET)
    await idle.answer()
    await busy.send(POST + b"Content-Length: 2\r\n\r\n{")
    await waits.send(f"GET /v1/retries/{task_id}?wait=30 HTTP/1.1\r\nHost: d\r\n\r\n".encode())
    await until(lambda: len(parts.server._state.tasks) == 2)
    parts.service.close()
    stopping = asyncio.create_task(parts.server.stop())
    status, _, task = await waits.answer()
    assert (status, task["status"]) == (200, "running")
    assert await waits.is_closed()
    assert await idle.is_closed()
    assert not parts.path.exists()
    await busy.send(b"}")
    assert (await busy.answer())[0] == 202
    await asyncio.wait_for(stopping, 60)
    assert not parts.server._connections()
    for wire in (idle, busy, waits):
        await wire.close()


async def test_stopping_does_not_wait_for_ever(parts: Parts) -> None:
    wire = await Wire.to(parts)
    await wire.send(POST + b"Content-Length: 2\r\n\r\n{")
    await until(lambda: parts.server._state.tasks)
    await asyncio.wait_for(parts.server.stop(grace=0.1), 60)
    status, _, problem = await wire.answer()
    assert (status, problem["code"]) == (503, "stopping")
    assert await wire.is_closed()
    await wire.close()


async def test_stopping_twice_is_stopping_once(parts: Parts) -> None:
    await parts.server.stop()
    await parts.server.stop()


async def test_accepting_goes_on_after_an_error(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server_module, "_ACCEPT_AGAIN", 0.01)
    accept, errors = socket.socket.accept, [OSError(24, "Too many open files")]

    def fails_once(sock: socket.socket) -> Any:
        if errors and sock.family == socket.AF_UNIX:
            raise errors.pop()
        return accept(sock)

    monkeypatch.setattr(socket.socket, "accept", fails_once)
    for _ in range(3):
        wire = await Wire.to(parts)
        await wire.send(GET)
        assert (await wire.answer())[0] == 200
        await wire.close()
    assert not errors
    assert [r for r in caplog.records if "Too many open files" in r.getMessage()]
