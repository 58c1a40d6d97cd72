from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from orchestratord.model.task import Key, Status, Upsert
from orchestratord.queue.operations import claim, manual, plugin_rows, search, settle
from orchestratord.queue.records import Insert, Pick
from orchestratord.queue.store import Store

ONE, TWO = Key("crm/one"), Key("crm/two")


async def test_a_claim_takes_what_is_due_in_its_order(queue: Any) -> None:
    third = await queue.add(delay=3)
    first = await queue.add(delay=1)
    second = await queue.add(delay=1)
    later = await queue.add(delay=9)
    queue.clock.turn(5)
    assert [task.id for task in await queue.claim()] == [first, second, third]
    assert (await queue.store.read(search.get(later))).status == Status.PENDING


async def test_a_claimed_task_is_running_and_ours(queue: Any, store: Store) -> None:
    await queue.add(params={"id": 1})
    queue.clock.turn(1)
    [task] = await queue.claim()
    assert task == await store.read(search.get(task.id))
    assert (task.status, task.attempts, task.locked_by) == ("running", 1, store.owner)
    assert task.updated_at == queue.clock.now_ms()
    assert task.next_try == queue.clock.now_ms() - 1000


async def test_the_claim_of_an_idempotent_task_is_its_start(queue: Any) -> None:
    await queue.add()
    [task] = await queue.claim(idempotent=True)
    assert (task.idempotent, task.started_at) == (True, queue.clock.now_ms())


async def test_the_claim_of_another_is_not(queue: Any) -> None:
    await queue.add()
    [task] = await queue.claim(idempotent=False)
    assert (task.idempotent, task.started_at) == (False, None)


async def test_several_keys_at_once(queue: Any, store: Store) -> None:
    a = await queue.add(ONE)
    await queue.add(ONE, delay=7)
    b = await queue.add(TWO)
    hook = await queue.add(Key("crm/one", "ops"))
    claimed = await store.write(
        claim.claim(
            [Pick(ONE, 5, True, queue.clock.now_ms()), Pick(TWO, 5, True, queue.clock.now_ms())]
        )
    )
    assert [task.id for task in claimed.tasks] == [a, b]
    assert claimed.earliest == {ONE: queue.clock.now_ms() + 7000, TWO: None}
    assert (await store.read(search.get(hook))).status == Status.PENDING


async def test_a_limit_leaves_the_rest(queue: Any, store: Store) -> None:
    ids = [await queue.add() for _ in range(5)]
    claimed = await store.write(claim.claim([Pick(Key("crm/get"), 2, True, queue.clock.now_ms())]))
    assert [task.id for task in claimed.tasks] == ids[:2]
    assert claimed.earliest == {Key("crm/get"): queue.clock.now_ms()}


async def test_due_before_may_lie_in_the_future(queue: Any, store: Store) -> None:
    id_ = await queue.add(delay=3600)
    claimed = await store.write(
        claim.claim([Pick(Key("crm/get"), 2, False, queue.clock.now_ms() + 10**10)])
    )
    assert [task.id for task in claimed.tasks] == [id_]


async def test_no_task_is_claimed_twice(queue: Any) -> None:
    await queue.add_all([queue.new() for _ in range(200)])
    claims = await asyncio.gather(*(queue.claim(limit=17) for _ in range(20)))
    ids = [task.id for tasks in claims for task in tasks]
    assert len(ids) == len(set(ids)) == 200


async def test_claims_are_counted_and_a_late_result_of_an_earlier_one_is_refused(
    queue: Any, store: Store
) -> None:
    """Whoever has the task, and however many attempts count: an attempt may be given back."""
    await queue.add()
    [first] = await queue.claim()
    await store.write(claim.release_claims([first]))
    [second] = await queue.claim()
    assert (first.attempts, second.attempts) == (1, 1)
    assert (first.locked_by, second.locked_by) == (store.owner, store.owner)
    assert (first.claims, second.claims) == (1, 2)
    assert not (await queue.settle(first)).accepted
    assert await store.write(settle.start(first, queue.clock.now_ms(), ())) == (False, [])
    assert await store.write(claim.release_claims([first])) == [None]
    assert (await queue.settle(second)).accepted


class TestStart:
    async def test_it_is_noted(self, queue: Any, store: Store) -> None:
        await queue.add()
        [task] = await queue.claim(idempotent=False)
        queue.clock.turn(1)
        assert await store.write(settle.start(task, queue.clock.now_ms(), ())) == (True, [])
        assert (await store.read(search.get(task.id))).started_at == queue.clock.now_ms()

    async def test_that_it_runs_alone_is_taken_back(self, queue: Any) -> None:
        """Who takes it over knows whether anything else was under way."""
        await queue.add()
        [task] = await queue.claim()
        for alone in (True, False, True):
            start = settle.start(task, queue.clock.now_ms(), (), alone=alone)
            assert await queue.store.write(start) == (True, [])
            assert (await queue.store.read(search.get(task.id))).alone is alone
        _, [lost] = await claim.reclaim(await queue.successor())
        assert (lost.id, lost.alone) == (task.id, True)

    async def test_its_effects_are_written_with_it(self, queue: Any, store: Store) -> None:
        await queue.add()
        [task] = await queue.claim(idempotent=False)
        hook = queue.new(Key("crm/get", "ops"), parent_id=task.id)
        upsert = Upsert("health", {"name": "ops"}, {"url": "u"})
        ours, [inserted] = await store.write(
            settle.start(task, queue.clock.now_ms(), [upsert, Insert(hook)])
        )
        assert ours
        assert (await store.read(search.get(inserted.id))).parent_id == task.id
        assert len(await plugin_rows.rows(store, "health")) == 1

    async def test_it_is_refused_once_the_claim_is_gone(self, queue: Any, store: Store) -> None:
        await queue.add()
        [task] = await queue.claim(idempotent=False)
        await store.write(claim.release_claims([task]))
        hook = queue.new(Key("crm/get", "ops"))
        assert await store.write(settle.start(task, queue.clock.now_ms(), [Insert(hook)])) == (
            False,
            [],
        )
        assert (await store.counts())["pending"] == 1


