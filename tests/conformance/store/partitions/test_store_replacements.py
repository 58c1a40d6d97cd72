"""Tasks that are made of others, with other parameters, take their place where that is ordered."""

from __future__ import annotations

from typing import Any

import pytest

from orchestratord.errors import Conflict, Overtaken
from orchestratord.model.task import Status
from orchestratord.model.turns.partition_turn import Partition
from orchestratord.queue.operations import manual, partitions, search
from orchestratord.queue.records import TaskFilter
from orchestratord.queue.store import Store
from tests.conformance.store.conftest import KEY

ORDERED = Partition("acme", ordered=True)
HOLDS = Partition("acme", ordered=True, hold=True)


async def add(queue: Any, partition: Partition, count: int) -> list[int]:
    return [item.id for item in await queue.add_all([queue.new(partition=partition)] * count)]


async def fail_first(queue: Any) -> None:
    [task] = await queue.claim()
    await queue.settle(task, Status.FAILED)


def like(queue: Any, task_id: int) -> Any:
    return queue.new(params={"n": 2}, parent_id=task_id, partition=Partition("acme"))


@pytest.mark.parametrize("end", ["succeeded", "failed", "retried", "cancelled"])
async def test_the_others_wait_for_the_one_that_takes_the_place(
    queue: Any, store: Store, end: str
) -> None:
    first, second = await add(queue, HOLDS, 2)
    await fail_first(queue)
    assert await queue.claim() == []
    child = await store.write(partitions.replace(first, like(queue, first)))
    assert (child.replaces, child.parent_id, child.params) == (first, first, {"n": 2})
    [task] = await queue.claim()
    assert task.id == child.id
    if end == "retried":  # by itself, and it succeeds then
        await queue.settle(task, Status.PENDING, next_try=queue.clock.now_ms())
        [task], end = await queue.claim(), "succeeded"
        assert task.id == child.id
    if end == "cancelled":
        await queue.settle(task, Status.PENDING, next_try=queue.clock.now_ms() + 9000)
        await store.write(manual.cancel(child.id))
    else:
        await queue.settle(task, Status(end))
    if end != "succeeded":
        # It is as it was: the partition waits for a person, who tries once more.
        assert await queue.claim() == []
        other = await store.write(partitions.replace(child.id, like(queue, child.id)))
        assert (other.replaces, other.parent_id) == (first, child.id)
        [task] = await queue.claim()
        await queue.settle(task)
    assert [one.id for one in await queue.claim()] == [second]


async def test_where_a_partition_goes_on_after_a_failure_the_place_is_kept(
    queue: Any, store: Store
) -> None:
    first, second, third = await add(queue, ORDERED, 3)
    await fail_first(queue)  # the second one has its turn by now
    child = await store.write(partitions.replace(first, like(queue, first)))
    [task] = await queue.claim()
    assert task.id == child.id
    await queue.settle(task, Status.FAILED)
    [task] = await queue.claim()
    assert task.id == second
    why = f"another task of the partition of task {child.id} is running"
    for step in (
        partitions.replace(child.id, like(queue, child.id), force=True),
        manual.trigger(child.id, force=True),
    ):
        with pytest.raises(Conflict, match=why):
            await store.write(step)
    await queue.settle(task, Status.FAILED)
    for step in (
        partitions.replace(child.id, like(queue, child.id)),
        manual.trigger(child.id),
    ):
        with pytest.raises(Overtaken, match=f"task {child.id} .* task {second} came after it"):
            await store.write(step)
    # What took a place is in no order: it overtakes nothing.
    await store.write(manual.trigger(second))
    assert [one.id for one in await queue.claim()] == [second]
    assert (await store.read(search.get(third))).held


async def test_what_may_still_be_sent_is_not_replaced(queue: Any, store: Store) -> None:
    waits = await queue.add()
    done = await queue.ended(Status.SUCCEEDED, KEY._replace(endpoint_id="crm/put"))
    for id_, why in ((waits, "is pending and may be sent as it is"), (done, "has succeeded")):
        with pytest.raises(Conflict, match=why):
            await store.write(partitions.replace(id_, queue.new()))
    await store.write(partitions.replace(done, queue.new(parent_id=done), force=True))
    found, _ = await store.read(search.page(TaskFilter(parent=done), 9))
    assert [task.replaces for task in found] == [done]
