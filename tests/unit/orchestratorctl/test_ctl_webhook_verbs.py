from __future__ import annotations

from collections.abc import Callable

import pytest
from scripted_daemon import Daemon, Result, a_problem, a_task, at

from orchestratorctl.verbs import webhook_verbs

WEBHOOKS = {
    "webhooks": [
        {
            "endpoint": "salesforce/getUsers",
            "name": "ops",
            "phase": "after_request",
            "status_code": "5xx,error",
            "url": "https://ops.example.com/hook",
            "enabled": True,
            "disabled_reason": None,
            "disabled_at": None,
            "last_status_code": 200,
            "last_error": None,
            "last_attempt_at": at(-5 * 3600 - 600),
            "failures": 0,
        },
        {
            "endpoint": "salesforce/getUsers",
            "name": "end",
            "phase": "on_final_failure",
            "status_code": None,
            "url": "https://ops.example.com/end",
            "enabled": False,
            "disabled_reason": "410",
            "disabled_at": at(-60),
            "last_status_code": None,
            "last_error": None,
            "last_attempt_at": None,
            "failures": 3,
        },
    ]
}


@pytest.mark.parametrize("line", [["webhooks"], ["webhooks", "list"]])
def test_the_list(daemon: Daemon, ctl: Callable[..., Result], line: list[str]) -> None:
    daemon.on("GET", "/v1/webhooks", (200, WEBHOOKS))
    result = ctl(*line)
    assert result.code == 0
    assert daemon.requests[0].query == {}
    users = "salesforce/getUsers"
    assert [" ".join(line.split()) for line in result.out.splitlines()] == [
        "ENDPOINT WEBHOOK PHASE ON URL STATE LAST FAILED",
        f"{users} ops after_request 5xx,error https://ops.example.com/hook enabled 200 5h ago 0",
        f"{users} end on_final_failure any https://ops.example.com/end disabled (410) - 3",
    ]
    assert ctl(*line, "-o", "json").json == WEBHOOKS


def test_80_columns_hold_it(daemon: Daemon, terminal: Callable[..., Result]) -> None:
    daemon.on("GET", "/v1/webhooks", (200, WEBHOOKS))
    lines = terminal("webhooks", NO_COLOR="1").out.splitlines()
    assert max(len(line) for line in lines) <= 80


