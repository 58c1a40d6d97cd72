"""The first page: is all well, and if not, where to look."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from orchestratord import Control, InvalidParams
from orchestratord_dashboard import charts, words
from orchestratord_dashboard.lanes import waiting
from orchestratord_dashboard.page import Page, Visit
from orchestratord_dashboard.window import Span, Window

RANGES = {"1h": (60, 1), "24h": (24 * 60, 15)}
"""What can be looked at → its minutes, and those of one bar."""
STATES = ("pending", "running", "failed", "succeeded", "cancelled")
MAX_ROWS = 8
"""Of each list."""
QUIET = 50
"""Attempts a second up to which a browser hears of each one."""


def pages(control: Control, window: Window) -> Iterable[Page]:
    """The page at `/`."""

    async def show(visit: Visit) -> Mapping[str, Any]:
        wanted = visit.query.get("range", "1h")
        if wanted not in RANGES:
            raise InvalidParams({"range": f"must be one of {', '.join(RANGES)}"})
        minutes, step = RANGES[wanted]
        spans = window.spans(minutes, step)
        status = await control.status(all_lanes=True)
        total = Span(spans[0].start)
        for span in spans:
            total.add(span)
        failing = {item["endpoint"]: item for item in reversed(status["failing"])}
        return {
            "status": status,
            "states": [(state, status["queue"][state]) for state in STATES],
            "range": wanted,
            "ranges": list(RANGES),
            "total": total,
            "since": window.since if window.since > spans[0].start else None,
            "throughput": charts.throughput(spans, _attempts),
            "latency": charts.latency(spans, _took),
            "records": [one for one in window.records() if one.failures][:MAX_ROWS],
            "failing": failing,
            "waiting": list(waiting(status)),
            "most_waiting": MAX_ROWS,
            "fleet": fleet(status["daemons"]),
            "due": await control.due_next(MAX_ROWS),
            "quiet": _attempts_a_second(status) < QUIET,
        }

    yield Page("/", "overview.html", "overview", show)


def fleet(daemons: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The daemons of a queue that has several, this one first, dead ones last; else none."""
    if len(daemons) < 2:
        return []
    return sorted(daemons, key=lambda one: (not one["this"], not one["alive"], one["started_at"]))


def _attempts_a_second(status: Mapping[str, Any]) -> float:
    return float(sum(status["rates"].values()))


def _attempts(span: Span) -> str:
    parts = [f"{words.number(span.succeeded)} succeeded"]
    parts += [f"{words.number(span.retried)} to be tried again"] if span.retried else []
    parts += [f"{words.number(span.failed)} failed for good"] if span.failed else []
    return f"{_at(span)}: {', '.join(parts)}"


def _took(span: Span) -> str:
    if not span.attempts:
        return f"{_at(span)}: nothing"
    median, most = (words.milliseconds(span.quantile(part)) for part in (0.5, 0.95))
    return f"{_at(span)}: half within {median}, 95 of 100 within {most}"


def _at(span: Span) -> str:
    return datetime.fromtimestamp(span.start / 1000, UTC).strftime("%H:%M UTC")
