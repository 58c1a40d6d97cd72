"""A run as the API answers it: how many of its calls are where, and the first of them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypedDict

from orchestratord.api.answer_documents import (
    Code,
    Counts,
    Name,
    TaskDocument,
    TaskId,
    Time,
    example,
)
from orchestratord.api.serialize import task_json
from orchestratord.queue.housekeeping import run_ends
from orchestratord.queue.store import Store
from orchestratord.values.clock import rfc3339
from orchestratord.values.redact import Redactor


class RunTaskCounts(TypedDict):
    """The calls of a run by their status."""

    total: int
    pending: int
    running: int
    succeeded: int
    failed: int
    cancelled: int


class RunErrorDocument(TypedDict):
    """A failed call of a run."""

    task_id: TaskId
    endpoint: Name
    reason: str | None
    status_code: Code
    error: str | None


@example(
    {
        "id": 42,
        "endpoint": "shop/listPages",
        "status": "ended",
        "end": 1,
        "counts": {
            "total": 21, "pending": 0, "running": 0, "succeeded": 20, "failed": 1, "cancelled": 0
        },
        "failed_endpoints": {"shop/getPage": 1},
        "first_errors": [
            {
                "task_id": 49,
                "endpoint": "shop/getPage",
                "reason": "exhausted",
                "status_code": 503,
                "error": "503 Service Unavailable",
            }
        ],
        "started_at": "2026-11-24T22:00:00.000Z",
        "ended_at": "2026-11-24T22:00:31.207Z",
        "duration_ms": 31207,
        "tasks": [],
        "deliveries": [],
        "truncated": True,
    }
)  # fmt: skip
class RunDocument(TypedDict):
    """A run: the call that began it and all calls that follow from it."""

    id: TaskId
    """The call that began it."""
    endpoint: Name
    """The endpoint of that call."""
    status: Annotated[Literal["running", "ended"], Field(examples=["ended"])]
    end: int
    """How often it has ended: a manual retry opens it again. 0 before its first end and for a call
    without child tasks."""
    counts: RunTaskCounts
    failed_endpoints: Counts
    """Endpoint → its failed calls that the daemon still keeps."""
    first_errors: list[RunErrorDocument]
    """The first ten of them."""
    started_at: Time
    ended_at: Time | None
    duration_ms: int
    """Until its end, or until now."""
    tasks: list[TaskDocument]
    """Its first calls in order, each after its `parent_id`."""
    deliveries: list[TaskDocument]
    """The first deliveries that these calls caused."""
    truncated: bool
    """True if the daemon keeps more calls of it."""


class ListedRun(TypedDict):
    """A run in a list."""

    id: TaskId
    endpoint: Name
    status: Annotated[Literal["running", "ended"], Field(examples=["ended"])]
    counts: Annotated[Counts, Field(examples=[{"total": 21, "succeeded": 20, "failed": 1}])]
    """Its calls: the `total`, and those that have ended by their status."""
    started_at: Time
    ended_at: Time | None


class RunsDocument(TypedDict):
    """A page of runs, the newest first."""

    runs: list[ListedRun]
    next: int | None
    """The `after` of the next page."""


async def runs_document(
    store: Store, limit: int, after: int, status: str | None, redactor: Redactor
) -> RunsDocument:
    """Up to `limit` runs below the id `after`; `status`: `running` or `ended`, None for both."""
    found = await store.read(run_ends.newest_runs(limit + 1, after, status))
    shown: list[ListedRun] = [
        {
            "id": run.id,
            "endpoint": redactor.text(run.endpoint_id),
            "status": "running" if run.ended_at is None else "ended",
            "counts": run.details()["counts"],
            "started_at": rfc3339(run.created_at),
            "ended_at": rfc3339(run.ended_at),
        }
        for run in found[:limit]
    ]
    return {"runs": shown, "next": shown[-1]["id"] if len(found) > limit else None}


async def run_document(store: Store, run_id: int, limit: int, redactor: Redactor) -> RunDocument:
    """A run with up to `limit` of its tasks. Raises NotFound."""
    run = await store.read(run_ends.get_run(run_id))
    running = await store.read(run_ends.running_in(run_id)) if run.open else 0
    running = min(running, run.open)
    found = await store.read(run_ends.tasks_of_run(run_id, limit + 1))
    ids = [task.id for task in found[:limit]]
    deliveries = await store.read(run_ends.deliveries_of(ids, limit))
    details = run.details()
    ended = run.ended_at is not None
    counts = details["counts"]
    return {
        "id": run.id,
        "endpoint": run.endpoint_id,
        "status": "ended" if ended else "running",
        "end": run.end,
        "counts": {
            "total": run.tasks,
            "pending": run.open - running,
            "running": running,
            "succeeded": counts["succeeded"],
            "failed": counts["failed"],
            "cancelled": counts["cancelled"],
        },
        "failed_endpoints": details["failed_endpoints"],
        "first_errors": redactor.value(details["first_errors"]),
        "started_at": details["started_at"],
        "ended_at": details["ended_at"],
        "duration_ms": (run.ended_at or store.clock.now_ms()) - run.created_at,
        "tasks": [task_json(task, redactor) for task in found[:limit]],
        "deliveries": [task_json(task, redactor) for task in deliveries],
        "truncated": len(found) > limit,
    }
