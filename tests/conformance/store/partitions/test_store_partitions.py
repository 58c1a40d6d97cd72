"""Partitions: fair turns, limits, and order, whoever claims."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from orchestratord.errors import Overtaken
from orchestratord.model.partition_turn import Partition
from orchestratord.model.settings import Retention
from orchestratord.model.task import Key, Reason, Status, Task
from orchestratord.queue.housekeeping import prune
from orchestratord.queue.operations import bulk as bulks
from orchestratord.queue.operations import claim, manual, partitions, search
from orchestratord.queue.records import CHANGED, OVERTAKEN, Pick, TaskFilter
from orchestratord.queue.reports import backlog
from orchestratord.queue.store import Store
from tests.conformance.store.conftest import KEY

FAIR, OTHER = Partition("acme"), Partition("other")
TWO = Partition("acme", concurrency=2)
ORDERED = Partition("acme", ordered=True)
HOLDS = Partition("acme", ordered=True, hold=True)


SHARED = pytest.mark.parametrize("new_url", ["workers", "postgres"], indirect=True)


def ids(tasks: list[Task]) -> list[int]:
    return [task.id for task in tasks]


async def add(queue: Any, partition: Partition, count: int, **fields: Any) -> list[int]:
    new = [queue.new(partition=partition, **fields) for _ in range(count)]
    return [item.id for item in await queue.add_all(new)]


async def get(queue: Any, id_: int) -> Task:
    found: Task = await queue.store.read(search.get(id_))
    return found


async def back_off(queue: Any, task: Task, seconds: float = 5.0) -> None:
    next_try = queue.clock.now_ms() + round(seconds * 1000)
    settled = await queue.settle(task, Status.PENDING, next_try=next_try)
    assert settled.accepted


# -- Fair turns ------------------------------------------------------------------------------------


async def test_partitions_take_turns_however_many_wait_in_one(queue: Any) -> None:
    await add(queue, FAIR, 50)
    others = await add(queue, OTHER, 3)
    served = []
    for _ in range(6):
        queue.clock.turn(0.01)
        served += [task.partition for task in await queue.claim(limit=1)]
    assert served == ["acme", "other"] * 3
    queue.clock.turn(0.01)
    claimed = await queue.claim(limit=4)
    assert {task.partition for task in claimed} == {"acme"}
    assert (await get(queue, others[-1])).status == Status.RUNNING


@pytest.mark.slow
async def test_small_partitions_are_done_as_soon_as_without_a_large_one(queue: Any) -> None:
    took = []
    for key, large in ((Key("crm/without"), 0), (Key("crm/with"), 1000)):
        new = [queue.new(key, partition=FAIR)] * large
        new += [queue.new(key, partition=Partition(f"small{n // 10}")) for n in range(200)]
        await queue.add_all(new)
        rounds = left = 200
        while left:
            rounds += 1
            queue.clock.turn(0.01)
            for task in await queue.claim(key, 10):
                left -= task.partition != FAIR.value
                await queue.settle(task)
        took.append(rounds - 200)
    without, beside = took
    assert without == 20
    assert beside <= 1.2 * without


async def test_one_partition_is_claimed_in_full_batches(queue: Any) -> None:
    first = await add(queue, FAIR, 30)
    assert ids(await queue.claim(limit=20)) == first[:20]
    assert ids(await queue.claim(limit=20)) == first[20:]
    assert await queue.claim() == []


async def test_of_one_that_is_not_known_to_be_quick_one_is_claimed_at_a_time(
    queue: Any, store: Store
) -> None:
    """It may hang."""
    for number in range(3):
        await add(queue, Partition(f"new{number}"), 10)
    quick = frozenset({"new1"})
    pick = Pick(KEY, 9, True, queue.clock.now_ms(), quick=quick)
    claimed = (await store.write(claim.claim([pick]))).tasks
    assert Counter(task.partition for task in claimed) == {"new0": 1, "new1": 7, "new2": 1}


async def test_a_partition_with_room_is_shared_by_those_that_are_due(queue: Any) -> None:
    await add(queue, FAIR, 50)
    await add(queue, OTHER, 50)
    claimed = await queue.claim(limit=20)
    assert sorted(task.partition for task in claimed) == ["acme"] * 10 + ["other"] * 10


async def test_what_is_due_earlier_goes_first_within_a_partition(queue: Any) -> None:
    [later] = await add(queue, FAIR, 1, delay=60)
    [sooner] = await add(queue, FAIR, 1, delay=5)
    assert not (await get(queue, sooner)).held
    assert (await get(queue, later)).held
    queue.clock.turn(5)
    assert ids(await queue.claim()) == [sooner]
    assert (await get(queue, later)).next_try == queue.clock.now_ms() + 55_000
    queue.clock.turn(55)
    assert ids(await queue.claim()) == [later]


async def test_one_that_backs_off_does_not_hold_a_fair_partition(queue: Any) -> None:
    first, second = await add(queue, FAIR, 2)
    [task] = await queue.claim(limit=1)
    await back_off(queue, task)
    assert ids(await queue.claim(limit=1)) == [second]
    queue.clock.turn(5)
    assert ids(await queue.claim(limit=1)) == [first]


async def test_partitions_to_be_avoided_are_passed_over(queue: Any, store: Store) -> None:
    await add(queue, FAIR, 3)
    others = await add(queue, OTHER, 2)
    plain = await queue.add()
    now = queue.clock.now_ms()
    pick = Pick(KEY, 10, True, now, avoid=frozenset({"acme"}), quick=frozenset({"other"}))
    claimed = await store.write(claim.claim([pick]))
    assert sorted(ids(claimed.tasks)) == sorted([*others, plain])
    assert claimed.earliest == {KEY: None}
    assert len(await queue.claim()) == 3


async def test_the_own_daemon_hears_of_whose_turn_has_come(queue: Any, store: Store) -> None:
    await add(queue, ORDERED, 2)
    assert (await store.elected.take()).due == {KEY: queue.clock.now_ms()}
    [task] = await queue.claim()
    await queue.settle(task)
    assert (await store.elected.take()).due == {KEY: queue.clock.now_ms()}


# -- Limits ----------------------------------------------------------------------------------------


async def test_no_more_of_a_partition_run_than_its_limit(queue: Any) -> None:
    await add(queue, TWO, 5)
    running = await queue.claim()
    running += await queue.claim()
    assert len(running) == 2
    assert await queue.claim() == []
    await queue.settle(running[0])
    assert len(await queue.claim()) == 1
    assert await queue.claim() == []


@SHARED
async def test_two_daemons_share_a_limit(two: Any) -> None:
    first, second = two
    await add(first, TWO, 6)
    one = await first.claim()
    other = await second.claim()
    assert (len(one), len(other)) == (1, 1)
    assert await first.claim() == []
    assert await second.claim() == []
    await second.settle(other[0])
    assert len(await first.claim()) == 1


async def test_a_claim_that_comes_back_does_not_add_to_the_limit(queue: Any, store: Store) -> None:
    await add(queue, TWO, 5)
    running = [*await queue.claim(), *await queue.claim()]
    await store.write(claim.release_claims(running))
    again = [*await queue.claim(), *await queue.claim(), *await queue.claim()]
    assert len(again) == 2


# -- Order -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [Status.SUCCEEDED, Status.FAILED, Status.CANCELLED])
async def test_an_ordered_partition_goes_one_after_the_other(queue: Any, status: Status) -> None:
    made = await add(queue, ORDERED, 3)
    for id_ in made:
        [task] = await queue.claim()
        assert task.id == id_
        assert await queue.claim() == []
        settled = await queue.settle(task, status)
        assert not settled.holds
    assert await queue.claim() == []


async def test_one_that_backs_off_holds_an_ordered_partition(queue: Any) -> None:
    first, second = await add(queue, ORDERED, 2)
    [task] = await queue.claim()
    await back_off(queue, task)
    assert await queue.claim() == []
    assert (await get(queue, second)).held
    queue.clock.turn(5)
    [task] = await queue.claim()
    assert task.id == first
    await queue.settle(task)
    assert ids(await queue.claim()) == [second]


async def test_an_ordered_partition_can_wait_for_a_person(queue: Any, store: Store) -> None:
    first, second = await add(queue, HOLDS, 2)
    [task] = await queue.claim()
    assert (await queue.settle(task, Status.FAILED, reason=Reason.EXHAUSTED)).holds
    assert await queue.claim() == []
    assert (await store.read(backlog.due_tasks(0, 9)))[3:] == (1, [(KEY, "acme", first)])
    assert (await store.read(backlog.due_tasks(1 << 62, 9))).held == 1
    holder = await store.read(partitions.holder(await get(queue, second)))
    assert holder == first
    await store.write(manual.trigger(first))
    [task] = await queue.claim()
    assert task.id == first
    await queue.settle(task)
    assert ids(await queue.claim()) == [second]


async def test_what_holds_a_partition_is_cancelled(queue: Any, store: Store) -> None:
    first, second = await add(queue, HOLDS, 2)
    [task] = await queue.claim()
    await queue.settle(task, Status.FAILED, reason=Reason.AMBIGUOUS)
    await store.write(manual.cancel(first))
    assert ids(await queue.claim()) == [second]


@pytest.mark.parametrize("reason", [Reason.EXPIRED, Reason.WEBHOOK_REMOVED])
async def test_what_expires_or_is_removed_lets_the_next_go(queue: Any, reason: Reason) -> None:
    _, second = await add(queue, HOLDS, 2)
    [task] = await queue.claim()
    assert not (await queue.settle(task, Status.FAILED, reason=reason)).holds
    assert ids(await queue.claim()) == [second]


async def test_what_is_gone_lets_all_of_its_partitions_go(queue: Any, store: Store) -> None:
    """Tasks behind one that failed and holds would wait for ever."""
    first, second, third = await add(queue, HOLDS, 3)
    [other] = await add(queue, Partition("other", ordered=True, hold=True), 1)
    for task in await queue.claim():
        await queue.settle(task, Status.FAILED, reason=Reason.NOT_RETRYABLE)
    assert await store.read(partitions.stopped_keys()) == [KEY]
    assert await store.write(partitions.release_partitions(Key("crm/put"))) == 0
    assert await store.write(partitions.release_partitions(KEY)) == 2
    assert await store.read(partitions.stopped_keys()) == []
    assert ids(await queue.claim()) == [second]
    assert (await get(queue, third)).held
    assert {(await get(queue, id_)).status for id_ in (first, other)} == {Status.FAILED}


async def test_cancelled_ones_are_passed_over(queue: Any, store: Store) -> None:
    first, second, third, fourth = await add(queue, ORDERED, 4)
    await store.write(manual.cancel(second))
    await store.write(manual.cancel(first))
    [task] = await queue.claim()
    assert task.id == third
    await store.write(manual.cancel(fourth))
    await queue.settle(task)
    assert await queue.claim() == []


async def test_give_up_after_counts_from_when_its_turn_came(queue: Any) -> None:
    first, second = await add(queue, ORDERED, 2)
    assert (await get(queue, first)).first_at == queue.clock.now_ms()
    assert (await get(queue, second)).first_at is None
    queue.clock.turn(100)
    [task] = await queue.claim()
    await back_off(queue, task)
    queue.clock.turn(5)
    [task] = await queue.claim()
    await queue.settle(task)
    [task] = await queue.claim()
    assert (task.id, task.first_at) == (second, queue.clock.now_ms())


async def test_a_claim_of_a_dead_daemon_holds_until_it_is_taken_over(queue: Any) -> None:
    first, second = await add(queue, ORDERED, 2)
    assert ids(await queue.claim(idempotent=False)) == [first]
    await queue.successor()
    assert await queue.claim() == []
    await claim.reclaim(queue.store)
    [task] = await queue.claim()
    assert task.id == first
    await queue.settle(task)
    assert ids(await queue.claim()) == [second]


async def test_ordered_and_others_of_a_partition_are_lines_of_their_own(queue: Any) -> None:
    """As where the rule was changed: each goes by its own."""
    fair = await add(queue, FAIR, 2)
    ordered = await add(queue, ORDERED, 2)
    assert sorted(ids(await queue.claim())) == sorted([*fair, ordered[0]])
    assert await queue.claim() == []


# -- Manual retries --------------------------------------------------------------------------------


async def test_a_manual_retry_is_refused_once_a_later_one_has_started(
    queue: Any, store: Store
) -> None:
    first, second, third = await add(queue, ORDERED, 3)
    [task] = await queue.claim()
    await queue.settle(task, Status.FAILED)
    await store.write(manual.trigger(first))  # the second has not started
    [task] = await queue.claim()
    assert task.id == first
    await queue.settle(task, Status.FAILED)
    [task] = await queue.claim()
    assert task.id == second
    with pytest.raises(Overtaken, match=f"task {second} came after it") as refused:
        await store.write(manual.trigger(first))
    assert refused.value.by == second
    await store.write(manual.trigger(first, force=True))
    assert await queue.claim() == []  # the second runs
    await queue.settle(task)
    [task] = await queue.claim()
    assert task.id == first
    await queue.settle(task)
    assert ids(await queue.claim()) == [third]


async def test_a_pending_one_that_is_retried_keeps_its_place(queue: Any, store: Store) -> None:
    first, second = await add(queue, ORDERED, 2)
    [task] = await queue.claim()
    await back_off(queue, task, 600)
    assert (await store.write(manual.trigger(second))).held
    assert await queue.claim() == []
    await store.write(manual.trigger(first))
    assert ids(await queue.claim()) == [first]


async def test_one_of_a_fair_partition_goes_to_the_front(queue: Any, store: Store) -> None:
    made = await add(queue, FAIR, 3)
    await queue.add()
    queue.clock.turn(1)
    assert not (await store.write(manual.trigger(made[2]))).held
    assert ids(await queue.claim(limit=1)) == [made[2]]
    assert len(await queue.claim()) == 3


async def test_one_of_a_partition_with_a_limit_goes_to_its_front(queue: Any, store: Store) -> None:
    made = await add(queue, TWO, 4)
    running = [*await queue.claim(), *await queue.claim()]
    assert (await store.write(manual.trigger(made[3]))).held
    assert await queue.claim() == []
    await queue.settle(running[0])
    await queue.settle(running[1])
    assert len([*await queue.claim(), *await queue.claim(), *await queue.claim()]) == 2


async def test_bulks_pass_over_what_is_overtaken(queue: Any, store: Store) -> None:
    first, second, third = await add(queue, ORDERED, 3)
    for _ in range(2):
        [task] = await queue.claim()
        await queue.settle(task, Status.FAILED)
    bulk = await queue.bulk(TaskFilter())
    bulk, moved = await bulks.step(store, bulk.id, 10)
    assert moved == {KEY: [second]}
    assert bulk.why_skipped == {OVERTAKEN: 1}
    assert CHANGED not in bulk.why_skipped
    assert ids(await queue.claim()) == [second]
    assert (await get(queue, first)).status == Status.FAILED
    assert (await get(queue, third)).held


async def test_a_bulk_cancels_a_partition(queue: Any, store: Store) -> None:
    await add(queue, ORDERED, 5)
    bulk = await queue.bulk(TaskFilter(), action="cancel")
    bulk, _ = await bulks.step(store, bulk.id, 3)
    assert len(await queue.claim()) == 1


# -- What is kept, and what is said ----------------------------------------------------------------


async def test_what_holds_a_partition_is_not_pruned(queue: Any, store: Store) -> None:
    first, _ = await add(queue, HOLDS, 2)
    [task] = await queue.claim()
    await queue.settle(task, Status.FAILED)
    queue.clock.turn(10_000)
    kept = Retention(succeeded="1s", failed="1s", cancelled="1s")
    assert await prune.prune(store, kept) == 0
    await store.write(manual.cancel(first))
    queue.clock.turn(10)
    assert await prune.prune(store, kept) == 1


async def test_what_has_overtaken_is_kept_for_as_long_as_it_says_so(
    queue: Any, store: Store
) -> None:
    first, second, third = await add(queue, ORDERED, 3)
    [task] = await queue.claim()
    await queue.settle(task, Status.FAILED)
    for _ in range(2):
        [task] = await queue.claim()
        await queue.settle(task)
    queue.clock.turn(10_000)
    kept = Retention(succeeded="1s", failed="1d", cancelled="1s")
    assert await prune.prune(store, kept) == 1  # the second
    with pytest.raises(Overtaken, match=f"task {third} "):
        await store.write(manual.trigger(first))
    queue.clock.turn(100_000)
    assert await prune.prune(store, kept) == 1
    assert await prune.prune(store, kept) == 1
    assert second < third


async def test_what_is_held_waits_and_is_not_due(queue: Any, store: Store) -> None:
    await add(queue, FAIR, 3)
    assert (await store.read(backlog.due_tasks(queue.clock.now_ms(), 9))).tasks == 1
    assert (await store.read(backlog.due_tasks(queue.clock.now_ms(), 9))).held == 2
    assert (await store.read(backlog.due_tasks(0, 9)))[3:] == (0, [])
    assert await store.read(partitions.stuck()) == []


async def test_a_line_without_a_head_is_found(queue: Any, store: Store) -> None:
    first, _ = await add(queue, FAIR, 2)
    ordered, _ = await add(queue, Partition("other", ordered=True), 2)
    queue.run(f"UPDATE retry_schedule SET held = 1 WHERE id IN ({first}, {ordered})")
    assert await queue.claim() == []
    found = await store.read(partitions.stuck())
    assert [line.partition for line in found] == ["acme", "other"]
    await store.write(partitions.touch(found))
    assert len(await queue.claim(limit=2)) == 2


@SHARED
async def test_writers_of_one_partition_do_not_get_out_of_step(two: Any) -> None:
    """Whatever two daemons do at the same time, at most one ordered task is under way."""
    served: list[int] = []

    async def serve(queue: Any) -> None:
        for _ in range(60):
            for task in await queue.claim(Key("crm/get")):
                served.append(task.id)
                await asyncio.sleep(0)
                await queue.settle(task)
            await asyncio.sleep(0)

    async def accept(queue: Any) -> list[int]:
        made = []
        for _ in range(20):
            made += await add(queue, ORDERED, 1)
        return made

    async with asyncio.TaskGroup() as group:
        made = [group.create_task(accept(queue)) for queue in two]
        for queue in two:
            group.create_task(serve(queue))
    for _ in range(60):
        await serve(two[0])
        if len(served) == 40:
            break
    assert served == sorted(made[0].result() + made[1].result())
