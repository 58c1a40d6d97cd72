"""What the delivery of a batch says, and what `batch` goes with in the YAML."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import orchestratord_webhooks
import pytest
from webhook_parts import ENDPOINT, declared

from orchestratord import BatchEntry, BatchMember, ClosedBatch, NewTask
from orchestratord.testing import Rig, answered, task

AT = 1_795_557_600_000  # 2026-11-24T22:00:00Z
BATCH = {"every": "5m", "max": 1000}


def adopted(rig: Rig, *webhooks: dict[str, Any], **more: dict[str, Any]) -> Any:
    endpoints = [rig.endpoint(ENDPOINT, webhooks=list(webhooks))]
    endpoints += [rig.endpoint(f"shop/{name}", webhooks=[keys]) for name, keys in more.items()]
    config = rig.config(*endpoints)
    rig.adopt(config)
    return config


def closed(first: int = 10, detail: str | None = None, **fields: Any) -> ClosedBatch:
    counts = fields.pop(
        "counts", {("shop/a", "exhausted", 503): 4990, (ENDPOINT, None, "error"): 10}
    )
    entries = tuple(
        BatchEntry(ENDPOINT, n, "exhausted", 503, AT, detail or f'{{"task_id":{n},"error":"e"}}')
        for n in range(first)
    )
    given = {
        "id": 7,
        "group": "webhook ops",
        "endpoint_id": ENDPOINT,
        "webhook": "ops",
        "phase": "on_final_failure",
    }
    return ClosedBatch(
        **{"opened_at": AT, "closed_at": AT + 300_000, "members": 5_000, "counts": counts,
           "first": entries, **given, **fields},
    )  # fmt: skip


def delivery(config: Any, batch: ClosedBatch) -> NewTask:
    [made] = orchestratord_webhooks.batch_closed(batch, config)
    return made


async def test_an_event_becomes_a_member(rig: Rig) -> None:
    hook = declared(phase="on_final_failure", batch=BATCH, include=["params"])
    config = adopted(rig, hook, other=hook)
    call = task(id=42, endpoint_id=ENDPOINT, reason="exhausted", params={"id": 7})
    found = [
        orchestratord_webhooks.announce(
            "on_final_failure", answered(503), None, call, config.endpoints[name], None, config
        )
        for name in (ENDPOINT, "shop/other")
    ]
    [one], [other] = found  # type: ignore[misc]
    assert isinstance(one, BatchMember)
    assert (one.every, one.most, one.task_id) == (300.0, 1000, 42)
    assert (one.reason, one.status_code) == ("exhausted", 503)
    assert one.group == other.group, "endpoints that declare the same share it"
    said = json.loads(one.detail)
    assert said["params"] == {"id": 7}
    assert "response" not in said


def test_batch_closed_tells_of_it_in_one_envelope(rig: Rig) -> None:
    made = delivery(adopted(rig, declared(phase="on_final_failure", batch=BATCH)), closed())
    assert (made.endpoint_id, made.webhook, made.params) == (ENDPOINT, "ops", {"batch": 7})
    said = json.loads(made.payload or "")
    first = said["data"].pop("first")
    assert said == {
        "type": "on_final_failure",
        "timestamp": "2026-11-24T22:05:00.000Z",
        "data": {
            "batch": 7, "webhook": "ops", "phase": "on_final_failure", "count": 5_000,
            "counts": {
                "endpoint": {"shop/a": 4990, ENDPOINT: 10},
                "reason": {"exhausted": 4990},
                "status_code": {"503": 4990, "error": 10},
            },
            "opened_at": "2026-11-24T22:00:00.000Z", "closed_at": "2026-11-24T22:05:00.000Z",
            "filter": {"batch": 7},
        },
    }  # fmt: skip
    assert [one["task_id"] for one in first] == list(range(10))
    assert first[0]["error"] == "e"


def test_the_list_is_cut_where_it_is_too_large_and_counts_stay(rig: Rig) -> None:
    config = adopted(rig, declared(phase="on_final_failure", batch=BATCH))
    counts = {(f"shop/{n:05}", "exhausted", 503): 2 for n in range(9_000)}
    made = delivery(config, closed(detail=json.dumps({"x": "y" * 120_000}), counts=counts))
    assert made.payload is not None
    assert len(made.payload) <= 512 << 10
    data = json.loads(made.payload)["data"]
    assert (len(data["first"]), data["truncated"]) == (4, True)
    assert (
        sum(data["counts"]["endpoint"].values()) == data["counts"]["reason"]["exhausted"] == 18_000
    )


def test_a_payload_of_its_own(rig: Rig) -> None:
    text = (
        "{{ count }} failed, {{ counts.reason.exhausted }} of them for good: {{ first[0].error }}"
    )
    hook = declared(
        phase="on_final_failure", batch=BATCH, payload={"text": text, "f": "{{ filter }}"}
    )
    made = delivery(adopted(rig, hook), closed())
    assert json.loads(made.payload or "") == {
        "text": "5000 failed, 4990 of them for good: e", "f": {"batch": 7}
    }  # fmt: skip


def test_one_that_sends_is_preferred(rig: Rig) -> None:
    hook = declared(phase="on_final_failure", batch=BATCH)
    config = adopted(rig, {**hook, "enabled": False}, a=hook)
    assert delivery(config, closed()).endpoint_id == "shop/a"
    config = adopted(rig, hook, a=hook)
    call = task(id=42, endpoint_id=ENDPOINT, reason="exhausted")
    health = orchestratord_webhooks.health
    health._disabled["shop/a", "ops"] = "410 Gone"
    batch = closed(
        endpoint_id="shop/a", counts={("shop/a", None, 503): 1, (ENDPOINT, None, 503): 1}
    )
    assert delivery(config, batch).endpoint_id == ENDPOINT
    health._disabled.clear()
    # One that was changed meanwhile is another one, which has batches of its own.
    config = adopted(rig, hook, a={**hook, "url": "https://new.example/hook"})
    [one] = orchestratord_webhooks.announce(
        "on_final_failure", answered(503), None, call, config.endpoints[ENDPOINT], None, config
    )  # type: ignore[misc]
    assert isinstance(one, BatchMember)
    assert delivery(config, replace(batch, group=one.group)).endpoint_id == ENDPOINT
    assert (
        list(orchestratord_webhooks.batch_closed(replace(batch, group="of another"), config)) == []
    )


async def test_what_is_large_is_kept_without_what_makes_it_so(rig: Rig) -> None:
    config = adopted(rig, declared(phase="on_final_failure", batch=BATCH))
    call = task(id=42, endpoint_id=ENDPOINT, reason="exhausted", params={"x": "y" * 2_000_000})
    found = orchestratord_webhooks.announce(
        "on_final_failure", answered(503), None, call, config.endpoints[ENDPOINT], None, config
    )
    [one] = found if isinstance(found, list) else await found
    assert isinstance(one, BatchMember)
    said = json.loads(one.detail or "")
    assert (said["params"], said["task_id"], said["truncated"]) == ({}, 42, True)
    assert "503" in said["error"]


def test_without_its_detail_an_entry_has_an_error_all_the_same(rig: Rig) -> None:
    hook = declared(phase="on_final_failure", batch=BATCH, payload="{{ first[0].error }}")
    batch = closed(first=1)
    batch = replace(batch, first=(batch.first[0]._replace(detail=None),))
    made = delivery(adopted(rig, hook), batch)
    assert (made.payload, made.error) == ("", None)


def test_a_webhook_that_has_no_batch_any_more(rig: Rig) -> None:
    hook = declared(phase="on_final_failure", payload={"text": "{{ params.id }}"})
    made = delivery(adopted(rig, hook), closed())
    assert json.loads(made.payload or "")["data"]["count"] == 5_000


def test_it_goes_where_the_webhook_is_still_declared(rig: Rig) -> None:
    hook = declared(phase="on_final_failure", batch=BATCH)
    assert delivery(adopted(rig, a=hook), closed()).endpoint_id == "shop/a"
    now = closed(closed_at=int(time.time() * 1000))
    assert list(orchestratord_webhooks.batch_closed(now, adopted(rig))) == [], "others may have it"
    gone = delivery(adopted(rig), closed())
    assert (gone.endpoint_id, gone.payload is not None) == (ENDPOINT, True)


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"payload": "{{ params.id }}"}, "webhooks.0.payload: 'params' is not known"),
        ({"partition": "{{ params.id }}"}, "webhooks.0.partition: a batch has no partition"),
        ({"headers": {"X-A": "{{ params.id }}"}}, "webhooks.0.headers.X-A: 'params' is not known"),
        ({"url": "https://a.example/{{ endpoint }}"}, "webhooks.0.url: 'endpoint' is not known"),
        ({"payload": "{{ count }}", "batch": None}, "webhooks.0.payload: 'count' is not known"),
    ],
)
def test_what_does_not_go_with_it(rig: Rig, keys: dict[str, Any], problem: str) -> None:
    endpoint = rig.endpoint(ENDPOINT, webhooks=[declared(**{"batch": BATCH, **keys})])
    [found] = [
        one for one in orchestratord_webhooks.check_endpoint(endpoint) if one.severity == "error"
    ]
    assert f"{found.key}: {found.message}".startswith(problem)


async def test_many_egress_rules_and_a_long_name(rig: Rig) -> None:
    """Whatever one plugin returns is dropped together where a text of it is too long."""
    hooks = [
        declared(phase="on_final_failure"),
        declared(name="n" * 512, phase="on_final_failure", batch=BATCH),
    ]
    rules = [f"receiver-{n}.internal.example.com:8443" for n in range(60)]
    groups = []
    for allowed in (rules, rules, rules[:-1]):
        endpoint = rig.endpoint(ENDPOINT, api={"egress": tuple(allowed)}, webhooks=hooks)
        call = task(id=42, endpoint_id=ENDPOINT, reason="exhausted")
        # The rig fails where the daemon would drop them.
        told = await rig.tell("on_final_failure", answered(503), task=call, endpoint=endpoint)
        delivery, member = told
        assert isinstance(delivery, NewTask)
        assert isinstance(member, BatchMember)
        groups.append(member.group)
    assert groups[0] == groups[1] != groups[2], "those that may be sent elsewhere share no batch"


def test_a_batch_of_before_groups_were_short_is_told_of(rig: Rig) -> None:
    hook = declared(phase="on_final_failure", batch=BATCH)
    config = adopted(rig, hook)
    batch = closed(group=f"webhook ops {'0' * 64} a.example b.example")
    assert delivery(config, batch).endpoint_id == ENDPOINT
