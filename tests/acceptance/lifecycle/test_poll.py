"""What is not done yet is asked for again, until it is, has failed, or takes too long."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon
from tests.acceptance.receiver import Answer, Receiver
from tests.acceptance.waiting import until

BUSY, DONE, BROKEN = (
    Answer(200, json.dumps({"status": status})) for status in ("busy", "done", "failed")
)
WHEN_DONE = "body.status == 'done'"
ROOT = Path(__file__).parents[3]
HOOKS = ("before_request", "after_request", "on_retry", "on_success", "on_final_failure")


def declare(daemon: Daemon, receiver: Receiver, poll: dict[str, Any], **keys: Any) -> None:
    daemon.api("jobs", receiver.url)
    webhooks = [
        {"name": phase.replace("_", "-"), "phase": phase, "url": f"{receiver.url}/{phase}"}
        for phase in HOOKS
    ]
    poll = {"until": WHEN_DONE, "fail_if": "body.status == 'failed'", "every": "100ms", **poll}
    daemon.endpoint("jobs/getJob", "/job", poll=poll, webhooks=webhooks, **keys)


def delivered(daemon: Daemon) -> list[str]:
    daemon.settle()
    return sorted(task["phase"] for task in daemon.tasks(kind="webhook"))


def test_looks_until_it_is_done(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    receiver.on("/job", BUSY, BUSY, Answer(503), BUSY, DONE)
    for phase in HOOKS:
        receiver.on(f"/{phase}", 200)
    daemon = make_daemon()
    declare(daemon, receiver, {}, retry={"backoff": {"strategy": "fixed", "delay": "100ms"}})
    daemon.start()
    task = daemon.finish(daemon.call("jobs/getJob"))
    assert (task["status"], task["attempts"], task["looks"]) == ("succeeded", 2, 3)
    assert [one["status_code"] for one in task["attempt_log"]] == [503, 200], "a look is no row"
    assert receiver.count("/job") == 5
    phases = ["after_request", "after_request", "before_request", "on_retry", "on_success"]
    assert delivered(daemon) == phases
    shown = daemon.ctl("show", str(task["id"])).out
    assert "3, not done yet; the first" in shown


@pytest.mark.parametrize(
    ("answers", "poll", "reason", "requests"),
    [
        ([BUSY, BROKEN], {}, "not_retryable", 2),
        ([BUSY, Answer(200, "no JSON")], {}, "not_retryable", 2),
        ([BUSY, Answer(404)], {}, "not_retryable", 2),
        # The first answer, one look within that time, and one as it ends.
        ([BUSY], {"every": "1s", "for": "1500ms"}, "expired", 3),
    ],
    ids=["failed", "no JSON", "gone", "too long"],
)
def test_it_ends(
    make_daemon: MakeDaemon, receiver: Receiver, answers: list[Answer], poll: dict[str, Any],
    reason: str, requests: int,
) -> None:  # fmt: skip
    receiver.on("/job", *answers)
    for phase in HOOKS:
        receiver.on(f"/{phase}", 200)
    daemon = make_daemon()
    declare(daemon, receiver, poll)
    daemon.start()
    task = daemon.finish(daemon.call("jobs/getJob"))
    assert (task["status"], task["reason"]) == ("failed", reason)
    assert receiver.count("/job") == requests
    assert delivered(daemon) == ["after_request", "before_request", "on_final_failure"]


def test_it_goes_on_after_a_kill_and_begins_anew_where_a_person_retries(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    receiver.on("/job", BUSY)
    daemon = make_daemon()
    daemon.api("jobs", receiver.url)
    poll = {"until": WHEN_DONE, "every": "300ms", "for": "3s"}
    daemon.endpoint("jobs/getJob", "/job", poll=poll)
    daemon.start()
    call = daemon.call("jobs/getJob")
    until(lambda: daemon.task(call)["looks"] >= 2, "two looks")
    since = daemon.task(call)["looked_since"]
    daemon.kill()
    daemon.start()
    task = daemon.finish(call)
    assert (task["reason"], task["looked_since"]) == ("expired", since)
    receiver.on("/job", BUSY, DONE)
    daemon.ctl("retry", str(call))
    task = daemon.finish(call)
    assert (task["status"], task["looks"]) == ("succeeded", 1)
    assert task["looked_since"] > since


def test_a_look_after_a_failure_fails_no_more(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    receiver.on("/job", Answer(503), BUSY)
    daemon = make_daemon()
    declare(daemon, receiver, {}, retry={"backoff": {"strategy": "fixed", "delay": "100ms"}})
    daemon.start()
    call = daemon.call("jobs/getJob")
    until(lambda: daemon.task(call)["looks"], "a look")
    task = daemon.task(call)
    assert (task["attempts"], task["last_error"], task["last_status_code"]) == (1, None, 200)
    assert [one for one in daemon.status()["failing"] if one["webhook"] is None] == []
    assert '| {"status": "busy"}' in daemon.ctl("show", str(call)).out


def test_retry_after_wins_over_every(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    later = Answer(200, BUSY.body, {"Retry-After": "2"})
    receiver.on("/job", later, DONE)
    daemon = make_daemon()
    daemon.api("jobs", receiver.url)
    daemon.endpoint("jobs/getJob", "/job", poll={"until": WHEN_DONE, "every": "100ms"})
    daemon.start()
    daemon.finish(daemon.call("jobs/getJob"))
    first, second = receiver.received("/job")
    assert second.at - first.at >= 2


def test_a_partition_in_order_stays_held(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    receiver.on("/job", BUSY, BUSY, DONE)
    receiver.on("/other", DONE)
    daemon = make_daemon()
    daemon.api("jobs", receiver.url, concurrency=1)
    keys = {"poll": {"until": WHEN_DONE, "every": "200ms"}, "params": {"n": {"type": "integer"}}}
    daemon.endpoint("jobs/getJob", "/job", partition={"by": "one", "ordered": True}, **keys)
    daemon.endpoint("jobs/other", "/other", **keys)
    daemon.start()
    first, second = (daemon.call("jobs/getJob", n=number) for number in (1, 2))
    other = daemon.finish(daemon.call("jobs/other", n=3))
    daemon.settle()
    ends = [daemon.task(call)["finished_at"] for call in (other["id"], first, second)]
    assert ends == sorted(ends), "its slot is free between two looks, and its turn is not"
    assert [daemon.task(call)["looks"] for call in (first, second)] == [2, 0]


@pytest.mark.parametrize("queue", ["sqlite", "postgres"])
def test_looks_count_for_a_rate_over_a_start(
    make_daemon: MakeDaemon, receiver: Receiver, queue: str, request: pytest.FixtureRequest
) -> None:
    receiver.on("/job", BUSY)
    settings: dict[str, Any] = {}
    if queue == "postgres":
        settings = {"database": request.getfixturevalue("postgres").create(), "lease": 3}
    daemon = make_daemon(**settings)
    daemon.api("jobs", receiver.url, rate_limit="4/h")
    daemon.endpoint("jobs/getJob", "/job", poll={"until": WHEN_DONE, "every": "100ms"})
    daemon.start()
    call = daemon.call("jobs/getJob")
    for end in (daemon.stop, daemon.kill, daemon.stop):
        until(
            lambda: [lane["rate"]["used"] for lane in daemon.status()["lanes"]] == [4], "the rate"
        )
        until(lambda: daemon.task(call)["looks"] == 4, "all that it allows")
        assert receiver.count("/job") == 4
        end()
        daemon.start()


def test_what_may_not_be_repeated_is_not_polled(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    daemon.api("jobs", "http://127.0.0.1:9")
    daemon.endpoint("jobs/start", "/job", method="POST", poll={"until": WHEN_DONE})
    told = daemon.run("check").err
    assert "start.yaml:" in told
    assert "poll: asks again and again, and a repeat is not safe here" in told


def of_how_to(daemon: Daemon, receiver: Receiver, *apis: str) -> None:
    """Write the endpoints of the how-to, which call the receiver and look more often."""
    page = (ROOT / "docs/how-to/answers-later.md").read_text()
    for name, text in re.findall(r"```yaml\n# (apis/\S+)\n(.*?)```", page, re.DOTALL):
        text = text.replace("every: 10s", "every: 100ms")
        text = text.replace("https://app.example.com", receiver.url)
        path = daemon.config / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for api in apis:
        daemon.api(api, f"{receiver.url}/v1")
    daemon.start()


def test_the_how_to_of_a_job_that_is_begun(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    receiver.on("/v1/jobs", Answer(202, '{"id": "j7"}'))
    receiver.on("/v1/jobs/j7", BUSY, BUSY, DONE)
    receiver.on("/rendered", 200)
    daemon = make_daemon()
    of_how_to(daemon, receiver, "render", "export")
    daemon.finish(daemon.call("render/startJob", document="report.odt"))
    daemon.settle()
    (task,) = daemon.tasks(endpoint="render/getJob", kind="call")
    assert (task["status"], daemon.task(task["id"])["looks"]) == ("succeeded", 2)
    assert receiver.count("/rendered") == 1


@pytest.mark.parametrize("location", ["{origin}/v1/exports/7?part=1", "/v1/exports/7?part=1"])
def test_the_how_to_of_a_location(
    make_daemon: MakeDaemon, receiver: Receiver, location: str
) -> None:
    accepted = Answer(202, "", {"Location": location.format(origin=receiver.url)})
    receiver.on("/v1/exports", accepted)
    receiver.on("/v1/exports/7", Answer(202), Answer(202), Answer(200, "a,b"))
    daemon = make_daemon()
    of_how_to(daemon, receiver, "render", "export")
    daemon.finish(daemon.call("export/startExport", table="orders"))
    daemon.settle()
    (task,) = daemon.tasks(endpoint="export/getExport")
    assert (task["status"], daemon.task(task["id"])["looks"]) == ("succeeded", 2)
    assert {one.query["part"] for one in receiver.received("/v1/exports/7")} == {"1"}


def test_a_location_of_another_origin_is_rejected(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    receiver.on("/v1/exports", Answer(202, "", {"Location": "http://127.0.0.1:9/x"}))
    daemon = make_daemon()
    of_how_to(daemon, receiver, "render", "export")
    daemon.finish(daemon.call("export/startExport", table="orders"))
    daemon.settle()
    (task,) = daemon.tasks(endpoint="export/getExport")
    assert (task["status"], task["reason"], task["attempts"]) == ("failed", "rejected", 1)
    assert "is not of the origin of base_url" in task["last_error"]
    told = daemon.run("explain", "export/getExport", "-p", "location=//evil.example/").out
    assert "rejected" in told
