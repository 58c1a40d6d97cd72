"""`retry --all`: many tasks at once, by a filter, at a pace, over a restart."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
import time

import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon
from tests.acceptance.receiver import Receiver
from tests.acceptance.waiting import until

pytestmark = pytest.mark.slow


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


def test_resolve_all(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    receiver.on("/", 400)
    receiver.on("/told", 200)
    daemon = make_daemon()
    daemon.api("shop", receiver.url)
    hooks = [{"name": "paid", "phase": "on_success", "url": f"{receiver.url}/told"}]
    daemon.endpoint("shop/pay", "/", params={"n": {}}, webhooks=hooks)
    daemon.endpoint("shop/check", "/", success_if="body.ok")
    daemon.start()
    daemon.batch("shop/pay", [{"n": n} for n in range(120)])
    strict = daemon.call("shop/check")
    daemon.settle()

    words = ("resolve", "--all", "--endpoint", "shop/*", "--as", "succeeded")
    ran = daemon.ctl(*words, "--dry-run", "-o", "json")
    assert (ran.code, json.loads(ran.out)["matched"]) == (0, 121)
    assert daemon.tasks(status="succeeded") == []
    ran = daemon.ctl(*words, "--note", "paid by hand", "-o", "json")
    bulk = json.loads(ran.out)
    assert (bulk["moved"], bulk["why_skipped"], ran.code) == (120, {"no_success": 1}, 1)
    assert "1 skipped: an empty answer is no success to them" in ran.err
    until(lambda: receiver.count("/told") == 120, "what follows from each")
    assert daemon.task(strict)["status"] == "failed"
    paid = daemon.tasks(endpoint="shop/pay", kind="call", status="succeeded")
    assert {task["reason"] for task in paid} == {"resolved"}
    assert daemon.task(paid[0]["id"])["attempt_log"][-1]["why"].endswith(": paid by hand")
    assert "resolved" in daemon.ctl("bulks", str(bulk["id"])).out.lower()
    ran = daemon.ctl("resolve", str(strict), "999", "--as", "failed")
    assert (ran.code, daemon.task(strict)["reason"]) == (4, "resolved")
    assert daemon.ctl("resolve", "--as", "failed").code == 2


def test_resolve_all_goes_on_over_a_restart(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    receiver.on("/", 400)
    daemon = make_daemon()
    daemon.api("shop", receiver.url)
    daemon.endpoint("shop/pay", "/", params={"n": {}})
    daemon.start()
    daemon.batch("shop/pay", [{"n": n} for n in range(60)])
    daemon.settle()
    body = {"filter": {"endpoint": "shop/pay"}, "as": "failed", "rate": "30/s"}
    bulk = daemon.post("/v1/retries/resolve", body).json()["bulk"]
    until(lambda: daemon.get(f"/v1/bulks/{bulk}").json()["moved"] >= 6, "the first of them")
    daemon.kill()
    daemon.start()
    until(lambda: daemon.get(f"/v1/bulks/{bulk}").json()["status"] == "finished", "the rest")
    seen = daemon.get(f"/v1/bulks/{bulk}").json()
    assert (seen["moved"], seen["why_skipped"]) == (60, {})
    logs = [daemon.task(task["id"])["attempt_log"] for task in daemon.tasks(endpoint="shop/pay")]
    assert [len(log) for log in logs] == [2] * 60  # each was resolved once


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


def test_bulks_that_overlap_add_up(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    daemon, _ = bulk_stage(make_daemon, receiver, 300)
    ran = daemon.ctl("bulks")
    assert (ran.code, ran.out) == (0, "")
    assert "no bulks" in ran.err
    body = {"filter": {"endpoint": "shop/get"}}
    slow = daemon.post("/v1/retries/trigger", {**body, "rate": "20/s"}).json()["bulk"]
    quick = daemon.post("/v1/retries/trigger", body).json()["bulk"]
    ends = []
    for bulk_id in (quick, slow):
        until(lambda i=bulk_id: daemon.get(f"/v1/bulks/{i}").json()["status"] != "running", "ends")
        bulk = daemon.get(f"/v1/bulks/{bulk_id}").json()
        assert bulk["status"] == "finished"
        assert bulk["moved"] + bulk["skipped"] == bulk["matched"]
        ends.append(bulk)
    assert ends[1]["matched"] == sum(bulk["moved"] for bulk in ends) == 300
    assert ends[1]["skipped"] > 0
    assert ends[1]["why_skipped"] == {"changed": ends[1]["skipped"]}
    ran = daemon.ctl("bulks", str(slow))
    assert f"{ends[1]['skipped']} skipped: others had moved them" in ran.err
    ran = daemon.ctl("bulks")
    assert [line.split()[:3] for line in ran.out.splitlines()[1:]] == [
        [str(quick), "retry", "finished"], [str(slow), "retry", "finished"],
    ]  # fmt: skip
    assert daemon.ctl("bulks", "--cancel").code == 2


def test_cancelling_many_says_cancelled(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    daemon = make_daemon()
    daemon.api("shop", receiver.url)
    daemon.endpoint("shop/get", "/")
    daemon.start()
    for _ in range(3):
        daemon.call("shop/get", 3600)
    ran = daemon.ctl("cancel", "--all", "--endpoint", "shop/get")
    assert ran.code == 0
    assert "of 3 tasks cancelled" in ran.err
    assert "retried" not in ran.out + ran.err
    [entry] = daemon.get("/v1/actions").json()["actions"]
    user = pwd.getpwuid(os.getuid()).pw_name
    assert entry["who"].startswith(f"{user} (uid {os.getuid()}, pid ")


def test_what_may_have_been_carried_out_is_left_out(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    daemon = make_daemon()
    daemon.api("shop", receiver.url)
    daemon.endpoint("shop/get", "/")
    daemon.endpoint("shop/post", "/", method="POST")
    daemon.start()
    receiver.on("/", 400)
    refused = [daemon.call("shop/get") for _ in range(3)]
    daemon.settle()
    receiver.on("/", 500)
    doubtful = daemon.call("shop/post")
    daemon.settle()
    assert daemon.task(doubtful)["reason"] == "ambiguous"
    assert [task["id"] for task in daemon.tasks(reason="ambiguous,poisoned")] == [doubtful]
    assert len(daemon.tasks(reason="not_retryable")) == 3
    listed = daemon.ctl("list", "--reason", "ambiguous", "-o", "json")
    assert [task["id"] for task in json.loads(listed.out)["retries"]] == [doubtful]
    assert daemon.get("/v1/retries", reason="ambigous").status_code == 422

    words = ["retry", "--all", "--endpoint", "shop/*"]
    dry = json.loads(daemon.ctl(*words, "--dry-run", "-o", "json").out)
    assert (dry["matched"], dry["left_out"]) == (3, {"ambiguous": 1})
    assert dry["counts"] == [{"reason": "not_retryable", "endpoint": "shop/get", "tasks": 3}]
    assert [task["id"] for task in dry["examples"]] == refused
    receiver.on("/", 200)
    ran = daemon.ctl(*words)
    assert ran.code == 0
    assert "1 ambiguous" in ran.err
    daemon.settle()
    assert {daemon.task(id_)["status"] for id_ in refused} == {"succeeded"}
    assert daemon.task(doubtful)["status"] == "failed"
    receiver.on("/", 500)
    for more in (["--reason", "ambiguous"], ["--include-ambiguous"]):
        ran = daemon.ctl(*words, *more, "-o", "json")
        assert json.loads(ran.out)["moved"] == 1, more
        daemon.settle()
    receiver.on("/", 200)
    bulk = daemon.post("/v1/retries/trigger", {"filter": {"id": [doubtful]}}).json()
    assert (bulk["matched"], bulk["left_out"]) == (1, {})
