"""What the files promise is made although its hook is at fault for a while: the end waits."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon
from tests.acceptance.receiver import Receiver
from tests.acceptance.waiting import until

pytestmark = pytest.mark.slow

BROKEN = """
from pathlib import Path

import orchestratord_webhooks.announcement as webhooks

broken, data_of = Path({file!r}), webhooks.data_of


def at_fault(*given):
    if broken.exists():
        raise RuntimeError("at fault")
    return data_of(*given)


webhooks.data_of = at_fault
"""
"""The envelope of the webhooks plugin fails for as long as a file is there."""
SLOW = """
import time

import orchestratord_webhooks.announcement as webhooks
from orchestratord import hookimpl

holds = webhooks._holds


def slow(*given):
    time.sleep(1.2)
    return holds(*given)


webhooks._holds = slow
webhooks.is_quick = lambda *given: False
"""
"""A `when` of the operator's takes longer than `plugins.timeout`."""


def declare(daemon: Daemon, receiver: Receiver, **webhook: str) -> None:
    daemon.api("crm", receiver.url)
    told = {"name": "told", "url": f"{receiver.url}/told", **webhook}
    end = {"name": "end", "phase": "on_run_end", "url": f"{receiver.url}/end"}
    then = [{"call": "crm/after", "params": {"n": "params.n"}}]
    daemon.endpoint(
        "crm/put", "/put", method="POST", params={"n": {}}, then=then,
        webhooks=[{"phase": "on_success", **told}, end],
    )  # fmt: skip
    event = {"type": "event", "params": {"n": {}}, "then": then}
    daemon.write(
        "apis/crm/endpoints/seen.yaml", {**event, "webhooks": [{"phase": "on_success", **told}]}
    )
    daemon.endpoint("crm/after", "/after/{{ params.n }}", params={"n": {}})
    for path in ("/told", "/end", "/put", "/after/1", "/after/2"):
        receiver.on(path, 200)
    daemon.start()


def told_once(daemon: Daemon, receiver: Receiver) -> None:
    """All that follows from a call and an event is there, and nothing twice."""
    until(lambda: receiver.count("/end") == 1, "the end of the run")
    daemon.settle()
    counts = {path: receiver.count(path) for path in ("/put", "/told", "/after/1", "/after/2")}
    assert counts == {"/put": 1, "/told": 2, "/after/1": 1, "/after/2": 1}


def test_an_end_waits_for_a_hook_that_raises(
    make_daemon: MakeDaemon, receiver: Receiver, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    broken.touch()
    daemon = make_daemon(plugins={"dirs": ["plugins"]})
    daemon.plugin("broken", BROKEN.format(file=str(broken)))
    daemon.expect(r"plugin webhooks: announce raised RuntimeError: at fault")
    declare(daemon, receiver)
    call, event = daemon.call("crm/put", n=1), daemon.call("crm/seen", n=2)

    def faults() -> int:
        """The first one is logged; those that follow are counted."""
        plugins = daemon.status()["plugins"]
        return sum(plugin["faults"] for plugin in plugins if plugin["name"] == "webhooks")

    until(lambda: faults() >= 4, "some faults")
    assert daemon.task(call)["status"] == daemon.task(event)["status"] == "running"
    assert receiver.count() == 1  # the call itself
    broken.unlink()
    told_once(daemon, receiver)


def test_a_hook_that_takes_too_long_has_more_time_the_next_time(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    daemon = make_daemon(plugins={"dirs": ["plugins"], "timeout": "1s"})
    daemon.plugin("slow", SLOW)
    daemon.expect(r"plugin webhooks: announce took longer than plugins.timeout")
    declare(daemon, receiver, when="params.n")
    daemon.call("crm/put", n=1)
    daemon.call("crm/seen", n=2)
    told_once(daemon, receiver)
    assert "took longer" in daemon.log()


def test_an_end_that_waits_is_another_daemons_after_a_kill(
    make_daemon: MakeDaemon, receiver: Receiver, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    broken.touch()
    daemon = make_daemon(plugins={"dirs": ["plugins"]}, lease="3s")
    daemon.plugin("broken", BROKEN.format(file=str(broken)))
    daemon.expect(
        r"announce raised RuntimeError: at fault", r"took over from a dead daemon", r"claim"
    )
    declare(daemon, receiver)
    event = daemon.call("crm/seen", n=2)
    daemon.logged("announce raised RuntimeError")
    daemon.kill()
    daemon.start()
    call = daemon.call("crm/put", n=1)  # the daemon goes about its work
    until(lambda: receiver.count("/put") == 1, "another call")
    broken.unlink()
    daemon.until_status(call, "succeeded")
    daemon.settle()
    assert daemon.task(event)["status"] == "succeeded"
    assert (receiver.count("/told"), receiver.count("/after/2")) == (2, 1)


def test_what_a_dead_daemon_left_waits_for_its_hook(
    make_daemon: MakeDaemon, receiver: Receiver, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    daemon = make_daemon(plugins={"dirs": ["plugins"]}, lease="3s")
    daemon.plugin("broken", BROKEN.format(file=str(broken)))
    daemon.expect(
        r"announce raised RuntimeError: at fault",
        r"took over from a dead daemon",
        r"nothing in the daemon held|ended .* claims?|ambiguous",
    )
    daemon.api("crm", receiver.url)
    told = {"name": "told", "phase": "on_final_failure", "url": f"{receiver.url}/told"}
    daemon.endpoint("crm/put", "/put", method="POST", webhooks=[told])
    receiver.hold("/put")
    receiver.on("/told", 200)
    daemon.start()
    call = daemon.call("crm/put")
    until(lambda: receiver.count("/put") == 1, "the call")
    daemon.kill()
    broken.touch()
    daemon.start()
    daemon.logged("announce raised RuntimeError")
    broken.unlink()
    until(lambda: receiver.count("/told") == 1, "the word of it")
    daemon.settle()
    assert daemon.task(call)["reason"] == "ambiguous"
    assert (receiver.count("/put"), receiver.count("/told")) == (1, 1)
    receiver.let_go("/put")
