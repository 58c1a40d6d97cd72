"""One alert for many failures: whatever is killed, each failure is in one batch, and each batch in
one delivery."""

from __future__ import annotations

import random
import sqlite3
import time
from collections import Counter
from typing import Any

import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon, retry
from tests.acceptance.receiver import Answer, Receiver
from tests.acceptance.waiting import until
from tests.postgres import Postgres

pytestmark = pytest.mark.slow

WRONG = Answer(400, '{"error": {"message": "no column Foo"}}', {"Content-Type": "application/json"})


def declare(daemon: Daemon, receiver: Receiver, batch: dict[str, Any]) -> None:
    receiver.reply("/a", lambda request: WRONG)
    receiver.reply("/b", lambda request: WRONG)
    receiver.reply("/hook", lambda request: Answer(204))
    alert = {
        "name": "alert", "phase": "on_final_failure", "url": f"{receiver.url}/hook", "batch": batch
    }  # fmt: skip
    daemon.api("crm", receiver.url, webhooks=[alert], retry=retry(attempts=1), concurrency=50)
    for name in ("a", "b"):
        daemon.endpoint(f"crm/{name}", f"/{name}", params={"n": {}})


def told(receiver: Receiver) -> dict[str, dict[str, Any]]:
    """What each delivery said, by its webhook-id; all that have one say the same."""
    found: dict[str, dict[str, Any]] = {}
    for item in receiver.received("/hook"):
        said = item.json()
        assert found.setdefault(item.headers["webhook-id"], said) == said
    return found


def test_one_alert_for_the_first_5000(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    daemon = make_daemon()
    declare(daemon, receiver, {"every": "2m", "max": 5_000})
    daemon.start()
    daemon.batch("crm/a", [{"n": n} for n in range(5_000)])
    until(lambda: receiver.count("/hook") > 0, "the alert", 120)
    [said] = told(receiver).values()
    data = said["data"]
    assert data["count"] == 5_000
    assert data["counts"] == {
        "endpoint": {"crm/a": 5_000},
        "reason": {"not_retryable": 5_000},
        "status_code": {"400": 5_000},
    }
    assert [one["error"] for one in data["first"]] == ["400 Bad Request: no column Foo"] * 10
    rest = daemon.tasks(**data["filter"])
    assert len(rest) == 5_000
    assert {(task["endpoint"], task["status"]) for task in rest} == {("crm/a", "failed")}
    [delivery] = daemon.tasks(kind="webhook")
    assert delivery["params"] == data["filter"]
    shown = daemon.ctl("list", "--batch", str(data["batch"]), "--limit", "1").out
    assert "no column Foo" in shown


@pytest.mark.parametrize("queue", ["sqlite", "postgres"])
def test_kill_9_loses_and_doubles_none(
    make_daemon: MakeDaemon, receiver: Receiver, queue: str, request: pytest.FixtureRequest
) -> None:
    settings: dict[str, Any] = {}
    if queue == "postgres":
        server: Postgres = request.getfixturevalue("postgres")
        settings = {"database": server.create(), "lease": 3}
    daemons = [make_daemon(**settings) for _ in range(2 if settings else 1)]
    for daemon in daemons:
        daemon.expect(r"a password is written out here")
        declare(daemon, receiver, {"every": "1s", "max": 40})
        daemon.start()
    calls = [daemons[0].batch(f"crm/{name}", [{"n": n} for n in range(150)]) for name in "ab"]
    ids = {id_ for made in calls for id_ in made}
    chance = random.Random(7)
    for _ in range(4):
        time.sleep(chance.uniform(0.05, 0.5))
        victim = chance.choice(daemons)
        victim.kill()
        victim.start()
    first = daemons[0]
    first.settle(120, kind="call")

    def all_told() -> bool:
        return sum(said["data"]["count"] for said in told(receiver).values()) >= len(ids)

    until(all_told, "all alerts", 30)
    first.settle()
    found = told(receiver)
    members: Counter[int] = Counter()
    for said in found.values():
        data = said["data"]
        assert 0 < data["count"] <= 40
        assert sum(data["counts"]["endpoint"].values()) == data["count"]
        batch = [task["id"] for task in first.tasks(**data["filter"])]
        assert len(batch) == data["count"]
        assert {one["task_id"] for one in data["first"]} <= set(batch)
        members.update(batch)
    assert members == Counter(ids)
    assert len({said["data"]["batch"] for said in found.values()}) == len(found)
    # How the webhooks fare is from the table: of all daemons, and after they were killed.
    deliveries = first.tasks(kind="webhook")
    deaths = sum(task["deaths"] for task in deliveries)  # of a daemon, with an attempt in flight
    attempts = sum(task["attempts"] for task in deliveries) + deaths
    first.kill()
    first.start()
    fare = [one for one in first.get("/v1/webhooks").json()["webhooks"] if one["attempts"]]
    assert sum(one["attempts"] for one in fare) == attempts
    assert sum(one["failed_attempts"] for one in fare) == deaths
    whole = {one["success_rate"] for one in fare if not one["failed_attempts"]}
    assert whole <= {1.0}
    page = first.get("/webhooks").text
    for one in fare:
        said = f" of {one['attempts']}<" if one["failed_attempts"] else f"<span>{one['attempts']}<"
        assert said in page


def test_what_failed_while_a_webhook_was_disabled_is_replayed(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    """As after `disable_after`, which takes five days."""
    receiver.on("/get", 200)
    receiver.on("/hook", 204)
    daemon = make_daemon()
    hook = {"name": "ops", "phase": "on_success", "url": f"{receiver.url}/hook"}
    daemon.api("crm", receiver.url, webhooks=[{**hook, "disable_after": "5d"}])
    daemon.endpoint("crm/get", "/get")
    daemon.start()
    daemon.stop()
    with sqlite3.connect(daemon.database) as queue:
        queue.execute(
            "UPDATE webhooks SET disabled_reason = 'no success for 5d', disabled_at = 1, "
            "last_disabled_at = 1"
        )
    queue.close()
    daemon.start()
    for _ in range(3):
        daemon.finish(daemon.call("crm/get"))
    daemon.settle()
    kept = daemon.tasks(webhook="ops")
    assert [(one["status"], one["reason"], one["attempts"]) for one in kept] == [
        ("failed", "webhook_disabled", 0)
    ] * 3
    assert receiver.count("/hook") == 0
    enabled = daemon.ctl("webhooks", "enable", "crm/get", "ops", "--replay")
    assert enabled.code == 0
    assert "3 deliveries that failed since 1970" in enabled.err
    until(lambda: receiver.count("/hook") == 3, "what had failed")
    daemon.settle()
    assert {one["status"] for one in daemon.tasks(webhook="ops")} == {"succeeded"}
