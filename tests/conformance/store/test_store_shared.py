"""What a store does beside others on one queue: daemons on PostgreSQL, workers on a file."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestratord.errors import UniqueKeyReused
from orchestratord.model.task import Key, Status, Upsert
from orchestratord.queue import shared_rates
from orchestratord.queue.housekeeping import run_ends
from orchestratord.queue.operations import bulk as bulks
from orchestratord.queue.operations import chores, claim, effects, plugin_rows, search
from orchestratord.queue.postgres.notify import PAUSE
from orchestratord.queue.records import Claimed, Insert, Pick, TaskFilter, Wakeup
from orchestratord.queue.shared_rates import BUSY_MS, FULL_MS
from orchestratord.queue.sqlite import mailboxes
from orchestratord.queue.store import Store
from orchestratord.values.rate_limit import RateLimit
from tests.conformance.store.shared_files import next_worker, shared_files
from tests.postgres import Postgres

KEY = Key("crm/get")
Listen = Callable[[Store], list[Wakeup]]


@pytest.fixture(params=["workers", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "workers":
        with shared_files(tmp_path) as create:
            yield create()
        return
    server: Postgres = request.getfixturevalue("postgres")
    made = server.create()
    yield made
    server.drop(made)


async def test_many_that_begin_with_an_empty_database_at_once(url: str) -> None:
    stores = await asyncio.gather(*(Store.open(url, workers=next_worker(url)) for _ in range(4)))
    assert len({store.instance for store in stores}) == 1
    await asyncio.gather(*(store.close() for store in stores))


async def test_no_task_is_claimed_by_two(two: list[Any]) -> None:
    one, other = two
    for _ in range(5):
        await one.add_all([one.new() for _ in range(200)])
    claims = await asyncio.gather(*(queue.claim(limit=37) for _ in range(20) for queue in two))
    ids = [task.id for tasks in claims for task in tasks]
    assert len(ids) == len(set(ids)) == 1000
    owners = {task.locked_by for tasks in claims for task in tasks}
    assert owners == {one.store.owner, other.store.owner}


async def test_daemons_count_a_run_together_and_its_end_is_told_once(two: list[Any]) -> None:
    one, other = two
    await one.add()
    [root] = await one.claim()
    child = Insert(one.new(parent_id=root.id), run_id=root.id)
    await one.settle(root, begins_run=True, effects=[child] * 60)
    tasks = await one.claim()
    # Each settles a half, in transactions that meet at the row of the run.
    waves = [
        asyncio.gather(*(queue.settle(task) for task in tasks[n * 10 : n * 10 + 10]))
        for n, queue in enumerate([one, other] * 3)
    ]
    for settled in await asyncio.gather(*waves):
        assert all(result.accepted for result in settled)
    [run] = await other.untold()
    [chore] = await other.chores()
    assert (run.tasks, run.succeeded, run.end) == (61, 61, 1)
    told = await asyncio.gather(
        *(queue.store.write(run_ends.tell(chore, run, [Insert(one.new())])) for queue in two)
    )
    assert sorted(inserted.duplicate for [inserted] in told) == [False, True]


async def test_an_idempotency_key_counts_for_all(two: list[Any]) -> None:
    one, other = two
    for n in range(20):
        [[a], [b]] = await asyncio.gather(
            *(queue.add_all([queue.new(unique_key=f"k{n}", params={"n": n})]) for queue in two)
        )
        assert a.id == b.id
        assert [a.duplicate, b.duplicate].count(True) == 1
    with pytest.raises(UniqueKeyReused):
        await other.add_all([other.new(unique_key="k1", params={"n": 0})])
    assert len((await one.store.read(search.page(TaskFilter(), 100)))[0]) == 20


async def test_rows_that_all_write_to_do_not_deadlock(two: list[Any]) -> None:
    """Webhooks' health, for instance: each group of each daemon writes many of the same rows."""
    names = [f"hook{n}" for n in range(40)]

    async def write(queue: Any, turn: int) -> None:
        rows = names[::-1] if turn % 2 else names
        await asyncio.gather(
            *(
                queue.store.write(
                    effects.write_effects(
                        [Upsert("health", {"name": name}, {"url": "u"}, {"seen": 1})]
                    )
                )
                for name in rows
            )
        )

    await asyncio.gather(*(write(queue, n + t) for n, queue in enumerate(two) for t in range(10)))
    assert {row["seen"] for row in await plugin_rows.rows(two[0].store, "health")} == {20}


