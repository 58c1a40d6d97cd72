"""Troubles of all workers are told of once each, when they begin and when they end."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from orchestratord.model.event import Event, TroubleEvent
from orchestratord.plugin.event_bus import EventBus
from orchestratord.queue.daemon_health import DaemonHealth, Trouble
from orchestratord.runtime.health_events import HealthEvents
from orchestratord.testing import FakeClock
from orchestratord.values.redact import Redactor


class Told(EventBus):
    def __init__(self) -> None:
        super().__init__()
        self.told: list[Event] = []

    def publish(self, event: Event) -> None:
        self.told.append(event)


async def test_troubles() -> None:
    events, health = Told(), DaemonHealth()
    others = [Trouble("workers_missing", "1 of 2", 0)]
    store, fleet = SimpleNamespace(health=health), SimpleNamespace(troubles=lambda: others)
    config = SimpleNamespace(redactor=Redactor(["s3cret"]))
    worker = SimpleNamespace(
        store=store,
        host=SimpleNamespace(events=events),
        clock=FakeClock(),
        placement=SimpleNamespace(config=config),
    )
    watched = HealthEvents(cast("Any", worker), cast("Any", fleet))
    health.begin("storage_full", "no room on s3cret")
    for _ in range(2):
        await watched.look_at_troubles()
    others[:] = [Trouble("database_unreachable", "worker 2: away", 1)]
    health.end("storage_full")
    await watched.look_at_troubles()
    assert [(one.type, one.code) for one in events.told if isinstance(one, TroubleEvent)] == [
        ("trouble.began", "storage_full"), ("trouble.began", "database_unreachable"),
        ("trouble.ended", "storage_full"),
    ]  # fmt: skip
    assert events.told[0].why == "no room on ***"  # type: ignore[union-attr]
