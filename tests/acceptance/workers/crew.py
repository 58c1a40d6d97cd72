"""The worker processes of a daemon, as /proc and the receiver show them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.acceptance.daemon import Daemon
from tests.acceptance.receiver import Receiver
from tests.acceptance.waiting import until

NAMES_ITSELF = """
import os
from orchestratord import hookimpl

@hookimpl
def before_request(request):
    request.headers["X-Worker"] = str(os.getpid())
    return request
"""
"""A plugin whose requests say which worker has sent them."""

DIED = r"worker \d \(pid \d+\) ended by signal SIGKILL"


def worker_pids(daemon: Daemon) -> set[int]:
    """Those that live."""
    found = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text().split()
    return {int(pid) for pid in found if _state(int(pid)) not in "ZX"}


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return "X"


def first(daemon: Daemon) -> int:
    """The one that serves the API: it alone watches the files."""

    def look() -> int | None:
        return next((pid for pid in worker_pids(daemon) if _watches(pid)), None)

    found = until(look, "the first worker")
    assert found is not None
    return found


def _watches(pid: int) -> bool:
    try:
        links = [os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:  # it ends just now
        return False
    return any("inotify" in link for link in links)


def others(daemon: Daemon) -> set[int]:
    """All but the first one."""
    return worker_pids(daemon) - {first(daemon)}


def kill(daemon: Daemon, pid: int) -> None:
    """SIGKILL one of them, and wait until another one serves in its place."""
    count = len(worker_pids(daemon))
    os.kill(pid, signal.SIGKILL)

    def replaced() -> bool:
        pids = worker_pids(daemon)
        return pid not in pids and len(pids) == count and serves(daemon)

    until(replaced, f"another worker in place of {pid}")


def serves(daemon: Daemon) -> bool:
    """Whether the daemon is ready: all its workers serve."""
    return daemon.listens() and daemon.get("/readyz").status_code == 200


def senders(receiver: Receiver, path: str = "") -> set[int]:
    """Which workers have sent what has come for paths that begin so; see `NAMES_ITSELF`."""
    return {
        int(item.headers["x-worker"])
        for item in receiver.received()
        if item.path.startswith(path) and "x-worker" in item.headers
    }


@contextmanager
def followed(daemon: Daemon) -> Iterator[Iterator[str]]:
    """The lines of /v1/events; the first one has come."""
    transport = httpx.HTTPTransport(uds=str(daemon.socket), verify=False)
    with (
        httpx.Client(transport=transport, base_url="http://localhost", timeout=20) as client,
        client.stream("GET", "/v1/events") as answer,
    ):
        lines = answer.iter_lines()
        assert next(lines).startswith("id: ")
        yield lines
