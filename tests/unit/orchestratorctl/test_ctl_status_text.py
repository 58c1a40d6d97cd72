from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from scripted_daemon import Daemon, Result, at


def a_status(**changes: Any) -> dict[str, Any]:
    return {
        "version": "0.1.0",
        "pid": 812,
        "instance": "k3vq81",
        "started_at": at(-7400),
        "uptime": 7380.2,
        "generation": 7,
        "config": {
            "folder": "/etc/orchestratord",
            "generation": 7,
            "adopted_at": at(-720),
            "cause": "reload",
            "endpoints": 42,
            "error": None,
            "warnings": [],
            "restart_required": [],
        },
        "queue": {
            "pending": 12,
            "running": 3,
            "succeeded": 10240,
            "failed": 2,
            "cancelled": 0,
            "due": 3,
            "oldest_due_age": 4.2,
        },
        "in_flight": 3,
        "concurrency": 100,
        "next_due": at(9000),
        "draining": False,
        "database": {"url": "sqlite:////var/lib/o.db", "size": 12_900_000, "accepting": True},
        "plugins": [
            {"name": "webhooks", "version": "0.1.0", "status": "loaded"},
            {"name": "backoff", "version": "0.2.0", "status": "disabled"},
        ],
        "lanes": [
            {"name": "salesforce", "in_flight": 3, "concurrency": 10, "due": 2},
            {"name": "idle.example.com:443", "in_flight": 0, "concurrency": 10, "due": 0},
        ],
        "paused": [],
        **changes,
    }


def test_a_healthy_daemon_on_one_screen(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    daemon.on("GET", "/v1/status", (200, a_status()))
    result = ctl("status")
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[0] == "orchestratord 0.1.0"
    assert "  running     for 2h3m, pid 812, instance k3vq81" in lines
    assert "  config      /etc/orchestratord, 42 endpoints" in lines
    assert any("7 since 2" in line and line.endswith("(12m ago), by reload") for line in lines)
    queue = "12 pending, 3 running, 2 failed, 10,240 succeeded, 0 cancelled"
    assert f"  queue       {queue}" in lines
    assert "  due         3 now, the oldest for 4.2s, the next in 2h" in lines
    assert "  in flight   3 of 100" in lines
    assert "  database    sqlite:////var/lib/o.db, 12.3 MiB" in lines
    assert "  plugins     webhooks 0.1.0, backoff 0.2.0 (disabled)" in lines
    assert lines[-1].split() == ["salesforce", "3", "10", "2"]  # an idle lane is no news
    assert "paused" not in result.out


def test_what_needs_attention_is_said(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    status = a_status(
        paused=["a/b", "c/d"],
        plugins=[
            {"name": "mine", "version": "3", "status": "failed", "faults": 0},
            {"name": "webhooks", "version": "1", "status": "loaded", "faults": 2},
        ],
        draining=True,
        health={
            "ready": False,
            "troubles": [
                {"code": "draining", "why": "draining", "since": None},
                {"code": "storage_full", "why": "the disk has no room", "since": at(-60)},
                {"code": "worker_stalled", "why": "the worker stands still", "since": None},
            ],
        },
        database={"url": "sqlite:////o.db", "size": 5, "holding_back": ["pid 7 reads"]},
        outbox={"relays": True, "error": "there is no table orchestratord_outbox"},
    )
    status["config"] |= {
        "error": {
            "at": at(-180),
            "errors": [
                {
                    "file": "apis/a/api.yaml",
                    "line": 3,
                    "column": 5,
                    "key": "k",
                    "message": "bad",
                    "source": "x: {k: 1}",
                    "hint": None,
                }
            ],
        },
        "warnings": [{"file": "orchestratord.yaml", "line": 1, "column": 1, "message": "hm"}],
        "restart_required": ["http.bind"],
    }
    daemon.on("GET", "/v1/status", (200, status))
    out = ctl("status").out
    assert "draining" in out
    assert "the files are in error since" in out
    assert "generation 7 goes on" in out
    shown = "apis/a/api.yaml:3:5: k: bad\n    3 | x: {k: 1}\n      |     ^\n"
    assert f"\n{shown}" in out
    assert "warning: orchestratord.yaml:1:1: hm" in out
    assert "restart required for http.bind" in out
    assert "not ready   the disk has no room, since" in out
    assert "            the worker stands still" in out
    assert "            pid 7 reads" in out
    assert "outbox      cannot be relayed: there is no table orchestratord_outbox" in out
    assert "paused      a/b, c/d" in out
    assert "plugins     mine 3 (failed), webhooks 1 (2 faults)" in out


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"config": None, "queue": None, "database": None, "plugins": None, "lanes": None},
        {"config": {}, "queue": {}, "database": {}, "plugins": [{}], "lanes": [{}]},
        {"uptime": "1h", "next_due": 5, "config": {"error": {}, "warnings": ["w"]}},
    ],
)
def test_what_is_missing_is_left_out(
    daemon: Daemon, ctl: Callable[..., Result], document: dict[str, Any]
) -> None:
    daemon.on("GET", "/v1/status", (200, document))
    result = ctl("status")
    assert result.code == 0
    assert result.out.startswith("orchestratord\n")


