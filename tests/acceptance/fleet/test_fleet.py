"""Several daemons on one PostgreSQL."""

from __future__ import annotations

import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from tests.acceptance.commands.test_doctor import doctor
from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon, retry
from tests.acceptance.receiver import Answer, Received, Receiver
from tests.acceptance.waiting import until
from tests.postgres import Postgres

pytestmark = pytest.mark.slow

LEASE = 3.0
UNREACHABLE = (r"the database cannot be reached", r"claiming failed", r"cannot write task \d+ \(")


@pytest.fixture
def database(postgres: Postgres) -> Iterator[str]:
    url = postgres.create()
    yield url
    postgres.drop(url)


MakeFleet = Callable[..., list[Daemon]]


@pytest.fixture
def make_fleet(database: str, make_daemon: MakeDaemon, receiver: Receiver) -> MakeFleet:
    """So many daemons on one database, which declare the same, and are not started."""

    def make(count: int, **settings: Any) -> list[Daemon]:
        settings.setdefault("lease", LEASE)
        fleet = [make_daemon(database=database, **settings) for _ in range(count)]
        for daemon in fleet:
            daemon.api("crm", receiver.url)
            daemon.expect(r"a password is written out here")
            daemon.endpoint("crm/get", "/get/{{ params.n }}", params={"n": {"type": "integer"}},
                            retry=retry())  # fmt: skip
        return fleet

    return make


def names(daemon: Daemon) -> list[int]:
    return sorted(row["pid"] for row in daemon.status()["daemons"] if row["alive"])


def test_they_share_the_work_and_know_each_other(
    make_fleet: MakeFleet, receiver: Receiver, database: str, postgres: Postgres
) -> None:
    paths = {f"/get/{n}": 1 for n in range(200)}
    for path in paths:
        receiver.hold(path)
    # A machine that stands still for two seconds is no reason for one to take over from the other.
    one, two = make_fleet(2, lease=2 * LEASE)
    for daemon in (one, two):
        daemon.start()
    until(lambda: names(one) == names(two) == sorted([one.pid, two.pid]), "their meeting")
    assert "***@" in one.status()["database"]["url"]
    until(lambda: all(d.status()["database"]["listening"] for d in (one, two)), "listening")
    ids = one.batch("crm/get", [{"n": n} for n in range(200)])
    assert len(ids) == 200
    # Ten of an API are in flight in each of them, and none ends before both have theirs: however
    # late one begins, the other one cannot do it all.
    until(lambda: receiver.count() == 20, "what both have in flight")
    for path in paths:
        receiver.let_go(path)
    until(lambda: one.status()["queue"]["succeeded"] == 200, "all calls")
    assert Counter(item.path for item in receiver.received()) == paths

    def logged() -> list[int]:
        return [daemon.log().count(", succeeded") for daemon in (one, two)]

    until(lambda: sum(logged()) == 200, "all of them in the logs")  # written a moment later
    assert min(logged()) >= 10, logged()
    # What one is told holds for all.
    one.ctl("pause", "crm/get")
    until(lambda: two.status()["paused"] == ["crm/get"], "the pause")
    receiver.on("/get/1000", 200)
    # `status` reads the table; what the other daemon does follows within a moment.
    waiting = two.call("crm/get", "500ms", n=1000)
    time.sleep(1)
    assert receiver.count("/get/1000") == 0
    two.ctl("resume", "crm/get")
    until(lambda: receiver.count("/get/1000") == 1, "the call after the pause")
    assert two.task(waiting)["attempts"] == 1
    assert two.stop() == 0
    until(lambda: names(one) == [one.pid], "its leave")
    for daemon in (one, two):
        assert "s3cret" not in daemon.log()


def test_what_a_killed_one_held_is_taken_over(make_fleet: MakeFleet, receiver: Receiver) -> None:
    receiver.hold("/get/1")
    one, two = make_fleet(2)
    one.start()
    id_ = one.call("crm/get", n=1)
    until(lambda: receiver.count("/get/1") == 1, "the first attempt")
    two.start()
    time.sleep(LEASE + 1)  # its lease is renewed: nobody takes it over
    assert two.task(id_)["attempts"] == 1
    one.kill()
    killed = time.monotonic()
    receiver.let_go("/get/1")
    until(lambda: two.task(id_)["status"] == "succeeded", "the second attempt")
    assert time.monotonic() - killed < LEASE + 30
    task = two.task(id_)
    assert (task["attempts"], task["deaths"]) == (1, 1)
    assert "took over from a dead daemon" in two.log()
    until(lambda: names(two) == [two.pid], "its being missed")


