"""What a clock that was ahead has written, once it is right: it is brought back, and goes on.

Once the minute passes that this clock has to have stood for; elsewhere that is a few seconds.
"""

from __future__ import annotations

import time

import pytest

from orchestratord.runtime.clock_watch import SETTLED
from tests.acceptance.clock.conftest import YEAR, TurnedMachine, declare, goes_on
from tests.acceptance.commands.test_doctor import doctor
from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon
from tests.acceptance.receiver import Receiver
from tests.acceptance.waiting import until

pytestmark = pytest.mark.slow

SOON = 10.0
"""Seconds."""


def settles(daemon: Daemon, seconds: float) -> None:
    """From its next start on the daemon takes a clock for right after these, not after a minute."""
    daemon.plugin(
        "settles", f"from orchestratord.runtime import clock_watch as c; c.SETTLED = {seconds}"
    )


@pytest.mark.parametrize("restart", [False, True], ids=["while it runs", "between two runs"])
def test_what_was_written_ahead_is_brought_back(
    make_daemon: MakeDaemon, receiver: Receiver, machine: TurnedMachine, restart: bool
) -> None:
    """The daemon starts with a clock that is ahead, and cannot know it."""
    daemon = make_daemon(environ=machine.environ, plugins={"dirs": ["plugins"]})
    declare(daemon, receiver)
    settled = SOON if restart else SETTLED
    settles(daemon, settled)
    daemon.api("shop", receiver.url)
    daemon.endpoint("shop/get", "/shop")
    receiver.on("/shop", 200)
    machine.put(YEAR)
    daemon.start()
    daemon.call("fails/get")
    year = daemon.call("shop/get", "365d")
    goes_on(receiver, "/tick")
    goes_on(receiver, "/fails")
    if restart:
        assert daemon.stop() == 0
    else:
        told = daemon.call("told/get")
        until(lambda: receiver.count("/told") == 1, "its being told to wait")
    began = time.monotonic()
    machine.put(0)
    if restart:
        daemon.start()
    daemon.logged(r"brought back the times of [1-9]\d* tasks", 75)
    # It might be this clock that is wrong: it has to have stood so for a while.
    assert time.monotonic() - began > settled
    goes_on(receiver, "/tick")
    goes_on(receiver, "/fails")
    if not restart:
        assert daemon.finish(told, 10)["status"] == "succeeded"
    # It waits for as long as it was asked to.
    [row] = daemon.rows("SELECT next_try, status FROM retry_schedule WHERE id = ?", year)
    assert row["status"] == "pending"
    assert abs(row["next_try"] / 1000 - time.time() - 365 * 86400) < 60
    for column in ("created_at", "updated_at", "finished_at"):
        ahead = f"SELECT id FROM retry_schedule WHERE {column} > ?"
        assert daemon.rows(ahead, (time.time() + 5) * 1000) == []
    back = daemon.status()["clock"]["brought_back"]
    assert back["tasks"] >= 2
    assert daemon.log().count("brought back the times of") == 1
    _, found = doctor(daemon)
    assert any("brought back" in finding["what"] for finding in found["clock"])


def test_a_clock_that_is_behind_makes_no_call_of_a_slot_again(
    make_daemon: MakeDaemon, receiver: Receiver, machine: TurnedMachine
) -> None:
    """It is taken for right some seconds before the last slot that was made."""
    daemon = make_daemon(environ=machine.environ, plugins={"dirs": ["plugins"]})
    declare(daemon, receiver)
    settles(daemon, SOON)
    slot = "{{ task.scheduled_at.timestamp() }}"
    daemon.endpoint("tick/now", "/tick", schedule={"every": "1s"}, query={"slot": slot})
    daemon.start()

    def slots() -> list[float]:
        return [float(request.query["slot"]) for request in receiver.received("/tick")]

    until(lambda: len(slots()) >= 12, "some slots", 20)
    machine.put(-20)
    daemon.logged("stays back by", 20)
    last = max(slots())
    # Those before the first one have had no call; nor have those after the last one.
    until(lambda: max(slots()) >= last + 3, "the slots after the last one", 60)
    assert len(set(slots())) == len(slots())
