"""A clock that jumps, in real daemons: libfaketime turns it, a file that the test writes says how.

The clock that cannot be set is left alone, as a machine leaves it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestratord.runtime.clock_watch import SETTLED
from orchestratord.values.clock import from_rfc3339
from tests.acceptance.commands.test_doctor import doctor
from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon, retry
from tests.acceptance.receiver import Answer, Receiver
from tests.acceptance.waiting import until
from tests.postgres import Postgres

HOUR = 3600
YEAR = 400 * 86400


class TurnedMachine:
    """The clock of one daemon's machine; `environ` is for that daemon."""

    def __init__(self, file: Path) -> None:
        [library] = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
        self._file = file
        self.put(0)
        self.environ = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def put(self, ahead: int) -> None:
        """So many seconds ahead of the true time."""
        whole = self._file.with_name(f"{self._file.name}.new")
        whole.write_text(f"{ahead:+d}\n")
        whole.replace(self._file)


@pytest.fixture
def machine(tmp_path: Path, program: Callable[[str], str]) -> TurnedMachine:
    program("faketime")  # comes with the library
    return TurnedMachine(tmp_path / "clock")


def declare(daemon: Daemon, receiver: Receiver) -> None:
    """An API with a schedule, one with calls that fail, and one that is told to wait."""
    daemon.expect("the event loop stands still")  # each look at the clock costs it more
    for name in ("tick", "fails", "told"):
        daemon.api(name, receiver.url)
    daemon.endpoint("tick/now", "/tick", schedule={"every": "1s"})
    receiver.reply("/tick", lambda request: Answer(200))
    daemon.endpoint("fails/get", "/fails", retry=retry("2s", 1000))
    # It shows that somebody is there, and no breaker opens.
    receiver.reply("/fails", lambda request: Answer(429))
    daemon.endpoint("told/get", "/told", retry=retry("1s"))
    receiver.on("/told", Answer(429, headers={"Retry-After": "3"}), 200)


def goes_on(receiver: Receiver, path: str, within: float) -> None:
    """Three more requests come."""
    before = receiver.count(path)
    until(lambda: receiver.count(path) >= before + 3, f"three more requests of {path}", within)


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
    goes_on(receiver, "/tick", 10)
    machine.put(ahead)
    began, ticks = time.monotonic(), receiver.count("/tick")
    told = daemon.call("told/get")
    goes_on(receiver, "/fails", 12)
    goes_on(receiver, "/tick", 8)
    # No storm, and no second slot where there was one.
    assert receiver.count("/tick") - ticks <= time.monotonic() - began + 2
    assert daemon.logged(r"put forward by .*goes on by the time that has passed")
    machine.put(0)
    daemon.logged("is right again")
    goes_on(receiver, "/tick", 6)
    goes_on(receiver, "/fails", 10)
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
    goes_on(receiver, "/tick", 10)
    kept = daemon.tasks(endpoint="tick/now", status="succeeded")[-1]["id"]
    machine.put(HOUR)
    daemon.restart()
    goes_on(receiver, "/fails", 12)
    machine.put(0)
    goes_on(receiver, "/tick", 6)
    goes_on(receiver, "/fails", 12)
    assert daemon.task(kept)["status"] == "succeeded"


@pytest.mark.parametrize("restart", [False, True], ids=["while it runs", "between two runs"])
def test_what_was_written_ahead_is_brought_back(
    make_daemon: MakeDaemon, receiver: Receiver, machine: TurnedMachine, restart: bool
) -> None:
    """The daemon starts with a clock that is ahead, and cannot know it."""
    daemon = make_daemon(environ=machine.environ)
    declare(daemon, receiver)
    daemon.api("shop", receiver.url)
    daemon.endpoint("shop/get", "/shop")
    receiver.on("/shop", 200)
    machine.put(YEAR)
    daemon.start()
    daemon.call("fails/get")
    year = daemon.call("shop/get", "365d")
    goes_on(receiver, "/tick", 10)
    goes_on(receiver, "/fails", 12)
    if restart:
        assert daemon.stop() == 0
    else:
        told = daemon.call("told/get")
        until(lambda: receiver.count("/told") == 1, "its being told to wait")
    began = time.monotonic()
    machine.put(0)
    if restart:
        daemon.start()
    daemon.logged(r"[1-9]\d* tasks had times that are still to come", 75)
    # It might be this clock that is wrong: it has to have stood so for a minute.
    assert time.monotonic() - began > SETTLED
    goes_on(receiver, "/tick", 8)
    goes_on(receiver, "/fails", 10)
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
    assert daemon.log().count("had times that are still to come") == 1
    _, found = doctor(daemon)
    assert any("brought back" in finding["what"] for finding in found["clock"])


def test_a_clock_that_is_behind_makes_no_call_of_a_slot_again(
    make_daemon: MakeDaemon, receiver: Receiver, machine: TurnedMachine
) -> None:
    """It is taken for right after a minute, some seconds before the last slot that was made."""
    daemon = make_daemon(environ=machine.environ)
    declare(daemon, receiver)
    slot = "{{ task.scheduled_at.timestamp() }}"
    daemon.endpoint("tick/now", "/tick", schedule={"every": "1s"}, query={"slot": slot})
    daemon.start()

    def slots() -> list[float]:
        return [float(request.query["slot"]) for request in receiver.received("/tick")]

    until(lambda: len(slots()) >= 12, "some slots", 20)
    machine.put(-70)
    daemon.logged("stays back by", 20)
    last = max(slots())
    # Those before the first one have had no call; nor have those after the last one.
    until(lambda: max(slots()) >= last + 3, "the slots after the last one", 100)
    assert len(set(slots())) == len(slots())


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
    goes_on(receiver, "/tick", 10)
    goes_on(receiver, "/fails", 12)
    two.start()
    goes_on(receiver, "/tick", 8)
    for task in ids:
        due = two.task(task)["next_try"]
        assert due is None or from_rfc3339(due) / 1000 < time.time() + 60
    assert one.finish(told, 10)["status"] == "succeeded"
    # It is no matter which of them goes on.
    one.kill()
    goes_on(receiver, "/tick", 10)
    goes_on(receiver, "/fails", 15)
    assert one.log().count("ahead of the database's, which all daemons go by") == 1
    assert two.status()["clock"]["source"] == "database"
