"""Every transaction locks tasks, bulks, runs and endpoints in this order: daemons wait for each
other, and never in a circle."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from orchestratord.model.event import RETRY_AFTER, StoredThrottle
from orchestratord.model.settings import Retention
from orchestratord.model.task import Delete, Reason, Status, Table, Task, Upsert
from orchestratord.queue.batch import Rank, Write
from orchestratord.queue.housekeeping import prune, run_ends
from orchestratord.queue.operations import bulk as bulks
from orchestratord.queue.operations import (
    chores,
    effects,
    manual,
    partitions,
    search,
    stored_throttles,
)
from orchestratord.queue.records import CANCEL, TaskFilter
from orchestratord.queue.store import Store
from tests.conformance.store.runs.test_store_runs import begun, counts, run_of
from tests.postgres import Postgres

BULK, RUN, STATE = "bulks", "runs", "endpoint_state"


@pytest.fixture
def url(postgres: Postgres) -> Iterator[str]:
    made = postgres.create()
    yield made
    postgres.drop(made)


async def retried(queue: Any, count: int) -> tuple[Task, list[Task]]:
    """The first call of a run, and its child tasks, which a bulk has moved and which run."""
    root = await begun(queue, count, last_success_at=1)
    for task in await queue.claim():
        await queue.settle(task, Status.FAILED, reason=Reason.EXHAUSTED)
    bulk = await queue.bulk(TaskFilter(run=root.id))
    await bulks.step(queue.store, bulk.id, 100)
    return root, await queue.claim()


def free(url: str, table: str) -> bool:
    """Whether nothing has a row of it locked."""
    with psycopg.connect(url, autocommit=True) as session:
        ((rows,),) = session.execute(f"SELECT count(*) FROM {table}").fetchall()  # type: ignore[call-overload]
        unlocked = session.execute(f"SELECT 1 FROM {table} FOR UPDATE SKIP LOCKED").fetchall()  # type: ignore[call-overload]
        return rows == len(unlocked)


async def blocked(url: str, statement: str, step: Coroutine[Any, Any, Any], *tables: str) -> None:
    """While a row is locked for which this has to wait, it has locked none of these tables."""
    with psycopg.connect(url) as other:
        other.execute(statement + " FOR UPDATE")  # type: ignore[call-overload]
        waiting = asyncio.create_task(step)
        waits = "SELECT 1 FROM pg_locks WHERE NOT granted"
        while not other.execute(waits).fetchall():
            await asyncio.sleep(0.01)
        found = [table for table in tables if not free(url, table)]
        other.rollback()
        await waiting
    assert found == []


async def beside_a_stale_one(queue: Any, task: Task, step: Coroutine[Any, Any, Any]) -> None:
    late, settled = await asyncio.gather(queue.settle(replace(task, claims=99)), step)
    assert (late.accepted, settled.accepted) == (False, True)


async def test_transactions_lock_in_one_order(queue: Any, store: Store, url: str) -> None:
    root, (a, b, c, d) = await retried(queue, 4)
    run = "SELECT 1 FROM runs"
    # Together, and one by one: a claim that stands no longer has the others written alone.
    one = queue.settle(a, Status.FAILED, reason=Reason.EXHAUSTED)
    await blocked(url, run, one, STATE)
    alone = beside_a_stale_one(queue, a, queue.settle(b, last_success_at=2))
    await blocked(url, run, alone, STATE)
    # One that backs off changes nothing of its run.
    with psycopg.connect(url) as other:
        other.execute(run + " FOR UPDATE")
        waits = queue.settle(d, Status.PENDING, next_try=queue.clock.now_ms())
        await asyncio.wait_for(beside_a_stale_one(queue, a, waits), 60)
    # By a person.
    await blocked(url, run, store.write(manual.trigger(a.id)), STATE)
    seen = await store.read(search.get(a.id))
    told = queue.settlement(seen, Status.SUCCEEDED, reason=Reason.RESOLVED, last_success_at=3)
    # An endpoint is paused in the same transaction.
    steps = manual.pause("crm/get", True), manual.resolve(told)
    both = Write(Rank.HAND, lambda session: [step.run(session) for step in steps])
    await blocked(url, run, store.write(both), STATE)
    assert await store.read(manual.paused()) == {"crm/get"}
    # A bulk that moves tasks waits for them before it locks its own row.
    again = await queue.bulk(TaskFilter(status=("pending",)))
    task = f"SELECT 1 FROM retry_schedule WHERE id = {d.id}"
    await blocked(url, task, bulks.step(store, again.id, 100), BULK, RUN, STATE)
    assert (await queue.settle(c)).accepted
    found = await store.read(bulks.get(1))
    assert (found.succeeded, found.failed) == (3, 0)
    assert counts(await run_of(queue, root)) == (5, 1, 4, 0, 0)


async def test_no_settlement_waits_for_the_row_of_a_bulk(
    queue: Any, store: Store, url: str
) -> None:
    _, (a, b, c, _) = await retried(queue, 4)
    with psycopg.connect(url) as other:
        other.execute("SELECT 1 FROM bulks FOR UPDATE")
        ends = [queue.settle(a, Status.FAILED, reason=Reason.EXHAUSTED), queue.settle(b)]
        await asyncio.wait_for(asyncio.gather(*ends), 60)
        await asyncio.wait_for(beside_a_stale_one(queue, a, queue.settle(c)), 60)
        await asyncio.wait_for(store.write(manual.trigger(a.id)), 60)
    found = await store.read(bulks.get(1))
    assert (found.succeeded, found.failed, found.waiting) == (2, 0, 2)


async def test_an_end_is_counted_by_what_is_there_once_its_run_is_locked(
    two: list[Any], url: str
) -> None:
    """It ends again while another daemon takes back its last end, which nobody was told of."""
    one, other = two
    root = await begun(one, 1)
    [child] = await one.claim()
    await one.settle(child, Status.FAILED, reason=Reason.EXHAUSTED)
    [chore] = await other.chores()
    await one.store.write(manual.trigger(child.id))
    [child] = await one.claim()
    waits = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    with psycopg.connect(url) as holds_up:
        holds_up.execute("SELECT 1 FROM chores FOR UPDATE")
        steps = []
        for step in (other.store.write(run_ends.take_back(chore)), one.settle(child)):
            steps.append(asyncio.create_task(step))
            while holds_up.execute(waits).fetchall() != [(len(steps),)]:
                await asyncio.sleep(0.01)
        holds_up.rollback()
        await asyncio.gather(*steps)
    [run] = await one.untold()
    assert (run.end, (await run_of(one, root)).end) == (1, 1)


async def test_a_run_that_is_just_opened_again_is_not_deleted(
    queue: Any, store: Store, url: str
) -> None:
    root = await begun(queue, 1)
    [child] = await queue.claim()
    await queue.settle(child)
    await store.write(chores.end_all(await queue.chores()))
    queue.clock.turn(3600)
    with psycopg.connect(url) as other:
        other.execute("UPDATE runs SET open_tasks = 1, ended_at = NULL")
        pruning = asyncio.create_task(
            prune.prune(store, Retention(succeeded=10.0, failed=10.0, cancelled=10.0))
        )
        while not other.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchall():
            await asyncio.sleep(0.01)
        other.commit()
        await pruning
    assert (await run_of(queue, root)).ended_at is None


async def test_bulks_that_move_together_lock_all_tasks_first(
    queue: Any, store: Store, url: str
) -> None:
    """Else one would hold its bulk, of which the next one's task is just settled elsewhere."""
    ids = [await queue.add() for _ in range(3)]
    for task in await queue.claim():
        await queue.settle(task, Status.FAILED, reason=Reason.EXHAUSTED)
    first, second = [await queue.bulk(TaskFilter(status=("failed",))) for _ in range(2)]
    moves = [
        bulks.move_on(bulks.Move(seen, [id_], {}, id_, last=False))
        for seen, id_ in ((second, ids[1]), (first, ids[2]))
    ]
    waits = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    lock = "SELECT 1 FROM retry_schedule WHERE id = %s FOR UPDATE"
    with psycopg.connect(url) as holds_up, psycopg.connect(url) as other:
        holds_up.execute(lock, (ids[0],))
        other.execute(lock, (ids[2],))
        # While the writer waits for the first task, both moves come to be written together.
        writing = [asyncio.create_task(store.write(manual.trigger(ids[0])))]
        while other.execute(waits).fetchall() != [(1,)]:
            await asyncio.sleep(0.01)
        writing += [asyncio.create_task(store.write(move)) for move in moves]
        await asyncio.sleep(0.05)
        holds_up.rollback()
        unlocked = "SELECT 1 FROM retry_schedule WHERE id = %s FOR UPDATE SKIP LOCKED"
        while holds_up.execute(unlocked, (ids[1],)).fetchall() or (
            other.execute(waits).fetchall() != [(1,)]
        ):
            holds_up.rollback()
            await asyncio.sleep(0.01)
        assert free(url, BULK)
        other.rollback()
        await asyncio.gather(*writing)
    assert [(await store.read(bulks.get(one.id))).moved for one in (first, second)] == [1, 1]