DEADLY = """
import asyncio, os
from orchestratord import hookimpl

@hookimpl
async def before_request(request, task):
    if task.params["n"] >= 100:
        await asyncio.sleep(0.5)
        os._exit(9)
"""


def test_what_kills_one_daemon_after_the_other_is_found_and_no_innocent_one(
    make_fleet: MakeFleet, receiver: Receiver, database: str
) -> None:
    """Its neighbours are under way in the same daemon when it strikes, and taken over by others."""
    fleet = make_fleet(2, plugins={"dirs": ["plugins"]})
    innocent, deadly = range(6), (100, 101)
    for n in innocent:
        receiver.reply(f"/get/{n}", lambda request: Answer(200, delay=2))
    for daemon in fleet:
        daemon.plugin("deadly", DEADLY)
        daemon.start()
    fleet[0].batch("crm/get", [{"n": n} for n in (*innocent, *deadly)])

    def found() -> bool:
        for daemon in fleet:
            assert daemon.process is not None
            if daemon.process.poll() is not None:
                assert daemon.process.returncode == 9
                daemon.launch()
        with psycopg.connect(database) as session:
            row = session.execute(
                "SELECT count(*) FROM retry_schedule WHERE status IN ('pending', 'running')"
            ).fetchone()
        return row == (0,)

    until(found, "the end of all calls", 150)
    for daemon in fleet:
        daemon.wait_ready()
    for task in fleet[0].tasks():
        ended = task["status"], task["reason"]
        if task["params"]["n"] in innocent:
            assert ended == ("succeeded", None)
        else:
            assert ended == ("failed", "poisoned")
            assert 3 <= task["deaths"] <= 6


def test_a_start_counts_what_living_daemons_declare(
    make_fleet: MakeFleet, receiver: Receiver
) -> None:
    one, two = make_fleet(2, lease=60)
    shutil.rmtree(two.config / "apis/crm")
    two.api("erp", receiver.url)
    two.endpoint("erp/get", "/")
    one.start()
    id_ = one.call("crm/get", 3600, n=1)
    two.start()
    assert two.task(id_)["status"] == "pending"
    assert (one.stop(), two.stop()) == (0, 0)
    two.expect(r"none of the endpoints with tasks waiting is declared: crm/get \(1\)")
    two.launch()
    assert two.wait() == 78
    one.start()
    two.start()
    # A reload that takes its own endpoints away is refused whatever others declare.
    two.call("erp/get", 3600)
    shutil.rmtree(two.config / "apis/erp")
    two.expect(r"the configuration is refused", r"is declared: erp/get")
    assert two.ctl("reload").code == 78
    assert two.ctl("reload", "--accept-removals").code == 0
    # A daemon that has crashed declares nothing, though its lease has not run out.
    one.kill()
    shutil.move(one.config / "apis/crm", one.config / "apis/new")
    one.expect(r"none of the endpoints with tasks waiting is declared: crm/get \(1\)")
    one.launch()
    assert one.wait() == 78


def test_the_server_may_go_away(
    make_fleet: MakeFleet, receiver: Receiver, database: str, postgres: Postgres
) -> None:
    def answer(request: Received) -> Answer:
        return Answer(200, delay=0.01)

    receiver.reply("/get/", answer)
    fleet = make_fleet(2)
    for daemon in fleet:
        daemon.expect(*UNREACHABLE)
        daemon.start()
    one, _ = fleet
    try:
        for turn in range(3):
            until(lambda: one.get("/readyz").status_code == 200, "its being back")
            one.batch("crm/get", [{"n": n} for n in range(turn * 100, turn * 100 + 100)])
            postgres.stop(signal.SIGQUIT)
            if turn == 1:
                until(lambda: one.get("/readyz").status_code == 503, "the daemon's saying so")
                assert "cannot be reached" in one.get("/readyz").text
                assert one.get("/healthz").status_code == 200
                _, found = doctor(one)
                assert "up at" in found["socket"][0]["what"]
                for check in ("database", "socket"):
                    assert "the database cannot be reached" in found[check][0]["what"]
            postgres.start()
    finally:
        if not postgres.answers():
            postgres.start()
    until(lambda: one.get("/readyz").status_code == 200, "the daemon's recovery")
    until(lambda: one.status()["queue"]["succeeded"] == 300, "all calls", 40)
    seen = Counter(item.path for item in receiver.received())
    assert len(seen) == 300
    # Twice came only what was under way as the server went.
    assert sum(seen.values()) - 300 <= 3 * 2 * 100
    for daemon in fleet:
        assert daemon.process is not None
        assert daemon.process.poll() is None


