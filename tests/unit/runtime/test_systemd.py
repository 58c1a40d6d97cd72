"""The service manager is told, and a lost message harms nobody."""

from __future__ import annotations

import logging
import os
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestratord.runtime.systemd import SystemdNotifier


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """The address of a service manager's socket, and the socket."""
    if request.param == "path":
        address = bound = str(tmp_path / "notify")
    else:
        name = f"orchestratord-{uuid.uuid4()}"
        address, bound = f"@{name}", f"\0{name}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(bound)
        sock.settimeout(5)
        yield address, sock


def test_each_message(manager: tuple[str, socket.socket]) -> None:
    address, sock = manager
    notifier = SystemdNotifier.from_environ({"NOTIFY_SOCKET": address})
    assert notifier.listening

    notifier.ready("12 endpoints")
    assert sock.recv(4096) == b"READY=1\nSTATUS=12 endpoints"
    notifier.status("3 running")
    assert sock.recv(4096) == b"STATUS=3 running"
    notifier.watchdog()
    assert sock.recv(4096) == b"WATCHDOG=1"
    notifier.draining(upgrades=False)
    assert sock.recv(4096) == b"STOPPING=1\nSTATUS=draining"


def test_reloading_carries_the_monotonic_clock(manager: tuple[str, socket.socket]) -> None:
    address, sock = manager
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    SystemdNotifier(address).reloading("reading the configuration")
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    first, second, third = sock.recv(4096).decode().split("\n")
    assert first == "RELOADING=1"
    name, _, value = second.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before <= int(value) <= after
    assert third == "STATUS=reading the configuration"


def test_a_status_is_one_field(manager: tuple[str, socket.socket]) -> None:
    address, sock = manager
    SystemdNotifier(address).status("one\nREADY=1\r\ntwo")
    assert sock.recv(4096) == b"STATUS=one READY=1 two"


def test_an_empty_status_is_not_sent(manager: tuple[str, socket.socket]) -> None:
    address, sock = manager
    notifier = SystemdNotifier(address)
    notifier.status("  ")
    notifier.watchdog()
    assert sock.recv(4096) == b"WATCHDOG=1"


@pytest.mark.parametrize("value", ["", "relative", "vsock:2:1234"])
def test_without_a_usable_socket_nothing_is_sent(value: str) -> None:
    notifier = SystemdNotifier.from_environ({"NOTIFY_SOCKET": value, "WATCHDOG_USEC": "30000000"})
    assert not notifier.listening
    assert notifier.watchdog_timeout is None
    notifier.ready("up")
    notifier.watchdog()


def test_a_dead_socket_is_logged_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "orchestratord.notify"):
        SystemdNotifier(str(tmp_path / "gone")).ready()
    assert "READY=1" in caplog.text


def test_a_full_socket_does_not_hold_the_watchdog(
    manager: tuple[str, socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    address, sock = manager
    notifier = SystemdNotifier(address)
    sock.setblocking(False)
    with caplog.at_level(logging.WARNING, "orchestratord.notify"):
        for _ in range(5000):
            notifier.watchdog()
            if caplog.records:
                break
    assert "WATCHDOG=1" in caplog.text
    sock.recv(4096)


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdogs_time(environ: dict[str, str], seconds: float | None) -> None:
    notifier = SystemdNotifier.from_environ({"NOTIFY_SOCKET": "/run/x", **environ})
    assert notifier.watchdog_timeout == seconds
