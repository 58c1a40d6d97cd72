from __future__ import annotations

import json
import logging
from dataclasses import replace
from typing import Any

import orchestratord_webhooks
import pytest
from webhook_parts import ENDPOINT, declared

from orchestratord import PHASES, NewTask, Outcome, Partition, RunError, RunSummary
from orchestratord.model.partition_turn import PartitionTurn
from orchestratord.testing import Rig, answered, task, unanswered

CALL = task(id=42, endpoint_id=ENDPOINT, attempts=3, params={"id": "A1"})
NEVER_RAN = Outcome("failure", None, error="expired")


async def fired(
    rig: Rig, phase: str, outcome: Outcome | None, webhooks: list[Any], **more: Any
) -> list[NewTask]:
    endpoint = rig.endpoint(ENDPOINT, webhooks=webhooks)
    about = {"task": CALL, **more}
    effects = await rig.tell(phase, outcome, endpoint=endpoint, **about)
    assert all(isinstance(effect, NewTask) for effect in effects)
    return effects  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("status_code", "outcome", "fires"),
    [
        ("200", answered(200), True),
        ("2xx", answered(204), True),
        (200, answered(201), False),
        (["5xx", "error"], answered(503), True),
        (["5xx", "error"], unanswered(), True),
        (["5xx", "error"], answered(404), False),
        (["5xx", "error"], answered(200), False),
        ("500-502", answered(502), True),
        ("500-502", answered(503), False),
        ("error", answered(503), False),
        ("404", NEVER_RAN, False),
        ("error", NEVER_RAN, False),
        (None, answered(200), True),
        (None, unanswered(), True),
        (None, NEVER_RAN, True),
    ],
)
@pytest.mark.parametrize("phase", ["after_request", "on_final_failure"])
async def test_status_codes(
    rig: Rig, phase: str, status_code: Any, outcome: Outcome, fires: bool
) -> None:
    keys = {} if status_code is None else {"status_code": status_code}
    assert bool(await fired(rig, phase, outcome, [declared(phase=phase, **keys)])) is fires


@pytest.mark.parametrize("reached", PHASES)
async def test_a_webhook_fires_in_its_own_phase_alone(rig: Rig, reached: str) -> None:
    webhooks = [declared(name=phase, phase=phase) for phase in PHASES]
    outcome = None if reached.startswith("before_") else answered(500)
    run = RunSummary(42, ENDPOINT, 1, 0, 1, 0, 1, 0, 1) if reached == "on_run_end" else None
    tasks = await fired(rig, reached, outcome, webhooks, run=run)
    assert [(new.webhook, new.phase) for new in tasks] == [(reached, reached)]


async def test_what_a_delivery_is(rig: Rig) -> None:
    webhook = declared(retry={"max_attempts": 4})
    (new,) = await fired(rig, "after_request", answered(503), [webhook])
    assert (new.kind, new.endpoint_id, new.webhook) == ("webhook", ENDPOINT, "ops")
    assert (new.phase, new.parent_id, new.max_attempts) == ("after_request", 42, 4)
    assert (new.params, new.error, new.delay) == ({"id": "A1"}, None, 0)
    envelope = json.loads(new.payload or "")
    assert envelope["type"] == "after_request"
    assert envelope["data"]["task_id"] == 42
    assert envelope["data"]["attempt"] == 3


async def test_what_on_run_end_tells_of_a_run(rig: Rig) -> None:
    error = RunError(43, "shop/page", "exhausted", 503, "503 Service Unavailable")
    run = RunSummary(42, ENDPOINT, 5, 2, 2, 1, 2, 0, 61_500, {"shop/page": 2}, (error,))
    outcome = Outcome("failure", "error", error="of 5 calls 2 failed and 1 cancelled")
    webhook = declared(phase="on_run_end", status_code="error")
    (new,) = await fired(rig, "on_run_end", outcome, [webhook], run=run)
    found = json.loads(new.payload or "")["data"]
    assert (found["run_id"], found["end"], found["status_code"]) == (42, 2, "error")
    assert found["counts"] == {"total": 5, "succeeded": 2, "failed": 2, "cancelled": 1}
    assert found["failed_endpoints"] == {"shop/page": 2}
    assert found["first_errors"][0]["status_code"] == 503
    assert found["duration_ms"] == 61_500
    assert (found["request"], found["response"]) == (None, None)
    text = declared(phase="on_run_end", payload={"text": "{{ counts.failed }} of {{ end }}"})
    (new,) = await fired(rig, "on_run_end", outcome, [text], run=run)
    assert new.payload == '{"text":"2 of 2"}'


