"""What throttles scopes, as the queue keeps it, and what comes forward when that is over."""

from __future__ import annotations

from typing import Any

import pytest

from orchestratord.model.event import BREAKER, LIFTED, OVERLOAD, RETRY_AFTER, StoredThrottle
from orchestratord.model.task import BatchMember, Key, Status
from orchestratord.queue.housekeeping import future_times
from orchestratord.queue.operations import claim, manual, search, settle, stored_throttles
from orchestratord.queue.store import Store

KEY = Key("crm/get")
NOW = 1_000_000_000
LATER = 1 << 45
HOLD = StoredThrottle("api:a", RETRY_AFTER, "", NOW, NOW + 60_000, "429 with Retry-After")


async def rows(store: Store) -> list[StoredThrottle]:
    return await store.read(stored_throttles.stored())


async def test_what_is_lifted_wins_over_what_began_before(store: Store) -> None:
    breaker = StoredThrottle("api:a", BREAKER, "me", NOW, None, "503")
    other = HOLD._replace(name="api:b")
    await store.write(stored_throttles.note("host", [HOLD, breaker, other], []))
    assert await rows(store) == [breaker, HOLD, other]
    longer = HOLD._replace(until=NOW + 90_000)
    await store.write(stored_throttles.note("host", [longer], []))
    await store.write(stored_throttles.lift("api:a", NOW + 10))
    lifted = StoredThrottle("api:a", LIFTED, "", NOW + 10)
    assert await rows(store) == [lifted, other]
    # A daemon that has not heard of it yet writes it again.
    await store.write(stored_throttles.note("host", [longer], []))
    assert await rows(store) == [lifted, other]
    later = HOLD._replace(since=NOW + 11)
    await store.write(stored_throttles.note("host", [later], [other]))
    assert await rows(store) == [lifted, later]


@pytest.mark.parametrize("new_url", ["workers", "postgres"], indirect=True)
async def test_what_begins_in_several_daemons_is_told_of_once(two: Any) -> None:
    """With the row that says so: by the first one, and again once it was over."""
    one, other = two
    now = await one.give_sign()  # by the clock of the database

    async def begins(queue: Any, kind: str, since: int, after: int = 0) -> int:
        """How many are told of so far."""
        owner = queue.store.owner if kind == BREAKER else ""
        row = StoredThrottle("api:a", kind, owner, since, since + 60_000)
        told = BatchMember(kind, "orchestratord", "ops", "operational", every=30.0, most=100)
        change = stored_throttles.Change("api:a", kind, True, after, [told])
        await queue.store.write(stored_throttles.note("host", [row], [], [change]))
        return len(one.run(f"SELECT id FROM batch_members WHERE group_key = '{kind}'"))

    assert [await begins(one, BREAKER, now), await begins(other, BREAKER, now + 9)] == [1, 1]
    # It had closed there, which was told of, and opens again.
    assert await begins(other, BREAKER, now + 20, after=now + 15) == 2
    assert await begins(one, BREAKER, now + 30, after=now + 18) == 2
    assert await begins(one, RETRY_AFTER, now - 70_000) == 1
    assert await begins(other, RETRY_AFTER, now) == 2, "that one is over"
    assert await begins(one, RETRY_AFTER, now) == 2


async def test_the_next_start_has_what_those_have_found_out_that_are_gone(store: Store) -> None:
    found = [
        StoredThrottle("api:a", BREAKER, owner, NOW, None, "503") for owner in ("gone", "alive")
    ]
    found.append(StoredThrottle("api:b", OVERLOAD, "gone", NOW, None, ""))
    over = HOLD._replace(name="over", until=NOW - 1)
    await store.write(stored_throttles.note("here", [*found, HOLD, over], []))
    await store.write(
        stored_throttles.note("there", [found[0]._replace(owner="far", name="api:c")], [])
    )
    adopted = await store.write(stored_throttles.adopt("here", ["alive"], NOW + 1))
    mine = [found[0]._replace(owner=store.owner), found[2]._replace(owner=store.owner)]
    assert sorted(adopted) == sorted([HOLD, *mine])
    assert {(row.name, row.owner) for row in await rows(store)} == {
        ("api:a", store.owner), ("api:a", "alive"), ("api:a", ""), ("api:b", store.owner),
        ("api:c", "far"),
    }  # fmt: skip
    # Where there is no other daemon, the name of the machine may have changed.
    alone = await store.write(stored_throttles.adopt("", [], NOW + 1))
    assert {row.name for row in alone} == {"api:a", "api:c"}
    assert {row.owner for row in await rows(store)} == {store.owner, ""}