def test_a_file_can_be_edited_while_the_server_is_away(
    make_fleet: MakeFleet, receiver: Receiver, postgres: Postgres
) -> None:
    """The answer says that it is written, and it comes into force once the server is back."""
    [daemon] = make_fleet(1)
    daemon.expect(*UNREACHABLE, "reloading failed")
    daemon.start()
    before = daemon.status()["config"]["generation"]
    hook = {"name": "later", "phase": "on_success", "url": f"{receiver.url}/hook"}
    postgres.stop(signal.SIGQUIT)
    try:
        until(lambda: daemon.get("/readyz").status_code == 503, "the daemon's saying so")
        answer = daemon.request(
            "PUT", "/v1/endpoints/crm/get/webhooks",
            json={"webhooks": [hook]}, headers={"If-Match": "*"},
        )  # fmt: skip
        assert answer.status_code == 200, answer.text
        edit = answer.json()
        assert (edit["written"], edit["generation"]) == (True, before)
        [problem] = edit["problems"]
        assert "it is written, but not in force yet: the database cannot" in problem["message"]
        time.sleep(2)
    finally:
        postgres.start()
    until(lambda: daemon.get("/readyz").status_code == 200, "the server's return")
    until(lambda: daemon.status()["config"]["generation"] > before, "its being in force", 30)
    assert "Traceback" not in daemon.log()


def test_nobody_is_taken_for_dead_because_the_server_was_away(
    make_fleet: MakeFleet, receiver: Receiver, postgres: Postgres
) -> None:
    """For longer than the lease, which neither could renew."""
    paths = [f"/post/{n}" for n in range(20)]
    for path in paths:
        receiver.hold(path)
    one, two = make_fleet(2)
    for daemon in (one, two):
        daemon.expect(*UNREACHABLE)
        daemon.api("held", receiver.url)  # its only endpoint has all slots
        daemon.endpoint("held/post", "/post/{{ params.n }}", method="POST",
                        params={"n": {"type": "integer"}})  # fmt: skip
        daemon.start()
    until(lambda: len(names(one)) == len(names(two)) == 2, "their meeting")
    ids = one.batch("held/post", [{"n": n} for n in range(20)])
    until(lambda: receiver.count() == 20, "what both have in flight")
    postgres.stop(signal.SIGQUIT)
    try:
        time.sleep(LEASE + 1)
    finally:
        postgres.start()
    for daemon in (one, two):
        until(lambda daemon=daemon: daemon.get("/readyz").status_code == 200, "its return")  # type: ignore[misc]
    time.sleep(1)
    for path in paths:
        receiver.let_go(path)
    ended = [one.finish(id_) for id_ in ids]
    assert {(task["status"], task["reason"]) for task in ended} == {("succeeded", None)}
    assert receiver.count() == 20


def test_a_slot_makes_one_call_in_the_whole_fleet(
    make_fleet: MakeFleet, receiver: Receiver, database: str, postgres: Postgres
) -> None:
    receiver.on("/tick", 200)
    fleet = make_fleet(3)
    for daemon in fleet:
        daemon.endpoint("crm/tick", "/tick", schedule={"every": "1s", "overlap": "allow"})
        daemon.start()
    for daemon in fleet[:2]:
        time.sleep(2.2)
        daemon.restart()
    time.sleep(1.5)
    rows = postgres.run(
        database.rpartition("/")[2],
        "SELECT scheduled_at FROM retry_schedule WHERE endpoint_id = 'crm/tick' ORDER BY 1",
    )
    slots = [row[0] for row in rows]
    assert len(slots) >= 6
    assert slots == list(range(slots[0], slots[-1] + 1, 1000))


