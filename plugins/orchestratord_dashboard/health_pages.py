"""All schedules and all webhooks, each with how it fares; what is wrong comes first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from orchestratord import Control, InvalidParams, OrchestratordError, PageVisit, world
from orchestratord_dashboard.attempt_history import AttemptsKey, EndpointAttempts
from orchestratord_dashboard.page_renderer import DashboardPage

PAGE = 50

Row = Mapping[str, Any]
T = TypeVar("T")


def pages(control: Control) -> Iterable[DashboardPage]:
    """The pages at `/schedules` and `/webhooks`."""

    async def show_schedules(visit: PageVisit) -> Mapping[str, Any]:
        text, page = _asked(visit)
        schedules = await control.schedules()
        found = [one for one in schedules if text.lower() in one["endpoint"].lower()]
        found.sort(key=lambda one: (not is_wrong(one), one["endpoint"]))
        shown, more = _page(found, page)
        return {"schedules": shown, "count": len(schedules), "text": text, **more}

    async def show_webhooks(visit: PageVisit) -> Mapping[str, Any]:
        text, page = _asked(visit)
        rows = await kept_rows(control, "webhooks")
        found = [
            row for row in rows if text.lower() in f"{row['endpoint_id']} {row['name']}".lower()
        ]
        found.sort(key=webhook_order)
        shown, more = _page(found, page)
        waiting = await control.backlog([(row["endpoint_id"], row["name"]) for row in shown])
        of_all, missed = await webhook_records(control), await _missed(control, shown)
        records = [of_all.get((row["endpoint_id"], row["name"])) for row in shown]
        webhooks = list(zip(shown, records, waiting, missed, strict=True))
        return {"webhooks": webhooks, "count": len(rows), "text": text, **more}

    yield DashboardPage("/schedules", "health/schedules.html", "schedules", show_schedules)
    yield DashboardPage("/webhooks", "health/all_webhooks.html", "webhooks", show_webhooks)


async def kept_rows(control: Control, table: str, where: Mapping[str, Any] = {}) -> Sequence[Row]:
    """The rows of a plugin's table; none where no plugin keeps it."""
    try:
        return await control.rows(table, where)
    except OrchestratordError:
        return []


async def webhook_records(control: Control) -> dict[AttemptsKey, EndpointAttempts]:
    """How the attempts of webhooks went in this hour and the last one, of all daemons."""
    records: dict[AttemptsKey, EndpointAttempts] = {}
    for hour in await kept_rows(control, "webhook_attempts"):
        if hour["until"] > world.time() * 1000:
            key = hour["endpoint_id"], hour["name"]
            record = records.setdefault(key, EndpointAttempts(*key))
            record.attempts += hour["attempts"]
            record.failures += hour["failed"]
    return records


async def _missed(control: Control, rows: Sequence[Row]) -> list[int]:
    """How many deliveries these webhooks missed while they were disabled, and can be replayed."""
    counts: Mapping[Any, int] = {}
    if any(row["last_disabled_at"] is not None for row in rows):
        asked = {"status": "failed", "reason": "webhook_disabled"}
        found = await control.grouped(asked, ("endpoint", "webhook"))
        counts = {(one["endpoint"], one["webhook"]): one["tasks"] for one in found["groups"]}
    return [counts.get((row["endpoint_id"], row["name"]), 0) for row in rows]


def is_wrong(schedule: Row) -> bool:
    """Whether the last run of a schedule failed, or slots of it were missed after that."""
    missed, last = schedule["missed"], schedule["last_run"]
    return schedule["status"] == "failed" or bool(missed and missed["last"] >= (last or ""))


def webhook_order(row: Row) -> tuple[Any, ...]:
    """Disabled ones first, then those that failed most often in a row."""
    return row["disabled_at"] is None, -(row["failures"] or 0), row["endpoint_id"], row["name"]


def _asked(visit: PageVisit) -> tuple[str, int]:
    """The text that is looked for, and the number of the page, from 1. Raises InvalidParams."""
    if unknown := [name for name in visit.query if name not in ("text", "page")]:
        raise InvalidParams(dict.fromkeys(unknown, "there is no such filter"))
    page = visit.query.get("page") or "1"
    if not (page.isascii() and page.isdigit() and len(page) < 7 and int(page)):
        raise InvalidParams({"page": "must be a number from 1"})
    return visit.query.get("text", "").strip(), int(page)


def _page(found: Sequence[T], page: int) -> tuple[Sequence[T], dict[str, int]]:
    """What is on a page, and for the links to others, which one it is, and whether more follow."""
    end = page * PAGE
    return found[end - PAGE : end], {"page": page, "more": len(found) > end}
