"""Which events operational webhooks tell of, and that they wait for a database that is away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from orchestratord_webhooks import health, operational
from orchestratord_webhooks.operational_webhook import OPERATIONAL_WEBHOOKS
from pydantic import TypeAdapter
from webhook_parts import ENDPOINT, FakeControl, declared

from orchestratord import (
    BreakerEvent,
    Config,
    ConfigEvent,
    EventType,
    TaskEvent,
    Unreachable,
    WebhookEvent,
)
from orchestratord.model.event import BulkEvent, ScheduleEvent, ThrottleEvent
from orchestratord.plugin.isolation import HookFault
from orchestratord.testing import Rig

AT = 1_795_557_600_000
URL = "https://ops.example.com/daemon"
OPENED = BreakerEvent(EventType.BREAKER_OPENED, AT, "api:shop", 20, "refused by s3cr3t-t0ken")


class OneWrite(FakeControl):
    """Notes what is written together."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.writes: list[Sequence[Any]] = []

    async def write(self, effects: Sequence[Any]) -> list[int]:
        self.writes.append(effects)
        return await super().write(effects)


class Away(FakeControl):
    """Its database is away for the first write."""

    refused = 0

    async def write(self, effects: Sequence[Any]) -> list[int]:
        if not self.refused:
            self.refused += 1
            raise Unreachable("away", "database_unreachable")
        self.members += effects
        return []


async def told(rig: Rig, monkeypatch: pytest.MonkeyPatch, *events: Any, **keys: Any) -> list[Any]:
    monkeypatch.setattr(operational, "AGAIN", 0.001)
    adapter = TypeAdapter(OPERATIONAL_WEBHOOKS.type)
    webhooks = adapter.validate_python(
        [{"url": URL, **keys}], context={"backoffs": rig.host.registry.backoffs}
    )
    config = replace(
        rig.config(secrets=["s3cr3t-t0ken"]), settings={"operational_webhooks": webhooks}
    )
    control = Away(config)
    teller = operational.OperationalTeller()
    teller.bind(control)
    teller.observe(events)
    if teller._writing is not None:
        async with asyncio.timeout(5):
            await teller._writing
        assert control.refused == 1
    return control.members


