"""`type: event`: what has happened succeeds as it is accepted, and goes to all its webhooks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon, retry
from tests.acceptance.receiver import Answer, Receiver
from tests.acceptance.waiting import until
from tests.postgres import Postgres

pytestmark = pytest.mark.slow

FIVE = [f"/hook{number}" for number in range(5)]
SCHEMA = {
    "type": "object",
    "required": ["id"],
    "properties": {"id": {"$ref": "#/$defs/id"}},
    "$defs": {"id": {"type": "integer", "minimum": 1}},
}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def daemon(
    request: pytest.FixtureRequest, make_shared: MakeDaemon, shared_receiver: Receiver
) -> Iterator[Daemon]:
    settings: dict[str, Any] = {}
    if request.param == "postgresql":
        postgres: Postgres = request.getfixturevalue("postgres")
        settings["database"] = postgres.create()
    daemon = make_shared(**settings)
    if request.param == "postgresql":
        daemon.expect(r"a password is written out here")
    for path in (*FIVE, "/book"):
        shared_receiver.on(path, Answer(200))
    url = shared_receiver.url
    webhooks = [
        {"phase": "on_success", "name": path[1:], "url": f"{url}{path}", "retry": retry()}
        for path in FIVE
    ]
    event = "apis/shop/endpoints"
    daemon.api("shop", url)
    daemon.write(f"{event}/paid.yaml", {"type": "event", "webhooks": webhooks})
    daemon.endpoint("shop/book", "/book", method="POST", params={"id": {"required": True}})
    follows = {"call": "shop/book", "params": {"id": "params.id"}}
    daemon.write(f"{event}/ordered.yaml", {"type": "event", "then": [follows]})
    further = {"call": "shop/ordered", "params": {"id": "body.id"}}
    daemon.endpoint("shop/list", "/list", then=[further])
    daemon.write("schemas/order.json", json.dumps(SCHEMA))
    checked = {"type": "event", "schema": {"file": "schemas/order.json"}}
    daemon.write(f"{event}/checked.yaml", checked)
    daemon.write(f"{event}/waiting.yaml", {"type": "event", "webhooks": webhooks[:1]})
    daemon.start()
    yield daemon
    daemon.stop()


def accept(daemon: Daemon, endpoint: str, params: Any, key: str | None = None) -> dict[str, Any]:
    headers = {} if key is None else {"Idempotency-Key": key}
    path = f"/v1/endpoints/{endpoint}/calls"
    answer = daemon.post(path, {"params": params}, headers=headers)
    assert answer.status_code in (200, 202), answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_one_event_goes_to_all_its_webhooks_each_with_its_own_retry(
    daemon: Daemon, shared_receiver: Receiver
) -> None:
    shared_receiver.forget()
    shared_receiver.on("/hook3", Answer(500), Answer(500), Answer(200))
    made = accept(daemon, "shop/paid", {"order": 7, "lines": [{"sku": "a"}]}, key="first")
    assert made["status"] == "succeeded"
    task = daemon.task(made["id"])
    assert (task["status"], task["last_status_code"], task["attempts"]) == ("succeeded", "ok", 0)
    assert task["finished_at"] is not None
    assert task["attempt_log"] == []
    children = daemon.tasks(kind="webhook", endpoint="shop/paid")
    assert sorted(child["webhook"] for child in children) == [path[1:] for path in FIVE]
    assert {child["parent_id"] for child in children} == {made["id"]}
    daemon.settle()
    assert [shared_receiver.count(path) for path in FIVE] == [1, 1, 1, 3, 1]
    data = json.loads(shared_receiver.received("/hook0")[0].body)["data"]
    assert (data["task_id"], data["status_code"]) == (made["id"], "ok")
    assert data["params"] == {"order": 7, "lines": [{"sku": "a"}]}
    again = accept(daemon, "shop/paid", {"order": 7, "lines": [{"sku": "a"}]}, key="first")
    assert again == made
    other = {"params": {"order": 8}}
    path = "/v1/endpoints/shop/paid/calls"
    refused = daemon.post(path, other, headers={"Idempotency-Key": "first"})
    assert refused.status_code == 422
    assert len(daemon.tasks(kind="webhook", endpoint="shop/paid")) == 5
    shown = daemon.ctl("show", str(made["id"])).out
    assert "succeeded" in shown


def test_calls_follow_from_events_and_events_from_calls(
    daemon: Daemon, shared_receiver: Receiver
) -> None:
    shared_receiver.on("/list", Answer(200, '{"id": "from a call"}'))
    ids = daemon.batch("shop/ordered", [{"id": f"o{number}"} for number in range(50)])
    assert len(ids) == 50
    daemon.call("shop/list")
    daemon.settle()
    calls = daemon.tasks(endpoint="shop/book")
    assert len(calls) == 51
    assert {call["parent_id"] for call in calls} >= set(ids)
    assert {call["params"]["id"] for call in calls} >= {"o0", "o49", "from a call"}
    [event] = [one for one in daemon.tasks(endpoint="shop/ordered") if one["id"] not in ids]
    assert (event["status"], event["params"]) == ("succeeded", {"id": "from a call"})


def test_what_cannot_follow_is_a_failure_that_can_be_retried(daemon: Daemon) -> None:
    """`id` is required by what is called; the event is kept, and nothing of it is half done."""
    made = accept(daemon, "shop/ordered", {"no": "id"})
    daemon.settle()
    task = daemon.task(made["id"])
    assert (task["status"], task["reason"]) == ("failed", "not_retryable")
    assert "is required" in task["last_error"]
    assert not daemon.tasks(parent=made["id"])


def test_the_schema_refuses_what_is_otherwise(daemon: Daemon) -> None:
    path = "/v1/endpoints/shop/checked/calls"
    assert accept(daemon, "shop/checked", {"id": 3})["status"] == "succeeded"
    answer = daemon.post(path, {"params": {"id": 0}})
    assert answer.status_code == 422
    assert "less than the minimum" in answer.text
    batch = daemon.post(path, {"batch": [{"id": 1}, {}]})
    assert batch.status_code == 422
    assert "batch.1.params" in batch.text
    daemon.write("schemas/order.json", '{"required": ["other"]}')
    until(lambda: daemon.post(path, {"params": {"id": 3}}).status_code == 422, "the new schema")
    daemon.write("schemas/order.json", json.dumps(SCHEMA))
    until(lambda: daemon.post(path, {"params": {"id": 3}}).status_code == 202, "the old schema")


def test_what_is_paused_or_delayed_waits(daemon: Daemon, shared_receiver: Receiver) -> None:
    shared_receiver.forget()
    assert daemon.post("/v1/endpoints/shop/waiting/pause").status_code == 200
    made = accept(daemon, "shop/waiting", {"n": 1})
    assert made["status"] == "pending"
    assert daemon.task(made["id"])["status"] == "pending"
    assert daemon.post("/v1/endpoints/shop/waiting/resume").status_code == 200
    later = daemon.call("shop/waiting", "100ms", n=2)
    daemon.settle()
    for task_id in (made["id"], later):
        task = daemon.task(task_id)
        assert (task["status"], task["last_status_code"]) == ("succeeded", "ok")
    assert shared_receiver.count("/hook0") == 2
    assert daemon.ctl("call", "shop/waiting", "-p", "n=3", "--wait").code == 0
    forced = daemon.post(f"/v1/retries/{made['id']}/trigger", {"force": True})
    assert forced.status_code == 202
    daemon.settle()
    until(lambda: shared_receiver.count("/hook0") == 4, "the delivery of what was forced")


def test_the_file_is_checked(daemon: Daemon) -> None:
    """Each problem of a key that means nothing, with the remedy."""
    broken = {
        "type": "event",
        "retry": {"max_attempts": 3},
        "schedule": {"every": "1h"},
        "webhooks": [{"phase": "after_request", "url": "https://example.com/hook"}],
        "then": [{"call": "shop/book", "params": {"id": "body.id"}}],
    }
    answer = daemon.get("/v1/endpoints/shop/paid/explain", phase="on_success")
    assert answer.status_code == 200, answer.text
    happening = [one["name"] for one in answer.json()["consequences"] if one["happens"]]
    assert happening == [path[1:] for path in FIVE]
    path = daemon.write("apis/shop/endpoints/broken.yaml", broken)
    try:
        refused = daemon.ctl("reload")
        assert refused.code == 78
        for words in (
            "retry: means nothing for `type: event`: an event cannot fail",
            "schedule: means nothing for `type: event`",
            "webhooks.0.phase: an event has no phase after_request: write phase: on_success",
            "then.0.params.id: an event has no body: its data is in `params`",
        ):
            assert words in refused.err, refused.err
    finally:
        path.unlink()
        daemon.expect(r"the configuration is refused", r"broken\.yaml")
