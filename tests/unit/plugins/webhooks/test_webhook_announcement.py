from __future__ import annotations

import json
import logging
from dataclasses import replace
from typing import Any

import httpx
import orchestratord_webhooks
import pytest
from orchestratord_webhooks.announcement import Announcer
from webhook_parts import ENDPOINT, declared

from orchestratord import PHASES, NewTask, Outcome, Partition, Redactor, RunError, RunSummary
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


async def test_what_a_disabled_one_misses_is_a_delivery_too(rig: Rig) -> None:
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
    made = [effect.webhook for effect in effects if isinstance(effect, NewTask)]
    assert made == ["ops", "other"], "it fails at once, and is kept"


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


# -- when -----------------------------------------------------------------------------------------

ORDER = b'{"total": 120, "tags": ["new"], "note": "%s"}' % (b"x" * 30_000)
LIST = b"<?xml version='1.0'?><o:order xmlns:o='urn:o'><o:total>120</o:total></o:order>"


def answering(content: bytes, type_: str = "application/json", **extensions: Any) -> Outcome:
    headers = {"content-type": type_}
    response = httpx.Response(200, headers=headers, content=content, extensions=extensions)
    return Outcome("success", 200, response=response)


@pytest.mark.parametrize(
    ("when", "outcome", "fires"),
    [
        ("response.body.total > `100`", answering(ORDER), True),
        ("response.body.total > `200`", answering(ORDER), False),
        ("response.body.missing", answering(ORDER), False),
        ("contains(response.body.note, 'x')", answering(ORDER), True),
        ("length(response.body.note) == `30000`", answering(ORDER), True),
        ("response.truncated", answering(ORDER), False),
        ("response.body.order.total == '120'", answering(LIST, "text/xml"), True),
        ("response.body == 'hello'", answering(b"hello", "text/plain"), True),
        ("response.body == `null`", answering(b""), True),
        ("response.body.total", answering(ORDER[:50], truncated=True), False),
        ("response.truncated", answering(ORDER[:50], truncated=True), True),
        ("response.headers.\"content-type\" == 'text/xml'", answering(LIST, "text/xml"), True),
        ("params.id == 'A1' && attempt == `3`", answering(ORDER), True),
        ("@.response.body.total", answering(ORDER), True),
        ("!response", unanswered(), True),
        ("response.body.total > `100`", unanswered(), False),
    ],
)
async def test_when_decides(rig: Rig, when: str, outcome: Outcome, fires: bool) -> None:
    asked, other = declared(when=when), declared(name="other")
    made = await fired(rig, "after_request", outcome, [asked, other])
    assert [new.webhook for new in made] == ["ops"] * fires + ["other"]
    for new in made:  # what is sent is what others are sent
        assert new.payload == made[-1].payload


async def test_when_is_asked_of_what_a_batch_gathers(rig: Rig) -> None:
    webhooks = [
        declared(name="few", when="response.body.total > `200`", batch={}),
        declared(name="all", when="response.body.total > `100`", batch={}),
    ]
    endpoint = rig.endpoint(ENDPOINT, webhooks=webhooks)
    made = await rig.tell("after_request", answering(ORDER), endpoint=endpoint, task=CALL)
    assert [(type(one).__name__, one.webhook) for one in made] == [("BatchMember", "all")]


@pytest.mark.parametrize("batch", [None, {}])
async def test_a_when_that_cannot_be_worked_out_is_seen(rig: Rig, batch: Any) -> None:
    keys = {} if batch is None else {"batch": batch}
    webhook = declared(when="contains(response.body.missing, 'x')", **keys)
    (new,) = await fired(rig, "after_request", answering(ORDER), [webhook])
    assert new.payload is None
    assert (new.error or "").startswith("when: contains(")


async def test_a_dear_when_is_asked_beside_the_loop(rig: Rig) -> None:
    many = b'{"items": [%s]}' % b",".join(b'{"a": %d}' % n for n in range(2_500))
    assert len(many) < 32 << 10
    dear = "length(response.body.items[?a > `-1` && a > `-2` && a > `-3`]) == `2500`"
    assert len(await fired(rig, "after_request", answering(many), [declared(when=dear)])) == 1


async def test_no_when_finds_out_a_secret(rig: Rig) -> None:
    secret = "s3cret-value-of-the-api"
    endpoint = rig.endpoint(ENDPOINT, webhooks=[declared(when=f"response.body.a == '{secret}'")])
    config = replace(rig.config(endpoint), redactor=Redactor([secret]))
    announcer = Announcer(orchestratord_webhooks.health, orchestratord_webhooks.deliveries.context)
    outcome = answering(b'{"a": "%s"}' % secret.encode())
    assert announcer.announce("after_request", outcome, None, CALL, endpoint, None, config) == []


@pytest.mark.parametrize(
    ("phase", "when", "says"),
    [
        ("after_request", "respons.body", "did you mean 'response'"),
        ("after_request", "end == 'failed'", "'end' is not in the envelope's data"),
        ("on_run_end", "end == 'failed'", ""),
        ("after_request", "a ==", "is not JMESPath"),
    ],
)
def test_what_when_may_name(rig: Rig, phase: str, when: str, says: str) -> None:
    webhook = declared(phase=phase, when=when)
    if not says:
        rig.endpoint(ENDPOINT, webhooks=[webhook])
        return
    with pytest.raises(Exception, match=says):
        rig.endpoint(ENDPOINT, webhooks=[webhook])
