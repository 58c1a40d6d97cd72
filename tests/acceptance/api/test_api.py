"""The API over the control socket: what is accepted, what is refused, and with which status."""

from __future__ import annotations

import asyncio
import json
import subprocess
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon, retry
from tests.acceptance.receiver import Answer, Connection, Received, Receiver
from tests.acceptance.waiting import PATIENCE, until

KEYS = {
    "id", "kind", "endpoint", "webhook", "phase", "status", "reason", "attempts", "max_attempts",
    "next_try", "params", "truncated", "parent_id", "partition", "last_status_code",
    "last_error", "created_at", "updated_at", "finished_at",
}  # fmt: skip


@pytest.fixture(scope="module")
def daemon(make_shared: MakeDaemon, shared_receiver: Receiver) -> Daemon:
    receiver = shared_receiver
    daemon = make_shared(defaults={"retry": retry("1h")})
    daemon.api("shop", receiver.url)
    daemon.api("queue", receiver.url)
    for path in ("/ok", "/batch"):
        receiver.on(path, 200)
    receiver.on("/fails", 503)
    receiver.on("/refuses", 400)
    typed = {
        "id": {"required": True},
        "limit": {"type": "integer", "default": 50},
        "flag": {"type": "boolean"},
        "items": {"type": "array"},
        "what": {"type": "object"},
        "price": {"type": "number"},
        "name": {"type": "string"},
    }
    daemon.endpoint("shop/typed", "/ok", params=typed)
    daemon.endpoint("shop/ok", "/ok", method="POST", params={"n": {}})
    daemon.endpoint("shop/fails", "/fails", params={"n": {}})
    daemon.endpoint("shop/refuses", "/refuses")
    daemon.endpoint("shop/off", "/ok", enabled=False)
    daemon.endpoint("queue/batch", "/batch", params={"n": {"type": "integer"}})
    hook = {"name": "hook", "phase": "on_success", "url": f"{receiver.url}/goes-on",
            "retry": retry("500ms")}  # fmt: skip
    receiver.on("/goes-on", 503, 204)
    daemon.endpoint("queue/paused", "/ok", params={"n": {}}, webhooks=[hook])
    return daemon.start()


