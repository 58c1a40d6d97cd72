"""The steps of a task as events: what each of them says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from orchestratord.engine import task_events
from orchestratord.model.event import EventType
from orchestratord.model.task import Attempt, Key, NewTask, Task
from orchestratord.queue.records import Insert, Inserted, Settlement
from orchestratord.testing import task as a_task

ROW = Attempt(3, 5_000, 12.5, 503, "503 Busy", 7.0, "fixed 7s")


def claimed(**changes: Any) -> Task:
    given: dict[str, Any] = {"status": "running", "attempts": 3, "next_try": 4_000, **changes}
    return replace(a_task(), id=42, endpoint_id="shop/a", parent_id=7, **given)


def settlement(status: str, **changes: Any) -> Settlement:
    return Settlement(claimed(), status, 6_000, attempt=ROW, **changes)


def test_a_new_task() -> None:
    new = NewTask("webhook", "shop/a", webhook="ops", parent_id=7, error="does not render")
    event = task_events.created(Insert(new), Inserted(9, new.key, 8_000), 6_000)
    assert event._asdict() | {"type": "task.created"} == event._asdict()
    assert (event.id, event.kind, event.endpoint, event.webhook) == (9, "webhook", "shop/a", "ops")
    assert (event.status, event.next_try, event.attempt) == ("pending", 8_000, 0)
    assert (event.parent_id, event.error, event.started_at) == (7, "does not render", None)


def test_an_attempt_begins() -> None:
    [event] = task_events.started([claimed()], 4_250)
    assert (event.type, event.at, event.status) == ("task.started", 4_250, "running")
    assert (event.attempt, event.started_at, event.lateness_ms) == (3, 4_250, 250)
    early = task_events.started([claimed(), claimed(attempts=4, next_try=None)], 3_999)
    assert [(one.attempt, one.lateness_ms) for one in early] == [(3, 0), (4, 0)]


def test_an_attempt_that_succeeded() -> None:
    [event] = task_events.settled([settlement("succeeded")])
    assert (event.type, event.at, event.status) == ("task.succeeded", 6_000, "succeeded")
    assert (event.started_at, event.duration_ms, event.lateness_ms) == (5_000, 12.5, 1_000)
    assert (event.id, event.parent_id, event.attempt, event.next_try) == (42, 7, 3, None)
    early = [replace(settlement("succeeded"), task=claimed(next_try=due)) for due in (None, 5_500)]
    assert [event.lateness_ms for event in task_events.settled(early)] == [0, 0]


def test_an_attempt_that_is_retried() -> None:
    [event] = task_events.settled([settlement("pending", next_try=13_000)])
    assert (event.type, event.status, event.next_try) == ("task.retried", "pending", 13_000)
    assert (event.status_code, event.error, event.delay) == (503, "503 Busy", 7.0)


def test_an_attempt_that_is_cancelled() -> None:
    [event] = task_events.settled([settlement("cancelled")])
    assert (event.type, event.status, event.next_try) == ("task.cancelled", "cancelled", None)


def test_a_failure_has_its_reason() -> None:
    [event] = task_events.settled([settlement("failed", reason="exhausted", error="503 Busy")])
    assert (event.type, event.reason, event.error) == ("task.failed", "exhausted", "503 Busy")


def test_a_failure_without_an_attempt() -> None:
    ended = Settlement(
        claimed(), "failed", 6_000, reason="expired", error="give_up_after 1h is over",
        uncounted=True,
    )  # fmt: skip
    [event] = task_events.settled([ended])
    assert (event.type, event.started_at, event.duration_ms) == ("task.failed", None, None)
    assert (event.attempt, event.reason) == (2, "expired")
    assert (event.error, event.status_code) == ("give_up_after 1h is over", None)


def test_a_snooze_costs_no_attempt_and_has_no_old_error() -> None:
    task = claimed(last_error="of an earlier attempt")
    ended = Settlement(
        task, "pending", 6_000, next_try=9_000, error=task.last_error, uncounted=True
    )
    [event] = task_events.settled([ended])
    assert (event.type, event.attempt, event.next_try) == ("task.snoozed", 2, 9_000)
    assert (event.error, event.started_at) == (None, None)


def test_an_attempt_that_the_daemons_stop_interrupts_is_no_retry() -> None:
    [event] = task_events.settled([settlement("pending", next_try=6_000, uncounted=True)])
    assert (event.type, event.started_at, event.error) == ("task.snoozed", 5_000, "503 Busy")


def test_what_people_do() -> None:
    waiting = claimed(status="pending", attempts=2, next_try=6_000)
    event = task_events.by_hand(EventType.TASK_TRIGGERED, waiting, 6_000)
    assert (event.type, event.status, event.next_try) == ("task.triggered", "pending", 6_000)
    assert (event.attempt, event.started_at) == (2, None)
    cancelled = replace(waiting, status="cancelled", next_try=None)
    ended = task_events.by_hand(EventType.TASK_CANCELLED, cancelled, 6_000)
    assert (ended.type, ended.status, ended.next_try) == ("task.cancelled", "cancelled", None)
    moved = task_events.triggered_in_bulk(5, Key("shop/a", "ops"), 6_000)
    assert (moved.type, moved.id, moved.kind, moved.webhook) == (
        "task.triggered", 5, "webhook", "ops",
    )  # fmt: skip
    assert task_events.triggered_in_bulk(5, Key("shop/a"), 6_000).kind == "call"
