from __future__ import annotations

import asyncio
from typing import Any

import pytest

from orchestratord.errors import Conflict, NotFound
from orchestratord.model.settings import Retention
from orchestratord.model.task import Key, Status
from orchestratord.queue.batch import Rank, Write
from orchestratord.queue.housekeeping import prune
from orchestratord.queue.operations import bulk as bulks
from orchestratord.queue.operations import manual, search
from orchestratord.queue.operations.settle import settle
from orchestratord.queue.records import CANCEL, Insert, TaskFilter
from orchestratord.queue.store import Store
from orchestratord.values.status_set import StatusSet

GET, OTHER = Key("crm/get"), Key("crm/put")


async def failed(queue: Any, number: int, key: Key = GET, reason: str | None = None) -> list[int]:
    ids = [await queue.ended(Status.FAILED, key, max_attempts=1) for _ in range(number)]
    for id_ in ids if reason else ():
        queue.run(f"UPDATE retry_schedule SET reason = '{reason}' WHERE id = {id_}")
    return ids


async def finish(store: Store, bulk_id: int, limit: int = 100) -> Any:
    while (bulk := (await bulks.step(store, bulk_id, limit))[0]).status == "running":
        pass
    return bulk


async def test_without_a_status_the_failed_ones_are_meant(queue: Any, store: Store) -> None:
    ids = await failed(queue, 3)
    cancelled = await queue.ended(Status.CANCELLED)
    succeeded = await queue.ended(Status.SUCCEEDED)
    queue.clock.turn(60)
    bulk = await queue.bulk(TaskFilter(endpoint="crm/*"), 10.0)
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


async def test_a_survey_only_counts(queue: Any, store: Store) -> None:
    for reason, key in (("exhausted", GET), ("exhausted", GET), ("rejected", OTHER)):
        await failed(queue, 1, key, reason=reason)
    [doubtful] = await failed(queue, 1, reason="ambiguous")
    wanted = TaskFilter(status=("failed",), kind="call", left_out=("ambiguous", "poisoned"))
    survey = await store.read(bulks.survey(wanted))
    assert (survey.matched, survey.left_out) == (3, {"ambiguous": 1})
    assert survey.counts == {("exhausted", "crm/get"): 2, ("rejected", "crm/put"): 1}
    first = await store.read(bulks.examples(survey, 2))
    assert [task.reason for task in first] == ["exhausted", "exhausted"]
    assert await queue.chores() == []
    with pytest.raises(NotFound):
        await store.read(bulks.get(1))
    bulk = await queue.bulk(wanted)
    assert (bulk.id, bulk.matched) == (1, 3)
    assert (await finish(store, bulk.id)).moved == 3
    assert (await store.read(search.get(doubtful))).status == Status.FAILED
    bulk = await queue.bulk(TaskFilter(reason=("ambiguous", "poisoned")))
    assert (await finish(store, bulk.id)).moved == 1


async def test_steps_are_as_small_as_asked(queue: Any, store: Store) -> None:
    ids = await failed(queue, 5)
    bulk = await queue.bulk(TaskFilter(status=("failed",)))
    bulk, keys = await bulks.step(store, bulk.id, 2)
    assert (bulk.moved, bulk.cursor, bulk.status) == (2, ids[1], "running")
    assert list(keys) == [Key("crm/get")]
    bulk, _ = await bulks.step(store, bulk.id, 2)
    bulk, _ = await bulks.step(store, bulk.id, 2)
    assert (bulk.moved, bulk.status, bulk.cursor) == (5, "finished", bulk.highest_id)


async def test_no_task_moves_twice(queue: Any, store: Store) -> None:
    ids = await failed(queue, 4)
    bulk = await queue.bulk(TaskFilter(status=("failed",)))
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
    bulk = await queue.bulk(TaskFilter(status=("failed",)))
    await asyncio.gather(*(bulks.step(store, bulk.id, 3) for _ in range(10)))
    bulk = await finish(store, bulk.id, 3)
    assert (bulk.moved, bulk.skipped) == (30, 0)


async def test_tasks_that_came_later_are_left_alone(queue: Any, store: Store) -> None:
    await failed(queue, 2)
    bulk = await queue.bulk(TaskFilter(status=("failed",)))
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
    bulk = await queue.bulk(wanted, 5.0)
    bulk, _ = await bulks.step(store, bulk.id, 2)
    store = await queue.reopen()
    assert [chore.subject for chore in await queue.chores()] == [str(bulk.id)]
    assert await row(store, bulk.id) == bulk
    assert bulk.filter == wanted
    bulk = await finish(store, bulk.id)
    assert (bulk.moved, bulk.matched) == (5, 5)


