"""The daemon as PID 1 of a namespace, as in a container."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon
from tests.acceptance.receiver import Receiver
from tests.acceptance.waiting import until

pytestmark = pytest.mark.slow

UNSHARE = ["unshare", "--pid", "--fork", "--mount-proc"]
LEAVES = """
import asyncio, subprocess, sys
from orchestratord import hookimpl

@hookimpl
async def before_request(request):
    # A child that leaves an orphan, and one by asyncio whose exit code is waited for.
    subprocess.run(["sh", "-c", "sleep 0.2 & exit 3"], check=False)
    child = await asyncio.create_subprocess_exec("sh", "-c", "sleep 0.1; exit 7")
    request.headers["X-Code"] = str(await child.wait())
    return request
"""


def can_unshare() -> bool:
    try:
        return subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def descendants(pid: int) -> dict[int, str]:
    """Of a process, by their ids here: what each is at, Z for one that nobody has reaped."""
    found: dict[int, str] = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        state = Path(f"/proc/{child}/stat").read_text().rpartition(") ")[2][0]
        found |= {int(child): state, **(descendants(int(child)) if state != "Z" else {})}
    return found


def init_of(daemon: Daemon) -> int:
    """The process that is PID 1 there, by its id here."""
    return int(Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text())


@pytest.mark.skipif(not can_unshare(), reason="takes the right to make a PID namespace")
@pytest.mark.parametrize("workers", [1, 2])
def test_orphans_are_reaped(make_daemon: MakeDaemon, receiver: Receiver, workers: int) -> None:
    daemon = make_daemon(workers=workers, plugins={"dirs": ["plugins"]})
    daemon.wrapper = UNSHARE
    daemon.plugin("leaves", LEAVES)
    daemon.api("shop", receiver.url)
    daemon.endpoint("shop/get", "/get")
    receiver.on("/get", 200)
    daemon.start()
    ids = daemon.batch("shop/get", [{}] * 20)
    for task_id in ids:
        assert daemon.finish(task_id)["status"] == "succeeded"
    assert {one.headers["x-code"] for one in receiver.received("/get")} == {"7"}
    init = init_of(daemon)
    # One process of sh ends within a moment.
    until(lambda: len(descendants(init)) <= 1 + workers, "the end of the children")
    until(lambda: "Z" not in descendants(init).values(), "the end of the orphans")
    os.kill(init, signal.SIGTERM)
    assert daemon.wait() == 0
    daemon.logged("stopped")


@pytest.mark.skipif(not can_unshare(), reason="takes the right to make a PID namespace")
def test_pid_1_ends_as_the_daemon_does(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    daemon = make_daemon()
    daemon.wrapper = UNSHARE
    daemon.start()
    (child,) = descendants(init_of(daemon))
    os.kill(child, signal.SIGKILL)
    assert daemon.wait() == 128 + signal.SIGKILL
    daemon.write("orchestratord.yaml", "nonsense: [")
    daemon.expect(".")
    daemon.launch()
    assert daemon.wait() == 78


@pytest.mark.skipif(not can_unshare(), reason="takes the right to make a PID namespace")
def test_a_reload_that_pid_1_is_asked_for_early_is_done_later(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    daemon.by_command = True
    daemon.wrapper = UNSHARE
    process = daemon.launch()
    until(lambda: process.poll() is not None or descendants(process.pid), "PID 1")
    until(lambda: process.poll() is not None or descendants(init_of(daemon)), "its child")
    os.kill(init_of(daemon), signal.SIGHUP)
    daemon.wait_ready()
    daemon.logged("INFO config: nothing has changed")
    os.kill(init_of(daemon), signal.SIGTERM)
    assert daemon.wait() == 0
