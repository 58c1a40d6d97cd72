"""What a reference stands for is asked once for all workers, which all have the same value."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon
from tests.acceptance.receiver import Receiver
from tests.acceptance.waiting import until
from tests.acceptance.workers.crew import DIED, NAMES_ITSELF, first, kill, others, senders

pytestmark = pytest.mark.slow

VAULT = """
import os, pathlib, time
from orchestratord import hookimpl

ASKED = pathlib.Path(__file__).with_name("asked")

def read(path):
    with ASKED.open("a") as file:
        file.write("x")
    return f"secret-number-{ASKED.stat().st_size}-of-this-vault"

@hookimpl
def register_references():
    return {"vault": read}
"""


def sent(daemon: Daemon, receiver: Receiver) -> str:
    """The one secret that both workers send."""
    receiver.forget()
    receiver.hold("/get")
    daemon.batch("crm/get", [{}] * 10)
    until(lambda: receiver.count() == 10, "as many calls as both may have in flight")
    assert len(senders(receiver)) == 2
    (secret,) = {item.headers["x-secret"] for item in receiver.received()}
    receiver.let_go("/get")
    daemon.settle()
    return secret


def test_one_worker_asks_for_all(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    daemon = make_daemon(workers=2, plugins={"dirs": ["plugins"]})
    daemon.plugin("names", NAMES_ITSELF)
    daemon.plugin("vault", VAULT)
    daemon.expect(DIED)
    daemon.api("crm", receiver.url, headers={"X-Secret": "${vault:crm}"})
    daemon.endpoint("crm/get", "/get")
    daemon.start()
    asked = Path(daemon.config / "plugins" / "asked")

    def number() -> int:
        return asked.stat().st_size

    assert number() == 1
    assert sent(daemon, receiver) == "secret-number-1-of-this-vault"
    daemon.signal(signal.SIGHUP)
    until(lambda: daemon.status()["config"]["generation"] == 2, "the reload")
    assert number() == 2
    assert sent(daemon, receiver) == "secret-number-2-of-this-vault"
    for who in (first, lambda daemon: next(iter(others(daemon)))):
        kill(daemon, who(daemon))
        assert number() == 2
        assert sent(daemon, receiver) == "secret-number-2-of-this-vault"
    assert "secret-number" not in daemon.log()


def test_the_first_worker_dies_between_asking_and_having_all_take_it_up(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    daemon = make_daemon(workers=2, plugins={"dirs": ["plugins"]})
    daemon.plugin("names", NAMES_ITSELF)
    dies = "    import os\n    (asked := pathlib.Path(__file__).with_name('die')).exists() and "
    dies += "(asked.unlink(), os.kill(os.getpid(), 9))\n"
    daemon.plugin("vault", VAULT.replace("    return f", f"{dies}    return f"))
    daemon.expect(DIED)
    daemon.api("crm", receiver.url, headers={"X-Secret": "${vault:crm}"})
    daemon.endpoint("crm/get", "/get")
    daemon.start()
    before = first(daemon)
    (daemon.config / "plugins" / "die").touch()
    daemon.signal(signal.SIGHUP)
    daemon.logged(DIED)
    until(lambda: first(daemon) != before, "another first worker")
    until(lambda: daemon.listens() and daemon.status()["config"]["generation"] == 2, "its reload")
    assert sent(daemon, receiver) == "secret-number-3-of-this-vault"


def test_a_reload_that_is_asked_of_a_dead_worker_is_its_successors(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    daemon = make_daemon(workers=2, plugins={"dirs": ["plugins"]})
    daemon.plugin("vault", VAULT)
    daemon.expect(DIED)
    daemon.api("crm", receiver.url, headers={"X-Secret": "${vault:crm}"})
    daemon.endpoint("crm/get", "/get")
    daemon.start()
    before = first(daemon)
    daemon.signal(signal.SIGSTOP)  # the supervisor: it sees both at once
    os.kill(before, signal.SIGKILL)
    daemon.signal(signal.SIGHUP)
    daemon.signal(signal.SIGCONT)
    until(lambda: first(daemon) != before, "another first worker")
    asked = Path(daemon.config / "plugins" / "asked")
    until(lambda: asked.stat().st_size == 2, "the reload")
    until(lambda: daemon.listens() and daemon.status()["config"]["generation"] == 2, "its end")