async def test_pending_become_due_and_running_are_skipped(queue: Any, store: Store) -> None:
    running = await queue.add()
    await queue.claim()
    late = await queue.add(delay=3600)
    early = await queue.add(delay=1)
    queue.clock.turn(60)
    every = tuple(str(status) for status in Status)
    bulk = await queue.bulk(TaskFilter(status=every))
    assert bulk.matched == 3
    bulk = await finish(store, bulk.id)
    assert (bulk.moved, bulk.skipped) == (2, 1)
    assert (await store.read(search.get(running))).status == Status.RUNNING
    assert (await store.read(search.get(late))).next_try == queue.clock.now_ms()
    assert (await store.read(search.get(early))).next_try == queue.clock.now_ms() - 59_000


async def test_one_that_changed_before_its_turn_is_not_touched(queue: Any, store: Store) -> None:
    ids = await failed(queue, 2)
    bulk = await queue.bulk(TaskFilter(status=("failed",)))
    await store.write(manual.cancel(ids[1]))
    bulk = await finish(store, bulk.id)
    assert (bulk.moved, bulk.skipped, bulk.matched) == (1, 1, 2)
    assert (await store.read(search.get(ids[1]))).status == Status.CANCELLED


async def test_bulks_that_overlap_add_up(queue: Any, store: Store) -> None:
    await failed(queue, 6)
    one, two = [await queue.bulk(TaskFilter(status=("failed",))) for _ in range(2)]
    one, _ = await bulks.step(store, one.id, 2)
    assert (one.moved, one.skipped, one.matched) == (2, 0, 6)
    two, one = await finish(store, two.id, 2), await finish(store, one.id, 2)
    assert (two.moved, two.why_skipped, two.matched) == (4, {"changed": 2}, 6)
    assert (one.moved, one.why_skipped, one.matched) == (2, {"changed": 4}, 6)


async def test_what_would_only_fail_again_is_skipped(queue: Any, store: Store) -> None:
    await failed(queue, 3)
    [kept] = await failed(queue, 1, OTHER)
    bulk = await queue.bulk(TaskFilter(status=("failed",)))
    seen, _ = await bulks.step(store, bulk.id, 2, {GET: "webhook_disabled"}.get)
    assert (seen.moved, seen.skipped, seen.cursor) == (0, 2, 2)
    seen, keys = await bulks.step(store, bulk.id, 9, {GET: "webhook_disabled"}.get)
    assert (seen.status, seen.moved, seen.skipped) == ("finished", 1, 3)
    assert seen.why_skipped == {"webhook_disabled": 3}
    assert keys == {OTHER: [kept]}


async def test_what_comes_to_match_meanwhile_is_counted(queue: Any, store: Store) -> None:
    await failed(queue, 2)
    await queue.add(max_attempts=1)
    [running] = await queue.claim()
    bulk = await queue.bulk(TaskFilter(status=("failed",)))
    assert bulk.matched == 2
    await queue.settle(running, Status.FAILED)
    bulk = await finish(store, bulk.id)
    assert (bulk.moved, bulk.skipped, bulk.matched) == (3, 0, 3)


async def test_the_filter_counts(queue: Any, store: Store) -> None:
    await failed(queue, 2)
    [other] = await failed(queue, 1, OTHER)
    bulk = await queue.bulk(TaskFilter(endpoint="crm/put"))
    bulk, keys = await bulks.step(store, bulk.id, 100)
    assert (bulk.moved, list(keys)) == (1, [OTHER])
    assert (await store.read(search.get(other))).status == Status.PENDING


async def test_nothing_to_do(queue: Any, store: Store) -> None:
    bulk = await queue.bulk(TaskFilter(endpoint="crm/none"))
    assert (bulk.status, bulk.matched) == ("finished", 0)


async def test_cancelled_it_stops_where_it_is(queue: Any, store: Store) -> None:
    await failed(queue, 4)
    bulk = await queue.bulk(TaskFilter(status=("failed",)))
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


# -- how it went -----------------------------------------------------------------------------------


