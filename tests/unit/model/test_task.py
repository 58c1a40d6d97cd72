"""What the queue holds: the words that users see, and the keys that tasks are claimed by."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from orchestratord.model.partition_turn import PartitionTurn
from orchestratord.model.task import FINAL, Key, Kind, NewTask, Reason, Status, Task

TASK = Task(
    id=1, kind="call", endpoint_id="a/b", webhook="", phase=None, status="running", reason=None,
    attempts=1, max_attempts=15, next_try=None, params={}, payload=None, parent_id=None,
    created_at=0, updated_at=0, scheduled_at=0)  # fmt: skip


def test_the_words_of_the_table() -> None:
    assert {str(status) for status in Status} == {
        "pending", "running", "succeeded", "failed", "cancelled",
    }  # fmt: skip
    assert {str(status) for status in FINAL} == {"succeeded", "failed", "cancelled"}
    assert {str(reason) for reason in Reason} == {
        "exhausted", "not_retryable", "ambiguous", "rejected", "expired", "poisoned",
        "invalid_payload", "invalid", "endpoint_removed", "webhook_removed", "webhook_disabled",
        "resolved", "replaced",
    }  # fmt: skip
    assert {str(kind) for kind in Kind} == {"call", "webhook"}


def test_a_call_and_each_webhook_of_an_endpoint_have_keys_of_their_own() -> None:
    assert TASK.key == Key("a/b") == Key("a/b", "")
    assert dataclasses.replace(TASK, webhook="ops").key == Key("a/b", "ops")
    assert NewTask("webhook", "a/b", webhook="ops").key == Key("a/b", "ops")
    assert NewTask("call", "a/b").key == TASK.key


def test_a_task_cannot_be_changed_by_a_hook() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TASK.status = "succeeded"  # type: ignore[misc]


FULL = Task(
    id=7, kind="webhook", endpoint_id="a/c", webhook="ops", phase="on_retry", status="pending",
    reason="exhausted", attempts=3, max_attempts=10, next_try=11, params={"a": [1]}, payload="{}",
    parent_id=5, created_at=12, updated_at=13, scheduled_at=14, finished_at=15, started_at=16,
    unique_key="key", locked_by="me", idempotent=False, granted=2, deaths=1, generation=4,
    retried_at=17, cancel_requested=True, last_status_code=404, last_error="no",
    depth=6, claims=8, nonce="1f", alone=True, turn=PartitionTurn("p", 18, 1, 19),
    bulk_id=21, replaces=22, backoff_until=24, run_id=23, looks=25, looked_since=26,
    waits_for="five o'clock",
    maybe_large=False)  # fmt: skip


@pytest.mark.parametrize("task", [TASK, FULL], ids=["least", "all"])
@pytest.mark.parametrize(
    "after",
    [("succeeded", None, None, 200, None), ("pending", None, 1_800_000_000_000, "error", "reset"),
     ("failed", Reason.AMBIGUOUS, None, 502, "502 Bad Gateway"),
     (Status.CANCELLED, "x", 0, None, ""), (None, None, None, None, None)],
)  # fmt: skip
def test_a_task_after_an_attempt_is_the_same_but_for_what_came_of_it(
    task: Task, after: tuple[Any, ...]
) -> None:
    status, reason, next_try, code, error = after
    expected = dataclasses.replace(
        task, status=status, reason=reason, next_try=next_try, last_status_code=code,
        last_error=error)  # fmt: skip
    before = dataclasses.astuple(task)
    changed = task.after(*after)
    assert changed == expected
    assert type(changed) is Task
    for field in dataclasses.fields(Task):
        got, wanted = getattr(changed, field.name), getattr(expected, field.name)
        assert (got, type(got)) == (wanted, type(wanted)), field.name
    assert changed.params is task.params
    assert dataclasses.astuple(task) == before


def test_no_field_of_a_full_task_is_at_its_default() -> None:
    """Else a field that is mixed up with another one would not show."""
    values = [repr(getattr(FULL, field.name)) for field in dataclasses.fields(Task)]
    assert len(set(values)) >= len(values) - 2  # four flags
    for field in dataclasses.fields(Task):
        if field.default is not dataclasses.MISSING:
            assert getattr(FULL, field.name) != field.default, field.name
