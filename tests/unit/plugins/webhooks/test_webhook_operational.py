"""Which events operational webhooks tell of, and that they wait for a database that is away."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import orchestratord_webhooks
import pytest
from orchestratord_webhooks import health, operational
from orchestratord_webhooks.operational_webhook import OPERATIONAL_WEBHOOKS
from pydantic import TypeAdapter
from webhook_parts import ENDPOINT, FakeControl, declared

from orchestratord import (
    BreakerEvent,
    BulkEvent,
    Config,
    ConfigEvent,
    EndpointEvent,
    EventType,
    FailingEvent,
    PluginEvent,
    ScheduleEvent,
    TaskEvent,
    ThrottleEvent,
    TroubleEvent,
    Unreachable,
    WebhookEvent,
)
from orchestratord.plugin.isolation import HookFault
from orchestratord.testing import Rig

AT = 1_795_557_600_000
URL = "https://ops.example.com/daemon"
OPENED = BreakerEvent(EventType.BREAKER_OPENED, AT, "api:shop", 20, "refused by s3cr3t-t0ken")
TROUBLE = TroubleEvent(EventType.TROUBLE_BEGAN, AT, "storage_full", "no room: s3cr3t-t0ken", AT)


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
    """What is written of what is observed."""
    monkeypatch.setattr(operational, "AGAIN", 0.001)
    control = Away(declared_ones(rig, **keys))
    teller = operational.OperationalTeller()
    teller.bind(control)  # type: ignore[arg-type]
    teller.observe(events)
    if teller._writing is not None:
        async with asyncio.timeout(60):
            await teller._writing
        assert control.refused == 1
    return control.members


def declared_ones(rig: Rig, **keys: Any) -> Config:
    """A configuration with one such webhook."""
    adapter = TypeAdapter(OPERATIONAL_WEBHOOKS.type)
    webhooks = adapter.validate_python(
        [{"url": URL, **keys}], context={"backoffs": rig.host.registry.backoffs}
    )
    config = rig.config(secrets=["s3cr3t-t0ken"])
    return replace(config, settings={"operational_webhooks": webhooks})


def recorded(rig: Rig, *events: Any, **keys: Any) -> list[Any]:
    """What is written with these events, by the hook."""
    config = declared_ones(rig, **keys)
    return [one for event in events for one in orchestratord_webhooks.on_event(event, config)]


async def test_what_is_told(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = ConfigEvent(
        EventType.CONFIG_REFUSED, AT, 1, "poll", 2, problems=1, error="a.yaml:1: no"
    )
    found = await told(rig, monkeypatch, TROUBLE, OPENED, refused)
    assert [one.reason for one in found] == ["trouble.began", "config.refused"]
    first = json.loads(found[0].detail)
    assert first["text"] == "trouble.began: storage_full: no room: ***"
    assert first["at"] == "2026-11-24T22:00:00.000Z"
    [opened] = recorded(rig, OPENED)
    assert json.loads(opened.detail)["text"] == "breaker.opened: api:shop: refused by ***"


ENDED = BulkEvent(EventType.BULK_FINISHED, AT, 1, "retry", 9, 9, 0, succeeded=4, failed=5)
PAUSED = ENDED._replace(type=EventType.BULK_PAUSED, stop_at=5)
FAILING = FailingEvent(EventType.ENDPOINT_FAILING, AT, "a/b", AT - 600_000, 7, 503, None)
REFUSED = ConfigEvent(EventType.CONFIG_REFUSED, AT, 1, "poll", 2, problems=1, error="a.yaml:1: no")


@pytest.mark.parametrize(
    ("event", "same", "another"),
    [
        # What each daemon finds out for itself is about the same.
        (TROUBLE, {"at": AT + 9, "why": "in other words"}, {"type": EventType.TROUBLE_ENDED}),
        (REFUSED, {"at": AT + 9, "generation": 7}, {"error": "a.yaml:2: no"}),
    ],
)
async def test_what_counts_as_the_same(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, event: Any, same: Any, another: Any
) -> None:
    events = [event, event._replace(**same), event._replace(**another)]
    names = [one.once for one in await told(rig, monkeypatch, *events)]
    assert (names[0] == names[1], names[1] == names[2]) == (True, False)


async def test_on_event_has_what_one_daemon_tells_of_written(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    paused = EndpointEvent(EventType.ENDPOINT_PAUSED, AT, "a/b")
    found = await told(rig, monkeypatch, paused, paused, events=["endpoint.*"])
    assert [one.once for one in found] == [None, None]
    opened = recorded(rig, OPENED, OPENED)
    assert [one.once for one in opened] == [None, None], "the queue knows who else finds it out"
    closed = BreakerEvent(EventType.BREAKER_CLOSED, AT, "api:shop", opened_at=AT - 500)
    [told_of] = recorded(rig, closed)
    assert (told_of.once, told_of.since) == ("breaker.closed api:shop", AT - 500)


async def test_an_outage_after_the_end_of_another_is_another(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = TROUBLE._replace(type=EventType.TROUBLE_ENDED, began_at=AT - 500)
    began, ended = await told(rig, monkeypatch, TROUBLE, over)
    assert began.ended_by == (ended.once, TROUBLE.began_at)
    assert ended.since == AT - 500


async def test_of_many_faults_one_is_told_of(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    fault = PluginEvent(EventType.PLUGIN_FAULT, AT, "mine", "announce", "KeyError")
    others = [fault._replace(at=AT + later) for later in (0, 1, 119_000, 121_000, -3_600_000)]
    found = await told(
        rig, monkeypatch, fault, *others, fault._replace(hook="on_retry"), events=["plugin.*"]
    )
    assert [json.loads(one.detail)["at"][-13:-5] for one in found] == [
        "22:00:00", "22:02:01", "21:00:00", "22:00:00",
    ]  # fmt: skip


async def test_how_they_are_gathered(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    found = await told(rig, monkeypatch, TROUBLE)
    assert (found[0].every, found[0].most, found[0].webhook) == (30.0, 100, "operational")


async def test_how_a_bulk_went(rig: Rig) -> None:
    [one] = recorded(rig, ENDED)
    text = json.loads(one.detail)["text"]
    assert text == "bulk.finished: 1: 9 moved, 4 succeeded, 5 failed"


async def test_which_slots_were_missed(rig: Rig) -> None:
    type_, last = EventType.SCHEDULE_MISSED, AT - 60_000
    missed = ScheduleEvent(
        type_, AT, "a/b", last, caught_up=True, first_slot=last - 120_000, slots=3
    )
    [one] = recorded(rig, missed)
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
    assert recorded(rig, event) == []


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
    # Enabled, and disabled again: that is another time.
    await health.enable((ENDPOINT, "ops"), control)
    await health.disable((ENDPOINT, "ops"), control)
    _, again = control.members
    assert again.once == f"{member.once} {event.at}"
    assert (member.since, again.since) == (event.at - 120_000, None)
    # Nothing is known any more of one that was not declared for a while: that counts as long as
    # others may have found out the same.
    health.__init__(time.time)
    new = OneWrite(control.config)
    for effect in rig.adopt(new.config):
        new.apply(effect)
    await health.disable((ENDPOINT, "ops"), new)
    assert [(one.once, one.since) for one in new.members] == [
        (member.once, new.events[0].at - 120_000)
    ]


async def test_which_events_can_be_chosen(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    adopted = ConfigEvent(EventType.CONFIG_ADOPTED, AT, 1, "poll", 2)
    found = await told(rig, monkeypatch, TROUBLE, adopted, events=["config.*"])
    assert [one.reason for one in found] == ["config.adopted"]
    assert await told(rig, monkeypatch, TROUBLE, enabled=False) == []
    assert recorded(rig, OPENED, enabled=False) == []


class Picky(FakeControl):
    """Its database takes anything but what is about one code."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.writes = 0

    async def write(self, effects: Sequence[Any]) -> list[int]:
        self.writes += 1
        if any(one.once.endswith(" bad") for one in effects):
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
    codes = ["bad" if n == 70 else str(n) for n in range(250)]
    teller.observe([TROUBLE._replace(code=code) for code in codes])
    async with asyncio.timeout(60):
        await teller._writing
    assert [json.loads(one.detail)["code"] for one in control.members] == codes[:70] + codes[71:]
    assert [one.getMessage() for one in caplog.records] == [
        "dropped an event that cannot be announced: returned a text that is too large"
    ]
    assert control.writes < 50


async def test_the_oldest_are_dropped_where_there_is_no_room(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(operational, "AGAIN", 0.001)
    monkeypatch.setattr(operational, "MOST_WAITING", 120)
    teller, control = teller_of(rig, Away)
    codes = [str(n) for n in range(200)]
    teller.observe([TROUBLE._replace(code=code) for code in codes[:110]])
    await asyncio.sleep(0)  # the first hundred are being written
    teller.observe([TROUBLE._replace(code=code) for code in codes[110:]])
    async with asyncio.timeout(60):
        await teller._writing
    assert [json.loads(one.detail)["code"] for one in control.members] == codes[-120:]
    said = [one.getMessage() for one in caplog.records if one.levelname == "ERROR"]
    assert said == ["dropped 80 events that wait to be announced"]


async def test_what_is_long_is_told_apart_and_fits(rig: Rig) -> None:
    teller, control = teller_of(rig, Picky)
    long = "x" * 2_000
    teller.observe([TROUBLE._replace(code=f"{long}{n}") for n in (1, 2, 1)])
    async with asyncio.timeout(60):
        await teller._writing
    one, two, again = control.members
    assert one.once == again.once != two.once
    assert (len(one.once), len(one.group)) == (512, 512)
