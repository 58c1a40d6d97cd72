"""How many tasks each status has: kept with the tasks, whoever changes them, and counted anew."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from random import Random
from typing import Any

import pytest

from orchestratord.model.settings import Retention
from orchestratord.model.task import Key, Reason, Status
from orchestratord.queue.batch import Rank, Write
from orchestratord.queue.housekeeping import prune, recount
from orchestratord.queue.operations import bulk as bulks
from orchestratord.queue.operations import claim, manual, search
from orchestratord.queue.records import RETRY, TaskFilter
from orchestratord.queue.reports import grouped
from orchestratord.queue.session import Session
from orchestratord.queue.store import Store

DAY = 24 * 3600


def there(queue: Any) -> dict[str, int]:
    rows = queue.run("SELECT status FROM retry_schedule")
    return dict.fromkeys(map(str, Status), 0) | Counter(row["status"] for row in rows)


def owners(queue: Any) -> list[str]:
    rows = queue.run("SELECT DISTINCT owner FROM task_counts ORDER BY owner")
    return [row["owner"] for row in rows]


async def do_something(queue: Any, chance: Random) -> None:
    key = Key("crm/get", chance.choice(["", "ops"]))
    match chance.choice(["add", "add", "settle", "settle", "release", "bulk", "cancel", "prune"]):
        case "add":
            await queue.add_all([queue.new(key) for _ in range(chance.randrange(1, 5))])
        case "settle":
            tasks = await queue.claim(key, limit=4)
            ends = [Status.SUCCEEDED, Status.FAILED, Status.PENDING]
            for task in tasks[1:]:  # the first one goes on
                how = chance.choice(ends)
                due = queue.clock.now_ms() if how == Status.PENDING else None
                reason = Reason.EXHAUSTED if how == Status.FAILED else None
                await queue.settle(task, how, next_try=due, reason=reason)
        case "release":
            await queue.store.write(claim.release_claims(await queue.claim(key, limit=2)))
        case "bulk":
            bulk = await queue.bulk(TaskFilter(status=("failed",)), action=RETRY)
            await bulks.step(queue.store, bulk.id, 3)
        case "cancel":
            await queue.ended(Status.CANCELLED, key)
        case "prune":
            await prune.prune(queue.store, Retention(succeeded=0.001, failed=9.0, cancelled=0.0), 2)


@pytest.mark.slow
async def test_they_are_as_the_tasks_are_whatever_is_done(queue: Any) -> None:
    chance = Random(7)
    for number in range(60):
        queue.clock.turn(0.01)
        await do_something(queue, chance)
        if number % 20 == 19:
            await queue.successor()
            await claim.reclaim(queue.store)
        assert await queue.store.counts() == there(queue), number
    await recount.recount(queue.store)  # which corrects nothing
    assert await queue.store.counts() == there(queue)


async def test_what_is_undone_is_not_counted(queue: Any, store: Store) -> None:
    def fail(session: Session) -> None:
        session.moved(None, Status.FAILED, 3)
        session.db.run("INSERT INTO meta (name, value) VALUES ('undone', '')")
        raise KeyError("no")

    async def write() -> None:
        with pytest.raises(KeyError):
            await store.write(Write(Rank.NEW, fail))

    await asyncio.gather(write(), queue.add(), write(), queue.add())
    assert await store.counts() == there(queue)
    assert (await store.counts())["pending"] == 2


async def test_what_others_changed_is_corrected_once(
    queue: Any, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    await queue.add_all([queue.new() for _ in range(5)])
    queue.run("DELETE FROM retry_schedule WHERE id IN (SELECT id FROM retry_schedule LIMIT 2)")
    queue.run(
        "UPDATE retry_schedule SET status = 'cancelled', next_try = NULL, finished_at = 1 "
        "WHERE id = (SELECT max(id) FROM retry_schedule)"
    )
    assert (await store.counts())["pending"] == 5
    with caplog.at_level(logging.WARNING):
        seen = [await store.read(recount._look(queue.clock.now_ms(), False)) for _ in range(2)]
        await queue.add()  # between the look and the correction
        assert [await store.write(recount._correct(*one)) for one in seen] == [True, False]
        assert await store.counts() == there(queue)
        queue.run("DELETE FROM retry_schedule WHERE status = 'cancelled'")
        store.recounted_at = store.foreign_changes
        await recount.recount(store)
        assert (await store.counts())["cancelled"] == 1  # it was counted lately
        queue.clock.turn(recount.EACH_MS / 1000)
        await recount.recount(store)
    assert await store.counts() == there(queue)
    assert [record.getMessage() for record in caplog.records] == [
        "corrected the numbers of tasks, which something else has changed: cancelled -1"
    ]


async def test_a_clock_that_was_ahead_puts_no_count_off(queue: Any, store: Store) -> None:
    queue.clock.turn(10 * DAY)
    await recount.recount(store)
    queue.clock.turn(-10 * DAY)
    await queue.add()
    queue.run("DELETE FROM retry_schedule")
    await recount.recount(store)
    assert await store.counts() == there(queue)


async def test_what_dead_daemons_have_counted_goes_together(queue: Any) -> None:
    for _ in range(3):
        await queue.add()
        await queue.reopen()
    await queue.add()
    assert len(owners(queue)) == 4
    await recount.recount(queue.store)
    assert len(owners(queue)) == 4
    queue.clock.turn(DAY + 1)
    await queue.add()
    await recount.recount(queue.store)
    assert owners(queue) == ["", queue.store.owner]
    await queue.add()
    assert await queue.store.counts() == there(queue) | {"pending": 6}


async def test_tasks_are_found_by_several_reasons(queue: Any, store: Store) -> None:
    await queue.add_all([queue.new() for _ in range(9)])
    reasons = [Reason.EXHAUSTED, Reason.AMBIGUOUS, Reason.REJECTED]
    tasks = await queue.claim()
    for number, task in enumerate(tasks):
        await queue.settle(task, Status.FAILED, reason=reasons[number % 3])
    await store.write(manual.cancel(tasks[1].id))  # which keeps its doubt
    ids = [task.id for task in tasks if tasks.index(task) % 3 < 2][::-1]
    wanted = TaskFilter(reason=("ambiguous", "exhausted", "ambiguous"))
    found, following = await store.read(search.page(wanted, 4))
    assert [task.id for task in found] == ids[:4]
    found, following = await store.read(search.page(wanted, 4, following))
    assert ([task.id for task in found], following) == (ids[4:], None)
    groups = (await store.read(grouped.grouped(wanted, ["reason"]))).groups
    assert {group.values: group.tasks for group in groups} == {("exhausted",): 3, ("ambiguous",): 3}
    survey = await store.read(bulks.survey(wanted))
    assert survey.counts == {("exhausted", "crm/get"): 3, ("ambiguous", "crm/get"): 3}
    assert await store.read(search.page(TaskFilter(reason=("expired",)), 4)) == ([], None)
