"""Troubles and failing endpoints are told of once each, when they begin and when they end."""

from __future__ import annotations

from orchestratord.engine.stats import Stats
from orchestratord.model.event import Event, FailingEvent, TroubleEvent
from orchestratord.plugin.event_bus import EventBus
from orchestratord.queue.daemon_health import DaemonHealth
from orchestratord.queue.records import Settlement
from orchestratord.runtime.health_events import HealthEvents
from orchestratord.testing import FakeClock, task
from orchestratord.values.redact import Redactor


class Told(EventBus):
    def __init__(self) -> None:
        super().__init__()
        self.told: list[Event] = []

    def publish(self, event: Event) -> None:
        self.told.append(event)


def test_troubles() -> None:
    events, health = Told(), DaemonHealth()
    watched = HealthEvents(health, Stats(0.0), events, FakeClock())
    health.begin("storage_full", "no room on s3cret")
    for _ in range(2):
        watched.look(Redactor(["s3cret"]))
    health.end("storage_full")
    watched.look(Redactor([]))
    assert [(one.type, one.code) for one in events.told if isinstance(one, TroubleEvent)] == [
        ("trouble.began", "storage_full"), ("trouble.ended", "storage_full"),
    ]  # fmt: skip
    assert events.told[0].why == "no room on ***"  # type: ignore[union-attr]


def test_an_endpoint_that_only_fails_for_ten_minutes() -> None:
    events, stats, clock = Told(), Stats(0.0), FakeClock()
    watched = HealthEvents(DaemonHealth(), stats, events, clock)

    def ends(status: str) -> None:
        from orchestratord.model.task import Attempt

        row = Attempt(1, clock.now_ms(), 1.0, 503, "503: no", None, "")
        call = task(id=1, endpoint_id="crm/get")
        stats.count(
            Settlement(call, status, clock.now_ms(), status_code=503, error="503: no", attempt=row),
            status,
        )
        watched.look(Redactor([]))

    ends("failed")
    clock.turn(599)
    ends("pending")
    assert events.told == []
    for _ in range(2):
        clock.turn(1)
        ends("failed")
    [one] = events.told
    assert isinstance(one, FailingEvent)
    assert (one.endpoint, one.failures, one.error) == ("crm/get", 3, "503: no")
    ends("succeeded")
    for _ in range(2):
        ends("failed")
        clock.turn(601)
    ends("failed")
    assert len(events.told) == 2
