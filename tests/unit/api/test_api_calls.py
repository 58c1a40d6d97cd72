from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import replace
from typing import Any

import httpx
import pytest
from pydantic import TypeAdapter

from orchestratord import NewTask, PartitionKey
from orchestratord.api import service as service_module
from orchestratord.engine.new import enqueue as enqueue_module
from orchestratord.queue.operations import manual
from orchestratord.values.json_body import INLINE_BYTES
from tests.unit.api.control_parts import Parts, until

CALLS = "/v1/endpoints/demo/get/calls"


async def test_a_call_is_accepted_carried_out_and_shown(parts: Parts) -> None:
    answer = await parts.post(CALLS, {"params": {"id": "a b"}})
    assert answer.status_code == 202
    assert answer.json() == {"id": 1, "status": "pending"}
    task = await parts.ended(1)
    assert parts.receiver.targets == ["/things/a%20b"]
    assert (task["status"], task["endpoint"], task["attempts"]) == ("succeeded", "demo/get", 1)
    assert task["params"] == {"id": "a b", "limit": 50, "deep": None}
    assert task["last_status_code"] == 200
    assert task["response"]["body"] == "body"
    [attempt] = task["attempt_log"]
    assert set(attempt) == {
        "attempt", "started_at", "duration_ms", "status_code", "error", "delay", "why",
    }  # fmt: skip
    assert attempt["attempt"] == 1


async def test_a_call_needs_no_body(parts: Parts) -> None:
    answer = await parts.client.post(CALLS)
    assert answer.status_code == 202


async def test_texts_become_what_is_declared(parts: Parts) -> None:
    answer = await parts.post(CALLS, {"params": {"id": "x"}, "text_params": {"limit": "7"}})
    assert (await parts.ended(answer.json()["id"]))["params"]["limit"] == 7


async def test_a_parameter_given_twice_is_refused(parts: Parts) -> None:
    answer = await parts.post(CALLS, {"params": {"id": "x"}, "text_params": {"id": "y"}})
    assert answer.status_code == 422
    assert answer.json()["errors"] == [{"key": "id", "message": "is given twice"}]


async def test_parameters_that_do_not_fit_are_all_named(parts: Parts) -> None:
    answer = await parts.post(CALLS, {"params": {"limit": "many", "other": 1}})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["status"], problem["code"]) == (422, "invalid_params")
    assert {error["key"] for error in problem["errors"]} == {"limit", "other"}
    assert (await parts.client.get("/v1/retries")).json()["retries"] == []


@pytest.mark.parametrize(
    ("body", "key"),
    [
        ({"parms": {}}, "parms"),
        ({"params": []}, "params"),
        ({"params": {}, "delay": "soon"}, "delay"),
        ({"params": {}, "delay": -1}, "delay"),
        ({"params": {}, "at": "tomorrow"}, "at"),
        ({"params": {}, "at": 1_795_557_600}, "at"),
        ({"params": {}, "at": "2026-11-24T22:00:00"}, "at"),
        ({"params": {}, "at": "2126-11-24T22:00:00Z"}, "at"),
        ({"params": {}, "at": "2030-11-24T22:00:00Z", "delay": "1h"}, "at"),
        ({"text_params": {"id": 1}}, "text_params.id"),
        ({"batch": [{}], "params": {}}, "params"),
        ({"batch": [1]}, "batch.0"),
        ([], "body"),
        ("text", "body"),
    ],
)
async def test_a_body_that_is_not_understood_is_refused(
    parts: Parts, body: object, key: str
) -> None:
    answer = await parts.post(CALLS, body)
    assert answer.status_code == 422
    assert [error["key"] for error in answer.json()["errors"]] == [key]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ([], "expected a JSON object, not a list"),
        ("text", "expected a JSON object, not 'text'"),
        ({"parms": {}}, "unknown key, did you mean 'params'?"),
        ({"x": 1}, "unknown key; known are at, batch, delay, params, text_params"),
        ({"params": None}, "expected a JSON object, not null"),
        ({"text_params": {"id": 1}}, "expected a text, not 1"),
        ({"text_params": {"id": {}}}, "expected a text, not an object"),
        ({"batch": {}}, "expected a list, not an object"),
        ({"batch": [True]}, "expected a JSON object, not true"),
        (
            {"delay": True},
            "true is not a duration: write 500ms, 10s, 5m, 2h, 1d, or a number of seconds",
        ),
        (
            {"delay": None},
            "null is not a duration: write 500ms, 10s, 5m, 2h, 1d, or a number of seconds",
        ),
    ],
)
async def test_a_mistake_is_named_in_plain_words(parts: Parts, body: object, message: str) -> None:
    answer = await parts.client.post(CALLS, content=json.dumps(body))
    assert [error["message"] for error in answer.json()["errors"]] == [message]


