"""No list fails for one row, whatever an older version, or a person, has written into it."""

from __future__ import annotations

import json
import random
import sqlite3
from typing import Any

import pytest

from orchestratord.queue.operations.search import dump
from orchestratord.queue.records import TaskFilter
from tests.unit.api.control_parts import Parts

BEYOND = 253_402_350_000_000
"""Milliseconds: `9999-12-31T23:59:59-14:00`, which is of the year 10000 in UTC."""
LISTS = (
    "/v1/status", "/v1/endpoints", "/v1/schedules", "/v1/retries", "/v1/retries?order=ended",
    "/v1/retries/groups", "/v1/runs", "/v1/bulks", "/v1/actions", "/v1/retries/{}", "/v1/bulks/{}",
    "/v1/runs/{}", "/v1/batches/{}",
)  # fmt: skip
WORDS: dict[str, tuple[Any, ...]] = {
    "retry_schedule.status": ("succeeded", "failed", "cancelled"),
    "retry_schedule.kind": ("call", "webhook"),
    "retry_schedule.phase": (None, "on_success", "on_end"),
    "retry_schedule.reason": (None, "exhausted", "resolved", "ambiguous"),
    "retry_schedule.params": ("{}", '{"id": "a"}'),
    "retry_schedule.partition": (None,),  # it stands beside its rule
    "retry_schedule.asked": (None,),
    "retry_schedule.payload": (None, "x"),
    "retry_schedule.response": (None,),
    "bulks.status": ("finished", "cancelled", "paused"),
    "bulks.action": ("retry", "cancel", "resolve"),
    "bulks.filter": (
        dump(TaskFilter(since=BEYOND)), dump(TaskFilter(until=-(2**62), status=("failed",))),
        '{"since": 5}', '{"status": ["failed"], "of_a_newer_version": 1}', "[]", "no JSON",
    ),
    "bulks.why_skipped": ("{}", '{"changed": 3}'),
    "bulks.resolution": (None, '{"as": "failed", "note": null}'),
    "actions.action": ("retry", "cancel", "pause", "bulk.began"),
    "batch_members.status_code": (None, "200"),
    "batch_members.detail": (None,),
    "schedules.endpoint_id": ("demo/get", "demo/other"),
    "schedules.before": (None,),
    "schedules.taken": (None,),
    "actions.detail": ("{}",),
    "endpoint_state.endpoint_id": ("demo/get", "demo/other"),
    "task_counts.status": ("succeeded", "failed"),
    "attempts.status_code": (None, "200", "503"),
    "retry_schedule.last_status_code": (None, "200", "503"),
}  # fmt: skip
TABLES = (
    "retry_schedule", "attempts", "runs", "bulks", "actions", "endpoint_state", "task_counts",
    "batches", "batch_members", "schedules",
)  # fmt: skip


def row_of(chance: random.Random, db: sqlite3.Connection, table: str) -> dict[str, Any]:
    """A row with any value that its columns take."""
    row: dict[str, Any] = {}
    for _, name, type_, needed, _, is_key in db.execute(f"PRAGMA table_info({table})"):
        if words := WORDS.get(f"{table}.{name}"):
            row[name] = chance.choice(words)
        elif is_key and type_ == "INTEGER":
            row[name] = chance.randrange(1, 2**31)
        elif not needed and chance.random() < 0.3:
            row[name] = None
        elif type_ == "INTEGER":
            is_time = name.endswith(("_at", "_try", "until", "since")) or name == "at"
            row[name] = chance.randrange(-(2**62), 2**62) if is_time else chance.randrange(2**31)
        elif type_ == "REAL":
            row[name] = chance.choice((0.0, 1e300, chance.random()))
        else:
            row[name] = "".join(chance.choices("a/\n\0é\U0001f600%*'\"", k=chance.randrange(12)))
    return row


async def test_a_bulk_whose_time_no_calendar_has_is_listed(parts: Parts) -> None:
    row = {"filter": dump(TaskFilter(since=BEYOND)), "created_at": 2**60, "status": "finished"}
    zeros = dict.fromkeys(("highest_id", "matched", "updated_at"), 0)
    with sqlite3.connect(parts.folder / "q.db") as db:
        insert(db, "bulks", row | zeros)
    answer = await parts.client.get("/v1/bulks")
    assert answer.status_code == 200
    [bulk] = answer.json()["bulks"]
    assert bulk["filter"]["since"].startswith("9999-12-31T23:59:59")
    assert bulk["created_at"].startswith("9999-12-31T23:59:59")


@pytest.mark.parametrize("seed", range(8))
async def test_each_list_shows_any_row(parts: Parts, seed: int) -> None:
    chance, ids = random.Random(seed), []
    with sqlite3.connect(parts.folder / "q.db") as db:
        for table in TABLES:
            for _ in range(12):
                row = row_of(chance, db, table)
                ids.append(row.get("id", 0))
                insert(db, table, row)
    for path in LISTS:
        for id_ in ids if "{}" in path else ids[:1]:
            answer = await parts.client.get(path.format(id_))
            assert answer.status_code in ((200, 404) if "{}" in path else (200,)), (path, id_)
            json.loads(answer.content)


def insert(db: sqlite3.Connection, table: str, row: dict[str, Any]) -> None:
    """Write a row as no version of the daemon would."""
    names, marks = ", ".join(f'"{name}"' for name in row), ", ".join("?" * len(row))
    db.execute(f"INSERT OR IGNORE INTO {table} ({names}) VALUES ({marks})", tuple(row.values()))