async def test_when_the_next_try_is(rig: Rig) -> None:
    webhook = declared(phase="on_retry")
    (new,) = await fired(rig, "on_retry", answered(503), [webhook], next_try=1_795_557_605_120)
    assert json.loads(new.payload or "")["data"]["next_try"] == "2026-11-24T22:00:05.120Z"


async def test_deliveries_fire_no_webhooks(rig: Rig) -> None:
    delivery = task(kind="webhook", endpoint_id=ENDPOINT, webhook="ops", payload="{}")
    assert await fired(rig, "after_request", answered(503), [declared()], task=delivery) == []


async def test_one_that_is_switched_off_does_not_fire(rig: Rig) -> None:
    webhooks = [declared(enabled=False), declared(name="other")]
    tasks = await fired(rig, "after_request", answered(503), webhooks)
    assert [new.webhook for new in tasks] == ["other"]


async def test_one_that_is_disabled_does_not_fire(rig: Rig) -> None:
    endpoint = rig.endpoint(ENDPOINT, webhooks=[declared(), declared(name="other")])
    config = rig.config(endpoint)
    row = {
        "endpoint_id": ENDPOINT,
        "name": "ops",
        "fingerprint": endpoint[orchestratord_webhooks.WEBHOOKS][0].fingerprint,
        "disabled_at": 1,
        "disabled_reason": "410 Gone",
    }
    rig.adopt(config, {"webhooks": [row]})
    effects = await rig.tell("after_request", answered(503), task=CALL, endpoint=endpoint)
    assert [effect.webhook for effect in effects if isinstance(effect, NewTask)] == ["other"]


async def test_a_payload_that_does_not_render_is_a_delivery_that_says_so(rig: Rig) -> None:
    webhook = declared(payload={"a": "{{ params.missing }}"})
    (new, other) = await fired(rig, "after_request", answered(503), [webhook, declared(name="o")])
    assert new.payload is None
    assert "missing" in (new.error or "")
    assert other.payload is not None


async def test_large_payloads_are_named_once(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "orchestratord.webhooks")
    for _ in range(2):
        await fired(
            rig, "after_request", answered(503, content=b"x" * 30_000), [declared(name="l")]
        )
    assert [record.getMessage() for record in caplog.records] == [
        "payloads of the webhook l of shop/getOrder are over 20000 bytes; `include` narrows them"
    ]


async def test_secrets_of_the_configuration_are_masked(rig: Rig) -> None:
    endpoint = rig.endpoint(ENDPOINT, webhooks=[declared()])
    config = rig.config(endpoint, secrets=["hunter22"])
    (new,) = await rig.tell(
        "after_request",
        answered(401, text="wrong password: hunter22"),
        task=CALL,
        endpoint=endpoint,
        config=config,
    )
    assert isinstance(new, NewTask)
    assert "hunter22" not in (new.payload or "")
    assert "wrong password: ***" in (new.payload or "")


async def test_its_partition_is_made_of_what_the_envelope_tells(rig: Rig) -> None:
    by = "{{ params.id }}/{{ status_code }}/{{ partition }}"
    webhook = declared(partition={"by": by, "ordered": True, "on_failure": "hold"})
    (new,) = await fired(rig, "after_request", answered(503), [webhook])
    assert new.partition == Partition("A1/503/", 1, ordered=True, hold=True)
    assert "partition" not in json.loads(new.payload or "")["data"]
    call = replace(CALL, turn=PartitionTurn("acme", 0))
    (new,) = await fired(rig, "after_request", answered(503), [webhook], task=call)
    assert new.partition is not None
    assert new.partition.value == "A1/503/acme"
    assert json.loads(new.payload or "")["data"]["partition"] == "acme"


@pytest.mark.parametrize("by", ["{{ response.headers.missing }}", "{{ 'a' * 201 }}"])
async def test_a_partition_that_does_not_render_is_a_delivery_that_says_so(
    rig: Rig, by: str
) -> None:
    (new,) = await fired(rig, "after_request", answered(503), [declared(partition=by)])
    assert (new.payload, new.partition) == (None, None)
    assert new.error is not None
