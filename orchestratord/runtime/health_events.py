"""Tells of what goes wrong for a while: troubles of the daemon, endpoints that only fail."""

from __future__ import annotations

from orchestratord.engine.stats import Stats
from orchestratord.model.event import EventType, FailingEvent, TroubleEvent
from orchestratord.plugin.event_bus import EventBus
from orchestratord.queue.daemon_health import DaemonHealth, Trouble
from orchestratord.values.clock import Clock
from orchestratord.values.redact import Redactor

FAILING_MS = 600_000
"""For how long an endpoint has to fail until that is told of."""


class HealthEvents:
    """Compares how things are with how they were."""

    def __init__(self, health: DaemonHealth, stats: Stats, events: EventBus, clock: Clock) -> None:
        self._health = health
        self._stats = stats
        self._events = events
        self._clock = clock
        self._troubles: dict[str, Trouble] = {}
        self._told: dict[str, int] = {}
        """Endpoints that were told of, and since when these had failed."""

    def look(self, redactor: Redactor) -> None:
        """Tell of what has changed; to be called each second."""
        self._look_at_troubles(redactor)
        self._look_at_endpoints()

    def _look_at_troubles(self, redactor: Redactor) -> None:
        before, self._troubles = self._troubles, dict(self._health.troubles)
        changes = (
            (EventType.TROUBLE_BEGAN, self._troubles, before),
            (EventType.TROUBLE_ENDED, before, self._troubles),
        )
        for type_, those, others in changes:
            for code, one in those.items():
                if code not in others:
                    why, now = redactor.text(one.why), self._clock.now_ms()
                    self._events.publish(TroubleEvent(type_, now, one.code, why, one.since))

    def _look_at_endpoints(self) -> None:
        now = self._clock.now_ms()
        failing = {one.key.endpoint_id: one for one in self._stats.failing() if not one.key.webhook}
        for name in self._told.keys() - failing.keys():
            del self._told[name]
        for name, one in failing.items():
            # One that has not been called since says nothing more.
            if one.last - one.since < FAILING_MS or self._told.get(name) == one.since:
                continue
            self._told[name] = one.since
            self._events.publish(
                FailingEvent(
                    EventType.ENDPOINT_FAILING,
                    now,
                    name,
                    one.since,
                    one.failures,
                    one.status_code,
                    one.error,
                )
            )
