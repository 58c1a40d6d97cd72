"""What the queue holds: the words that users see, and the keys that tasks are claimed by."""

from __future__ import annotations

import dataclasses

import pytest

from orchestratord.task import FINAL, Key, Kind, NewTask, Reason, Status, Task

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
        "invalid_payload", "endpoint_removed", "webhook_removed", "webhook_disabled",
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
