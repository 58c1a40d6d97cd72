from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import Any

import pytest

from orchestratord.model.partition_turn import Partition
from orchestratord.model.task import NewTask, Upsert
from orchestratord.queue.operations import slices
from orchestratord.queue.records import Insert

HEALTH = Upsert("health", {"name": "n"}, {"url": "u"})


@pytest.fixture
async def parent(queue: Any, monkeypatch: pytest.MonkeyPatch) -> int:
    """A task that has succeeded, from which eight others follow, three in a slice."""
    monkeypatch.setattr(slices, "SLICE", 3)
    task_id: int = await queue.add()
    [task] = await queue.claim()
    new = [
        NewTask(
            "call",
            "crm/get",
            {"n": number, "text": "\0\ud800"},
            parent_id=task_id,
            depth=1,
            partition=Partition(str(number), hold=True) if number % 2 else None,
        )
        for number in range(8)
    ]
    kept, rest = slices.sliced([*new[:2], HEALTH, *new[2:]], queue.clock.now_ms())
    assert [type(effect).__name__ for effect in [*kept, *rest]] == [
        "NewTask", "NewTask", "Upsert", "NewTask", "Slice", "Slice",
    ]  # fmt: skip
    settled = await queue.settle(task, effects=items([*kept, *rest]))
    assert len(settled.inserted) == 3
    return task_id


def items(effects: Any) -> list[Any]:
    return [Insert(one) if isinstance(one, NewTask) else one for one in effects]


def numbers(queue: Any, parent: int) -> list[int]:
    found = queue.run(f"SELECT params FROM retry_schedule WHERE parent_id = {parent}")
    return sorted(json.loads(row["params"])["n"] for row in found)


async def test_slices_become_tasks_once(queue: Any, parent: int) -> None:
    store = queue.store
    assert numbers(queue, parent) == [0, 1, 2]
    [chore] = await queue.chores()  # one at a time, for the order of partitions
    first = await store.read(slices.tasks_of(chore))
    assert [task.params["n"] for task in first] == [3, 4, 5]
    assert {(task.parent_id, task.depth, task.params["text"]) for task in first} == {
        (parent, 1, "\0\ud800")
    }
    assert [task.partition for task in first] == [
        Partition("3", hold=True), None, Partition("5", hold=True),
    ]  # fmt: skip
    # Two daemons at once, and one that comes late.
    write = partial(slices.write_slice, chore, first, items(first))
    written = await asyncio.gather(*(store.write(write()) for _ in "ab"))
    written.append(await store.write(write()))
    made = [[not item.duplicate for item in inserted] for inserted in written]
    assert sorted(made) == [[False] * 3, [False] * 3, [True] * 3]
    assert numbers(queue, parent) == [0, 1, 2, 3, 4, 5]


async def test_slices_outlive_the_daemon(queue: Any, parent: int) -> None:
    tables = list(queue.store.tables.values())
    for expected in (6, 8):
        store = await queue.successor(*tables)
        [chore] = await queue.chores()
        found = await store.read(slices.tasks_of(chore))
        await store.write(slices.write_slice(chore, found, items(found)))
        assert numbers(queue, parent) == list(range(expected))
    assert await queue.chores() == []