async def test_what_is_told(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = ConfigEvent(
        EventType.CONFIG_REFUSED, AT, 1, "poll", 2, problems=1, error="a.yaml:1: no"
    )
    found = await told(rig, monkeypatch, OPENED, refused, OPENED)
    assert [one.reason for one in found] == ["breaker.opened", "config.refused", "breaker.opened"]
    first = json.loads(found[0].detail)
    assert first["text"] == "breaker.opened: api:shop: refused by ***"
    assert first["at"] == "2026-11-24T22:00:00.000Z"
    assert found[0].once == found[2].once != found[1].once


async def test_what_an_event_is_about(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Daemons word an error each in its way, and what ends is about what had begun."""
    closed = BreakerEvent(EventType.BREAKER_CLOSED, AT, "api:shop")
    elsewhere = OPENED._replace(error="timeout")
    found = await told(rig, monkeypatch, OPENED, elsewhere, closed, OPENED._replace(lane="api:crm"))
    first, *others = (one.once for one in found)
    assert [one == first for one in others] == [True, True, False]


async def test_how_they_are_gathered(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    found = await told(rig, monkeypatch, OPENED)
    assert (found[0].every, found[0].most, found[0].webhook) == (30.0, 100, "operational")


async def test_each_bulk_is_another_one(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = [
        BulkEvent(EventType.BULK_FINISHED, AT, bulk, "retry", 9, 9, 0, succeeded=4, failed=5)
        for bulk in (1, 2)
    ]
    one, two = await told(rig, monkeypatch, *ended)
    assert one.once != two.once
    text = json.loads(one.detail)["text"]
    assert text == "bulk.finished: 1: 9 moved, 4 succeeded, 5 failed"


async def test_which_slots_were_missed(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    type_, last = EventType.SCHEDULE_MISSED, AT - 60_000
    missed = ScheduleEvent(
        type_, AT, "a/b", last, caught_up=True, first_slot=last - 120_000, slots=3
    )
    [one] = await told(rig, monkeypatch, missed)
    said = json.loads(one.detail)
    assert (said["slots"], said["first_slot"]) == (3, "2026-11-24T21:57:00.000Z")
    assert said["text"] == (
        "schedule.missed: a/b: 3 missed, 2026-11-24T21:57:00.000Z to 2026-11-24T21:59:00.000Z"
    )


@pytest.mark.parametrize(
    "event",
    [
        BreakerEvent(EventType.BREAKER_OPENED, AT, "operational ops.example.com:443"),
        BreakerEvent(EventType.BREAKER_OPENED, AT, "orchestratord#operational"),
        ThrottleEvent(EventType.THROTTLE_BEGAN, AT, URL, "retry_after"),
        WebhookEvent(EventType.WEBHOOK_DISABLED, AT, "orchestratord", "operational"),
        TaskEvent(EventType.TASK_FAILED, AT, 1, "call", "shop/get", None, "failed"),
        ConfigEvent(EventType.CONFIG_ADOPTED, AT, 1, "poll", 2),
    ],
)
async def test_what_is_not(rig: Rig, monkeypatch: pytest.MonkeyPatch, event: Any) -> None:
    assert await told(rig, monkeypatch, event) == []


async def test_what_a_person_disables_is_told_with_it(rig: Rig) -> None:
    """In one transaction, and once: the second time changes nothing."""
    adapter = TypeAdapter(OPERATIONAL_WEBHOOKS.type)
    webhooks = adapter.validate_python(
        [{"url": URL}], context={"backoffs": rig.host.registry.backoffs}
    )
    config = rig.config(rig.endpoint(ENDPOINT, webhooks=[declared()]))
    control = OneWrite(replace(config, settings={"operational_webhooks": webhooks}))
    for effect in rig.adopt(control.config):
        control.apply(effect)
    for _ in range(2):
        await health.disable((ENDPOINT, "ops"), control)
    assert [len(one) for one in control.writes] == [2, 1]
    [member] = control.members
    assert (member.reason, member.webhook) == ("webhook.disabled", "operational")
    [event] = control.events
    rows = await control.rows("webhooks")
    assert [(row["endpoint_id"], row["last_disabled_at"]) for row in rows] == [
        (ENDPOINT, event.at), ("orchestratord", None),
    ]  # fmt: skip


async def test_which_events_can_be_chosen(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    adopted = ConfigEvent(EventType.CONFIG_ADOPTED, AT, 1, "poll", 2)
    found = await told(rig, monkeypatch, OPENED, adopted, events=["config.*"])
    assert [one.reason for one in found] == ["config.adopted"]
    assert await told(rig, monkeypatch, OPENED, enabled=False) == []


class Picky(FakeControl):
    """Its database takes anything but what is about one lane."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.writes = 0

    async def write(self, effects: Sequence[Any]) -> list[int]:
        self.writes += 1
        if any("api:bad" in one.once for one in effects):
            raise HookFault("returned a text that is too large")
        return await super().write(effects)


def teller_of(rig: Rig, control_class: type[FakeControl]) -> tuple[Any, Any]:
    adapter = TypeAdapter(OPERATIONAL_WEBHOOKS.type)
    context = {"backoffs": rig.host.registry.backoffs}
    webhooks = adapter.validate_python([{"url": URL, "name": "n" * 512}], context=context)
    control = control_class(replace(rig.config(), settings={"operational_webhooks": webhooks}))
    teller = operational.OperationalTeller()
    teller.bind(control)  # type: ignore[arg-type]
    return teller, control


async def test_what_cannot_be_written_keeps_no_other_from_it(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    teller, control = teller_of(rig, Picky)
    lanes = [f"api:{'bad' if n == 70 else n}" for n in range(250)]
    teller.observe([OPENED._replace(lane=lane) for lane in lanes])
    async with asyncio.timeout(5):
        await teller._writing
    assert [json.loads(one.detail)["lane"] for one in control.members] == lanes[:70] + lanes[71:]
    assert [one.getMessage() for one in caplog.records] == [
        "an event cannot be told of, and is dropped: returned a text that is too large"
    ]
    assert control.writes < 50


async def test_the_oldest_are_dropped_where_there_is_no_room(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(operational, "AGAIN", 0.001)
    monkeypatch.setattr(operational, "MOST_WAITING", 120)
    teller, control = teller_of(rig, Away)
    lanes = [f"api:{n}" for n in range(200)]
    teller.observe([OPENED._replace(lane=lane) for lane in lanes[:110]])
    await asyncio.sleep(0)  # the first hundred are being written
    teller.observe([OPENED._replace(lane=lane) for lane in lanes[110:]])
    async with asyncio.timeout(5):
        await teller._writing
    assert [json.loads(one.detail)["lane"] for one in control.members] == lanes[-120:]
    said = [one.getMessage() for one in caplog.records if one.levelname == "ERROR"]
    assert said == ["no room for events that are to be told of: dropped 80"]


async def test_what_is_long_is_told_apart_and_fits(rig: Rig) -> None:
    teller, control = teller_of(rig, Picky)
    long = "x" * 2_000
    teller.observe([OPENED._replace(lane=f"{long}{n}") for n in (1, 2, 1)])
    async with asyncio.timeout(5):
        await teller._writing
    one, two, again = control.members
    assert one.once == again.once != two.once
    assert (len(one.once), len(one.group)) == (512, 512)