async def shown(store: Store, bulk_id: int) -> tuple[str, int, int, int]:
    bulk = await store.read(bulks.get(bulk_id))
    return bulk.status, bulk.succeeded, bulk.failed, bulk.waiting


async def test_what_became_of_each_is_counted_with_its_end(queue: Any, store: Store) -> None:
    ids = await failed(queue, 6)
    bulk = await queue.bulk(TaskFilter(status=("failed",)))
    await finish(store, bulk.id)
    await failed(queue, 1, OTHER)  # of no bulk
    assert await shown(store, bulk.id) == ("finished", 0, 0, 6)
    tasks = await queue.claim()
    assert {task.bulk_id for task in tasks} == {bulk.id}
    again = {"next_try": queue.clock.now_ms() + 5000}
    ends = [Status.SUCCEEDED, Status.SUCCEEDED, Status.FAILED, Status.PENDING]
    # In one transaction, as they come in.
    await asyncio.gather(
        *(
            queue.settle(task, status, **(again if status == Status.PENDING else {}))
            for task, status in zip(tasks[:4], ends, strict=True)
        )
    )
    assert await shown(store, bulk.id) == ("finished", 2, 1, 3)
    assert await store.write(bulks.look_after(bulk.id)) == (await row(store, bulk.id), False)
    found, _ = await store.read(search.page(TaskFilter(bulk=bulk.id, status=("failed",)), 9))
    assert [task.id for task in found] == [ids[2]]

    # One that is retried manually is waited for again; one that is cancelled no more.
    await store.write(manual.trigger(ids[2]))
    assert await shown(store, bulk.id) == ("finished", 2, 0, 4)
    await store.write(manual.cancel(ids[3]))
    [task] = await queue.claim()
    await queue.settle(task, Status.SUCCEEDED)
    for task in tasks[4:]:
        await queue.settle(task, Status.FAILED)
    assert await shown(store, bulk.id) == ("finished", 3, 2, 0)
    ended, noted = await store.write(bulks.look_after(bulk.id))
    assert (noted, ended.ended_at) == (True, queue.clock.now_ms())
    assert (await store.write(bulks.look_after(bulk.id)))[1] is False
    [chore] = await queue.chores()
    assert await store.write(bulks.end_chore(chore, ended, ())) == []
    assert await queue.chores() == []


async def test_a_manual_retry_leaves_a_bulk_that_has_ended_or_cancels(
    queue: Any, store: Store
) -> None:
    [id_] = await failed(queue, 1)
    for action, status in (("retry", Status.FAILED), ("cancel", Status.CANCELLED)):
        bulk = await queue.bulk(TaskFilter(ids=(id_,), status=("failed",)), action=action)
        await finish(store, bulk.id)
        for task in await queue.claim():
            await queue.settle(task, Status.FAILED)
        await store.write(bulks.look_after(bulk.id))
        assert (await store.read(search.get(id_))).status == status
        before = await row(store, bulk.id)
        assert before.ended_at is not None
        await store.write(manual.trigger(id_))
        [task] = await queue.claim()
        assert task.bulk_id is None
        await queue.settle(task, Status.FAILED)
        assert (await row(store, bulk.id), before.failed) == (before, int(action == "retry"))


async def test_a_bulk_whose_tasks_wait_is_kept(queue: Any, store: Store) -> None:
    await failed(queue, 1)
    bulk = await queue.bulk(TaskFilter(status=("failed",)))
    await finish(store, bulk.id)
    queue.clock.turn(1000)
    kept = Retention(succeeded=10.0, failed=10.0, cancelled=10.0)
    await prune.prune(store, kept)
    assert await shown(store, bulk.id) == ("finished", 0, 0, 1)
    [task] = await queue.claim()
    await queue.settle(task)
    await store.write(bulks.look_after(bulk.id))
    queue.clock.turn(1000)
    await prune.prune(store, kept)
    with pytest.raises(NotFound):
        await store.read(bulks.get(bulk.id))


async def row(store: Store, bulk_id: int) -> Any:
    return await store.read(bulks.row_of(bulk_id))


