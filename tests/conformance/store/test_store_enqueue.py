from __future__ import annotations

import re
from typing import Any

import pytest

from orchestratord.errors import NotFound, UniqueKeyReused
from orchestratord.model.settings import Retention
from orchestratord.model.task import Key, Status
from orchestratord.queue.housekeeping import prune
from orchestratord.queue.operations import effects, search
from orchestratord.queue.records import Insert
from orchestratord.queue.store import Store

DAY = 86400.0


async def test_a_new_task_is_a_pending_row_that_is_due_now(queue: Any, store: Store) -> None:
    [inserted] = await queue.add_all([queue.new(params={"id": 7}, parent_id=3)])
    task = await store.read(search.get(inserted.id))
    assert inserted.next_try == queue.clock.now_ms()
    assert inserted.key == Key("crm/get") == task.key
    assert task.status == Status.PENDING
    assert (task.attempts, task.max_attempts, task.parent_id) == (0, 15, 3)
    assert task.next_try == task.created_at == task.updated_at == task.scheduled_at
    assert task.params == {"id": 7}
    assert (task.locked_by, task.started_at, task.finished_at) == (None, None, None)
    assert task.last_status_code is None


async def test_a_delay_is_counted_in_seconds(queue: Any, store: Store) -> None:
    id_ = await queue.add(delay=1.5)
    assert (await store.read(search.get(id_))).next_try == queue.clock.now_ms() + 1500
    assert await queue.claim() == []
    queue.clock.turn(1.5)
    assert [task.id for task in await queue.claim()] == [id_]


async def test_a_delay_below_nothing_is_none(queue: Any, store: Store) -> None:
    id_ = await queue.add(delay=-5)
    assert (await store.read(search.get(id_))).next_try == queue.clock.now_ms()


async def test_the_length_of_the_chain_that_led_to_it_is_kept(queue: Any, store: Store) -> None:
    assert (await store.read(search.get(await queue.add(depth=7)))).depth == 7
    assert (await store.read(search.get(await queue.add()))).depth == 0


async def test_a_slot_is_kept(queue: Any, store: Store) -> None:
    id_ = await queue.add(scheduled_at=1_700_000_000_000, delay=5)
    task = await store.read(search.get(id_))
    assert task.scheduled_at == 1_700_000_000_000
    assert task.next_try == queue.clock.now_ms() + 5000


async def test_a_delivery_keeps_payload_and_phase(queue: Any, store: Store) -> None:
    key = Key("crm/get", "ops")
    good = await queue.add(key, payload='{"a": 1}', phase="on_retry", max_attempts=10)
    bad = await queue.add(key, error="payload: 'x' is undefined")
    task = await store.read(search.get(good))
    assert (task.kind, task.webhook, task.phase) == ("webhook", "ops", "on_retry")
    assert (task.payload, task.max_attempts) == ('{"a": 1}', 10)
    assert (await store.read(search.get(bad))).payload is None
    assert (await store.read(search.get(bad))).last_error == "payload: 'x' is undefined"


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"naïve": "čárka 漢字 🎈", "deep": {"list": [1, 2.5, None, True, "x"]}},
        {"nul": "a\x00b", "surrogate": "\udc80"},
        {"big": 2**80},
    ],
)
async def test_params_come_back_as_they_were(
    queue: Any, store: Store, params: dict[str, Any]
) -> None:
    id_ = await queue.add(params=params)
    assert (await store.read(search.get(id_))).params == params


async def test_params_that_are_no_json_are_refused_and_nothing_is_written(
    queue: Any, store: Store
) -> None:
    with pytest.raises(TypeError):
        await queue.add_all([queue.new(), queue.new(params={"when": object()})])
    assert (await store.counts())["pending"] == 0


async def test_ids_grow_in_the_order_of_the_batch(queue: Any) -> None:
    inserted = await queue.add_all([queue.new(Key(f"crm/e{n % 3}")) for n in range(1000)])
    ids = [item.id for item in inserted]
    assert ids == sorted(set(ids))
    assert [item.key.endpoint_id for item in inserted[:4]] == [
        "crm/e0",
        "crm/e1",
        "crm/e2",
        "crm/e0",
    ]


async def test_an_id_is_never_used_twice(queue: Any, store: Store) -> None:
    last = await queue.ended(Status.SUCCEEDED)
    queue.clock.turn(2 * DAY)
    assert await prune.prune(store, Retention()) == 1
    store = await queue.reopen()
    assert await queue.add() > last


