from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import pytest

from orchestratord.api.filters import read_filter
from orchestratord.api.manual import bulk_runner as bulk_module
from orchestratord.api.serialize import format_rate
from orchestratord.errors import Conflict, QueueError
from orchestratord.queue.batch import Read
from orchestratord.queue.operations import bulk as bulks
from orchestratord.queue.records import Bulk, Chore, TaskFilter
from orchestratord.queue.store import Store
from orchestratord.runtime import chore_runner
from orchestratord.values.durations import parse_rate
from tests.unit.api.control_parts import Parts, until


async def retry_all(parts: Parts, **body: Any) -> dict[str, Any]:
    answer = await parts.post("/v1/retries/trigger", body)
    assert answer.status_code == (200 if body.get("dry_run") else 202), answer.text
    result: dict[str, Any] = answer.json()
    return result


async def shown(parts: Parts, bulk_id: int) -> dict[str, Any]:
    answer = await parts.client.get(f"/v1/bulks/{bulk_id}")
    assert answer.status_code == 200
    bulk: dict[str, Any] = answer.json()
    return bulk


async def finished(parts: Parts, bulk_id: int) -> dict[str, Any]:
    async def is_finished() -> bool:
        return (await shown(parts, bulk_id))["status"] != "running"

    await until(is_finished, 10)
    return await shown(parts, bulk_id)


async def test_all_failed_ones_are_tried_again(parts: Parts) -> None:
    ids = await parts.failed(3)
    await parts.later(2)
    answer = await retry_all(parts, filter={"endpoint": "demo/get"})
    assert answer["matched"] == 3
    bulk = await finished(parts, answer["bulk"])
    assert list(bulk) == [
        "id", "action", "status", "matched", "moved", "skipped", "why_skipped", "succeeded",
        "failed", "waiting", "stop_after", "filter", "include_ambiguous", "rate", "created_at",
        "finished_at", "ended_at",
    ]  # fmt: skip
    assert (bulk["matched"], bulk["moved"], bulk["skipped"]) == (3, 3, 0)
    assert bulk["rate"] is None
    assert bulk["finished_at"] is not None
    await until(lambda: len(parts.receiver.targets) == 6)
    for id_ in ids:
        assert (await parts.ended(id_))["status"] == "succeeded"


async def test_a_dry_run_only_counts(parts: Parts) -> None:
    [task_id] = await parts.failed()
    answer = await retry_all(parts, filter={"status": "failed"}, dry_run=True)
    task = (await parts.client.get(f"/v1/retries?id={task_id}")).json()["retries"][0]
    assert task["status"] == "failed"
    assert answer == {
        "matched": 1, "bulk": None, "left_out": {},
        "counts": [{"reason": task["reason"], "endpoint": "demo/get", "tasks": 1}],
        "examples": [task],
    }  # fmt: skip
    assert (await parts.client.get("/v1/bulks/1")).status_code == 404
    assert (await retry_all(parts, filter={"status": "failed"}))["bulk"] == 1


@pytest.mark.parametrize(
    ("body", "key"),
    [
        ({"filter": {}}, "filter"),
        ({"filter": {"status": ""}}, "filter"),
        ({}, "filter"),
        ({"filter": {"stats": "failed"}}, "stats"),
        ({"filter": {"status": "succeeded"}}, "filter.status"),
        ({"filter": {"status": ["failed", "running"]}}, "filter.status"),
        ({"filter": {"status": "failed"}, "rate": "fast"}, "rate"),
        ({"filter": {"status": "failed"}, "rate": 10}, "rate"),
        ({"filter": {"status": "failed"}, "dry_run": "no"}, "dry_run"),
    ],
)
async def test_a_bulk_that_is_not_understood_moves_nothing(
    parts: Parts, body: dict[str, Any], key: str
) -> None:
    [task_id] = await parts.failed()
    answer = await parts.post("/v1/retries/trigger", body)
    assert answer.status_code == 422
    assert [error["key"] for error in answer.json()["errors"]] == [key]
    assert (await parts.client.get(f"/v1/retries/{task_id}")).json()["status"] == "failed"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "is required"),
        ({"filter": []}, "expected a JSON object, not a list"),
        ({"filter": {"stats": "failed"}}, "there is no such filter, did you mean 'status'?"),
        ({"filter": {}, "dry_run": "no"}, "expected true or false, not 'no'"),
        ({"filter": {}, "dryrun": True}, "unknown key, did you mean 'dry_run'?"),
        (
            {"filter": {"reason": "ambigous"}},
            "'ambigous' is not a reason, did you mean 'ambiguous'?",
        ),
        ({"filter": {"kind": "calls"}}, "'calls' is not a kind, did you mean 'call'?"),
        (
            {"filter": {"tenant": "acme", "webhook": "globex/orders"}},
            "'globex/orders' is none of the tenant acme",
        ),
        ({"filter": {}, "rate": 10}, "10 is not a rate: write 10/s, 100/min or 5000/hour"),
    ],
)
async def test_a_mistake_is_named_in_plain_words(
    parts: Parts, body: dict[str, Any], message: str
) -> None:
    answer = await parts.post("/v1/retries/trigger", body)
    assert [error["message"] for error in answer.json()["errors"]] == [message]


