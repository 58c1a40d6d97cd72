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
_CANCELLED = EventType.TASK_CANCELLED
_made = tuple.__new__  # all fields at once: `TaskEvent(…)` is a function of Python's that calls it
_PENDING, _RUNNING = Status.PENDING.value, Status.RUNNING.value
_SETTLED: dict[str, EventType] = {
    Status.PENDING: EventType.TASK_RETRIED,
    Status.SUCCEEDED: EventType.TASK_SUCCEEDED,
    Status.FAILED: EventType.TASK_FAILED,
    Status.CANCELLED: EventType.TASK_CANCELLED,
}


def created(insert: Insert, inserted: Inserted, at: int) -> TaskEvent:
    """A task is on disk. `at` in milliseconds since the epoch, as everywhere here."""
    new, due = insert.task, inserted.next_try
    status = _PENDING if insert.happened is None else Status.SUCCEEDED.value
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
            task.attempts, None, None, None, at, None, None, None, late, task.parent_id, False,
            None,
        )))  # fmt: skip
    return events


def settled(settlements: Iterable[Settlement]) -> list[TaskEvent]:
    """Claims ended so."""
    events: list[TaskEvent] = []
    for s in settlements:
        task, row, status, attempt, error = s.task, s.attempt, s.status, s.task.attempts, None
        type_, code, began, took, delay, late = _SETTLED[status], None, None, None, None, None
        if s.uncounted and s.deaths is None and status == _PENDING:
            type_ = _SNOOZED
        if row is not None:
            code, error, began = row.status_code, row.error, row.started_at
            took, delay, due = row.duration_ms, row.delay, task.next_try
            late = began - due if due is not None and due < began else 0
        else:
            attempt -= s.uncounted
            if s.reason is not None:
                error = s.error
        events.append(_made(TaskEvent, (
            type_, s.at, task.id, task.kind, task.endpoint_id, task.webhook or None, status,
            attempt, s.reason, code, error, began, took, delay, s.next_try, late, task.parent_id,
            s.deaths is not None, s.waits_for,
        )))  # fmt: skip
    return events


def partition_held(task: Task, reason: str | None, at: int) -> PartitionEvent:
    """A task failed for this reason, and those behind it in its partition wait for a person."""
    webhook, partition = task.webhook or None, task.partition or ""
    held = EventType.PARTITION_HELD
    return PartitionEvent(held, at, task.endpoint_id, webhook, partition, task.id, reason)


def by_hand(type_: EventType, task: Task, at: int) -> TaskEvent:
    """A person made a task of another one, made it due, or gave it up before it ran."""
    of = task.id, task.kind, task.endpoint_id, task.webhook or None
    event = TaskEvent(type_, at, *of, str(task.status), task.attempts)
    return event._replace(next_try=task.next_try, parent_id=task.parent_id)


def resolved(settlement: Settlement) -> TaskEvent:
    """A person said how a task ended."""
    s = settlement
    event = by_hand(_SETTLED[s.status], s.task, s.at)._replace(status=str(s.status), next_try=None)
    return event._replace(reason=s.reason, status_code=s.status_code, error=s.error)


def triggered_in_bulk(task_id: int, key: Key, at: int) -> TaskEvent:
    """A bulk triggered a task of which only the key is known."""
    kind = Kind.WEBHOOK if key.webhook else Kind.CALL
    of = task_id, kind.value, key.endpoint_id, key.webhook or None
    return TaskEvent(_TRIGGERED, at, *of, _PENDING, next_try=at)


def cancelled_in_bulk(task_id: int, key: Key, at: int) -> TaskEvent:
    """A task was given up manually, among many."""
    return triggered_in_bulk(task_id, key, at)._replace(
        type=_CANCELLED, status=Status.CANCELLED.value, next_try=None
    )


def of_bulk(type_: EventType, bulk: Bulk, at: int) -> BulkEvent:
    """A step of a bulk, with how far it is and how it went so far."""
    so_far = bulk.matched, bulk.moved, bulk.skipped, bulk.succeeded, bulk.failed, bulk.waiting
    return BulkEvent(type_, at, bulk.id, bulk.action, *so_far, bulk.stop_at)