def test_who_has_an_older_schedule_stands_aside(
    make_fleet: MakeFleet, receiver: Receiver, database: str, postgres: Postgres
) -> None:
    receiver.on("/tick", 200)
    # One that gets no processor for so long counts as dead, and the other's schedule is in force.
    fleet = one, two = make_fleet(2, lease=2 * LEASE)
    for daemon in fleet:
        daemon.endpoint("crm/tick", "/tick", schedule={"every": "1s", "overlap": "allow"})
        daemon.expect(r"ignored the schedule of crm/tick as declared here")
        daemon.start()

    def slots() -> list[int]:
        rows = postgres.run(
            database.rpartition("/")[2],
            "SELECT scheduled_at FROM retry_schedule WHERE endpoint_id = 'crm/tick' ORDER BY 1",
        )
        return [row[0] for row in rows]

    until(lambda: len(names(one)) == len(names(two)) == 2, "their meeting")
    until(lambda: len(slots()) >= 2, "slots of the schedule that both have")
    two.endpoint("crm/tick", "/tick", schedule={"every": "2s", "overlap": "allow"})
    two.ctl("reload")
    until(lambda: "and this one makes no calls" in one.log(), "its standing aside", 60)
    one.restart()  # one that comes up with it does not mean it
    before = len(slots())
    until(lambda: len(slots()) >= before + 2, "slots of the newer one")
    later = slots()[before:]
    # A daemon that got no processor meanwhile leaves slots out; it makes none of another schedule.
    assert {slot % 2000 for slot in later} == {0}
    assert later == sorted(set(later))
    one.endpoint("crm/tick", "/tick", schedule={"every": "3s", "overlap": "allow"})
    one.ctl("reload")  # this one is newer still
    until(lambda: "and this one makes no calls" in two.log(), "the other one's")
    before = len(slots())
    until(lambda: len(slots()) >= before + 2, "slots of the newest one")
    assert {slot % 3000 for slot in slots()[before:]} == {0}


def test_what_one_lacks_is_left_to_the_others(make_fleet: MakeFleet, receiver: Receiver) -> None:
    receiver.on("/own", 200)
    one, two = make_fleet(2)
    two.endpoint("crm/own", "/own", schedule=None)
    for daemon in (one, two):
        daemon.start()
    shown = until(
        lambda: [d for d in two.status()["daemons"] if d["lacks"]["endpoints"]], "what one lacks"
    )
    assert [(d["pid"], d["lacks"]["endpoints"]) for d in shown] == [(one.pid, ["crm/own"])]
    two.ctl("pause", "crm/own")
    id_ = two.call("crm/own")
    time.sleep(1)
    assert one.task(id_)["status"] == "pending"
    two.ctl("resume", "crm/own")
    until(lambda: two.task(id_)["status"] == "succeeded", "its call")
    lines = one.ctl("status").out
    assert "lacks crm/own" in lines


def test_a_webhook_is_disabled_for_all(make_fleet: MakeFleet, receiver: Receiver) -> None:
    receiver.reply("/get/", lambda request: Answer(200))
    receiver.on("/hook", 200)
    fleet = make_fleet(2)
    hook = {"name": "ops", "phase": "on_success", "url": f"{receiver.url}/hook"}
    for daemon in fleet:
        daemon.endpoint("crm/get", "/get/{{ params.n }}", params={"n": {"type": "integer"}},
                        webhooks=[hook])  # fmt: skip
        daemon.start()
    one, two = fleet
    until(lambda: len(names(one)) == len(names(two)) == 2, "their meeting")
    assert one.ctl("webhooks", "disable", "crm/get", "ops").code == 0
    until(lambda: "ops" in two.ctl("webhooks").out and "disabled" in two.ctl("webhooks").out, "it")

    def made_by_two() -> bool:
        """Whether a call of the second one makes a delivery."""
        before = two.status()["queue"]
        id_ = two.call("crm/get", n=1)
        until(lambda: two.task(id_)["status"] == "succeeded", "the call")
        after = two.status()["queue"]
        return sum(after[s] for s in ("pending", "running", "succeeded", "failed")) > 1 + sum(
            before[s] for s in ("pending", "running", "succeeded", "failed")
        )

    until(lambda: not made_by_two(), "the other one's knowing it")
    assert one.ctl("webhooks", "enable", "crm/get", "ops").code == 0
    until(made_by_two, "the other one's knowing that, too")