async def test_a_task_belongs_to_its_last_bulk(queue: Any, store: Store) -> None:
    await failed(queue, 3)
    first = await queue.bulk(TaskFilter(status=("failed",)))
    await finish(store, first.id)
    done, *_ = await queue.claim(limit=1)
    await queue.settle(done, Status.FAILED)
    second = await queue.bulk(TaskFilter(status=("failed", "pending")))
    await finish(store, second.id)
    assert await shown(store, first.id) == ("finished", 0, 1, 0)
    assert await shown(store, second.id) == ("finished", 0, 0, 3)
    for task in await queue.claim():
        await queue.settle(task, Status.SUCCEEDED)
    assert await shown(store, first.id) == ("finished", 0, 1, 0)
    assert await shown(store, second.id) == ("finished", 3, 0, 0)


async def test_so_many_failures_pause_it_until_it_is_resumed(queue: Any, store: Store) -> None:
    await failed(queue, 30)
    bulk = await queue.bulk(TaskFilter(status=("failed",)), None, stop_after=3)
    await bulks.step(store, bulk.id, 5)
    for task in (await queue.claim())[:3]:
        await queue.settle(task, Status.FAILED)
    assert await shown(store, bulk.id) == ("paused", 0, 3, 2)
    seen, keys = await bulks.step(store, bulk.id, 5)
    assert (seen.status, seen.moved, keys) == ("paused", 5, {})
    [chore] = await queue.chores()
    assert await store.write(bulks.end_chore(chore, seen, ())) == []
    with pytest.raises(Conflict, match="is finished, and not paused"):
        await store.write(bulks.resume((await queue.bulk(TaskFilter(endpoint="no/ne"))).id))
    resumed = await store.write(bulks.resume(bulk.id))
    assert (resumed.status, resumed.failed) == ("running", 3)
    [chore] = [one for one in await queue.chores() if one.subject == str(bulk.id)]
    assert await store.write(bulks.end_chore(chore, seen, ())) is None  # it goes on
    await bulks.step(store, bulk.id, 5)
    for task in (await queue.claim())[:3]:
        await queue.settle(task, Status.FAILED)
    assert (await shown(store, bulk.id))[0] == "paused"  # after three more
    assert (await store.write(bulks.cancel(bulk.id))).status == "cancelled"


async def test_a_pause_that_was_told_lasts_until_it_is_resumed(queue: Any, store: Store) -> None:
    ids = await failed(queue, 10)
    bulk = await queue.bulk(TaskFilter(status=("failed",)), None, stop_after=3)
    await bulks.step(store, bulk.id, 5)
    for task in (await queue.claim())[:3]:
        await queue.settle(task, Status.FAILED)
    [chore] = await queue.chores()
    seen = await store.read(bulks.row_of(bulk.id))
    assert (seen.status, await store.write(bulks.end_chore(chore, seen, ()))) == ("paused", [])
    again = [id_ for id_ in ids if (await store.read(search.get(id_))).bulk_id == bulk.id]
    await store.write(manual.trigger(again[0]))
    assert (await shown(store, bulk.id))[:3] == ("paused", 0, 2)
    assert (await store.write(bulks.resume(bulk.id))).stop_at == 5


async def test_what_succeeded_is_sent_again_as_something_new(queue: Any, store: Store) -> None:
    done = await queue.ended(Status.SUCCEEDED)
    before = await store.read(search.get(done))
    bulk = await queue.bulk(TaskFilter(status=("succeeded",)))
    assert (await finish(store, bulk.id)).moved == 1
    [task] = await queue.claim()
    assert (task.id, task.generation) == (done, before.generation + 1)
    assert task.nonce not in (None, before.nonce)
    await queue.settle(task)
    assert await shown(store, bulk.id) == ("finished", 1, 0, 0)


async def test_a_person_says_how_it_ended(queue: Any, store: Store) -> None:
    [id_] = await failed(queue, 1, reason="ambiguous")
    bulk = await queue.bulk(TaskFilter(reason=("ambiguous",)))
    await finish(store, bulk.id)
    [task] = await queue.claim()
    await queue.settle(task, Status.FAILED, reason="ambiguous")
    task = await store.read(search.get(id_))
    said = {"reason": "resolved", "attempt": queue.attempt(task), "status_code": 200}
    follows = (Insert(queue.new(OTHER, parent_id=id_)),)
    settlement = queue.settlement(task, Status.SUCCEEDED, effects=follows, **said)
    resolved, [child] = await store.write(manual.resolve(settlement))
    assert (resolved.status, resolved.reason) == ("succeeded", "resolved")
    assert (await store.read(search.get(child.id))).parent_id == id_
    assert await shown(store, bulk.id) == ("finished", 1, 0, 0)
    assert len(await store.read(search.attempts(id_))) == 1
    with pytest.raises(Conflict, match="has changed meanwhile"):
        await store.write(manual.resolve(settlement))
    assert (await store.counts())["succeeded"] == 1


