"""The steps of a task, as the events that are told of them."""

from __future__ import annotations

from collections.abc import Iterable

from orchestratord.model.event import BulkEvent, EventType, PartitionEvent, TaskEvent
from orchestratord.model.task import Key, Kind, Status, Task
from orchestratord.queue.operations.insert import HAPPENED_CODE
from orchestratord.queue.records import Bulk, Insert, Inserted, Settlement

# Names of a module are found sooner than members of an enumeration.
_CREATED, _STARTED = EventType.TASK_CREATED, EventType.TASK_STARTED
_SNOOZED, _TRIGGERED = EventType.TASK_SNOOZED, EventType.TASK_TRIGGERED
_SUCCEEDED, _CANCELLED = EventType.TASK_SUCCEEDED, EventType.TASK_CANCELLED
_made = tuple.__new__  # all fields at once: `TaskEvent(…)` is a function of Python's that calls it
_PENDING, _RUNNING = Status.PENDING.value, Status.RUNNING.value
_SETTLED = {
    "pending": EventType.TASK_RETRIED,
    "succeeded": EventType.TASK_SUCCEEDED,
    "failed": EventType.TASK_FAILED,
    "cancelled": EventType.TASK_CANCELLED,
}


def created(insert: Insert, inserted: Inserted, at: int) -> TaskEvent:
    """A task is on disk. `at` in milliseconds since the epoch, as everywhere here."""
    new, due = insert.task, inserted.next_try
    status = _PENDING if inserted.running is None else _RUNNING
    if insert.happened is not None:
        status = Status.SUCCEEDED.value
    return TaskEvent(
        _CREATED, at, inserted.id, new.kind, new.endpoint_id, new.webhook or None, status, 0,
        None, None, new.error, None, None, None, due, None, new.parent_id,
    )  # fmt: skip


def happened(insert: Insert, inserted: Inserted, at: int) -> TaskEvent:
    """A task that needed no attempt has succeeded."""
    made = created(insert, inserted, at)
    return made._replace(type=EventType.TASK_SUCCEEDED, status_code=HAPPENED_CODE)


def started(tasks: Iterable[Task], at: int) -> list[TaskEvent]:
    """Attempts of claimed tasks begin."""
    events: list[TaskEvent] = []
    for task in tasks:
        due = task.next_try
        late = at - due if due is not None and due < at else 0
        events.append(_made(TaskEvent, (
            _STARTED, at, task.id, task.kind, task.endpoint_id, task.webhook or None, _RUNNING,
            task.attempts, None, None, None, at, None, None, None, late, task.parent_id,
        )))  # fmt: skip
    return events


def succeeded(settlements: Iterable[Settlement]) -> list[TaskEvent]:
    """What `settled` makes of attempts that have succeeded, as nearly all do."""
    events: list[TaskEvent] = []
    for s in settlements:
        task, row = s.task, s.attempt
        assert row is not None
        began, due = row.started_at, task.next_try
        events.append(_made(TaskEvent, (
            _SUCCEEDED, s.at, task.id, task.kind, task.endpoint_id, task.webhook or None,
            "succeeded", task.attempts, None, row.status_code, row.error, began, row.duration_ms,
            row.delay, None, began - due if due is not None and due < began else 0, task.parent_id,
        )))  # fmt: skip
    return events


def settled(settlement: Settlement, status: str) -> TaskEvent:
    """A claim ended, and the task has this status now."""
    s, task, row = settlement, settlement.task, settlement.attempt
    type_, webhook, next_try = _SETTLED[status], task.webhook or None, None
    if status == _PENDING:
        next_try = s.next_try
        if s.uncounted and s.deaths is None:
            type_ = _SNOOZED
    if row is None:
        return _made(TaskEvent, (
            type_, s.at, task.id, task.kind, task.endpoint_id, webhook, status,
            task.attempts - s.uncounted, s.reason, None, s.error if s.reason is not None else None,
            None, None, None, next_try, None, task.parent_id,
        ))  # fmt: skip
    began, due = row.started_at, task.next_try
    late = began - due if due is not None and due < began else 0
    return _made(TaskEvent, (
        type_, s.at, task.id, task.kind, task.endpoint_id, webhook, status, task.attempts,
        s.reason, row.status_code, row.error, began, row.duration_ms, row.delay, next_try, late,
        task.parent_id,
    ))  # fmt: skip


def partition_held(task: Task, reason: str | None, at: int) -> PartitionEvent:
    """A task failed for this reason, and those behind it in its partition wait for a person."""
    return PartitionEvent(
        EventType.PARTITION_HELD, at, task.endpoint_id, task.webhook or None, task.partition or "",
        task.id, reason,
    )  # fmt: skip


def cancelled(task: Task, at: int) -> TaskEvent:
    """A task that did not run was given up manually."""
    return _by_hand(_CANCELLED, task, at)


def triggered(task: Task, at: int) -> TaskEvent:
    """A task was made due manually."""
    return _by_hand(_TRIGGERED, task, at)


def replacing(task: Task, at: int) -> TaskEvent:
    """A task was made of another one manually."""
    return _by_hand(_CREATED, task, at)


def resolved(settlement: Settlement) -> TaskEvent:
    """A person said how a task ended."""
    s, task = settlement, settlement.task
    return TaskEvent(
        _SETTLED[s.status], s.at, task.id, task.kind, task.endpoint_id, task.webhook or None,
        str(s.status), task.attempts, s.reason, s.status_code, s.error, parent_id=task.parent_id,
    )  # fmt: skip


def triggered_in_bulk(task_id: int, key: Key, at: int) -> TaskEvent:
    """The same, where no more is known of the task than what it is claimed by."""
    kind = Kind.WEBHOOK if key.webhook else Kind.CALL
    return TaskEvent(
        _TRIGGERED, at, task_id, kind.value, key.endpoint_id, key.webhook or None, _PENDING,
        next_try=at,
    )  # fmt: skip


def cancelled_in_bulk(task_id: int, key: Key, at: int) -> TaskEvent:
    """A task was given up manually, among many."""
    return triggered_in_bulk(task_id, key, at)._replace(
        type=_CANCELLED, status=Status.CANCELLED.value, next_try=None
    )


def of_bulk(type_: EventType, bulk: Bulk, at: int) -> BulkEvent:
    """A step of a bulk, with how far it is and how it went so far."""
    return BulkEvent(
        type_, at, bulk.id, bulk.action, bulk.matched, bulk.moved, bulk.skipped, bulk.succeeded,
        bulk.failed, bulk.waiting, bulk.stop_at,
    )  # fmt: skip


def _by_hand(type_: EventType, task: Task, at: int) -> TaskEvent:
    return TaskEvent(
        type_, at, task.id, task.kind, task.endpoint_id, task.webhook or None, str(task.status),
        task.attempts, next_try=task.next_try, parent_id=task.parent_id,
    )  # fmt: skip
