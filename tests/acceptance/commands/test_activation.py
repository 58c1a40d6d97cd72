"""A daemon whose sockets the service manager keeps: callers wait while it restarts."""

from __future__ import annotations

import hmac
import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.acceptance.commands.activation import passing, tcp_socket, unix_socket
from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon
from tests.acceptance.receiver import Receiver
from tests.acceptance.waiting import until

pytestmark = pytest.mark.slow

TOKEN = "token-of-sixteen-signs"
PATH = "/v1/endpoints/shop/order/calls"


class Caller(threading.Thread):
    """Makes one call after the other, over a connection that it keeps."""

    def __init__(self, client: httpx.Client, path: str = PATH) -> None:
        super().__init__()
        self.client, self.path = client, path
        self.made: list[int] = []
        self.refused: list[str] = []
        self.ended = threading.Event()
        self.start()

    def run(self) -> None:
        with self.client:
            while not self.ended.is_set():
                try:
                    answer = self.client.post(self.path, json={})
                except httpx.HTTPError as error:
                    self.refused.append(repr(error))
                else:
                    if answer.is_success:
                        self.made.append(answer.json()["id"])
                    else:
                        self.refused.append(answer.text)
                self.ended.wait(0.01)


def declared(
    make_daemon: MakeDaemon, receiver: Receiver, workers: int, port: int, way_in: int
) -> Daemon:
    http = {"bind": f"127.0.0.1:{port}", "token": TOKEN}
    daemon = make_daemon(workers=workers, http=http, inbound={"bind": f"127.0.0.1:{way_in}"})
    inbound = {"path": "/in/hub", "verify": "github", "secret": TOKEN}
    daemon.write("apis/shop/endpoints/pushed.yaml", {"type": "event", "inbound": inbound})
    receiver.on("/order", 200)
    daemon.api("shop", receiver.url, concurrency=50)
    daemon.endpoint("shop/order", "/order", method="POST")
    return daemon


def sender(port: int) -> httpx.Client:
    """Whose requests are signed as GitHub does."""
    signature = hmac.new(TOKEN.encode(), b"{}", "sha256").hexdigest()
    headers = {"X-Hub-Signature-256": f"sha256={signature}"}
    url = f"http://127.0.0.1:{port}"
    return httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False)


@pytest.mark.parametrize("workers", [1, 2])
def test_callers_wait_while_the_daemon_restarts(
    make_daemon: MakeDaemon, receiver: Receiver, workers: int
) -> None:
    tcp, inbound = tcp_socket(), tcp_socket()
    port: int = tcp.getsockname()[1]
    way_in: int = inbound.getsockname()[1]
    daemon = declared(make_daemon, receiver, workers, port, way_in)
    control = unix_socket(daemon.socket)
    daemon.socket.chmod(0o620)
    made_by_manager = daemon.socket.stat()
    with passing(daemon, [inbound, tcp, control]):
        daemon.start()
        transport = httpx.HTTPTransport(uds=str(daemon.socket))
        headers = {"Authorization": f"Bearer {TOKEN}"}
        url = f"http://127.0.0.1:{port}"
        callers = [
            Caller(httpx.Client(transport=transport, base_url="http://daemon", timeout=60)),
            Caller(httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False)),
            Caller(sender(way_in), "/in/hub"),
        ]
        try:
            for _ in range(2):
                counts = [len(caller.made) for caller in callers]
                until(
                    lambda counts=counts: all(
                        len(caller.made) > count + 20
                        for caller, count in zip(callers, counts, strict=True)
                    ),
                    "calls over all sockets",
                )
                assert daemon.stop() == 0, daemon.log()
                found = daemon.socket.stat()
                assert (found.st_ino, stat.S_IMODE(found.st_mode)) == (
                    made_by_manager.st_ino, 0o620,
                )  # fmt: skip
                daemon.start()
            # What goes on as another version keeps what was passed to this one.
            before = daemon.get("/v1/status").json()["started_at"]
            assert daemon.ctl("upgrade").code == 0
            until(
                lambda: daemon.get("/v1/status").json()["started_at"] != before, "another version"
            )
        finally:
            for caller in callers:
                caller.ended.set()
            for caller in callers:
                caller.join()
        assert [caller.refused for caller in callers] == [[], [], []]
        daemon.settle()
        made = [task_id for caller in callers for task_id in caller.made]
        assert {task["id"] for task in daemon.tasks(status="succeeded")} == set(made)
        assert receiver.count("/order") == sum(len(caller.made) for caller in callers[:2])
        assert daemon.stop() == 0
        assert daemon.socket.stat().st_ino == made_by_manager.st_ino


def _elsewhere(home: Path) -> list[socket.socket]:
    return [unix_socket(home / "another.sock")]


def _two(home: Path) -> list[socket.socket]:
    return [unix_socket(home / "control.sock"), unix_socket(home / "another.sock")]


def _datagrams(home: Path) -> list[socket.socket]:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(str(home / "control.sock"))
    return [sock]


@pytest.mark.parametrize(
    ("sockets", "why"),
    [
        (
            _elsewhere,
            r"control_socket: the service manager listens at .*/another\.sock, and",
        ),
        (
            _two,
            r"passes a second unix socket \(orchestratord\.socket\), and the daemon",
        ),
        (_datagrams, r"is none that listens for connections: write it as ListenStream="),
        (
            lambda _: [tcp_socket()],
            r"http\.bind: the socket unit listens for TCP, .* no `http`",
        ),
    ],
)
def test_sockets_that_do_not_fit(
    make_daemon: MakeDaemon, sockets: Callable[[Path], list[socket.socket]], why: str
) -> None:
    daemon = make_daemon()
    daemon.expect(why)
    with passing(daemon, sockets(daemon.home)):
        assert daemon.launch().wait(30) == 1
    daemon.logged(why)
