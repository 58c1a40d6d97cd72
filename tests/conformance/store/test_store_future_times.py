"""Times that a clock which was ahead has written are brought back, and no others."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from orchestratord.model.event import RETRY_AFTER, StoredThrottle
from orchestratord.model.partition_turn import Partition
from orchestratord.model.settings import Retention
from orchestratord.model.task import Key, NewTask, Status
from orchestratord.queue.housekeeping import future_times, prune
from orchestratord.queue.operations import bulk, claim, effects, manual, stored_throttles
from orchestratord.queue.operations import settle as settling
from orchestratord.queue.records import RETRY, Insert, Pick, TaskFilter
from orchestratord.queue.store import Store
from tests.conformance.store.conftest import KEY, Queue

HOUR, DAY, YEAR = 3600, 86400, 400 * 86400
OTHER = Key("crm/get", "hook")


async def rows(queue: Queue) -> dict[int, dict[str, Any]]:
    return {row["id"]: row for row in queue.run("SELECT * FROM retry_schedule ORDER BY id")}


async def wait(queue: Queue, delay: int, key: Key = KEY) -> int:
    """A task that has failed once, and waits for so many seconds."""
    id_ = await queue.add(key)
    [task] = [task for task in await queue.claim(key) if task.id == id_]
    due = queue.clock.now_ms() + delay * 1000
    await queue.settle(task, Status.PENDING, next_try=due, attempt=queue.attempt(task, 503))
    return id_


@pytest.mark.parametrize("ahead", [HOUR, DAY, YEAR])
async def test_what_waits_waits_for_as_long_as_it_was_asked_to(queue: Queue, ahead: int) -> None:
    clock, store = queue.clock, queue.store
    before = await queue.add(delay=YEAR)
    retry = await wait(queue, 5)
    legal = await rows(queue)
    clock.turn(ahead)
    first, year = await queue.add(OTHER, delay=30), await queue.add(delay=2 * YEAR)
    again, due = await wait(queue, 600, Key("crm/again")), await queue.add(Key("crm/due"))
    ended = await queue.ended(Status.SUCCEEDED, Key("crm/ended"))
    runs = await queue.add(Key("crm/runs"))
    assert len(await queue.claim(Key("crm/runs"))) == 1
    clock.turn(10 - ahead)
    now = clock.now_ms()
    found = await future_times.bring_back(store)
    assert found.tasks == 6
    assert found.due[OTHER] == now + 30_000
    assert found.due[KEY] == now + 2 * YEAR * 1000
    assert found.due[Key("crm/again")] == now + 600_000
    after = await rows(queue)
    assert {id_: after[id_] for id_ in (before, retry)} == legal
    waits = {first: 30_000, year: 2 * YEAR * 1000, again: 600_000, due: 0}
    for id_, delay in waits.items():
        assert after[id_]["next_try"] == now + delay
    assert after[first]["scheduled_at"] == now + 30_000
    for id_ in (*waits, ended, runs):
        assert after[id_]["created_at"] == after[id_]["updated_at"] == now
    assert after[ended]["finished_at"] == now
    assert after[again]["attempts"] == 1
    # Once is enough, and what is due is claimed.
    assert not await future_times.bring_back(store)
    assert [task.id for task in await queue.claim(Key("crm/due"))] == [due]
    clock.turn(30)
    assert [task.id for task in await queue.claim(OTHER)] == [first]


async def test_what_comes_to_its_turn_meanwhile_is_due_as_it_was(queue: Queue) -> None:
    """A partition goes on between the return of the clock and the look for what it has written."""
    queue.clock.turn(DAY)
    turn = {"partition": Partition("acme", ordered=True)}
    first, second = [await queue.add(**turn) for _ in range(2)]
    queue.clock.turn(-DAY)
    await queue.store.write(manual.cancel(first))
    assert (await rows(queue))[second]["held"] == 0
    await future_times.bring_back(queue.store)
    assert [task.id for task in await queue.claim()] == [second]


async def test_small_differences_are_left_alone(queue: Queue) -> None:
    queue.clock.turn(1.5)
    await wait(queue, 5)
    queue.clock.turn(-1.5)
    before = await rows(queue)
    assert not await future_times.bring_back(queue.store)
    assert await rows(queue) == before


@pytest.mark.parametrize("brought_back", [False, True])
async def test_a_claim_that_goes_back_is_due_as_it_was(queue: Queue, brought_back: bool) -> None:
    """A task that was claimed while the clock was ahead, and is released when it is right; it had
    waited until the clock was there again, where its row was brought back as it ran."""
    queue.clock.turn(HOUR)
    id_ = await queue.add()
    [task] = await queue.claim()
    queue.clock.turn(-HOUR)
    if brought_back:
        await future_times.bring_back(queue.store)
    await queue.store.write(claim.release_claims([task]))
    found = (await rows(queue))[id_]
    assert (found["status"], found["next_try"]) == ("pending", queue.clock.now_ms())


async def test_a_dead_daemons_claim_that_goes_back_is_due_as_it_was(queue: Queue) -> None:
    queue.clock.turn(HOUR)
    id_ = await queue.add()
    await queue.claim(idempotent=False)
    queue.clock.turn(-HOUR)
    store = await queue.successor()

    assert await claim.reclaim(store) == (1, [])
    found = (await rows(queue))[id_]
    assert (found["status"], found["next_try"]) == ("pending", queue.clock.now_ms())


async def test_what_was_claimed_before_it_was_due_waits_again(queue: Queue) -> None:
    """As where an endpoint was gone, and is back."""
    id_ = await queue.add(delay=HOUR)
    due = queue.clock.now_ms() + HOUR * 1000
    [task] = (await queue.store.write(claim.claim([Pick(KEY, 1, False, 1 << 62)]))).tasks
    queue.clock.turn(60)
    await queue.store.write(claim.release_claims([task]))
    assert (await rows(queue))[id_]["next_try"] == due


async def test_the_last_success_is_the_one_before(queue: Queue) -> None:
    store, clock = queue.store, queue.clock
    for key in (Key("crm/get"), Key("crm/new")):
        for turned in (0, DAY) if key.endpoint_id == "crm/get" else (DAY,):
            clock.turn(turned)
            await queue.add(key)
            [task] = await queue.claim(key)
            now = clock.now_ms()
            fields = {"last_success_at": now, "attempt": queue.attempt(task)}
            await queue.settle(task, **fields)
            clock.turn(-turned)
    right = clock.now_ms()
    clock.turn(60)
    found = await future_times.bring_back(store)
    assert found.others == 2
    assert await store.read(settling.last_success()) == {"crm/get": right}


async def test_an_idempotency_key_counts_for_a_day(queue: Queue) -> None:
    async def call() -> int:
        task = queue.new(unique_key="k", params={"n": 1})
        [inserted] = await queue.store.write(effects.enqueue([Insert(task)]))
        return inserted.id

    queue.clock.turn(YEAR)
    first = await call()
    queue.clock.turn(-YEAR)
    await future_times.bring_back(queue.store)
    assert await call() == first
    queue.clock.turn(DAY + 1)
    assert await call() != first


async def test_bulks_are_brought_back(queue: Queue) -> None:
    await queue.add(delay=HOUR)
    queue.clock.turn(DAY)
    survey = await queue.store.read(bulk.survey(TaskFilter(status=("pending",))))
    made = await queue.store.write(bulk.create(RETRY, survey, None))
    queue.clock.turn(-DAY)
    found = await future_times.bring_back(queue.store)
    assert found.others >= 1
    again = await queue.store.read(bulk.get(made.id))
    assert again.created_at == again.updated_at == queue.clock.now_ms()


async def test_throttles_are_brought_back(queue: Queue) -> None:
    """What was lifted would win over all that begins within the next day."""
    queue.clock.turn(DAY)
    ahead = queue.clock.now_ms()
    told = StoredThrottle("api:x", RETRY_AFTER, "", ahead, ahead + 60_000, "429")
    await queue.store.write(stored_throttles.note("here", [told], []))
    await queue.store.write(stored_throttles.lift("api:crm", ahead))
    queue.clock.turn(-DAY)
    now = queue.clock.now_ms()
    assert (await future_times.bring_back(queue.store)).others >= 2
    found = {row.name: row for row in await queue.store.read(stored_throttles.stored())}
    assert (found["api:x"].since, found["api:x"].until) == (now, now + 60_000)
    assert (found["api:crm"].since, found["api:crm"].until) == (now, None)


async def test_nothing_is_deleted_that_was_jumped_over(queue: Queue, store: Store) -> None:
    """Retention, idempotency keys and the records count the time that has passed."""
    clock = queue.clock
    kept = Retention(succeeded=HOUR, failed=HOUR, cancelled=HOUR)
    for status in (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED):
        await queue.ended(status)
    clock.turn(1)
    clock._note(clock.now_ms(), DAY * 1000)
    clock.turn(DAY)
    assert await prune.prune(store, kept) == 0
    clock.turn(HOUR - 10)
    assert await prune.prune(store, kept) == 0
    clock.turn(20)
    assert await prune.prune(store, kept) == 3


async def test_many_are_brought_back_in_slices(
    queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(future_times, "PAGE", 7)
    monkeypatch.setattr(future_times, "SLICE", 3)
    queue.clock.turn(DAY)
    await queue.add_all([NewTask("call", KEY.endpoint_id, delay=5.0) for _ in range(40)])
    queue.clock.turn(-DAY)
    assert (await future_times.bring_back(store)).tasks == 40
    assert not await future_times.bring_back(store)
    queue.clock.turn(5)
    assert len(await queue.claim()) == 40


async def test_a_manual_retry_of_what_waits_ahead(queue: Queue) -> None:
    queue.clock.turn(DAY)
    id_ = await wait(queue, 5)
    queue.clock.turn(-DAY)
    await queue.store.write(manual.trigger(id_))
    assert [task.id for task in await queue.claim()] == [id_]


async def test_what_a_rate_has_counted_ahead_counts_from_now_on(queue: Queue) -> None:
    """Not for as long as the clock was ahead, nor from when its lane is claimed from next."""
    now = queue.clock.now_ms()
    if not queue.url.startswith("sqlite"):
        now = round(time.time() * 1000)  # about what the database's clock says
    old, ahead = [now - 100, 1], [now + DAY * 1000, 3]
    stamps = json.dumps([old, ahead])
    queue.run(f"INSERT INTO rates (lane, stamps) VALUES ('api:crm', '{stamps}')")
    found = await future_times.bring_back(queue.store)
    assert found.others == 1
    [row] = queue.run("SELECT stamps FROM rates")
    first, [at, count] = json.loads(row["stamps"])
    assert first == old
    assert (count, now <= at < now + 60_000) == (3, True)
    assert (await future_times.bring_back(queue.store)).others == 0
