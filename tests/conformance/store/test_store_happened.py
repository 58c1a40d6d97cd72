"""What is written already succeeded: with all that follows from it, once, or not at all."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from orchestratord.errors import UniqueKeyReused
from orchestratord.model.task import Key, Status, Upsert
from orchestratord.queue.operations import effects, search
from orchestratord.queue.operations.reserved_ids import ReservedIds, reserve_ids
from orchestratord.queue.records import Happened, Insert, Inserted
from orchestratord.queue.store import Store

HOOK = Key("crm/get", "ops")


async def event(queue: Any, *, name: str | None = None, **fields: Any) -> Insert:
    """An event with a delivery and a row that follow from it."""
    [id_] = await queue.store.write(reserve_ids(1))
    once = None if name is None else Upsert("health", {"name": name}, {"url": "u"})
    following = Insert(queue.new(HOOK, payload="{}", parent_id=id_))
    row = Upsert("health", {"name": f"row {id_}"}, {"url": "u"})
    return Insert(queue.new(once=once, **fields), happened=Happened(id_, [following, row]))


async def happen(queue: Any, *inserts: Insert) -> list[Inserted]:
    found: list[Inserted] = await queue.store.write(effects.enqueue(inserts))
    return found


async def test_it_succeeds_as_it_is_written(queue: Any, store: Store) -> None:
    before = await queue.add()
    new = await event(queue, params={"id": 7})
    after = await queue.add()
    [made] = await happen(queue, new)
    assert new.happened is not None
    assert before < made.id == new.happened.id < after
    task = await store.read(search.get(made.id))
    assert (task.status, task.last_status_code) == (Status.SUCCEEDED, "ok")
    assert (task.attempts, task.next_try) == (0, None)
    assert task.finished_at == task.created_at == queue.clock.now_ms()
    assert task.params == {"id": 7}
    [following] = made.following
    child = await store.read(search.get(following.id))
    assert (child.parent_id, child.status) == (made.id, Status.PENDING)
    assert queue.run(f"SELECT url FROM health WHERE name = 'row {made.id}'") == [{"url": "u"}]
    counts = await store.counts()
    assert (counts[Status.SUCCEEDED], counts[Status.PENDING]) == (1, 3)


async def test_reserved_ids_are_not_used_by_others(queue: Any, store: Store) -> None:
    several = await asyncio.gather(
        *(store.write(reserve_ids(count)) for count in (1, 3, 1)), queue.add(), queue.add()
    )
    ids = [id_ for found in several for id_ in ([found] if isinstance(found, int) else found)]
    assert len(set(ids)) == len(ids) == 7


async def test_ids_are_reserved_ahead_while_many_are_asked_for(queue: Any, store: Store) -> None:
    written: list[Any] = []

    def write(operation: Any) -> Any:
        written.append(operation)
        return store.write(operation)

    reserved = ReservedIds(write)
    found: list[int] = []

    async def take(count: int) -> None:
        for _ in range(50):
            ids = await reserved.take(count)
            assert sorted(ids) == list(ids)
            found.extend(ids)

    await asyncio.gather(*(take(count) for count in (1, 1, 1, 3)), *(queue.add() for _ in range(9)))
    assert len(set(found)) == len(found) == 300
    assert len(written) < 60
    after = await queue.add()
    assert after > max(found)
    await asyncio.sleep(0.11)  # what is left is older than that
    [last] = await reserved.take(1)
    assert last > after


async def test_a_repeat_writes_nothing(queue: Any, store: Store) -> None:
    first, again = [await event(queue, unique_key="k", params={"id": 1}) for _ in range(2)]
    [made] = await happen(queue, first)
    [repeated] = await happen(queue, again)
    assert (repeated.id, repeated.duplicate, repeated.following) == (made.id, True, ())
    with pytest.raises(UniqueKeyReused):
        await happen(queue, await event(queue, unique_key="k", params={"id": 2}))
    assert len(await queue.claim(HOOK)) == 1


async def test_of_those_with_one_row_only_the_first_is_written(queue: Any, store: Store) -> None:
    new = [await event(queue, name="evt_1") for _ in range(4)]
    made = await asyncio.gather(*(happen(queue, one) for one in new))
    assert sorted(found[0].duplicate for found in made) == [False, True, True, True]
    [late] = await happen(queue, await event(queue, name="evt_1"))
    assert late.duplicate
    assert len(await queue.claim(HOOK)) == 1
    assert len(queue.run("SELECT name FROM health WHERE name = 'evt_1'")) == 1


async def test_a_row_stays_free_where_its_task_cannot_be_written(queue: Any, store: Store) -> None:
    """Also in the company of others, which are written."""
    bad = await event(queue, name="evt_2", params={"bad": object()})
    good = await event(queue, name="evt_3")
    made = await asyncio.gather(
        happen(queue, bad), happen(queue, good), happen(queue, good), return_exceptions=True
    )
    assert isinstance(made[0], TypeError)
    assert queue.run("SELECT name FROM health WHERE name = 'evt_2'") == []
    [mended] = await happen(queue, await event(queue, name="evt_2"))
    assert not mended.duplicate


async def test_all_or_none_are_written(queue: Any, store: Store) -> None:
    good, bad = await event(queue), await event(queue, params={"bad": object()})
    with pytest.raises(TypeError):
        await happen(queue, good, bad)
    assert await queue.claim(HOOK) == []
    assert (await store.counts()).get("succeeded", 0) == 0
