"""Operational webhooks: who runs the daemon is told what happens in it, once, whatever happens."""

from __future__ import annotations

from typing import Any

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon, retry
from tests.acceptance.receiver import Answer, Receiver
from tests.acceptance.waiting import until
from tests.postgres import Postgres

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


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"url": "https://a.example/{{ params.id }}"}, "is not known in this template; known is now"),
    ({"events": ["breaker.open"]}, "did you mean 'breaker.opened'?"),
    ({"events": ["task.failed"]}, "is not an event that is told of"),
    ({"payload": "{{ filter }}"}, "is not known in this template; known are batch"),
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
