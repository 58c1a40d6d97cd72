"""Single calls over many connections, as the benchmark makes them."""

from __future__ import annotations

import socketserver
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from bench.measures import closed_loop, front_door

pytestmark = pytest.mark.slow

REQUEST = b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}"
ANSWER = b"HTTP/1.1 202 Accepted\r\nContent-Length: 9\r\n\r\n"


class Server(socketserver.ThreadingTCPServer):
    """Answers in two pieces, with `answer` first; hangs up on the first `hung_up` requests."""

    daemon_threads = True
    hung_up = 0
    answer = ANSWER
    requests = 0

    def __init__(self) -> None:
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(socketserver.BaseRequestHandler):
    server: Server

    def handle(self) -> None:
        with suppress(ConnectionResetError):
            while self.request.recv(4096) == REQUEST:
                with self.server.lock:
                    self.server.requests += 1
                    if self.server.requests <= self.server.hung_up:
                        return
                self.request.sendall(self.server.answer)
                self.request.sendall(b'{"id": 1}')


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def test_each_connection_sends_the_next_request_once_it_is_answered(server: Server) -> None:
    sent = closed_loop.send(server.server_address, REQUEST, count=50, connections=4)
    assert (len(sent.took), len(sent.bodies), server.requests) == (50, 50, 50)
    assert set(sent.bodies) == {b'{"id": 1}'}
    assert 0 < sum(sent.took) <= 4 * sent.seconds
    assert sent.again == 0


def test_what_is_hung_up_on_is_sent_again(server: Server) -> None:
    server.hung_up = 3
    sent = closed_loop.send(server.server_address, REQUEST, count=20, connections=4)
    assert (len(sent.bodies), sent.again, server.requests) == (20, 3, 23)


def test_a_refusal_ends_it(server: Server) -> None:
    server.answer = ANSWER.replace(b"202 Accepted", b"422 Unprocessable")
    with pytest.raises(RuntimeError, match="422"):
        closed_loop.send(server.server_address, REQUEST, count=20, connections=4)


def test_calls_at_both_ports_are_answered_and_stored() -> None:
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        found = {figure.what: figure for figure in front_door.measure(Path(name), 300)}
    for port in (front_door.CONTROL, front_door.TCP):
        for connections in front_door.CONNECTIONS:
            what = f"single calls, {connections} connections to {port}"
            assert found[what].value > 0
            assert found[f"{what}: p50"].value <= found[f"{what}: p99"].value
