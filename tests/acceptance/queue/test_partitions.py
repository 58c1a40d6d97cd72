"""One daemon with ordered partitions, and what people see of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon, retry
from tests.acceptance.receiver import Receiver
from tests.acceptance.waiting import until
from tests.acceptance.workers.crew import followed


@pytest.fixture(scope="module")
def daemon(make_shared: MakeDaemon, shared_receiver: Receiver) -> Iterator[Daemon]:
    """Two endpoints whose calls are ordered by account: one holds, one goes on."""
    daemon = make_shared()
    daemon.api("crm", shared_receiver.url)
    url = f"{shared_receiver.url}/told/{{{{ params.account }}}}"
    for name, on_failure in (("hold", "hold"), ("go", "continue")):
        daemon.endpoint(
            f"crm/{name}",
            f"/{name}/{{{{ params.account }}}}/{{{{ params.n }}}}",
            method="PUT",
            params={"account": {"required": True}, "n": {"default": 0}},
            partition={"by": "{{ params.account }}", "ordered": True, "on_failure": on_failure},
            retry=retry("1h"),
            webhooks=[
                {"name": "told", "phase": "on_success", "url": url, "partition": "{{ partition }}"}
            ],
        )
    shared_receiver.reply("/", lambda request: 200)  # type: ignore[arg-type, return-value]
    with ExitStack() as stack:
        stack.enter_context(daemon.start())
        yield daemon


def paths(receiver: Receiver, prefix: str) -> list[str]:
    return [item.path for item in receiver.received() if item.path.startswith(prefix)]


def test_a_failed_task_holds_its_partition(daemon: Daemon, shared_receiver: Receiver) -> None:
    receiver = shared_receiver
    receiver.on("/hold/acme/1", 400, 200)
    with followed(daemon) as lines:
        calls = [("acme", 1), ("acme", 2), ("acme", 3), ("other", 4)]
        ids = daemon.batch("crm/hold", [{"account": name, "n": n} for name, n in calls])
        first, second, third, other = ids
        assert daemon.finish(other)["partition"] == "other"
        assert daemon.finish(first)["reason"] == "not_retryable"
        event = next(line for line in lines if '"partition.held"' in line)
    told = json.loads(event.removeprefix("data: "))
    assert (told["partition"], told["id"], told["reason"]) == ("acme", first, "not_retryable")
    waits = daemon.task(second)["waits"]
    assert (waits["for"], waits["task"]) == ("partition", first)
    held = f"partition 'acme' is held by failed task {first}: retry or cancel that"
    assert waits["why"] == held
    assert held in " ".join(daemon.ctl("show", str(third)).out.split())
    assert daemon.task(first)["holds_partition"] is True
    assert "holds its partition, until it is retried" in " ".join(
        daemon.ctl("show", str(first)).out.split()
    )
    until(lambda: daemon.status()["queue"]["held_partitions"] == 1, "that it is known")
    assert f"acme of crm/hold (task {first})" in " ".join(daemon.ctl("status").out.split())
    assert f'href="/retries/{first}"' in daemon.get(f"/retries/{second}").text
    assert "Held by tasks that failed" in daemon.get("/").text
    assert "orchestratord_held_partitions 1.0" in daemon.get("/metrics").text
    listed = daemon.ctl("list", "--partition", "acme", "--kind", "call", "-o", "json")
    assert [task["id"] for task in json.loads(listed.out)["retries"]] == [third, second, first]
    assert paths(receiver, "/hold/acme") == ["/hold/acme/1"]
    # A person has looked: what follows goes, in its order.
    assert daemon.ctl("retry", str(first), "--wait").code == 0
    assert daemon.finish(third)["status"] == "succeeded"
    assert paths(receiver, "/hold/acme") == [f"/hold/acme/{n}" for n in (1, 1, 2, 3)]
    until(lambda: receiver.count("/told/acme") == 3, "the deliveries")
    assert receiver.received("/told/acme")[0].json()["data"]["partition"] == "acme"
    assert daemon.deliveries(first)[0]["partition"] == "acme"
    until(lambda: daemon.status()["queue"]["held_partitions"] == 0, "that none is held")
    # So they do where it is given up.
    receiver.on("/hold/beta/1", 400)
    ids = daemon.batch("crm/hold", [{"account": "beta", "n": n} for n in (1, 2)])
    daemon.finish(ids[0])
    assert daemon.ctl("cancel", str(ids[0])).code == 0
    assert daemon.finish(ids[1])["status"] == "succeeded"


def test_what_was_overtaken_is_sent_by_force_alone(
    daemon: Daemon, shared_receiver: Receiver
) -> None:
    receiver = shared_receiver
    for n in (1, 3):
        receiver.on(f"/go/acme/{n}", 400, 200)
    ids = daemon.batch("crm/go", [{"account": "acme", "n": n} for n in range(1, 5)])
    first, second, third, _ = ids
    for task_id in ids:
        daemon.finish(task_id)
    answer = daemon.post(f"/v1/retries/{first}/trigger")
    assert (answer.status_code, answer.json()["code"]) == (409, "overtaken")
    assert f"task {second} came after it" in answer.json()["detail"]
    ran = daemon.ctl("retry", str(first))
    assert ran.code == 5
    assert f"orchestratorctl retry {first} --force" in ran.err
    ran = daemon.ctl("retry", "--all", "--partition", "acme", "--endpoint", "crm/go")
    assert "2 skipped: later ones of their partition had started" in ran.err
    assert ran.code == 1
    bulk = daemon.get("/v1/bulks").json()["bulks"][0]
    assert bulk["why_skipped"] == {"overtaken": 2}
    assert bulk["filter"]["partition"] == "acme"
    assert receiver.count("/go/acme/1") == 1
    assert daemon.ctl("retry", str(first), "--force", "--wait").code == 0
    assert receiver.count("/go/acme/1") == 2
    assert daemon.task(third)["status"] == "failed"


def test_who_waits_says_behind_whom(daemon: Daemon, shared_receiver: Receiver) -> None:
    shared_receiver.on("/go/late/1", 500, 200)
    first, second = daemon.batch("crm/go", [{"account": "late", "n": n} for n in (1, 2)])
    until(lambda: daemon.task(first)["attempts"] == 1, "its failure")
    until(lambda: daemon.task(first)["status"] == "pending", "its wait")
    waits = daemon.task(second)["waits"]
    assert (waits["for"], waits["task"]) == ("partition", first)
    assert waits["until"] == daemon.task(first)["next_try"]
    shown = " ".join(daemon.ctl("show", str(second)).out.split())
    assert f"behind task {first} of partition 'late', which is tried again: in " in shown
    # A retry of one that waits does not bring it before the others.
    assert daemon.ctl("retry", str(second)).code == 0
    assert daemon.task(second)["attempts"] == 0
    assert daemon.ctl("retry", str(first), "--wait").code == 0
    assert daemon.finish(second)["status"] == "succeeded"


def test_what_cannot_be_in_its_place_is_refused(daemon: Daemon) -> None:
    calls = "/v1/endpoints/crm/go/calls"
    answer = daemon.post(calls, {"params": {"account": "a"}, "delay": "5s"})
    assert (answer.status_code, answer.json()["errors"][0]["key"]) == (422, "delay")
    answer = daemon.post(calls, {"params": {"account": "a" * 201}})
    assert answer.json()["errors"][0]["key"] == "partition"
    ran = daemon.ctl("call", "crm/go", "-p", f"account={'a' * 201}")
    assert ran.code == 2
    assert "201 characters; 200 are taken" in ran.err
