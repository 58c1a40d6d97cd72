from __future__ import annotations

import asyncio
from typing import Any

import pytest

from orchestratord.errors import NotFound
from orchestratord.model.task import Key, Status
from orchestratord.queue.operations import bulk as bulks
from orchestratord.queue.operations import manual, search
from orchestratord.queue.records import CANCEL, TaskFilter
from orchestratord.queue.store import Store
from orchestratord.values.status_set import StatusSet

GET, OTHER = Key("crm/get"), Key("crm/put")


async def failed(queue: Any, number: int, key: Key = GET) -> list[int]:
    return [await queue.ended(Status.FAILED, key, max_attempts=1) for _ in range(number)]


async def finish(store: Store, bulk_id: int, limit: int = 100) -> Any:
    while (bulk := (await bulks.step(store, bulk_id, limit))[0]).status == "running":
        pass
    return bulk


async def test_without_a_status_the_failed_ones_are_meant(queue: Any, store: Store) -> None:
    ids = await failed(queue, 3)
    cancelled = await queue.ended(Status.CANCELLED)
    succeeded = await queue.ended(Status.SUCCEEDED)
    queue.clock.turn(60)
    bulk = await bulks.create(store, TaskFilter(endpoint="crm/*"), 10.0, False)
    assert (bulk.matched, bulk.status, bulk.rate) == (3, "running", 10.0)
    assert bulk.filter == TaskFilter(status=("failed",), endpoint="crm/*")
    bulk, keys = await bulks.step(store, bulk.id, 100)
    assert (bulk.status, bulk.moved, bulk.skipped) == ("finished", 3, 0)
    assert bulk.finished_at == queue.clock.now_ms()
    assert list(keys) == [Key("crm/get")]
    for id_ in ids:
        task = await store.read(search.get(id_))
        assert (task.status, task.next_try, task.reason) == ("pending", queue.clock.now_ms(), None)
        assert (task.granted, task.max_attempts) == (1, 2)
        assert (task.retried_at, task.finished_at) == (queue.clock.now_ms(), None)
    assert (await store.read(search.get(cancelled))).status == Status.CANCELLED
    assert (await store.read(search.get(succeeded))).status == Status.SUCCEEDED
    assert (await store.counts())["pending"] == 3


async def test_a_dry_run_only_counts(queue: Any, store: Store) -> None:
    await failed(queue, 3)
    bulk = await bulks.create(store, TaskFilter(kind="call"), None, True)
    assert (bulk.matched, bulk.moved, bulk.status, bulk.dry_run) == (3, 0, "finished", True)
    assert bulk.finished_at == queue.clock.now_ms()
    assert bulk.filter == TaskFilter(status=("failed",), kind="call")
    assert (await store.counts())["failed"] == 3


async def test_a_dry_run_leaves_no_trace(queue: Any, store: Store) -> None:
    await failed(queue, 1)
    assert (await bulks.create(store, TaskFilter(kind="call"), None, True)).id == 0
    assert await store.read(bulks.running()) == []
    with pytest.raises(NotFound):
        await store.read(bulks.get(1))
    assert (await bulks.create(store, TaskFilter(kind="call"), None, False)).id == 1


async def test_steps_are_as_small_as_asked(queue: Any, store: Store) -> None:
    ids = await failed(queue, 5)
    bulk = await bulks.create(store, TaskFilter(status=("failed",)), None, False)
    bulk, keys = await bulks.step(store, bulk.id, 2)
    assert (bulk.moved, bulk.cursor, bulk.status) == (2, ids[1], "running")
    assert list(keys) == [Key("crm/get")]
    bulk, _ = await bulks.step(store, bulk.id, 2)
    bulk, _ = await bulks.step(store, bulk.id, 2)
    assert (bulk.moved, bulk.status, bulk.cursor) == (5, "finished", bulk.highest_id)


async def test_no_task_moves_twice(queue: Any, store: Store) -> None:
    ids = await failed(queue, 4)
    bulk = await bulks.create(store, TaskFilter(status=("failed",)), None, False)
    await bulks.step(store, bulk.id, 2)
    for task in await queue.claim():
        await queue.settle(task, Status.FAILED)  # they fail again while it goes on
    bulk = await finish(store, bulk.id)
    assert (bulk.moved, bulk.matched) == (4, 4)
    assert [(await store.read(search.get(id_))).status for id_ in ids] == ["failed"] * 2 + [
        "pending"
    ] * 2


async def test_steps_at_the_same_time_move_no_task_twice(queue: Any, store: Store) -> None:
    await failed(queue, 30)
    bulk = await bulks.create(store, TaskFilter(status=("failed",)), None, False)
    await asyncio.gather(*(bulks.step(store, bulk.id, 3) for _ in range(10)))
    bulk = await finish(store, bulk.id, 3)
    assert (bulk.moved, bulk.skipped) == (30, 0)


async def test_tasks_that_came_later_are_left_alone(queue: Any, store: Store) -> None:
    await failed(queue, 2)
    bulk = await bulks.create(store, TaskFilter(status=("failed",)), None, False)
    [late] = await failed(queue, 1)
    bulk = await finish(store, bulk.id)
    assert bulk.moved == 2
    assert (await store.read(search.get(late))).status == Status.FAILED


async def test_it_goes_on_after_reopening(queue: Any, store: Store) -> None:
    await failed(queue, 5)
    wanted = TaskFilter(
        status=("failed", "cancelled"),
        status_code=StatusSet.parse(["5xx", "error"]),
        endpoint="crm/get",
        kind="call",
        since=queue.clock.now_ms() - 1000,
    )
    bulk = await bulks.create(store, wanted, 5.0, False)
    bulk, _ = await bulks.step(store, bulk.id, 2)
    store = await queue.reopen()
    assert await store.read(bulks.running()) == [bulk]
    assert bulk.filter == wanted
    queue.run("UPDATE bulks SET lease_until = 1")  # or others would wait until it has run out
    bulk = await finish(store, bulk.id)
    assert (bulk.moved, bulk.matched) == (5, 5)
    assert await store.read(bulks.running()) == []


