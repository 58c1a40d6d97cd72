"""Lines of plugins' chores: each has its turn, in its order, and what is done is done once."""

from __future__ import annotations

from typing import Any

from orchestratord.model.task import NewChore
from orchestratord.queue.housekeeping.future_times import bring_back
from orchestratord.queue.operations import chores, effects
from orchestratord.queue.records import Chore, Insert
from orchestratord.queue.store import Store


async def add(store: Store, *lines: str) -> None:
    """Write a chore of each of these lines, whose data is its number."""
    new = [NewChore("sums", line, str(number)) for number, line in enumerate(lines)]
    await store.write(effects.write_effects(new))


async def claim(store: Store, after: str = "", most: int = 9) -> list[Chore]:
    """Claim the first of up to so many lines."""
    found = await store.read(chores.firsts(after, (), most))
    return await store.write(chores.claim(found))


async def data(store: Store, chore: Chore) -> str | None:
    found = await store.read(chores.data_of(chore))
    return found and found[1]


async def end(store: Store, chore: Chore, *items: Insert) -> list[Any]:
    return await store.write(effects.end_chore(chore, items))


async def test_the_first_of_each_line_has_its_turn(store: Store) -> None:
    store.chore_added.clear()
    await add(store, "a", "b", "a", "a", "a b")
    assert store.chore_added.is_set()
    assert await store.read(chores.due(store.owner, store.clock.now_ms(), (), 9)) == []
    claimed = {one.subject.split(" ", 2)[2]: one for one in await claim(store)}
    found = {line: await data(store, chore) for line, chore in claimed.items()}
    assert found == {"a": "0", "b": "1", "a b": "4"}
    ended = claimed["a"]
    await end(store, ended)
    assert await data(store, ended) is None
    assert {one.subject.split(" ", 2)[2]: one.id for one in await claim(store)}["a"] == 3


async def test_lines_take_turns(queue: Any, store: Store) -> None:
    await add(store, *[f"line{number % 5}" for number in range(20)])
    seen, after = [], ""
    for _ in range(5):
        [(id_, after)] = (await store.read(chores.firsts(after, (), 1))).items()
        seen.append(after)
        [chore] = await store.write(chores.claim([id_]))
        await end(store, chore)
    assert len({*seen}) == 5
    assert [*(await store.read(chores.firsts(after, (), 1))).values()] == [seen[0]]


async def test_a_line_waits_for_its_first_one_that_failed(queue: Any, store: Store) -> None:
    await add(store, "a", "a", "b")
    failed = next(one for one in await claim(store) if one.subject.endswith(" a"))
    await store.write(chores.release())
    await store.write(chores.claim([failed.id]))
    await store.write(chores.put_off(failed, 1, queue.clock.now_ms() + 4000))
    assert [one.subject.split(" ", 2)[2] for one in await claim(store)] == ["b"]
    queue.clock.turn(4)
    due = await store.read(chores.due(store.owner, queue.clock.now_ms(), (), 9))
    [chore] = await store.write(chores.claim(due))
    assert (chore.id, chore.failures) == (failed.id, 1)
    assert await data(store, chore) == "0"
    await end(store, chore)
    assert {one.subject.split(" ", 2)[2] for one in await claim(store)} == {"a", "b"}


async def test_a_line_goes_on_behind_one_that_was_set_aside(queue: Any, store: Store) -> None:
    await add(store, "a", "a")
    [chore] = await claim(store)
    queue.run(f"UPDATE chores SET due = NULL, owner = NULL WHERE id = {chore.id}")
    [following] = await claim(store)
    assert await data(store, following) == "1"
    assert [one.id for one in await store.read(chores.stuck())] == [chore.id]


async def test_a_clock_that_was_put_back_holds_up_no_line(queue: Any, store: Store) -> None:
    queue.clock.turn(86_400)
    await add(store, "a")
    queue.clock.turn(-86_400)
    await bring_back(store)
    [chore] = await claim(store)
    assert await data(store, chore) == "0"
