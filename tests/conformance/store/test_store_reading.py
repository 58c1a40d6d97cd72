from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from orchestratord.errors import InvalidPayload, NotFound, QueueError
from orchestratord.model.task import Action, Key, NewTask, Status, Task, TaskExcerpt
from orchestratord.queue.batch import Read
from orchestratord.queue.connection import Connection
from orchestratord.queue.housekeeping import prune
from orchestratord.queue.operations import bulk as bulks
from orchestratord.queue.operations import (
    claim,
    effects,
    manual,
    plugin_rows,
    schedules,
    search,
)
from orchestratord.queue.records import Insert, TaskFilter
from orchestratord.queue.reports import backlog
from orchestratord.queue.store import Store
from orchestratord.values.status_set import StatusSet

GET, PUT, HOOK, ERP = Key("crm/get"), Key("crm/put"), Key("crm/get", "ops"), Key("crm2/get")


async def ids(store: Store, limit: int = 100, after: int | None = None, **fields: Any) -> list[int]:
    return [
        task.id for task in (await store.read(search.page(TaskFilter(**fields), limit, after)))[0]
    ]


async def test_all_that_is_read_at_once_is_of_one_moment(queue: Any, store: Store) -> None:
    """A task whose status changes between two statements would be in neither, or in both."""
    id_ = await queue.add()
    begun, written = threading.Event(), threading.Event()

    def look(db: Connection) -> list[int]:
        found = []
        for status in ("cancelled", "pending"):
            count = "SELECT count(*) FROM retry_schedule WHERE status = ?"
            found.append(db.all(count, (status,))[0][0])
            begun.set()
            written.wait(10)
        return found

    reading = asyncio.create_task(store.read(Read(look)))
    await asyncio.to_thread(begun.wait, 10)
    await store.write(manual.cancel(id_))
    written.set()
    assert await reading == [0, 1]


