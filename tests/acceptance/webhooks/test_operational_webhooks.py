"""Operational webhooks: who runs the daemon is told what happens in it, once, whatever happens."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon, retry
from tests.acceptance.receiver import Answer, Receiver
from tests.acceptance.waiting import until
from tests.postgres import Postgres

pytestmark = pytest.mark.slow

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def declare(daemon: Daemon, receiver: Receiver) -> None:
    hook = {"name": "gone", "phase": "on_success", "url": f"{receiver.url}/gone"}
    daemon.api("crm", receiver.url, webhooks=[hook])
    daemon.endpoint("crm/get", "/get")


def settings(receiver: Receiver, **more: Any) -> dict[str, Any]:
    webhook = {
        "name": "ops", "url": f"{receiver.url}/ops", "secret": SECRET,
        "batch": {"every": "1s", "max": 100}, "retry": retry(attempts=5),
    }  # fmt: skip
    egress = {"allow": [receiver.address]}
    return {"operational_webhooks": [webhook], "egress": egress, **more}


def told(receiver: Receiver) -> list[dict[str, Any]]:
    """The events of all deliveries that were taken, each delivery once."""
    found: dict[str, list[dict[str, Any]]] = {}
    for item in receiver.received("/ops"):
        assert item.headers["webhook-signature"].startswith("v1,")
        found[item.headers["webhook-id"]] = item.json()["data"]["first"]
    return [one for events in found.values() for one in events]


def test_what_happens_is_told_and_never_of_itself(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    receiver.on("/get", 200)
    receiver.on("/gone", 410)
    receiver.on("/ops", 410, 503, 200)
    daemon = make_daemon(**settings(receiver))
    daemon.expect(r"written out here", r"refused", r"get\.yaml:")
    declare(daemon, receiver)
    daemon.start()
    daemon.finish(daemon.call("crm/get"))
    until(lambda: receiver.count("/ops") >= 3, "the alert, in spite of a 410")
    [first] = told(receiver)
    assert (first["type"], first["endpoint"], first["webhook"]) == (
        "webhook.disabled", "crm/get", "gone",
    )  # fmt: skip
    assert first["text"] == "webhook.disabled: crm/get gone: the webhook is disabled: 410 Gone; " \
        "to deliver to it again: orchestratorctl webhooks enable crm/get gone"  # fmt: skip
    daemon.write("apis/crm/endpoints/get.yaml", {"pth": "/get"})
    until(lambda: len(told(receiver)) == 2, "what a reload was refused for")
    daemon.kill()
    declare(daemon, receiver)
    daemon.start()
    daemon.settle()
    assert [one["type"] for one in told(receiver)] == ["webhook.disabled", "config.refused"]
    rows = daemon.tasks(kind="webhook")
    ours = [task for task in rows if task["endpoint"] == "orchestratord"]
    assert [(task["webhook"], task["status"]) for task in ours] == [("ops", "succeeded")] * 2
    assert max(task["attempts"] for task in ours) == 3
    # A reload judges what tasks wait for: those that tell of the daemon are of no endpoint.
    assert daemon.run("check").code == 0


def test_they_are_seen_and_tried_where_others_are(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    receiver.on("/ops", 200, 400)
    daemon = make_daemon(**settings(receiver))
    daemon.expect(r"written out here")
    declare(daemon, receiver)
    daemon.start()
    assert daemon.ctl("webhooks", "test", "orchestratord", "ops").code == 0
    [example] = until(lambda: told(receiver), "the example")
    assert example["test"] is True

    def row() -> dict[str, Any] | None:
        rows = daemon.get("/v1/webhooks", endpoint="orchestratord").json()["webhooks"]
        return rows[0] if rows[0]["last_status_code"] else None

    shown = until(row, "how it fares")
    assert shown is not None
    about = [shown[name] for name in ("name", "phase", "enabled", "last_status_code", "failures")]
    assert about == ["ops", "operational", True, 200, 0]
    listed = daemon.ctl("webhooks").out
    assert "orchestratord" in listed
    assert f"{receiver.url}/ops" in listed
    assert "crm/get" in listed
    refused = daemon.ctl("webhooks", "disable", "orchestratord", "ops")
    assert refused.code == 5
    assert "the operational webhook ops is never disabled" in refused.err
    assert daemon.ctl("webhooks", "test", "orchestratord", "none").code == 4
    failed = daemon.ctl("webhooks", "test", "orchestratord", "ops", "-o", "json")
    assert (failed.code, failed.json()["last_status_code"]) == (1, 400)
    assert "with 400: 400 Bad Request" in failed.err
    failing = failed.json()["id"]
    assert daemon.finish(failing)["status"] == "failed"
    found = daemon.run("doctor")
    assert found.code == 1
    assert "deliveries of ops of orchestratord fail since" in found.out
    assert "orchestratorctl retry --all --endpoint orchestratord --webhook ops" in found.out
    listed = daemon.ctl("list", "--endpoint", "orchestratord", "--status", "failed").out
    assert str(failing) in listed
    page = daemon.get("/webhooks").text
    assert 'href="/retries?endpoint=orchestratord&amp;webhook=ops"' in page
    assert "failing" in page


def test_a_batch_says_how_the_rest_of_it_is_found(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    receiver.on("/ops", 200)
    given = settings(receiver)
    given["operational_webhooks"][0] |= {
        "events": ["endpoint.*"], "batch": {"every": "5m", "max": 24}
    }  # fmt: skip
    daemon = make_daemon(**given)
    daemon.expect(r"written out here")
    declare(daemon, receiver)
    daemon.start()
    for _ in range(12):
        daemon.post("/v1/endpoints/crm/get/pause")
        daemon.post("/v1/endpoints/crm/get/resume")
    data = until(lambda: receiver.received("/ops"), "the alert")[0].json()["data"]
    assert (data["count"], len(data["first"])) == (24, 10)
    batch = str(data["filter"]["batch"])
    daemon.settle()
    page = daemon.get(f"/v1/batches/{batch}", limit=20).json()
    rest = daemon.get(f"/v1/batches/{batch}", after=page["next"]).json()
    events = [one["event"] for one in (*page["members"], *rest["members"])]
    assert (len(page["members"]), len(events), rest["next"]) == (20, 24, None)
    assert events[:10] == data["first"]
    assert [one["type"] for one in events] == ["endpoint.paused", "endpoint.resumed"] * 12
    assert daemon.task(page["delivery"])["params"] == data["filter"]
    listed = daemon.ctl("list", "--batch", batch)
    assert listed.out.count("endpoint.paused: crm/get") == 12
    assert "There are more" in daemon.ctl("list", "--batch", batch, "--limit", "3").err
    assert daemon.ctl("list", "--batch", batch, "-o", "json").json()["members"] == [
        *page["members"], *rest["members"],
    ]  # fmt: skip
    assert daemon.get(f"/batches/{batch}").text.count("endpoint.resumed: crm/get") == 12
    assert daemon.ctl("list", "--batch", "4711").err == "No task matches.\n"


KILLER = """
import asyncio, os, pathlib, signal, sqlite3
from orchestratord import hookimpl