async def test_what_failures_have_put_off_comes_forward_and_nothing_else(
    queue: Any, store: Store
) -> None:
    began = queue.clock.now_ms()
    before = await queue.add()
    await put_off(queue, before)
    queue.clock.turn(1)
    since = queue.clock.now_ms()
    failed, refused, told = [await queue.add() for _ in range(3)]
    delayed, elsewhere = await queue.add(delay=3600), await queue.add(Key("crm/put"))
    await put_off(queue, failed)
    await put_off(queue, refused, status_code=429)
    await put_off(queue, told, backed_off=False)
    [other] = await queue.claim(Key("crm/put"))
    await queue.settle(other, Status.PENDING, next_try=LATER, backed_off=True, status_code=503)
    everything = failed, before, refused, told, delayed, elsewhere
    queue.clock.turn(1)
    came: list[None] = []

    async def forward(since: int) -> list[bool]:
        """Which of them are due now."""
        await stored_throttles.bring_forward(store, KEY, since, lambda: came.append(None))
        tasks = [await store.read(search.get(id_)) for id_ in everything]
        return [task.next_try == queue.clock.now_ms() for task in tasks]

    assert await forward(since) == [True, False, False, False, False, False]
    assert came == [None]
    assert (await store.read(search.get(failed))).backoff_until == LATER, "it is early, and free"
    # Once for each attempt that counted.
    [task] = await queue.claim()
    assert task.id == failed
    await queue.settle(
        task, Status.PENDING, next_try=LATER, status_code=503, uncounted=True, backed_off=2
    )
    assert await forward(began) == [False, True, False, False, False, False]
    [task] = await queue.claim()
    await queue.settle(task, Status.PENDING, next_try=LATER, backed_off=True, status_code=503)
    # A person is not bound by it.
    queue.clock.turn(1)
    assert await forward(0) == [True, True, True, False, False, False]
    for id_ in (failed, refused):
        assert (await store.read(search.get(id_))).backoff_until is None


async def put_off(queue: Any, id_: int, status_code: int = 503, *, backed_off: bool = True) -> None:
    """The task that is due was tried, and waits for its next try."""
    [task] = await queue.claim(limit=1)
    assert task.id == id_
    await queue.settle(
        task, Status.PENDING, next_try=LATER, backed_off=backed_off, status_code=status_code
    )


async def test_what_an_older_daemon_has_put_off_is_early_too(queue: Any, store: Store) -> None:
    """It writes no `backoff_until`, or leaves that of the attempt before."""
    id_ = await queue.add()
    await put_off(queue, id_)
    queue.run("UPDATE retry_schedule SET backoff_until = NULL")
    queue.clock.turn(1)
    await stored_throttles.bring_forward(store, KEY, 1, lambda: None)
    task = await store.read(search.get(id_))
    assert (task.next_try, task.backoff_until) == (queue.clock.now_ms(), LATER)


async def test_a_clock_that_is_put_back_takes_the_delay_along(queue: Any, store: Store) -> None:
    """Of a task that waits, of one that is given back, of one that fails early, of one that starts
    then and fails early, of one that comes forward, and of one whose daemon has died."""
    ids = [await queue.add() for _ in range(5)]
    dead = await queue.add(Key("crm/put"))
    for id_ in ids:
        await put_off(queue, id_)
    [task] = await queue.claim(Key("crm/put"))
    await queue.settle(task, Status.PENDING, next_try=LATER, backed_off=True, status_code=503)
    now = queue.clock.now_ms()
    queue.run(f"UPDATE retry_schedule SET next_try = {now} WHERE id NOT IN ({ids[0]}, {ids[4]})")
    claimed = await queue.claim()
    assert [task.id for task in claimed] == ids[1:4]
    [task] = await queue.claim(Key("crm/put"))
    await store.write(settle.start(task, now, []))
    ahead = LATER - now
    queue.clock.turn(-86_400)
    now = queue.clock.now_ms()
    await store.write(claim.release_claims(claimed[:1]))
    await store.write(settle.start(claimed[2], now, []))
    for task in claimed[1:]:
        await queue.settle(task, Status.PENDING, next_try=now, uncounted=True, backed_off=2)
    assert await store.write(stored_throttles.come_forward(KEY, ids[4:], by_hand=False)) == 1
    successor = await queue.successor()
    [taken_over] = (await claim.reclaim(successor))[1]
    assert taken_over.floor(now) == now + ahead
    end = queue.settlement(taken_over, Status.PENDING, next_try=now + ahead, uncounted=True)
    await successor.write(settle.settle(end))
    await future_times.bring_back(successor)
    found = [(await successor.read(search.get(id_))).backoff_until for id_ in (*ids, dead)]
    assert found == [now + ahead] * 6


async def test_what_costs_no_attempt_leaves_the_delay_and_a_manual_retry_ends_it(
    queue: Any, store: Store
) -> None:
    id_ = await queue.add()
    now = queue.clock.now_ms()
    await put_off(queue, id_)
    assert (await store.read(search.get(id_))).backoff_until == LATER
    queue.clock.turn((LATER - now) / 1000)
    [task] = await queue.claim()
    await queue.settle(task, Status.PENDING, next_try=LATER + 5_000, uncounted=True)
    assert (await store.read(search.get(id_))).backoff_until == LATER
    assert (await store.write(manual.trigger(id_))).backoff_until is None


async def test_when_the_first_attempt_began(queue: Any, store: Store) -> None:
    id_ = await queue.add()
    for _ in range(2):
        [task] = await queue.claim()
        row = queue.attempt(task, 503)
        await queue.settle(task, Status.PENDING, next_try=queue.clock.now_ms(), attempt=row)
        queue.clock.turn(1)
    now = queue.clock.now_ms()
    assert await store.read(stored_throttles.first_attempt(id_, 0)) == now - 2_000
    assert await store.read(stored_throttles.first_attempt(id_, now - 1_000)) == now - 1_000
    assert await store.read(stored_throttles.first_attempt(id_, now)) is None


async def test_what_a_person_resolved_was_not_sent(queue: Any, store: Store) -> None:
    """A rate that goes on after a restart does not count it."""
    for why in ("succeeded", "resolved manually as succeeded: by a person"):
        await queue.add()
        [task] = await queue.claim()
        await queue.settle(task, attempt=queue.attempt(task, why=why))
    now = queue.clock.now_ms()
    assert await store.read(claim.begun(now - 1_000)) == [(task.key, now)]
