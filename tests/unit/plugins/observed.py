"""What the daemon tells of itself, for the tests of plugins that observe it."""

from __future__ import annotations

from typing import Any

from orchestratord import ConfigEvent, EventType, TaskEvent

START = 1_800_000_000_000
"""Milliseconds."""


def created(endpoint: str = "shop/get", webhook: str | None = None) -> TaskEvent:
    """A task was accepted."""
    return _event(EventType.TASK_CREATED, endpoint, webhook, "pending")


def started(lateness_ms: int | None = 3, webhook: str | None = None) -> TaskEvent:
    """Its attempt begins."""
    return _event(
        EventType.TASK_STARTED, "shop/get", webhook, "running", lateness_ms=lateness_ms, attempt=1
    )


def ended(
    how: str, code: Any = 200, endpoint: str = "shop/get", webhook: str | None = None, **fields: Any
) -> TaskEvent:
    """An attempt has ended; `how` is `succeeded`, `retried`, `failed`, `snoozed`, `cancelled`."""
    status = "pending" if how in ("retried", "snoozed") else how
    attempt = {"attempt": 1, "status_code": code, "started_at": START, "duration_ms": 12.5}
    type_ = EventType(f"task.{how}")
    return _event(type_, endpoint, webhook, status, **{**attempt, **fields})


def never_ran(reason: str, endpoint: str = "shop/get") -> TaskEvent:
    """A task failed without an attempt."""
    return _event(EventType.TASK_FAILED, endpoint, None, "failed", reason=reason)


def adopted() -> ConfigEvent:
    return ConfigEvent(EventType.CONFIG_ADOPTED, START, 2, "poll", 1)


def refused() -> ConfigEvent:
    return ConfigEvent(EventType.CONFIG_REFUSED, START, 1, "poll", 1, problems=1, error="bad")


UNLIMITED = {
    "rate": None, "breaker": None, "retry_after": None, "overload": None, "openings": 0,
}  # fmt: skip
"""What the status says of a lane that waits for nothing."""


def status(**changes: Any) -> dict[str, Any]:
    """The daemon's status document, as far as metrics are made of it."""
    lane = {"name": "api:shop", "in_flight": 2, "concurrency": 10, "due": 1, **UNLIMITED}
    found: dict[str, Any] = {
        "version": "1.2.3",
        "queue": {
            "pending": 5, "running": 2, "succeeded": 70, "failed": 1, "cancelled": 0, "due": 3,
            "missed": 0,
            "resolved": 0,
            "oldest_due_age": 1.5,
            "held": 4,
            "held_partitions": 2,
        },
        "failing_counts": {"call": 2, "webhook": 1},
        "in_flight": 2,
        "concurrency": 100,
        "draining": False,
        "lanes": [lane],
        "throttled": [],
        "config": {"error": None},
        "database": {"size": 4096, "accepting": True, "holding_back": ["a program reads"]},
        "health": {"ready": True, "troubles": []},
        "plugins": [{"name": "webhooks", "faults": 4}],
        "paused": ["shop/get"],
        "outbox": {
            "database": "shop", "relays": True, "error": None, "waiting": 3, "refused": 2,
            "taken_total": 40, "refused_total": 2,
        },
        "events_dropped": 9,
        "unheld_claims": 2,
    }  # fmt: skip
    return {**found, **changes}


def _event(
    type_: EventType, endpoint: str, webhook: str | None, status: str, **fields: Any
) -> TaskEvent:
    kind = "webhook" if webhook else "call"
    return TaskEvent(type_, START, 42, kind, endpoint, webhook, status, **fields)