def refused(answer: Any, status: int) -> dict[str, Any]:
    """The problem document of a refusal."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("application/problem+json")
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == status
    assert problem["detail"]
    return problem


def test_a_call_and_its_task(daemon: Daemon) -> None:
    answer = daemon.post("/v1/endpoints/shop/typed/calls", {"params": {"id": "x"}})
    assert answer.status_code == 202
    assert answer.json().keys() >= {"id", "status"}
    assert answer.json()["status"] == "pending"
    task = daemon.finish(answer.json()["id"])
    assert task.keys() >= KEYS | {"response", "attempt_log"}
    assert (task["kind"], task["endpoint"], task["webhook"]) == ("call", "shop/typed", None)
    nothing = dict.fromkeys(("flag", "items", "what", "price", "name"))
    assert task["params"] == {"id": "x", "limit": 50, **nothing}
    (attempt,) = task["attempt_log"]
    assert attempt.keys() >= {
        "attempt", "started_at", "duration_ms", "status_code", "error", "delay", "why"
    }  # fmt: skip
    (listed,) = [item for item in daemon.tasks(endpoint="shop/typed") if item["id"] == task["id"]]
    assert listed == {key: task[key] for key in listed}


@pytest.mark.parametrize(
    ("params", "names"),
    [
        ({}, ["id"]),
        ({"id": 1, "nosuch": 1}, ["nosuch"]),
        ({"id": 1, "limit": "many", "flag": "perhaps", "items": {}}, ["flag", "items", "limit"]),
        ({"id": 1, "limit": 1.5, "price": "1", "what": []}, ["limit", "price", "what"]),
        ({"id": 1, "limit": True, "name": 7}, ["limit", "name"]),
    ],
)
def test_params_that_do_not_fit(daemon: Daemon, params: Any, names: list[str]) -> None:
    problem = refused(daemon.post("/v1/endpoints/shop/typed/calls", {"params": params}), 422)
    assert sorted(item["key"] for item in problem["errors"]) == names


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"params": []}, 422),
        ({"params": {"n": 1}, "batch": [{}]}, 422),
        ({"nosuch": 1}, 422),
        ({"delay": "soon"}, 422),
        ({"delay": -1}, 422),
        ({"batch": [{}] * 10_001}, 422),
        ({"batch": [{"n": 1}, {"m": 1}]}, 422),
    ],
)
def test_bodies_that_make_no_sense(daemon: Daemon, body: Any, status: int) -> None:
    before = len(daemon.tasks(endpoint="shop/ok"))
    refused(daemon.post("/v1/endpoints/shop/ok/calls", body), status)
    assert len(daemon.tasks(endpoint="shop/ok")) == before


def test_what_is_no_json_or_not_there(daemon: Daemon) -> None:
    headers = {"Content-Type": "application/json"}
    answer = daemon.post("/v1/endpoints/shop/ok/calls", content=b"{", headers=headers)
    refused(answer, 400)
    refused(daemon.post("/v1/endpoints/shop/nosuch/calls", {}), 404)
    for path in ("", "/webhooks"):  # the core's words, and the webhooks plugin's
        problem = refused(daemon.get(f"/v1/endpoints/shop/nosuch{path}"), 404)
        assert problem["detail"] == "there is no endpoint shop/nosuch"
    refused(daemon.get("/v1/retries/999999999"), 404)
    refused(daemon.post("/v1/retries/999999999/trigger"), 404)
    refused(daemon.post("/v1/retries/999999999/cancel"), 404)
    refused(daemon.get("/v1/bulks/999999999"), 404)
    refused(daemon.get("/v1/nosuch"), 404)
    refused(daemon.request("DELETE", "/v1/status"), 405)
    refused(daemon.get("/v1/retries", status="nosuch"), 422)
    refused(daemon.get("/v1/retries", limit=1001), 422)
    refused(daemon.get("/v1/retries", since="whenever"), 422)
    refused(daemon.post("/v1/endpoints/shop/off/calls", {}), 409)


def test_an_idempotency_key(daemon: Daemon, shared_receiver: Receiver) -> None:
    before = shared_receiver.count("/ok")

    def call(key: str, **params: Any) -> Any:
        headers = {"Idempotency-Key": key}
        body = {"params": params}
        return daemon.post("/v1/endpoints/shop/ok/calls", body, headers=headers)

    first = call("one", n=1)
    assert first.status_code == 202
    second = call("one", n=1)
    assert second.status_code == 200
    assert second.json()["id"] == first.json()["id"]
    refused(call("one", n=2), 422)
    third = call("two", n=1)
    assert third.status_code == 202
    assert third.json()["id"] != first.json()["id"]
    daemon.finish(first.json()["id"])
    daemon.finish(third.json()["id"])
    daemon.restart()
    assert call("one", n=1).status_code == 200
    assert shared_receiver.count("/ok") - before == 2


@pytest.mark.slow
def test_a_batch_of_ten_thousand(daemon: Daemon, shared_receiver: Receiver) -> None:
    ids = daemon.batch("queue/batch", [{"n": number} for number in range(10_000)])
    assert len(set(ids)) == 10_000
    assert ids == sorted(ids)
    # What is answered is on disk.
    (row,) = daemon.rows("SELECT count(*) AS n FROM retry_schedule WHERE endpoint_id=?",
                         "queue/batch")  # fmt: skip
    assert row["n"] == 10_000
    daemon.settle(4 * PATIENCE, endpoint="queue/batch")
    assert shared_receiver.count("/batch") == 10_000
    assert len(daemon.tasks(endpoint="queue/batch", status="succeeded")) == 10_000


def test_a_delayed_call(daemon: Daemon) -> None:
    task_id = daemon.call("shop/ok", "1h")
    task = daemon.task(task_id)
    assert (task["status"], task["attempts"]) == ("pending", 0)
    assert daemon.post(f"/v1/retries/{task_id}/trigger").status_code == 202
    assert daemon.finish(task_id)["status"] == "succeeded"


def test_pause_and_resume(daemon: Daemon) -> None:
    url = "/v1/endpoints/queue/paused"
    told = daemon.finish(daemon.call("queue/paused"))
    assert daemon.post(f"{url}/pause").status_code in (200, 202)
    assert daemon.get(url).json()["paused"] is True
    task_id = daemon.call("queue/paused")
    # Its calls wait, its deliveries go on.
    (delivery,) = daemon.deliveries(told["id"])
    ended = daemon.finish(delivery["id"])
    assert (ended["status"], ended["attempts"]) == ("succeeded", 2)
    # It lasts.
    daemon.restart()
    assert daemon.get(url).json()["paused"] is True
    assert "queue/paused" in daemon.status()["paused"]
    other = daemon.finish(daemon.call("shop/ok"))
    assert other["status"] == "succeeded"
    assert daemon.task(task_id)["attempts"] == 0
    assert daemon.post(f"{url}/resume").status_code in (200, 202)
    assert daemon.finish(task_id)["status"] == "succeeded"
    refused(daemon.post("/v1/endpoints/queue/nosuch/pause"), 404)


def test_cancel(daemon: Daemon, shared_receiver: Receiver) -> None:
    waiting = daemon.call("shop/fails")
    until(lambda: daemon.task(waiting)["attempts"] == 1, "the first attempt")
    daemon.until_status(waiting, "pending")
    answer = daemon.post(f"/v1/retries/{waiting}/cancel")
    assert answer.status_code == 202
    assert answer.json()["status"] == "cancelled"
    # By hand it goes on from there.
    assert daemon.post(f"/v1/retries/{waiting}/trigger").status_code == 202
    until(lambda: daemon.task(waiting)["attempts"] == 2, "the second attempt")

    failed = daemon.call("shop/refuses")
    assert daemon.finish(failed)["reason"] == "not_retryable"
    assert daemon.post(f"/v1/retries/{failed}/cancel").json()["status"] == "cancelled"
    succeeded = daemon.call("shop/ok")
    daemon.finish(succeeded)
    refused(daemon.post(f"/v1/retries/{succeeded}/cancel"), 409)


def test_cancel_while_it_runs(daemon: Daemon, shared_receiver: Receiver) -> None:
    receiver = shared_receiver
    cancelled = threading.Event()

    async def fail(request: Received, connection: Connection) -> None:
        while not cancelled.is_set():
            await asyncio.sleep(0.01)
        await connection.answer(Answer(503))

    receiver.on("/failing", fail)
    receiver.hold("/held")
    daemon.endpoint("shop/failing", "/failing", timeout="60s", retry=retry("10ms"))
    daemon.endpoint("shop/holds", "/held", timeout="60s")
    daemon.adopt()
    fails, succeeds = daemon.call("shop/failing"), daemon.call("shop/holds")
    until(lambda: receiver.count("/failing") == receiver.count("/held") == 1, "both calls")
    for task_id in (fails, succeeds):
        answer = daemon.post(f"/v1/retries/{task_id}/cancel")
        assert answer.status_code == 202
        assert answer.json()["status"] == "running"
        refused(daemon.post(f"/v1/retries/{task_id}/trigger"), 409)
        # It can be seen afterwards, too.
        assert daemon.task(task_id)["cancel_requested"]
        assert "no attempt follows" in daemon.ctl("show", str(task_id)).out
        page = daemon.get(f"/retries/{task_id}").text
        assert "there will be no other" in page
        assert "/cancel" not in page
    # Instead of its next retry; what succeeds meanwhile has succeeded.
    cancelled.set()
    assert daemon.finish(fails)["status"] == "cancelled"
    receiver.let_go("/held")
    ended = daemon.finish(succeeds)
    assert (ended["status"], ended["cancel_requested"]) == ("succeeded", False)


def test_trigger_by_hand(daemon: Daemon, shared_receiver: Receiver) -> None:
    receiver = shared_receiver
    receiver.on("/hand", 503, 503, 200)
    daemon.endpoint("shop/hand", "/hand", method="POST", retry=retry("1h", attempts=2))
    daemon.adopt()
    task_id = daemon.call("shop/hand")
    until(lambda: daemon.task(task_id)["attempts"] == 1, "the first attempt")
    daemon.until_status(task_id, "pending")
    # Due now instead of in an hour.
    assert daemon.post(f"/v1/retries/{task_id}/trigger", {"force": False}).status_code == 202
    task = daemon.finish(task_id)
    assert (task["status"], task["reason"], task["attempts"]) == ("failed", "exhausted", 2)
    # One attempt more where none is left.
    assert daemon.post(f"/v1/retries/{task_id}/trigger").status_code == 202
    task = daemon.finish(task_id)
    assert (task["status"], task["attempts"], task["max_attempts"]) == ("succeeded", 3, 3)
    refused(daemon.post(f"/v1/retries/{task_id}/trigger"), 409)
    assert daemon.post(f"/v1/retries/{task_id}/trigger", {"force": True}).status_code == 202
    daemon.finish(task_id)
    keys = [item.headers["idempotency-key"] for item in receiver.received("/hand")]
    assert len(keys) == 4
    assert keys[0] == keys[1] == keys[2] != keys[3]


def test_a_delivery_that_is_forced_gets_a_new_id(daemon: Daemon, shared_receiver: Receiver) -> None:
    hook = {"name": "hook", "phase": "on_success", "url": f"{shared_receiver.url}/forced"}
    shared_receiver.on("/forced", 204)
    daemon.endpoint("shop/told", "/ok", webhooks=[hook])
    daemon.adopt()
    call = daemon.finish(daemon.call("shop/told"))
    (delivery,) = daemon.deliveries(call["id"])
    daemon.finish(delivery["id"])
    for _ in range(2):
        url = f"/v1/retries/{delivery['id']}/trigger"
        refused(daemon.post(url), 409)
        assert daemon.post(url, {"force": True}).status_code == 202
        assert daemon.finish(delivery["id"])["status"] == "succeeded"
    seen = shared_receiver.received("/forced")
    assert len({item.headers["webhook-id"] for item in seen}) == len(seen) == 3


def test_expiry(daemon: Daemon, shared_receiver: Receiver) -> None:
    policy = retry("10s", give_up_after="1s")
    told = {"name": "told", "phase": "on_final_failure", "url": f"{shared_receiver.url}/expired"}
    shared_receiver.on("/expired", 204)
    daemon.endpoint("shop/expires", "/fails", retry=policy, webhooks=[told])
    daemon.adopt()
    task = daemon.finish(daemon.call("shop/expires"))
    assert (task["status"], task["reason"], task["attempts"]) == ("failed", "expired", 1)
    until(lambda: shared_receiver.count("/expired") == 1, "the webhook")


def test_pages_and_filters(daemon: Daemon) -> None:
    for number in range(5):
        daemon.finish(daemon.call("shop/ok", n=number))
    first = daemon.get("/v1/retries", endpoint="shop/ok", limit=2).json()
    second = daemon.get("/v1/retries", endpoint="shop/ok", limit=2, after=first["next"]).json()
    ids = [task["id"] for task in first["retries"] + second["retries"]]
    assert ids == sorted(ids, reverse=True)
    assert len(set(ids)) == 4
    assert {task["endpoint"] for task in daemon.tasks(endpoint="shop/ok")} == {"shop/ok"}
    assert {task["status"] for task in daemon.tasks(status="succeeded")} == {"succeeded"}
    assert {task["last_status_code"] for task in daemon.tasks(status_code="4xx")} <= {400}
    assert daemon.tasks(kind="webhook", endpoint="shop/ok") == []
    assert daemon.tasks(since="1h") != []
    assert daemon.tasks(since="0s") == []


def test_curl_speaks_to_it(daemon: Daemon, program: Callable[[str], str]) -> None:
    curl = [program("curl"), "-sS", "--unix-socket", str(daemon.socket)]
    url = "http://localhost/v1"
    out = subprocess.run(
        [*curl, "-d", '{"params": {"n": 1}}', "-H", "Content-Type: application/json",
         f"{url}/endpoints/shop/ok/calls"],
        capture_output=True, check=True, timeout=20,
    ).stdout  # fmt: skip
    task_id = json.loads(out)["id"]
    daemon.finish(task_id)
    words = [*curl, f"{url}/retries/{task_id}"]
    shown = subprocess.run(words, capture_output=True, check=True, timeout=20).stdout
    assert json.loads(shown)["status"] == "succeeded"
    for path in ("healthz", "readyz"):
        subprocess.run([*curl, "--fail", f"http://localhost/{path}"], check=True, timeout=20,
                       capture_output=True)  # fmt: skip
