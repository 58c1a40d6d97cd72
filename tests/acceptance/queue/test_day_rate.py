"""A rate of a day is counted in the queue, whatever is removed from it, and over each start."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import psycopg
import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.receiver import Receiver
from tests.acceptance.waiting import until
from tests.postgres import Postgres

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("queue", ["sqlite", "workers", "postgres", "moved"])
def test_no_more_begin_in_a_day(
    make_daemon: MakeDaemon, receiver: Receiver, queue: str, request: pytest.FixtureRequest
) -> None:
    settings: dict[str, Any] = {}
    server: Postgres = request.getfixturevalue("postgres")
    if queue == "postgres":
        settings = {"database": server.create(), "lease": 3}
    elif queue == "workers":
        settings = {"workers": 2}
    daemon = make_daemon(**settings)
    daemon.expect("the supervisor has died")
    daemon.api("shop", receiver.url, rate_limit="5/d")
    daemon.endpoint("shop/get", "/get", params={"n": {}})
    daemon.start()
    receiver.on("/get", 200)
    daemon.batch("shop/get", [{"n": n} for n in range(3)])
    until(lambda: receiver.count("/get") == 3, "the first calls")
    # Nothing but the count is left of them, as after a short `retention`.
    daemon.stop()
    with closing(
        psycopg.connect(settings["database"])
        if queue == "postgres"
        else sqlite3.connect(daemon.database)
    ) as connection:
        connection.execute("DELETE FROM attempts")
        connection.execute("DELETE FROM retry_schedule")
        connection.commit()
    if queue == "moved":
        url = server.create()
        ran = daemon.run("move-queue", f"sqlite:///{daemon.database}", url)
        assert ran.code == 0, ran.err
        daemon.write("orchestratord.yaml", {**daemon.settings, "database": url, "lease": 3})
    daemon.start()
    ids = daemon.batch("shop/get", [{"n": n} for n in range(5)])
    until(lambda: receiver.count("/get") == 5, "what is left of the day")
    lane = until(lambda: _used_up(daemon), "the lane that waits")
    assert (lane["rate"]["limit"], lane["rate"]["used"]) == ("5/d", 5)
    until(lambda: not daemon.tasks(status="running"), "the end of the two that began")
    waiting = [daemon.get(f"/v1/retries/{id_}").json() for id_ in ids]
    assert sorted(task["status"] for task in waiting) == ["pending"] * 3 + ["succeeded"] * 2
    daemon.kill()
    daemon.start()
    until(lambda: _used_up(daemon), "the lane that still waits")
    assert receiver.count("/get") == 5


def _used_up(daemon: Any) -> Any:
    lanes = daemon.status()["lanes"]
    return next((one for one in lanes if one["name"] == "api:shop" and one["rate"]["next"]), None)
