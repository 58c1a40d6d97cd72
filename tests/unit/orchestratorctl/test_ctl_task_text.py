from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from scripted_daemon import Daemon, Result, a_problem, a_task, at

LOG = [
    {
        "attempt": 1,
        "started_at": "2026-11-24T22:00:00.100Z",
        "duration_ms": 120.4,
        "status_code": 503,
        "error": None,
        "delay": 5.1,
        "why": "exponential 5s·2^0=5s, jitter +0.1s",
    },
    {
        "attempt": 2,
        "started_at": "2026-11-24T22:00:05.300Z",
        "duration_ms": 30000,
        "status_code": "error",
        "error": "no answer\nwithin 30 s",
        "delay": "30s",
        "why": "exponential 5s·2^2=20s, jitter −1.1s, Retry-After 30s won",
    },
    {
        "attempt": 3,
        "started_at": "2026-11-24T22:01:05.300Z",
        "duration_ms": 88,
        "status_code": 503,
        "error": None,
        "delay": None,
        "why": None,
    },
]


def failed(**changes: Any) -> dict[str, Any]:
    return (
        a_task(
            42,
            status="failed",
            reason="exhausted",
            attempts=3,
            max_attempts=3,
            deaths=1,
            next_try=None,
            last_error="503 Service\x1b[31m Unavailable",
            finished_at=at(-65),
            response={
                "status_code": 503,
                "headers": {"content-type": "text/html"},
                "body": "<b>\x1b[31mbusy</b>\r\n\r\nsorry\n",
            },
            attempt_log=LOG,
        )
        | changes
    )


def test_a_failed_call(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    daemon.on("GET", "/v1/retries/42", (200, failed()))
    result = ctl("show", "42")
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[0] == "Task 42: call of salesforce/getUsers"
    assert "  status      failed exhausted" in lines
    assert "  attempts    3 of 3" in lines
    assert "  deaths      1 of its starts ended with the daemon's death" in lines
    assert any(line.startswith("  finished") and line.endswith("Z (1m ago)") for line in lines)
    assert '  params      {"id": "007"}' in lines
    assert "  last error  503 Service\\u001b[31m Unavailable" in lines
    answer = lines.index("Last answer: 503, text/html, 26 characters")
    assert lines[answer + 1 : answer + 4] == ["  | <b>\\u001b[31mbusy</b>", "  |", "  | sorry"]
    assert lines[answer + 4 :] == [
        "",
        "Attempts",
        "#  STARTED (UTC)    TOOK   CODE  THEN",
        "1  11-24 22:00:00  120ms    503  wait 5.1s: exponential 5s·2^0=5s, jitter +0.1s",
        "2  11-24 22:00:05    30s  error  wait 30s: exponential 5s·2^2=20s, jitter −1.1s, "
        "Retry-After 30s won",
        "   no answer\\nwithin 30 s",
        "3  11-24 22:01:05   88ms    503  failed",
    ]


def test_on_80_columns_the_reasons_go_on_below(
    daemon: Daemon, terminal: Callable[..., Result]
) -> None:
    daemon.on("GET", "/v1/retries/42", (200, failed()))
    lines = terminal("show", "42", NO_COLOR="1").out.splitlines()
    assert max(len(line) for line in lines) <= 80
    at_row = next(i for i, line in enumerate(lines) if line.startswith("2  11-24"))
    assert lines[at_row].endswith("jitter −1.1s,")
    assert lines[at_row + 1] == " " * 33 + "Retry-After 30s won"


def test_a_waiting_delivery(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    task = a_task(
        43,
        kind="webhook",
        webhook="ops",
        phase="on_retry",
        parent_id=42,
        attempts=0,
        next_try=at(9000),
        params=None,
        payload={"type": "on_retry"},
        last_status_code=None,
        response=None,
        attempt_log=[],
    )
    daemon.on("GET", "/v1/retries/43", (200, task))
    out = ctl("show", "43").out
    assert out.startswith("Task 43: delivery for salesforce/getUsers → ops\n")
    assert "phase     on_retry\n" in out
    assert "next try  in 2h (2" in out
    assert "parent    task 42\n" in out
    assert 'payload   {"type": "on_retry"}\n' in out
    assert "Last answer: none\n" in out
    assert "Attempts: none yet\n" in out
    assert "finished" not in out


def test_a_long_answer_is_cut_to_a_screen(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    for body in ("line\n" * 100, "x" * 20_000):
        response = {"status_code": 200, "headers": {}, "body": body}
        daemon.on("GET", "/v1/retries/42", (200, failed(response=response)))
        out = ctl("show", "42").out
        assert len([line for line in out.splitlines() if line.startswith("  | ")]) == 20
        assert "  … only the beginning is shown; -o json shows all.\n" in out
        shown = ctl("show", "42", "-o", "json").json
        assert shown["response"]["body"] == body


def test_what_the_daemon_cut_is_said(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    response = {"status_code": 200, "headers": {}, "body": "abc", "truncated": True}
    daemon.on("GET", "/v1/retries/42", (200, failed(response=response)))
    assert "the daemon has kept its beginning" in ctl("show", "42").out


def test_a_bare_task_is_shown_too(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    daemon.on("GET", "/v1/retries/42", (200, {"id": 42, "attempt_log": [{}]}))
    assert ctl("show", "42").code == 0


def test_no_such_task(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    daemon.on("GET", "/v1/retries/9", a_problem(404, "there is no task 9"))
    assert ctl("show", "9") == (4, "", "orchestratorctl: there is no task 9\n")


@pytest.mark.parametrize(
    ("waits", "words"),
    [
        (
            {"for": "breaker", "why": "the breaker of api:shop is open: 503",
             "since": "2026-11-25T10:31:04.000Z", "until": "in 12s"},
            "the breaker of api:shop is open: 503; open since 10:31:04Z, next probe in 12s",
        ),
        (
            {"for": "breaker", "why": "the breaker of api:shop is open: 503",
             "since": "2026-11-25T10:31:04.000Z", "until": None},
            "the breaker of api:shop is open: 503; open since 10:31:04Z, next probe is under way",
        ),
        (
            {"for": "rate_limit", "why": "rate_limit 100/min of api:shop", "until": "in 40s"},
            "rate_limit 100/min of api:shop, the next of it in 40s",
        ),
        (
            {"for": "retry_after", "why": "it was told to wait: 429", "until": "in 40s"},
            "it was told to wait: 429, in 40s",
        ),
        ({"for": "parked", "why": "it is paused", "until": None}, "it is paused"),
    ],
)  # fmt: skip
def test_what_a_task_waits_for(
    daemon: Daemon, ctl: Callable[..., Result], waits: dict[str, Any], words: str
) -> None:
    if str(waits["until"]).startswith("in "):
        waits = {**waits, "until": at(int(waits["until"][3:-1]))}
    task = a_task(42, status="pending", waits=waits, attempt_log=[])
    daemon.on("GET", "/v1/retries/42", (200, task))
    [line] = [line for line in ctl("show", "42").out.splitlines() if "waits for " in line]
    assert line.partition("waits for ")[2].strip() == words
