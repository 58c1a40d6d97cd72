"""Tasks that are made of others, with other parameters: of a task and what replaces it one is
carried out, in the place of the first where that is ordered."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import Random
from typing import Any

import pytest

from orchestratord.errors import Conflict, InvalidParams, Overtaken, Replaced
from orchestratord.model.partition_turn import Partition
from orchestratord.model.settings import Retention
from orchestratord.model.task import Reason, Status, Task
from orchestratord.queue.housekeeping import prune, run_ends
from orchestratord.queue.operations import bulk as bulks
from orchestratord.queue.operations import chores, claim, manual, partitions, search
from orchestratord.queue.records import CANCEL, RETRY, TaskFilter
from orchestratord.queue.store import Store
from tests.conformance.store.conftest import KEY

ORDERED = Partition("acme", ordered=True)
HOLDS = Partition("acme", ordered=True, hold=True)
SEEDS = int(os.environ.get("SEEDS", "4"))
"""Of what is done by chance; more look for longer."""


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


async def failed(queue: Any, **fields: Any) -> int:
    id_: int = await queue.add(**fields)
    [task] = await queue.claim()
    await queue.settle(task, Status.FAILED, reason=Reason.EXHAUSTED)
    return id_


async def made(queue: Any, of: int, *, force: bool = False) -> Task:
    """One that is made of another one."""
    new = queue.new(params={"n": 2})
    task: Task = await queue.store.write(partitions.replace(of, new, force=force))
    return task


async def end(queue: Any, status: str = Status.SUCCEEDED, **fields: Any) -> None:
    """End what is due, all of it in one transaction where it is more than one."""
    tasks = await queue.claim()
    assert tasks
    await asyncio.gather(*(queue.settle(task, status, **fields) for task in tasks))


async def state(queue: Any, *ids: int) -> list[tuple[str, str | None]]:
    tasks = [await queue.store.read(search.get(id_)) for id_ in ids]
    return [(task.status, task.reason) for task in tasks]


def resolved(queue: Any, task: Task) -> Any:
    return manual.resolve(queue.settlement(task, Status.SUCCEEDED, reason=Reason.RESOLVED))


OVER = ("cancelled", "replaced")
CHANGES: dict[str, Callable[[Any, Task], Any]] = {
    "retry": lambda queue, task: manual.trigger(task.id),
    "forced": lambda queue, task: manual.trigger(task.id, force=True),
    "replace": lambda queue, task: partitions.replace(task.id, queue.new()),
    "resolve": resolved,
    "cancel": lambda queue, task: manual.cancel(task.id),
}


async def refused(queue: Any, id_: int, by: int, *names: str) -> None:
    task = await queue.store.read(search.get(id_))
    for name in names or CHANGES:
        with pytest.raises(Replaced, match=f"task {id_} is replaced by task {by}, "):
            await queue.store.write(CHANGES[name](queue, task))
    assert await queue.store.read(search.get(id_)) == task


async def test_what_is_replaced_is_left_alone_until_that_has_ended(
    queue: Any, store: Store
) -> None:
    first = await failed(queue)
    second = await made(queue, first)
    await refused(queue, first, second.id)  # it waits
    [task] = await queue.claim()
    await refused(queue, first, second.id)  # it runs
    await queue.settle(task, Status.FAILED, reason=Reason.NOT_RETRYABLE)
    await refused(queue, first, second.id)  # it is what one retries
    assert (await store.read(search.whole(first))).replaced_by == second.id
    third = await made(queue, second.id)
    assert (third.replaces, third.parent_id) == (first, second.id)
    await refused(queue, first, third.id)
    await refused(queue, second.id, third.id)
    # Each that is cancelled frees the one that it was made of.
    await store.write(manual.cancel(third.id))
    await refused(queue, first, second.id)
    assert (await store.read(search.whole(second.id))).replaced_by is None
    await store.write(manual.trigger(second.id))
    await store.write(manual.cancel(second.id))
    assert (await store.read(search.whole(first))).replaced_by is None
    # While the first one is tried again, none of the others is.
    await store.write(manual.trigger(first))
    await refused(queue, second.id, first, "retry", "forced", "replace")
    await refused(queue, third.id, first, "retry", "forced", "replace")
    assert [task.id for task in await queue.claim()] == [first]


@pytest.mark.parametrize("grouped", [False, True])
async def test_after_a_success_all_else_of_its_place_is_over(
    queue: Any, store: Store, grouped: bool
) -> None:
    first = await failed(queue)
    given_up = await made(queue, first)
    await store.write(manual.cancel(given_up.id))
    second = await made(queue, first)
    await end(queue, Status.FAILED)
    last = await made(queue, second.id)
    others = [await queue.add() for _ in range(5 if grouped else 0)]
    queue.clock.turn(1)
    await end(queue)
    family = (first, given_up.id, second.id)
    assert await state(queue, *family, last.id) == [OVER] * 3 + [("succeeded", None)]
    assert (await store.read(search.get(first))).finished_at == queue.clock.now_ms()
    counts = {"pending": 0, "running": 0, "failed": 0}
    assert await store.counts() == counts | {"cancelled": 3, "succeeded": 1 + len(others)}
    for id_ in family:
        await refused(queue, id_, last.id, "retry", "forced", "replace")
        assert (await store.read(search.whole(id_))).replaced_by == last.id
        await store.write(manual.cancel(id_))  # which it is
    run = await store.read(run_ends.get_run(first))
    assert (run.tasks, run.open, run.succeeded, run.failed, run.cancelled) == (4, 0, 1, 0, 3)
    # What has succeeded can be sent again, and changes nothing for the others.
    await store.write(manual.trigger(last.id, force=True))
    await end(queue, Status.FAILED)
    await refused(queue, first, last.id, "retry", "forced", "replace")
    assert await state(queue, *family) == [OVER] * 3


async def test_what_a_person_says_of_a_replacement_counts(queue: Any, store: Store) -> None:
    first = await failed(queue)
    second = await made(queue, first)
    await end(queue, Status.FAILED, reason=Reason.AMBIGUOUS)
    await store.write(resolved(queue, await store.read(search.get(second.id))))
    assert await state(queue, first, second.id) == [OVER, ("succeeded", "resolved")]
    run = await store.read(run_ends.get_run(first))
    assert (run.open, run.succeeded, run.failed, run.cancelled) == (0, 1, 0, 1)


async def test_what_is_replaced_is_no_failure_of_its_bulk(queue: Any, store: Store) -> None:
    first = await failed(queue)
    bulk = await queue.bulk(TaskFilter(status=("failed",)))
    await bulks.step(store, bulk.id, 9)
    await end(queue, Status.FAILED)
    assert (await store.read(bulks.get(bulk.id))).failed == 1
    await made(queue, first)
    await end(queue)
    assert await state(queue, first) == [OVER]
    assert (await store.read(bulks.get(bulk.id))).failed == 0


async def test_what_has_succeeded_stays_so(queue: Any, store: Store) -> None:
    first = await queue.ended(Status.SUCCEEDED)
    second = await made(queue, first, force=True)
    await refused(queue, first, second.id, "forced")
    await end(queue)
    assert await state(queue, first, second.id) == [("succeeded", None)] * 2
    assert (await store.write(manual.trigger(first, force=True))).status == "pending"


@pytest.mark.parametrize("action", [RETRY, CANCEL])
async def test_bulks_pass_over_what_is_replaced(queue: Any, store: Store, action: str) -> None:
    first, alone = await failed(queue), await failed(queue)
    second = await made(queue, first)
    await end(queue, Status.FAILED)
    bulk = await queue.bulk(TaskFilter(status=("failed",)), action=action)
    bulk, _ = await bulks.step(store, bulk.id, 100)
    assert (bulk.status, bulk.moved, bulk.why_skipped) == ("finished", 2, {"replaced": 1})
    status = "pending" if action == RETRY else "cancelled"
    assert [one for one, _ in await state(queue, first, alone, second.id)] == [
        "failed", status, status,
    ]  # fmt: skip
    if action == RETRY:
        await end(queue)
        assert await state(queue, first) == [OVER]
        wanted = TaskFilter(status=("cancelled",), reason=("replaced",))
        bulk, _ = await bulks.step(store, (await queue.bulk(wanted)).id, 100)
        assert (bulk.moved, bulk.why_skipped) == (0, {"replaced": 1})


async def test_a_bulk_tries_one_of_those_that_have_one_place(queue: Any, store: Store) -> None:
    first = await failed(queue)
    given_up = [await made(queue, first) for _ in range(1)]
    await store.write(manual.cancel(given_up[0].id))
    other = await made(queue, first)
    await store.write(manual.cancel(other.id))
    bulk = await queue.bulk(TaskFilter(status=("failed", "cancelled")))
    for moved in (1, 1, 1):
        bulk, _ = await bulks.step(store, bulk.id, 2)
        assert bulk.moved == moved
    assert bulk.why_skipped == {"replaced": 2}
    assert [task.id for task in await queue.claim()] == [first]


async def test_a_bulk_has_a_partition_wait_for_a_replacement(queue: Any, store: Store) -> None:
    first = await failed(queue, partition=ORDERED)
    second = await store.write(partitions.replace(first, like(queue, first)))
    await end(queue, Status.FAILED)
    [behind] = await add(queue, ORDERED, 1)
    bulk, _ = await bulks.step(store, (await queue.bulk(TaskFilter(status=("failed",)))).id, 9)
    assert (bulk.moved, bulk.why_skipped) == (1, {"replaced": 1})
    [task] = await queue.claim()
    assert task.id == second.id
    waits = await store.read(search.get(behind))
    assert await store.read(partitions.holder(waits)) == second.id
    await queue.settle(task, Status.FAILED)
    [task] = await queue.claim()
    assert task.id == behind
    await queue.settle(task)
    bulk, _ = await bulks.step(store, (await queue.bulk(TaskFilter(status=("failed",)))).id, 9)
    assert (bulk.moved, bulk.why_skipped) == (0, {"replaced": 1, "overtaken": 1})


async def test_another_partition_is_refused_where_it_is_ordered(queue: Any, store: Store) -> None:
    first = await failed(queue, partition=ORDERED)
    other = queue.new(partition=Partition("other", ordered=True))
    with pytest.raises(InvalidParams, match="partition: would be another one"):
        await store.write(partitions.replace(first, other))
    second = await store.write(partitions.replace(first, like(queue, first)))
    await end(queue, Status.FAILED)
    with pytest.raises(InvalidParams, match="partition: would be another one"):
        await store.write(partitions.replace(second.id, other))
    # Without an order there is no place to keep; and the limit of a partition holds.
    limit = Partition("acme", concurrency=1)
    third = await failed(queue, partition=limit)
    moved = Partition("third", concurrency=2)
    fourth = await store.write(partitions.replace(third, queue.new(partition=moved)))
    assert (fourth.partition, fourth.partition_limit) == ("third", 2)
    await end(queue, Status.FAILED)
    fifth = await store.write(partitions.replace(fourth.id, queue.new(partition=moved)))
    assert (fifth.replaces, fifth.partition_limit) == (third, 2)


async def test_what_was_accepted_before_there_was_an_order_is_replaced_by_what_has_none(
    queue: Any, store: Store
) -> None:
    first = await failed(queue, partition=Partition("acme"))
    [behind] = await add(queue, HOLDS, 1)
    second = await store.write(partitions.replace(first, queue.new(partition=HOLDS)))
    assert not second.ordered
    await end(queue, Status.FAILED)
    await store.write(partitions.replace(second.id, queue.new(partition=HOLDS)))
    await end(queue)
    assert (await store.read(search.get(behind))).status == Status.FAILED


async def cancel_while_it_is_claimed(queue: Any, store: Store) -> list[Task]:
    first = await failed(queue, partition=ORDERED)
    second = await store.write(partitions.replace(first, like(queue, first)))
    await add(queue, ORDERED, 1)
    claimed: list[Task] = await queue.claim(idempotent=False)
    assert [task.id for task in claimed] == [second.id]
    await store.write(manual.cancel(second.id))
    return claimed


async def released(queue: Any, store: Store, tasks: list[Task]) -> Store:
    await store.write(claim.release_claims(tasks))
    return store


async def taken_over(queue: Any, store: Store, tasks: list[Task]) -> Store:
    later: Store = await queue.successor()
    assert await claim.reclaim(later) == (1, [])
    return later


@pytest.mark.parametrize("release", [released, taken_over])
async def test_a_claim_that_is_released_and_cancelled_lets_the_partition_go_on(
    queue: Any, store: Store, release: Callable[[Any, Store, list[Task]], Awaitable[Store]]
) -> None:
    claimed = await cancel_while_it_is_claimed(queue, store)
    store = await release(queue, store, claimed)
    assert (await store.read(search.get(claimed[0].id))).status == Status.CANCELLED
    assert [task.id for task in await queue.claim()] == [claimed[0].id + 1]
    first = claimed[0].replaces
    assert first is not None
    with pytest.raises(Overtaken):  # it is free
        await store.write(manual.trigger(first))


async def test_what_is_replaced_is_kept_for_as_long_as_its_replacement(
    queue: Any, store: Store
) -> None:
    first = await failed(queue)
    second = await made(queue, first)
    await store.write(manual.cancel(second.id))
    third = await made(queue, second.id)
    await end(queue, Status.FAILED)
    queue.clock.turn(100)
    kept = Retention(succeeded=10.0, failed=1000.0, cancelled=10.0)
    assert await prune.prune(store, kept) == 0
    await refused(queue, first, third.id)
    await store.write(manual.trigger(third.id))
    await end(queue)
    await store.write(chores.end_all(await queue.chores()))
    queue.clock.turn(100)
    gone = [await prune.prune(store, kept) for _ in range(4)]
    assert gone == [2, 1, 0, 0]  # each once its replacement is gone


async def test_a_replacement_does_not_stand_for_the_last_that_has_started(
    queue: Any, store: Store
) -> None:
    """What tells that an earlier one would come out of order is kept."""
    first, second = await add(queue, ORDERED, 2)
    await fail_first(queue)
    await end(queue)
    replacement = partitions.replace(first, like(queue, first), force=True)
    await store.write(replacement)
    await end(queue, Status.FAILED)
    queue.clock.turn(100)
    await prune.prune(store, Retention(succeeded=10.0, failed=1000.0, cancelled=10.0))
    with pytest.raises(Overtaken, match=f"task {second} came after it"):
        await store.write(manual.trigger(replacement_id(await store.read(search.whole(first)))))


def replacement_id(found: search.WholeTask) -> int:
    assert found.replaced_by is not None
    return found.replaced_by


@pytest.mark.parametrize("reason", [Reason.AMBIGUOUS, Reason.POISONED])
async def test_a_cancel_keeps_what_is_doubtful(queue: Any, store: Store, reason: Reason) -> None:
    ids = [await queue.add() for _ in range(4)]
    for number, task in enumerate(await queue.claim()):
        why = reason if number < 2 else Reason.EXHAUSTED
        await queue.settle(task, Status.FAILED, reason=why)
    for id_ in (ids[0], ids[2]):
        await store.write(manual.cancel(id_))
    bulk = await queue.bulk(TaskFilter(ids=(ids[1], ids[3]), status=("failed",)), action=CANCEL)
    await bulks.step(store, bulk.id, 9)
    assert await state(queue, *ids) == [("cancelled", reason)] * 2 + [("cancelled", None)] * 2
    assert (await store.write(manual.trigger(ids[0]))).reason is None


# -- Whatever is done ------------------------------------------------------------------------------

ROWS = """
SELECT id, status, reason, parent_id, replaces, run_id, partition_rule, turn_at, held, attempts,
    generation
