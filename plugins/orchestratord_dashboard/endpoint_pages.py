"""Endpoints: how each fares, when it is called next, how it is retried, and calling it now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from orchestratord import Control, InvalidParams, PageVisit
from orchestratord_dashboard import charts, throttled_lanes
from orchestratord_dashboard.attempt_history import AttemptHistory
from orchestratord_dashboard.health_pages import kept_rows
from orchestratord_dashboard.page_renderer import DashboardPage

PAGE = 50
RUNS = 5
"""Of a schedule, that are named."""
RECENT = 8
"""Tasks of one endpoint that are shown."""
MOST_WAITS = 40
"""Waits of a retry policy that are drawn; a thousand attempts are no picture."""


_STANDING = ("id", "paused", "next_run", "source")
"""How an endpoint stands, which is not what is declared."""


def pages(control: Control, history: AttemptHistory) -> Iterable[DashboardPage]:
    """The pages at `/endpoints`."""

    async def show_list(visit: PageVisit) -> Mapping[str, Any]:
        if unknown := [name for name in visit.query if name not in ("text", "after")]:
            raise InvalidParams(dict.fromkeys(unknown, "there is no such filter"))
        text, after = visit.query.get("text", "").strip(), visit.query.get("after", "")
        names = sorted(control.config.endpoints)
        found = [name for name in names if text.lower() in name.lower() and name > after]
        shown = await control.endpoints(found[:PAGE])
        records = {one.endpoint: one for one in history.records() if not one.webhook}
        return {
            "endpoints": [(one, records.get(one["id"])) for one in shown],
            "text": text,
            "count": len(names),
            "after": after,
            "older": found[PAGE - 1] if len(found) > PAGE else None,
        }

    async def show_one(visit: PageVisit) -> Mapping[str, Any]:
        endpoint_id = f"{visit.path['api']}/{visit.path['name']}"
        endpoint = await control.endpoint(endpoint_id)
        recent = await control.retries({"endpoint": endpoint_id}, limit=RECENT)
        status = await control.status(all_lanes=True)
        failing = [one for one in status["failing"] if one["endpoint"] == endpoint_id]
        waits = control.waits(endpoint_id)
        return {
            "endpoint": endpoint,
            "record": history.record(endpoint_id),
            "failing": failing,
            "lane": throttled_lanes.of_calls(status, endpoint_id),
            "runs": control.runs(endpoint_id, RUNS),
            "waits": waits,
            "policy": charts.retry_bars(waits[:MOST_WAITS]),
            "labels": charts.retry_labels(waits[:MOST_WAITS]),
            "most_waits": MOST_WAITS,
            "recent": recent["retries"],
            "params": endpoint.get("params") or {},
            "health_of": await _webhooks(control, endpoint_id),
            "declaration": {name: endpoint[name] for name in endpoint if name not in _STANDING},
        }

    yield DashboardPage("/endpoints", "endpoints.html", "endpoints", show_list)
    yield DashboardPage("/endpoints/{api}/{name}", "endpoint.html", "endpoints", show_one)


async def _webhooks(control: Control, endpoint_id: str) -> Mapping[str, Mapping[str, Any]]:
    """How the webhooks of an endpoint fare, by their names; nothing where no plugin keeps that."""
    rows = await kept_rows(control, "webhooks", {"endpoint_id": endpoint_id})
    return {row["name"]: row for row in rows}
