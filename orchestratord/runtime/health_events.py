"""Tells of what goes wrong for a while: troubles of the daemon, endpoints that only fail."""

from __future__ import annotations

from orchestratord.model.event import EventType, FailingEvent, TroubleEvent
from orchestratord.plugin.event_bus import EventBus
from orchestratord.queue.daemon_health import Trouble
from orchestratord.queue.housekeeping import failing_told
from orchestratord.queue.reports import failing
from orchestratord.queue.store import Store
from orchestratord.runtime.team import Team
from orchestratord.values.clock import Clock
from orchestratord.values.redact import Redactor

FAILING_MS = 600_000
"""For how long an endpoint has to fail until that is told of."""


class HealthEvents:
    """Compares how things are with how they were."""

    def __init__(self, store: Store, team: Team, events: EventBus, clock: Clock) -> None:
        """
        Args:
            store: whose troubles are told of, and what its tasks say.
            team: the other workers, whose troubles are told of, too.
            events: publishes it.
            clock: when that is.
        """
        self._store = store
        self._team = team
        self._events = events
        self._clock = clock
        self._troubles: dict[str, Trouble] = {}

    def look_at_troubles(self, redactor: Redactor) -> None:
        """Tell of those that began or ended; to be called each second."""
        before = self._troubles
        # Workers that are still to begin are none of these: each start would be told of.
        others = {one.code: one for one in self._team.troubles() if one.since}
        self._troubles = {**others, **self._store.health.troubles}
        changes = (
            (EventType.TROUBLE_BEGAN, self._troubles, before),
            (EventType.TROUBLE_ENDED, before, self._troubles),
        )
        for type_, those, known in changes:
            for code, one in those.items():
                if code not in known:
                    why, now = redactor.text(one.why), self._clock.now_ms()
                    self._events.publish(TroubleEvent(type_, now, one.code, why, one.since))

    async def look_at_endpoints(self) -> None:
        """Tell of those that have failed for long, by what the table says: it knows of all workers
        and daemons, and of those before a restart. To be called each minute."""
        store, now = self._store, self._clock.now_ms()
        told = await store.read(failing_told.told())
        found = {
            one.key.endpoint_id: one
            for one in await store.read(failing.failing())
            if not one.key.webhook
        }
        began = [
            one
            for name, one in found.items()
            # One that has not been called since says nothing more.
            if one.last - one.since >= FAILING_MS and one.since >= told.get(name, 0)
        ]
        for one in began:
            name, failures = one.key.endpoint_id, one.failures
            self._events.publish(
                FailingEvent(
                    EventType.ENDPOINT_FAILING, now, name, one.since, failures, one.status_code,
                    one.error,
                )
            )  # fmt: skip
        if began or told.keys() - found.keys():
            names = [one.key.endpoint_id for one in began]
            # After it was told: what dies in between tells again, and does not lose it.
            await store.write(failing_told.note(names, told.keys() - found.keys()))
