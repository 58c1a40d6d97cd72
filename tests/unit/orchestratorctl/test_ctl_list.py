from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from scripted_daemon import Daemon, Reply, Request, Result, a_task, at


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
        ),
        a_task(1042, status="running", last_status_code=None, created_at=at(-330)),
        a_task(1041, next_try=at(-3), last_status_code="error"),
    ]


def test_a_row_a_task(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    daemon.on("GET", "/v1/retries", (200, {"retries": some_tasks(), "next": None}))
    result = ctl("list")
    assert (result.code, result.err) == (0, "")
    users = "salesforce/getUsers"
    assert [" ".join(line.split()) for line in result.out.splitlines()] == [
        "ID KIND ENDPOINT STATUS ATTEMPTS CODE NEXT TRY CREATED",
        f"1044 call {users} pending 1/15 503 in 2h 2h ago",
        f"1043 webhook {users} → ops failed exhausted 10/10 410 - 2h ago",
        f"1042 call {users} running 1/15 - - 5m ago",
        f"1041 call {users} pending 1/15 error due 2h ago",
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


@pytest.fixture
def many(daemon: Daemon) -> None:
    """5,000 tasks in pages of at most 1,000."""

    def page(request: Request) -> Reply:
        first = int(request.query.get("after", "5001")) - 1
        limit = int(request.query["limit"])
        assert limit <= 1000
        ids = list(range(first, max(first - limit, 0), -1))
        return 200, {
            "retries": [{"id": i} for i in ids],
            "next": ids[-1] if ids and ids[-1] > 1 else None,
        }

    daemon.on("GET", "/v1/retries", page)


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize(
    ("limit", "asked"),
    [(100, [100]), (1000, [1000]), (2500, [1000, 1000, 500]), (9000, [1000] * 5)],
)
def test_pages_are_followed_as_far_as_the_limit(
    daemon: Daemon, ctl: Callable[..., Result], limit: int, asked: list[int]
) -> None:
    result = ctl("list", "--limit", str(limit), "-o", "json")
    ids = [task["id"] for task in result.json["retries"]]
    assert ids == list(range(5000, max(5000 - limit, 0), -1))
    assert [int(request.query["limit"]) for request in daemon.requests] == asked
    assert (result.json["next"] is None) == (limit == 9000)


@pytest.mark.usefixtures("many")
def test_more_than_shown_is_said(ctl: Callable[..., Result]) -> None:
    assert "There are more than these 3" in ctl("list", "--limit", "3").err
    assert ctl("list", "--limit", "3", "-o", "json").err == ""
    assert ctl("list", "--limit", "5000").err == ""
