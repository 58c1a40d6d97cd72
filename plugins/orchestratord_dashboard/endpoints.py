"""Endpoints: how each fares, when it is called next, how it is retried, and calling it now."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestratord import Control, InvalidParams, OrchestratordError
from orchestratord_dashboard.page import Page, Visit
from orchestratord_dashboard.window import Window

PAGE = 50
RUNS = 5
"""Of a schedule, that are named."""
RECENT = 8
"""Tasks of one endpoint that are shown."""
MOST_WAITS = 40
"""Waits of a retry policy that are drawn; a thousand attempts are no picture."""


_STANDING = ("id", "paused", "next_run", "source")
"""How an endpoint stands, which is not what is declared."""


def pages(control: Control, window: Window) -> Iterable[Page]:
    """The pages at `/endpoints`."""

    async def show_list(visit: Visit) -> Mapping[str, Any]:
        if unknown := [name for name in visit.query if name not in ("text", "after")]:
            raise InvalidParams(dict.fromkeys(unknown, "there is no such filter"))
        text, after = visit.query.get("text", "").strip(), visit.query.get("after", "")
        names = sorted(control.config.endpoints)
        found = [name for name in names if text.lower() in name.lower() and name > after]
        shown = await control.endpoints(found[:PAGE])
        records = {record.endpoint: record for record in window.records()}
        return {
            "endpoints": [(one, records.get(one["id"])) for one in shown],
            "text": text,
            "count": len(names),
            "after": after,
            "older": found[PAGE - 1] if len(found) > PAGE else None,
        }

    async def show_one(visit: Visit) -> Mapping[str, Any]:
        endpoint_id = f"{visit.path['api']}/{visit.path['name']}"
        endpoint = await control.endpoint(endpoint_id)
        recent = await control.retries({"endpoint": endpoint_id}, limit=RECENT)
        status = await control.status()
        failing = [one for one in status["failing"] if one["endpoint"] == endpoint_id]
        waits = control.waits(endpoint_id)
        return {
            "endpoint": endpoint,
            "record": window.record(endpoint_id),
            "failing": failing,
            "runs": control.runs(endpoint_id, RUNS),
            "waits": waits,
            "policy": draw(waits[:MOST_WAITS]),
            "recent": recent["retries"],
            "params": endpoint.get("params") or {},
            "health_of": await _webhooks(control, endpoint_id),
            "declaration": {name: endpoint[name] for name in endpoint if name not in _STANDING},
        }

    yield Page("/endpoints", "endpoints.html", "endpoints", show_list)
    yield Page("/endpoints/{api}/{name}", "endpoint.html", "endpoints", show_one)


async def _webhooks(control: Control, endpoint_id: str) -> Mapping[str, Mapping[str, Any]]:
    """How the webhooks of an endpoint fare, by their names; nothing where no plugin keeps that."""
    try:
        rows = await control.rows("webhooks")
    except OrchestratordError:
        return {}
    return {row["name"]: row for row in rows if row["endpoint_id"] == endpoint_id}


@dataclass(frozen=True, slots=True)
class Wait:
    """One wait in the picture of a policy: a bar, with the range that jitter makes of it."""

    x: float
    width: float
    y: float
    top: float
    """Where the longest one ends."""
    bottom: float
    """Where the shortest one ends."""


def draw(waits: Sequence[Mapping[str, Any]]) -> tuple[Wait, ...]:
    """The delays of a policy as bars, 100 wide and 100 high, on a scale of powers of ten.

    Seconds and days stand in one picture: each power of ten is as high as the next.
    """
    if not waits:
        return ()
    lengths = [wait["longest"] for wait in waits if wait["longest"] > 0] or [1.0]
    low = min([wait["shortest"] for wait in waits if wait["shortest"] > 0] or [1.0]) / 3
    span = max(math.log10(max(lengths) / low), 0.5)

    def height(seconds: float) -> float:
        return 100 - 100 * max(math.log10(max(seconds, low) / low), 0) / span

    place = 100 / max(len(waits), 8)
    return tuple(
        Wait(
            x=n * place + place * 0.12,
            width=place * 0.76,
            y=height(wait["delay"]),
            top=height(wait["longest"]),
            bottom=height(wait["shortest"]),
        )
        for n, wait in enumerate(waits)
    )
