"""The backoff is a floor: only an open breaker brings a task forward, and that costs nothing."""

from __future__ import annotations

import time
from collections import deque
from datetime import datetime
from typing import Any

import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon, retry
from tests.acceptance.receiver import Answer, Received, Receiver
from tests.acceptance.waiting import until
from tests.postgres import Postgres

pytestmark = pytest.mark.slow

BREAKER = {"failures": 5, "window": "1m"}


def ended(row: dict[str, Any]) -> float:
    """When an attempt ended, in seconds."""
    return seconds(row["started_at"]) + row["duration_ms"] / 1000


def seconds(text: str) -> float:
    """A time of the API."""
    return datetime.fromisoformat(text).timestamp()


def too_early(daemon: Daemon, ids: list[int]) -> list[str]:
    """The attempts that began before the delay of the one before was over, and do not say why."""
    found = []
    for id_ in ids:
        floor = 0.0
        for row in daemon.task(id_)["attempt_log"]:
            at = seconds(row["started_at"])
            if at < floor - 0.002 and "since a breaker closed" not in row["why"]:
                found.append(f"task {id_}, {floor - at:.1f} s: {row}")
            if row["delay"]:
                floor = ended(row) + row["delay"]
    return found


@pytest.mark.parametrize("status", [503, 429])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_receiver_that_refuses_is_tried_by_the_backoff(
    make_daemon: MakeDaemon, receiver: Receiver, status: int, workers: int
) -> None:
    """Deliveries and calls, with a breaker and without; none is brought forward."""
    receiver.on("/call", status)
    receiver.on("/hook", status)
    receiver.on("/", 200)
    daemon = make_daemon(workers=workers)
    daemon.api("shop", receiver.url)
    daemon.api("bare", receiver.url, breaker="off", pace="off")
    hook = {
        "name": "ops", "phase": "on_success", "url": f"{receiver.url}/hook",
        "retry": retry("2s", 4), "breaker": "off",
    }  # fmt: skip
    daemon.endpoint("shop/one", "/call", retry=retry("2s", 4))
    daemon.endpoint("bare/one", "/call", retry=retry("2s", 4))
    daemon.endpoint("shop/fine", "/", webhooks=[hook])
    with daemon.start():
        ids = [*daemon.batch("shop/one", [{}] * 30), *daemon.batch("bare/one", [{}] * 30)]
        for _ in range(10):
            daemon.call("shop/fine")
        until(lambda: len(daemon.tasks(kind="webhook")) == 10, "the deliveries")
        ids += [task["id"] for task in daemon.tasks(kind="webhook")]
        bare = [task["id"] for task in daemon.tasks(endpoint="bare/one")]
        for id_ in bare:
            assert daemon.finish(id_)["attempts"] == 4
        assert too_early(daemon, ids) == []
        for id_ in bare:
            first, *_, last = daemon.task(id_)["attempt_log"]
            assert seconds(last["started_at"]) - ended(first) >= 6 - 0.01


