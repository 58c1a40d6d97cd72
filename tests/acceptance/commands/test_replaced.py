"""A call that a person retries with other parameters is replaced: one of the two is carried out."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon, retry
from tests.acceptance.receiver import Answer, Receiver
from tests.acceptance.waiting import until

pytestmark = pytest.mark.slow


@pytest.fixture
def daemon(make_daemon: MakeDaemon, receiver: Receiver) -> Daemon:
    """Calls without a partition, and calls that are ordered by account: where one has failed, the
    next one goes on, or waits for a person."""
    daemon = make_daemon()
    daemon.api("shop", receiver.url)
    never = retry("1h", max_attempts=9, when=[503])
    params: dict[str, Any] = {"n": {"type": "integer"}}
    daemon.endpoint("shop/pay", "/pay/{{ params.n }}", method="PUT", params=params, retry=never)
    for name, on_failure in (("go", "continue"), ("hold", "hold")):
        daemon.endpoint(
            f"shop/{name}", f"/{name}/{{{{ params.n }}}}", method="PUT", retry=never,
            params={**params, "account": {}},
            partition={"by": "{{ params.account }}", "ordered": True, "on_failure": on_failure},
        )  # fmt: skip
    daemon.start()
    return daemon


def refused(daemon: Daemon, task: int, verb: str, body: dict[str, Any] | None = None) -> str:
    """The `code` of a verb that is a conflict, and the words of it."""
    answer = daemon.post(f"/v1/retries/{task}/{verb}", body)
    assert answer.status_code == 409, answer.text
    return f"{answer.json()['code']}: {answer.json()['detail']}"


def replaced(daemon: Daemon, task: int, n: int = 2) -> int:
    """Retry it with another number; the new task."""
    answer = daemon.post(f"/v1/retries/{task}/trigger", {"params": {"n": n}})
    assert answer.status_code == 202, answer.text
    return int(answer.json()["id"])


def status_of(daemon: Daemon, task: int) -> tuple[str, str | None]:
    found = daemon.task(task)
    return found["status"], found["reason"]


CHANGES: list[tuple[str, dict[str, Any] | None]] = [
    ("trigger", None),
    ("trigger", {"force": True}),
    ("trigger", {"params": {"n": 3}}),
    ("resolve", {"as": "succeeded"}),
    ("resolve", {"as": "failed"}),
    ("cancel", None),
]


def test_until_its_replacement_has_ended_it_is_left_alone(
    daemon: Daemon, receiver: Receiver
) -> None:
    receiver.on("/pay/1", 400)
    receiver.on("/pay/2", 503)
    first = daemon.call("shop/pay", n=1)
    assert daemon.finish(first)["status"] == "failed"
    second = replaced(daemon, first)
    until(lambda: daemon.task(second)["attempts"] == 1, "the first try")
    by = f"replaced: task {first} is replaced by task {second}"
    for verb, body in CHANGES:
        assert refused(daemon, first, verb, body).startswith(by), (verb, body)
    ran = daemon.ctl("retry", str(first))
    assert (ran.code, f"is replaced by task {second}" in ran.err) == (5, True)
    words = ("--all", "--status", "failed", "--endpoint", "shop/pay", "-o", "json")
    for verb in ("retry", "cancel"):
        ran = daemon.ctl(verb, *words)
        assert json.loads(ran.out)["why_skipped"] == {"replaced": 1}, verb
        assert "1 skipped: other tasks replace them" in ran.err, verb
    shown = daemon.task(first)
    assert (shown["status"], shown["reason"]) == ("failed", "not_retryable")
    assert shown["replaced_by"] == second
    # Nothing is offered that is a conflict.
    page = daemon.get(f"/retries/{first}").text
    assert "/trigger" not in page
    assert "/cancel" not in page
    assert "/resolve" not in page
    assert f'Replaced by</dt><dd><a href="/retries/{second}">' in page
    assert "are replaced by other tasks" in daemon.get("/bulks/1").text
    assert f"task {second}, with other parameters" in daemon.ctl("show", str(first)).out
    # It is what one retries, also once it has failed itself.
    receiver.on("/pay/2", 400)
    assert daemon.ctl("retry", str(second), "--wait").code == 1
    assert refused(daemon, first, "trigger").startswith(by)
    # Cancelled, it frees the other one.
    assert daemon.ctl("cancel", str(second)).code == 0
    assert daemon.task(first)["replaced_by"] is None
    receiver.on("/pay/1", 200)
    assert daemon.ctl("retry", str(first), "--wait").code == 0
    assert status_of(daemon, first) == ("succeeded", None)


def test_once_its_replacement_has_succeeded_it_is_over(daemon: Daemon, receiver: Receiver) -> None:
    receiver.on("/pay/1", 400)
    receiver.on("/pay/2", 400)
    receiver.on("/pay/3", 200)
    first = daemon.call("shop/pay", n=1)
    assert daemon.finish(first)["status"] == "failed"
    second = replaced(daemon, first)
    assert daemon.finish(second)["status"] == "failed"
    until(lambda: len(daemon.status()["failing"]) == 1, "that it fails")
    third = replaced(daemon, second, 3)
    assert daemon.finish(third)["status"] == "succeeded"
    for task in (first, second):
        assert status_of(daemon, task) == ("cancelled", "replaced")
        for body in (None, {"force": True}, {"params": {"n": 3}}):
            by = f"replaced: task {task} is replaced by task {third}"
            assert refused(daemon, task, "trigger", body).startswith(by)
    run = daemon.get(f"/v1/runs/{first}").json()
    assert (run["counts"]["succeeded"], run["counts"]["failed"]) == (1, 0)
    assert run["counts"]["cancelled"] == 2
    until(lambda: daemon.status()["failing"] == [], "that it fails no more")
    found = {"filter": {"status": "failed,cancelled", "endpoint": "shop/pay"}, "dry_run": True}
    survey = daemon.post("/v1/retries/trigger", found).json()
    assert (survey["matched"], survey["left_out"]) == (0, {})
    counts = daemon.get("/v1/status").json()["queue"]
    assert (counts["failed"], counts["cancelled"], counts["succeeded"]) == (0, 2, 1)


def test_a_replacement_has_the_place_of_the_other(daemon: Daemon, receiver: Receiver) -> None:
    receiver.on("/go/1", 400)
    receiver.on("/go/3", 200)
    receiver.on("/go/2", 400)
    receiver.on("/go/5", 503)
    first = daemon.call("shop/go", n=1, account="acme")
    assert daemon.finish(first)["status"] == "failed"
    second = replaced(daemon, first)
    assert daemon.finish(second)["status"] == "failed"
    # It is ordered by the account, in which it has its place.
    other = {"params": {"account": "other"}}
    for task in (first, second):
        answer = daemon.post(f"/v1/retries/{task}/trigger", other)
        assert answer.status_code == (409 if task == first else 422), answer.text
    # The next one has not started: what is retried goes before it.
    daemon.post("/v1/endpoints/shop/go/pause")
    third = daemon.call("shop/go", n=3, account="acme")
    assert daemon.post(f"/v1/retries/{second}/trigger").status_code == 202
    assert daemon.task(third)["waits"]["task"] == second
    receiver.on("/go/2", 400)
    daemon.post("/v1/endpoints/shop/go/resume")
    assert daemon.finish(second)["status"] == "failed"
    assert daemon.finish(third)["status"] == "succeeded"
    paths = [request.path for request in receiver.received()]
    assert paths == ["/go/1", "/go/2", "/go/2", "/go/3"]
    # Now it has: both would come out of order.
    said = f"overtaken: task {second} is overtaken: task {third} came after it"
    assert refused(daemon, second, "trigger").startswith(said)
    assert refused(daemon, second, "trigger", {"params": {"n": 5}}).startswith(said)
    ran = daemon.ctl("retry", "--all", "--endpoint", "shop/go", "-o", "json")
    assert json.loads(ran.out)["why_skipped"] == {"replaced": 1, "overtaken": 1}
    receiver.on("/go/2", 200)
    assert daemon.ctl("retry", str(second), "--force", "--wait").code == 0
    assert status_of(daemon, first) == ("cancelled", "replaced")


def test_a_partition_is_held_until_the_replacement_has_succeeded(
    daemon: Daemon, receiver: Receiver
) -> None:
    receiver.on("/hold/1", 400)
    receiver.on("/hold/3", 200)
    receiver.on("/hold/2", 400, 200)
    first = daemon.call("shop/hold", n=1, account="acme")
    behind = daemon.call("shop/hold", n=3, account="acme")
    assert daemon.finish(first)["status"] == "failed"
    answer = daemon.post(f"/v1/retries/{first}/trigger", {"params": {"account": "other"}})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_params")
    second = replaced(daemon, first)
    assert daemon.finish(second)["status"] == "failed"
    waits = daemon.task(behind)["waits"]
    assert waits["why"] == f"partition 'acme' is held by failed task {second}: retry or cancel that"
    assert daemon.ctl("retry", str(second), "--wait").code == 0
    assert daemon.finish(behind)["status"] == "succeeded"
    assert status_of(daemon, first) == ("cancelled", "replaced")
    assert [one.path for one in receiver.received()] == ["/hold/1", "/hold/2", "/hold/2", "/hold/3"]


def test_what_is_ambiguous_stays_so_when_it_is_cancelled(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    receiver.on("/", Answer(502))
    daemon = make_daemon()
    daemon.api("shop", receiver.url)
    daemon.endpoint("shop/post", "/", method="POST")
    daemon.start()
    one, other = daemon.call("shop/post"), daemon.call("shop/post")
    for task in (one, other):
        assert daemon.finish(task)["reason"] == "ambiguous"
    assert daemon.ctl("cancel", str(one)).code == 0
    assert daemon.ctl("cancel", "--all", "--status", "failed").code == 0
    words = ("retry", "--all", "--status", "failed,cancelled", "-o", "json")
    for task in (one, other):
        assert status_of(daemon, task) == ("cancelled", "ambiguous")
    dry = json.loads(daemon.ctl(*words, "--dry-run").out)
    assert (dry["matched"], dry["left_out"]) == (0, {"ambiguous": 2})
    dry = json.loads(daemon.ctl(*words, "--dry-run", "--include-ambiguous").out)
    assert dry["matched"] == 2
    receiver.on("/", 200)
    filter_ = {"id": [other], "status": "cancelled"}
    bulk = daemon.post("/v1/retries/trigger", {"filter": filter_}).json()["bulk"]
    shown = daemon.get(f"/v1/bulks/{bulk}").json()
    assert (shown["matched"], shown["include_ambiguous"]) == (1, True)
    daemon.until_status(other, "succeeded")
    assert daemon.ctl("retry", str(one), "--wait").code == 0
    assert status_of(daemon, one) == ("succeeded", None)