@pytest.mark.parametrize("webhook", ["acme/orders", "acme/*"])
def test_a_webhook_of_a_tenant_is_no_other_one(webhook: str) -> None:
    assert read_filter({"tenant": "acme", "webhook": webhook}, 0, ()).webhook == webhook


@pytest.mark.parametrize("verb", ["trigger", "cancel"])
async def test_a_secret_that_is_looked_for_is_not_stored(parts: Parts, verb: str) -> None:
    body = {"filter": {"text": f"<{Parts.SECRET}>"}}
    answer = await parts.post(f"/v1/retries/{verb}", body)
    assert answer.status_code == 422
    [error] = answer.json()["errors"]
    assert error["key"] == "filter.text"
    assert error["message"].startswith("holds a secret of this configuration")
    assert Parts.SECRET not in answer.text
    assert (await parts.client.get("/v1/bulks")).json()["bulks"] == []
    assert (await parts.client.get("/v1/actions")).json()["actions"] == []
    assert (await parts.post(f"/v1/retries/{verb}", body | {"dry_run": True})).status_code == 200


async def test_a_secret_in_the_note_of_a_resolve_is_not_stored(parts: Parts) -> None:
    [id_] = await parts.failed(1)
    body = {"as": "succeeded", "note": f"by {Parts.SECRET}"}
    answer = await parts.post(f"/v1/retries/{id_}/resolve", body)
    assert (answer.status_code, answer.json()["errors"][0]["key"]) == (422, "note")
    assert Parts.SECRET not in answer.text
    assert (await parts.client.get("/v1/actions")).json()["actions"] == []
    assert (await parts.ended(id_))["status"] == "failed"


# -- resolving -------------------------------------------------------------------------------------


async def test_all_that_failed_are_resolved(parts: Parts) -> None:
    ids = await parts.failed(3)
    [waits] = await parts.later(1)
    body = {"filter": {"endpoint": "demo/get"}, "as": "succeeded", "note": "the bank has them"}
    survey = (await parts.post("/v1/retries/resolve", body | {"dry_run": True})).json()
    assert (survey["matched"], survey["left_out"]) == (3, {})
    answer = await parts.post("/v1/retries/resolve", body)
    assert answer.status_code == 202, answer.text
    bulk = await finished(parts, answer.json()["bulk"])
    assert (bulk["action"], bulk["matched"], bulk["moved"], bulk["skipped"]) == ("resolve", 3, 3, 0)
    assert bulk["ended_at"] is not None
    for id_ in ids:
        task = await parts.ended(id_)
        assert (task["status"], task["reason"], task["bulk_id"]) == (
            "succeeded", "resolved", bulk["id"],
        )  # fmt: skip
        assert task["attempt_log"][-1]["why"] == "resolved manually as succeeded: the bank has them"
    assert (await parts.client.get(f"/v1/retries/{waits}")).json()["status"] == "pending"
    [action] = (await parts.client.get("/v1/actions")).json()["actions"]
    assert (action["action"], action["bulk"]) == ("resolve many", bulk["id"])
    assert action["detail"]["resolution"] == {"as": "succeeded", "note": "the bank has them"}


