"""Metrics for Prometheus: `GET /metrics`.

What happens is counted as it is told to `observe`; how the daemon is, such as how many tasks wait,
is asked of it when `/metrics` is asked for. `docs/metrics.md` has every name.

    counters     from events to counts, by labels; how late the event loop is
    exposition   all of it, and the process, as text
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any

from orchestratord import Answer, Config, Control, Event, Route, described, hookimpl
from orchestratord_metrics.counters import EventCounters, LoopLag

MAX_LANES = 100
"""Lanes that are named, those that were seen first; the others are added up as `other`."""

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""As Prometheus's client has it."""

counters = EventCounters()


@hookimpl
def observe(events: Sequence[Event]) -> None:
    counters.observe(events)


@hookimpl
def config_adopted(config: Config) -> None:
    counters.forget(config.endpoints)


@hookimpl
def register_routes(control: Control) -> Iterable[Route]:
    lag = LoopLag(asyncio.get_running_loop())
    lanes: dict[str, None] = {}

    @described(answers={200: MEDIA_TYPE})
    async def metrics(path: Mapping[str, str], query: Mapping[str, str], body: Any) -> Answer:
        """Metrics for Prometheus."""
        # Prometheus's client is not worth the time of a start, nor of the event loop.
        await asyncio.to_thread(import_module, "orchestratord_metrics.exposition")
        from orchestratord_metrics.exposition import Exposition

        status = await control.status(all_lanes=True)
        for lane in status["lanes"]:
            if len(lanes) < MAX_LANES:
                lanes[lane["name"]] = None
        counts = (*counters.all(), lag.found)
        schedules, successes = await control.schedules(), control.last_successes()
        exposition = Exposition(
            counts, control.config, status, lanes, schedules, successes, control.metrics()
        )
        return Answer(await asyncio.to_thread(exposition.text), media_type=MEDIA_TYPE)

    return [Route("GET", "/metrics", metrics)]