async def test_what_takes_no_body_says_so(parts: Parts) -> None:
    answer = await parts.post("/v1/endpoints/demo/get/pause", {"now": True})
    assert answer.json()["errors"] == [{"key": "now", "message": "unknown key; this takes no keys"}]


async def test_a_delayed_call_waits(parts: Parts) -> None:
    answer = await parts.post(CALLS, {"delay": "1h"})
    task = (await parts.client.get(f"/v1/retries/{answer.json()['id']}")).json()
    assert (task["status"], task["attempts"]) == ("pending", 0)
    assert task["next_try"] > task["created_at"]
    assert parts.receiver.targets == []


async def test_a_call_waits_until_its_time(parts: Parts) -> None:
    at = {"at": "2030-11-24T23:00:00.250+01:00"}
    answer = await parts.client.post(CALLS, json=at, headers={"Idempotency-Key": "k"})
    task = (await parts.client.get(f"/v1/retries/{answer.json()['id']}")).json()
    assert (task["status"], task["attempts"]) == ("pending", 0)
    assert task["next_try"] == "2030-11-24T22:00:00.250Z"
    # The key stands for the parameters, whenever they are due.
    again = await parts.client.post(CALLS, json={}, headers={"Idempotency-Key": "k"})
    assert (again.status_code, again.json()["id"]) == (200, task["id"])
    assert parts.receiver.targets == []
    batch = await parts.post(CALLS, {"batch": [{}, {}], **at})
    for id_ in batch.json()["ids"]:
        one = (await parts.client.get(f"/v1/retries/{id_}")).json()
        assert one["next_try"] == task["next_try"]


async def test_a_time_that_is_past_is_due_now(parts: Parts) -> None:
    answer = await parts.post(CALLS, {"at": "2020-11-24T22:00:00Z"})
    assert (await parts.ended(answer.json()["id"]))["status"] == "succeeded"


