"""`retry --all`: many tasks at once, by a filter, at a pace, over a restart."""

from __future__ import annotations

import json
import subprocess
import sys
import time

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon
from tests.acceptance.receiver import Receiver
from tests.acceptance.waiting import until


def bulk_stage(make_daemon: MakeDaemon, receiver: Receiver, count: int) -> tuple[Daemon, list[int]]:
    """A daemon with so many failed tasks, and a receiver that has become well again."""
    receiver.on("/", 400)
    daemon = make_daemon()
    for name in ("shop", "other"):
        daemon.api(name, receiver.url)
        daemon.endpoint(f"{name}/get", "/", params={"n": {}})
    daemon.start()
    ids = daemon.batch("shop/get", [{"n": n} for n in range(count)])
    daemon.batch("other/get", [{}] * 7)
    daemon.settle()
    receiver.on("/", 200)
    receiver.forget()
    return daemon, ids


def test_retry_all(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    daemon, ids = bulk_stage(make_daemon, receiver, 500)
    ran = daemon.ctl("retry", "--all", "--endpoint", "shop/get", "--dry-run", "-o", "json")
    assert (ran.code, json.loads(ran.out)["matched"]) == (0, 500)
    assert "nothing has changed" in ran.err
    ran = daemon.ctl(
        "retry", "--all", "--endpoint", "shop/get", "--status-code", "5xx", "--dry-run"
    )
    assert ran.out.split()[-1] == "0"
    assert len(daemon.tasks(status="failed")) == 507
    assert receiver.count() == 0

    ran = daemon.ctl("retry", "--all", "--endpoint", "shop/get", "-o", "json")
    assert ran.code == 0
    bulk = json.loads(ran.out)
    assert (bulk["matched"], bulk["moved"], bulk["status"]) == (500, 500, "finished")
    daemon.settle()
    assert {daemon.task(task_id)["status"] for task_id in ids[:10]} == {"succeeded"}
    assert receiver.count("/") == 500
    assert len(daemon.tasks(status="failed")) == 7
    ran = daemon.ctl("retry", "--all", "--since", "1h")
    assert ran.code == 0
    daemon.settle()
    assert daemon.tasks(status="failed") == []


def test_retry_all_at_a_rate_goes_on_over_a_restart(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    daemon, ids = bulk_stage(make_daemon, receiver, 60)
    command = [sys.executable, "-m", "orchestratorctl", "--socket", str(daemon.socket)]
    words = ["retry", "--all", "--endpoint", "shop/get", "--rate", "20/s", "-o", "json"]
    began = time.monotonic()
    with subprocess.Popen(
        [*command, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as watching:
        try:
            until(lambda: receiver.count("/") >= 5, "the first of them")
            daemon.kill()
            before = receiver.count("/")
            assert before < 60
            daemon.start()
            out, err = watching.communicate(timeout=30)
        finally:
            watching.kill()
    assert watching.returncode == 0, err
    bulk = json.loads(out)
    assert (bulk["matched"], bulk["moved"], bulk["status"], bulk["rate"]) == (
        60,
        60,
        "finished",
        "20/s",
    )
    assert time.monotonic() - began >= 2.5
    daemon.settle()
    assert {daemon.task(task_id)["status"] for task_id in ids} == {"succeeded"}
    shown = daemon.ctl("bulks", str(bulk["id"]))
    assert shown.code == 0
    assert "finished" in shown.out
