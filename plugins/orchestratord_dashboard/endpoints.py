"""Endpoints: how each fares, when it is called next, how it is retried, and calling it now."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestratord import Control, InvalidParams, OrchestratordError
from orchestratord_dashboard import lanes, words
from orchestratord_dashboard.page import Page, Visit
from orchestratord_dashboard.window import Window

PAGE = 50
RUNS = 5
"""Of a schedule, that are named."""
RECENT = 8
"""Tasks of one endpoint that are shown."""
PLACES = 8
"""Of bars in the picture of a policy, at least: few ones are not to be as wide as barrels."""
LABELS = {"": 7, "dense": 14}
"""Class of a label → how many there is room for: all of them on a screen, the first on a phone."""
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
        status = await control.status(all_lanes=True)
        failing = [one for one in status["failing"] if one["endpoint"] == endpoint_id]
        waits = control.waits(endpoint_id)
        return {
            "endpoint": endpoint,
            "record": window.record(endpoint_id),
            "failing": failing,
            "lane": lanes.of_calls(status, endpoint_id),
            "runs": control.runs(endpoint_id, RUNS),
            "waits": waits,
            "policy": draw(waits[:MOST_WAITS]),
            "labels": label(waits[:MOST_WAITS]),
            "most_waits": MOST_WAITS,
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

    place = 100 / max(len(waits), PLACES)
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


def label(waits: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """What stands below the bars, one for each place: a text, empty where it is too tight, and its
    class."""
    steps = {kind: math.ceil(len(waits) / room) for kind, room in LABELS.items()}
    found = [
        next(
            ((words.seconds(wait["delay"]), kind) for kind, step in steps.items() if n % step == 0),
            ("", ""),
        )
        for n, wait in enumerate(waits)
    ]
    return found + [("", "")] * (PLACES - len(found))
