"""Calls that are made together, each by itself, with the rows that they are made of."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import psycopg
import pytest

from orchestratord.errors import RoleLost, UniqueKeyReused
from orchestratord.model.task import NewTask, QueueRows, Table, Upsert
from orchestratord.queue.operations import effects, plugin_rows, search
from orchestratord.queue.operations.enqueue_each import enqueue_each
from orchestratord.queue.operations.roles import fenced, hold_role, release_role
from orchestratord.queue.records import Happened, Insert, Inserted, TaskFilter
from orchestratord.queue.store import Store
from tests.conformance.store.conftest import HEALTH

ROLE = "service:plugin/name"
TAKEN = Table("taken", {"uid": "TEXT NOT NULL", "at": "INTEGER NOT NULL"}, ("uid",))


@pytest.fixture
async def store(queue: Any) -> Store:
    await queue.store.close()
    opened: Store = await queue.open(HEALTH, TAKEN)
    return opened


def call(queue: Any, number: int, **fields: Any) -> NewTask:
    once = Upsert("taken", {"uid": str(uuid.UUID(int=number))}, {"at": number})
    task: NewTask = queue.new(params={"n": number}, once=once, **fields)
    return task


async def make(store: Store, *calls: NewTask, role: str | None = None) -> list[Any]:
    return await store.write(fenced(enqueue_each([Insert(task) for task in calls]), role))


async def made(store: Store) -> list[Any]:
    found, _ = await store.read(search.page(TaskFilter(), 100))
    return sorted(task.params["n"] for task in found)


async def test_a_call_is_made_once_however_often_its_row_comes(queue: Any, store: Store) -> None:
    calls = [call(queue, n) for n in range(3)]
    assert all(isinstance(result, Inserted) for result in await make(store, *calls))
    *before, new, twice = await make(store, *calls, call(queue, 3), call(queue, 3))
    assert before == [None] * 3
    assert isinstance(new, Inserted)
    assert twice is None
    assert await made(store) == [0, 1, 2, 3]
    found = await plugin_rows.rows(store, "taken", order="at", limit=2)
    assert [row["at"] for row in found] == [0, 1]


async def test_one_that_its_key_refuses_keeps_back_no_other_and_leaves_its_row(
    queue: Any, store: Store
) -> None:
    one, other = call(queue, 1, unique_key="k"), call(queue, 2, unique_key="k")
    same = queue.new(params={"n": 1}, unique_key="k")
    first, second, third, last = await make(store, one, same, other, call(queue, 4))
    assert (second.id, second.duplicate, first.duplicate) == (first.id, True, False)
    assert isinstance(third, UniqueKeyReused)
    assert isinstance(last, Inserted)
    assert await made(store) == [1, 4]
    assert isinstance((await make(store, call(queue, 2)))[0], Inserted)


async def test_many_keys_and_rows_are_looked_up_at_once(queue: Any, store: Store) -> None:
    known = [queue.new(params={"n": n}, unique_key=f"k{n}") for n in range(0, 700, 7)]
    ids = {item.id for item in await queue.add_all(known)}
    calls = [call(queue, n, unique_key=f"k{n}") for n in range(700)]
    results = await make(store, *calls)
    assert {result.id for result in results if result.duplicate} == ids
    assert len({result.id for result in results}) == 700
    assert await make(store, *calls) == [None] * 700


async def test_what_can_never_be_written_leaves_nothing(queue: Any, store: Store) -> None:
    texts = [
        Upsert("health", {"name": "n"}, {"url": text}, {"seen": 1}) for text in ("\udc80", "good")
    ]
    inserts = [Insert(call(queue, 1)), Insert(call(queue, 2), happened=Happened(1_000, texts))]
    with pytest.raises(Exception, match=r"surrogates|stored|udc80"):
        await store.write(enqueue_each(inserts))
    assert await made(store) == []
    assert await plugin_rows.rows(store, "taken") == []


async def test_who_does_not_hold_the_role_writes_nothing(queue: Any, store: Store) -> None:
    row = [Upsert("taken", {"uid": "x"}, {"at": 1})]
    for _ in range(2):
        with pytest.raises(RoleLost):
            await make(store, call(queue, 1), role=ROLE)
        with pytest.raises(RoleLost):
            await store.write(fenced(effects.write_effects(row), ROLE))
        with pytest.raises(RoleLost):
            await store.write(fenced(effects.enqueue([Insert(call(queue, 1))]), ROLE))
        await store.write(hold_role(ROLE))
        await store.write(release_role(ROLE))
    assert await made(store) == []
    assert await plugin_rows.rows(store, "taken") == []
    await store.write(hold_role(ROLE))
    # What another asks for in the same transaction is not kept back.
    others = asyncio.gather(
        *(store.write(effects.enqueue([Insert(queue.new(params={"n": n}))])) for n in (7, 8))
    )
    assert len(await make(store, call(queue, 1), role=ROLE)) == 1
    await store.write(fenced(effects.write_effects(row), ROLE))
    await others
    assert await made(store) == [1, 7, 8]
    assert len(await plugin_rows.rows(store, "taken")) == 2


@pytest.mark.parametrize("new_url", ["postgres"], indirect=True)
async def test_who_was_only_cut_off_writes_nothing_more(two: Any) -> None:
    one, other = two
    insert = [Insert(one.new(params={"n": 1}))]
    await one.store.write(hold_role(ROLE))
    one.run(f"UPDATE meta SET value = '{one.store.owner} 1' WHERE name = '{ROLE}'")
    assert await other.store.write(hold_role(ROLE))
    assert await other.store.write(fenced(enqueue_each(insert), ROLE))
    with pytest.raises(RoleLost):
        await one.store.write(fenced(enqueue_each(insert), ROLE))
    assert await made(one.store) == [1]


WAITING = """
SELECT id FROM given WHERE id IN (SELECT value FROM json_each(?))
"""
WAITING_PG = """
SELECT id::text FROM given
WHERE id IN (SELECT v::bigint FROM jsonb_array_elements_text(?::jsonb) AS t (v))
FOR UPDATE SKIP LOCKED
"""


async def test_a_row_of_the_queues_database_goes_with_its_call(queue: Any, store: Store) -> None:
    lock = WAITING_PG if store.several_daemons and "postgres" in queue.url else WAITING
    those = lock.replace("SELECT id::text", "SELECT id").replace("FOR UPDATE SKIP LOCKED", "")
    rows = QueueRows(lock, f"DELETE FROM given WHERE id IN ({those})")
    queue.run("CREATE TABLE given (id bigint PRIMARY KEY)")
    for n in range(1, 5):
        queue.run(f"INSERT INTO given VALUES ({n})")

    async def take(*numbers: int, **fields: Any) -> list[Any]:
        inserts = [Insert(queue.new(params={"n": n}, **fields)) for n in numbers]
        return await store.write(enqueue_each(inserts, rows, [str(n) for n in numbers]))

    assert [result is None for result in await take(1, 9)] == [False, True]
    assert await take(1) == [None]
    refused = await take(2, 3, unique_key="k")
    assert isinstance(refused[0], Inserted)
    assert isinstance(refused[1], UniqueKeyReused)
    assert [row["id"] for row in queue.run("SELECT id FROM given ORDER BY id")] == [3, 4]
    assert await made(store) == [1, 2]
    if lock is WAITING_PG:
        with psycopg.connect(queue.url) as session:
            session.execute("SELECT 1 FROM given WHERE id = 3 FOR UPDATE")
            assert [result is None for result in await take(3, 4)] == [True, False]