async def test_rows_of_plugins_are_locked_in_one_order(queue: Any, url: str) -> None:
    """Table by table and row by row, whichever of them a transaction is told of first, and whatever
    it does with them."""
    names = "first", "second"
    columns = {"id": "INTEGER NOT NULL", "seen": "INTEGER"}
    await queue.reopen(*(Table(name, columns, ("id",)) for name in names))
    rows = [Upsert(name, {"id": 1}, {"seen": 1}) for name in names]
    later = Upsert("first", {"id": 2}, {"seen": 2})
    await queue.store.write(effects.write_effects([*rows, later]))
    a, b, c, d, e = [(await queue.add(), (await queue.claim())[0])[1] for _ in range(5)]
    first = "SELECT 1 FROM first WHERE id = 1"
    await blocked(url, first, queue.settle(a, effects=rows[::-1]), "second")
    alone = beside_a_stale_one(queue, a, queue.settle(b, effects=rows[::-1]))
    await blocked(url, first, alone, "second")
    counts_one = Upsert("first", {"id": 1}, {}, add={"seen": 1})
    step = queue.settle(c, effects=[later, counts_one])
    await blocked(url, first, step, "first WHERE id = 2")
    step = queue.settle(d, effects=[Delete("first", {"id": 2}), counts_one])
    await blocked(url, first, step, "first WHERE id = 2")
    assert queue.run("SELECT id, seen FROM first") == [{"id": 1, "seen": 3}]
    again = [later, Delete("first", {"id": 2}), Delete("first", {"id": 1}), rows[0]]
    assert (await queue.settle(e, effects=again)).accepted
    assert queue.run("SELECT id, seen FROM first") == [{"id": 1, "seen": 1}]


