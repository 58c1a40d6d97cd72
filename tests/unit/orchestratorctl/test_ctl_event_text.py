"""`events`: one line each, in every format, over restarts of the daemon."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from scripted_daemon import DROP, Daemon, Result, a_problem, command

from orchestratorctl import argument_types, socket_client, tables
from orchestratorctl.argument_types import EVENTS, GROUPS, KINDS, REASONS, STATUSES
from orchestratorctl.shell_completion import complete
from orchestratord.model.event import EventType
from orchestratord.model.task import Kind, Reason, Status
from orchestratord.queue.reports import grouped
from orchestratord.values.durations import parse_duration

AT = "2026-11-24T22:00:01.250Z"
END = a_problem(500, "the end of the script")
"""No daemon says so; it ends what would otherwise follow for ever."""


def event(type_: str, **fields: Any) -> dict[str, Any]:
    return {"type": type_, "at": AT, **fields}


def a_step(type_: str, **fields: Any) -> dict[str, Any]:
    given = {
        "id": 42, "kind": "call", "endpoint": "shop/getOrder", "webhook": None, "attempt": 1,
        "status": "running", "reason": None, "status_code": None, "error": None,
        "started_at": None, "duration_ms": None, "delay": None, "next_try": None,
    }  # fmt: skip
    return event(type_, **given | fields)


ENDED = {"started_at": AT, "duration_ms": 12.4}


def stream(*events: dict[str, Any], first: int = 100) -> tuple[int, bytes]:
    """An answer that begins after the event `first` and ends, as when the daemon stops."""
    blocks = [f"id: {first}\n\n: a comment\n\n"]
    for number, item in enumerate(events, first + 1):
        blocks.append(f"id: {number}\nevent: {item['type']}\ndata: {json.dumps(item)}\n\n")
    return 200, "".join(blocks).encode()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket_client, "AWAY_PAUSE", 0.01)


def test_the_types_are_those_of_the_daemon() -> None:
    assert list(EVENTS) == [item.value for item in EventType]


def test_states_kinds_and_units_are_those_of_the_daemon() -> None:
    assert tuple(Status) == STATUSES
    assert tuple(Reason) == REASONS
    assert tuple(grouped.COLUMNS) == GROUPS
    assert tuple(tables.GROUPS) == GROUPS
    assert tuple(Kind) == KINDS
    for unit in argument_types._UNITS:
        assert argument_types.duration(f"3{unit}") == parse_duration(f"3{unit}")


def test_types_are_completed() -> None:
    assert [one.word for one in complete(["events", "--type", ""])] == list(EVENTS)


def test_a_line_for_each_event(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    found = [
        a_step("task.created"),
        a_step("task.started", started_at=AT),
        a_step("task.succeeded", status_code=200, **ENDED),
        a_step("task.retried", attempt=3, status_code=503, error="busy", delay=5.2, **ENDED),
        a_step("task.snoozed", next_try=AT),
        a_step("task.failed", status_code="error", reason="exhausted", error="refused", **ENDED),
        a_step("task.failed", reason="expired", error="give_up_after 1h is over"),
        a_step("task.succeeded", kind="webhook", webhook="ops", status_code=204, **ENDED),
        event("webhook.disabled", endpoint="a/b", webhook="ops", reason="410 Gone"),
        event("breaker.opened", lane="api:a", failures=20, error="503 Busy", next_probe=AT),
        event("breaker.closed", lane="api:a", opened_at=AT, duration_ms=616_000, probes=25),
        event("endpoint.paused", endpoint="a/b"),
        event("schedule.missed", endpoint="a/b", first_slot=AT, slot=AT, slots=1, caught_up=True),
        event("config.adopted", generation=4, cause="SIGHUP", endpoints=1200,
              counts={"added": 0, "changed": 2, "removed": 1}, settings=["log"]),
        event("config.refused", generation=4, cause="poll", problems=2, error="a.yaml:1:2: no"),
        event("plugin.fault", plugin="mine", hook="on_retry", error="ValueError: no"),
        event("daemon.draining", version="0.1.0"),
    ]  # fmt: skip
    daemon.on("GET", "/v1/events", stream(*found), END)
    result = ctl("events")
    assert result.out.splitlines() == [
        "22:00:01  task.created      call 42 shop/getOrder",
        "22:00:01  task.started      call 42 shop/getOrder #1",
        "22:00:01  task.succeeded    call 42 shop/getOrder #1, 200 in 12ms",
        "22:00:01  task.retried      call 42 shop/getOrder #3, 503 in 12ms, again in 5.2s: busy",
        "22:00:01  task.snoozed      call 42 shop/getOrder",
        "22:00:01  task.failed       call 42 shop/getOrder #1, error in 12ms, exhausted: refused",
        "22:00:01  task.failed       call 42 shop/getOrder, expired: give_up_after 1h is over",
        "22:00:01  task.succeeded    webhook 42 shop/getOrder ops #1, 204 in 12ms",
        "22:00:01  webhook.disabled  a/b ops: 410 Gone",
        "22:00:01  breaker.opened    api:a after 20 failures: 503 Busy",
        "22:00:01  breaker.closed    api:a after 10m16s, 25 probes had failed",
        "22:00:01  endpoint.paused   a/b",
        "22:00:01  schedule.missed   a/b, 1 missed, 11-24 22:00:01 to 11-24 22:00:01, called now",
        "22:00:01  config.adopted    generation 4 (SIGHUP), 1,200 endpoints: 2 changed, 1 removed, "
        "settings log",
        "22:00:01  config.refused    generation 4 goes on (poll), 2 wrong: a.yaml:1:2: no",
        "22:00:01  plugin.fault      mine: on_retry ValueError: no",
        "22:00:01  daemon.draining   orchestratord 0.1.0",
    ]  # fmt: skip


def test_on_a_terminal_no_line_is_longer_than_it(
    daemon: Daemon, terminal: Callable[..., Result]
) -> None:
    step = a_step("task.retried", status_code=503, error="x" * 500 + "\x1b[2J", **ENDED)
    daemon.on("GET", "/v1/events", stream(step), END)
    line = terminal("events", NO_COLOR="1").out.splitlines()[0]
    assert len(line) == 80
    assert line.endswith("…")
    daemon.on("GET", "/v1/events", stream(step), END)
    assert "\x1b[33mtask.retried" in terminal("events").out


def test_json_is_one_line_an_event_and_harmless(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    found = [a_step("task.retried", error="\x1b[2J\u202e ü\n"), event("daemon.draining")]
    daemon.on("GET", "/v1/events", stream(*found), END)
    lines = ctl("events", "-o", "json").out.splitlines()
    assert [json.loads(line) for line in lines] == found
    assert all(line.isprintable() for line in lines)


def test_yaml_is_a_document_an_event(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    found = [a_step("task.retried", error="503 Busy"), event("daemon.draining")]
    daemon.on("GET", "/v1/events", stream(*found), END)
    out = ctl("events", "-o", "yaml").out
    assert list(yaml.safe_load_all(out)) == found


def test_filters_go_to_the_daemon(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    daemon.on("GET", "/v1/events", END)
    ctl(
        "events", "--endpoint", "shop/*", "--kind", "call", "--status", "failed", "--status",
        "pending", "--type", "task.*,plugin.fault",
    )  # fmt: skip
    assert daemon.asked("GET", "/v1/events")[0].query == {
        "endpoint": "shop/*", "kind": "call", "status": "failed,pending",
        "type": "task.*,plugin.fault",
    }  # fmt: skip


@pytest.mark.parametrize("word", ["task", "task.lost", "planet.*", "*", "task.created,"])
def test_no_types(word: str, daemon: Daemon, ctl: Callable[..., Result]) -> None:
    result = ctl("events", "--type", word)
    assert result.code == 2
    assert "is not a type of event; there are task.created" in result.err


def test_a_restart_in_between(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    daemon.on(
        "GET", "/v1/events",
        stream(a_step("task.created")), DROP, a_problem(503, "the daemon is being stopped"),
        stream(event("daemon.started", version="1"), first=500), END,
    )  # fmt: skip
    result = ctl("events")
    assert [line.split()[1] for line in result.out.splitlines()] == [
        "task.created", "daemon.started",
    ]  # fmt: skip
    assert result.err.splitlines()[0] == "The daemon does not answer; waiting for it."
    assert result.err.count("does not answer") == 2  # once for each time that it went
    asked = [request.headers.get("last-event-id") for request in daemon.asked("GET", "/v1/events")]
    assert asked == [None, "101", "101", "101", "501"]
    assert result.code == 1


def test_what_was_missed_is_said(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    blocks = (
        b'id: 1\n\nevent: missed\ndata: {"missed":null}\n\nevent: missed\ndata: {"missed":1200}\n\n'
    )
    daemon.on("GET", "/v1/events", (200, blocks), END)
    result = ctl("events", "-o", "json")
    assert result.out == ""
    assert "Some events may have been missed here." in result.err
    assert "1,200 events were missed here, of all types." in result.err


def test_a_daemon_that_does_not_come_back(
    daemon: Daemon, ctl: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket_client, "AWAY_TIMEOUT", 0.1)
    daemon.on("GET", "/v1/events", stream(), DROP)
    result = ctl("events")
    assert result.code == 3
    assert "has not come back" in result.err


def test_nobody_there_at_the_beginning(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    daemon.stop()
    assert ctl("events").code == 3
    daemon.start()
    daemon.on("GET", "/v1/events", a_problem(503, "16 clients follow the events already"))
    result = ctl("events")
    assert (result.code, result.out) == (1, "")
    assert "16 clients" in result.err


def _following(daemon: Daemon, *arguments: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        command(daemon, "events", *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while len(daemon.asked("GET", "/v1/events")) < 2:
        time.sleep(0.01)
        assert process.poll() is None
    return process


def test_an_interrupt_ends_it_without_a_word(daemon: Daemon) -> None:
    daemon.on("GET", "/v1/events", stream(a_step("task.created")), DROP)
    process = _following(daemon)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert len(out.splitlines()) == 1
    assert err == "The daemon does not answer; waiting for it.\n"


def test_a_reader_that_has_seen_enough(daemon: Daemon) -> None:
    daemon.on("GET", "/v1/events", stream(*[a_step("task.created")] * 5_000))
    process = subprocess.Popen(
        command(daemon, "events"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(20) == 141
