from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
import pytest

from orchestratord.api import service as service_module
from orchestratord.engine.lanes import fair_slots
from orchestratord.engine.lanes.breaker import LASTING_MS, LEAST
from orchestratord.model.task import NewTask
from orchestratord.queue.operations import effects, manual
from orchestratord.queue.records import Insert
from orchestratord.values.clock import rfc3339
from tests.unit.api.control_parts import Parts, until

TASK_KEYS = [
    "id", "kind", "endpoint", "webhook", "phase", "status", "reason", "attempts", "max_attempts",
    "deaths", "looks", "looked_since", "waits_for", "next_try", "params", "truncated", "parent_id",
    "run_id", "partition", "bulk_id", "replaces", "last_status_code", "last_error", "created_at",
    "updated_at", "finished_at",
]  # fmt: skip


async def listed(parts: Parts, query: str = "") -> list[int]:
    answer = await parts.client.get(f"/v1/retries?{query}")
    assert answer.status_code == 200, answer.text
    return [task["id"] for task in answer.json()["retries"]]


# -- lists ---------------------------------------------------------------------------------------


async def test_a_task_looks_as_documented(parts: Parts) -> None:
    [task_id] = await parts.later(1)
    [task] = (await parts.client.get("/v1/retries")).json()["retries"]
    assert list(task) == TASK_KEYS
    assert (task["id"], task["kind"], task["endpoint"]) == (task_id, "call", "demo/get")
    assert task["webhook"] is None
    assert task["next_try"].endswith("Z")
    alone = (await parts.client.get(f"/v1/retries/{task_id}")).json()
    assert list(alone) == [
        *TASK_KEYS,
        "waits",
        "replaced_by",
        "holds_partition",
        "cancel_requested",
        "idempotency_key",
        "client_key",
        "payload",
        "response",
        "attempt_log",
    ]
    assert (alone["response"], alone["attempt_log"], alone["waits"]) == (None, [], None)


async def test_a_task_says_what_it_waits_for(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fair_slots, "SLOW_MS", 600_000)  # a busy machine makes no endpoint slow
    worker, now = parts.worker, parts.clock.now_ms()
    assert (await parts.ended(await parts.made()))["waits"] is None

    async def waits(task_id: int) -> dict[str, Any]:
        answer = await parts.client.get(f"/v1/retries/{task_id}")
        found: dict[str, Any] = answer.json()["waits"]
        return found

    [lane] = worker.lanes.lanes.values()
    throttle = worker.lanes.throttle_of(lane, now)
    for at in [now - LASTING_MS] * LEAST + [now]:
        if throttle.breaker.count(at, f"cannot connect to {parts.SECRET}"):
            throttle.breaker.open(at, at, throttle.breaker.why)
    throttle.breaker.next_probe = now + 8_000
    task_id = await parts.made()
    assert await waits(task_id) == {
        "for": "breaker", "why": "the breaker of api:demo is open: cannot connect to ***",
        "lane": "api:demo", "since": rfc3339(now), "until": rfc3339(now + 8_000), "task": None,
    }  # fmt: skip
    throttle.breaker.answered(now)
    throttle.wait_until(now + 40_000, "429 with Retry-After")
    assert await waits(task_id) == {
        "for": "retry_after", "why": "api:demo was told to wait: 429 with Retry-After",
        "lane": "api:demo", "since": None, "until": rfc3339(now + 40_000), "task": None,
    }  # fmt: skip
    await parts.post("/v1/endpoints/demo/get/pause")
    assert await waits(task_id) == {
        "for": "parked", "why": "the endpoint is paused", "lane": None, "since": None,
        "until": None, "task": None,
    }  # fmt: skip
    await parts.post("/v1/endpoints/demo/get/resume")
    answer = await parts.post(f"/v1/retries/{task_id}/trigger")
    assert answer.status_code == 202
    assert (await parts.ended(task_id))["status"] == "succeeded"  # by hand, it is the probe
    lane.throttle = None
    parts.receiver.gate.clear()
    ids = [await parts.made() for _ in range(11)]
    await until(lambda: lane.in_flight == 10)
    assert (await waits(ids[-1]))["why"] == "api:demo has 10 of 10 in flight"


async def test_pages_go_from_the_newest_to_the_oldest(parts: Parts) -> None:
    ids = await parts.later(7)
    seen: list[int] = []
    after = ""
    for size in (3, 3, 1):
        page = (await parts.client.get(f"/v1/retries?limit=3{after}")).json()
        assert len(page["retries"]) == size
        seen += [task["id"] for task in page["retries"]]
        after = f"&after={page['next']}"
    assert page["next"] is None
    assert seen == sorted(ids, reverse=True)


async def test_a_full_last_page_ends_the_list(parts: Parts) -> None:
    await parts.later(3)
    assert (await parts.client.get("/v1/retries?limit=3")).json()["next"] is None


