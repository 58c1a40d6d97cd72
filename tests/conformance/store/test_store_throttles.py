"""What throttles scopes, as the queue keeps it, and what comes forward when that is over."""

from __future__ import annotations

from typing import Any

import pytest

from orchestratord.model.event import BREAKER, LIFTED, OVERLOAD, RETRY_AFTER, StoredThrottle
from orchestratord.model.task import BatchMember, Key, Status
from orchestratord.queue.operations import daemons, search, stored_throttles
from orchestratord.queue.store import Store

NOW = 1_000_000_000
HOLD = StoredThrottle("api:a", RETRY_AFTER, "", NOW, NOW + 60_000, "429 with Retry-After")


async def rows(store: Store) -> list[StoredThrottle]:
    return await store.read(stored_throttles.stored())


async def test_what_is_lifted_wins_over_what_began_before(store: Store) -> None:
    breaker = StoredThrottle("api:a", BREAKER, "me", NOW, None, "503", 12.5)
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
    now = await one.store.write(daemons.look())  # by the clock of the database

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
    found.append(StoredThrottle("api:b", OVERLOAD, "gone", NOW, None, "", 200.0))
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
    later = queue.clock.now_ms() + 3_600_000
    failed, told = [await queue.add() for _ in range(2)]
    delayed, elsewhere = await queue.add(delay=3600), await queue.add(Key("crm/put"))
    for task in await queue.claim():
        await queue.settle(task, Status.PENDING, next_try=later, backed_off=task.id == failed)
    [other] = await queue.claim(Key("crm/put"))
    await queue.settle(other, Status.PENDING, next_try=later, backed_off=True)
    queue.clock.turn(1)
    came: list[None] = []
    await stored_throttles.bring_forward(store, Key("crm/get"), lambda: came.append(None))
    assert came == [None]
    tasks = [await store.read(search.get(id_)) for id_ in (failed, told, delayed, elsewhere)]
    now = queue.clock.now_ms()
    assert [task.next_try == now for task in tasks] == [True, False, False, False]
    assert [task.id for task in await queue.claim()] == [failed]


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
