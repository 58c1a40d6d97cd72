"""Chores: claimed by one, taken over from the dead, put off, set aside, done once."""

from __future__ import annotations

from typing import Any

import pytest

from orchestratord.queue.batch import Rank, writes
from orchestratord.queue.operations import chores, claim, effects
from orchestratord.queue.records import Chore, Insert
from orchestratord.queue.session import Session
from orchestratord.queue.store import Store
from tests.conformance.store.conftest import KEY


@writes(Rank.KEEP)
def add(session: Session, subject: int, due: int = 0) -> None:
    chores.add(session, "sweep", subject, due)


async def test_what_is_due_is_claimed_in_its_order(queue: Any, store: Store) -> None:
    now = queue.clock.now_ms()
    for subject, due in ((1, now), (2, now + 5000), (3, now - 1)):
        await store.write(add(subject, due))
    assert [(one.kind, one.subject) for one in await queue.chores()] == [
        ("sweep", "1"), ("sweep", "3"),
    ]  # fmt: skip
    assert await store.read(chores.due(store.owner, now, (), 1)) == [3]
    assert await store.read(chores.due(store.owner, now, (3,), 9)) == [1]
    queue.clock.turn(5)
    assert len(await queue.chores()) == 3


async def test_one_that_is_there_already_is_due_sooner(queue: Any, store: Store) -> None:
    await store.write(add(7, queue.clock.now_ms() + 5000))
    assert await queue.chores() == []
    store.chore_added.clear()
    await store.write(add(7))
    assert len(await queue.chores()) == 1
    assert store.chore_added.is_set()


async def test_what_follows_is_written_with_its_end_and_once(queue: Any, store: Store) -> None:
    await store.write(add(1))
    [chore] = await queue.chores()
    [inserted] = await store.write(effects.end_chore(chore, [Insert(queue.new(KEY))]))
    assert not inserted.duplicate
    [again] = await store.write(effects.end_chore(chore, [Insert(queue.new(KEY))]))
    assert again.duplicate
    assert (await store.counts())["pending"] == 1
    assert await queue.chores() == []


async def test_one_that_failed_waits_and_remembers_how_often(queue: Any, store: Store) -> None:
    await store.write(add(1))
    [chore] = await queue.chores()
    await store.write(chores.put_off(chore, 3, queue.clock.now_ms() + 4000))
    assert await queue.chores() == []
    queue.clock.turn(4)
    [chore] = await queue.chores()
    assert chore.failures == 3
    await store.write(chores.put_off(chore, 0, 0))
    assert (await queue.chores())[0].failures == 0


async def die(queue: Any) -> Store:
    """A daemon that has claimed a chore dies, and another one is there."""
    owner = queue.store.owner
    store = await queue.reopen()
    await store.write(claim.forsake([owner]))
    queue.run("UPDATE chores SET lease_until = 1")
    return store  # type: ignore[no-any-return]


async def test_after_three_deaths_it_is_set_aside_until_a_person_asks(
    queue: Any, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    await store.write(add(9))
    for deaths in range(3):
        [chore] = await queue.chores()
        assert chore == Chore(1, "sweep", "9", 0, deaths)
        store = await die(queue)
    assert await queue.chores() == []
    assert "set aside the chore sweep 9: 3 daemons have died at it" in caplog.text
    assert await store.read(chores.stuck()) == [Chore(1, "sweep", "9")]
    await store.write(add(9))
    assert [one.deaths for one in await queue.chores()] == [0]
    assert await store.read(chores.stuck()) == []


async def test_a_step_that_was_taken_ends_the_row_of_deaths(queue: Any, store: Store) -> None:
    await store.write(add(9))
    for _ in range(4):
        await queue.chores()
        store = await die(queue)
        [chore] = await queue.chores()
        assert chore.deaths == 1
        await store.write(chores.put_off(chore, 0, 0))


async def test_who_ends_leaves_its_chores_to_others(queue: Any, store: Store) -> None:
    await store.write(add(9))
    await queue.chores()
    await store.write(chores.release())
    await queue.reopen()
    assert [one.deaths for one in await queue.chores()] == [0]
