"""`orchestratord doctor` on daemons that run, have refused their files, or were killed."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from typing import Any

import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon, retry
from tests.acceptance.receiver import Receiver
from tests.acceptance.waiting import until

pytestmark = pytest.mark.slow


def doctor(daemon: Daemon) -> tuple[int, dict[str, list[dict[str, Any]]]]:
    """The exit code, and what was found by each check."""
    ended = daemon.run("doctor", "-o", "json")
    assert ended.err == ""
    found: dict[str, list[dict[str, Any]]] = {}
    for finding in ended.json()["findings"]:
        found.setdefault(finding["check"], []).append(finding)
    return ended.code, found


def statuses(findings: list[dict[str, Any]]) -> list[str]:
    return [finding["status"] for finding in findings]


def test_a_daemon_that_runs(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    daemon.start()
    code, found = doctor(daemon)
    assert code == 0
    for check in ("config", "plugins", "socket", "daemon"):
        assert statuses(found[check]) == ["ok"], found[check]
    assert f"pid {daemon.pid}" in found["daemon"][0]["what"]
    whole, held = found["database"]
    assert whole["status"] == "ok"
    assert str(daemon.database) in whole["what"]
    assert held["what"] == f"the daemon with pid {daemon.pid} holds it"
    assert held["status"] == "ok"
    assert f"the daemon, pid {daemon.pid}," in found["open files"][0]["what"]


def test_a_daemon_that_has_refused_its_files(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    daemon.start()
    daemon.api("shop", "https://shop.example.com")
    daemon.expect("ERROR config: ")
    daemon.write("apis/shop/endpoints/a.yaml", "pth: /a\n")
    until(lambda: daemon.status()["config"]["error"], "the refusal")
    code, found = doctor(daemon)
    assert code == 1
    assert statuses(found["config"]) == ["fail"]
    assert "pth: unknown key" in found["config"][0]["what"]
    told = found["daemon"][-1]
    assert told["status"] == "fail"
    assert "generation 1 goes on" in told["what"]


def test_what_fails_is_named_with_what_to_say_next(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    daemon = make_daemon()
    daemon.api("shop", receiver.url, retry=retry(delay="1h", attempts=1))
    hook = {"name": "ops", "phase": "on_final_failure", "url": f"{receiver.url}/hook"}
    receiver.on("/order", *[500] * 12, 200)
    receiver.on("/hook", *[503] * 12, 204)
    params = {"n": {"type": "integer"}}
    keys = {"params": params, "method": "POST", "idempotent": True}
    daemon.endpoint("shop/order", "/order", **keys, webhooks=[{**hook, "retry": retry(delay="1h")}])
    daemon.start()
    assert statuses(doctor(daemon)[1]["failing"]) == ["ok"]
    first, *_ = daemon.batch("shop/order", [{"n": n} for n in range(12)])
    until(lambda: receiver.count("/hook") == 12, "the deliveries")
    until(lambda: not daemon.tasks(status="running"), "the end of them")
    daemon.kill()  # nothing of it is only in memory
    daemon.start()
    until(lambda: len(daemon.status()["failing"]) == 2, "that both fail")
    code, found = doctor(daemon)
    assert code == 1
    failing = {finding["what"].partition(" fail ")[0]: finding for finding in found["failing"]}
    assert statuses(found["failing"]) == ["fail", "fail"]
    calls, deliveries = failing["calls of shop/order"], failing["deliveries of ops of shop/order"]
    assert "12 failed: exhausted, 500 " in calls["what"]
    assert "12 tried again: 503 " in deliveries["what"]
    assert deliveries["remedy"].endswith(
        "list --endpoint shop/order --webhook ops --status pending"
    )
    # What it says is what helps.
    words = calls["remedy"].partition("orchestratorctl ")[2].removesuffix(" --rate 10/s").split()
    assert daemon.ctl(*words).code == 0
    daemon.finish(first)
    until(
        lambda: [one["webhook"] for one in daemon.status()["failing"]] == ["ops"],
        "the deliveries alone",
    )
    shown = daemon.ctl("show", str(first)).out
    sent = receiver.received("/order")[0].headers["idempotency-key"]
    assert f"Idempotency-Key  {sent}" in shown


def test_a_daemon_that_was_killed(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    daemon.start()
    daemon.kill()
    before = {path.name: path.stat().st_size for path in daemon.home.iterdir()}
    code, found = doctor(daemon)
    assert code == 0
    assert "was left behind" in found["socket"][0]["what"]
    assert "daemon" not in found
    # What is left of its journal is read, and left for the next daemon.
    (whole,) = found["database"]
    assert whole["status"] == "ok"
    assert {path.name: path.stat().st_size for path in daemon.home.iterdir()} == before
    daemon.start()


def test_a_daemon_at_another_socket(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    daemon.start()
    daemon.write("orchestratord.yaml", {**daemon.settings, "control_socket": "elsewhere.sock"})
    _, found = doctor(daemon)
    assert "no daemon runs" in found["socket"][0]["what"]
    assert "daemon with pid" in found["database"][1]["what"]
    assert found["database"][1]["status"] == "warn"


def test_a_damaged_database_beside_a_daemon_that_does_not_start(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    daemon.start()
    assert daemon.stop() == 0
    with closing(sqlite3.connect(daemon.database)) as connection:
        (page,) = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'retry_schedule'"
        ).fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    with daemon.database.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(os.urandom(size))
    code, found = doctor(daemon)
    assert code == 1
    assert statuses(found["database"]) == ["fail"]
    assert "backup" in found["database"][0]["remedy"]
