from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from scripted_daemon import DROP, Daemon, Request, Result, a_problem, command

from orchestratorctl import socket_client, waiting

OUTCOMES = ("SUCCEEDED", "FAILED", "WAITING")
RETRY = ("retry", "--all", "--status", "failed")


def a_bulk(moved: int, status: str = "running", **changes: Any) -> tuple[int, dict[str, Any]]:
    return 200, {
        "id": 7,
        "status": status,
        "matched": 4000,
        "moved": moved,
        "skipped": 0,
        "succeeded": 0,
        "failed": 0,
        "waiting": 0,
        "rate": "10/s",
        "created_at": "2026-11-24T22:00:00Z",
        "finished_at": None,
        **changes,
    }


@pytest.fixture(autouse=True)
def quick(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "BULK_POLL", 0.01)
    monkeypatch.setattr(socket_client, "AWAY_PAUSE", 0.01)
    daemon.on("POST", "/v1/retries/trigger", (202, {"matched": 4000, "bulk": 7}))


def test_progress_in_plain_lines(
    daemon: Daemon, ctl: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "LINE_EVERY", 0.0)
    why = {"changed": 98, "webhook_disabled": 2}
    ended = a_bulk(3900, "finished", skipped=100, why_skipped=why)
    daemon.on("GET", "/v1/bulks/7", a_bulk(0), a_bulk(1200), ended)
    result = ctl(*RETRY)
    assert result.code == 1
    assert result.err.splitlines() == [
        "bulk 7: 0 of 4,000 tasks retried",
        "bulk 7: 1,200 of 4,000 tasks retried",
        "bulk 7: 3,900 of 4,000 tasks retried, 100 skipped",
        "98 skipped: others had moved them, or they ran, before their turn came.",
        "2 skipped: they would not be sent (webhook_disabled).",
    ]
    assert [line.split() for line in result.out.splitlines()] == [
        ["BULK", "STATUS", "MATCHED", "RETRIED", *OUTCOMES, "SKIPPED", "RATE"],
        ["7", "finished", "4,000", "3,900", "0", "0", "0", "100", "10/s"],
    ]


