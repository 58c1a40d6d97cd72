from __future__ import annotations

from typing import Any

import pytest

from orchestratord.errors import Conflict, NotFound
from orchestratord.model.task import Key, Reason, Status
from orchestratord.queue.operations import manual, search, settle
from orchestratord.queue.store import Store


async def exhausted(queue: Any, attempts: int = 2, **settlement: Any) -> int:
    """A task that used all of its attempts."""
    id_: int = await queue.add(max_attempts=attempts)
    for number in range(1, attempts + 1):
        [task] = await queue.claim()
        last = number == attempts
        await queue.settle(
            task,
            Status.FAILED if last else Status.PENDING,
            next_try=None if last else queue.clock.now_ms(),
            reason=Reason.EXHAUSTED if last else None,
            **settlement,
        )
    return id_


class TestTrigger:
    async def test_a_pending_task_is_due_now(self, queue: Any, store: Store) -> None:
        id_ = await queue.add(delay=3600)
        task = await store.write(manual.trigger(id_))
        assert task == await store.read(search.get(id_))
        assert (task.status, task.next_try, task.granted) == ("pending", queue.clock.now_ms(), 0)
        assert task.retried_at == queue.clock.now_ms()

    async def test_it_goes_before_all_others_of_its_key(self, queue: Any, store: Store) -> None:
        early = await queue.add()
        other = await queue.add(Key("crm/put"))
        queue.clock.turn(60)
        late = [await queue.add() for _ in range(2)]
        failed = await queue.ended(Status.CANCELLED)
        for id_ in (late[1], failed):
            task = await store.write(manual.trigger(id_))
            assert task.next_try is not None
            assert task.next_try <= queue.clock.now_ms()
        ids = [task.id for task in await queue.claim()]
        assert ids == [failed, late[1], early, late[0]]
        assert (await store.read(search.get(other))).status == Status.PENDING

    async def test_one_that_is_first_already_is_not_moved_back(
        self, queue: Any, store: Store
    ) -> None:
        first = await queue.add()
        queue.clock.turn(10)
        await queue.add()
        due = (await store.read(search.get(first))).next_try
        assert (await store.write(manual.trigger(first))).next_try == due

    async def test_a_failed_one_gets_one_attempt_more(self, queue: Any, store: Store) -> None:
        id_ = await exhausted(queue, 2, status_code=503)
        key = (await store.read(search.get(id_))).nonce
        queue.clock.turn(60)
        task = await store.write(manual.trigger(id_))
        assert (task.status, task.reason, task.finished_at) == ("pending", None, None)
        assert (task.attempts, task.max_attempts, task.granted) == (2, 3, 1)
        assert (task.retried_at, task.generation) == (queue.clock.now_ms(), 0)
        assert task.last_status_code == 503
        [again] = await queue.claim()
        assert (again.attempts, again.nonce) == (3, key)

    async def test_only_where_none_is_left(self, queue: Any, store: Store) -> None:
        id_ = await queue.ended(Status.FAILED)
        task = await store.write(manual.trigger(id_))
        assert (task.attempts, task.max_attempts, task.granted) == (1, 15, 0)

    async def test_enough_where_the_policy_was_lowered_below_what_was_used(
        self, queue: Any, store: Store
    ) -> None:
        id_ = await exhausted(queue, 3, max_attempts=1)
        task = await store.write(manual.trigger(id_))
        assert (task.attempts, task.max_attempts, task.granted) == (3, 4, 3)

    async def test_a_cancelled_one(self, queue: Any, store: Store) -> None:
        id_ = await queue.ended(Status.CANCELLED)
        task = await store.write(manual.trigger(id_))
        assert (task.status, task.finished_at, task.cancel_requested) == ("pending", None, False)

    async def test_a_succeeded_one_only_with_force(self, queue: Any, store: Store) -> None:
        id_ = await queue.ended(Status.SUCCEEDED, max_attempts=1)
        with pytest.raises(Conflict, match=f"task {id_} has succeeded"):
            await store.write(manual.trigger(id_))
        key = (await store.read(search.get(id_))).nonce
        task = await store.write(manual.trigger(id_, force=True))
        assert (task.status, task.generation, task.granted) == ("pending", 1, 1)
        # Its receiver must not take it for the one before.
        assert task.nonce
        assert task.nonce != key

    async def test_force_changes_nothing_for_the_others(self, queue: Any, store: Store) -> None:
        assert (await store.write(manual.trigger(await queue.add(), force=True))).generation == 0

    @pytest.mark.parametrize("force", [True, False])
    async def test_a_running_one_is_a_conflict(self, queue: Any, store: Store, force: bool) -> None:
        id_ = await queue.add()
        await queue.claim()
        with pytest.raises(Conflict, match=f"task {id_} is running"):
            await store.write(manual.trigger(id_, force=force))

    async def test_an_unknown_one(self, store: Store) -> None:
        with pytest.raises(NotFound, match="there is no task 5"):
            await store.write(manual.trigger(5))


class TestCancel:
    @pytest.mark.parametrize("status", [Status.PENDING, Status.FAILED])
    async def test_what_waits_or_has_failed(self, queue: Any, store: Store, status: Status) -> None:
        id_ = await (exhausted(queue) if status == Status.FAILED else queue.add())
        queue.clock.turn(1)
        task = await store.write(manual.cancel(id_))
        assert task == await store.read(search.get(id_))
        assert (task.status, task.reason, task.next_try) == ("cancelled", None, None)
        assert task.finished_at == queue.clock.now_ms()
        assert await queue.claim() == []

    async def test_a_running_one_is_asked(self, queue: Any, store: Store) -> None:
        id_ = await queue.add()
        await queue.claim()
        task = await store.write(manual.cancel(id_))
        assert (task.status, task.cancel_requested) == ("running", True)

    async def test_a_cancelled_one_stays_as_it_is(self, queue: Any, store: Store) -> None:
        id_ = await queue.ended(Status.CANCELLED)
        before = await store.read(search.get(id_))
        queue.clock.turn(1)
        assert await store.write(manual.cancel(id_)) == before

    async def test_a_succeeded_one_is_a_conflict(self, queue: Any, store: Store) -> None:
        id_ = await queue.ended(Status.SUCCEEDED)
        with pytest.raises(Conflict, match="has succeeded"):
            await store.write(manual.cancel(id_))

    async def test_an_unknown_one(self, store: Store) -> None:
        with pytest.raises(NotFound, match="there is no task 5"):
            await store.write(manual.cancel(5))


async def test_a_pause_lasts(queue: Any, store: Store) -> None:
    await store.write(manual.pause("crm/get", True))
    await store.write(manual.pause("crm/put", True))
    await store.write(manual.pause("crm/put", False))
    store = await queue.reopen()
    assert await store.read(manual.paused()) == {"crm/get"}
    await queue.settle((await _claimed(queue)), last_success_at=5)
    assert await store.read(manual.paused()) == {"crm/get"}
    await store.write(manual.pause("crm/get", False))
    assert await store.read(manual.paused()) == set()
    assert await store.read(settle.last_success()) == {"crm/get": 5}


async def _claimed(queue: Any) -> Any:
    await queue.add()
    [task] = await queue.claim()
    return task