async def test_what_throttles_is_changed_by_one_after_the_other(two: Any, url: str) -> None:
    """Each daemon has its own order, and some change all rows of a scope."""
    one, other = two
    a, b = [
        StoredThrottle(name, RETRY_AFTER, "", since, since + 60_000)
        for name, since in (("api:a", 1), ("api:b", 1))
    ]
    await one.store.write(stored_throttles.note("host", [a, b], []))
    with psycopg.connect(url) as holds_up:
        holds_up.execute("SELECT 1 FROM throttles WHERE name = 'api:a' FOR UPDATE")
        waits = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        steps = []
        for queue, rows in ((other, [a, b]), (one, [b, a])):
            write = queue.store.write(stored_throttles.note("host", rows, []))
            steps.append(asyncio.create_task(write))
            while holds_up.execute(waits).fetchall() != [(len(steps),)]:
                await asyncio.sleep(0.01)
        found = free(url, "throttles WHERE name = 'api:b'")
        holds_up.rollback()
        await asyncio.gather(*steps)
    assert found


async def test_who_ends_a_replacement_locks_what_it_replaces_first(
    queue: Any, store: Store, url: str
) -> None:
    """Its id is the lower one, and those that lock several tasks go by that."""
    ids = [await queue.add() for _ in range(3)]
    for task in await queue.claim():
        await queue.settle(task, Status.FAILED, reason=Reason.EXHAUSTED)
    for id_ in ids[:2]:
        await store.write(partitions.replace(id_, queue.new()))
    a, b = await queue.claim()
    for parent, child, step in (
        (ids[0], a.id, queue.settle(a)),
        (ids[1], b.id, beside_a_stale_one(queue, a, queue.settle(b))),
    ):
        lock = f"SELECT 1 FROM retry_schedule WHERE id = {parent}"
        await blocked(url, lock, step, f"retry_schedule WHERE id = {child}")
    waiting = await store.write(partitions.replace(ids[2], queue.new()))
    given_up = await store.write(partitions.replace(a.id, queue.new(), force=True))
    lock = f"SELECT 1 FROM retry_schedule WHERE id = {ids[0]}"
    step = store.write(manual.cancel(given_up.id))
    await blocked(url, lock, step, f"retry_schedule WHERE id = {given_up.id}")
    again = partitions.replace(b.id, queue.new(), force=True)
    for place, child, write in (
        (ids[1], b.id, again),
        (ids[2], waiting.id, manual.trigger(waiting.id)),
    ):
        lock = f"SELECT 1 FROM retry_schedule WHERE id = {place}"
        await blocked(url, lock, store.write(write), f"retry_schedule WHERE id = {child}")
    bulk = await queue.bulk(TaskFilter(), action=CANCEL)
    lock = f"SELECT 1 FROM retry_schedule WHERE id = {ids[2]}"
    step = bulks.step(store, bulk.id, 100)
    await blocked(url, lock, step, f"retry_schedule WHERE id = {waiting.id}")
    assert (await store.read(search.get(waiting.id))).status == Status.CANCELLED
