"""A clock that jumps, in real daemons."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from orchestratord.values.clock import from_rfc3339
from tests.acceptance.clock.conftest import HOUR, YEAR, TurnedMachine, declare, goes_on
from tests.acceptance.commands.test_doctor import doctor
from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import retry
from tests.acceptance.receiver import Answer, Receiver
from tests.acceptance.waiting import until
from tests.postgres import Postgres

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("ahead", [HOUR, YEAR])
def test_a_clock_that_was_ahead_for_some_seconds_changes_nothing(
    make_daemon: MakeDaemon, receiver: Receiver, machine: TurnedMachine, ahead: int
) -> None:
    daemon = make_daemon(environ=machine.environ, retention={"succeeded": "30m"})
    declare(daemon, receiver)
    daemon.api("shop", receiver.url)
    daemon.endpoint("shop/get", "/shop")
    daemon.endpoint("shop/once", "/once", retry=retry("30m", 2))
    daemon.endpoint("shop/soon", "/soon", retry=retry("2s", 1000, give_up_after="20m"))
    receiver.on("/shop", 200)
    receiver.reply("/once", lambda request: Answer(500))
    receiver.reply("/soon", lambda request: Answer(500))
    daemon.start()
    kept, later = daemon.call("shop/get"), daemon.call("shop/get", "30m")
    daemon.finish(kept)
    once, soon = daemon.call("shop/once"), daemon.call("shop/soon")
    daemon.call("fails/get")
    until(lambda: receiver.count("/once") == 1 and receiver.count("/soon") >= 1, "first attempts")
    goes_on(receiver, "/tick")
    machine.put(ahead)
    began, ticks = time.monotonic(), receiver.count("/tick")
    told = daemon.call("told/get")
    goes_on(receiver, "/fails")
    goes_on(receiver, "/tick")
    # No storm, and no second slot where there was one.
    assert receiver.count("/tick") - ticks <= time.monotonic() - began + 2
    assert daemon.logged(r"put forward by .*goes on by the time that has passed")
    machine.put(0)
    daemon.logged("is right again")
    goes_on(receiver, "/tick")
    goes_on(receiver, "/fails")
    assert daemon.finish(told, 10)["attempts"] == 2
    # What real time would not have deleted, expired, exhausted or begun.
    assert daemon.task(kept)["status"] == "succeeded"
    assert daemon.task(later)["status"] == "pending"
    assert daemon.task(later)["attempts"] == 0
    assert (daemon.task(once)["status"], receiver.count("/once")) == ("pending", 1)
    assert daemon.task(soon)["status"] in ("pending", "running")
    assert daemon.log().count("was put forward by") == 2  # as it jumped, and as it was back
    clock = daemon.status()["clock"]
    assert (clock["source"], clock["brought_back"]) == ("machine", None)
    assert clock["last_change"]["what"] == "returned"
    _, found = doctor(daemon)
    assert any("was put forward by" in finding["what"] for finding in found["clock"])


def test_a_restart_while_it_is_ahead_makes_no_difference(
    make_daemon: MakeDaemon, receiver: Receiver, machine: TurnedMachine
) -> None:
    daemon = make_daemon(environ=machine.environ, retention={"succeeded": "30m"})
    declare(daemon, receiver)
    daemon.start()
    daemon.call("fails/get")
    goes_on(receiver, "/tick")
    kept = daemon.tasks(endpoint="tick/now", status="succeeded")[-1]["id"]
    machine.put(HOUR)
    daemon.restart()
    goes_on(receiver, "/fails")
    machine.put(0)
    goes_on(receiver, "/tick")
    goes_on(receiver, "/fails")
    assert daemon.task(kept)["status"] == "succeeded"


@pytest.fixture
def database(postgres: Postgres) -> Iterator[str]:
    url = postgres.create()
    yield url
    postgres.drop(url)


def test_all_daemons_go_by_the_clock_of_their_database(
    database: str, make_daemon: MakeDaemon, receiver: Receiver, machine: TurnedMachine
) -> None:
    one = make_daemon(environ=machine.environ, database=database, lease=3)
    two = make_daemon(database=database, lease=3)
    for daemon in (one, two):
        daemon.expect("a password is written out here")
        declare(daemon, receiver)
    machine.put(HOUR)
    one.start()
    told = one.call("told/get")
    ids = one.batch("fails/get", [{}] * 4)
    goes_on(receiver, "/tick")
    goes_on(receiver, "/fails")
    two.start()
    goes_on(receiver, "/tick")
    for task in ids:
        due = two.task(task)["next_try"]
        assert due is None or from_rfc3339(due) / 1000 < time.time() + 60
    assert one.finish(told, 10)["status"] == "succeeded"
    # It is no matter which of them goes on.
    one.kill()
    goes_on(receiver, "/tick")
    goes_on(receiver, "/fails")
    assert one.log().count("ahead of the database's, which all daemons go by") == 1
    assert two.status()["clock"]["source"] == "database"


def test_a_clock_that_is_put_forward_for_good_disables_no_webhook(
    make_daemon: MakeDaemon, receiver: Receiver, machine: TurnedMachine
) -> None:
    """The daemon goes by it after a minute; the time in between has not passed for a receiver."""
    daemon = make_daemon(environ=machine.environ)
    hook = {"name": "ops", "phase": "after_request", "url": f"{receiver.url}/hook"}
    daemon.api("shop", receiver.url)
    more = {"disable_after": "1d", "retry": retry("1h", 10)}
    daemon.endpoint("shop/get", "/shop", webhooks=[hook | more])
    receiver.on("/shop", 200)
    receiver.on("/hook", 500)
    daemon.start()

    def fails(count: int) -> None:
        daemon.finish(daemon.call("shop/get"))
        until(lambda: receiver.count("/hook") >= count, "a delivery")

    fails(1)
    machine.put(10 * 24 * HOUR)
    daemon.logged("the daemon goes by it from now on", 90)
    fails(2)
    fails(3)
    time.sleep(1)
    assert "webhook.disabled" not in daemon.log()
    assert daemon.rows("SELECT disabled_at FROM webhooks") == [{"disabled_at": None}]