def test_of_one_endpoint(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    daemon.on("GET", "/v1/webhooks", (200, {"webhooks": []}))
    assert ctl("webhooks", "list", "a/b") == (0, "", "No webhook is declared.\n")
    assert daemon.requests[0].query == {"endpoint": "a/b"}


@pytest.mark.parametrize(
    ("action", "words"), [("enable", "is enabled"), ("disable", "is disabled")]
)
def test_switching(daemon: Daemon, ctl: Callable[..., Result], action: str, words: str) -> None:
    daemon.on("POST", f"/v1/endpoints/a/b/webhooks/ops%201/{action}", (200, {"name": "ops 1"}))
    result = ctl("webhooks", action, "a/b", "ops 1")
    assert (result.code, result.out) == (0, "")
    assert result.err.startswith(f"a/b → ops 1 {words}")
    assert ctl("webhooks", action, "a/b", "ops 1", "-o", "json").json == {"name": "ops 1"}


REPLAY = {"endpoint": "a/b", "reason": "webhook_disabled", "ended_since": "2026-11-24T22:00:00Z"}


def test_a_replay_says_what_it_leaves(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    daemon.on("POST", "/v1/endpoints/a/b/webhooks/ops/enable", (200, {"replay": REPLAY}))
    daemon.on(
        "POST", "/v1/retries/trigger", (200, {"matched": 7}), (202, {"matched": 4, "bulk": 3})
    )
    result = ctl("webhooks", "enable", "a/b", "ops", "--replay")
    assert result.code == 0
    assert "4 deliveries that failed since 2026-11" in result.err
    assert "except those that later ones of an ordered partition have overtaken." in result.err
    assert "Not sent: 3 deliveries that failed when it was disabled earlier." in result.err
    dry, sent = [request.body for request in daemon.requests[1:]]
    assert dry["dry_run"] is True
    assert "ended_since" not in dry["filter"]
    assert sent == {"filter": REPLAY}


def test_what_never_was_disabled_is_not_replayed(
    daemon: Daemon, ctl: Callable[..., Result]
) -> None:
    daemon.on("POST", "/v1/endpoints/a/b/webhooks/ops/enable", (200, {"replay": None}))
    assert "nothing to replay" in ctl("webhooks", "enable", "a/b", "ops", "--replay").err
    assert len(daemon.requests) == 1


def test_operational_ones_have_a_place_of_their_own(
    daemon: Daemon, ctl: Callable[..., Result]
) -> None:
    daemon.on("POST", "/v1/endpoints/orchestratord/webhooks/ops/test", (202, {"id": 44}))
    sent = a_task(44, kind="webhook", endpoint="orchestratord", webhook="ops", status="succeeded")
    daemon.on("GET", "/v1/retries/44", (200, sent))
    assert "44  webhook  orchestratord → ops" in ctl("webhooks", "test", "orchestratord", "ops").out
    assert ctl("webhooks", "test", "orchestrator", "ops").code == 2


DELIVERY = a_task(44, kind="webhook", endpoint="a/b", webhook="ops", attempts=0)


def test_a_trial_delivery_is_waited_for(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    sent = DELIVERY | {"status": "succeeded", "attempts": 1, "last_status_code": 204}
    daemon.on("POST", "/v1/endpoints/a/b/webhooks/ops/test", (202, {"id": 44}))
    waiting, running = DELIVERY, DELIVERY | {"status": "running", "attempts": 1}
    daemon.on("GET", "/v1/retries/44", (200, waiting), (200, running), (200, sent))
    result = ctl("webhooks", "test", "a/b", "ops")
    assert (result.code, result.err) == (0, "task 44: succeeded after 1 attempt with 204\n")
    assert "44  webhook  a/b → ops  succeeded" in result.out
    assert len(daemon.asked("GET", "/v1/retries/44")) == 3
    assert ctl("webhooks", "test", "a/b", "ops", "-o", "json").json == sent


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ({"status": "failed", "reason": "not_retryable"}, "failed (not_retryable) after 1 attempt"),
        # The next attempt may be hours away.
        ({"status": "pending", "next_try": at(7200)}, "attempt 1 failed"),
    ],
)
def test_a_trial_delivery_that_fails(
    daemon: Daemon, ctl: Callable[..., Result], end: dict[str, str], said: str
) -> None:
    daemon.on("POST", "/v1/endpoints/a/b/webhooks/ops/test", (202, {"id": 44}))
    failure = {"attempts": 1, "last_status_code": 500, "last_error": "500: no such channel"}
    daemon.on("GET", "/v1/retries/44", (200, DELIVERY | failure | end))
    result = ctl("webhooks", "test", "a/b", "ops")
    assert result.code == 1
    assert f"task 44: {said} with 500: 500: no such channel" in result.err


def test_a_trial_delivery_that_waits(
    daemon: Daemon, ctl: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_verbs, "TESTED_WITHIN", 0.1)
    daemon.on("POST", "/v1/endpoints/a/b/webhooks/ops/test", (202, {"id": 44}))
    daemon.on("GET", "/v1/retries/44", (200, DELIVERY | {"next_try": at(-1), "last_error": None}))
    result = ctl("webhooks", "test", "a/b", "ops")
    assert (result.code, result.err) == (1, "task 44: waits for its turn\n")


def test_no_such_webhook(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    daemon.on("POST", "/v1/endpoints/a/b/webhooks/x/test", a_problem(404, "a/b has no webhook x"))
    assert ctl("webhooks", "test", "a/b", "x") == (4, "", "orchestratorctl: a/b has no webhook x\n")
