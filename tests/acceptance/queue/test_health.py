"""What a daemon says, and does, whose database is in trouble: on real disks, files and locks."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.commands.test_doctor import doctor
from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon, retry
from tests.acceptance.receiver import Receiver
from tests.acceptance.waiting import until
from tests.faulty_disk import FaultyDisk

LATER = "1h"
CALLS = "/v1/endpoints/crm/get/calls"
ENDS_WITHIN = 40.0


def declare(daemon: Daemon, receiver: Receiver, concurrency: int = 10) -> Daemon:
    receiver.on("/get", 200)
    daemon.api("crm", receiver.url, concurrency=concurrency)
    daemon.endpoint("crm/get", "/get", params={"x": {"type": "string", "required": False}},
                    retry=retry())  # fmt: skip
    return daemon


# httpcore leaves a socket to the collector where nobody listens any more.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]


@pytest.fixture
def daemon(make_daemon: MakeDaemon, receiver: Receiver) -> Daemon:
    return declare(make_daemon(), receiver)


def post(daemon: Daemon, x: str = "y", delay: str | None = None) -> httpx.Response:
    body: dict[str, Any] = {"params": {"x": x}}
    return daemon.post(CALLS, body if delay is None else {**body, "delay": delay})


def troubles(daemon: Daemon) -> list[str]:
    return [found["code"] for found in daemon.status()["health"]["troubles"]]


# -- What cannot be mended ends the daemon -----------------------------------------------------


def acknowledged_until_the_end(daemon: Daemon) -> int:
    """How many calls are still acknowledged before the daemon ends by itself."""
    count = 0
    began = time.monotonic()
    while time.monotonic() < began + ENDS_WITHIN:
        try:
            count += post(daemon, delay=LATER).status_code == 202
        except httpx.TransportError:
            break
    assert daemon.wait(ENDS_WITHIN) == 1
    print(f"it ended {time.monotonic() - began:.1f} s later")
    return count


def delete(path: Path) -> None:
    path.unlink()


def replace(path: Path) -> None:
    other = path.with_name("other")
    shutil.copy(path, other)
    other.replace(path)


@pytest.mark.parametrize(
    ("name", "harm"),
    [("orchestratord.db", delete), ("orchestratord.db", replace), ("orchestratord.db-wal", delete),
     ("orchestratord.db-shm", delete), ("orchestratord.db.lock", delete),
     ("orchestratord.db.lock", replace)],
)  # fmt: skip
def test_a_database_file_that_is_taken_away_ends_it(
    daemon: Daemon, name: str, harm: Callable[[Path], None]
) -> None:
    with daemon.start():
        for _ in range(20):
            daemon.call("crm/get", LATER)
        daemon.expect("while the daemon had it open")
        harm(daemon.home / name)
        assert acknowledged_until_the_end(daemon) == 0
        daemon.logged(r"CRITICAL watchdog: .* while the daemon had it open; the daemon ends")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_lock_that_is_taken_away_lets_no_second_daemon_in(
    make_daemon: MakeDaemon, receiver: Receiver, workers: int
) -> None:
    daemon = declare(make_daemon(workers=workers), receiver)
    daemon.expect("while the daemon had it open", "ended with code")
    with daemon.start():
        daemon.call("crm/get", LATER)
        old = daemon.process
        assert old is not None
        daemon.database.with_name(f"{daemon.database.name}.lock").unlink()
        daemon.process = None
        daemon.launch()
        assert old.wait(ENDS_WITHIN) == 1
        assert daemon.log().count(" ready: ") == 1  # and the other only now
        daemon.wait_ready()
        assert daemon.finish(daemon.call("crm/get"))["status"] == "succeeded"


def test_damaged_pages_end_it(daemon: Daemon) -> None:
    with daemon.start():
        for _ in range(4):
            daemon.batch("crm/get", [{"x": "y" * 500}] * 500)
        daemon.restart()  # all is in the main file now, and little of it in memory
        daemon.expect("the database is damaged", "cannot write task")
        with daemon.database.open("r+b") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(4096 * 4)
            file.write(os.urandom(size - 4096 * 4))
        with suppress(httpx.TransportError):
            for _ in range(20):
                daemon.get("/v1/retries", limit=1000)
        assert daemon.wait(ENDS_WITHIN) == 1
        daemon.logged(r"CRITICAL watchdog: the database is damaged; keep a copy, and restore a")
        # It does not come up as if nothing were wrong.
        assert daemon.launch().wait(30) in (1, -15)


def test_one_read_in_vain_is_no_damage(
    tmp_path: Path, make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    disk = FaultyDisk(tmp_path)
    daemon = make_daemon(database=f"sqlite:///{disk.folder}/queue.db")
    daemon.environ |= disk.environ
    with declare(daemon, receiver).start():
        for _ in range(10):
            body = {"batch": [{"x": "y" * 5_000}] * 500, "delay": LATER}
            assert daemon.post(CALLS, body).status_code == 202
        for restart in range(3):
            for turn in range(7):
                disk.bad_read.touch()
                assert len(daemon.get("/v1/retries", limit=1000).json()["retries"]) == 1000
                assert daemon.finish(daemon.call("crm/get"))["status"] == "succeeded"
                assert daemon.get("/readyz").status_code == 200, turn
            assert daemon.stop() == 0
            disk.bad_read.touch()
            if restart == 2:
                _, found = doctor(daemon)
                assert all(row["status"] == "ok" for row in found["database"])
            daemon.start()
            assert not disk.bad_read.exists()
        assert "backup" not in daemon.log()


KILLS_THE_WRITER = """
import ctypes
import threading
from orchestratord import hookimpl