async def test_a_task_that_a_bulk_has_resolved_is_counted_once(queue: Any, store: Store) -> None:
    ids = await failed(queue, 3)
    first = await queue.bulk(TaskFilter(status=("failed",)))
    await finish(store, first.id)
    for task in await queue.claim():
        await queue.settle(task, Status.FAILED)
    second = await queue.bulk(TaskFilter(status=("failed",)), action="resolve")

    async def resolve(id_: int, status: Status, bulk_id: int | None = None) -> None:
        task = await store.read(search.get(id_))
        settlement = queue.settlement(task, status, reason="resolved")
        await store.write(manual.resolve(settlement, bulk_id))

    for id_ in ids:
        await resolve(id_, Status.FAILED, second.id)
    # The other one keeps its numbers, as where a bulk retries what another one has moved.
    assert (await shown(store, first.id))[1:3] == (0, 3)
    assert (await shown(store, second.id))[1:3] == (0, 3)
    await resolve(ids[0], Status.SUCCEEDED)
    await store.write(manual.cancel(ids[1]))
    assert (await shown(store, second.id))[1:3] == (1, 1)


async def test_a_failure_that_is_cancelled_is_none_of_its_bulk(queue: Any, store: Store) -> None:
    [id_, _] = await failed(queue, 2)
    bulk = await queue.bulk(TaskFilter(status=("failed",)))
    await finish(store, bulk.id)
    [task] = await queue.claim(limit=1)
    await queue.settle(task, Status.FAILED)
    assert await shown(store, bulk.id) == ("finished", 0, 1, 1)
    await store.write(manual.cancel(id_))
    assert await shown(store, bulk.id) == ("finished", 0, 0, 1)
    # Retried while the bulk waits for another one, it is the bulk's again.
    await store.write(manual.trigger(id_))
    for task in await queue.claim():
        await queue.settle(task, Status.SUCCEEDED)
    assert await shown(store, bulk.id) == ("finished", 2, 0, 0)


# -- cancelling ------------------------------------------------------------------------------------


async def test_cancelling_without_a_status_means_what_waits(queue: Any, store: Store) -> None:
    waits = [await queue.add(delay=9) for _ in range(3)]
    [broken] = await failed(queue, 1)
    bulk = await queue.bulk(TaskFilter(endpoint="crm/*"), None, CANCEL)
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
    bulk = await queue.bulk(wanted, None, CANCEL)
    bulk, keys = await bulks.step(store, bulk.id, 100)
    assert (bulk.moved, bulk.skipped, keys) == (2, 0, {GET: [broken]})
    assert (await store.read(search.get(done))).status == Status.SUCCEEDED
    assert (await store.read(search.get(running))).status == Status.RUNNING
    settled = await queue.settle(claimed, Status.PENDING, next_try=queue.clock.now_ms() + 1000)
    assert (settled.accepted, settled.cancel_asked) == (False, True)


async def test_a_bulk_remembers_all_of_its_filter(queue: Any, store: Store) -> None:
    [one, *_] = await failed(queue, 2)
    wanted = TaskFilter(
        status=("failed",), kind="call", since=1, until=1 << 50, text="crm", ids=(one,),
        left_out=("ambiguous",),
    )  # fmt: skip
    bulk = await queue.bulk(wanted)
    assert (await store.read(bulks.get(bulk.id))).filter == wanted
    assert (await finish(store, bulk.id)).moved == 1


async def test_what_ends_with_its_last_task_says_how_that_went(queue: Any, store: Store) -> None:
    """Though both are of one transaction."""
    await queue.add()
    [task] = await queue.claim()
    await queue.settle(task, Status.FAILED, reason="exhausted")
    bulk = await queue.bulk(TaskFilter())
    await bulks.step(store, bulk.id, 100)
    await bulks.step(store, bulk.id, 100)
    [task] = await queue.claim()
    steps = settle(queue.settlement(task)), bulks.look_after(bulk.id)
    both = Write(Rank.KEEP, lambda session: [step.run(session) for step in steps])
    _, (ended, is_new) = await store.write(both)
    assert is_new
    assert (ended.succeeded, ended.failed, ended.waiting) == (1, 0, 0)
