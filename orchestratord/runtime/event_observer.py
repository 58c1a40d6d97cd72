"""Hands on what has happened: to `observe`, and to `on_event` what it was not asked before."""

from __future__ import annotations

from collections.abc import Sequence

from orchestratord.engine.worker import Worker
from orchestratord.model.event import Event, EventType
from orchestratord.plugin.event_bus import Observe


def event_observer(worker: Worker) -> Observe | None:
    """What has all events, of all workers; None where no plugin wants any."""
    host, observe = worker.host, worker.host.observer()
    wanted = {type_ for type_ in EventType if not type_.recorded and host.recorders(type_)}
    if not wanted:
        return observe

    def observe_and_write(events: Sequence[Event]) -> None:
        config, now = worker.placement.config, worker.clock.now_ms() / 1000
        asked = (event for event in events if event.type in wanted)
        effects = [effect for event in asked for effect in host.record(event, config, now)]
        if effects:
            worker.enqueue.write_soon(effects)
        if observe is not None:
            observe(events)

    return observe_and_write