async def test_what_a_person_has_resolved_is_left_alone_unless_its_reason_is_named(
    parts: Parts,
) -> None:
    [once, other] = await parts.failed(2)
    await parts.post(f"/v1/retries/{once}/resolve", {"as": "failed"})
    body = {"filter": {"endpoint": "demo/get"}, "as": "failed", "rate": "50/s"}
    answer = (await parts.post("/v1/retries/resolve", body)).json()
    assert (answer["matched"], answer["left_out"]) == (1, {})
    assert (await finished(parts, answer["bulk"]))["moved"] == 1
    assert len((await parts.ended(once))["attempt_log"]) == 2
    assert (await parts.ended(other))["reason"] == "resolved"
    for path in ("trigger", "cancel"):
        body = {"filter": {"endpoint": "demo/get", "status": "failed"}, "dry_run": True}
        answer = (await parts.post(f"/v1/retries/{path}", body)).json()
        assert (answer["matched"], answer["examples"]) == (0, [])
        named = body | {"filter": {"reason": "resolved", "status": "failed"}}
        assert (await parts.post(f"/v1/retries/{path}", named)).json()["matched"] == 2
    named = {"filter": {"reason": "resolved"}, "as": "succeeded"}
    answer = (await parts.post("/v1/retries/resolve", named)).json()
    assert (await finished(parts, answer["bulk"]))["moved"] == 2


async def test_what_was_resolved_by_a_daemon_that_died_then_is_counted(parts: Parts) -> None:
    store = parts.store
    ids = await parts.failed(4)
    parts._running[1].cancel()
    await asyncio.gather(parts._running[1], return_exceptions=True)
    survey = await store.read(bulks.survey(TaskFilter(status=("failed",))))
    said = {"as": "succeeded", "note": None}
    bulk = await store.write(bulks.create("resolve", survey, None, 0, said))
    for id_ in ids[:2]:  # and its step was never written
        await parts.service.one.resolve(id_, "succeeded", bulk=bulk)
    await parts.service.trigger(ids[3])  # it waits by now: a person wants it tried
    await parts.ended(ids[3])
    running = asyncio.create_task(parts.chore_runner().run())
    seen = await finished(parts, bulk.id)
    assert (seen["moved"], seen["why_skipped"]) == (3, {"changed": 1})
    assert (await parts.ended(ids[3]))["reason"] is None
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_task_that_does_not_match_any_more_is_not_resolved(parts: Parts) -> None:
    [waits] = await parts.later(1)
    bulk = Bulk(
        id=1, filter=TaskFilter(status=("failed",)), rate=None, status="running",
        highest_id=9, cursor=0, matched=1, moved=0, skipped=0, created_at=0, updated_at=0,
        finished_at=None, action="resolve",
    )  # fmt: skip
    with pytest.raises(Conflict):
        await parts.service.one.resolve(waits, "failed", bulk=bulk)


@pytest.mark.parametrize(
    ("body", "key"),
    [
        ({"filter": {"endpoint": "demo/get"}}, "as"),
        ({"filter": {}, "as": "failed"}, "filter"),
        ({"filter": {"status": "cancelled"}, "as": "failed"}, "filter.status"),
        ({"filter": {"status": "failed"}, "as": "failed", "note": f"by {Parts.SECRET}"}, "note"),
    ],
)
async def test_a_resolve_of_many_that_is_not_understood_moves_nothing(
    parts: Parts, body: dict[str, Any], key: str
) -> None:
    await parts.failed(1)
    answer = await parts.post("/v1/retries/resolve", body)
    assert (answer.status_code, answer.json()["errors"][0]["key"]) == (422, key)
    assert (await parts.client.get("/v1/bulks")).json()["bulks"] == []


async def test_filters_in_json(parts: Parts) -> None:
    await parts.failed(2)
    for filter_, matched in (
        ({"status": ["failed"], "status_code": [404, "5xx"], "kind": "call", "since": "1h"}, 2),
        ({"status_code": 404}, 2),
        ({"status_code": "500-599"}, 0),
        ({"since": 0}, 0),
    ):
        assert (await retry_all(parts, filter=filter_, dry_run=True))["matched"] == matched


async def test_a_rate_is_kept(parts: Parts) -> None:
    await parts.later(6)
    began = time.monotonic()
    answer = await retry_all(parts, filter={"status": "pending"}, rate="20/s")
    bulk = await finished(parts, answer["bulk"])
    assert (bulk["moved"], bulk["rate"]) == (6, "20/s")
    # A step of two at a time: the last one is due after the first two have had their time.
    assert time.monotonic() - began >= 0.2


