"""A log that nobody reads, a closed stderr, a signal that comes early: none stops the daemon."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon
from tests.acceptance.receiver import Receiver
from tests.acceptance.waiting import until

pytestmark = pytest.mark.slow

IN_TIME = 5.0
"""Seconds for an answer; where the log stood still, there was none."""
CALLS = 1_500
"""Their lines fill a pipe several times over."""


@contextmanager
def unread(daemon: Daemon) -> Iterator[int]:
    """Have the daemon's stderr be a pipe; its other end, which is not read."""
    reader, writer = os.pipe()
    try:
        daemon.passed = [writer]
        daemon.wrapper = ["/bin/bash", "-c", f'exec "$@" 2>&{writer}', "sh"]
        yield reader
    finally:
        os.close(writer)
        os.close(reader)


def shop(daemon: Daemon, receiver: Receiver) -> Daemon:
    """The daemon, with an endpoint that is answered at once."""
    receiver.on("/get", 200)
    daemon.api("shop", receiver.url, concurrency=50)
    daemon.endpoint("shop/get", "/get")
    return daemon


def read_all(reader: int) -> str:
    os.set_blocking(reader, False)
    text = b""
    while True:
        try:
            found = os.read(reader, 1 << 20)
        except BlockingIOError:
            return text.decode()
        if not found:
            return text.decode()
        text += found


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stderr_that_nobody_reads_holds_up_nothing(
    make_daemon: MakeDaemon, receiver: Receiver, workers: int
) -> None:
    daemon = shop(make_daemon(workers=workers), receiver)
    with unread(daemon) as reader:
        daemon.start()
        for _ in range(3):
            ids = daemon.batch("shop/get", [{}] * (CALLS // 3))
            assert daemon.finish(ids[-1])["status"] == "succeeded"
        began = time.monotonic()
        assert daemon.get("/readyz").status_code == 200
        assert daemon.finish(daemon.call("shop/get"))["status"] == "succeeded"
        assert time.monotonic() - began < IN_TIME
        assert daemon.stop() == 0
        # A pipe that is full cuts its last line.
        *lines, _ = read_all(reader).split("\n")
        assert all(re.match(r"\S+Z (INFO|WARNING) ", line) for line in lines), lines[-3:]


def test_lines_that_are_lost_are_counted_and_told(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    daemon = shop(make_daemon(), receiver)
    # As `LogHandler` is given less room than it has: filling megabytes takes long.
    (daemon.home / "sitecustomize.py").write_text(
        "import sys\nsys.modules.pop('sitecustomize')\n"
        "from orchestratord import log\nlog.MOST_QUEUED = 20_000\n"
    )
    daemon.environ["PYTHONPATH"] = str(daemon.home)
    with unread(daemon) as reader:
        daemon.start()
        ids = daemon.batch("shop/get", [{}] * CALLS)
        assert daemon.finish(ids[-1])["status"] == "succeeded"
        text = read_all(reader)
        lost = r"WARNING orchestratord: (\d+) lines of the log are lost"

        def told() -> list[str]:
            nonlocal text
            text += read_all(reader)
            return re.findall(lost, text)

        until(told, "the line that tells of them")
        assert daemon.stop() == 0
        told()
        written = len(re.findall("attempt 1 200, succeeded", text))
        assert written + sum(map(int, told())) == CALLS
        assert len(told()) < CALLS / 100
        assert "INFO orchestratord: stopped" in text


def test_a_pipe_that_is_not_blocking_loses_no_line(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    daemon = shop(make_daemon(), receiver)
    with unread(daemon) as reader:
        os.set_blocking(daemon.passed[0], False)
        daemon.start()
        ids = daemon.batch("shop/get", [{}] * CALLS)
        assert daemon.finish(ids[-1])["status"] == "succeeded"
        text = ""

        def written() -> int:
            nonlocal text
            text += read_all(reader)
            return text.count("attempt 1 200, succeeded\n")

        until(lambda: written() == CALLS, "all lines")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_start_without_its_database_says_so(make_daemon: MakeDaemon, workers: int) -> None:
    daemon = make_daemon(workers=workers, database="postgresql://somebody@127.0.0.1:1/none")
    daemon.expect(".")
    daemon.launch()
    assert daemon.wait() == 1
    daemon.logged("CRITICAL")
    daemon.logged("127.0.0.1")


@pytest.mark.parametrize("closed", ["2>&-", "0<&- 1>&- 2>&-"])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_closed_stderr_is_no_reason_not_to_start(
    make_daemon: MakeDaemon, receiver: Receiver, workers: int, closed: str
) -> None:
    daemon = shop(make_daemon(workers=workers), receiver)
    daemon.wrapper = ["/bin/sh", "-c", f'exec "$@" {closed}', "sh"]
    daemon.start()
    assert daemon.finish(daemon.call("shop/get"))["status"] == "succeeded"
    # Nothing else has the number by which libraries and the interpreter itself write there.
    assert os.readlink(f"/proc/{daemon.pid}/fd/2") == os.devnull
    daemon.signal(signal.SIGHUP)
    assert daemon.stop() == 0


def holds_back(pid: int) -> bool:
    """Whether SIGHUP does not end the process."""
    status = Path(f"/proc/{pid}/status").read_text()
    masks = re.findall(r"^Sig(?:Blk|Ign|Cgt):\s+(\w+)$", status, re.MULTILINE)
    return any(int(mask, 16) >> (signal.SIGHUP - 1) & 1 for mask in masks)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_reload_that_is_asked_for_early_is_done_later(
    make_daemon: MakeDaemon, workers: int
) -> None:
    daemon = make_daemon(workers=workers)
    daemon.by_command = True
    process = daemon.launch()
    until(lambda: process.poll() is not None or holds_back(process.pid), "its first line")
    assert process.poll() is None
    daemon.signal(signal.SIGHUP)
    daemon.wait_ready()
    daemon.logged("INFO config: nothing has changed")
    assert daemon.log().count("nothing has changed") == 1


def test_sighup_is_held_back_before_anything_else_is_imported() -> None:
    script = (
        "import signal, sys; sys.argv = ['orchestratord', 'run']\n"
        "import orchestratord.cli\n"
        "assert signal.SIGHUP in signal.pthread_sigmask(signal.SIG_BLOCK, ())\n"
        "assert not {'click', 'orchestratord.model', 'orchestratord.log'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
