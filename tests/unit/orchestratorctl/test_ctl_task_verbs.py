"""`call`, `list`, `retry` and `cancel`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest
from scripted_daemon import (
    CALLS,
    DROP,
    Daemon,
    Reply,
    Request,
    Result,
    a_problem,
    a_task,
    at,
    command,
)

# -- call ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("accepted")
def test_a_call_is_a_task(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    assert ctl("call", "a/b") == (0, "ID  STATUS   ENDPOINT\n42  pending  a/b\n", "")
    assert daemon.requests[0].body == {"params": {}}
    assert ctl("call", "a/b", "-o", "json").json == {"id": 42, "status": "pending"}


@pytest.mark.usefixtures("accepted")
def test_typed_params_and_texts_travel_apart(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    params = '{"n": 7, "list": [1, null], "s": "007"}'
    ctl("call", "a/b", "-p", "id=007", "--params", params, "-p", "q=a=b", "-p", "empty=")
    assert daemon.requests[0].body == {
        "params": {"n": 7, "list": [1, None], "s": "007"},
        "text_params": {"id": "007", "q": "a=b", "empty": ""},
    }


@pytest.mark.usefixtures("accepted")
def test_delay_and_idempotency_key(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    ctl("call", "a/b", "--delay", "500ms", "--idempotency-key", "k 1")
    (request,) = daemon.requests
    assert request.body["delay"] == 0.5
    assert request.headers["idempotency-key"] == "k 1"


def test_a_key_used_before_is_said(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    daemon.on("POST", CALLS, (200, {"id": 41, "status": "succeeded"}))
    result = ctl("call", "a/b", "--idempotency-key", "k")
    assert result.code == 0
    assert "41" in result.out
    assert "it is task 41, and no new call was made" in result.err


@pytest.mark.parametrize(("status", "code"), [(409, 5), (422, 2), (404, 4), (507, 1)])
def test_a_refused_call(daemon: Daemon, ctl: Callable[..., Result], status: int, code: int) -> None:
    daemon.on("POST", CALLS, a_problem(status, "no"))
    assert ctl("call", "a/b", "--wait") == (code, "", "orchestratorctl: no\n")


# -- list ------------------------------------------------------------------------------------------


def some_tasks() -> list[dict[str, Any]]:
    return [
        a_task(1044, next_try=at(9000)),
        a_task(
            1043,
            kind="webhook",
            webhook="ops",
            status="failed",
            reason="exhausted",
            attempts=10,
            max_attempts=10,
            last_status_code=410,
            last_error="410 Gone: no more",
        ),
        a_task(1042, status="running", last_status_code=None, created_at=at(-330)),
        a_task(1041, next_try=at(-3), last_status_code="error"),
    ]


def test_parameters_and_counts(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    daemon.on("GET", "/v1/retries", (200, {"retries": some_tasks()[:1], "next": None}))
    heads, row = ctl("list", "--params").out.splitlines()
    assert heads.endswith("PARAMS")
    assert row.endswith('{"id": "007"}')
    groups = [
        {"endpoint": "a/b", "reason": "exhausted", "tasks": 5000},
        {"endpoint": "a/c", "reason": None, "tasks": 2},
    ]
    daemon.on("GET", "/v1/retries/groups", (200, {"groups": groups, "complete": False}))
    result = ctl("list", "--by", "endpoint,reason", "--status", "failed", "--limit", "1")
    assert [line.split() for line in result.out.splitlines()] == [
        ["TASKS", "ENDPOINT", "REASON"], ["5,000", "a/b", "exhausted"]
    ]  # fmt: skip
    assert "There are 2 groups; --limit shows more." in result.err
    assert "Only the newest tasks were counted" in result.err
    asked = daemon.asked("GET", "/v1/retries/groups")[0].query
    assert asked == {"status": "failed", "by": "endpoint,reason"}
    assert ctl("list", "--by", "endpoint,price").code == 2
    assert ctl("list", "--by", "reason", "--params").code == 2


def test_a_row_a_task(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    daemon.on("GET", "/v1/retries", (200, {"retries": some_tasks(), "next": None}))
    result = ctl("list")
    assert (result.code, result.err) == (0, "")
    users = "salesforce/getUsers"
    assert [" ".join(line.split()) for line in result.out.splitlines()] == [
        "ID KIND ENDPOINT STATUS ATTEMPTS CODE NEXT TRY CREATED ERROR",
        f"1044 call {users} pending 1/15 503 in 2h 2h ago -",
        f"1043 webhook {users} → ops failed exhausted 10/10 410 - 2h ago 410 Gone: no more",
        f"1042 call {users} running 1/15 - - 5m ago -",
        f"1041 call {users} pending 1/15 error due 2h ago -",
    ]


def test_80_columns_hold_it(daemon: Daemon, terminal: Callable[..., Result]) -> None:
    long = a_task(
        7,
        kind="webhook",
        endpoint="a" * 30 + "/" + "b" * 30,
        webhook="hook" * 5,
        status="failed",
        reason="webhook_disabled",
    )
    daemon.on("GET", "/v1/retries", (200, {"retries": [*some_tasks(), long], "next": None}))
    result = terminal("list", NO_COLOR="1")
    assert result.code == 0
    lines = result.out.splitlines()
    assert len(lines) == 6
    assert max(len(line) for line in lines) <= 80
    assert "\x1b" not in result.out
    assert "\x1b[31mfailed" in terminal("list").out


def test_80_columns_show_the_tenant(daemon: Daemon, terminal: Callable[..., Result]) -> None:
    sent = a_task(
        1_000_007,
        kind="webhook",
        endpoint="subscriptions",
        webhook="initech-germany/sub_2c6f0a0b7f5e4d0c9a51",
        status="failed",
        reason="exhausted",
    )
    daemon.on("GET", "/v1/retries", (200, {"retries": [*some_tasks(), sent], "next": None}))
    lines = terminal("list", NO_COLOR="1").out.splitlines()
    assert " initech-germany/" in lines[-1]
    assert max(map(len, lines)) <= 80
    assert f"subscriptions → {sent['webhook']}" in terminal("list", columns=200, NO_COLOR="1").out


def test_the_filters_travel(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    daemon.on("GET", "/v1/retries", (200, {"retries": [], "next": None}))
    result = ctl(
        "list",
        "--status",
        "failed,pending",
        "--status-code",
        "5xx",
        "--endpoint",
        "a/b",
        "--kind",
        "call",
        "--since",
        "2h",
        "--limit",
        "7",
    )
    assert result == (0, "", "No task matches.\n")
    assert daemon.requests[0].query == {
        "status": "failed,pending",
        "status_code": "5xx",
        "endpoint": "a/b",
        "kind": "call",
        "since": "2h",
        "limit": "7",
    }
    assert ctl("list").err == "There are no tasks.\n"


LISTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "list": ("/v1/retries", "retries", {}),
    "runs": ("/v1/runs", "runs", {"counts": {"total": 2, "succeeded": 1, "failed": 1}}),
    "outbox list": ("/v1/outbox", "outbox", {}),
    "list --batch 7": ("/v1/batches/7", "members", {"event": {"text": "daemon.started"}}),
}


@pytest.fixture(params=LISTS)
def many(request: pytest.FixtureRequest, daemon: Daemon) -> list[str]:
    """A verb that lists 5,000 rows in pages of at most 1,000."""
    path, name, row = LISTS[request.param]

    def page(request: Request) -> Reply:
        first = int(request.query.get("after", "5001")) - 1
        limit = int(request.query["limit"])
        assert limit <= 1000
        ids = list(range(first, max(first - limit, 0), -1))
        return 200, {
            name: [{"id": i, **row} for i in ids],
            "next": ids[-1] if ids and ids[-1] > 1 else None,
        }

    daemon.on("GET", "/v1/retries", (200, {"retries": [], "next": None}))
    daemon.on("GET", path, page)
    return str(request.param).split()


@pytest.mark.parametrize(
    ("limit", "asked"),
    [(100, [100]), (1000, [1000]), (2500, [1000, 1000, 500]), (9000, [1000] * 5)],
)
def test_pages_are_followed_as_far_as_the_limit(
    daemon: Daemon, ctl: Callable[..., Result], many: list[str], limit: int, asked: list[int]
) -> None:
    result = ctl(*many, "--limit", str(limit), "-o", "json")
    path, name, _ = LISTS[" ".join(many)]
    ids = [row["id"] for row in result.json[name]]
    assert ids == list(range(5000, max(5000 - limit, 0), -1))
    assert [int(request.query["limit"]) for request in daemon.asked("GET", path)] == asked
    assert (result.json["next"] is None) == (limit == 9000)


def test_more_than_shown_is_said(ctl: Callable[..., Result], many: list[str]) -> None:
    expected = "There are more than these 3; --limit shows more.\n"
    assert ctl(*many, "--limit", "3").err == expected
    assert ctl(*many, "--limit", "3", "-o", "json").err == ""
    assert ctl(*many, "--limit", "5000").err == ""


# -- retry and cancel ------------------------------------------------------------------------------


def test_one_task(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    daemon.on("POST", "/v1/retries/42/trigger", (202, a_task(42, next_try=at(-1))))
    result = ctl("retry", "42")
    assert (result.code, result.err) == (0, "")
    assert result.out.splitlines()[1].split()[:4] == [
        "42",
        "call",
        "salesforce/getUsers",
        "pending",
    ]
    assert daemon.requests[0].body == {"force": False}
    assert ctl("retry", "42", "--force", "-o", "json").json["id"] == 42
    assert daemon.requests[1].body == {"force": True}


@pytest.mark.parametrize(
    ("problems", "code"), [({43: 409}, 5), ({43: 404, 44: 404}, 4), ({43: 404, 44: 409}, 1)]
)
def test_one_that_cannot_be_retried_does_not_keep_the_others(
    daemon: Daemon, ctl: Callable[..., Result], problems: dict[int, int], code: int
) -> None:
    for task_id in (42, 43, 44, 45):
        reply = (202, a_task(task_id))
        if task_id in problems:
            reply = a_problem(problems[task_id], "it cannot be")
        daemon.on("POST", f"/v1/retries/{task_id}/trigger", reply)
    result = ctl("retry", "42", "43", "44", "45", "-o", "json")
    assert result.code == code
    assert {task["id"] for task in result.json["retries"]} == {42, 43, 44, 45} - set(problems)
    assert result.err.splitlines() == [
        f"orchestratorctl: {task_id}: it cannot be" for task_id in problems
    ]


WORDS = {
    "trigger": ("retry",), "cancel": ("cancel",), "resolve": ("resolve", "--as", "succeeded"),
}  # fmt: skip


@pytest.mark.parametrize("action", WORDS)
def test_a_daemon_that_goes_away_half_way_hides_nothing(
    daemon: Daemon, ctl: Callable[..., Result], action: str
) -> None:
    for lost, untried in (("42", "43, 44, 45"), ("44", "45"), ("45", "")):
        daemon.requests.clear()
        for task_id in (42, 43, 44, 45):
            reply = DROP if str(task_id) == lost else (202, a_task(task_id))
            daemon.on("POST", f"/v1/retries/{task_id}/{action}", reply)
        result = ctl(*WORDS[action], "42", "43", "44", "45", "-o", "json")
        assert result.code == 1
        closed, *rest = result.err.splitlines()
        assert closed.endswith("closed the connection before it answered")
        unsure = "It may have carried out the request."
        if lost == "42":
            assert (result.out, rest) == ("", [unsure])
            continue
        assert [task["id"] for task in result.json["retries"]] == list(range(42, int(lost)))
        assert closed.startswith(f"orchestratorctl: {lost}: the daemon at ")
        assert rest == [unsure, *([f"Not tried: {untried}"] if untried else [])]
        assert len(daemon.requests) == int(lost) - 41


def test_what_was_taken_is_shown_where_no_daemon_is_left(
    daemon: Daemon, ctl: Callable[..., Result]
) -> None:
    def last(request: Request) -> Reply:
        daemon.leave(request)
        return 202, a_task(43)

    daemon.on("POST", "/v1/retries/42/trigger", (202, a_task(42)))
    daemon.on("POST", "/v1/retries/43/trigger", last)
    result = ctl("retry", "42", "43", "44", "45", "-o", "json")
    while daemon.path.exists():  # the thread that stops it is not done
        time.sleep(0.001)
    assert (result.code, [task["id"] for task in result.json["retries"]]) == (1, [42, 43])
    assert result.err.startswith("orchestratorctl: 44: no daemon at ")
    assert result.err.endswith("Not tried: 45\n")


@pytest.mark.parametrize("words", WORDS.values())
def test_exit_3_is_for_what_did_nothing(
    daemon: Daemon, ctl: Callable[..., Result], words: tuple[str, ...]
) -> None:
    daemon.stop()
    assert ctl(*words, "42", "43")[:2] == (3, "")


def test_what_was_taken_is_waited_for_though_others_were_not_asked(
    daemon: Daemon, ctl: Callable[..., Result]
) -> None:
    for task_id in (42, 43):
        daemon.on("POST", f"/v1/retries/{task_id}/trigger", (202, a_task(task_id)))
        daemon.on("GET", f"/v1/retries/{task_id}", (200, a_task(task_id, status="succeeded")))
    daemon.on("POST", "/v1/retries/44/trigger", DROP)
    result = ctl("retry", "42", "43", "44", "45", "--wait", "-o", "json")
    assert (result.code, [task["id"] for task in result.json["retries"]]) == (1, [42, 43])
    assert "Not tried: 45" in result.err


def test_a_single_conflict(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    daemon.on("POST", "/v1/retries/42/trigger", a_problem(409, "task 42 is running"))
    expected = (5, "", "orchestratorctl: task 42 is running\n")
    assert ctl("retry", "42") == ctl("retry", "42", "-o", "json") == expected
    assert ctl("retry", "42", "--wait") == expected


def test_waiting_for_several(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    for task_id, status in ((42, "succeeded"), (43, "failed")):
        daemon.on("POST", f"/v1/retries/{task_id}/trigger", (202, a_task(task_id)))
        task = a_task(task_id, status=status, response={"body": f"answer {task_id}"})
        daemon.on("GET", f"/v1/retries/{task_id}", (200, task))
    result = ctl("retry", "42", "43", "--wait")
    assert result.code == 1
    assert result.out == "answer 42\nanswer 43\n"
    assert result.err == "orchestratorctl: task 43 failed after 1 attempt with 503\n"
    result = ctl("retry", "42", "43", "--wait", "-o", "json")
    assert [task["status"] for task in result.json["retries"]] == ["succeeded", "failed"]
    assert ctl("retry", "42", "--wait", "-o", "json").json["status"] == "succeeded"


def test_several_that_were_named_are_a_list(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    daemon.on("POST", "/v1/retries/42/trigger", (202, a_task(42)))
    daemon.on("POST", "/v1/retries/43/trigger", a_problem(409, "task 43 is running"))
    daemon.on("GET", "/v1/retries/42", (200, a_task(42, status="succeeded")))
    for wait in ((), ("--wait",)):
        result = ctl("retry", "42", "43", *wait, "-o", "json")
        assert (result.code, [task["id"] for task in result.json["retries"]]) == (5, [42])
        assert ctl("retry", "43", "43", *wait, "-o", "json").json == {"retries": []}


def test_an_interrupt_prints_what_has_ended(daemon: Daemon) -> None:
    for task_id, status in ((42, "failed"), (43, "running")):
        daemon.on("POST", f"/v1/retries/{task_id}/trigger", (202, a_task(task_id)))
        daemon.on("GET", f"/v1/retries/{task_id}", (200, a_task(task_id, status=status)))
    process = subprocess.Popen(
        command(daemon, "retry", "42", "43", "--wait", "-o", "json"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not daemon.asked("GET", "/v1/retries/43"):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert [task["id"] for task in json.loads(out)["retries"]] == [42]
    assert "Task 43 goes on" in err
    assert "Traceback" not in err


def test_waiting_for_what_could_be_retried(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    daemon.on("POST", "/v1/retries/42/trigger", a_problem(404, "no"))
    daemon.on("POST", "/v1/retries/43/trigger", (202, a_task(43)))
    daemon.on("GET", "/v1/retries/43", (200, a_task(43, status="succeeded", response="ok")))
    result = ctl("retry", "42", "43", "--wait")
    assert (result.code, result.out) == (4, "ok\n")


def test_a_timeout_is_for_all_together(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    for task_id in (42, 43):
        daemon.on("POST", f"/v1/retries/{task_id}/trigger", (202, a_task(task_id)))
        daemon.on("GET", f"/v1/retries/{task_id}", (200, a_task(task_id)))
    result = ctl("retry", "42", "43", "--wait", "--timeout", "200ms", "-o", "json")
    assert result.code == 6
    assert [task["id"] for task in result.json["retries"]] == [42, 43]
    assert "task 42 has not ended in time" in result.err
    assert "task 43 has not ended in time" in result.err


def test_all_that_match_means_failed_where_no_status_is_named(
    daemon: Daemon, ctl: Callable[..., Result]
) -> None:
    daemon.on("POST", "/v1/retries/trigger", (200, {"matched": 1234, "bulk": None}))
    result = ctl("retry", "--all", "--endpoint", "a/b", "--since", "2h", "--dry-run")
    assert result == (0, "MATCHED\n  1,234\n", "This was a dry run: nothing has changed.\n")
    ctl("retry", "--all", "--status", "cancelled", "--status-code", "5xx", "--rate", "10/s")
    assert [request.body for request in daemon.requests] == [
        {"filter": {"status": "failed", "endpoint": "a/b", "since": "2h"}, "dry_run": True},
        {
            "filter": {"status": "cancelled", "status_code": "5xx"},
            "dry_run": False,
            "rate": "10/s",
        },
    ]


def test_a_dry_run_tells_what_it_would_move(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    counts = [{"reason": "exhausted", "endpoint": f"a/{n}", "tasks": 30 - n} for n in range(22)]
    answer = {
        "matched": 429, "bulk": None, "left_out": {"ambiguous": 1200, "poisoned": 1},
        "counts": counts, "examples": [a_task(42, status="failed", reason="exhausted")],
    }  # fmt: skip
    daemon.on("POST", "/v1/retries/trigger", (200, answer))
    result = ctl("retry", "--all", "--reason", "exhausted,rejected", "--dry-run")
    lines = [line.split() for line in result.out.splitlines()]
    assert lines[:5] == [
        ["MATCHED"], ["429"], [], ["TASKS", "REASON", "ENDPOINT"], ["30", "exhausted", "a/0"]
    ]  # fmt: skip
    assert "and 2 more; -o json has all" in result.out
    assert lines[-1][0] == "42"
    assert result.err.splitlines() == [
        "Left out: 1,200 ambiguous (may have been carried out), 1 poisoned (ended the daemon).",
        "Choose them with --reason, or take all with --include-ambiguous.",
        "This was a dry run: nothing has changed.",
    ]
    ctl("retry", "--all", "--kind", "call", "--include-ambiguous", "--dry-run")
    assert [request.body for request in daemon.requests] == [
        {"filter": {"status": "failed", "reason": "exhausted,rejected"}, "dry_run": True},
        {
            "filter": {"status": "failed", "kind": "call"}, "dry_run": True,
            "include_ambiguous": True,
        },
    ]  # fmt: skip


def test_what_a_resolve_leaves_out_was_never_sent(
    daemon: Daemon, ctl: Callable[..., Result]
) -> None:
    left_out = {"webhook_disabled": 1, "resolved": 2, "replaced": 1}
    answer = {"matched": 2, "bulk": None, "left_out": left_out}
    daemon.on("POST", "/v1/retries/resolve", (200, answer))
    result = ctl("resolve", "--all", "--kind", "webhook", "--as", "succeeded", "--dry-run")
    assert result.err.splitlines() == [
        "Left out: 1 webhook_disabled (kept to be replayed once the webhook is enabled), "
        "2 resolved (a person said how they ended), 1 replaced.",
        "Choose them with --reason.",
        "This was a dry run: nothing has changed.",
    ]


def test_a_dry_run_as_json(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    daemon.on("POST", "/v1/retries/trigger", (200, {"matched": 5, "bulk": None}))
    result = ctl("retry", "--all", "--kind", "call", "--dry-run", "-o", "json")
    assert result.json == {"matched": 5, "bulk": None}


def test_a_filter_that_the_daemon_refuses(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    daemon.on("POST", "/v1/retries/trigger", a_problem(422, "rate: 'fast' is no rate"))
    result = ctl("retry", "--all", "--kind", "call", "--rate", "fast")
    assert result == (2, "", "orchestratorctl: rate: 'fast' is no rate\n")


def test_cancelling(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    daemon.on("POST", "/v1/retries/42/cancel", (202, a_task(42, status="cancelled")))
    daemon.on("POST", "/v1/retries/43/cancel", (202, a_task(43, status="running")))
    daemon.on("POST", "/v1/retries/44/cancel", a_problem(409, "task 44 has succeeded"))
    result = ctl("cancel", "42", "43", "44")
    assert result.code == 5
    assert [line.split()[3] for line in result.out.splitlines()[1:]] == ["cancelled", "running"]
    assert "44: task 44 has succeeded" in result.err
    assert "Task 43 is in flight; it will not be tried again." in result.err
    assert ctl("cancel", "42", "-o", "json").json["status"] == "cancelled"


def test_cancelling_all_that_match_means_pending_where_no_status_is_named(
    daemon: Daemon, ctl: Callable[..., Result]
) -> None:
    daemon.on("POST", "/v1/retries/cancel", (200, {"matched": 3, "bulk": None}))
    result = ctl("cancel", "--all", "--text", "4711", "--until", "1h", "--dry-run")
    assert (result.code, result.out.split()) == (0, ["MATCHED", "3"])
    (request,) = daemon.requests
    wanted = {"status": "pending", "until": "1h", "text": "4711"}
    assert request.body == {"filter": wanted, "dry_run": True}


@pytest.mark.parametrize(
    "words", [(), ("7", "--all", "--kind", "call"), ("--all",), ("7", "--dry-run")]
)
def test_what_cancel_does_not_take(ctl: Callable[..., Result], words: tuple[str, ...]) -> None:
    assert ctl("cancel", *words).code == 2


def test_a_time_for_the_first_attempt(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    ctl("call", "a/b", "--at", "2026-11-24T23:00:00+01:00")
    request = next(one for one in daemon.requests if one.body)
    assert request.body["at"] == "2026-11-24T22:00:00Z"
    assert "delay" not in request.body
