"""What happens to thousands at once is one line of the log, with the number."""

from __future__ import annotations

import re
import signal
import time

import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon, retry
from tests.acceptance.receiver import Receiver
from tests.acceptance.waiting import until
from tests.postgres import Postgres

pytestmark = pytest.mark.slow

WAITING = 400
AWAY = 8.0
"""Seconds for which the database is away: each part of the daemon has tried several times."""


def warnings(daemon: Daemon) -> list[str]:
    return [line for line in daemon.log().splitlines() if re.search(r" (WARNING|ERROR) ", line)]


def test_one_line_for_all_deliveries_of_a_webhook_that_is_gone(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    receiver.on("/get", 200)
    receiver.on("/hook", 404)
    daemon = make_daemon()
    daemon.api("shop", receiver.url, concurrency=50)
    hook = {"name": "told", "phase": "on_success", "url": f"{receiver.url}/hook"}
    daemon.endpoint("shop/get", "/get", webhooks=[{**hook, "retry": retry("1h")}])
    daemon.start()
    daemon.batch("shop/get", [{}] * WAITING)
    until(lambda: receiver.count("/hook") == WAITING, "the first tries")
    receiver.on("/hook", 410)
    daemon.call("shop/get")
    until(lambda: not daemon.status()["queue"]["pending"], "the end of all deliveries")
    daemon.logged(rf"WARNING worker: {WAITING} waiting tasks have failed: .*told.* \({WAITING}\)")
    assert len(warnings(daemon)) == 2, "that, and the delivery that was answered by 410"


@pytest.mark.parametrize("workers", [1, 2])
def test_one_line_for_a_database_that_is_away_and_one_that_it_is_back(
    make_daemon: MakeDaemon, receiver: Receiver, workers: int
) -> None:
    receiver.on("/get", 200)
    with Postgres() as server:
        daemon = make_daemon(database=server.create(), workers=workers)
        daemon.api("shop", receiver.url)
        daemon.endpoint("shop/get", "/get", retry=retry(), schedule={"every": "1s"})
        daemon.endpoint("shop/later", "/get")
        daemon.start()
        daemon.batch("shop/later", [{}] * 20)
        before = len(warnings(daemon))

        def say(words: str) -> int:
            return sum(words in line for line in warnings(daemon)[before:])

        server.stop(signal.SIGQUIT)
        until(lambda: daemon.get("/readyz").status_code == 503, "that it is away")
        # A worker without work sees it by its sign of life.
        until(lambda: say("cannot be reached") >= workers, "that all workers say so")
        time.sleep(AWAY)
        server.start()
        until(lambda: daemon.get("/readyz").status_code == 200, "that it is back")
        assert daemon.finish(daemon.call("shop/later"))["status"] == "succeeded"
        until(lambda: say("the database is back") >= workers, "that all workers say so")
        told = "\n".join(warnings(daemon)[before:])
        assert say("cannot be reached") == say("the database is back") == workers, told
        assert len(told.splitlines()) == 2 * workers, told


def test_a_line_of_a_call_is_short(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    receiver.on("/get", 200)
    receiver.on("/busy", 503)
    daemon = make_daemon(egress={"allow": ["127.0.0.0/8"]})
    daemon.api("salesforce", receiver.url)
    slow = {"strategy": "exponential", "delay": "50ms", "factor": 1.5}
    for name, path in (("getUsers", "/get"), ("getAccounts", "/busy")):
        daemon.endpoint(f"salesforce/{name}", path, retry={"backoff": slow, "max_attempts": 3})
    daemon.api("nobody", "http://127.0.0.1:9")
    daemon.endpoint("nobody/answers", "/get", retry={"backoff": slow, "max_attempts": 3})
    daemon.start()
    for name in ("salesforce/getUsers", "salesforce/getAccounts", "nobody/answers"):
        daemon.finish(daemon.call(name))
    daemon.logged("call 3 .*failed")
    lines = [one for one in daemon.log().splitlines() if " INFO worker: call " in one]
    assert len(lines) == 1 + 2 + 2
    assert max(len(line.encode()) for line in lines) <= 120, lines
