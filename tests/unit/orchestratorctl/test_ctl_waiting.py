"""Waiting for tasks, over restarts of the daemon."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from scripted_daemon import DROP, Daemon, Reply, Request, Result, a_problem, a_task, at

from orchestratorctl import socket_client, waiting

ANSWER = {"status_code": 200, "headers": {"Content-Type": "text/plain"}, "body": "hello\n\x1b[2J"}


@pytest.mark.usefixtures("accepted")
def test_waiting_prints_the_answer(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    task = a_task(42, status="succeeded", last_status_code=200, response=ANSWER)
    daemon.on("GET", "/v1/retries/42", (200, a_task(42, status="running")), (200, task))
    assert ctl("call", "a/b", "--wait") == (0, "hello\n\\u001b[2J\n", "")
    assert [r.query for r in daemon.asked("GET", "/v1/retries/42")] == [{"wait": "30.000"}] * 2
    assert ctl("call", "a/b", "--wait", "-o", "json").json == task


@pytest.mark.usefixtures("accepted")
def test_waiting_for_a_failure(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    task = a_task(
        42, status="failed", reason="exhausted", attempts=3, last_status_code=503, response=ANSWER
    )
    daemon.on("GET", "/v1/retries/42", (200, task))
    result = ctl("call", "a/b", "--wait")
    assert result.code == 1
    assert result.out == "hello\n\\u001b[2J\n"
    assert result.err == ("orchestratorctl: task 42 failed (exhausted) after 3 attempts with 503\n")
    daemon.on("GET", "/v1/retries/42", (200, task | {"status": "cancelled", "response": None}))
    assert ctl("call", "a/b", "--wait")[:2] == (1, "")


@pytest.mark.usefixtures("accepted")
@pytest.mark.parametrize(
    ("response", "out"),
    [
        (None, ""),
        ("text", "text\n"),
        ({"status_code": 204, "headers": {}, "body": ""}, ""),
        ({"status_code": 204, "headers": {}}, ""),
        ({"status_code": 200, "headers": [], "body": None}, ""),
        ({"status_code": 200, "headers": [["content-type", "x"]], "body": {"a": 1}}, '{"a": 1}\n'),
    ],
)
def test_answers_of_every_shape(
    daemon: Daemon, ctl: Callable[..., Result], response: Any, out: str
) -> None:
    daemon.on("GET", "/v1/retries/42", (200, a_task(42, status="succeeded", response=response)))
    assert ctl("call", "a/b", "--wait") == (0, out, "")


@pytest.mark.usefixtures("accepted")
def test_a_shortened_answer_is_said(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    response = {"status_code": 200, "headers": {}, "body": "abc", "truncated": True}
    daemon.on("GET", "/v1/retries/42", (200, a_task(42, status="succeeded", response=response)))
    result = ctl("call", "a/b", "--wait")
    assert result.out == "abc\n"
    assert "kept its beginning" in result.err


@pytest.mark.usefixtures("accepted")
def test_an_answer_that_is_no_text(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    response = {"status_code": 200, "headers": [], "body": "/wA=", "encoding": "base64"}
    task = a_task(42, status="succeeded", response=response)
    daemon.on("GET", "/v1/retries/42", (200, task))
    result = ctl("call", "a/b", "--wait")
    assert result == (0, "/wA=\n", "The answer is not text; this is its base64.\n")
    assert "Last answer: 200, not text: this is its base64, 4 characters" in ctl("show", "42").out


@pytest.mark.usefixtures("accepted")
def test_waiting_no_longer_than_asked(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    def slowly(request: Request) -> Reply:
        time.sleep(float(request.query.get("wait", "0")))
        return 200, a_task(42, attempts=2, next_try=at(99))

    daemon.on("GET", "/v1/retries/42", slowly)
    result = ctl("call", "a/b", "--wait", "--timeout", "300ms")
    assert (result.code, result.out) == (6, "")
    assert "task 42 has not ended in time: attempt 2 failed with 503, next try in" in result.err
    assert "orchestratorctl show 42" in result.err
    assert 0 < float(daemon.asked("GET", "/v1/retries/42")[0].query["wait"]) <= 0.3
    result = ctl("call", "a/b", "--wait", "--timeout", "0", "-o", "json")
    assert result.code == 6
    assert result.json["status"] == "pending"


@pytest.mark.usefixtures("accepted")
def test_a_daemon_that_answers_early_is_not_hammered(
    daemon: Daemon, ctl: Callable[..., Result]
) -> None:
    daemon.on("GET", "/v1/retries/42", (200, a_task(42)))
    assert ctl("call", "a/b", "--wait", "--timeout", "600ms").code == 6
    assert len(daemon.asked("GET", "/v1/retries/42")) <= 5


@pytest.mark.usefixtures("accepted")
def test_waiting_over_a_restart(
    daemon: Daemon, ctl: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket_client, "AWAY_PAUSE", 0.01)
    done = (200, a_task(42, status="succeeded", response=ANSWER))
    daemon.on("GET", "/v1/retries/42", DROP, a_problem(503, "draining"), done)
    restarted = threading.Event()

    def restart(request: Request) -> str:
        def again() -> None:
            daemon.stop()
            time.sleep(0.1)
            daemon.start()
            restarted.set()

        threading.Thread(target=again).start()
        return DROP

    daemon.on("GET", "/v1/retries/42", restart, DROP, a_problem(503, "draining"), done)
    assert ctl("call", "a/b", "--wait").code == 0
    assert restarted.wait(5)


@pytest.mark.usefixtures("accepted")
def test_the_time_is_over_while_the_daemon_is_away(
    daemon: Daemon, ctl: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket_client, "AWAY_PAUSE", 0.01)
    daemon.on("GET", "/v1/retries/42", DROP)
    result = ctl("call", "a/b", "--wait", "--timeout", "200ms")
    assert result.code == 6
    assert "task 42: " in result.err
    assert "The task goes on." in result.err


@pytest.mark.parametrize(
    ("reply", "code", "why"),
    [
        (DROP, 1, "closed the connection before it answered\nThe task goes on.\n"),
        (Daemon.leave, 1, "no daemon at"),
        (a_problem(404, "there is no task 43"), 4, "task 43: there is no task 43\n"),
    ],
)
def test_what_has_ended_is_printed_though_the_next_cannot_be_waited_for(
    daemon: Daemon,
    ctl: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch,
    reply: Any,
    code: int,
    why: str,
) -> None:
    monkeypatch.setattr(socket_client, "AWAY_TIMEOUT", 0.1)
    monkeypatch.setattr(socket_client, "AWAY_PAUSE", 0.01)
    for task_id in (42, 43, 44):
        daemon.on("POST", f"/v1/retries/{task_id}/trigger", (202, a_task(task_id)))
    daemon.on("GET", "/v1/retries/42", (200, a_task(42, status="succeeded")))
    leaves = reply is Daemon.leave
    daemon.on("GET", "/v1/retries/43", daemon.leave if leaves else reply)
    result = ctl("retry", "42", "43", "44", "--wait", "-o", "json")
    assert (result.code, [task["id"] for task in result.json["retries"]]) == (code, [42])
    assert "orchestratorctl: task 43: " in result.err
    assert why in result.err
    assert ("The task goes on." in result.err) == (code == 1)


@pytest.mark.usefixtures("accepted")
def test_a_terminal_hears_what_is_waited_for(
    daemon: Daemon, terminal: Callable[..., Result]
) -> None:
    daemon.on(
        "GET",
        "/v1/retries/42",
        (200, a_task(42, attempts=0, next_try=at(-1), waits={"why": "rate_limit 2/min of api:a"})),
        (200, a_task(42, attempts=0, next_try=at(-1))),
        (200, a_task(42, status="running", attempts=1)),
        (200, a_task(42, attempts=1, next_try=at(9.5))),
        (200, a_task(42, attempts=1, next_try=at(8.5))),
        (200, a_task(42, attempts=2, last_status_code="error", last_error="re\x1bset")),
        (200, a_task(42, status="succeeded", attempts=3, last_status_code=200, response=ANSWER)),
    )
    result = terminal("call", "a/b", "--wait")
    assert result.code == 0
    lines = result.out.splitlines()
    assert lines.pop(0) == "task 42: waits: rate_limit 2/min of api:a"
    assert lines[:2] == ["task 42: waits for its turn", "task 42: attempt 1 is under way"]
    assert lines[2].startswith("task 42: attempt 1 failed with 503, next try in ")
    assert lines[3].startswith("task 42: attempt 2 failed: re\\u001bset, next try in ")
    assert lines[4:] == ["hello", "\\u001b[2J", "task 42 succeeded after 3 attempts with 200"]
    assert {r.query["wait"] for r in daemon.asked("GET", "/v1/retries/42")} == {
        f"{waiting.WATCHED_POLL:.3f}"
    }
