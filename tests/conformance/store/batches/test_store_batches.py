"""Batches: their members are written with their causes, and one delivery tells of each."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from dataclasses import replace
from typing import Any, NamedTuple

import pytest

from orchestratord.errors import NotFound
from orchestratord.model.settings import Retention
from orchestratord.model.task import BatchMember, ClosedBatch, Key, NewTask, Status, Upsert
from orchestratord.queue.housekeeping import batch_closing, future_times
from orchestratord.queue.housekeeping.prune import prune
from orchestratord.queue.operations import chores, search, stored_throttles
from orchestratord.queue.operations.effects import write_effects
from orchestratord.queue.operations.settle import settle
from orchestratord.queue.records import Insert, TaskFilter
from orchestratord.queue.reports.batch_page import batch_page
from orchestratord.queue.store import Store

HOOK = Key("crm/get", "ops")
SHARED = pytest.mark.parametrize("new_url", ["workers", "postgres"], indirect=True)
"""What others share with a daemon."""


def member(task_id: int, **fields: Any) -> BatchMember:
    given: dict[str, Any] = {
        "reason": "exhausted", "status_code": 503, "detail": f'{{"n":{task_id}}}', "most": 25,
        "group": "ops", "endpoint_id": "crm/get",
    }  # fmt: skip
    return BatchMember(
        webhook="ops", phase="on_final_failure", every=60.0, task_id=task_id, **given | fields
    )


class Found(NamedTuple):
    """Groups whose batch is to close, and batches that no delivery tells of."""

    ripe: list[str]
    closed: list[ClosedBatch]


async def look(queue: Any) -> Found:
    store = queue.store
    ripe = await store.read(batch_closing.ripe(queue.clock.now_ms()))
    rows = queue.run("SELECT subject FROM chores WHERE kind = 'batch' ORDER BY id")
    closed = [await store.read(batch_closing.closed(int(row["subject"]))) for row in rows]
    return Found(ripe, closed)


async def told(store: Store, batch_id: int) -> bool:
    ids = await store.read(chores.due(store.owner, store.clock.now_ms(), (), 99))
    claimed = {one.subject: one for one in await store.write(chores.claim(ids))} if ids else {}
    if (chore := claimed.get(str(batch_id))) is None:
        return False
    new = NewTask("webhook", "crm/get", webhook="ops", phase="on_final_failure", payload="{}")
    [inserted] = await store.write(batch_closing.write_delivery(chore, [Insert(new)]))
    return not inserted.duplicate


async def test_what_happened_to_no_task_is_kept_in_full(queue: Any, store: Store) -> None:
    events = [member(n, group="own", once=f"event {n}") for n in range(14)]
    await store.write(write_effects([replace(one, task_id=None) for one in events[:-1]]))
    await store.write(write_effects([member(14, group="own")]))
    queue.clock.turn(61)
    await store.write(batch_closing.close("own"))
    [batch] = (await look(queue)).closed
    assert len(batch.first) == 10
    assert await told(store, batch.id)
    page = await store.read(batch_page(batch.id, 9, 0))
    rest = await store.read(batch_page(batch.id, 9, page.next))
    assert (len(page.members), len(rest.members), rest.next) == (9, 5, None)
    assert [one.detail for one in (*page.members, *rest.members)] == [
        *(one.detail for one in events[:-1]), None,
    ]  # fmt: skip
    assert (page.total, page.webhook, page.delivery is not None) == (14, "ops", True)
    with pytest.raises(NotFound, match="there is no batch 4711"):
        await store.read(batch_page(4711, 9, 0))


async def test_members_come_with_their_causes_and_close_by_number_and_by_time(
    queue: Any, store: Store
) -> None:
    for _ in range(30):
        await queue.add()
    tasks = await queue.claim()
    effects = [(member(task.id, endpoint_id=f"crm/{task.id % 2}"),) for task in tasks]
    await asyncio.gather(
        *(
            store.write(settle(queue.settlement(task, Status.FAILED, reason="exhausted",
                                                status_code=503, effects=effect)))
            for task, effect in zip(tasks, effects, strict=True)
        )
    )  # fmt: skip
    assert (await look(queue)).ripe == ["ops"]
    assert await store.write(batch_closing.close("ops"))
    found = await look(queue)
    assert found.ripe == [], "the five that are left have their time"
    [batch] = found.closed
    assert (batch.members, batch.webhook, len(batch.first)) == (25, "ops", 10)
    assert [one.detail for one in batch.first] == [f'{{"n":{one.task_id}}}' for one in batch.first]
    assert sum(batch.counts.values()) == 25
    assert set(batch.counts) == {(f"crm/{n}", "exhausted", 503) for n in (0, 1)}
    assert await told(store, batch.id)
    assert not await told(store, batch.id)
    assert (await look(queue)).closed == []
    queue.clock.turn(59)
    assert (await look(queue)).ripe == []
    queue.clock.turn(2)
    # Beyond the first ten, a batch keeps no more than what is counted; those here are new ones.
    await store.write(batch_closing.close("ops"))
    [rest] = (await look(queue)).closed
    assert rest.members == 5
    every = [task.id for task in tasks]
    ids = []
    for one in (batch.id, rest.id):
        page, _ = await store.read(search.page(TaskFilter(batch=one), 100))
        ids += [task.id for task in page]
    assert sorted(ids) == every, "each in one of them"
    assert not await store.write(batch_closing.close("ops"))


async def test_each_batch_has_its_first_ten_in_full(queue: Any, store: Store) -> None:
    for start in (0, 30):
        await store.write(write_effects([member(n) for n in range(start, start + 30)]))
    batches = []
    queue.clock.turn(61)
    for _ in range(3):
        await store.write(batch_closing.close("ops"))
    batches = (await look(queue)).closed
    assert [batch.members for batch in batches] == [25, 25, 10]
    for batch in batches:
        assert [one.detail for one in batch.first] == [
            f'{{"n":{one.task_id}}}' for one in batch.first
        ]
    assert queue.run("SELECT count(detail) AS n FROM batch_members") == [{"n": 30}], "no more"


async def test_what_has_a_name_is_told_of_once(queue: Any, store: Store) -> None:
    for name in ("bulk 1", "bulk 2", "bulk 1"):
        await store.write(write_effects([member(0, once=name), member(0, once=name)]))
        queue.clock.turn(121)
    await store.write(write_effects([member(0, once="bulk 1", group="other")]))
    query = "SELECT group_key, once FROM batch_members ORDER BY id"
    assert [tuple(row.values()) for row in queue.run(query)] == [
        ("ops", "bulk 1"), ("ops", "bulk 2"), ("other", "bulk 1"),
    ]  # fmt: skip


@SHARED
async def test_what_each_daemon_finds_out_is_told_of_once_and_each_time_that_it_happens(
    two: Any,
) -> None:
    """Both find out that the database is away, and again; what one tells of, the other does not."""
    one, other = two

    async def away(queue: Any, number: int, age: int = 120_000) -> int:
        """How many are told of so far."""
        now = queue.clock.now_ms()
        found = member(number, once="trouble database", since=now - age)
        await queue.store.write(write_effects([found]))
        return len(one.run("SELECT id FROM batch_members"))

    assert [await away(one, 1), await away(other, 2)] == [1, 1]
    assert [await away(other, 3), await away(one, 4)] == [2, 2]
    assert [await away(one, 5), await away(one, 6), await away(other, 7)] == [3, 4, 4]
    assert await away(other, 8) == 4, "one has told of that"
    assert [await away(other, 9, age=-1_000), await away(one, 10)] == [5, 5]


@SHARED
async def test_what_both_were_told_while_the_database_was_away_is_told_of_once(two: Any) -> None:
    events = [
        member(0, reason=type_, once=type_, since=two[0].clock.now_ms() - 120_000)
        for type_ in ("began", "ended", "began", "ended")
    ]
    for queue in two:
        await queue.store.write(write_effects(events))
    rows = two[0].run("SELECT reason FROM batch_members ORDER BY id")
    assert [row["reason"] for row in rows] == ["began", "ended", "began", "ended"]


@SHARED
async def test_what_began_after_the_end_of_another_ones_is_told_of(two: Any) -> None:
    """It was lost where it came within two minutes, and nothing told that it still went on."""
    one, other = two

    async def tell(queue: Any, reason: str, began: int) -> list[str]:
        """What is told of so far."""
        now = queue.clock.now_ms()
        trouble = member(0, reason=reason, once=reason, since=now - 120_000)
        if reason == "began":
            trouble = replace(trouble, ended_by=("ended", now + began))
        else:
            trouble = replace(trouble, since=now + began)
        await queue.store.write(write_effects([trouble]))
        return [row["reason"] for row in one.run("SELECT reason FROM batch_members ORDER BY id")]

    assert await tell(one, "began", -9_000) == ["began"]
    assert await tell(one, "ended", -9_000) == ["began", "ended"]
    # The same outage, which this one found out later, or could not write of before.
    for reason in ("began", "ended"):
        assert await tell(other, reason, -7_000) == ["began", "ended"]
    await other.reopen()  # what it remembers is gone
    # Another one, in its successor.
    assert await tell(other, "began", 2_000) == ["began", "ended", "began"]
    assert await tell(other, "ended", 2_000) == ["began", "ended"] * 2


@pytest.mark.parametrize("new_url", ["postgres"], indirect=True)
@pytest.mark.parametrize("ahead", [-10, 10])
async def test_what_is_told_of_once_goes_by_the_clock_of_the_database(two: Any, ahead: int) -> None:
    """The same end of both is told of once; one of what began after that, again."""
    one, other = two
    one.clock.turn(ahead)
    for queue, began in ((one, -7_500), (other, -7_500), (other, 1_000), (one, -7_500)):
        closed = member(0, once="breaker.closed", since=queue.clock.now_ms() + began)
        await queue.store.write(write_effects([closed]))
    rows = one.run("SELECT at FROM batch_members")
    assert len(rows) == 2
    assert all(abs(row["at"] - time.time() * 1000) < 5_000 for row in rows)


@pytest.mark.parametrize("new_url", ["postgres"], indirect=True)
async def test_daemons_that_tell_of_the_same_never_deadlock(
    two: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the transactions lock that they do it in."""
    one, other = two
    caplog.set_level(logging.DEBUG, "orchestratord.queue")

    def ended(name: str) -> BatchMember:
        return member(0, once=name, since=0)

    def note() -> Any:
        change = stored_throttles.Change("api:a", "breaker", False, 0, [ended("breaker.closed")])
        return stored_throttles.note("host", [], [], [change])

    for n in range(30):
        row = Upsert("health", {"name": "hook"}, {"url": "", "seen": n})
        await one.add()
        [task] = await one.claim()
        await asyncio.gather(
            one.settle(task, effects=[row]),
            one.store.write(write_effects([ended("trouble.ended")])),
            one.store.write(note()),
            other.store.write(write_effects([ended("webhook.disabled"), row])),
            other.store.write(note()),
            other.store.write(stored_throttles.lift("api:b", n)),
        )
    assert not [one for one in caplog.records if "done again" in one.getMessage()]