HOME = pathlib.Path(os.environ["HOME"])

def is_noted():
    url = (HOME / "queue").read_text()
    if not url.startswith("postgresql"):
        return sqlite3.connect(url).execute("SELECT 1 FROM throttles").fetchone()
    import psycopg
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT 1 FROM throttles").fetchone()

def kill_once_noted():
    if is_noted():
        os.kill(os.getpid(), signal.SIGKILL)
    asyncio.get_running_loop().call_later(0.005, kill_once_noted)

@hookimpl
def observe(events):
    for event in events:
        here = HOME / event.type
        if here.exists():
            continue
        if event.type in ("webhook.disabled", "partition.held", "bulk.finished"):
            here.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if event.type == "throttle.began":  # it is in memory first
            here.touch()
            kill_once_noted()
"""


@pytest.mark.parametrize("queue", ["sqlite", "postgres"])
def test_what_is_written_with_its_cause_outlives_a_kill(
    make_daemon: MakeDaemon, receiver: Receiver, queue: str, request: pytest.FixtureRequest
) -> None:
    """The daemon is killed as it hears of each event, before it can write anything more."""
    more: dict[str, Any] = {"plugins": {"dirs": ["plugins"]}, "lease": 3}
    if queue == "postgres":
        more["database"] = request.getfixturevalue("postgres").create()
    receiver.reply("/get", lambda request: Answer(200))
    receiver.reply("/held", lambda request: Answer(400))
    receiver.reply("/gone", lambda request: Answer(410))
    receiver.reply("/later", lambda request: Answer(429, headers={"Retry-After": "3600"}))
    receiver.reply("/ops", lambda request: Answer(200))
    daemon = make_daemon(**settings(receiver, **more))
    daemon.expect(r"written out here")
    daemon.plugin("killer", KILLER)
    queue_at = more.get("database") or str(daemon.database)
    (daemon.home / "queue").write_text(queue_at)
    declare(daemon, receiver)
    rule = {"by": "{{ params.account }}", "ordered": True, "on_failure": "hold"}
    daemon.endpoint("crm/held", "/held", params={"account": {}}, partition=rule, webhooks=[])
    daemon.endpoint("crm/later", "/later", webhooks=[])
    daemon.start()
    daemon.call("crm/get")
    assert daemon.wait() == -signal.SIGKILL
    daemon.start()
    held = daemon.call("crm/held", account="acme")
    assert daemon.wait() == -signal.SIGKILL
    daemon.start()
    daemon.post("/v1/retries/cancel", {"filter": {"id": [held], "status": "failed"}})
    assert daemon.wait() == -signal.SIGKILL
    daemon.start()
    daemon.call("crm/later")
    assert daemon.wait() == -signal.SIGKILL
    daemon.start()
    until(lambda: len(told(receiver)) >= 4, "all four")
    assert daemon.finish_none([], 1.5) == []
    about = [
        (one["type"], one.get("partition") or one.get("webhook") or one.get("scope"))
        for one in told(receiver)
    ]
    assert sorted(about, key=str) == [
        ("bulk.finished", None), ("partition.held", "acme"), ("throttle.began", "api:crm"),
        ("webhook.disabled", "gone"),
    ]  # fmt: skip


def test_a_replay_is_of_the_last_time_that_it_was_disabled(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    receiver.on("/get", 200)
    receiver.reply("/gone", lambda request: Answer(410))
    daemon = make_daemon(egress={"allow": [receiver.address]})
    declare(daemon, receiver)
    daemon.start()

    def disabled_by() -> int:
        [delivery] = daemon.deliveries(daemon.finish(daemon.call("crm/get"))["id"])
        task = daemon.finish(delivery["id"])
        assert (task["status"], task["reason"]) == ("failed", "webhook_disabled")
        return int(task["id"])

    nothing = daemon.ctl("webhooks", "enable", "crm/get", "gone", "--replay")
    assert "never was disabled" in nothing.err
    first = disabled_by()
    assert daemon.ctl("webhooks", "enable", "crm/get", "gone").code == 0
    second = disabled_by()
    receiver.reply("/gone", lambda request: Answer(204))
    hook = {"name": "gone", "phase": "on_success", "url": f"{receiver.url}/gone", "timeout": "9s"}
    daemon.api("crm", receiver.url, webhooks=[hook])  # which enables it, too
    daemon.reload()
    replayed = daemon.ctl("webhooks", "enable", "crm/get", "gone", "--replay")
    assert "1 delivery that failed since" in replayed.err
    assert "Not sent: 1 delivery that failed when it was disabled earlier" in replayed.err
    until(lambda: daemon.task(second)["status"] == "succeeded", "the delivery that is replayed")
    assert daemon.task(first)["status"] == "failed"


def test_once_for_all_daemons(
    make_daemon: MakeDaemon, receiver: Receiver, postgres: Postgres
) -> None:
    receiver.reply("/ops", lambda request: Answer(200))
    database = postgres.create()
    fleet = [make_daemon(**settings(receiver, database=database)) for _ in range(2)]
    for daemon in fleet:
        daemon.expect(r"written out here", r"refused", r"get\.yaml:")
        declare(daemon, receiver)
        daemon.start()
    for daemon in fleet:
        daemon.write("apis/crm/endpoints/get.yaml", {"pth": "/get"})
    for daemon in fleet:
        until(lambda d=daemon: "refused" in d.log(), "both to refuse it")  # type: ignore[misc]
    until(lambda: told(receiver), "the alert")
    assert fleet[0].finish_none([], 2.5) == []
    assert [one["type"] for one in told(receiver)] == ["config.refused"]
    # Mended, and broken again by the same: that is another time.
    for daemon in fleet:
        declare(daemon, receiver)
        until(lambda d=daemon: "files are good again" in d.log(), "it to be mended")  # type: ignore[misc]
    for daemon in fleet:
        daemon.write("apis/crm/endpoints/get.yaml", {"pth": "/get"})
    until(lambda: len(told(receiver)) > 1, "the next alert")
    assert fleet[0].finish_none([], 2.5) == []
    assert [one["type"] for one in told(receiver)] == ["config.refused"] * 2


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"url": "https://a.example/{{ params.id }}"}, "is not known in this template; known is now"),
    ({"events": ["breaker.open"]}, "did you mean 'breaker.opened'?"),
    ({"events": ["task.failed"]}, "is not an event of such webhooks"),
    ({"payload": "{{ phase }}"}, "is not known in this template; known are batch"),
    ({"phase": "on_retry"}, "unknown key"),
]


def test_what_check_says(make_daemon: MakeDaemon) -> None:
    webhooks = [
        {"name": f"hook{number}", "url": "https://ops.example/x", **keys}
        for number, (keys, _) in enumerate(WRONG)
    ]
    checked = make_daemon(operational_webhooks=webhooks).run("check")
    assert checked.code == 78
    for number, (_, problem) in enumerate(WRONG):
        [line] = [
            line for line in checked.err.splitlines() if f"operational_webhooks.{number}." in line
        ]
        assert line.startswith("orchestratord.yaml:")
        assert problem in line