@hookimpl
def before_request(request):
    for thread in threading.enumerate():
        if thread.name == "orchestratord-writer":
            number = ctypes.c_ulong(thread.ident)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(number, ctypes.py_object(MemoryError))
"""


def test_a_dead_writing_thread_ends_it(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    daemon = declare(make_daemon(plugins={"dirs": ["plugins"]}), receiver)
    daemon.plugin("killer", KILLS_THE_WRITER)
    with daemon.start():
        daemon.expect("the writing thread has died", "cannot write task", "Traceback")
        daemon.call("crm/get")
        assert daemon.wait(ENDS_WITHIN) == 1
        daemon.logged(r"CRITICAL watchdog: the writing thread has died: MemoryError; the daemon")


def test_a_process_that_is_given_no_more_memory_ends(daemon: Daemon) -> None:
    """As under `ulimit -v`: what is small still fits, and neither a thread nor a larger body."""
    with daemon.start():
        daemon.expect("this process is given no more memory", "cannot be brought back", "failed")
        assert troubles(daemon) == []  # what that takes is there from here on
        limit = daemon.memory("VmSize") + (2 << 20)
        resource.prlimit(daemon.pid, resource.RLIMIT_AS, (limit, limit))
        # Not first in the log, whose disk others may keep busy until the daemon has ended.
        until(lambda: daemon.get("/readyz").status_code == 503, "no memory")
        ready = daemon.get("/readyz")
        assert (ready.status_code, ready.json()["errors"][0]["key"]) == (503, "memory_exhausted")
        assert troubles(daemon) == ["memory_exhausted"]
        assert post(daemon, delay=LATER).status_code == 202
        large = daemon.post(CALLS, {"batch": [{"x": "y" * 200_000}] * 50})
        assert (large.status_code, large.json()["code"]) == (503, "memory_exhausted")
        assert daemon.wait(ENDS_WITHIN * 2) == 1
        daemon.logged("ERROR watchdog: this process is given no more memory")
        daemon.logged(r"CRITICAL watchdog: this process is given no more memory .* the daemon ends")


# -- What goes by is named, and the daemon goes on ------------------------------------------------


def test_connections_are_accepted_again_once_there_is_memory(daemon: Daemon) -> None:
    """Or it has ended, where the loop itself was given none."""
    head = b"POST /v1/endpoints/crm/get/calls HTTP/1.1\r\nhost: x\r\ncontent-length: 500000\r\n\r\n"
    with daemon.start(), ExitStack() as crowd:
        daemon.expect("this process is given no more memory", "MemoryError", "^Traceback")
        assert troubles(daemon) == []
        limit = daemon.memory("VmSize") - (64 << 20)
        resource.prlimit(daemon.pid, resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        ends = time.monotonic() + 4
        while time.monotonic() < ends:
            sock = socket.socket(socket.AF_UNIX)
            crowd.callback(sock.close)
            with suppress(OSError):  # as many as there is room for; they stay open
                sock.settimeout(2)
                sock.connect(str(daemon.socket))
                sock.sendall(head + b"y" * 200_000)
                continue
            sock.close()
        with suppress(ProcessLookupError):
            resource.prlimit(daemon.pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
        crowd.close()
        assert daemon.process is not None

        def ended_or_acknowledged() -> bool:
            with suppress(httpx.TransportError):
                return post(daemon).status_code == 202
            return daemon.process.poll() == 1

        until(ended_or_acknowledged, "an end, or a call that is acknowledged")


LOCKS = """
import sqlite3, sys
other = sqlite3.connect(sys.argv[1], isolation_level=None)
other.execute(sys.argv[2])
other.execute("SELECT count(*) FROM retry_schedule").fetchall()
print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def another_program(database: Path, begin: str) -> Iterator[int]:
    """Holds a transaction open on the database; its pid."""
    command = [sys.executable, "-c", LOCKS, str(database), begin]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"ready\n"
        yield other.pid
        other.kill()