class TestRelease:
    async def test_the_attempt_is_given_back(self, queue: Any, store: Store) -> None:
        id_ = await queue.add()
        due = queue.clock.now_ms()
        queue.clock.turn(1)
        [task] = await queue.claim()
        assert await store.write(claim.release_claims([task])) == ["pending"]
        back = await store.read(search.get(id_))
        assert (back.status, back.attempts, back.next_try) == ("pending", 0, due)
        assert (back.locked_by, back.started_at) == (None, None)
        assert await store.read(search.attempts(id_)) == []

    async def test_a_settled_task_stays_settled(self, queue: Any, store: Store) -> None:
        await queue.add()
        [task] = await queue.claim()
        await queue.settle(task)
        assert await store.write(claim.release_claims([task])) == [None]
        assert (await store.read(search.get(task.id))).status == Status.SUCCEEDED

    async def test_one_with_a_cancel_asked_for_is_cancelled(self, queue: Any, store: Store) -> None:
        await queue.add()
        [task] = await queue.claim()
        await store.write(manual.cancel(task.id))
        assert await store.write(claim.release_claims([task])) == ["cancelled"]
        back = await store.read(search.get(task.id))
        assert (back.status, back.finished_at) == ("cancelled", queue.clock.now_ms())
        assert (await store.counts())["cancelled"] == 1


class TestReclaim:
    async def test_what_a_dead_daemon_held(self, unopened: Callable[[], Any]) -> None:
        queue = unopened()
        await queue.open()
        sent = [await queue.add() for _ in range(3)]
        started = await queue.claim(idempotent=True)
        claimed = await queue.add()
        waiting = await queue.add(delay=9)
        await queue.claim(idempotent=False)
        dead = queue.store.owner
        store = await queue.successor()
        assert store.owner != dead
        count, tasks = await claim.reclaim(store)
        assert count == 1
        assert [task.id for task in tasks] == sent
        assert {task.locked_by for task in tasks} == {store.owner}
        assert await claim.reclaim(store) == (0, [])
        back = await store.read(search.get(claimed))
        assert (back.status, back.attempts, back.locked_by) == ("pending", 0, None)
        assert (await store.read(search.get(waiting))).status == Status.PENDING
        # The late result of the dead owner is refused, the new owner's is taken.
        assert not (await queue.settle(started[0])).accepted
        assert (await queue.settle(tasks[0])).accepted
        await store.close()

    async def test_pages_until_none_is_left(self, unopened: Callable[[], Any]) -> None:
        queue = unopened()
        await queue.open()
        await queue.add_all([queue.new() for _ in range(700)])
        await queue.claim(limit=450, idempotent=True)
        await queue.claim(limit=250, idempotent=False)
        store = await queue.successor()
        counts, ids = 0, []
        while True:
            count, tasks = await claim.reclaim(store)
            counts += count
            ids += [task.id for task in tasks]
            if not count and not tasks:
                break
        assert (counts, len(set(ids)), len(ids)) == (250, 450, 450)
        await store.close()

    async def test_ours_is_left_alone(self, queue: Any, store: Store) -> None:
        await queue.add()
        await queue.claim()
        assert await claim.reclaim(store) == (0, [])

    async def test_a_cancel_that_was_asked_for_is_kept(self, unopened: Callable[[], Any]) -> None:
        queue = unopened()
        await queue.open()
        sent = await queue.add()
        await queue.claim(idempotent=True)
        claimed = await queue.add()
        await queue.claim(idempotent=False)
        for id_ in (sent, claimed):
            await queue.store.write(manual.cancel(id_))
        store = await queue.successor()
        _, [task] = await claim.reclaim(store)
        assert (task.id, task.cancel_requested) == (sent, True)
        assert (await store.read(search.get(claimed))).status == Status.CANCELLED
        await store.close()


async def test_what_is_left_of_what_was_released_is_claimed_next(queue: Any, store: Store) -> None:
    """Though a later one was claimed meanwhile, and claims begin where the last one ended."""
    old = [await queue.add() for _ in range(3)]
    released = await queue.claim()
    queue.clock.turn(10)
    await queue.add()
    assert len(await queue.claim()) == 1
    await store.write(claim.release_claims(released))
    for id_ in old:
        assert [task.id for task in await queue.claim(limit=1)] == [id_]