class TestList:
    async def test_newest_first_in_pages(self, queue: Any, store: Store) -> None:
        for n in range(9):
            await queue.ended([Status.SUCCEEDED, Status.FAILED, Status.CANCELLED][n % 3])
        seen: list[int] = []
        while page := await ids(store, 4, seen[-1] if seen else None):
            assert len(page) <= 4
            seen += page
        assert seen == list(range(9, 0, -1))

    async def test_by_status(self, queue: Any, store: Store) -> None:
        done = await queue.ended(Status.SUCCEEDED)
        failed = await queue.ended(Status.FAILED)
        late = await queue.ended(Status.SUCCEEDED)
        waits = await queue.add(delay=9)
        assert await ids(store, status=("succeeded",)) == [late, done]
        assert await ids(store, status=("failed", "pending")) == [waits, failed]
        assert await ids(store, status=("failed", "failed")) == [failed]
        assert await ids(store, 1, status=("succeeded", "failed")) == [late]
        assert await ids(store, status=("running",)) == []

    async def test_by_endpoint_api_and_kind(self, queue: Any, store: Store) -> None:
        get, put, hook, erp = [await queue.add(key) for key in (GET, PUT, HOOK, ERP)]
        assert await ids(store, endpoint="crm/get") == [hook, get]
        assert await ids(store, endpoint="crm/*") == [hook, put, get]
        assert await ids(store, endpoint="crm2/*") == [erp]
        assert await ids(store, endpoint="crm/g") == []
        assert await ids(store, kind="webhook") == [hook]
        assert await ids(store, kind="call", endpoint="crm/*") == [put, get]

    async def test_by_status_code(self, queue: Any, store: Store) -> None:
        made = {}
        for code in (200, 404, 500, 503, "error", "ok", None):
            made[code] = await queue.add()
            [task] = await queue.claim()
            await queue.settle(task, Status.FAILED, status_code=code)
        for pattern, codes in (
            ("5xx", [503, 500]),
            (["404", "error"], ["error", 404]),
            ("501-503", [503]),
            ("ok", ["ok"]),
            ("2xx", [200]),
            ("3xx", []),
        ):
            expected = [made[code] for code in codes]  # type: ignore[index]
            assert await ids(store, status_code=StatusSet.parse(pattern)) == expected

    async def test_since_it_was_created(self, queue: Any, store: Store) -> None:
        await queue.add()
        queue.clock.turn(60)
        then = queue.clock.now_ms()
        second = await queue.add()
        queue.clock.turn(60)
        third = await queue.add()
        assert await ids(store, since=then) == [third, second]
        assert await ids(store, since=then + 1) == [third]
        assert await ids(store, since=queue.clock.now_ms() + 1) == []

    async def test_since_with_a_clock_that_was_set_back(self, queue: Any, store: Store) -> None:
        then = queue.clock.now_ms()
        first = await queue.add()
        queue.clock.turn(-3600)
        await queue.add()
        assert await ids(store, since=then) == [first]

    async def test_until_it_was_created(self, queue: Any, store: Store) -> None:
        first = await queue.add()
        queue.clock.turn(60)
        then = queue.clock.now_ms()
        second = await queue.add()
        assert await ids(store, until=then) == [first]
        assert await ids(store, until=then + 1) == [second, first]
        assert await ids(store, since=then, until=then + 1) == [second]
        assert await ids(store, until=1) == []
        queue.clock.turn(-3600)
        back = await queue.add()
        assert await ids(store, until=then) == [back, first]

    async def test_when_it_was_created_while_it_runs(self, queue: Any, store: Store) -> None:
        first, second, third = [await queue.add() for _ in range(3)]
        queue.clock.turn(60)
        then = queue.clock.now_ms()
        for _ in range(3):
            await queue.add()
        assert {task.id for task in await queue.claim(limit=4)} == {1, 2, 3, 4}
        assert await ids(store, since=then) == [6, 5, 4]
        assert await ids(store, since=then, status=("running",)) == [4]
        assert await ids(store, until=then) == [third, second, first]
        assert await ids(store, until=then, status=("pending",)) == []

    async def test_by_their_numbers_and_by_what_caused_them(self, queue: Any, store: Store) -> None:
        one, two, three = [await queue.add() for _ in range(3)]
        child = await queue.add(HOOK, parent_id=two)
        assert await ids(store, ids=(one, three, 999)) == [three, one]
        assert await ids(store, ids=(one,), status=("failed",)) == []
        assert await ids(store, ids=()) == []
        assert await ids(store, parent=two) == [child]
        assert await ids(store, parent=one) == []

    async def test_by_a_text(self, queue: Any, store: Store) -> None:
        order = await queue.add(params={"name": "Ünal 100%_!"})
        await queue.add(params={"name": "Other"})
        hook = await queue.add(Key("crm/get", "Nightly-Ops"))
        [task] = await queue.claim(Key("crm/get", "Nightly-Ops"))
        await queue.settle(task, Status.FAILED, error="503 from <b>Receiver</b>")
        assert await ids(store, text="100%_!") == [order]
        assert await ids(store, text="100_") == []
        assert await ids(store, text="ünal") == []  # only ASCII letters are made alike
        assert await ids(store, text="NIGHTLY") == [hook]
        assert await ids(store, text="<B>receiver") == [hook]
        assert await ids(store, text="' OR 1=1 --") == []
        assert await ids(store, text="\0") == []

    async def test_a_text_is_looked_for_in_so_many_tasks_at_a_time(
        self, queue: Any, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(search, "LOOKED", 10)
        wanted = TaskFilter(text="needle")
        needles = [await queue.add(params={"a": "needle"}) for _ in range(2)]
        await queue.add_all([queue.new() for _ in range(25)])
        needles += [await queue.add(params={"a": "needle"})]
        seen, after, pages = [], None, 0
        while True:
            tasks, after = await store.read(search.page(wanted, 100, after))
            seen += [task.id for task in tasks]
            pages += 1
            if after is None:
                break
        assert seen == needles[::-1]
        assert pages == 3
        tasks, after = await store.read(search.page(wanted, 1))
        assert ([task.id for task in tasks], after) == ([needles[2]], 19)

    async def test_what_has_no_index_is_looked_for_likewise_if_that_is_asked(
        self, queue: Any, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(search, "LOOKED", 10)
        hook = await queue.add(HOOK)
        await queue.add_all([queue.new() for _ in range(15)])
        for wanted in (TaskFilter(kind="webhook"), TaskFilter(endpoint="crm/*", kind="webhook")):
            tasks, after = await store.read(search.page(wanted, 100, bounded=True))
            assert (tasks, after) == ([], 7)
            tasks, after = await store.read(search.page(wanted, 100, after, bounded=True))
            assert ([task.id for task in tasks], after) == ([hook], None)
            tasks, after = await store.read(search.page(wanted, 100))
            assert ([task.id for task in tasks], after) == ([hook], None)

    async def test_by_their_end(
        self, queue: Any, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whoever was made first may have failed last."""
        ends = {}
        old, waits, new = [await queue.add(delay=delay) for delay in (0, 9, 0)]
        first, second = await queue.claim()
        for task, status in ((second, Status.SUCCEEDED), (first, Status.FAILED)):
            queue.clock.turn(1)
            await queue.settle(task, status, status_code=418)
            ends[task.id] = queue.clock.now_ms()
        assert set(ends) == {old, new}

        async def walk(limit: int, **fields: Any) -> list[int]:
            seen: list[int] = []
            tasks, after = await store.read(search.last_ended(TaskFilter(**fields), limit))
            seen += [task.id for task in tasks]
            while after is not None:
                tasks, after = await store.read(
                    search.last_ended(TaskFilter(**fields), limit, after)
                )
                seen += [task.id for task in tasks]
            return seen

        assert await walk(100) == await walk(1) == [old, new]
        assert await walk(100, status=("failed", "pending")) == [old]
        assert await walk(100, status=("pending",)) == await walk(100, ids=()) == []
        assert waits not in await walk(100)
        # Of those that ended at one time, the one with the higher number is first.
        many = [await queue.ended(Status.FAILED) for _ in range(7)]
        hook = await queue.ended(Status.FAILED, HOOK)
        assert await walk(3) == [hook, *many[::-1], old, new]
        # What no index finds is looked for among so many at a time.
        monkeypatch.setattr(search, "LOOKED", 4)
        assert await walk(100, status=("failed",), kind="webhook") == [hook]
        tasks, after = await store.read(
            search.last_ended(TaskFilter(status_code=StatusSet.parse("418")), 9)
        )
        assert tasks == []
        assert after is not None
        assert await walk(1, status_code=StatusSet.parse("418")) == [old, new]

    async def test_all_of_it_together(self, queue: Any, store: Store) -> None:
        await queue.ended(Status.FAILED)
        queue.clock.turn(60)
        then = queue.clock.now_ms()
        await queue.ended(Status.SUCCEEDED)
        await queue.ended(Status.FAILED, PUT)
        wanted = await queue.ended(Status.FAILED)
        await queue.add(HOOK)
        found = await ids(
            store, status=("failed",), status_code=StatusSet.parse("5xx"), endpoint="crm/get",
            kind="call", since=then,
        )  # fmt: skip
        assert found == [wanted]

    async def test_payloads_are_left_out(self, queue: Any, store: Store) -> None:
        await queue.add(HOOK, payload="x" * 1000)
        [task] = (await store.read(search.page(TaskFilter(), 10)))[0]
        assert task.payload is None
        assert (await store.read(search.get(task.id))).payload == "x" * 1000

    async def test_an_empty_queue(self, store: Store) -> None:
        assert await ids(store) == []


async def test_counts_name_every_status(queue: Any, store: Store) -> None:
    assert await store.counts() == dict.fromkeys(map(str, Status), 0)
    await queue.ended(Status.FAILED)
    await queue.add()
    assert (await store.counts())["failed"] == (await store.counts())["pending"] == 1


async def test_what_is_due(queue: Any, store: Store) -> None:
    now = queue.clock.now_ms()
    assert (await store.read(backlog.due_tasks(now, 9)))[:2] == (0, None)
    for delay in (5, 1, 9):
        await queue.add(delay=delay)
    await queue.add(PUT, delay=2)
    assert (await store.read(backlog.due_tasks(now + 5000, 9)))[:2] == (3, now + 1000)
    assert (await store.read(backlog.due_tasks(now, 9)))[:2] == (0, None)


async def test_the_earliest_of_each_key(queue: Any, store: Store) -> None:
    now = queue.clock.now_ms()
    for key in (GET, PUT, HOOK, ERP):
        for delay in (7, 3, 9):
            await queue.add(key, delay=delay)
    await queue.ended(Status.SUCCEEDED, Key("crm/done"))
    assert await store.read(claim.earliest()) == dict.fromkeys((GET, PUT, HOOK, ERP), now + 3000)


class TestUnfinished:
    async def test_the_call_of_the_last_slot(self, queue: Any, store: Store) -> None:
        assert not await store.read(schedules.unfinished("crm/get"))

        async def take(slot: int, insert: Insert | None = None) -> None:
            previous = await store.read(schedules.slot("crm/get"))
            assert await store.write(
                schedules.take_slot("crm/get", "15m", previous, slot, [(1000, slot)], insert)
            )

        await take(1000)
        assert not await store.read(schedules.unfinished("crm/get"))
        await take(2000, Insert(NewTask("call", "crm/get")))
        assert await store.read(schedules.unfinished("crm/get"))
        # A slot that is skipped leaves the call of the one before as it is.
        await take(3000)
        assert await store.read(schedules.unfinished("crm/get"))
        [task] = await queue.claim()
        assert await store.read(schedules.unfinished("crm/get"))
        await queue.settle(task)
        assert not await store.read(schedules.unfinished("crm/get"))

    async def test_other_calls_do_not_count(self, queue: Any, store: Store) -> None:
        take = schedules.take_slot("crm/get", "15m", None, 1000, [(1000, 1000)], None)
        await store.write(take)
        await queue.add(GET)
        await queue.add(HOOK)
        await queue.claim(HOOK)
        assert not await store.read(schedules.unfinished("crm/get"))


async def test_attempts_are_kept_in_order_and_may_repeat_a_number(queue: Any, store: Store) -> None:
    id_ = await queue.add()
    for code in (503, 500):
        [task] = await queue.claim()
        await queue.settle(
            task, Status.PENDING, next_try=queue.clock.now_ms(), attempt=queue.attempt(task, code),
            uncounted=True,
        )  # fmt: skip
    rows = await store.read(search.attempts(id_))
    assert [(row.attempt, row.status_code) for row in rows] == [(1, 503), (1, 500)]
    assert await store.read(search.attempts(99)) == []


async def test_a_list_has_the_beginning_of_long_parameters(queue: Any, store: Store) -> None:
    long, short = {"id": 7, "text": "ä" * 5_000}, {"text": "ä" * 1_000}
    await store.write(
        effects.enqueue([Insert(NewTask("call", "crm/get", params)) for params in (long, short)])
    )
    (whole, cut), _ = await store.read(search.page(TaskFilter(), 10))
    assert (whole.params, type(whole)) == (short, Task)
    assert (cut.params["id"], type(cut)) == (7, TaskExcerpt)
    assert cut.params["text"] == "ä" * (len(cut.params["text"]) - 1) + "…"
    assert 1_900 < len(cut.params["text"]) < 2_000
    assert (await store.read(search.whole(cut.id))).task.params == long


async def test_what_may_take_long_delays_no_other_look(queue: Any, store: Store) -> None:
    id_ = await queue.add()
    gate = threading.Event()
    survey = await store.read(bulks.survey(TaskFilter()))
    lists = search.page(TaskFilter(), 1), search.last_ended(TaskFilter(), 1)
    assert all(
        read.long for read in (*lists, bulks.survey(TaskFilter()), bulks.examples(survey, 1))
    )
    slow = asyncio.create_task(store.read(Read(lambda db: gate.wait(20), long=True)))
    await asyncio.sleep(0)
    assert (await store.read(search.get(id_))).id == id_
    assert not slow.done()
    gate.set()
    assert await slow


async def test_the_answer_of_an_unknown_task(store: Store) -> None:
    with pytest.raises(NotFound, match="there is no task 9"):
        await store.read(search.whole(9))


async def test_an_unknown_table(store: Store) -> None:
    with pytest.raises(QueueError, match="no plugin has registered a table 'x'"):
        await plugin_rows.rows(store, "x")


async def test_the_size_grows(queue: Any, store: Store) -> None:
    before = await store.read(prune.size())
    await queue.add_all([queue.new(params={"x": "y" * 1000}) for _ in range(500)])
    assert await store.read(prune.size()) > before + 400_000


async def test_a_row_with_broken_json_harms_no_other(queue: Any, store: Store) -> None:
    made = [await queue.add(params={"n": n}) for n in range(4)]
    broken = ('{"n": ', "[1]")
    for id_, params in zip(made[1:3], broken, strict=True):
        queue.run(
            f"UPDATE retry_schedule SET params = '{params}', response = '{params}' WHERE id = {id_}"
        )
    assert await ids(store) == made[::-1]
    tasks = await queue.claim(limit=9)
    assert [task.id for task in tasks] == made
    assert [dict(task.params) for task in tasks] == [{"n": 0}, {}, {}, {"n": 3}]
    for task, why in zip(tasks[1:3], ("not JSON", "no JSON object"), strict=True):
        with pytest.raises(InvalidPayload, match=why):
            task.check_readable()
        found = (await store.read(search.whole(task.id))).response
        assert found is not None
        assert found["body"] in broken
        assert why in found["invalid"]


async def test_a_bulk_and_an_action_that_cannot_be_read(queue: Any, store: Store) -> None:
    await queue.ended(Status.FAILED)
    bulk = await queue.bulk(TaskFilter())
    await store.write(manual.record_action("root", Action("pause", "crm/get")))
    queue.run("""UPDATE bulks SET "filter" = '{'""")
    queue.run("UPDATE actions SET detail = '{'")
    assert [one.id for one in await store.read(bulks.newest(10))] == [bulk.id]
    seen, moved = await bulks.step(store, bulk.id, 10)
    assert (seen.status, seen.moved, seen.skipped, moved) == ("finished", 0, 1, {})
    [done] = await store.read(manual.newest_actions(10))
    assert done.action == Action("pause", "crm/get")
