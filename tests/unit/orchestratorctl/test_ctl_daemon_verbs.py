"""`watch` and `reload`."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from scripted_daemon import DROP, Daemon, Result, a_problem, at, command
from test_ctl_status_text import a_status

# -- watch -----------------------------------------------------------------------------------------


RATES = {"succeeded": 1234.5, "retried": 0.25, "failed": 0.0, "cancelled": 0.0}
LANES = [
    {"name": "shop", "in_flight": 10, "concurrency": 10, "due": 4},
    {"name": "free.example.com:443", "in_flight": 3, "concurrency": 10, "due": 0},
]


def failing() -> list[dict[str, Any]]:
    return [
        {"endpoint": "shop/getOrder", "webhook": None, "failures": 3, "since": at(-130),
         "failed": 2, "waiting": 1, "complete": True, "reason": "exhausted",
         "last": at(-4), "status_code": 503, "error": "503 Service Unavailable"},
        {"endpoint": "shop/a-name-that-is-rather-long", "webhook": "and-a-webhook-too",
         "failed": 20000, "waiting": 0, "complete": False, "reason": None,
         "failures": 1200, "since": at(-9000), "last": at(-4000), "status_code": "error",
         "error": "connecting to 203.0.113.7:443 failed: \x1b[2J " + "x" * 200},
    ]  # fmt: skip


def busy(**changes: Any) -> dict[str, Any]:
    return a_status(
        **{
            "rates": RATES,
            "failing": failing(),
            "failing_counts": {"call": 4, "webhook": 5},
            "lanes": LANES,
            **changes,
        }
    )


def test_once(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    daemon.on("GET", "/v1/status", (200, busy(paused=["shop/old"])))
    result = ctl("watch", "--once")
    assert (result.code, result.err) == (0, "")
    assert "\x1b" not in result.out
    lines = result.out.splitlines()
    assert lines[0] == "orchestratord 0.1.0, up 2h3m, 42 endpoints, generation 7"
    text = "\n".join(re.sub(" +", " ", line).strip() for line in lines)
    assert "queue 12 pending, 3 running, 2 failed, 10,240 succeeded, 0 cancelled" in text
    assert "due 3 now, the oldest for 4.2s, the next in 2h" in text
    assert "in flight 3 of 100" in text
    assert "per second 1,234.5 succeeded, 0.2 retried, 0.0 failed, 0.0 cancelled" in text
    assert "paused shop/old" in text
    assert "FAILING CALLS FAILED RETRYING SINCE LAST CODE WHY\nshop/getOrder 2 1 2m ago" in text
    assert " 4s ago 503 exhausted: 503 Service Unavailable" in text
    assert "FAILING DELIVERIES FAILED RETRYING" in text
    assert " 20,000+ 0+ 2h ago 1h ago error connecting to " in text
    assert "7 more fail than are listed" in text
    assert "FULL LANE IN FLIGHT OF DUE\nshop 10 10 4" in text
    assert "free.example.com" not in text
    assert len(daemon.asked("GET", "/v1/status")) == 1


def test_a_quiet_daemon(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    daemon.on("GET", "/v1/status", (200, busy(failing=[], lanes=[])))
    out = ctl("watch", "--once").out
    assert "Nothing is failing." in out
    assert "No lane is full." in out


def test_what_an_older_daemon_does_not_say(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    daemon.on("GET", "/v1/status", (200, {"version": "0.0.1"}))
    result = ctl("watch", "--once")
    assert result.code == 0
    assert "per second  -" in result.out


def test_what_is_out_of_order_is_said(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    config = {"endpoints": 1, "generation": 2, "error": {"at": at(-5), "errors": []}}
    daemon.on("GET", "/v1/status", (200, busy(config=config, draining=True)))
    out = ctl("watch", "--once").out
    assert "the files are in error" in out
    assert "draining: no new task starts" in out


@pytest.mark.parametrize("columns", [80, 100, 40])
def test_no_line_is_longer_than_the_terminal(
    daemon: Daemon, terminal: Callable[..., Result], columns: int
) -> None:
    daemon.on("GET", "/v1/status", (200, busy()))
    lines = terminal("watch", "--once", columns=columns, NO_COLOR="1").out.splitlines()
    limit = columns if columns >= 80 else 80  # a table has a least width
    assert max(map(len, lines)) <= limit
    assert "\x1b" not in "".join(lines)


def test_data_once_and_again(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    status = busy()
    daemon.on("GET", "/v1/status", (200, status))
    assert ctl("watch", "--once", "-o", "json").json == status
    daemon.on("GET", "/v1/status", (200, busy()), (200, busy(in_flight=5)), DROP)
    result = ctl("watch", "--interval", "100ms", "-o", "json")
    assert [json.loads(line)["in_flight"] for line in result.out.splitlines()] == [3, 5]
    assert result.code == 1


def test_without_a_terminal_once_is_offered(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    daemon.on("GET", "/v1/status", (200, busy()))
    result = ctl("watch")
    assert (result.code, result.out) == (2, "")
    assert "--once" in result.err


def test_nobody_there(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    daemon.stop()
    assert ctl("watch").code == 3
    daemon.start()


@pytest.mark.parametrize("output", ["table", "json"])
@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("10ms", "'10ms' is not an interval; write 100ms to 3650d"),
        ("0", "'0' is not an interval"),
        ("99999999999d", "'99999999999d' is not an interval"),
        ("9" * 400, "is not an interval"),
        ("often", "'often' is not a duration"),
    ],
)
def test_intervals_that_make_no_sense(
    word: str, why: str, output: str, daemon: Daemon, ctl: Callable[..., Result]
) -> None:
    daemon.on("GET", "/v1/status", (200, {}))
    result = ctl("watch", "--interval", word, "-o", output)
    assert (result.code, result.out, daemon.requests) == (2, "", [])
    assert why in result.err


class Watching:
    """`watch` in a process of its own, with a terminal."""

    def __init__(self, daemon: Daemon, rows: int = 24) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, 80, 0, 0))
        self.process = subprocess.Popen(
            command(daemon, "watch", "--interval", "100ms"),
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm", "PYTHONIOENCODING": "utf-8"},
        )
        os.close(theirs)
        self.seen = ""

    def until(self, text: str) -> None:
        deadline = time.monotonic() + 20
        while text not in self.seen:
            assert time.monotonic() < deadline, f"{text!r} is not shown: {self.seen!r}"
            if select.select([self._ours], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self._ours, 65536).decode(errors="replace")
                except OSError:  # the other end is closed
                    assert text in self.seen
                    return

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        self.until("\x1b[?1049l")
        return self.process.wait(20)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)


@pytest.fixture
def watching(daemon: Daemon) -> Iterator[Callable[..., Watching]]:
    started: list[Watching] = []

    def start(**options: Any) -> Watching:
        started.append(Watching(daemon, **options))
        return started[-1]

    yield start
    for watch in started:
        watch.close()


def test_the_screen_follows_and_is_left_in_order(
    daemon: Daemon, watching: Callable[..., Watching]
) -> None:
    daemon.on("GET", "/v1/status", (200, busy()), (200, busy(in_flight=77)))
    watch = watching()
    watch.until("77 of 100")
    assert watch.seen.startswith("\x1b[?1049h\x1b[?25l\x1b[H")
    assert "\x1b[2J" not in watch.seen  # it is drawn over, not wiped
    assert watch.end(signal.SIGINT) == 130
    assert watch.seen.endswith("\x1b[?25h\x1b[?1049l")
    assert "Traceback" not in watch.seen


def test_a_termination_leaves_the_screen_too(
    daemon: Daemon, watching: Callable[..., Watching]
) -> None:
    daemon.on("GET", "/v1/status", (200, busy()))
    watch = watching()
    watch.until("FAILING")
    assert watch.end(signal.SIGTERM) == 143
    assert watch.seen.endswith("\x1b[?25h\x1b[?1049l")


def test_a_daemon_that_is_away_for_a_while(
    daemon: Daemon, watching: Callable[..., Watching]
) -> None:
    daemon.on("GET", "/v1/status", (200, busy()))
    watch = watching()
    watch.until("3 of 100")
    daemon.stop()
    watch.until("older")  # the line is broken somewhere
    daemon.on("GET", "/v1/status", (200, busy(in_flight=78)))
    daemon.start()
    watch.until("78 of 100")
    assert watch.end(signal.SIGINT) == 130


def test_a_short_screen(daemon: Daemon, watching: Callable[..., Watching]) -> None:
    daemon.on("GET", "/v1/status", (200, busy()))
    watch = watching(rows=10)
    watch.until("the screen is too short")
    picture = watch.seen.split("\x1b[H")[1]
    assert picture.count("\r\n") <= 9


# -- reload ----------------------------------------------------------------------------------------


def test_a_new_generation(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    answer = {
        "generation": 8,
        "changed": True,
        "adopted_at": "2026-11-24T22:00:00Z",
        "warnings": [{"file": "a.yaml", "line": 1, "column": 2, "message": "a secret written out"}],
        "restart_required": ["http.bind"],
    }
    daemon.on("POST", "/v1/reload", (200, answer))
    result = ctl("reload")
    assert (result.code, result.out) == (0, "")
    assert result.err.splitlines() == [
        "Generation 8 of the configuration is in force.",
        "warning: a.yaml:1:2: a secret written out",
        "http.bind keeps its old value until the daemon is restarted.",
    ]
    assert ctl("reload", "-o", "json").json == answer


def test_nothing_changed(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    daemon.on("POST", "/v1/reload", (200, {"generation": 7, "changed": False}))
    assert ctl("reload") == (0, "", "Nothing has changed; generation 7 goes on.\n")


def test_a_dry_run_sends_the_whole_path(
    daemon: Daemon, ctl: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/tmp")
    daemon.on("POST", "/v1/reload", (200, {"generation": 7, "changed": True}))
    assert ctl("reload", "--dry-run", "new").err.startswith("The configuration is good, and it wou")
    assert daemon.requests[-1].body == {"dry_run": True, "folder": "/tmp/new"}
    assert ctl("reload", "new").code == 2


def test_a_bad_configuration_is_78_with_every_error(
    daemon: Daemon, ctl: Callable[..., Result]
) -> None:
    errors = [
        {"file": "apis/a/endpoints/b.yaml", "line": n, "column": 5, "key": "k", "message": "bad"}
        for n in (1, 2)
    ]
    problem = a_problem(422, "2 errors; generation 7 goes on", code="bad_config", errors=errors)
    daemon.on("POST", "/v1/reload", problem)
    result = ctl("reload")
    assert (result.code, result.out) == (78, "")
    assert result.err.splitlines() == [
        "orchestratorctl: 2 errors; generation 7 goes on",
        "apis/a/endpoints/b.yaml:1:5: k: bad",
        "apis/a/endpoints/b.yaml:2:5: k: bad",
    ]


def test_an_error_is_shown_with_its_line_and_what_could_stand_there(
    daemon: Daemon, ctl: Callable[..., Result]
) -> None:
    error = {
        "file": "a.yaml", "line": 12, "column": 2, "key": "method",
        "message": "unknown value 'GTE'", "hint": "known are GET, POST",
        "source": "\tmethod: GTE\x1b[2J",
    }  # fmt: skip
    daemon.on("POST", "/v1/reload", a_problem(422, "1 error", code="bad_config", errors=[error]))
    assert ctl("reload").err.splitlines() == [
        "orchestratorctl: 1 error",
        "a.yaml:12:2: method: unknown value 'GTE'",
        "   12 |  method: GTE\\u001b[2J",
        "      |  ^~~~~~",
        "      = known are GET, POST",
    ]
    error["line"] = "12"
    daemon.on("POST", "/v1/reload", a_problem(422, "1 error", code="bad_config", errors=[error]))
    assert len(ctl("reload").err.splitlines()) == 2


ACTION = {
    "id": 9, "at": "2026-11-24T22:00:00.000Z", "who": "root", "action": "resolve",
    "endpoint": "shop/getOrder", "webhook": None, "task": 42, "bulk": None,
    "detail": {"note": "paid"},
}  # fmt: skip


def test_what_people_did(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    tried = ACTION | {"webhook": "ops", "action": "test webhook", "bulk": 3, "detail": {}}
    log = {"actions": [ACTION, tried], "next": None}
    daemon.on("GET", "/v1/actions", (200, log))
    head, first, second = (line.split() for line in ctl("actions", "--limit", "7").out.splitlines())
    assert head == ["AT", "WHO", "ACTION", "ENDPOINT", "TASK", "BULK", "DETAIL"]
    assert first[2:] == ["root", "resolve", "shop/getOrder", "42", "-", '{"note":', '"paid"}']
    assert second[2:] == ["root", "test", "webhook", "shop/getOrder", "→", "ops", "42", "3", "-"]
    assert daemon.requests[0].query == {"limit": "7"}
    assert ctl("actions", "-o", "json").json == log
    daemon.on("GET", "/v1/actions", (200, {"actions": [], "next": None}))
    assert ctl("actions") == (0, "", "The action log is empty.\n")