FROM retry_schedule ORDER BY id
"""
PARTITIONS = [None, Partition("acme", concurrency=1), ORDERED, HOLDS]


async def do_something(queue: Any, chance: Random, rows: list[dict[str, Any]]) -> None:
    """What people, bulks and daemons do, refused or not."""
    store, id_ = queue.store, chance.choice(rows)["id"]
    task = await store.read(search.get(id_))
    force = chance.random() < 0.2 and not task.ordered and task.replaces is None
    fields = {"concurrency": task.partition_limit}
    what = chance.choice(["replace", "retry", "cancel", "resolve", "bulk", "run", "run", "release"])
    with suppress(Conflict):
        if what == "replace":
            new = queue.new(partition=None if task.turn is None else Partition("acme", **fields))
            await store.write(partitions.replace(id_, new, force=force))
        elif what == "retry":
            await store.write(manual.trigger(id_, force=force))
        elif what == "cancel":
            await store.write(manual.cancel(id_))
        elif what == "resolve" and task.status in ("pending", "failed"):
            status = chance.choice([Status.SUCCEEDED, Status.FAILED])
            settlement = queue.settlement(task, status, reason=Reason.RESOLVED)
            await store.write(manual.resolve(settlement))
        elif what == "bulk":
            action = chance.choice([RETRY, CANCEL])
            wanted = ("failed",) if action == CANCEL else ("failed", "cancelled")
            bulk = await queue.bulk(TaskFilter(status=wanted), action=action)
            while bulk.status == "running":
                bulk, _ = await bulks.step(store, bulk.id, chance.choice([1, 2, 9]))
            assert bulk.moved + bulk.skipped == bulk.matched
        elif what in ("run", "release"):
            claimed = await queue.claim()
            places = [one.replaces or one.id for one in claimed]
            assert len(places) == len(set(places)), "two that have one place run at once"
            if claimed and claimed[0].turn is not None:
                assert len(claimed) == 1, "two of a partition run at once"
            if claimed and chance.random() < 0.2:
                await store.write(manual.cancel(claimed[0].id))
            if what == "release":
                await store.write(claim.release_claims(claimed))
                return
            ends = [(one, chance.choice([*Status][2:4])) for one in claimed]
            await asyncio.gather(
                *(queue.settle(one, how, reason=REASONS.get(how)) for one, how in ends)
            )


REASONS = {Status.FAILED: Reason.EXHAUSTED}


async def look(queue: Any, before: dict[int, dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """What holds of the rows, whatever was done; `before`: as they were until then."""
    rows = {row["id"]: row for row in queue.run(ROWS)}
    counts = dict.fromkeys(Status, 0)
    runs: dict[int, dict[str, int]] = {}
    for row in rows.values():
        counts[row["status"]] += 1
        place = row["replaces"] or row["id"]
        family = [one for one in rows.values() if (one["replaces"] or one["id"]) == place]
        others = [one for one in family if one is not row]
        if row["status"] in ("pending", "running"):
            assert not any(one["status"] in ("pending", "running") for one in others)
        is_over = row["reason"] == "replaced"
        assert not is_over or row["status"] == "cancelled"
        was = before.get(row["id"], row)
        assert is_over or was["reason"] != "replaced", "what is over stays so"
        if row["replaces"] and (row["status"], was["status"]) == ("succeeded", "pending"):
            assert all(
                one["reason"] == "replaced" or one["status"] == "succeeded" for one in others
            )
        if row["run_id"]:
            run = runs.setdefault(row["run_id"], dict.fromkeys(Status, 0))
            run[row["status"]] += 1
        if row["turn_at"] == 1 and not row["held"] and row["partition_rule"] == -1:
            living = ("pending", "running")
            assert any(one["status"] in living for one in others), "it holds its partition"
    assert await queue.store.counts() == counts
    for run_id, run in runs.items():
        found = await queue.store.read(run_ends.get_run(run_id))
        ended = found.succeeded, found.failed, found.cancelled
        assert ended == (run["succeeded"], run["failed"], run["cancelled"])
    return rows


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(PARTITIONS)))
async def test_of_all_that_have_one_place_one_is_tried(queue: Any, number: int) -> None:
    for seed in range(SEEDS):
        chance = Random(seed)
        queue.run("DELETE FROM retry_schedule")
        queue.run("DELETE FROM task_counts")
        await queue.reopen()
        new = [queue.new(partition=PARTITIONS[number]) for _ in range(3)]
        await queue.add_all(new)
        rows = await look(queue, {})
        for _ in range(40):
            queue.clock.turn(0.002)
            await do_something(queue, chance, list(rows.values()))
            rows = await look(queue, rows)