async def test_what_comes_from_a_clock_that_is_behind_is_found(two: list[Any]) -> None:
    """A claim begins where the last one of its key ended, which is no reason to miss that."""
    one, other = two
    await one.add_all([one.new() for _ in range(3)])
    assert len(await one.claim()) == 3
    other.clock.turn(-60)
    await other.add()
    due = await one.store.read(claim.earliest())
    one.store.expect(due)
    assert len(await one.claim()) == 1


async def test_a_rate_is_for_all_together(two: list[Any]) -> None:
    one, _ = two
    limit, other_key = RateLimit(30, "min"), Key("crm/put")
    for key in (KEY, other_key):
        await one.add_all([one.new(key) for _ in range(100)])
    picks = [Pick(key, 20, True, one.clock.now_ms(), "api:crm", limit) for key in (KEY, other_key)]
    claims = await asyncio.gather(
        *(queue.store.write(claim.claim(picks)) for _ in range(4) for queue in two)
    )
    assert sum(len(claimed.tasks) for claimed in claims) == 30
    waits = [claimed.used_up["api:crm"] for claimed in claims if claimed.used_up]
    assert len(waits) >= 7
    # Whoever came while the other one was claiming looks again at once.
    assert all(wait == BUSY_MS or 50_000 < wait <= 62_000 for wait in waits)
    free = Pick(Key("crm/get"), 7, True, one.clock.now_ms(), "api:crm", None)
    assert len((await one.store.write(claim.claim([free]))).tasks) == 7  # a lane without a limit


async def test_a_task_that_begins_late_counts_for_all_from_when_it_does(two: list[Any]) -> None:
    one, other = two
    await one.add_all([one.new() for _ in range(20)])
    limit = RateLimit(4, "min")
    pick = Pick(KEY, 20, True, one.clock.now_ms(), "api:crm", limit)
    assert len((await one.store.write(claim.claim([pick]))).tasks) == 4
    [(_, [(claimed, _)])] = (await claim.rates(one.store)).values()

    async def postpone(since: int, count: int) -> list[int]:
        late = (shared_rates.postpone("api:crm", limit, since, 5_000) for _ in range(count))
        return await asyncio.gather(*map(one.store.write, late))

    assert await postpone(claimed, 4) == [0] * 4
    [(_, stamps)] = (await claim.rates(other.store)).values()
    assert sum(count for _, count in stamps) == 4
    assert all(claimed + 5_000 <= at < claimed + 20_000 for at, _ in stamps)
    assert (await other.store.write(claim.claim([pick]))).tasks == []
    # One that counts no longer waits for those that were claimed in its place.
    [wait] = await postpone(claimed - 60_000, 1)
    assert 55_000 < wait <= 66_000


async def test_no_more_run_in_all_daemons_than_their_api_allows(two: list[Any]) -> None:
    """Claimed at once from two keys, by both; each one that ends makes room for another, and what a
    silent daemon holds counts."""
    one, _ = two
    keys = [KEY, Key("crm/put")]
    for key in keys:
        await one.add_all([one.new(key) for _ in range(30)])
    await one.add_all([one.new(Key("crm/put", "hook")), one.new(Key("crm2/put"))])
    picks = [
        Pick(key, 5, True, one.clock.now_ms(), "api:crm", global_concurrency=7) for key in keys
    ]
    free = Pick(Key("crm2/put"), 5, True, one.clock.now_ms(), "api:crm2")

    async def claim_at_once() -> list[Claimed]:
        return await asyncio.gather(
            *(queue.store.write(claim.claim(picks)) for _ in range(4) for queue in two)
        )

    await one.store.write(claim.claim([free]))  # of another API: it does not count
    claims = await claim_at_once()
    tasks = [task for claimed in claims for task in claimed.tasks]
    assert len(tasks) == 7
    waits = [claimed.full["api:crm"] for claimed in claims if len(claimed.tasks) < 7]
    assert set(waits) <= {BUSY_MS, FULL_MS}  # the former, where the other one was just claiming
    assert all(claimed.earliest[key] is not None for claimed in claims for key in keys)
    owners = {queue.store.owner: queue for queue in two}
    for task in tasks[:3]:
        await owners[task.locked_by].store.write(claim.release_claims([task]))
    claims = await claim_at_once()
    assert sum(len(claimed.tasks) for claimed in claims) == 3
    assert not any(claimed.tasks for claimed in await claim_at_once())


