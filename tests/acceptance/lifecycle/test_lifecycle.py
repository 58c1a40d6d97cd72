"""The main job: a call is made, retried by its backoff, and announced by signed webhooks."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon, retry
from tests.acceptance.receiver import Answer, Received, Receiver
from tests.acceptance.waiting import until

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_b3RoZXItc2VjcmV0LW9mLXRoZS1yb3RhdGlvbg=="
RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@dataclass
class Stage:
    daemon: Daemon
    receiver: Receiver

    def webhook(self, name: str, phase: str, code: Any = None, **keys: Any) -> dict[str, Any]:
        """A webhook that delivers to /hooks/NAME."""
        hook = {"name": name, "phase": phase, "url": f"{self.receiver.url}/hooks/{name}", **keys}
        return hook if code is None else {**hook, "status_code": code}

    def events(self, prefix: str) -> Counter[str]:
        """How many deliveries came to each of the webhooks whose names begin so."""
        start = f"/hooks/{prefix}"
        paths = (item.path for item in self.receiver.received())
        return Counter(path.removeprefix("/hooks/") for path in paths if path.startswith(start))


@pytest.fixture(scope="module")
def stage(make_shared: MakeDaemon, shared_receiver: Receiver) -> Stage:
    daemon = make_shared(defaults={"retry": retry()})
    daemon.api("shop", shared_receiver.url)
    shared_receiver.reply("/hooks/", lambda request: Answer(204))
    daemon.start()
    return Stage(daemon, shared_receiver)


def declare(stage: Stage, name: str, path: str, **keys: Any) -> str:
    """Add an endpoint to the running daemon."""
    stage.daemon.endpoint(f"shop/{name}", path, **keys)
    stage.daemon.reload()  # if it has not taken the file up by itself
    return f"shop/{name}"


def verified(delivery: Received, secret: str = SECRET) -> Any:
    """The payload, once the library that receivers use has found its signature right."""
    return Webhook(secret).verify(delivery.body.decode(), dict(delivery.headers))


def test_two_failures_then_success(stage: Stage) -> None:
    stage.receiver.on("/users", 503, 503, Answer(200, '{"users": []}', {"X-Shard": "7"}))
    endpoint = declare(
        stage,
        "getUsers",
        "/users",
        params={"limit": {"type": "integer", "default": 50}},
        query={"limit": "{{ params.limit }}"},
        webhooks=[
            stage.webhook("u-ops", "after_request", ["5xx", "error"], secret=SECRET),
            stage.webhook("u-ok", "after_request", 200, secret=SECRET),
            stage.webhook("u-missing", "after_request", 404, secret=SECRET),
            stage.webhook("u-before", "before_request", secret=SECRET),
            stage.webhook("u-retry", "on_retry", secret=SECRET),
            stage.webhook("u-done", "on_success", secret=SECRET),
            stage.webhook("u-dead", "on_final_failure", secret=SECRET),
        ],
    )
    task_id = stage.daemon.call(endpoint, limit=3)
    task = stage.daemon.finish(task_id)
    stage.daemon.settle()

    assert task["status"] == "succeeded"
    assert task["attempts"] == 3
    assert task["last_status_code"] == 200
    assert task["reason"] is None
    assert [item["status_code"] for item in task["attempt_log"]] == [503, 503, 200]
    assert [item.query for item in stage.receiver.received("/users")] == [{"limit": "3"}] * 3
    assert stage.events("u-") == {
        "u-ops": 2,
        "u-ok": 1,
        "u-before": 3,
        "u-retry": 2,
        "u-done": 1,
    }
    deliveries = stage.daemon.deliveries(task_id)
    assert {item["status"] for item in deliveries} == {"succeeded"}
    assert len(deliveries) == 9

    for delivery in stage.receiver.received():
        if delivery.path.startswith("/hooks/u-"):
            verified(delivery)
    ids = [item.headers["webhook-id"] for item in stage.receiver.received() if "u-" in item.path]
    assert len(set(ids)) == len(ids)


def test_what_a_delivery_says(stage: Stage) -> None:
    answer = Answer(503, "busy", {"Content-Type": "text/plain", "Set-Cookie": "session=1"})
    stage.receiver.on("/said", answer, Answer(200, '{"a": 1}'))
    endpoint = declare(
        stage,
        "said",
        "/said",
        params={"who": {"required": True}},
        webhooks=[
            stage.webhook("s-ops", "after_request", "5xx", secret=SECRET),
            stage.webhook("s-narrow", "on_success", secret=SECRET, include=["params"]),
            stage.webhook(
                "s-own",
                "on_retry",
                secret=SECRET,
                payload={
                    "text": "{{ endpoint }} answered {{ status_code }}",
                    "attempt": "{{ attempt }}",
                },
                headers={"X-Team": "integrations", "X-Call": "{{ task_id }}"},
            ),
        ],
    )
    task_id = stage.daemon.call(endpoint, who="ü&me")
    stage.daemon.finish(task_id)
    stage.daemon.settle()

    (delivery,) = stage.receiver.received("/hooks/s-ops")
    assert delivery.method == "POST"
    assert delivery.headers["content-type"] == "application/json"
    said = verified(delivery)
    assert said["type"] == "after_request"
    assert RFC3339.fullmatch(said["timestamp"])
    data = said["data"]
    next_try = data.pop("next_try")
    assert RFC3339.fullmatch(next_try)
    assert datetime.fromisoformat(next_try) > datetime.fromisoformat(said["timestamp"])
    headers = {name.lower(): value for name, value in data["response"].pop("headers").items()}
    assert headers["content-type"] == "text/plain"
    assert "set-cookie" not in headers
    assert data["error"]
    del data["error"]
    assert data == {
        "endpoint": endpoint,
        "phase": "after_request",
        "status_code": 503,
        "task_id": task_id,
        "attempt": 1,
        "params": {"who": "ü&me"},
        "request": {"method": "GET", "url": f"{stage.receiver.url}/said"},
        "response": {"body": "busy"},
        "reason": None,
        "run_id": task_id,
    }

    (narrow,) = stage.receiver.received("/hooks/s-narrow")
    data = verified(narrow)["data"]
    assert data["params"] == {"who": "ü&me"}
    assert "request" not in data
    assert "response" not in data
    assert data["status_code"] == 200

    (own,) = stage.receiver.received("/hooks/s-own")
    assert verified(own) == {"text": f"{endpoint} answered 503", "attempt": 1}
    assert own.headers["x-team"] == "integrations"
    assert own.headers["x-call"] == str(task_id)


def test_a_delivery_is_retried_under_one_id_and_signed_anew(stage: Stage) -> None:
    stage.receiver.on("/retried", 200)
    stage.receiver.on("/hooks/r-flaky", 500, 302, 204)
    hook = stage.webhook(
        "r-flaky", "on_success", secret=[SECRET, OTHER], retry=retry("1100ms", jitter=0)
    )
    endpoint = declare(stage, "retried", "/retried", webhooks=[hook])
    task_id = stage.daemon.call(endpoint)
    stage.daemon.finish(task_id)
    (delivery,) = stage.daemon.deliveries(task_id)
    done = stage.daemon.finish(delivery["id"])

    assert done["status"] == "succeeded"
    assert [item["status_code"] for item in done["attempt_log"]] == [500, 302, 204]
    tries = stage.receiver.received("/hooks/r-flaky")
    assert len(tries) == 3
    assert len({item.headers["webhook-id"] for item in tries}) == 1
    assert len({item.headers["webhook-timestamp"] for item in tries}) == 3
    assert len({item.body for item in tries}) == 1
    for item in tries:
        assert len(item.headers["webhook-signature"].split()) == 2
        verified(item, SECRET)
        verified(item, OTHER)
        with pytest.raises(WebhookVerificationError):
            verified(item, "whsec_c29tZWJvZHktZWxzZSdzLXNlY3JldA==")


def test_without_a_secret_there_is_no_signature(stage: Stage) -> None:
    stage.receiver.on("/plain", 200)
    endpoint = declare(stage, "plain", "/plain", webhooks=[stage.webhook("p-plain", "on_success")])
    stage.daemon.finish(stage.daemon.call(endpoint))
    (delivery,) = until(lambda: stage.receiver.received("/hooks/p-plain"), "the delivery")
    assert "webhook-signature" not in delivery.headers
    assert delivery.headers["webhook-id"]
    assert int(delivery.headers["webhook-timestamp"]) > 1_700_000_000


def test_no_answer_is_an_error_and_the_end_is_announced(stage: Stage) -> None:
    with Receiver() as gone:
        url = gone.url
    stage.daemon.api("gone", url, egress={"allow": ["127.0.0.1"]})
    stage.daemon.endpoint(
        "gone/get",
        "/",
        retry=retry(attempts=2),
        webhooks=[
            stage.webhook("e-ops", "after_request", ["5xx", "error"]),
            stage.webhook("e-5xx", "after_request", "5xx"),
            stage.webhook("e-retry", "on_retry", "error"),
            stage.webhook("e-dead", "on_final_failure", "error"),
        ],
    )
    stage.daemon.adopt()
    task = stage.daemon.finish(stage.daemon.call("gone/get"))
    stage.daemon.settle()

    assert task["status"] == "failed"
    assert task["reason"] == "exhausted"
    assert task["last_status_code"] == "error"
    assert "refused" in task["last_error"].lower()
    assert stage.events("e-") == {"e-ops": 2, "e-retry": 1, "e-dead": 1}
    (dead,) = stage.receiver.received("/hooks/e-dead")
    data = dead.json()["data"]
    assert data["status_code"] == "error"
    assert data["response"] is None
    assert data["error"]
    assert data["next_try"] is None


def test_a_phase_that_never_sent_matches_only_without_a_code(stage: Stage) -> None:
    endpoint = declare(
        stage,
        "undefined",
        "/{{ params.word.nothing.here }}",
        params={"word": {"required": True}},
        webhooks=[
            stage.webhook("n-coded", "on_final_failure", ["2xx", "4xx", "5xx", "error"]),
            stage.webhook("n-any", "on_final_failure"),
        ],
    )
    task = stage.daemon.finish(stage.daemon.call(endpoint, word="x"))
    stage.daemon.settle()
    assert (task["status"], task["reason"]) == ("failed", "invalid_payload")
    assert task["last_status_code"] is None
    assert stage.events("n-") == {"n-any": 1}


def test_a_payload_that_does_not_render_is_a_failed_delivery(stage: Stage) -> None:
    stage.receiver.on("/norender", 200)
    hook = stage.webhook("x-bad", "on_success", payload={"text": "{{ params.nobody }}"})
    endpoint = declare(stage, "norender", "/norender", webhooks=[hook])
    task_id = stage.daemon.call(endpoint)
    assert stage.daemon.finish(task_id)["status"] == "succeeded"
    (delivery,) = stage.daemon.deliveries(task_id)
    failed = stage.daemon.finish(delivery["id"])
    assert (failed["status"], failed["reason"]) == ("failed", "invalid_payload")
    assert "nobody" in failed["last_error"]
    assert stage.receiver.count("/hooks/x-bad") == 0


def test_what_is_sent_into_xml_and_json_stays_a_value(stage: Stage) -> None:
    stage.receiver.on("/xml", 200)
    name, xml = '</a>O\'Neil & "Sons"', "<a b='{{ params.name | e }}'>{{ params.name | e }}</a>"
    payload = '{"a": {{ params.name | tojson }}, "q": "{{ params.name | urlencode }}"}'
    hook = stage.webhook("xml", "on_success", payload=payload)
    keys = {"method": "POST", "body": {"text": xml}, "params": {"name": {}}, "webhooks": [hook]}
    stage.daemon.finish(stage.daemon.call(declare(stage, "xml", "/xml", **keys), name=name))
    (sent,) = stage.receiver.received("/xml")
    found = ElementTree.fromstring(sent.body)
    assert (found.text, found.get("b")) == (name, name)
    (delivery,) = until(lambda: stage.receiver.received("/hooks/xml"), "the delivery")
    assert delivery.json() == {"a": name, "q": quote(name)}


def test_a_payload_may_be_half_a_megabyte(stage: Stage) -> None:
    stage.receiver.on("/half", 200)
    hooks = [
        stage.webhook(
            "h-fits", "on_success", secret=SECRET, payload={"a": "{{ params.text * 2 }}"}
        ),
        stage.webhook("h-not", "on_success", payload={"a": "{{ params.text * 3 }}"}),
    ]
    endpoint = declare(stage, "half", "/half", params={"text": {}}, webhooks=hooks)
    text = "x" * 255_000
    task_id = stage.daemon.call(endpoint, text=text)
    (delivery,) = until(lambda: stage.receiver.received("/hooks/h-fits"), "the delivery")
    assert verified(delivery) == {"a": text * 2}
    ended = [stage.daemon.finish(one["id"]) for one in stage.daemon.deliveries(task_id)]
    assert {one["webhook"]: one["reason"] for one in ended} == {
        "h-fits": None,
        "h-not": "invalid_payload",
    }


def test_inline_tries_are_part_of_one_attempt(stage: Stage) -> None:
    stage.receiver.on("/inline", 503, 503, 200)
    stage.receiver.on("/unsafe", 500, 200)
    safe = declare(stage, "inline", "/inline", retry=retry(inline=2))
    task = stage.daemon.finish(stage.daemon.call(safe))
    assert (task["status"], task["attempts"]) == ("succeeded", 1)
    assert stage.receiver.count("/inline") == 3
    unsafe = declare(stage, "unsafe", "/unsafe", method="POST", retry=retry(inline=2))
    task = stage.daemon.finish(stage.daemon.call(unsafe))
    assert (task["status"], task["reason"]) == ("failed", "ambiguous")
    assert stage.receiver.count("/unsafe") == 1


def test_retry_after_is_waited_for_and_said(stage: Stage) -> None:
    stage.receiver.on("/busy", Answer(429, "", {"Retry-After": "1"}), 200)
    endpoint = declare(stage, "busy", "/busy")
    task = stage.daemon.finish(stage.daemon.call(endpoint))
    first, second = task["attempt_log"]
    assert first["delay"] == 1
    assert "Retry-After 1s won" in first["why"]
    assert second["status_code"] == 200
    one, two = stage.receiver.received("/busy")
    assert two.at - one.at >= 0.95