def test_a_database_that_is_locked_is_named_with_who_has_locked_it(
    daemon: Daemon, receiver: Receiver
) -> None:
    daemon.expect("another program has locked the database", "claiming failed", "cannot write task")
    with daemon.start():
        before = daemon.call("crm/get", LATER)
        with another_program(daemon.database, "BEGIN IMMEDIATE") as pid:
            refused = post(daemon)
            assert (refused.status_code, refused.json()["code"]) == (503, "database_locked")
            assert f"locked the database (pid {pid} (python" in refused.json()["detail"]
            began = time.monotonic()
            assert post(daemon).status_code == 503
            assert time.monotonic() - began < 2  # nobody waits for it again and again
            ready = daemon.get("/readyz")
            assert ready.status_code == 503
            assert f"pid {pid}" in ready.json()["detail"]
            assert ready.json()["errors"][0]["key"] == "database_locked"
            assert daemon.get("/healthz").status_code == 200
            assert troubles(daemon) == ["database_locked"]
            assert daemon.task(before)["status"] == "pending"
            metrics = daemon.get("/metrics").text
            assert 'orchestratord_trouble{code="database_locked"} 1.0' in metrics
            assert "orchestratord_ready 0.0" in metrics
            assert f"pid {pid}" in daemon.get("/").text
            assert "another program has locked" in daemon.ctl("status").out
            code, found = doctor(daemon)
            assert code == 1
            assert any(f"pid {pid}" in row["what"] for row in found["daemon"])
        until(lambda: daemon.get("/readyz").status_code == 200, "its release")
        daemon.logged("the database takes new work again")
        assert daemon.finish(daemon.call("crm/get"))["status"] == "succeeded"
        assert "orchestratord_ready 1.0" in daemon.get("/metrics").text


@pytest.mark.parametrize(
    ("number", "status", "code"),
    [(errno.EIO, 503, "storage_error"), (errno.EROFS, 503, "storage_read_only"),
     (errno.ENOSPC, 507, "storage_full"), (errno.EDQUOT, 507, "storage_full")],
)  # fmt: skip
def test_a_disk_that_fails_is_named(
    tmp_path: Path, make_daemon: MakeDaemon, receiver: Receiver,
    number: int, status: int, code: str,
) -> None:  # fmt: skip
    disk = FaultyDisk(tmp_path)
    daemon = make_daemon(database=f"sqlite:///{disk.folder}/queue.db")
    daemon.environ |= disk.environ
    daemon.expect("the disk of the database", "the database can only be read", "the disk takes no",
                  "claiming failed", "cannot write task")  # fmt: skip
    with declare(daemon, receiver).start():
        ids = [daemon.call("crm/get", LATER) for _ in range(5)]
        disk.fail(number)
        refused = post(daemon)
        assert (refused.status_code, refused.json()["code"]) == (status, code)
        ready = daemon.get("/readyz")
        assert (ready.status_code, ready.json()["errors"][0]["key"]) == (503, code)
        assert troubles(daemon) == [code]
        time.sleep(2.5)
        assert troubles(daemon) == [code]
        disk.mend()
        until(lambda: daemon.get("/readyz").status_code == 200, "its being mended")
        ids.append(daemon.call("crm/get", LATER))
        daemon.restart()
        assert sorted(task["id"] for task in daemon.tasks()) == ids


def test_a_program_that_reads_for_long_and_lets_the_journal_grow_is_named(daemon: Daemon) -> None:
    with daemon.start():
        daemon.call("crm/get", LATER)
        with another_program(daemon.database, "BEGIN") as pid:
            journal = daemon.home / "orchestratord.db-wal"
            while journal.stat().st_size < 90 << 20:
                body = {"batch": [{"x": "y" * 200_000}] * 50, "delay": LATER}
                assert daemon.post(CALLS, body).status_code == 202
            line = daemon.logged(f"WARNING .*pid {pid} .* has been reading the database", 40)
            assert "orchestratord.db-wal" in line
            assert f"pid {pid}" in daemon.status()["database"]["holding_back"][0]
            assert "orchestratord_database_held_back 1.0" in daemon.get("/metrics").text
            assert daemon.get("/readyz").status_code == 200
            assert f"pid {pid}" in daemon.ctl("status").out
            code, found = doctor(daemon)
            assert code == 0
            assert any(f"pid {pid}" in row["what"] for row in found["database"])
        daemon.call("crm/get", LATER)
        until(lambda: not daemon.status()["database"]["holding_back"], "its end", 40)


