"""A configuration takes effect in all workers or in none, whichever of them dies meanwhile; what
systemd is told of it; pauses; and a worker that stands still."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.acceptance.commands.manager import Manager
from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon
from tests.acceptance.receiver import Receiver
from tests.acceptance.waiting import until
from tests.acceptance.workers.crew import (
    DIED,
    NAMES_ITSELF,
    first,
    kill,
    others,
    senders,
    serves,
    worker_pids,
)

pytestmark = pytest.mark.slow

REFUSES = """
import os, pathlib
from orchestratord import Problem, hookimpl

REFUSING = pathlib.Path(__file__).with_name("refusing")

@hookimpl
def check_endpoint(endpoint):
    if REFUSING.exists() and REFUSING.read_text() == str(os.getpid()):
        yield Problem("refused on purpose", key="path")
"""
FAILS = """
import pathlib
from orchestratord.runtime.reload import Reloader

FAILING = pathlib.Path(__file__).with_name("failing")
follow = Reloader.follow

async def fail_once(self):
    if FAILING.exists():
        FAILING.unlink()
        raise OSError("failed on purpose")
    await follow(self)

Reloader.follow = fail_once
"""
"""A worker that cannot take up what the first one has taken up, as where it reaches no database."""
WATCHDOG = 6.0
"""Seconds; a machine that is busy may keep a worker from running for one or two."""


@pytest.fixture
def manager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manager]:
    manager = Manager(tmp_path_factory.mktemp("n") / "notify")
    with closing(manager.socket):
        yield manager


@pytest.fixture
def daemon(make_daemon: MakeDaemon, receiver: Receiver, manager: Manager) -> Daemon:
    daemon = make_daemon(
        workers=2,
        plugins={"dirs": ["plugins"]},
        environ={
            "NOTIFY_SOCKET": str(manager.path),
            "WATCHDOG_USEC": f"{WATCHDOG * 1_000_000:.0f}",
        },
    )
    daemon.plugin("names", NAMES_ITSELF)
    daemon.plugin("refuses", REFUSES)
    daemon.plugin("fails", FAILS)
    daemon.api("crm", receiver.url)
    declare(daemon, 1)
    return daemon.start()


def declare(daemon: Daemon, version: int) -> None:
    daemon.endpoint("crm/get", f"/{version}")


def in_force(daemon: Daemon, receiver: Receiver, version: int) -> None:
    """Both workers send what `version` declares."""
    receiver.forget()
    for name in range(1, 8):
        receiver.hold(f"/{name}")
    daemon.batch("crm/get", [{}] * 10)
    until(lambda: receiver.count() == 10, "as many calls as both may have in flight")
    assert {item.path for item in receiver.received()} == {f"/{version}"}
    assert senders(receiver) == worker_pids(daemon)
    receiver.let_go(f"/{version}")
    daemon.settle()


def one_worker_that_refuses_keeps_it_from_all(
    daemon: Daemon, receiver: Receiver, manager: Manager
) -> None:
    assert manager.states() == ["READY"]
    in_force(daemon, receiver, 1)
    declare(daemon, 2)
    daemon.signal(signal.SIGHUP)
    until(lambda: manager.states() == ["READY", "RELOADING", "READY"], "one reload")
    assert daemon.status()["config"]["generation"] == 2
    refusing = daemon.config / "plugins" / "refusing"
    daemon.expect("the configuration is refused", "refused on purpose")
    (second,) = others(daemon)
    for pid in (second, first(daemon)):
        refusing.write_text(str(pid))
        declare(daemon, 3)
        answer = daemon.post("/v1/reload")
        assert answer.status_code == 422, answer.text
        assert "refused on purpose" in answer.text
        assert ("worker 2" in answer.text) == (pid == second)
        assert daemon.status()["config"]["generation"] == 2
        in_force(daemon, receiver, 2)
        refusing.unlink()
        declare(daemon, 2)
        daemon.reload()
    assert daemon.status()["config"]["error"] is None
    declare(daemon, 3)
    daemon.adopt()
    in_force(daemon, receiver, 3)


def whichever_dies_the_last_good_one_goes_on(daemon: Daemon, receiver: Receiver) -> None:
    daemon.expect("the configuration is refused", "crm/endpoints/get.yaml", DIED)
    daemon.write("apis/crm/endpoints/get.yaml", "path: [1")
    assert daemon.post("/v1/reload").status_code == 422
    in_force(daemon, receiver, 3)
    generation = daemon.status()["config"]["generation"]
    (second,) = others(daemon)
    kill(daemon, second)
    in_force(daemon, receiver, 3)
    kill(daemon, first(daemon))
    in_force(daemon, receiver, 3)
    status = daemon.status()
    assert status["config"]["generation"] == generation
    assert [row["pid"] for row in status["daemons"]] == [daemon.pid]
    # The new one looks at the files, and says again what is wrong with them.
    until(lambda: daemon.status()["config"]["error"], "the files' being refused")
    declare(daemon, 4)
    daemon.reload()
    status = daemon.status()["config"]
    assert (status["generation"], status["error"]) == (generation + 1, None)
    in_force(daemon, receiver, 4)
    assert len([line for line in daemon.log().splitlines() if "ended by signal" in line]) == 2


def one_that_cannot_take_it_up_is_replaced(daemon: Daemon, receiver: Receiver) -> None:
    daemon.expect("the member has ended by itself: failed on purpose", "ended with code 1")
    (second,) = others(daemon)
    (daemon.config / "plugins" / "failing").touch()
    declare(daemon, 5)
    daemon.adopt()
    until(lambda: second not in worker_pids(daemon), "its end")
    until(lambda: len(worker_pids(daemon)) == 2 and serves(daemon), "its successor")
    in_force(daemon, receiver, 5)
    declare(daemon, 4)
    daemon.reload()


def pauses_reach_all_at_once(daemon: Daemon, receiver: Receiver) -> None:
    receiver.forget()
    receiver.on("/4", 200)
    assert daemon.ctl("pause", "crm/get").code == 0
    ids = daemon.batch("crm/get", [{}] * 20)
    assert daemon.finish_none(ids, 0.5) == []
    assert receiver.count() == 0
    assert daemon.ctl("resume", "crm/get").code == 0
    daemon.settle()
    assert receiver.count() == 20


def one_that_stands_still_is_replaced(daemon: Daemon, receiver: Receiver, manager: Manager) -> None:
    daemon.expect("no sign of life", DIED)

    def pings() -> int:
        return sum("WATCHDOG" in message for message in manager.listen())

    # What was said while no one listened may be still to come.
    for _ in range(2):
        before = pings()
        until(lambda before=before: pings() > before, "a ping")  # type: ignore[misc]
    states = manager.states()
    (second,) = others(daemon)
    os.kill(second, signal.SIGSTOP)
    time.sleep(WATCHDOG * 0.75)
    before = pings()
    until(lambda: second not in worker_pids(daemon), "its end", 3 * WATCHDOG)
    assert pings() - before <= 1  # which had been sent before, or comes with its successor
    until(lambda: serves(daemon), "its successor")
    in_force(daemon, receiver, 4)
    before = pings()
    until(lambda: pings() > before, "another ping")
    assert manager.states() == states
    assert daemon.stop() == 0
    assert manager.states() == [*states, "STOPPING"]


def test_what_is_in_force_is_so_in_all(
    daemon: Daemon, receiver: Receiver, manager: Manager
) -> None:
    """One story of one daemon, for a start takes longest."""
    one_worker_that_refuses_keeps_it_from_all(daemon, receiver, manager)
    whichever_dies_the_last_good_one_goes_on(daemon, receiver)
    one_that_cannot_take_it_up_is_replaced(daemon, receiver)
    pauses_reach_all_at_once(daemon, receiver)
    one_that_stands_still_is_replaced(daemon, receiver, manager)