async def test_each_task_has_a_random_key_that_stays(queue: Any, store: Store) -> None:
    ids = [await queue.add() for _ in range(3)]
    keys = [(await store.read(search.get(id_))).nonce for id_ in ids]
    assert len({key for key in keys if re.fullmatch("[0-9A-Za-z]{20}", key or "")}) == 3
    for task in await queue.claim():
        await queue.settle(task, Status.PENDING, next_try=queue.clock.now_ms())
    store = await queue.reopen()
    assert [task.nonce for task in await queue.claim()] == keys


class TestIdempotencyKeys:
    async def test_the_same_key_gives_the_first_task(self, queue: Any, store: Store) -> None:
        first = await queue.add(unique_key="k", params={"a": 1, "b": [2]})
        queue.clock.turn(DAY - 1)
        [again] = await queue.add_all([queue.new(unique_key="k", params={"b": [2], "a": 1})])
        assert (again.id, again.duplicate) == (first, True)
        assert (await store.counts())["pending"] == 1

    @pytest.mark.parametrize("other", [{"a": 2}, {"a": True}, {"a": 1, "b": 1}, {}])
    async def test_other_params_are_refused(
        self, queue: Any, store: Store, other: dict[str, Any]
    ) -> None:
        await queue.add(unique_key="k", params={"a": 1})
        with pytest.raises(UniqueKeyReused, match="'k' was used for task 1 of crm/get"):
            await queue.add_all([queue.new(), queue.new(unique_key="k", params=other)])
        assert (await store.counts())["pending"] == 1

    async def test_what_the_client_sent_is_compared(self, queue: Any) -> None:
        """And not what defaults made of it, which may have changed meanwhile."""
        first = await queue.add(unique_key="k", params={"a": 1, "b": 5}, asked={"a": 1})
        again = queue.new(unique_key="k", params={"a": 1, "b": 6, "c": None}, asked={"a": 1})
        found = await queue.add_all([again, again])
        assert [(item.id, item.duplicate) for item in found] == [(first, True)] * 2
        for params, asked in (({"a": 2, "b": 6}, {"a": 2}), ({"a": 1, "b": 6}, {"a": 1, "b": 6})):
            with pytest.raises(UniqueKeyReused):
                await queue.add(unique_key="k", params=params, asked=asked)

    async def test_where_that_is_not_known_what_was_made_of_it_is(self, queue: Any) -> None:
        first = await queue.add(unique_key="k", params={"a": 1, "b": 5})
        assert await queue.add(unique_key="k", params={"a": 1, "b": 5}, asked={"a": 1}) == first
        with pytest.raises(UniqueKeyReused):
            await queue.add(unique_key="k", params={"a": 1, "b": 6}, asked={"a": 1})

    async def test_it_counts_at_its_endpoint_alone(self, queue: Any) -> None:
        first = await queue.add(unique_key="k")
        assert await queue.add(Key("crm/put"), unique_key="k") != first

    async def test_it_is_given_up_after_a_day(self, queue: Any, store: Store) -> None:
        first = await queue.add(unique_key="k", params={"a": 1})
        queue.clock.turn(DAY)
        second = await queue.add(unique_key="k", params={"a": 2})
        assert second != first
        assert (await store.read(search.get(first))).unique_key is None
        assert (await store.read(search.get(second))).unique_key == "k"

    async def test_it_counts_in_whatever_state_the_task_is(self, queue: Any) -> None:
        first = await queue.ended(Status.FAILED, unique_key="k")
        [again] = await queue.add_all([queue.new(unique_key="k")])
        assert (again.id, again.duplicate) == (first, True)

    async def test_it_counts_within_one_batch(self, queue: Any) -> None:
        one, two = await queue.add_all([queue.new(unique_key="k"), queue.new(unique_key="k")])
        assert (two.id, one.duplicate, two.duplicate) == (one.id, False, True)

    async def test_a_batch_is_the_same_with_as_many_calls(self, queue: Any, store: Store) -> None:
        async def bring(count: int) -> list[int]:
            tasks = [Insert(queue.new(unique_key=f"k/{n}")) for n in range(count)]
            return [one.id for one in await store.write(effects.enqueue(tasks, f"k/{count}"))]

        first = await bring(3)
        assert await bring(3) == first
        for count in (1, 2, 4):
            with pytest.raises(UniqueKeyReused, match="of more or fewer calls"):
                await bring(count)
        assert (await store.counts())["pending"] == 3
        queue.clock.turn(DAY)
        fewer = await bring(2)  # the third of the batch before still has its key
        assert await bring(2) == fewer
        assert not set(fewer) & set(first)


async def test_an_unknown_task_is_not_found(store: Store) -> None:
    with pytest.raises(NotFound, match="there is no task 99"):
        await store.read(search.get(99))
