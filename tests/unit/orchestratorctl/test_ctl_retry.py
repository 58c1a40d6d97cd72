from __future__ import annotations

from collections.abc import Callable

import pytest
from scripted_daemon import Daemon, Result, a_problem, a_task, at


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
