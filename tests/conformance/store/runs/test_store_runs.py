"""Runs: every call is counted once, and the end is written with the last of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import chain
from typing import Any

import pytest

from orchestratord.errors import NotFound
from orchestratord.model.partition_turn import Partition
from orchestratord.model.settings import Retention
from orchestratord.model.task import Key, NewTask, Reason, RunSummary, Status, Task
from orchestratord.queue.batch import Rank, Write
from orchestratord.queue.housekeeping import prune, run_ends
from orchestratord.queue.operations import bulk as bulks
from orchestratord.queue.operations import (
    chores,
    claim,
    effects,
    manual,
    partitions,
    search,
    settle,
    slices,
)
from orchestratord.queue.records import Insert, TaskFilter
from orchestratord.queue.store import Store

KEY = Key("crm/get")


def children(root: Task, count: int) -> list[Insert]:
    run_id = root.id if root.run_id is None else root.run_id
    new = NewTask("call", KEY.endpoint_id, parent_id=root.id)
    return [Insert(new, run_id=run_id) for _ in range(count)]


async def begun(queue: Any, count: int, **fields: Any) -> Task:
    """The first call of a run, which has succeeded and has so many child tasks."""
    await queue.add()
    [root] = await queue.claim()
    effects = children(root, count)
    settled = await queue.settle(root, begins_run=True, effects=effects, **fields)
    assert settled.accepted
    begins: Task = root
    return begins


async def run_of(queue: Any, root: Task) -> RunSummary:
    run: RunSummary = await queue.store.read(run_ends.get_run(root.id))
    return run


def counts(run: RunSummary) -> tuple[int, int, int, int, int]:
    return run.tasks, run.open, run.succeeded, run.failed, run.cancelled


async def test_a_run_counts_its_calls_and_ends_with_the_last_of_them(
    queue: Any, store: Store
) -> None:
    root = await begun(queue, 4)
    assert counts(await run_of(queue, root)) == (5, 4, 1, 0, 0)
    tasks = await queue.claim()
    assert {task.run_id for task in tasks} == {root.id}
    assert (await store.read(search.get(root.id))).run_id == root.id
    # Deliveries belong to no run, and do not delay it.
    delivery = Insert(queue.new(KEY._replace(webhook="ops"), parent_id=tasks[0].id), run_id=root.id)
    grandchild = children(tasks[0], 1)
    await asyncio.gather(
        queue.settle(tasks[0], effects=[delivery, *grandchild]),
        queue.settle(tasks[1], Status.FAILED, reason=Reason.EXHAUSTED, error="no", status_code=503),
        queue.settle(tasks[2], Status.PENDING, next_try=queue.clock.now_ms()),
    )
    assert counts(await run_of(queue, root)) == (6, 3, 2, 1, 0)
    await store.write(manual.cancel(tasks[3].id))  # it runs: it is not tried again
    assert await store.write(claim.release_claims([tasks[3]])) == [Status.CANCELLED]
    assert counts(await run_of(queue, root)) == (6, 2, 2, 1, 1)
    assert await queue.untold() == []
    last = await queue.claim()
    assert len(last) == 2
    await asyncio.gather(*map(queue.settle, last))
    run = await run_of(queue, root)
    assert counts(run) == (6, 0, 4, 1, 1)
    assert (run.end, run.ended_at) == (1, queue.clock.now_ms())
    assert run.failed_endpoints == {KEY.endpoint_id: 1}
    assert [(one.task_id, one.status_code) for one in run.first_errors] == [(tasks[1].id, 503)]
    found = await store.read(run_ends.tasks_of_run(root.id, 100))
    assert [task.id for task in found] == sorted(task.id for task in found)
    assert {task.id for task in found} == {one.id for one in (root, *tasks, *last)}


async def test_an_end_is_told_once_and_again_once_it_was_opened(queue: Any, store: Store) -> None:
    root = await begun(queue, 2)
    good, bad = await queue.claim()
    await queue.settle(good)
    await queue.settle(bad, Status.FAILED, reason=Reason.EXHAUSTED)
    [run] = await queue.untold()
    after = [Insert(NewTask("call", "crm/after", parent_id=root.id))]
    [chore] = await queue.chores()
    tells = (store.write(run_ends.tell(chore, run, after)) for _ in range(3))
    told = await asyncio.gather(*tells)
    assert sorted(inserted.duplicate for [inserted] in told) == [False, True, True]
    assert await queue.untold() == []
    # What follows from the end begins a run of its own.
    [following] = await queue.claim(KEY._replace(endpoint_id="crm/after"))
    assert following.run_id is None
    assert counts(await run_of(queue, root)) == (3, 0, 2, 1, 0)

    await store.write(manual.trigger(bad.id))
    run = await run_of(queue, root)
    assert (counts(run), run.end, run.ended_at) == ((3, 1, 2, 0, 0), 1, None)
    [again] = await queue.claim()
    await queue.settle(again)
    [run] = await queue.untold()
    assert (run.end, counts(run)) == (2, (3, 0, 3, 0, 0))
    # Opened before it is told: there is nothing to tell until it ends again.
    await store.write(manual.trigger(good.id, force=True))
    assert await queue.untold() == []
    [chore] = await queue.chores()
    told = await store.write(run_ends.tell(chore, run, after))
    assert [one.duplicate for one in told] == [True]
    [again] = await queue.claim()
    await queue.settle(again, Status.FAILED, reason=Reason.AMBIGUOUS)
    [run] = await queue.untold()
    assert (run.end, counts(run)) == (2, (3, 0, 2, 1, 0))


async def test_what_a_person_resolves_ends_a_run_again(queue: Any, store: Store) -> None:
    root = await begun(queue, 1)
    [child] = await queue.claim()
    await queue.settle(child, Status.FAILED, reason=Reason.AMBIGUOUS)
    [run] = await queue.untold()
    [chore] = await queue.chores()
    await store.write(run_ends.tell(chore, run, []))
    for status, end, expected in (
        (Status.FAILED, 1, (2, 0, 1, 1, 0)),
        (Status.SUCCEEDED, 2, (2, 0, 2, 0, 0)),
    ):
        seen = await store.read(search.get(child.id))
        reason = Reason.RESOLVED
        await store.write(manual.resolve(queue.settlement(seen, status, reason=reason)))
        run = await run_of(queue, root)
        assert (run.end, counts(run)) == (end, expected)
    assert [one.end for one in await queue.untold()] == [2]


async def test_bulks_open_and_end_runs(queue: Any, store: Store) -> None:
    root = await begun(queue, 3)
    for task in await queue.claim():
        await queue.settle(task, Status.FAILED, reason=Reason.EXHAUSTED)
    await store.write(chores.end_all(await queue.chores()))
    wanted = TaskFilter(run=root.id, status=("failed",))
    for action, expected, end in (("retry", (4, 3, 1, 0, 0), 1), ("cancel", (4, 0, 1, 0, 3), 2)):
        survey = await store.read(bulks.survey(wanted))
        bulk = await store.write(bulks.create(action, survey, None))
        assert bulk.matched == 3
        await bulks.step(store, bulk.id, 100)
        run = await run_of(queue, root)
        assert (counts(run), run.end) == (expected, end)
        wanted = TaskFilter(run=root.id, status=("pending",))
    assert [run.end for run in await queue.untold()] == [2]


async def test_a_run_does_not_end_before_what_waits_in_slices(
    queue: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slices, "SLICE", 3)
    store: Store = queue.store
    await queue.add()
    [root] = await queue.claim()
    new = [NewTask("call", KEY.endpoint_id, {"n": n}, parent_id=root.id) for n in range(5)]
    effects = [
        Insert(effect, run_id=root.id) if isinstance(effect, NewTask) else effect
        for effect in chain(*slices.sliced(new, queue.clock.now_ms(), root.id))
    ]
    await queue.settle(root, begins_run=True, effects=effects)
    for task in await queue.claim():
        await queue.settle(task)
    assert counts(await run_of(queue, root)) == (6, 2, 4, 0, 0)
    assert await queue.untold() == []
    [chore] = await queue.chores()
    found = await store.read(slices.tasks_of(chore))
    items = [Insert(task) for task in found]
    await asyncio.gather(*(store.write(slices.write_slice(chore, found, items)) for _ in range(2)))
    assert counts(await run_of(queue, root)) == (6, 2, 4, 0, 0)
    for task in await queue.claim():
        await queue.settle(task)
    assert [counts(run) for run in await queue.untold()] == [(6, 0, 6, 0, 0)]


async def test_a_call_without_child_tasks_is_a_run_where_hooks_are_to_be_told(
    queue: Any, store: Store
) -> None:
    quiet, loud = await queue.add(), await queue.add()
    tasks = {task.id: task for task in await queue.claim()}
    await queue.settle(tasks[quiet])
    await queue.settle(tasks[loud], Status.FAILED, reason=Reason.EXHAUSTED, begins_run=True)
    [run] = await queue.untold()
    assert (run.id, run.end, counts(run)) == (loud, 1, (1, 0, 0, 1, 0))
    assert counts(await run_of(queue, tasks[quiet])) == (1, 0, 1, 0, 0)
    assert (await store.read(search.get(quiet))).run_id is None
    with pytest.raises(NotFound):
        await store.read(run_ends.get_run(1_000_000))


async def test_the_first_call_stays_until_the_end_is_told_and_the_counts_outlive_all(
    queue: Any, store: Store
) -> None:
    root = await begun(queue, 1)
    kept = Retention(succeeded=10.0, failed=1000.0, cancelled=10.0)
    queue.clock.turn(60)
    assert await prune.prune(store, kept) == 0
    [child] = await queue.claim()
    await queue.settle(child)
    queue.clock.turn(60)
    assert await prune.prune(store, kept) == 1  # the child
    assert (await store.read(search.get(root.id))).status == Status.SUCCEEDED
    [run] = await queue.untold()
    [chore] = await queue.chores()
    await store.write(run_ends.tell(chore, run, []))
    assert await prune.prune(store, kept) == 1
    assert counts(await run_of(queue, root)) == (2, 0, 2, 0, 0)
    queue.clock.turn(1000)
    await prune.prune(store, kept)
    with pytest.raises(NotFound):
        await run_of(queue, root)


async def test_a_start_that_is_undone_is_counted_in_the_run_that_began_with_it(
    queue: Any, store: Store
) -> None:
    await queue.add()
    [root] = await queue.claim(idempotent=False)
    now = queue.clock.now_ms()
    assert (await store.write(settle.start(root, now, children(root, 1), begins_run=True)))[0]
    await store.write(manual.cancel(root.id))
    assert await store.write(claim.release_claims([root])) == [Status.CANCELLED]
    [child] = await queue.claim()
    await queue.settle(child)
    assert [counts(run) for run in await queue.untold()] == [(2, 0, 1, 0, 1)]


async def test_a_call_that_is_cancelled_before_it_is_tried_is_a_run(
    queue: Any, store: Store
) -> None:
    one, many = queue.new(), queue.new(partition=Partition("acme"))
    calls = [[Insert(new, begins_run=True) for new in (one, many)] for _ in range(2)]
    written = await asyncio.gather(*(store.write(effects.enqueue(call)) for call in calls))
    ids = [inserted.id for call in written for inserted in call]
    assert await queue.untold() == []
    await store.write(manual.cancel(ids[0]))
    bulk = await queue.bulk(TaskFilter(), action="cancel")
    await bulks.step(store, bulk.id, 100)
    found = await queue.untold()
    assert [(run.id, counts(run)) for run in found] == [(id_, (1, 0, 0, 0, 1)) for id_ in ids]


async def test_what_replaces_a_lone_call_belongs_to_its_run(queue: Any, store: Store) -> None:
    old = await queue.ended(Status.FAILED)
    new = queue.new(parent_id=old)
    replacement = await store.write(partitions.replace(old, new))
    assert (replacement.run_id, (await store.read(search.get(old))).run_id) == (old, old)
    [task] = await queue.claim()
    await queue.settle(task)
    assert [counts(run) for run in await queue.untold()] == [(2, 0, 1, 0, 1)]


@pytest.mark.parametrize("by_bulk", [False, True])
async def test_what_begins_a_run_belongs_to_it_at_once(
    queue: Any, store: Store, by_bulk: bool
) -> None:
    """Also for what comes in the same transaction."""
    root = await queue.add()
    seen = await store.read(search.get(root))
    end = queue.settlement(seen, Status.FAILED, reason=Reason.RESOLVED, begins_run=True)
    cancel: Any = manual.cancel(root)
    if by_bulk:
        bulk = await queue.bulk(TaskFilter(status=("pending", "failed")), action="cancel")
        cancel = bulks.move_on(bulks.Move(bulk, [root], Counter(), root, last=True))
    steps = manual.resolve(end), cancel
    await store.write(Write(Rank.HAND, lambda session: [step.run(session) for step in steps]))
    assert (await store.read(search.get(root))).status == Status.CANCELLED
    assert counts(await run_of(queue, seen)) == (1, 0, 0, 0, 1)


async def test_an_end_that_was_not_told_is_taken_back(queue: Any, store: Store) -> None:
    root = await begun(queue, 1)
    [child] = await queue.claim()
    await queue.settle(child, Status.FAILED, reason=Reason.EXHAUSTED)
    [chore] = await queue.chores()
    assert (chore.kind, run_ends.subject_of(chore)) == ("run", (root.id, KEY.endpoint_id))
    await store.write(run_ends.take_back(chore))  # it has ended, so there is something to tell
    assert ([chore], (await run_of(queue, root)).end) == (await queue.chores(), 1)
    await store.write(manual.trigger(child.id))
    await asyncio.gather(*(store.write(run_ends.take_back(chore)) for _ in range(2)))
    assert ([], (await run_of(queue, root)).end) == (await queue.chores(), 0)
    [child] = await queue.claim()
    await queue.settle(child)
    assert [run.end for run in await queue.untold()] == [1]