async def test_a_hundred_are_shown_unless_asked(parts: Parts) -> None:
    await parts.later(120)
    assert len(await listed(parts)) == 100
    assert len(await listed(parts, "limit=1000")) == 120


async def test_filters(parts: Parts) -> None:
    [bad] = await parts.failed()
    good = await parts.made()
    await parts.ended(good)
    [waiting] = await parts.later(1, "demo/other")
    assert await listed(parts, "status=failed") == [bad]
    assert await listed(parts, "status=failed,succeeded") == [good, bad]
    assert await listed(parts, "status=failed&status=pending") == [waiting, bad]
    assert await listed(parts, "status_code=404") == [bad]
    assert await listed(parts, "status_code=2xx,400-499") == [good, bad]
    assert await listed(parts, "endpoint=demo/other") == [waiting]
    assert await listed(parts, "endpoint=demo/*") == [waiting, good, bad]
    assert await listed(parts, "endpoint=dem/*") == []
    assert await listed(parts, "kind=webhook") == []
    assert await listed(parts, "kind=call&status=pending") == [waiting]
    # As the documentation writes it down: nothing filled in.
    everything = "status=&status_code=&endpoint=&kind=&since=&limit=&after="
    assert await listed(parts, everything) == [waiting, good, bad]


async def test_since_is_a_duration_or_a_time(parts: Parts) -> None:
    [old] = await parts.later(1)
    await asyncio.sleep(1.0)
    between = rfc3339(round(time.time() * 1000) - 100)
    assert between is not None
    [new] = await parts.later(1)
    assert await listed(parts, "since=1h") == [new, old]
    assert await listed(parts, "since=900ms") == [new]
    assert await listed(parts, f"since={between}") == [new]
    # A plus that was not escaped.
    assert await listed(parts, f"since={between[:-1]}+00:00") == [new]


