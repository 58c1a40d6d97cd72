"""The first page: is all well, and if not, where to look; the action log and the outbox."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from orchestratord import Control, InvalidParams, NotFound, OrchestratordError, PageVisit
from orchestratord_dashboard import charts, template_filters
from orchestratord_dashboard.attempt_history import AttemptHistory, EndpointAttempts, TimeBucket
from orchestratord_dashboard.health_pages import webhook_records
from orchestratord_dashboard.page_renderer import DashboardPage
from orchestratord_dashboard.task_pages import STATES, after_of
from orchestratord_dashboard.throttled_lanes import throttled

RANGES = {"1h": (60, 1), "24h": (24 * 60, 15)}
"""What can be looked at → its minutes, and those of one bar."""
MAX_ROWS = 8
"""Of each list."""
ACTIONS = 50
"""Entries of the action log on a page."""
QUIET = 50
"""Attempts a second up to which a browser hears of each one."""


def pages(control: Control, history: AttemptHistory) -> Iterable[DashboardPage]:
    """The pages at `/`, `/daemons`, `/actions` and `/outbox`."""

    async def show(visit: PageVisit) -> Mapping[str, Any]:
        wanted = visit.query.get("range", "1h")
        if wanted not in RANGES:
            raise InvalidParams({"range": f"must be one of {', '.join(RANGES)}"})
        minutes, step = RANGES[wanted]
        spans = history.spans(minutes, step)
        status = await control.status(all_lanes=True)
        total = TimeBucket(spans[0].start)
        for span in spans:
            total.add(span)
        failing = status["failing"]
        calls = [item for item in failing if item["webhook"] is None]
        deliveries = [item for item in failing if item["webhook"] is not None]
        return {
            "status": status,
            "states": [(state, status["queue"][state]) for state in STATES],
            "range": wanted,
            "ranges": list(RANGES),
            "total": total,
            "since": history.since if history.since > spans[0].start else None,
            "throughput": charts.throughput(spans, _attempts),
            "latency": charts.latency(spans, _took),
            "records": await _failing_most(control, history),
            "failing": {(item["endpoint"], item["webhook"] or ""): item for item in failing},
            "fails": [
                ("Failing calls", calls, status["failing_counts"]["call"]),
                ("Failing deliveries", deliveries, status["failing_counts"]["webhook"]),
            ],
            "throttled": list(throttled(status)),
            "most_rows": MAX_ROWS,
            "fleet": by_life(status["daemons"]) if len(status["daemons"]) > 1 else [],
            "due": await control.due_next(MAX_ROWS),
            "quiet": sum(status["rates"].values()) < QUIET,
        }

    async def show_daemons(visit: PageVisit) -> Mapping[str, Any]:
        status = await control.status()
        return {"daemons": by_life(status["daemons"]), "version": status["version"]}

    async def show_actions(visit: PageVisit) -> Mapping[str, Any]:
        after = after_of(visit)
        found = await control.actions(limit=ACTIONS, after=after)
        return {"actions": found["actions"], "older": found["next"], "newest": after is not None}

    async def show_outbox(visit: PageVisit) -> Mapping[str, Any]:
        try:
            found = await control.outbox(limit=ACTIONS, after=after_of(visit))
        except OrchestratordError as error:
            return {"rows": [], "older": None, "error": control.config.redactor.text(str(error))}
        return {"rows": found["outbox"], "older": found["next"], "error": None}

    yield DashboardPage("/404", "problem.html", "", _show_unknown)
    yield DashboardPage("/", "overview.html", "overview", show)
    yield DashboardPage("/daemons", "daemons.html", "daemons", show_daemons)
    yield DashboardPage("/outbox", "outbox.html", "overview", show_outbox)
    yield DashboardPage("/actions", "actions.html", "actions", show_actions)


async def _show_unknown(visit: PageVisit) -> Mapping[str, Any]:
    raise NotFound("there is no page at this address")


async def _failing_most(control: Control, history: AttemptHistory) -> list[EndpointAttempts]:
    """What failed most: calls as this daemon has counted them, deliveries as `/webhooks` does."""
    records = await webhook_records(control)
    for one in history.records():
        counted = records.setdefault(one.key, one)
        counted.succeeded_at, counted.failed_at = one.succeeded_at, one.failed_at
    failing = [one for one in records.values() if one.failures]
    return sorted(failing, key=lambda one: (-one.failures, *one.key))[:MAX_ROWS]


def by_life(daemons: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The daemons of a queue, this one first, dead ones last."""
    return sorted(daemons, key=lambda one: (not one["this"], not one["alive"], one["started_at"]))


def _attempts(span: TimeBucket) -> str:
    parts = [f"{template_filters.number(span.succeeded)} succeeded"]
    parts += [f"{template_filters.number(span.retried)} to be tried again"] if span.retried else []
    parts += [f"{template_filters.number(span.failed)} failed for good"] if span.failed else []
    return f"{_at(span)}: {', '.join(parts)}"


def _took(span: TimeBucket) -> str:
    if not span.attempts:
        return f"{_at(span)}: nothing"
    p50, p95 = (template_filters.milliseconds(span.quantile(part)) for part in (0.5, 0.95))
    return f"{_at(span)}: p50 {p50}, p95 {p95}"


def _at(span: TimeBucket) -> str:
    return datetime.fromtimestamp(span.start / 1000, UTC).strftime("%H:%M UTC")