def test_as_json_it_is_what_the_daemon_says(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    status = a_status()
    daemon.on("GET", "/v1/status", (200, status))
    assert ctl("status", "-o", "json").json == status


FREE = {"in_flight": 0, "concurrency": 10, "due": 2, "rate": None, "breaker": None}


def test_lanes_that_wait_are_shown_with_why(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    breaker = {
        "state": "open", "since": at(-300)[:11] + "10:31:04.000Z", "why": "503 Service Unavailable",
        "probes": 6, "next_probe": at(12),
    }  # fmt: skip
    limited = {"limit": "100/min", "times": 100, "used": 100, "next": at(40)}
    lanes: list[dict[str, Any]] = [
        {"name": "api:shop", **FREE, "breaker": breaker},
        {"name": "api:crm", **FREE, "rate": limited},
        {"name": "api:crm2", **FREE, "rate": {**limited, "used": 9, "next": None}},
        {
            "name": "hooks:443",
            **FREE,
            "retry_after": {"until": at(90), "why": "429 with Retry-After"},
        },
    ]
    breakers = [
        {"lane": "api:shop", "due": 2, **breaker},
        {"lane": "far:443", "due": 0, **breaker, "state": "half_open", "next_probe": None},
    ]
    waiting = [
        {"lane": "api:shop", "breaker": {"since": breaker["since"], "why": "refused"},
         "retry_after": None},
        {"lane": "hooks:443", "breaker": None, "retry_after": {"until": at(90), "why": "429"}},
    ]  # fmt: skip
    daemons = [
        {"pid": 812, "host": "one", "alive": True, "this": True, "waiting": waiting},
        {"pid": 640, "host": "two", "alive": True, "this": False, "waiting": waiting},
        {"pid": 655, "host": "gone", "alive": False, "this": False, "waiting": waiting},
    ]
    status = a_status(lanes=lanes, breakers=breakers, daemons=daemons)
    daemon.on("GET", "/v1/status", (200, status))
    out = ctl("status").out
    table = [line.split("  ") for line in out.partition("THROTTLED LANE")[2].splitlines()]
    rows = [[cell.strip() for cell in row if cell.strip()] for row in table]
    assert rows[0] == ["DUE", "FOR", "NEXT", "WHY"]
    assert rows[1] == [
        "api:shop", "2", "breaker, open since 10:31:04Z", "probe in 12s", "503 Service Unavailable",
    ]  # fmt: skip
    assert rows[2][3] == "probe is under way"
    assert rows[3][:4] == ["api:crm", "2", "rate_limit 100/min", "in 40s"]
    assert rows[4] == ["hooks:443", "2", "Retry-After", "in 1m", "429 with Retry-After"]
    # Those of another daemon; what a receiver has said to it holds here as well.
    assert rows[5] == [
        "api:shop", "-", "breaker, open since 10:31:04Z", "-", "pid 640 on two: refused",
    ]  # fmt: skip
    assert len(rows) == 6