def test_what_comes_forward_when_a_breaker_closes_is_early_once_and_free(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    taken = 0
    """How many are answered 200 from now on."""

    def answer(request: Received) -> Answer:
        nonlocal taken
        taken -= 1
        return Answer(503 if taken < 0 else 200)

    receiver.reply("/down", answer)
    daemon = make_daemon()
    daemon.api("shop", receiver.url, breaker=BREAKER, concurrency=1)
    daemon.endpoint("shop/first", "/down", retry=retry("2s", 3))
    daemon.endpoint("shop/slow", "/down", retry=retry("1h", 3))

    def rows(id_: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = daemon.task(id_)["attempt_log"]
        return found

    with daemon.start():
        slow = daemon.batch("shop/slow", [{}] * 5)
        until(lambda: daemon.status()["breakers"], "the breaker")
        until(lambda: [len(rows(id_)) for id_ in slow] == [1] * 5, "one attempt of each")
        # The probe is served, and what comes forward by that fails again.
        taken = 1
        assert daemon.finish(daemon.call("shop/first"))["status"] == "succeeded"
        until(lambda: all(len(rows(id_)) > 1 for id_ in slow), "the early attempts")
        for id_ in slow:
            first, early = rows(id_)
            task = daemon.task(id_)
            assert (
                early["why"]
                == "early, since a breaker closed: costs no attempt, and waits as before"
            )
            assert task["attempts"] == 1
            assert seconds(task["next_try"]) >= ended(first) + 3_600 - 0.01
        assert too_early(daemon, slow) == []
        assert "early, since a breaker closed" in daemon.ctl("show", str(slow[0])).out
        # Once for each attempt that counted.
        taken = 100
        assert daemon.finish(daemon.call("shop/first"))["status"] == "succeeded"
        # A person is not bound by it.
        assert daemon.ctl("retry", str(slow[0]), "--wait").code == 0
        assert daemon.task(slow[0])["attempts"] == 2
        assert [len(rows(id_)) for id_ in slow] == [3, 2, 2, 2, 2]
        daemon.expect("breaker", "answers 503")


def test_a_restart_leaves_the_delay_as_it_is(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    receiver.on("/down", 503, 200)
    daemon = make_daemon()
    daemon.api("shop", receiver.url)
    daemon.endpoint("shop/one", "/down", retry=retry("3s", 3))
    with daemon.start():
        id_ = daemon.call("shop/one")
        until(lambda: daemon.task(id_)["attempts"] == 1, "the first attempt")
        daemon.kill()
        daemon.start()
        assert daemon.finish(id_)["status"] == "succeeded"
        assert too_early(daemon, [id_]) == []


def test_a_slowed_lane_says_so(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    """In status and metrics; a reload with `pace: off` ends it."""
    times = deque[float]()

    def serves(request: Received) -> Answer:
        now = time.monotonic()
        while times and times[0] < now - 1:
            times.popleft()
        if len(times) >= 20:
            return Answer(429)
        times.append(now)
        return Answer(200)

    receiver.reply("/", serves)
    daemon = make_daemon()
    daemon.api("shop", receiver.url)
    daemon.endpoint("shop/one", "/one", retry=retry("200ms", 1000))
    with daemon.start():
        daemon.batch("shop/one", [{}] * 2_000)

        def slowed() -> Any:
            [lane] = [one for one in daemon.status()["lanes"] if one["name"] == "api:shop"]
            return lane["overload"]

        found = until(slowed, "a slower pace", 20)
        assert found["rate"] > 0
        # Between two cuts a look may have found one in vain, which ends it for a moment.
        until(lambda: "overload, since" in daemon.ctl("status").out, "status")
        gauge = 'orchestratord_throttled{cause="overload"} 1.0'
        until(lambda: gauge in daemon.get("/metrics").text, "metrics")
        daemon.api("shop", receiver.url, pace="off")
        until(lambda: not slowed(), "pace: off", 20)
        daemon.expect("WARNING")


def test_in_a_fleet_the_delay_holds_whichever_daemon_tries(
    make_daemon: MakeDaemon, receiver: Receiver, postgres: Postgres
) -> None:
    """One daemon is killed meanwhile, and a breaker opens and closes in each of the others."""
    taken = 0

    def answer(request: Received) -> Answer:
        return Answer(200 if taken else 503)

    receiver.reply("/down", answer)
    url = postgres.create()
    fleet = [make_daemon(database=url, lease="3s") for _ in range(3)]
    for daemon in fleet:
        daemon.expect("a password is written out here", "breaker", "dead daemon")
        daemon.api("shop", receiver.url, breaker=BREAKER)
        daemon.endpoint("shop/one", "/down", retry=retry("3s", 50))
        daemon.start()
    one, two, _ = fleet
    ids = one.batch("shop/one", [{}] * 60)
    until(lambda: two.status()["breakers"], "the breaker", 30)
    fleet[2].kill()
    taken = 1
    for id_ in ids:
        assert two.finish(id_, 60)["status"] == "succeeded"
    assert too_early(two, ids) == []
    for daemon in fleet[:2]:
        daemon.stop()