def test_a_log_is_not_filled(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    daemon.on("GET", "/v1/bulks/7", *[a_bulk(i) for i in range(20)], a_bulk(4000, "finished"))
    result = ctl(*RETRY, "-o", "json")
    assert result.err == "bulk 7: 0 of 4,000 tasks retried\n"
    assert result.json["moved"] == 4000


def test_a_bar_on_a_terminal(daemon: Daemon, terminal: Callable[..., Result]) -> None:
    daemon.on("GET", "/v1/bulks/7", a_bulk(0), a_bulk(2000), a_bulk(4000, "finished"))
    result = terminal(*RETRY, NO_COLOR="1")
    assert result.code == 0
    bar, *rest = result.out.split("\n")
    pictures = bar.split("\r")[1:]
    assert pictures[0].rstrip() == "bulk 7  " + "░" * 24 + "  0/4,000  0%"
    assert pictures[1].startswith("bulk 7  " + "█" * 12 + "░" * 12 + "  2,000/4,000  50%  ")
    assert pictures[1].rstrip().endswith(" left")
    assert pictures[2].rstrip() == "bulk 7  " + "█" * 24 + "  4,000/4,000  100%"
    assert len(pictures[2]) == len(pictures[1])  # nothing of the longer line remains
    assert rest[1].split() == ["7", "finished", "4,000", "4,000", "0", "0", "0", "0", "10/s"]
    narrow = terminal(*RETRY, columns=30, PYTHONIOENCODING="ascii").out
    assert "bulk 7  ########" in narrow
    assert max(len(part) for part in narrow.split("\n")[0].split("\r")) < 30


def test_it_goes_on_though_the_daemon_restarts(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    def restart(request: Request) -> str:
        def again() -> None:
            daemon.stop()
            time.sleep(0.1)
            daemon.start()

        threading.Thread(target=again).start()
        return DROP

    daemon.on(
        "GET",
        "/v1/bulks/7",
        a_bulk(10),
        restart,
        a_problem(503, "starting"),
        a_bulk(4000, "finished"),
    )
    result = ctl(*RETRY)
    assert result.code == 0
    assert result.err.splitlines() == [
        "bulk 7: 10 of 4,000 tasks retried",
        "bulk 7: the daemon does not answer; waiting for it",
    ]
    assert result.out.splitlines()[1].split()[1] == "finished"


def test_a_daemon_that_stays_away(
    daemon: Daemon, ctl: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket_client, "AWAY_TIMEOUT", 0.1)
    daemon.on("GET", "/v1/bulks/7", a_bulk(10), daemon.leave)
    result = ctl(*RETRY)
    assert result.code == 3
    assert "no daemon at" in result.err
    assert "Bulk 7 goes on when the daemon is back" in result.err


def test_it_says_how_it_went(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    waits = a_bulk(4000, "finished", succeeded=3000, failed=3, waiting=997)
    ended = a_bulk(4000, "finished", succeeded=3997, failed=3)
    daemon.on("GET", "/v1/bulks/7", a_bulk(10), waits, waits, ended)
    result = ctl(*RETRY, "--wait")
    assert result.code == 1
    assert result.out.split()[-5:] == ["3,997", "3", "0", "0", "10/s"]
    assert "3 of what bulk 7 retried failed" in result.err
    assert "orchestratorctl list --bulk 7 --status failed" in result.err
    daemon.on("GET", "/v1/bulks/7", waits)
    result = ctl("bulks", "7", "--wait", "--timeout", "100ms")
    assert (result.code, "goes on: 997 wait" in result.err) == (6, True)
    waits[1]["failed"] = 0
    assert ctl("bulks", "7", "--wait", "--timeout", "100ms").code == 6
    assert ctl(*RETRY).code == 0


def test_what_a_bulk_has_resolved_as_failed_is_no_failure(
    daemon: Daemon, ctl: Callable[..., Result]
) -> None:
    daemon.on("GET", "/v1/bulks/7", a_bulk(4000, "finished", action="resolve", failed=4000))
    result = ctl("bulks", "7", "--wait")
    assert (result.code, "retried failed" in result.err) == (0, False)


def test_one_that_pauses_says_how_it_goes_on(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    daemon.on("GET", "/v1/bulks/7", a_bulk(10), a_bulk(60, "paused", failed=50, waiting=10))
    result = ctl(*RETRY, "--stop-after", "50", "--wait")
    assert result.code == 1
    assert daemon.asked("POST", "/v1/retries/trigger")[-1].body["stop_after"] == 50
    assert "bulk 7 has paused: 50 of what it retried failed" in result.err
    assert "orchestratorctl bulks 7 --resume --wait" in result.err
    daemon.on("POST", "/v1/bulks/7/resume", (202, {}))
    daemon.on("GET", "/v1/bulks/7", a_bulk(4000, "finished", succeeded=4000))
    assert ctl("bulks", "7", "--resume", "--wait").code == 0
    for words in (
        ("bulks", "--resume"), ("bulks", "7", "--resume", "--cancel"), (*RETRY, "-p", "n=1"),
        ("retry", "7", "--stop-after", "3"), ("bulks", "7", "--timeout", "3"),
    ):  # fmt: skip
        assert ctl(*words).code == 2, words


def test_a_bulk_that_somebody_ends(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    daemon.on("GET", "/v1/bulks/7", a_bulk(10), a_bulk(20, "cancelled"))
    result = ctl(*RETRY)
    assert result.code == 1
    assert "bulk 7 was cancelled before it was done" in result.err


def test_an_interrupt_leaves_it_running(daemon: Daemon) -> None:
    daemon.on("GET", "/v1/bulks/7", a_bulk(10))
    process = subprocess.Popen(
        command(daemon, *RETRY), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not daemon.asked("GET", "/v1/bulks/7"):
        time.sleep(0.01)
    time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert out == ""
    assert "Bulk 7 goes on in the daemon" in err
    assert "orchestratorctl bulks 7 --cancel" in err
    assert "Traceback" not in err
    assert not daemon.asked("POST", "/v1/bulks/7/cancel")


def test_looking_at_one_and_ending_it(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    daemon.on("GET", "/v1/bulks/7", a_bulk(10))
    assert ctl("bulks", "7").out.splitlines()[1].split()[:2] == ["7", "running"]
    assert not daemon.asked("POST", "/v1/bulks/7/cancel")
    daemon.on("POST", "/v1/bulks/7/cancel", (202, {}))
    daemon.on("GET", "/v1/bulks/7", a_bulk(10, "cancelled"))
    assert ctl("bulks", "7", "--cancel", "-o", "json").json["status"] == "cancelled"
    assert daemon.asked("POST", "/v1/bulks/7/cancel")
    assert ctl("bulks", "8").code == 4


def test_a_cancel_of_many_says_cancelled(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    daemon.on("POST", "/v1/retries/cancel", (202, {"matched": 4000, "bulk": 7}))
    daemon.on("GET", "/v1/bulks/7", a_bulk(4000, "finished", action="cancel"))
    result = ctl("cancel", "--all", "--status", "pending")
    assert result.err.splitlines() == ["bulk 7: 4,000 of 4,000 tasks cancelled"]


def test_the_latest_bulks(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    one = a_bulk(4000, "finished", action="cancel", rate=None)[1]
    daemon.on("GET", "/v1/bulks", (200, {"bulks": [one]}))
    result = ctl("bulks")
    head, row = [line.split() for line in result.out.splitlines()]
    assert head == [
        "BULK", "ACTION", "STATUS", "MATCHED", "MOVED", "SUCCEEDED", "FAILED", "WAITING", "SKIPPED",
        "RATE", "CREATED",
    ]  # fmt: skip
    assert row[:10] == ["7", "cancel", "finished", "4,000", "4,000", "0", "0", "0", "0", "-"]
    assert json.loads(ctl("bulks", "-o", "json").out) == {"bulks": [one]}


def test_no_bulks_yet(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    daemon.on("GET", "/v1/bulks", (200, {"bulks": []}))
    result = ctl("bulks")
    assert (result.code, result.out) == (0, "")
    assert "There are no bulks" in result.err
    assert ctl("bulks", "--cancel").code == 2
