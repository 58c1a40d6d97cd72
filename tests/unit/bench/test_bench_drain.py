"""The clock of the benchmark, against a real nginx and a real daemon; where nginx is installed."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from bench.environment.daemon import daemon, verify
from bench.environment.servers import Missing, Nginx, find
from bench.measures import calls, deliveries, slow_receiver
from bench.measures.drain import drain

pytestmark = pytest.mark.slow

needs_nginx = pytest.mark.skipif(
    shutil.which("nginx", path="/usr/sbin:/usr/bin") is None, reason="nginx is not installed"
)


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A socket's path has to be short."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        yield Path(name)


@pytest.fixture
def nginx(short_folder: Path) -> Iterator[Nginx]:
    with Nginx(short_folder / "nginx") as running:
        yield running


@needs_nginx
def test_nginx_counts_all_requests_but_its_own(nginx: Nginx) -> None:
    assert nginx.count() == 0
    for number in range(3):
        assert httpx.post(nginx.url(number), content=b"x" * 1024).status_code == 200
    httpx.post(nginx.logged_url, headers={"x-job": "7"})
    assert [nginx.count(), nginx.count()] == [4, 4]
    assert [job for _, job in nginx.arrivals()] == ["7"]


@needs_nginx
def test_deliveries_and_calls_are_all_sent_and_all_done(nginx: Nginx, short_folder: Path) -> None:
    delivered = deliveries.measure(short_folder / "deliveries", nginx, 120)
    assert nginx.count() == 120
    called = calls.measure(short_folder / "calls", nginx, 60)
    assert nginx.count() == 240
    followed = calls.measure(short_folder / "followed", nginx, 20, followed=True)
    assert nginx.count() == 300
    for drained in (delivered, called, followed):
        assert drained.rate > 0
        assert drained.peak > 10


@needs_nginx
def test_a_worker_that_ends_early_is_noticed(nginx: Nginx) -> None:
    worker = subprocess.Popen(["/bin/true"])
    with pytest.raises(RuntimeError, match="came to a halt after 0 of 5 requests"):
        drain(nginx, 5, lambda: 5, [worker.pid])
    worker.wait()


def test_tasks_that_did_not_succeed_are_noticed(short_folder: Path) -> None:
    with daemon(short_folder / "d") as made:
        made.api("bench", "http://127.0.0.1:1/")
        made.endpoint("bench/post", "/", enabled=True)
        made.start()
        made.post("/v1/endpoints/bench/post/pause")
        made.call("bench/post")
        made.stop()
        with pytest.raises(RuntimeError, match='"pending"'):
            verify(made, 1)


def test_the_slow_receiver_knows_how_many_it_had_at_once() -> None:
    with subprocess.Popen(
        [sys.executable, slow_receiver.__file__, "1"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as receiver:  # fmt: skip
        assert receiver.stdout is not None
        address = ("127.0.0.1", int(receiver.stdout.readline()))
        with socket.create_connection(address) as one, socket.create_connection(address) as two:
            for connection in (one, two):
                connection.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
            for connection in (one, two):
                assert connection.recv(4096) == slow_receiver.ANSWER
        out, _ = receiver.communicate()
    assert out == "2\n"


def test_a_program_that_is_missing_is_named_with_its_package() -> None:
    with pytest.raises(Missing, match="nosuchprogram is not installed: apt-get install nosuch"):
        find("nosuchprogram", "nosuch")
