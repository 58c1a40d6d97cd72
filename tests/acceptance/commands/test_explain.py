"""What `orchestratord explain` says is what a daemon then does."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner

from orchestratord.cli.main import main
from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon
from tests.acceptance.receiver import Answer, Receiver
from tests.acceptance.waiting import until

PHASES = ("before_request", "after_request", "on_success", "on_retry", "on_final_failure")
CODES: dict[str, Any] = {"any": None, "2xx": "2xx", "5xx": ["5xx", "error"], "error": "error"}
TOKEN = "hunter22-is-a-token"


def hooks(receiver: Receiver) -> list[dict[str, Any]]:
    """A webhook for each phase and status code."""
    return [
        {
            "name": f"{phase}-{name}",
            "phase": phase,
            "url": f"{receiver.url}/hooks",
            "payload": {"said": "{{ phase }} {{ status_code }} {{ attempt }}"},
            **({} if codes is None else {"status_code": codes}),
        }
        for phase in PHASES
        for name, codes in CODES.items()
        if codes is None or phase != "before_request"
    ]


@pytest.fixture(scope="module")
def daemon(make_shared: MakeDaemon, shared_receiver: Receiver) -> Daemon:
    daemon = make_shared()
    policy = {"backoff": {"strategy": "fixed", "delay": "1h"}, "jitter": 0.5}
    daemon.api(
        "shop",
        shared_receiver.url,
        headers={"X-Shared": "shared"},
        auth={"bearer": TOKEN},
        retry=policy,
        webhooks=hooks(shared_receiver),
    )
    params = {"id": {"type": "string", "required": True}}
    query, headers = {"q": "{{ params.id }}"}, {"X-Own": "{{ params.id | upper }}"}
    about: dict[str, Any] = {"params": params, "query": query, "headers": headers}
    daemon.endpoint("shop/get", "/at/{{ params.id }}", **about)
    body = {"json": {"id": "{{ params.id }}", "attempt": "{{ task.attempt }}"}}
    daemon.endpoint("shop/post", "/at/{{ params.id }}", method="POST", body=body, **about)
    shared_receiver.reply("/hooks", lambda request: Answer(204))
    return daemon.start()


def explain(daemon: Daemon, *arguments: str) -> dict[str, Any]:
    words = ["explain", *arguments, "--config", str(daemon.config), "-o", "json"]
    ended = CliRunner().invoke(main, words)
    assert ended.exit_code == 0, ended.stderr
    assert TOKEN not in ended.stdout
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


@pytest.mark.parametrize("code", [200, 404, 429, 500, 503])
@pytest.mark.parametrize("endpoint", ["get", "post"])
def test_the_daemon_does_what_was_said(
    daemon: Daemon, shared_receiver: Receiver, endpoint: str, code: int
) -> None:
    number = f"{endpoint}-{code}"
    told = explain(daemon, f"shop/{endpoint}", "-p", f"id={number}", "--status-code", str(code))
    shared_receiver.on(f"/at/{number}", code)
    task_id = daemon.call(f"shop/{endpoint}", id=number)

    def attempted() -> Any:
        task = daemon.task(task_id)
        return task if task["attempt_log"] and task["status"] != "running" else None

    task = until(attempted, "the attempt")
    assert task is not None

    (came,) = shared_receiver.received(f"/at/{number}")
    request = told["request"]
    assert request["url"].startswith(f"{shared_receiver.url}/at/{number}?q={number}")
    assert request["method"] == came.method
    assert request["body"] == (came.body.decode() or None)
    said = {name.lower(): value for name, value in request["headers"].items()}
    assert said.keys() == came.headers.keys()
    for name, value in said.items():
        if name not in ("authorization", "idempotency-key"):
            assert value == came.headers[name]

    decision, (attempt,) = told["decision"], task["attempt_log"]
    status = {"succeeded": "succeeded", "retry": "pending", "failed": "failed"}
    assert (status[decision["outcome"]], decision["reason"]) == (task["status"], task["reason"])
    assert told["status_code"] == attempt["status_code"] == code
    if decision["outcome"] == "retry":
        assert decision["shortest"] <= attempt["delay"] <= decision["longest"]
        assert attempt["why"].startswith(decision["why"])
    else:
        assert decision["why"] == attempt["why"]

    rows = daemon.rows("SELECT webhook, payload FROM retry_schedule WHERE parent_id = ?", task_id)
    delivered = {row["webhook"]: row["payload"] for row in rows}
    firing = {
        item["name"]: item["request"]["body"] for item in told["consequences"] if item["happens"]
    }
    assert len(firing) >= 3
    assert firing == delivered