async def test_what_cannot_be_told_of_is_left_out(
    queue: Any, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """And keeps nothing else from being written."""
    bad = member(1 << 70, once="bad")
    worse = member(3, once="worse", most=0), replace(member(4, once="worst"), every=math.nan)
    await store.write(write_effects([bad, *worse, member(1, once="good"), member(2)]))
    assert queue.run("SELECT once FROM batch_members ORDER BY id") == [
        {"once": None}, {"once": "good"},
    ]  # fmt: skip
    assert caplog.text.count("skipped a plugin's write to ops") == 3


async def test_those_that_wait_are_in_no_ones_way(queue: Any, store: Store) -> None:
    for n in range(25):
        await store.write(write_effects([member(n, most=1, group=f"ops {n}")]))
        await store.write(batch_closing.close(f"ops {n}"))
    first = await queue.chores()
    assert len(first) == 20
    for chore in first:
        await store.write(chores.put_off(chore, 0, queue.clock.now_ms() + 60_000))
    rest = [
        await store.read(batch_closing.closed(int(one.subject))) for one in await queue.chores()
    ]
    assert [batch.group for batch in rest] == [f"ops {n}" for n in range(20, 25)]


async def test_a_clock_that_was_ahead_keeps_none_open(queue: Any, store: Store) -> None:
    queue.clock.turn(3_600)
    await store.write(write_effects([member(1)]))
    queue.clock.turn(-3_590)
    await future_times.bring_back(store)
    assert (await look(queue)).ripe == []
    queue.clock.turn(61)
    assert (await look(queue)).ripe == ["ops"]


async def test_what_was_closed_is_told_of_after_a_death(queue: Any, store: Store) -> None:
    ids = [(await queue.add()) for _ in range(3)]
    await store.write(write_effects([member(id_, most=3) for id_ in ids]))
    await store.write(batch_closing.close("ops"))
    store = await queue.successor()
    [batch] = (await look(queue)).closed
    assert [one.task_id for one in batch.first] == ids
    assert await told(store, batch.id)
    page, _ = await store.read(search.page(TaskFilter(kind="webhook"), 10))
    assert [(task.key, task.status) for task in page] == [(HOOK, "pending")]


@SHARED
async def test_of_two_daemons_one_closes_and_one_tells(two: Any) -> None:
    one, other = two
    await one.store.write(write_effects([member(n) for n in range(40)]))
    closed = await asyncio.gather(
        *(queue.store.write(batch_closing.close("ops")) for queue in (one, other, one, other))
    )
    found = await look(one)
    assert [batch.members for batch in found.closed] == [25], "the rest waits for more"
    assert sum(closed) == 1
    assert found == await look(other)
    first = found.closed[0].id
    tellers = await asyncio.gather(told(one.store, first), told(other.store, first))
    assert sorted(tellers) == [False, True]


async def test_they_are_kept_as_long_as_failures(queue: Any, store: Store) -> None:
    await store.write(write_effects([member(n, most=5) for n in range(5)]))
    await store.write(batch_closing.close("ops"))
    await store.write(write_effects([member(9, group="open")]))
    [batch] = (await look(queue)).closed
    await told(store, batch.id)
    kept = Retention.model_validate({"failed": "1h"})
    await prune(store, kept)
    assert len(queue.run("SELECT id FROM batch_members")) == 6
    queue.clock.turn(3_700)
    await prune(store, kept)
    assert queue.run("SELECT group_key FROM batch_members") == [{"group_key": "open"}]
    assert queue.run("SELECT id FROM batches") == []


async def test_what_no_delivery_tells_of_yet_is_kept(queue: Any, store: Store) -> None:
    """A daemon that was away for longer than tasks are kept has first to tell of it."""
    await store.write(write_effects([member(n, most=5) for n in range(5)]))
    queue.clock.turn(7_200)
    await store.write(batch_closing.close("ops"))
    kept = Retention.model_validate({"failed": "1h"})
    await prune(store, kept)
    [batch] = (await look(queue)).closed
    assert len(batch.first) == 5
    assert await told(store, batch.id)
    await prune(store, kept)
    assert queue.run("SELECT id FROM batch_members") == []


async def test_a_batch_of_more_than_a_slice_goes_whole(queue: Any, store: Store) -> None:
    """Each slice counts, so that the daemon takes the next one; the batch goes with the last."""

    def number_of(table: str) -> int:
        return len(queue.run(f"SELECT id FROM {table}"))

    await store.write(write_effects([member(n, most=5) for n in range(5)]))
    await store.write(batch_closing.close("ops"))
    [batch] = (await look(queue)).closed
    await told(store, batch.id)
    kept = Retention.model_validate({"failed": "1h"})
    queue.clock.turn(3_700)
    assert await prune(store, kept, 2) == 2
    assert await prune(store, kept, 2) == 2
    assert (number_of("batch_members"), number_of("batches")) == (1, 1)
    assert await prune(store, kept, 2) == 2  # the last member, and the batch
    assert (number_of("batch_members"), number_of("batches")) == (0, 0)
    assert await prune(store, kept, 2) == 0


async def test_members_whose_batch_is_gone_go_too(queue: Any, store: Store) -> None:
    """Versions before 1.1.0 have left such."""
    await store.write(write_effects([member(n, most=5) for n in range(5)]))
    await store.write(batch_closing.close("ops"))
    [batch] = (await look(queue)).closed
    await told(store, batch.id)
    queue.run("DELETE FROM batches")
    kept = Retention.model_validate({"failed": "1h"})
    assert await prune(store, kept) == 0
    queue.clock.turn(3_700)
    assert await prune(store, kept) == 5
    assert queue.run("SELECT id FROM batch_members") == []
