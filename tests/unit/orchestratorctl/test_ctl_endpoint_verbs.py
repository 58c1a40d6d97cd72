from __future__ import annotations

from collections.abc import Callable

import pytest
from scripted_daemon import Daemon, Result, a_problem

ENDPOINT = {
    "id": "salesforce/getUsers",
    "type": "http",
    "method": "GET",
    "path": "/users/{{ params.id }}",
    "params": {"id": {"required": True}},
    "success": ["2xx"],
    "retry": {"backoff": {"strategy": "exponential", "delay": "5s"}, "when": ["error", 503]},
    "schedule": {"every": "day", "at": "10:30"},
    "webhooks": [
        {
            "name": "ops",
            "phase": "after_request",
            "status_code": ["5xx", "error"],
            "url": "https://ops.example.com/hook",
        }
    ],
    "enabled": True,
    "paused": False,
}


def test_the_list(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    others = [
        {**ENDPOINT, "id": "a/b", "paused": True, "schedule": {"cron": "*/15 * * * *"}},
        {**ENDPOINT, "id": "a/c", "enabled": False, "schedule": None, "webhooks": []},
    ]
    daemon.on("GET", "/v1/endpoints", (200, {"endpoints": [ENDPOINT, *others]}))
    result = ctl("endpoints")
    assert result.code == 0
    assert [line.split("  ") for line in _squeezed(result.out)] == [
        ["ENDPOINT", "STATE", "TARGET", "SCHEDULE", "WEBHOOKS"],
        ["salesforce/getUsers", "enabled", "GET /users/{{ params.id }}", "every day at 10:30", "1"],
        ["a/b", "paused", "GET /users/{{ params.id }}", "*/15 * * * *", "1"],
        ["a/c", "disabled", "GET /users/{{ params.id }}", "-", "0"],
    ]


def test_the_schedules(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    missed = {
        "slots": 3, "first": "2026-11-24T20:00:00Z", "last": "2026-11-24T22:00:00Z",
        "noticed_at": "2026-11-24T22:00:01Z", "ran": True,
    }  # fmt: skip
    one = {
        "endpoint": "a/b", "schedule": {"every": "1h"}, "enabled": True, "paused": True,
        "next_run": None, "last_run": None, "task": 7, "status": "failed", "reason": "exhausted",
        "status_code": 503, "finished_at": None, "last_success_at": None, "missed": missed,
    }  # fmt: skip
    daemon.on("GET", "/v1/schedules", (200, {"schedules": [one]}))
    head, line = ctl("schedules").out.splitlines()
    assert head.split() == [
        "ENDPOINT", "STATE", "SCHEDULE", "NEXT", "LAST", "TASK", "STATUS", "MISSED",
    ]  # fmt: skip
    assert "a/b       paused  every 1h" in line
    assert "7  failed exhausted" in line
    assert "3 until " in line
    assert line.endswith("run once, late")


def test_none(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    daemon.on("GET", "/v1/endpoints", (200, {"endpoints": []}))
    assert ctl("endpoints") == (0, "", "No endpoint is declared.\n")


def test_one_with_its_declaration(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    daemon.on("GET", "/v1/endpoints/salesforce/getUsers", (200, ENDPOINT))
    out = ctl("endpoints", "salesforce/getUsers").out
    assert out.startswith("salesforce/getUsers\n")
    squeezed = _squeezed(out)
    assert "  state  enabled" in squeezed
    assert "  retry.backoff.strategy  exponential" in squeezed
    assert "  retry.when  error, 503" in squeezed
    assert "  params.id.required  true" in squeezed
    assert squeezed[-1] == "ops  after_request  5xx,error  https://ops.example.com/hook  yes"
    assert ctl("endpoints", "salesforce/getUsers", "-o", "json").json == ENDPOINT


def test_no_such_endpoint(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    daemon.on("GET", "/v1/endpoints/a/b", a_problem(404, "there is no endpoint a/b"))
    assert ctl("endpoints", "a/b") == (4, "", "orchestratorctl: there is no endpoint a/b\n")


@pytest.mark.parametrize(
    ("verb", "words"), [("pause", "a/b is paused: its calls wait"), ("resume", "a/b goes on")]
)
def test_pausing_and_resuming(
    daemon: Daemon, ctl: Callable[..., Result], verb: str, words: str
) -> None:
    daemon.on("POST", f"/v1/endpoints/a/b/{verb}", (200, {"id": "a/b", "paused": True}))
    result = ctl(verb, "a/b")
    assert (result.code, result.out) == (0, "")
    assert words in result.err
    assert ctl(verb, "a/b", "-o", "json").json == {"id": "a/b", "paused": True}


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_all_endpoints_of_an_api(daemon: Daemon, ctl: Callable[..., Result], verb: str) -> None:
    ids = ["a/b", "a/c", "ab/c"]
    daemon.on("GET", "/v1/endpoints", (200, {"endpoints": [{**ENDPOINT, "id": i} for i in ids]}))
    answers = [{"id": one, "paused": verb == "pause"} for one in ids[:2]]
    for answer in answers:
        daemon.on("POST", f"/v1/endpoints/{answer['id']}/{verb}", (200, answer))
    result = ctl(verb, "a/*")
    assert (result.code, result.out) == (0, "")
    said = {"pause": "is paused: its calls wait, its deliveries go on", "resume": "goes on"}[verb]
    assert result.err == f"a/b {said}.\na/c {said}.\n"
    assert [r.path for r in daemon.requests if r.method == "POST"] == [
        f"/v1/endpoints/a/b/{verb}", f"/v1/endpoints/a/c/{verb}",
    ]  # fmt: skip
    assert ctl(verb, "a/*", "-o", "json").json == {"endpoints": answers}
    assert ctl(verb, "b/*") == (4, "", "orchestratorctl: there is no endpoint b/*\n")


def test_resuming_a_disabled_endpoint(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    answer = {"id": "a/b", "paused": False, "lifted": False, "disabled_in": "apis/a/b.yaml"}
    daemon.on("POST", "/v1/endpoints/a/b/resume", (200, answer))
    said = "a/b stays disabled by `enabled: false` in apis/a/b.yaml: take that out there.\n"
    assert ctl("resume", "a/b").err == said


def _squeezed(text: str) -> list[str]:
    """The lines with each gap of two blanks or more as two."""
    lines = []
    for line in text.splitlines():
        indent = "  " if line.startswith("  ") else ""
        cells = [cell.strip() for cell in line.split("  ") if cell.strip()]
        lines.append(indent + "  ".join(cells))
    return lines