SMALL_DISK = 'mount -t tmpfs -o size=SIZE tmpfs "$0" && exec "$@"'


@pytest.fixture
def small_disk(
    tmp_path: Path, make_daemon: MakeDaemon, receiver: Receiver
) -> Callable[..., Daemon]:
    """Make a daemon with its queue on a small file system, in a mount namespace that ends with
    it."""
    unshare = shutil.which("unshare")
    if unshare is None or os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")

    def make(size: str = "8m", **settings: Any) -> Daemon:
        mount = SMALL_DISK.replace("SIZE", size)
        alone = [unshare, "--mount", "--propagation", "private", "sh", "-c", mount, str(tmp_path)]
        if subprocess.run([*alone, "true"], capture_output=True).returncode:
            pytest.skip("this machine mounts nothing")
        daemon = make_daemon(database=f"sqlite:///{tmp_path}/queue.db", **settings)
        declare(daemon, receiver, concurrency=100).wrapper = alone
        daemon.expect("the disk is nearly full", "the disk takes no more", "cannot write task",
                      "claiming failed")  # fmt: skip
        return daemon

    return make


def fill(daemon: Daemon, params: str) -> list[int]:
    """Call until the disk has no room for more; the calls that were taken."""
    ids = []
    while (answer := post(daemon, params)).status_code == 202:
        ids.append(answer.json()["id"])
    assert (answer.status_code, answer.json()["code"]) == (507, "storage_full")
    return ids


def test_the_journal_does_not_fill_a_small_disk(
    tmp_path: Path, small_disk: Callable[..., Daemon], receiver: Receiver
) -> None:
    daemon = small_disk()
    receiver.hold("/get")
    with daemon.start():
        disk = Path(f"/proc/{daemon.pid}/root{tmp_path}")
        ids = fill(daemon, "y" * 12_000)
        assert len(ids) > 300
        assert (disk / "queue.db-wal").stat().st_size < 2 << 20
        assert (disk / "queue.db").stat().st_size > 4 << 20
        # What is queued goes on on what is left of the disk: also what does not fit there in one
        # transaction, as many answers that come at once.
        until(lambda: receiver.count("/get") >= 60, "enough of them being sent")
        os.kill(daemon.pid, signal.SIGSTOP)
        receiver.let_go("/get")
        time.sleep(0.3)
        os.kill(daemon.pid, signal.SIGCONT)
        until(lambda: daemon.status()["queue"]["succeeded"] == len(ids), "all calls", 60)
        assert sorted(task["id"] for task in daemon.tasks()) == ids
        for name in ("queue.db-wal", "queue.db"):
            shutil.copy(disk / name, tmp_path)
    with closing(sqlite3.connect(tmp_path / "queue.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.mark.parametrize(("workers", "size"), [(1, "8m"), (2, "8m"), (2, "32m")])
def test_a_disk_that_the_queue_filled_itself_has_room_once_it_is_pruned(
    small_disk: Callable[..., Daemon], receiver: Receiver, size: str, workers: int, tmp_path: Path
) -> None:
    daemon = small_disk(size, workers=workers)
    with daemon.start():
        disk = Path(f"/proc/{daemon.pid}/root{tmp_path}")
        ids = fill(daemon, "y" * 12_000)
        until(lambda: daemon.status()["queue"]["succeeded"] == len(ids), "all calls")
        assert post(daemon).status_code == 507
        filled = (disk / "queue.db").stat().st_size
        daemon.write("orchestratord.yaml", {**daemon.settings, "retention": {"succeeded": "1s"}})
        until(lambda: not daemon.status()["queue"]["succeeded"], "the prune")
        until(lambda: post(daemon).status_code == 202, "room for new work", 5)
        # Each worker looks for itself whether there is room.
        until(lambda: daemon.get("/readyz").status_code == 200, "readiness", 5)
        # What is free is used, and more and more of it given back.
        for _ in range(40):
            daemon.call("crm/get", LATER)
        until(lambda: (disk / "queue.db").stat().st_size < filled * 0.7, "the file shrinking")