async def test_unknown_disabled_and_full(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = await parts.post("/v1/endpoints/demo/nope/calls", {"nonsense": 1})
    assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")
    disabled = await parts.post("/v1/endpoints/demo/off/calls", {})
    assert (disabled.status_code, disabled.json()["code"]) == (409, "conflict")
    monkeypatch.setattr(parts.store._database, "crowded", lambda _: True)
    await until(lambda: not parts.store.health.accepting)
    full = await parts.post(CALLS, {})
    assert (full.status_code, full.json()["code"]) == (507, "storage_full")
    ready = await parts.client.get("/readyz")
    assert (ready.status_code, ready.json()["code"]) == (503, "not_ready")


async def test_the_same_key_is_the_same_call(parts: Parts) -> None:
    key = {"Idempotency-Key": "order-1"}
    first = await parts.post(CALLS, {"params": {"id": "1"}}, headers=key)
    await parts.ended(first.json()["id"])
    again = await parts.post(CALLS, {"params": {"id": "1"}}, headers=key)
    assert (first.status_code, again.status_code) == (202, 200)
    assert again.json() == {"id": first.json()["id"], "status": "succeeded"}
    other = await parts.post(CALLS, {"params": {"id": "2"}}, headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    elsewhere = await parts.post("/v1/endpoints/demo/other/calls", headers=key)
    assert elsewhere.status_code == 202
    await parts.ended(elsewhere.json()["id"])
    assert len(parts.receiver.targets) == 2


@pytest.mark.parametrize("key", ["", "x" * 256])
async def test_a_key_that_is_none_is_refused(parts: Parts, key: str) -> None:
    answer = await parts.post(CALLS, {}, headers={"Idempotency-Key": key})
    assert answer.status_code == 422


async def test_a_batch_is_accepted_whole(parts: Parts) -> None:
    answer = await parts.post(CALLS, {"batch": [{"id": str(n)} for n in range(20)], "delay": "1h"})
    assert answer.status_code == 202
    ids = answer.json()["ids"]
    assert len(set(ids)) == 20
    task = (await parts.client.get(f"/v1/retries/{ids[7]}")).json()
    assert (task["params"]["id"], task["status"]) == ("7", "pending")


async def test_a_batch_with_one_mistake_is_refused_whole(parts: Parts) -> None:
    answer = await parts.post(CALLS, {"batch": [{"id": "1"}, {"limit": "x"}, {}]})
    assert answer.status_code == 422
    assert [error["key"] for error in answer.json()["errors"]] == ["batch.1.limit"]
    assert (await parts.client.get("/v1/retries")).json()["retries"] == []


async def test_the_mistakes_of_a_batch_are_not_endless(parts: Parts) -> None:
    answer = await parts.post(CALLS, {"batch": [{"limit": "x"}] * 1000})
    assert len(answer.json()["errors"]) == 100


async def test_a_batch_has_a_size(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "MAX_BATCH", 3)
    assert (await parts.post(CALLS, {"batch": [{}] * 4})).status_code == 422
    empty = await parts.post(CALLS, {"batch": []})
    assert (empty.status_code, empty.json()) == (202, {"ids": []})


async def test_a_batch_under_a_key_is_made_once(parts: Parts) -> None:
    async def post(*numbers: int) -> httpx.Response:
        batch = {"batch": [{"id": str(number)} for number in numbers], "delay": "1h"}
        return await parts.post(CALLS, batch, headers={"Idempotency-Key": "k"})

    first, again = await post(1, 2), await post(1, 2)
    assert (first.status_code, again.status_code) == (202, 200)
    assert first.json() == again.json()
    assert len(set(first.json()["ids"])) == 2
    for numbers in ((1, 3), (1, 2, 3), (1,), (0, 1, 2)):
        other = await post(*numbers)
        assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert len((await parts.client.get("/v1/retries")).json()["retries"]) == 2
    assert (await post(1, 2)).json() == first.json()


async def test_batches_under_a_key_that_come_at_once(parts: Parts) -> None:
    async def post(count: int) -> httpx.Response:
        batch = {"batch": [{}] * count, "delay": "1h"}
        return await parts.post(CALLS, batch, headers={"Idempotency-Key": "k"})

    answers = await asyncio.gather(*[post(count) for count in (2, 3, 2, 1, 3)])
    made = {str(one.json().get("ids")) for one in answers if one.status_code < 300}
    assert [one.status_code for one in answers].count(202) == len(made) == 1
    refused = {one.json()["code"] for one in answers if one.status_code >= 300}
    assert refused == {"idempotency_key_reused"}
    [ids] = made
    assert len((await parts.client.get("/v1/retries")).json()["retries"]) == len(json.loads(ids))


async def test_ten_thousand_calls_are_one_batch(parts: Parts) -> None:
    answer = await parts.post(CALLS, {"batch": [{}] * 10_000, "delay": "1h"}, timeout=30)
    assert len(answer.json()["ids"]) == 10_000


async def test_a_paused_endpoint_accepts_and_waits(parts: Parts) -> None:
    paused = await parts.post("/v1/endpoints/demo/get/pause")
    assert (paused.status_code, paused.json()) == (200, {"id": "demo/get", "paused": True})
    assert parts.scheduler.paused == {"demo/get"}
    task_id = await parts.made()
    await asyncio.sleep(0.1)
    task = (await parts.client.get(f"/v1/retries/{task_id}")).json()
    assert (task["status"], task["attempts"]) == ("pending", 0)
    assert (await parts.client.get("/v1/status")).json()["paused"] == ["demo/get"]
    await parts.post("/v1/endpoints/demo/get/resume")
    assert parts.scheduler.paused == set()
    assert (await parts.ended(task_id))["status"] == "succeeded"


async def test_pausing_what_is_not_there(parts: Parts) -> None:
    assert (await parts.post("/v1/endpoints/demo/nope/pause")).status_code == 404
    assert (await parts.post("/v1/endpoints/demo/nope/resume")).status_code == 404
    # It was paused, then its file was removed; the pause can still be lifted.
    await parts.store.write(manual.pause("demo/gone", True))
    assert (await parts.post("/v1/endpoints/demo/gone/resume")).status_code == 200
    assert await parts.store.read(manual.paused()) == set()


async def test_resuming_what_is_disabled_names_its_file(parts: Parts) -> None:
    for name, file in (("get", None), ("off", "")):  # those here come from no file
        answer = (await parts.post(f"/v1/endpoints/demo/{name}/resume")).json()
        assert (answer["paused"], answer.get("disabled_in")) == (False, file)


async def test_many_pauses_at_once_leave_the_last_state(parts: Parts) -> None:
    for round_ in range(5):
        word = "pause" if round_ % 2 == 0 else "resume"
        await asyncio.gather(
            *(parts.post(f"/v1/endpoints/demo/{name}/{word}") for name in ("get", "other", "off"))
        )
        assert parts.scheduler.paused == await parts.store.read(manual.paused())


SECRET_PARAMS: list[dict[str, object]] = [
    {"params": {"id": Parts.SECRET}},
    {"params": {"id": "x", "deep": {"a": [f"<{Parts.SECRET}>"]}}},
    {"params": {"id": "x", "deep": {Parts.SECRET: 1}}},
    {"params": {"id": "x"}, "text_params": {"deep": f"Bearer {Parts.SECRET}"}},
    {"batch": [{"id": "x"}, {"id": Parts.SECRET}]},
]


@pytest.mark.parametrize("body", SECRET_PARAMS)
async def test_a_secret_of_the_configuration_is_not_stored(
    parts: Parts, body: dict[str, object]
) -> None:
    answer = await parts.post(CALLS, body)
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["message"].startswith("holds a secret of this configuration")
    assert error["key"] in ("id", "deep", "batch.1.id")
    assert Parts.SECRET not in answer.text
    assert (await parts.client.get("/v1/retries")).json()["retries"] == []


async def test_nor_is_one_that_comes_as_the_key(parts: Parts) -> None:
    answer = await parts.client.post(
        CALLS, json={"params": {"id": "x"}}, headers={"Idempotency-Key": f"k-{Parts.SECRET}"}
    )
    assert answer.status_code == 422
    assert [error["key"] for error in answer.json()["errors"]] == ["Idempotency-Key"]


@pytest.mark.parametrize("batch", [False, True], ids=["call", "batch"])
async def test_a_large_call_is_checked_off_the_loop(
    parts: Parts, batch: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []
    check_call = enqueue_module.check_call

    def noted(*given: Any) -> Any:
        threads.append(threading.current_thread().name)
        return check_call(*given)

    monkeypatch.setattr(enqueue_module, "check_call", noted)

    async def post(params: dict[str, Any]) -> httpx.Response:
        return await parts.post(CALLS, {"batch": [params]} if batch else {"params": params})

    deep = list(range(INLINE_BYTES // 4))
    assert (await post({"id": "small"})).status_code == 202
    assert (await post({"id": "large", "deep": deep})).status_code == 202
    refused = await post({"id": "large", "deep": deep, "limit": "many"})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["key"] == ("batch.0.limit" if batch else "limit")
    assert threads == ["MainThread", "orchestratord-answers", "orchestratord-answers"]


def partitioned(parts: Parts, **keys: Any) -> None:
    """Give the endpoint a partition by its parameter `id`."""
    config = parts.loader.config
    rule = TypeAdapter(PartitionKey).validate_python({"by": "{{ params.id }}", **keys})
    one = replace(config.endpoints["demo/get"], partition=rule)
    parts.loader.config = replace(config, endpoints={**config.endpoints, one.id: one})
    parts.worker.placement.adopt(parts.loader.config)


async def test_a_call_has_the_partition_that_its_parameters_make(parts: Parts) -> None:
    partitioned(parts)
    for id_ in ("acme", "other", "acme"):
        await parts.post(CALLS, {"params": {"id": id_}})
    assert [(await parts.ended(n))["partition"] for n in (1, 2, 3)] == ["acme", "other", "acme"]
    answer = await parts.client.get("/v1/retries?partition=acme")
    assert [task["id"] for task in answer.json()["retries"]] == [3, 1]
    answer = await parts.post("/v1/retries/trigger", {"filter": {"partition": "nobody"}})
    assert answer.json()["matched"] == 0


@pytest.mark.parametrize(
    ("body", "key", "message"),
    [
        ({"params": {"id": "x" * 201}}, "partition", "201 characters; 200 are taken"),
        ({"params": {"id": "a\tb"}}, "partition", "control character"),
        ({"params": {"id": "x"}, "delay": "5s"}, "delay", "leave it out"),
        ({"params": {"id": "x"}, "at": "2020-11-24T22:00:00Z"}, "at", "leave it out"),
        ({"batch": [{"id": "x"}, {"id": "x" * 201}]}, "batch.1.partition", "201 characters"),
    ],
)
async def test_what_has_no_partition_is_refused(
    parts: Parts, body: object, key: str, message: str
) -> None:
    partitioned(parts, ordered=True)
    answer = await parts.post(CALLS, body)
    assert answer.status_code == 422
    [error] = answer.json()["errors"]
    assert error["key"] == key
    assert message in error["message"]
    assert (await parts.client.get("/v1/retries")).json()["retries"] == []


async def test_a_call_of_a_plugin_without_a_partition_fails_visibly(parts: Parts) -> None:
    partitioned(parts)
    new = NewTask("call", "demo/get", {"id": "x" * 201, "limit": 1, "deep": None})
    [task_id] = await parts.service.write([new])
    task = await parts.ended(task_id)
    assert (task["status"], task["reason"]) == ("failed", "invalid_payload")
    assert "201 characters" in task["last_error"]
    assert parts.receiver.targets == []