async def test_its_steps_are_told_with_how_it_went(parts: Parts) -> None:
    await parts.failed(3)
    follower = parts.host.events.follow(lambda event: event.type.startswith("bulk."))
    parts.receiver.codes = [404, 404]
    # A second between two of them: the failures are counted before the third is moved.
    answer = await retry_all(parts, filter={"status": "failed"}, rate="1/s", stop_after=2)
    told: list[Any] = []
    while not told or told[-1].type != "bulk.paused":
        told += [event for _, event in await follower.take(9, 10)]
    paused = await shown(parts, answer["bulk"])
    assert [paused[name] for name in ("status", "moved", "failed")] == ["paused", 2, 2]
    assert (await parts.post(f"/v1/bulks/{paused['id']}/resume")).status_code == 202
    assert (await parts.post(f"/v1/bulks/{paused['id']}/resume")).status_code == 409
    while not told or told[-1].type != "bulk.finished":
        told += [event for _, event in await follower.take(9, 10)]
    steps = [event.type for event in told if event.type != "bulk.progress"]
    assert steps == ["bulk.began", "bulk.paused", "bulk.resumed", "bulk.finished"]
    # The last one was moved; it may wait for its answer.
    assert told[-1][3:-1] in (("retry", 3, 3, 0, 1, 2, 0), ("retry", 3, 3, 0, 0, 2, 1))
    later = (await retry_all(parts, filter={"endpoint": "demo/other"}))["bulk"]
    nothing: list[str] = []
    while "bulk.finished" not in nothing:
        nothing += [event.type for _, event in await follower.take(9, 10)]
    assert (later, nothing) == (paused["id"] + 1, ["bulk.began", "bulk.finished"])
    parts.host.events.leave(follower)


async def test_slow_failures_pause_a_bulk_before_it_has_moved_all(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_module, "STEP", 4)
    monkeypatch.setattr(bulk_module, "IDLE", 60.0)
    await parts.failed(24)
    parts.receiver.codes = [404] * 24
    parts.receiver.gate.clear()
    bulk = (await retry_all(parts, filter={"status": "failed"}, stop_after=2))["bulk"]
    await asyncio.sleep(0.6)
    parts.receiver.gate.set()
    paused = await finished(parts, bulk)
    assert (paused["status"], paused["moved"] <= 4 + 4) == ("paused", True)


async def test_the_pause_and_end_of_a_bulk_are_told_once_though_a_daemon_dies_before(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chore_runner, "LOOK", 0.05)
    parts._running[1].cancel()  # it dies before it could tell
    await asyncio.gather(parts._running[1], return_exceptions=True)
    await parts.failed(3)
    parts.receiver.codes = [404, 404]
    store = parts.store
    survey = await store.read(bulks.survey(TaskFilter(status=("failed",))))
    bulk = await store.write(bulks.create("retry", survey, 20.0, 2))
    _, keys = await bulks.step(store, bulk.id, 2)
    for key in keys:
        parts.worker.placement.touched(key, parts.clock.now_ms())

    async def paused() -> bool:
        return (await store.read(bulks.row_of(bulk.id))).status == "paused"

    async def known() -> bool:
        return not await store.read(Read(lambda db: db.all("SELECT 1 FROM chores")))

    await until(paused)
    follower = parts.host.events.follow(lambda event: event.type.startswith("bulk."))
    running = asyncio.create_task(parts.chore_runner().run())
    await until(known)
    await store.write(bulks.cancel(bulk.id))
    told: list[str] = []
    while "bulk.finished" not in told:  # it tells a moment after its row is gone
        told += [event.type for _, event in await follower.take(9, 10)]
    told += [event.type for _, event in await follower.take(9, 0.5)]
    assert told == ["bulk.paused", "bulk.finished"]
    parts.host.events.leave(follower)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_bulk_can_be_ended_early(parts: Parts) -> None:
    await parts.later(5)
    answer = await retry_all(parts, filter={"status": "pending"}, rate="1/h")
    bulk_id = answer["bulk"]

    async def has_begun() -> bool:
        return bool((await shown(parts, bulk_id))["moved"])

    await until(has_begun)
    ended = await parts.client.post(f"/v1/bulks/{bulk_id}/cancel")
    assert (ended.status_code, ended.json()["status"], ended.json()["moved"]) == (
        202,
        "cancelled",
        1,
    )
    assert (await shown(parts, bulk_id))["status"] == "cancelled"


async def test_no_such_bulk(parts: Parts) -> None:
    assert (await parts.client.get("/v1/bulks/7")).status_code == 404
    assert (await parts.client.get("/v1/bulks/x")).status_code == 404
    assert (await parts.client.post("/v1/bulks/7/cancel")).status_code == 404