async def test_what_began_before_rates_were_kept_together_is_charged_once(two: list[Any]) -> None:
    one, _ = two
    limit = RateLimit(30, "min")
    await one.add_all([one.new() for _ in range(100)])
    pick = Pick(KEY, 50, True, one.clock.now_ms(), "api:crm", limit)
    now = one.clock.now_ms()
    if one.workers is None:
        now = round(time.time() * 1000)  # about what the database's clock says
    past = {"api:crm": (limit, [now - 200_000, *(now - 20_000 + n for n in range(20))])}
    await asyncio.gather(*(claim.charge_past(queue.store, past) for queue in two))
    await claim.charge_past(one.store, past)  # as one that is started again
    assert len((await one.store.write(claim.claim([pick]))).tasks) == 10
    [(_, stamps)] = (await claim.rates(one.store)).values()
    assert sum(count for _, count in stamps) == 30


async def test_what_a_daemon_counted_by_itself_is_charged_beside_what_was_charged(
    two: list[Any],
) -> None:
    one, _ = two
    limit, now = RateLimit(30, "h"), one.clock.now_ms()
    if one.workers is None:
        now = round(time.time() * 1000)
    began = [now - 4_000_000, *(now - 20_000 + n for n in range(20))]
    await claim.charge_past(one.store, {"api:crm": (limit, began[:5])})
    await claim.charge_past(one.store, {"api:crm": (limit, began)})
    [(_, stamps)] = (await claim.rates(one.store)).values()
    assert sum(count for _, count in stamps) == 20
    # What was claimed and has no attempt yet stays charged.
    await claim.charge_past(one.store, {"api:crm": (limit, began[-7:])})
    [(_, after)] = (await claim.rates(one.store)).values()
    assert after == stamps


async def test_a_bulk_that_is_released_need_not_be_waited_for(two: list[Any]) -> None:
    one, other = two
    for _ in range(4):
        await one.ended(Status.FAILED)
    bulk = await one.bulk(TaskFilter(status=("failed",)))
    assert [chore.subject for chore in await one.chores()] == [str(bulk.id)]
    await bulks.step(one.store, bulk.id, 2)
    assert await other.chores() == []
    await one.store.write(chores.release())
    assert [chore.subject for chore in await other.chores()] == [str(bulk.id)]
    seen, _ = await bulks.step(other.store, bulk.id, 100)
    assert seen.moved == 4


async def test_what_is_due_is_told_to_others(two: list[Any], listen: Listen) -> None:
    one, other = two
    heard = listen(other.store)
    async with asyncio.timeout(60):
        while not (one.store.listening and other.store.listening):
            await asyncio.sleep(0.01)
    own = listen(one.store)
    began = time.monotonic()
    for _ in range(50):
        await one.add()
    later = Key("crm/later")
    for seconds in (30, 40, 3_000):
        await one.add(later, delay=seconds)
    await one.add(Key("crm/tomorrow"), delay=86_400)
    one.store.tell("paused")
    async with asyncio.timeout(60):
        while not any(wakeup.paused for wakeup in heard):
            await asyncio.sleep(0.01)
    told = {key for wakeup in heard for key in wakeup.due or ()}
    assert told == {KEY, later}
    assert [later in (wakeup.due or ()) for wakeup in heard].count(True) == 1
    assert own == []
    each = PAUSE if one.workers is None else mailboxes.PAUSE
    assert len(heard) <= (time.monotonic() - began) / each + 2