def test_what_a_receiver_asks_of_one_holds_for_all(
    make_fleet: MakeFleet, receiver: Receiver
) -> None:
    """Retry-After is told to the others; an open breaker is each one's own, and shown by all."""
    one, two = make_fleet(2)
    for daemon in (one, two):
        daemon.endpoint("crm/busy", "/busy")
        daemon.endpoint("crm/down", "/down", retry=retry("200ms", 1000))
        daemon.start()
    until(lambda: len(names(one)) == len(names(two)) == 2, "their meeting")
    receiver.on("/busy", Answer(429, headers={"Retry-After": "3"}), Answer(200))
    busy = one.call("crm/busy")

    until(lambda: any(d["waiting"] for d in two.status()["daemons"]), "the other's knowing it", 2)
    receiver.reply("/get/", lambda request: Answer(200))
    ids = [daemon.call("crm/get", n=n) for n, daemon in enumerate((one, two) * 3)]
    waits = two.task(ids[-1])["waits"]
    assert (waits["for"], waits["lane"]) == ("retry_after", "api:crm")
    for id_ in (busy, *ids):
        assert one.finish(id_)["status"] == "succeeded"
    times = [item.at for item in receiver.received()]
    assert min(times[1:]) - times[0] >= 2.9
    assert [one.task(id_)["attempts"] for id_ in (busy, *ids)] == [2, *(1 for _ in ids)]

    # One that holds for a day is lifted by the other, and not told again by the one that got it.
    receiver.on("/busy", Answer(429, headers={"Retry-After": "86400"}), Answer(200))
    one.call("crm/busy")
    until(lambda: any(d["waiting"] for d in two.status()["daemons"]), "the other's knowing it", 2)
    assert "api:crm goes on." in two.ctl("resume", "api:crm").err
    until(lambda: not any(d["waiting"] for d in one.status()["daemons"]), "its end", 5)
    time.sleep(2.5)
    for daemon in (one, two):
        assert not any(d["waiting"] for d in daemon.status()["daemons"])
        assert daemon.finish(daemon.call("crm/get", n=9))["attempts"] == 1

    # Paused there, so that it is the first one alone that meets a receiver that is down.
    two.stop()
    receiver.on("/down", 503)
    one.batch("crm/down", [{}] * 20)
    until(lambda: one.status()["breakers"], "the breaker")
    two.start()
    shown = until(
        lambda: [d["waiting"] for d in two.status()["daemons"] if not d["this"] and d["waiting"]],
        "the breaker of the other one",
    )
    assert [lane["lane"] for lane in shown[0]] == ["crm/down"]
    assert shown[0][0]["breaker"]["why"].startswith("503 ")
    assert f"pid {one.pid} on " in two.ctl("status").out.partition("THROTTLED LANE")[2]
    receiver.on("/down", 200)

    def over() -> bool:
        one.call("crm/down")  # the probe, if it is not the other one who takes it
        return not any(d["waiting"] for d in two.status()["daemons"])

    until(over, "its end")


def test_a_rate_limit_is_for_all_together(make_fleet: MakeFleet, receiver: Receiver) -> None:
    receiver.reply("/get/", lambda request: Answer(200))
    one, two = make_fleet(2)
    for daemon in (one, two):
        daemon.api("crm", receiver.url, rate_limit="15/s", concurrency=50)
        daemon.api("erp", receiver.url, rate_limit="100/min")
        daemon.endpoint("erp/get", "/get/0")
        daemon.start()
    until(lambda: len(names(one)) == len(names(two)) == 2, "their meeting")
    one.batch("crm/get", [{"n": n} for n in range(60)])
    until(lambda: receiver.count() >= 60, "all calls")
    times = sorted(item.at for item in receiver.received())
    # With a rate for each of them it would be 0.5; a request that comes late makes it less than 1.
    assert min(b - a for a, b in zip(times, times[15:], strict=False)) > 0.6
    assert times[-1] - times[0] < 30

    def used(daemon: Daemon) -> list[int]:
        lanes = daemon.status()["lanes"]
        return [lane["rate"]["used"] for lane in lanes if lane["name"] == "api:erp"]

    for daemon in (one, two):
        daemon.batch("erp/get", [{}] * 10)
    until(lambda: used(one) == used(two) == [20], "all of them to be seen by both")


def test_a_rate_goes_along_with_a_queue_that_moves(
    make_fleet: MakeFleet, make_daemon: MakeDaemon, receiver: Receiver, database: str
) -> None:
    receiver.reply("/get/", lambda request: Answer(200))
    alone, fleet = make_daemon(), make_fleet(2)
    for daemon in (alone, *fleet):
        daemon.api("crm", receiver.url, rate_limit="10/min")
        daemon.endpoint("crm/get", "/get/{{ params.n }}", params={"n": {"type": "integer"}})
    alone.start()
    for id_ in alone.batch("crm/get", [{"n": n} for n in range(7)]):
        alone.finish(id_)
    assert alone.stop() == 0
    moved = alone.run("move-queue", f"sqlite:///{alone.database}", database)
    assert (moved.code, moved.out) == (
        0,
        "7 tasks are moved; set `database` to the new one\n",
    )
    for daemon in fleet:
        daemon.start()
    for daemon in fleet:
        daemon.batch("crm/get", [{"n": n} for n in range(10)])
    until(lambda: receiver.count() >= 10, "what is left of the rate")

    def used(daemon: Daemon) -> list[int]:
        return [lane["rate"]["used"] for lane in daemon.status()["lanes"]]

    assert used(fleet[0]) == used(fleet[1]) == [10]
    time.sleep(1)
    assert receiver.count() == 10