@pytest.mark.parametrize(
    ("query", "key"),
    [
        ("status=broken", "status"),
        ("status_code=99", "status_code"),
        ("endpoint=demo", "endpoint"),
        ("endpoint=*/get", "endpoint"),
        ("since=yesterday", "since"),
        ("since=2026-11-24T22:00:00", "since"),
        ("since=9999-12-31T23:59:59-23:59", "since"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=many", "limit"),
        ("limit=²", "limit"),
        ("after=-1", "after"),
        ("after=99999999999999999999", "after"),
        ("state=failed", "state"),
    ],
)
async def test_a_filter_that_is_none_is_refused(parts: Parts, query: str, key: str) -> None:
    answer = await parts.client.get(f"/v1/retries?{query}")
    if key == "since" and "9999" in query:
        assert answer.status_code in (200, 422)
        return
    assert answer.status_code == 422
    assert [error["key"] for error in answer.json()["errors"]] == [key]


# -- one task ------------------------------------------------------------------------------------


@pytest.mark.parametrize("task_id", ["999", "0", "x", "-1", "1.5", "%31x", "9" * 30])
@pytest.mark.parametrize("action", ["", "/trigger", "/cancel"])
async def test_no_such_task(parts: Parts, task_id: str, action: str) -> None:
    method = "POST" if action else "GET"
    answer = await parts.client.request(method, f"/v1/retries/{task_id}{action}")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_secrets_are_not_shown(parts: Parts) -> None:
    # Such a call is refused today; it was made before this was a secret.
    params = {"id": f"x {parts.SECRET} y", "deep": {"a": [parts.SECRET]}}
    old = Insert(NewTask("call", "demo/get", params))
    task_id = (await parts.store.write(effects.enqueue([old])))[0].id
    parts.worker.placement.touched(old.task.key, 0)
    answer = await parts.client.get(f"/v1/retries/{task_id}")
    assert parts.SECRET not in answer.text
    assert answer.json()["params"]["id"] == "x *** y"
    assert parts.SECRET not in (await parts.client.get("/v1/retries")).text
    await parts.ended(task_id)
    assert parts.receiver.targets == [f"/things/x%20{parts.SECRET}%20y"]


async def test_what_is_not_ascii_is_escaped(parts: Parts) -> None:
    nasty = "é \x1b[31m \x9b31m \u2028 \x7f"
    task_id = await parts.made(deep=nasty)
    answer = await parts.client.get(f"/v1/retries/{task_id}")
    assert answer.content.isascii()
    assert b"\x1b" not in answer.content
    assert answer.json()["params"]["deep"] == nasty


async def test_waiting_ends_with_the_task(parts: Parts) -> None:
    parts.receiver.gate.clear()
    task_id = await parts.made()
    waiting = asyncio.create_task(parts.ended(task_id))
    await until(lambda: parts.receiver.targets)
    await asyncio.sleep(0.05)
    assert not waiting.done()
    parts.receiver.gate.set()
    assert (await waiting)["status"] == "succeeded"


async def test_waiting_ends_with_the_time(parts: Parts) -> None:
    [task_id] = await parts.later(1)
    began = time.monotonic()
    task = (await parts.client.get(f"/v1/retries/{task_id}?wait=300ms")).json()
    assert task["status"] == "pending"
    assert time.monotonic() - began >= 0.3


async def test_waiting_ends_with_a_cancel(parts: Parts) -> None:
    [task_id] = await parts.later(1)
    waiting = asyncio.create_task(parts.ended(task_id))
    await asyncio.sleep(0.1)
    await parts.post(f"/v1/retries/{task_id}/cancel")
    assert (await waiting)["status"] == "cancelled"


async def test_waiting_notices_what_nobody_told(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "LOOK_AGAIN", 0.05)
    [task_id] = await parts.later(1)
    waiting = asyncio.create_task(parts.ended(task_id))
    await asyncio.sleep(0.1)
    await parts.store.write(manual.cancel(task_id))
    assert (await waiting)["status"] == "cancelled"


async def test_waiting_ends_when_the_daemon_stops(parts: Parts) -> None:
    [task_id] = await parts.later(1)
    waiting = asyncio.create_task(parts.ended(task_id))
    await asyncio.sleep(0.1)
    parts.service.close()
    assert (await waiting)["status"] == "pending"


@pytest.mark.parametrize("wait", ["31", "soon", "-1", "1e9"])
async def test_a_wait_that_is_none_is_refused(parts: Parts, wait: str) -> None:
    [task_id] = await parts.later(1)
    answer = await parts.client.get(f"/v1/retries/{task_id}?wait={wait}")
    assert (answer.status_code, answer.json()["errors"][0]["key"]) == (422, "wait")


async def test_nobody_waits_for_a_client_that_has_gone(parts: Parts) -> None:
    [task_id] = await parts.later(1)
    with pytest.raises(httpx.ReadTimeout):
        await parts.client.get(f"/v1/retries/{task_id}?wait=30", timeout=0.1)
    await until(lambda: not parts.server._state.tasks)


# -- by hand -------------------------------------------------------------------------------------


async def test_a_waiting_task_is_tried_now(parts: Parts) -> None:
    [task_id] = await parts.later(1)
    answer = await parts.client.post(f"/v1/retries/{task_id}/trigger")
    assert answer.status_code == 202
    assert list(answer.json()) == TASK_KEYS
    assert answer.json()["status"] == "pending"
    assert (await parts.ended(task_id))["status"] == "succeeded"


async def test_a_failed_task_is_tried_again(parts: Parts) -> None:
    [task_id] = await parts.failed()
    assert (await parts.post(f"/v1/retries/{task_id}/trigger", {})).status_code == 202
    await until(lambda: len(parts.receiver.targets) == 2)
    task = await parts.ended(task_id)
    assert (task["status"], task["reason"]) == ("succeeded", None)
    assert len(task["attempt_log"]) == 2


async def test_what_succeeded_needs_force(parts: Parts) -> None:
    task_id = await parts.made()
    await parts.ended(task_id)
    plain = await parts.client.post(f"/v1/retries/{task_id}/trigger")
    assert (plain.status_code, plain.json()["code"]) == (409, "conflict")
    forced = await parts.post(f"/v1/retries/{task_id}/trigger", {"force": True})
    assert forced.status_code == 202
    await until(lambda: len(parts.receiver.targets) == 2)


@pytest.mark.parametrize("body", [{"force": "yes"}, {"forse": True}, [True]])
async def test_a_trigger_that_is_not_understood(parts: Parts, body: object) -> None:
    [task_id] = await parts.later(1)
    assert (await parts.post(f"/v1/retries/{task_id}/trigger", body)).status_code == 422
    assert (await parts.client.get(f"/v1/retries/{task_id}")).json()["status"] == "pending"


async def test_cancelling(parts: Parts) -> None:
    [task_id] = await parts.later(1)
    answer = await parts.client.post(f"/v1/retries/{task_id}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (202, "cancelled")
    assert (await parts.client.post(f"/v1/retries/{task_id}/cancel")).status_code == 202
    done = await parts.made()
    await parts.ended(done)
    assert (await parts.client.post(f"/v1/retries/{done}/cancel")).status_code == 409


async def test_cancelling_and_triggering_what_runs(parts: Parts) -> None:
    parts.receiver.gate.clear()
    parts.receiver.codes = [503]
    task_id = await parts.made()
    await until(lambda: parts.receiver.targets)
    assert (await parts.client.post(f"/v1/retries/{task_id}/trigger")).status_code == 409
    answer = await parts.client.post(f"/v1/retries/{task_id}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (202, "running")
    parts.receiver.gate.set()
    assert (await parts.ended(task_id))["status"] == "cancelled"