async def test_a_bulk_goes_on_after_a_restart_without_a_burst(parts: Parts) -> None:
    await parts.post("/v1/endpoints/demo/get/pause")
    await parts.later(500)
    answer = await retry_all(parts, filter={"status": "pending"}, rate="20/s")
    bulk_id = answer["bulk"]

    async def moved() -> int:
        return int((await shown(parts, bulk_id))["moved"])

    await until(moved)
    parts._running[1].cancel()
    await asyncio.gather(parts._running[1], return_exceptions=True)
    stopped_at = await moved()
    await asyncio.sleep(0.7)
    assert await moved() == stopped_at
    runner = parts.chore_runner()
    began = time.monotonic()
    running = asyncio.create_task(runner.run())

    async def went_on() -> bool:
        return await moved() > stopped_at

    await until(went_on)
    # What was not moved meanwhile, fourteen of them, is not made up for.
    assert await moved() <= stopped_at + 6 + 20 * (time.monotonic() - began)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_step_that_fails_is_taken_again(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(chore_runner, "AGAIN", 0.01)
    step, failures = bulks.step, [QueueError("busy"), QueueError("busy")]

    async def fails_at_first(store: Store, *given: Any) -> Any:
        if failures:
            raise failures.pop()
        return await step(store, *given)

    monkeypatch.setattr(bulks, "step", fails_at_first)
    await parts.failed()
    with caplog.at_level(logging.ERROR, "orchestratord.chores"):
        answer = await retry_all(parts, filter={"status": "failed"})
        assert (await finished(parts, answer["bulk"]))["moved"] == 1
    assert len([record for record in caplog.records if "busy" in record.getMessage()]) == 2


async def test_a_bulk_that_another_daemon_has_taken_over_is_left_to_it(parts: Parts) -> None:
    """As it stood still for longer than the lease of the chore."""
    store = parts.store
    survey = await store.read(bulks.survey(TaskFilter(status=("failed",), endpoint="no/ne")))
    bulk = await store.write(bulks.create("retry", survey, None))

    async def is_over() -> bool:
        return not await store.read(Read(lambda db: db.all("SELECT 1 FROM chores")))

    await until(is_over)
    taken = Chore(id=1, kind=bulks.CHORE, subject=str(bulk.id))
    assert await parts.service.many.runner.step(taken) is None


@pytest.mark.parametrize("text", ["10/s", "100/min", "5000/h", "1/h", "1/s"])
def test_rates_are_shown_as_they_are_written(text: str) -> None:
    assert format_rate(parse_rate(text)) == text


def test_an_odd_rate_is_shown_by_the_second() -> None:
    assert format_rate(0.123456) == "0.123456/s"


# -- cancelling ------------------------------------------------------------------------------------


async def test_all_that_wait_are_given_up(parts: Parts) -> None:
    ids = await parts.later(3)
    [broken] = await parts.failed()
    body = {"filter": {"endpoint": "demo/get"}, "dry_run": True}
    answer = await parts.post("/v1/retries/cancel", body)
    dry = answer.json()
    assert (answer.status_code, dry["matched"], dry["bulk"]) == (200, 3, None)
    assert dry["counts"] == [{"reason": None, "endpoint": "demo/get", "tasks": 3}]
    answer = await parts.post("/v1/retries/cancel", {**body, "dry_run": False})
    assert answer.status_code == 202
    bulk = await finished(parts, answer.json()["bulk"])
    assert (bulk["action"], bulk["moved"], bulk["skipped"]) == ("cancel", 3, 0)
    for id_ in ids:
        assert (await parts.ended(id_))["status"] == "cancelled"
    assert (await parts.ended(broken))["status"] == "failed"
    assert (await parts.client.get("/v1/bulks")).json() == {"bulks": [bulk]}


async def test_who_waits_for_one_that_is_cancelled_among_many_is_told(parts: Parts) -> None:
    [id_] = await parts.later(1)
    waiting = asyncio.create_task(parts.ended(id_))
    await asyncio.sleep(0.1)
    await parts.post("/v1/retries/cancel", {"filter": {"id": [id_], "status": "pending"}})
    assert (await asyncio.wait_for(waiting, 60))["status"] == "cancelled"


async def test_what_succeeded_is_not_cancelled_in_bulk(parts: Parts) -> None:
    for filter_ in ({}, {"status": "succeeded"}):
        answer = await parts.post("/v1/retries/cancel", {"filter": filter_})
        assert answer.status_code == 422, filter_
