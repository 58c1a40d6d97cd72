"""How SQLite finds what it is asked for. None of it may walk the table, or sort what it finds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from orchestratord.model.task import NewTask, Status
from orchestratord.queue import batch_members, rows, session
from orchestratord.queue.connection import Connection, ManyRows
from orchestratord.queue.housekeeping import batch_closing, future_times, prune, recount
from orchestratord.queue.operations import (
    bulk,
    chores,
    claim,
    effects,
    insert,
    manual,
    partitions,
    schedules,
    search,
    settle,
)
from orchestratord.queue.records import Insert, TaskFilter
from orchestratord.queue.reports import backlog, failing
from orchestratord.queue.sqlite import claim_sqlite
from orchestratord.queue.sqlite.sqlite_database import SqliteConnection, statement
from orchestratord.queue.store import Store
from orchestratord.values.status_set import StatusSet

DUE = "retry_schedule_ready"
LINE = "(endpoint_id=? AND webhook=? AND partition=?"
HELD = f"retry_schedule_held {LINE}"
HEAD = f"retry_schedule_head {LINE}"
BLOCKS = f"retry_schedule_blocks {LINE}"
ORDERED = f"retry_schedule_ordered {LINE}"
RUNNING = "INDEX retry_schedule_running"
RUNS = list(Status).index(Status.RUNNING)
BY_ID = "USING INTEGER PRIMARY KEY"
OWNER = "INDEX sqlite_autoindex_daemons_1 (owner=?)"
RECLAIMED = [BY_ID, RUNNING, OWNER]


def many(rows: ManyRows) -> str:
    return statement(rows.sql, len(rows.types), 8)


STATEMENTS = {
    "open batches": (batch_closing.GROUPS, ["INDEX batch_members_open"]),
    "close a batch": (batch_closing.TAKE, [BY_ID, "INDEX batch_members_open (group_key=?)"]),
    "chores that are due": (chores.DUE, ["INDEX chores_due (due<?)"]),
    "first of a line of chores": (
        chores.FIRST,
        ["INDEX chores_subject (kind=? AND subject>?)"],
    ),
    "a batch to tell of": (batch_closing.CLOSED, [BY_ID]),
    "first of a batch": (batch_closing.BEGINNING, ["INDEX batch_members_batch (batch_id=?)"]),
    "told of": (
        batch_members.TOLD,
        ["INDEX batch_members_once (group_key=? AND once=? AND at>?)"],
    ),
    "old members": (prune.DELETE_MEMBERS, ["INDEX batch_members_at (at<?)", BY_ID]),
    "old batches": (prune.DELETE_BATCHES, [BY_ID, "INDEX batch_members_batch (batch_id=?)"]),
    "pending": (claim_sqlite.NEXT, [f"INDEX {DUE} (endpoint_id=? AND webhook=?)"]),
    "claim": (claim_sqlite.CLAIM, [BY_ID]),
    "behind": (claim_sqlite.BEHIND, [f"INDEX {HELD} AND turn_at=? AND next_try<?)"]),
    "take on": (claim_sqlite.TAKE_ON, [BY_ID]),
    "any that waits for its turn": (
        claim_sqlite.ANY_HELD,
        ["COVERING INDEX retry_schedule_held (endpoint_id>?)"],
    ),
    "fair turns": (
        claim_sqlite.FAIR_TURNS,
        [f"COVERING INDEX {HELD} AND turn_at=?)", f"INDEX {HEAD} AND status=?)"],
    ),
    "ordered turns": (
        claim_sqlite.ORDERED_TURNS,
        [f"INDEX {BLOCKS}", f"INDEX {ORDERED}"],
    ),
    "step back": (claim_sqlite.STEP_BACK, [BY_ID]),
    "step forward": (claim_sqlite.STEP_FORWARD, [BY_ID]),
    "head": (partitions.HEAD, [f"INDEX {HEAD} AND status=?)"]),
    "ready of ordered": (partitions.READY_ORDERED, [f"INDEX {ORDERED}"]),
    "running of a limit": (partitions.RUNNING, [f"INDEX {HEAD} AND status=?)"]),
    "holds": (partitions.FIRST, [f"INDEX {BLOCKS}"]),
    "later": (partitions.LATER, ["INDEX retry_schedule_partition (partition=? AND rowid>?)"]),
    "ordered that have ended": (partitions.ORDERED_ENDED.format(ids="?, ?"), [BY_ID]),
    "next held": (partitions.NEXT_HELD, ["COVERING INDEX retry_schedule_held ((endpoint_id,"]),
    "held ahead": (future_times.HELD, ["INDEX retry_schedule_held ((endpoint_id,webhook,"]),
    "claimed": (rows.PAGE_OF_TASKS, [BY_ID]),
    "start": (many(settle.START), [BY_ID]),
    "release": (claim.RELEASE, [BY_ID]),
    "claims of a daemon": (claim.CLAIMS_OF, [RUNNING]),
    "looks": (claim.LOOKED[0], ["INDEX retry_schedule_endpoint (endpoint_id=?)"]),
    "looks under way": (claim.LOOKED[1], [RUNNING]),
    "any of dead workers": (claim_sqlite.OF_DEAD, [f"COVERING {RUNNING}", OWNER]),
    "reclaim unstarted": (claim_sqlite.TAKE_UNSTARTED, RECLAIMED),
    "reclaim started": (claim_sqlite.TAKE_STARTED, RECLAIMED),
    "cancel asked": (settle.CANCEL_ASKED, [BY_ID]),
    "succeed": (many(settle.SUCCEED), [BY_ID]),
    "end": (many(settle.END), [BY_ID]),
    "idempotency key": (insert.SAME_KEY, ["INDEX retry_schedule_key (endpoint_id=? AND"]),
    "first of others": (manual.FIRST_OF_OTHERS, [f"COVERING INDEX {DUE} (endpoint_id=? AND"]),
    "retry": (manual.RETRY, [BY_ID]),
    "cancel": (manual.CANCEL, [BY_ID]),
    "bulk": (bulk.RETRY.format(ids="?, ?"), [BY_ID]),
    "bulk pending": (bulk.HASTEN.format(ids="?, ?"), [BY_ID]),
    "bulk cancel": (bulk.CANCEL.format(ids="?, ?"), [BY_ID]),
    "bulk ask to cancel": (bulk.ASK_TO_CANCEL.format(ids="?, ?"), [BY_ID]),
    "bulk replaced": (bulk.REPLACED.format(ids="?, ?"), [BY_ID]),
    "bulk waiting": (bulk.WAITING, ["INDEX retry_schedule_bulk (bulk_id=? AND status=?)"]),
    "resolve": (manual.RESOLVE, [BY_ID]),
    "release place": (session.RELEASE_PLACE, [BY_ID]),
    "family": (
        search.FAMILY.format(ids="?, ?"),
        [BY_ID, "INDEX retry_schedule_parent (parent_id=?)"],
    ),
    "replaced": (partitions.REPLACED, [BY_ID]),
    "get": (search.GET, [BY_ID]),
    "attempts": (search.ATTEMPTS, ["INDEX attempts_task (task_id=?)"]),
    "next key": (
        claim_sqlite.NEXT_KEY,
        [f"COVERING INDEX {DUE} ((endpoint_id,webhook,next_try)>(?,?,?))"],
    ),
    "unfinished": (schedules.UNFINISHED, ["sqlite_autoindex_schedules_1", BY_ID]),
    "waiting ahead": (
        future_times.WAITING,
        [f"INDEX {DUE} ((endpoint_id,webhook,next_try)>(?,?,?))"],
    ),
    "made ahead": (future_times.MADE, ["INDEX retry_schedule_created (created_at>?)", RUNNING]),
    "ended ahead": (
        future_times.ENDED,
        ["INDEX retry_schedule_finished (status=? AND finished_at"],
    ),
    "succeeded before": (
        future_times.SUCCESS_BEFORE,
        ["INDEX retry_schedule_endpoint (endpoint_id=? AND status=?)", "INDEX attempts_task"],
    ),
    "bring back": (future_times.BRING_BACK.format(ids="?, ?"), [BY_ID]),
    "old": (
        prune.OLD,
        [
            "INDEX retry_schedule_finished (status=? AND finished_at",
            "COVERING INDEX chores_subject (kind=? AND subject=?)",
            "INDEX retry_schedule_parent (parent_id=?)",
        ],
    ),
    "delete": (prune.DELETE.format(ids="?, ?", free=""), [BY_ID, BY_ID]),
    "delete attempts": (prune.DELETE_ATTEMPTS.format(ids="?, ?"), ["INDEX attempts_task"]),
    "who failed": (failing.ENDPOINTS, ["COVERING INDEX retry_schedule_endpoint (endpoint_id>?)"]),
    "waiting of a failing one": (failing.WAITING, [f"INDEX {DUE} (endpoint_id=? AND webhook=?)"]),
    "latest of a failing one": (failing.LATEST, [BY_ID]),
    "attempts of a failing one": (failing.TRIED, ["INDEX attempts_task"]),
    "backlog": (backlog.READY_ONES, [f"INDEX {DUE} (endpoint_id=? AND webhook=?)"]),
    "backlog of partitions": (backlog.HELD_ONES, ["INDEX retry_schedule_held (endpoint_id=? AND"]),
    "whether many ended": (search.MANY_ENDED, ["INDEX retry_schedule_finished (status=? AND"]),
    "until": (search.UNTIL, ["INDEX retry_schedule_created (created_at<?)", RUNNING]),
    "since": (search.SINCE, ["INDEX retry_schedule_created (created_at>?)", RUNNING]),
}


def plan(db: Any, sql: str) -> list[str]:
    found = db.all(f"EXPLAIN QUERY PLAN {sql}", [1] * sql.count("?"))
    return [row[3] for row in found]


@pytest.mark.parametrize("name", STATEMENTS)
async def test_a_statement_follows_its_index(store: Store, name: str) -> None:
    sql, expected = STATEMENTS[name]
    steps = await store._reader.run(lambda db: plan(db, sql))
    for part in expected:
        assert any(part in step for step in steps), steps
    for step in steps:
        # All that runs is looked at after a crash; there are never many.
        scans = "SCAN retry_schedule" in step or "SCAN attempts" in step
        assert not scans or RUNNING in step, steps
        assert "TEMP B-TREE" not in step, steps


async def test_the_counts_of_what_is_due_read_only_indexes(store: Store) -> None:
    assert await store._reader.run(lambda db: plan(db, backlog.DUE)) == [
        f"SCAN retry_schedule USING COVERING INDEX {DUE}",
        "SCALAR SUBQUERY 1",
        "SCAN retry_schedule USING COVERING INDEX retry_schedule_held",
        "SCALAR SUBQUERY 2",
        "SCAN retry_schedule USING INDEX retry_schedule_stopped",  # there are few
    ]


async def test_failing_tasks_are_grouped_of_those_that_are_looked_at(store: Store) -> None:
    steps = await store._reader.run(lambda db: plan(db, failing.FAILED))
    assert any("retry_schedule_endpoint (endpoint_id=? AND status>?" in step for step in steps)
    assert not any("SCAN retry_schedule" in step for step in steps), steps
    steps = await store._reader.run(lambda db: plan(db, failing.RUNNING))
    assert f"SCAN retry_schedule USING {RUNNING}" in steps


async def test_all_tasks_are_counted_by_indexes_alone(store: Store) -> None:
    steps = await store._reader.run(lambda db: plan(db, recount.THERE))
    assert [step for step in steps if "retry_schedule" in step] == [
        "SCAN retry_schedule USING COVERING INDEX retry_schedule_status",
        "SCAN retry_schedule USING COVERING INDEX retry_schedule_running",
    ]
    assert not any("TEMP B-TREE" in step for step in steps), steps


async def listing_plans(store: Store, wanted: TaskFilter) -> list[list[str]]:
    """The plans of a page, of the oldest tasks and of a count, each of five statuses."""
    await store.write(effects.enqueue([Insert(NewTask("call", "crm/get"))]))
    seen: list[list[str]] = []

    class Explaining(SqliteConnection):
        def all(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
            seen.append(plan(db=super(), sql=sql))
            return super().all(sql, parameters)

    def look(db: Connection) -> None:
        assert isinstance(db, SqliteConnection)
        explaining = Explaining(db.orm, db._path, db.failures, db._main_file)
        search.newest(explaining, wanted, 10, 1000)
        search.oldest(explaining, wanted, 10, 0, 1000)
        search.count(explaining, wanted, 1000)

    await store._reader.run(look)
    assert len(seen) == 15
    return seen


async def test_what_few_have_ended_since_is_found_among_these(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by going through all tasks; where many have, they are walked through as others are."""
    wanted = TaskFilter(ended_since=1)
    for steps in await listing_plans(store, wanted):
        assert "INDEX retry_schedule_finished (status=? AND finished_at>?" in steps[0]
    monkeypatch.setattr(search, "MANY_ENDED", "SELECT 1 WHERE ? <> '' AND ? > 0 AND ? > 0")
    for number, steps in enumerate(await listing_plans(store, wanted)):
        index = "running" if number % len(Status) == RUNS else "status"
        assert f"INDEX retry_schedule_{index}" in steps[0]


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        (TaskFilter(), "status"),
        (TaskFilter(kind="call"), "status"),
        (TaskFilter(status_code=StatusSet.parse(["5xx", "error"])), "status"),
        (TaskFilter(endpoint="crm/*"), "status"),
        (TaskFilter(reason=("exhausted",), left_out=("ambiguous",)), "reason"),
        (TaskFilter(reason=("exhausted",), endpoint="crm/*"), "reason"),
        (TaskFilter(since=1), "status"),
        (TaskFilter(until=1 << 50), "status"),
        (TaskFilter(webhook="ops"), "status"),
        (TaskFilter(endpoint="crm/get"), "endpoint"),
        (TaskFilter(endpoint="crm/get", kind="call", since=1), "endpoint"),
    ],
)
async def test_lists_walk_an_index_in_the_order_of_ids(
    store: Store, wanted: TaskFilter, index: str
) -> None:
    """So that a page costs as much as it shows, however many tasks there are."""
    seen = await listing_plans(store, wanted)
    for number, steps in enumerate(seen):
        step, *more = steps
        if number % len(Status) == RUNS:  # there are never many
            assert step.startswith("SCAN")
            assert step.endswith(RUNNING)
            continue
        # Nothing is sorted; what is counted is put together by reason and endpoint.
        assert more == ([] if number < 10 else ["USE TEMP B-TREE FOR GROUP BY"])
        assert f"INDEX retry_schedule_{index} (" in step
        assert "status=?" in step
        assert "rowid" in step