async def test_pending_become_due_running_and_succeeded_are_skipped(
    queue: Any, store: Store
) -> None:
    succeeded = await queue.ended(Status.SUCCEEDED)
    running = await queue.add()
    await queue.claim()
    late = await queue.add(delay=3600)
    early = await queue.add(delay=1)
    queue.clock.turn(60)
    every = tuple(str(status) for status in Status)
    bulk = await bulks.create(store, TaskFilter(status=every), None, False)
    assert bulk.matched == 4
    bulk = await finish(store, bulk.id)
    assert (bulk.moved, bulk.skipped) == (2, 2)
    assert (await store.read(search.get(succeeded))).status == Status.SUCCEEDED
    assert (await store.read(search.get(running))).status == Status.RUNNING
    assert (await store.read(search.get(late))).next_try == queue.clock.now_ms()
    assert (await store.read(search.get(early))).next_try == queue.clock.now_ms() - 59_000


async def test_one_that_changed_before_its_turn_is_not_touched(queue: Any, store: Store) -> None:
    ids = await failed(queue, 2)
    bulk = await bulks.create(store, TaskFilter(status=("failed",)), None, False)
    await store.write(manual.cancel(ids[1]))
    bulk = await finish(store, bulk.id)
    assert (bulk.moved, bulk.matched) == (1, 2)
    assert (await store.read(search.get(ids[1]))).status == Status.CANCELLED


async def test_the_filter_counts(queue: Any, store: Store) -> None:
    await failed(queue, 2)
    [other] = await failed(queue, 1, OTHER)
    bulk = await bulks.create(store, TaskFilter(endpoint="crm/put"), None, False)
    bulk, keys = await bulks.step(store, bulk.id, 100)
    assert (bulk.moved, list(keys)) == (1, [OTHER])
    assert (await store.read(search.get(other))).status == Status.PENDING


async def test_nothing_to_do(queue: Any, store: Store) -> None:
    bulk = await bulks.create(store, TaskFilter(endpoint="crm/none"), None, False)
    assert (bulk.status, bulk.matched) == ("finished", 0)


async def test_cancelled_it_stops_where_it_is(queue: Any, store: Store) -> None:
    await failed(queue, 4)
    bulk = await bulks.create(store, TaskFilter(status=("failed",)), None, False)
    await bulks.step(store, bulk.id, 1)
    bulk = await store.write(bulks.cancel(bulk.id))
    assert (bulk.status, bulk.moved, bulk.finished_at) == ("cancelled", 1, queue.clock.now_ms())
    assert await bulks.step(store, bulk.id, 10) == (bulk, {})
    assert await store.write(bulks.cancel(bulk.id)) == bulk
    assert (await store.counts())["failed"] == 3


async def test_an_unknown_one(store: Store) -> None:
    for ask in (store.read(bulks.get(9)), store.write(bulks.cancel(9)), bulks.step(store, 9, 1)):
        with pytest.raises(NotFound, match="there is no bulk 9"):
            await ask


# -- cancelling ------------------------------------------------------------------------------------


async def test_cancelling_without_a_status_means_what_waits(queue: Any, store: Store) -> None:
    waits = [await queue.add(delay=9) for _ in range(3)]
    [broken] = await failed(queue, 1)
    bulk = await bulks.create(store, TaskFilter(endpoint="crm/*"), None, False, CANCEL)
    assert (bulk.matched, bulk.action, bulk.filter.status) == (3, "cancel", ("pending",))
    bulk, keys = await bulks.step(store, bulk.id, 100)
    assert (bulk.status, bulk.moved, keys) == ("finished", 3, {GET: waits})
    for id_ in waits:
        task = await store.read(search.get(id_))
        assert (task.status, task.next_try, task.finished_at) == (
            "cancelled",
            None,
            queue.clock.now_ms(),
        )
    assert (await store.read(search.get(broken))).status == Status.FAILED
    assert (await store.counts())["cancelled"] == 3
    assert (await store.read(bulks.get(bulk.id))).action == "cancel"
    assert [one.id for one in await store.read(bulks.newest(10))] == [bulk.id]


async def test_what_runs_is_asked_and_what_succeeded_is_left(queue: Any, store: Store) -> None:
    done = await queue.ended(Status.SUCCEEDED)
    broken = await queue.ended(Status.FAILED)
    running = await queue.add()
    [claimed] = await queue.claim()
    wanted = TaskFilter(status=("running", "failed"), ids=(done, broken, running))
    bulk = await bulks.create(store, wanted, None, False, CANCEL)
    bulk, keys = await bulks.step(store, bulk.id, 100)
    assert (bulk.moved, bulk.skipped, keys) == (2, 0, {GET: [broken]})
    assert (await store.read(search.get(done))).status == Status.SUCCEEDED
    assert (await store.read(search.get(running))).status == Status.RUNNING
    settled = await queue.settle(claimed, Status.PENDING, next_try=queue.clock.now_ms() + 1000)
    assert settled.status == "cancelled"


async def test_a_bulk_remembers_all_of_its_filter(queue: Any, store: Store) -> None:
    [one, *_] = await failed(queue, 2)
    wanted = TaskFilter(
        status=("failed",), kind="call", since=1, until=1 << 50, text="crm", ids=(one,)
    )
    bulk = await bulks.create(store, wanted, None, False)
    assert (await store.read(bulks.get(bulk.id))).filter == wanted
    assert (await finish(store, bulk.id)).moved == 1
