"""The list of tasks, one task, and what many of them are put through at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any
from urllib.parse import urlencode

from orchestratord import Conflict, Control, InvalidParams, NotFound, PageVisit, Reason
from orchestratord_dashboard.health_pages import kept_rows
from orchestratord_dashboard.page_renderer import DashboardPage

FILTERS = (
    "status endpoint kind status_code reason since until text id parent partition run bulk batch "
    "webhook ended_since"
).split()
"""What tasks are chosen by; the names are those of the API, and stand in the address."""
ORDERS = ("newest", "ended")
"""Of the list: by when they were made, or by when they ended; the last ones first."""
STATES = ("pending", "running", "failed", "succeeded", "cancelled")
PAGE = 50
CHILDREN = 100
"""Of one task, that are shown."""


def pages(control: Control) -> Iterable[DashboardPage]:
    """The pages at `/retries` and `/bulks`."""

    async def show_list(visit: PageVisit) -> Mapping[str, Any]:
        known = (*FILTERS, "order", "after")
        if unknown := [name for name in visit.query if name not in known]:
            raise InvalidParams(dict.fromkeys(unknown, "there is no such filter"))
        given = {name: visit.query[name] for name in FILTERS if visit.query.get(name)}
        order, after = visit.query.get("order") or ORDERS[0], visit.query.get("after")
        try:
            found = await control.retries(given, limit=PAGE, after=after, bounded=True, order=order)
        except InvalidParams as error:
            # What is right still chooses; what is wrong is said below the form.
            right = {name: given[name] for name in given if name not in error.problems}
            found = dict(await control.retries(right, limit=PAGE, bounded=True, order=order))
            found |= {"next": None, "wrong": error.problems}
        sorted_ = given if order == ORDERS[0] else {**given, "order": order}
        bulks = await control.bulks()
        older = {**sorted_, "after": found["next"]} if found["next"] is not None else None
        return {
            "tasks": found["retries"],
            "wrong": found.get("wrong"),
            "given": given,
            "chosen": given.get("status", "").split(","),
            "states": STATES,
            "reasons": tuple(Reason),
            "older": older and address(older),
            "newest": address(sorted_) if after else None,
            "order": order,
            "names": list(control.config.endpoints)[:MOST_NAMES],
            "going_on": [bulk for bulk in bulks if bulk["status"] in ("running", "paused")],
            "any_bulks": bool(bulks),
        }

    async def show_one(visit: PageVisit) -> Mapping[str, Any]:
        task_id = number(visit.path["id"], "task")
        task = await control.retry(task_id)
        request, why = None, None
        try:
            request = await control.request(task_id)
        except (Conflict, NotFound) as error:
            why = str(error)
        children = await control.retries({"parent": task_id}, limit=CHILDREN)
        state = "replaced" if task["replaced_by"] else task["status"]
        return {
            "task": task,
            "request": request,
            "no_request": why,
            "children": children["retries"],
            "more_children": children["next"] is not None,
            "step": STEPS.get(state, {}),
            "disabled": task["webhook"] and await _is_disabled(control, task),
            "can_resolve": state in ("pending", "failed"),
            "can_change": task["kind"] == "call" and state in ("failed", "cancelled"),
        }

    yield DashboardPage("/retries", "tasks.html", "retries", show_list)
    yield DashboardPage("/retries/{id}", "task.html", "retries", show_one)
    yield DashboardPage("/bulks/{id}", "bulk.html", "retries", partial(_show_bulk, control))
    yield DashboardPage("/bulks", "bulks.html", "retries", partial(_show_bulks, control))


async def _show_bulk(control: Control, visit: PageVisit) -> Mapping[str, Any]:
    bulk = await control.bulk(number(visit.path["id"], "bulk"))
    given = {name: value for name, value in bulk["filter"].items() if name != "id"}
    done = bulk["moved"] + bulk["skipped"]
    return {"bulk": bulk, "done": done, "given": given, "back": address(given)}


async def _show_bulks(control: Control, visit: PageVisit) -> Mapping[str, Any]:
    return {"bulks": await control.bulks()}


async def _is_disabled(control: Control, task: Mapping[str, Any]) -> bool:
    """Whether the webhook of a delivery is disabled, and a person can enable it."""
    key = {"endpoint_id": task["endpoint"], "name": task["webhook"]}
    rows = await kept_rows(control, "webhooks", key)
    return any(row["disabled_at"] is not None for row in rows)


def batch_pages(control: Control) -> Iterable[DashboardPage]:
    """The page at `/batches`."""

    async def show_batch(visit: PageVisit) -> Mapping[str, Any]:
        batch_id, after = number(visit.path["id"], "batch"), visit.query.get("after", "0")
        batch = await control.batch(batch_id, PAGE, number(after, "member"))
        return {"batch": batch, "after": after != "0"}

    yield DashboardPage("/batches/{id}", "health/batch.html", "retries", show_batch)


MOST_NAMES = 500
"""Endpoints that are offered while one is typed."""

STEPS = {
    "pending": {"retry": "Try now", "cancel": "Cancel"},
    "running": {"cancel": "Do not try again"},
    "failed": {"retry": "Retry", "cancel": "Cancel"},
    "cancelled": {"retry": "Retry"},
    "succeeded": {"again": "Run again"},
}
"""What can be done with a task → what its button says."""


def address(given: Mapping[str, Any]) -> str:
    """The list with these filters."""
    query = urlencode({name: value for name, value in given.items() if value}, safe=",/:*")
    return f"/retries?{query}" if query else "/retries"


def after_of(visit: PageVisit) -> int | None:
    """The number after which a page begins. Raises InvalidParams."""
    text = visit.query.get("after", "")
    if text and not (text.isascii() and text.isdigit() and len(text) < 19):
        raise InvalidParams({"after": "must be a number"})
    return int(text) if text else None


def number(text: str, what: str) -> int:
    """The number of a task or bulk in an address. Raises NotFound for what cannot be one."""
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise NotFound.of(what, text)
    return int(text)
