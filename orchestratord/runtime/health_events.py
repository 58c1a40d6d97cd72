"""Tells of what goes wrong for a while: troubles of the daemon, endpoints that only fail."""

from __future__ import annotations

from orchestratord.engine.worker import Worker
from orchestratord.model.event import EventType, FailingEvent, TroubleEvent
from orchestratord.queue.daemon_health import Trouble
from orchestratord.queue.housekeeping import failing_told
from orchestratord.queue.operations import settle
from orchestratord.queue.reports import failing
from orchestratord.runtime.fleet import Fleet

FAILING_MS = 600_000
"""For how long an endpoint has to fail until that is told of."""


class HealthEvents:
    """Compares how things are with how they were."""

    def __init__(self, worker: Worker, fleet: Fleet) -> None:
        """
        Args:
            worker: whose troubles are told of, and what its tasks say.
            fleet: knows the troubles of the other workers, which are told of, too.
        """
        self._worker = worker
        self._fleet = fleet
        self._events = worker.host.events
        self._troubles: dict[str, Trouble] = {}

    async def look_at_troubles(self) -> None:
        """Tell of those that began or ended; to be called each second."""
        before, redactor = self._troubles, self._worker.placement.config.redactor
        others = {one.code: one for one in self._fleet.troubles() if one.since}
        self._troubles = {**others, **self._worker.store.health.troubles}
        changes = (
            (EventType.TROUBLE_BEGAN, self._troubles, before),
            (EventType.TROUBLE_ENDED, before, self._troubles),
        )
        for type_, those, known in changes:
            for code, one in those.items():
                if code not in known:
                    why, now = redactor.text(one.why), self._worker.clock.now_ms()
                    self._events.publish(TroubleEvent(type_, now, one.code, why, one.since))

    async def look_at_endpoints(self) -> None:
        """Tell of those that have failed for long, by what the table says: it knows of all workers
        and daemons, and of those before a restart. To be called each minute."""
        store, now = self._worker.store, self._worker.clock.now_ms()
        told = await store.read(failing_told.told())
        looked = await store.read(failing.failing())
        found = {one.key.endpoint_id: one for one in looked.keys if not one.key.webhook}
        over = told.keys() - found.keys()
        if over and not looked.complete:  # then one may fail, and not be among those that are found
            succeeded = await store.read(settle.last_success())
            over = {name for name in over if succeeded.get(name, 0) > told[name]}
        if over:
            await store.write(failing_told.note_over(over))
        for name, one in found.items():
            # One that has not been called since says nothing more.
            if one.last - one.since < FAILING_MS or one.since < told.get(name, 0):
                continue
            failures = one.since, one.failures, one.status_code, one.error
            event = FailingEvent(EventType.ENDPOINT_FAILING, now, name, *failures)
            new_tasks = self._worker.pipe.new_tasks
            follows = await new_tasks.of_event(event)
            inserted = await store.write(failing_told.tell(name, now, told.get(name), follows))
            if inserted is not None:
                self._events.publish(event)
                await new_tasks.written(follows, inserted)
