from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from orchestratord.errors import QueueError
from orchestratord.model.recurring_rows import DECIDED_ABOUT, DECIDED_AT, RecurringRows
from orchestratord.model.task import Delete, Key, NewTask, Reason, Status, Upsert
from orchestratord.queue.operations import claim, effects, manual, plugin_rows, search, settle
from orchestratord.queue.records import Insert, Settled, TaskFilter
from orchestratord.queue.store import Store

HOOK = Key("crm/get", "ops")
OPS = {"name": "ops"}


async def claimed(queue: Any, **fields: Any) -> Any:
    await queue.add(**fields)
    [task] = await queue.claim()
    return task


async def test_success(queue: Any, store: Store) -> None:
    task = await claimed(queue)
    queue.clock.turn(2)
    answer = {"status_code": 200, "headers": {"a": "b"}, "body": "čau", "truncated": False}
    settled = await queue.settle(
        task, status_code=200, response=answer, attempt=queue.attempt(task), max_attempts=4
    )
    assert (settled.accepted, settled.inserted) == (True, [])
    row = await store.read(search.get(task.id))
    assert (row.status, row.attempts, row.max_attempts) == ("succeeded", 1, 4)
    assert row.finished_at == row.updated_at == queue.clock.now_ms()
    assert (row.next_try, row.locked_by, row.last_error) == (None, None, None)
    assert row.last_status_code == 200
    assert (await store.read(search.whole(task.id))).response == answer
    assert await store.read(search.attempts(task.id)) == [queue.attempt(task)]


async def test_final_failure(queue: Any, store: Store) -> None:
    task = await claimed(queue)
    await queue.settle(
        task, Status.FAILED, reason=Reason.AMBIGUOUS, status_code="error", error="reset", deaths=2
    )
    row = await store.read(search.get(task.id))
    assert (row.status, row.reason, row.deaths) == ("failed", "ambiguous", 2)
    assert (row.last_status_code, row.last_error) == ("error", "reset")
    assert row.finished_at == queue.clock.now_ms()


async def test_another_try(queue: Any, store: Store) -> None:
    task = await claimed(queue)
    row = queue.attempt(task, 503, error="503", delay=5.25, why="exponential 5s")
    await queue.settle(
        task, Status.PENDING, next_try=queue.clock.now_ms() + 5250, status_code=503, attempt=row
    )
    back = await store.read(search.get(task.id))
    assert (back.status, back.attempts, back.finished_at) == ("pending", 1, None)
    assert back.next_try == queue.clock.now_ms() + 5250
    assert await store.read(search.attempts(task.id)) == [row]
    queue.clock.turn(5.25)
    [again] = await queue.claim()
    assert again.attempts == 2
    assert again.last_status_code == 503


@pytest.mark.parametrize("count", [1, 3])
async def test_another_try_that_is_written_late_is_found(
    queue: Any, store: Store, count: int
) -> None:
    """Others were claimed meanwhile, which were due after it."""
    await queue.add_all([queue.new()] * count)
    tasks = await queue.claim()
    queue.clock.turn(60)
    assert await queue.claim() == []
    late = [queue.settlement(task, Status.PENDING, next_try=task.next_try) for task in tasks]
    await asyncio.gather(*(store.write(settle.settle(end)) for end in late))
    assert len(await queue.claim()) == count


@pytest.mark.parametrize("code", [503, 200, "error", "ok", None])
async def test_a_status_code_comes_back_as_what_it_was(
    queue: Any, store: Store, code: int | str | None
) -> None:
    task = await claimed(queue)
    await queue.settle(task, status_code=code, attempt=queue.attempt(task, code))
    for seen in (
        (await store.read(search.get(task.id))).last_status_code,
        (await store.read(search.attempts(task.id)))[0].status_code,
    ):
        assert seen == code
        assert type(seen) is type(code)


async def test_what_is_not_given_keeps_its_value(queue: Any, store: Store) -> None:
    task = await claimed(queue)
    await queue.settle(
        task, Status.PENDING, next_try=queue.clock.now_ms(), response={"body": "x"}, max_attempts=3,
        deaths=1,
    )  # fmt: skip
    [task] = await queue.claim()
    await queue.settle(task)
    row = await store.read(search.get(task.id))
    assert (row.max_attempts, row.deaths) == (3, 1)
    assert (await store.read(search.whole(task.id))).response == {"body": "x"}


async def test_a_task_without_an_answer_has_none(queue: Any, store: Store) -> None:
    assert (await store.read(search.whole(await queue.add()))).response is None


async def test_given_back_it_costs_no_attempt(queue: Any, store: Store) -> None:
    task = await claimed(queue)
    await queue.settle(task, Status.PENDING, next_try=queue.clock.now_ms() + 9, uncounted=True)
    row = await store.read(search.get(task.id))
    assert (row.status, row.attempts, row.started_at) == ("pending", 0, None)


async def test_looks_are_counted_from_the_first_one(queue: Any, store: Store) -> None:
    task, began = await claimed(queue), queue.clock.now_ms()
    for count in (1, 2):
        ends = {"next_try": queue.clock.now_ms(), "uncounted": True, "look": True, "attempt": None}
        await queue.settle(task, Status.PENDING, **ends)
        row = await store.read(search.get(task.id))
        assert (row.status, row.attempts, row.looks, row.looked_since) == (
            "pending", 0, count, began
        )  # fmt: skip
        queue.clock.turn(1)
        [task] = await queue.claim()
    await queue.settle(task, Status.FAILED, reason="expired")
    await store.write(manual.trigger(task.id))
    row = await store.read(search.get(task.id))
    assert (row.looks, row.looked_since) == (0, None), "a person begins anew"


async def test_a_death_is_counted_in_deaths_alone(queue: Any, store: Store) -> None:
    task = await claimed(queue)
    store = await queue.successor()
    _, [lost] = await claim.reclaim(store)
    assert (lost.id, lost.claims) == (task.id, task.claims + 1)
    await queue.settle(
        lost, Status.PENDING, next_try=queue.clock.now_ms(), deaths=1, uncounted=True,
        attempt=queue.attempt(lost, "error", error="died"),
    )  # fmt: skip
    [again] = await queue.claim()
    assert (again.attempts, again.deaths, again.claims) == (1, 1, lost.claims + 1)
    # It waits for its turn, and starts then.
    assert again.started_at is None
    assert not (await queue.settle(lost)).accepted
    assert len(await store.read(search.attempts(task.id))) == 1


async def test_text_that_is_no_utf8_does_not_stop_it(queue: Any, store: Store) -> None:
    task = await claimed(queue)
    row = queue.attempt(task, "error", error="bad \udc80", why="bad \udc80")
    await queue.settle(
        task, error="bad \udc80", attempt=row, response={"body": "\udc80"}, status_code="error"
    )
    assert (await store.read(search.get(task.id))).last_error == "bad ?"
    assert (await store.read(search.whole(task.id))).response == {"body": "\udc80"}


class TestFence:
    async def test_a_second_result_is_refused(self, queue: Any, store: Store) -> None:
        task = await claimed(queue)
        await queue.settle(task)
        late = await queue.settle(
            task, Status.FAILED, attempt=queue.attempt(task), effects=[Insert(queue.new(HOOK))]
        )
        assert (late.accepted, late.inserted) == (False, [])
        assert (await store.read(search.get(task.id))).status == Status.SUCCEEDED
        assert await store.read(search.attempts(task.id)) == []
        assert (await store.counts())["pending"] == 0

    async def test_the_result_of_an_older_claim_is_refused(self, queue: Any, store: Store) -> None:
        first = await claimed(queue)
        await queue.settle(first, Status.PENDING, next_try=queue.clock.now_ms())
        [second] = await queue.claim()
        assert not (await queue.settle(first)).accepted
        assert (await queue.settle(second)).accepted


class TestCancelWhileRunning:
    async def test_it_ends_instead_of_its_next_try(self, queue: Any, store: Store) -> None:
        task = await claimed(queue)
        assert (await store.write(manual.cancel(task.id))).cancel_requested
        end = {"attempt": queue.attempt(task, 503), "effects": [Insert(queue.new(HOOK))]}
        later = queue.clock.now_ms() + 5000
        refused = await queue.settle(task, Status.PENDING, next_try=later, **end)
        assert refused == Settled(False, [], cancel_asked=True)
        assert await store.read(search.attempts(task.id)) == []
        settled = await queue.settle(task, Status.CANCELLED, **end)
        assert (settled.accepted, settled.cancel_asked) == (True, False)
        row = await store.read(search.get(task.id))
        assert (row.status, row.next_try, row.reason) == ("cancelled", None, None)
        assert row.finished_at == queue.clock.now_ms()
        assert not row.cancel_requested
        assert len(settled.inserted) == len(await store.read(search.attempts(task.id))) == 1

    @pytest.mark.parametrize("status", [Status.SUCCEEDED, Status.FAILED])
    async def test_an_end_of_its_own_stands(self, queue: Any, store: Store, status: Status) -> None:
        task = await claimed(queue)
        await store.write(manual.cancel(task.id))
        assert (await queue.settle(task, status)).accepted
        assert (await store.read(search.get(task.id))).status == status

    async def test_the_next_claim_knows_nothing_of_it(self, queue: Any, store: Store) -> None:
        task = await claimed(queue)
        await store.write(manual.cancel(task.id))
        await queue.settle(task, Status.CANCELLED)
        await store.write(manual.trigger(task.id))
        [again] = await queue.claim()
        assert (await queue.settle(again, Status.PENDING, next_try=1)).accepted

    async def test_of_a_claim_that_no_longer_stands_it_says_nothing(
        self, queue: Any, store: Store
    ) -> None:
        task = await claimed(queue)
        await store.write(manual.cancel(task.id))
        await queue.settle(task, Status.CANCELLED)
        for status in (Status.PENDING, Status.CANCELLED):
            assert await queue.settle(task, status) == Settled(False, [])


class TestEffects:
    async def test_new_tasks_are_written_with_the_result(self, queue: Any, store: Store) -> None:
        task = await claimed(queue)
        effects = [
            Insert(queue.new(HOOK, parent_id=task.id, payload="{}")),
            Upsert("health", OPS, {"url": "u"}),
            Insert(queue.new(HOOK, parent_id=task.id, payload="{}")),
        ]
        settled = await queue.settle(task, effects=effects)
        assert [new.next_try for new in settled.inserted] == [queue.clock.now_ms()] * 2
        for new in settled.inserted:
            assert (await store.read(search.get(new.id))).parent_id == task.id
        assert (await store.counts())["pending"] == 2

    async def test_upserts_to_one_row_add_up(self, queue: Any, store: Store) -> None:
        tasks = [await claimed(queue) for _ in range(10)]
        await asyncio.gather(
            *(
                queue.settle(
                    task, effects=[Upsert("health", OPS, {"url": f"u{n}"}, {"seen": 1})] * 2
                )
                for n, task in enumerate(tasks)
            )
        )
        assert await plugin_rows.rows(store, "health") == [
            {"name": "ops", "url": "u9", "seen": 20, "note": None}
        ]

    async def test_rows_that_recur_are_written_once_for_all_that_count(
        self, queue: Any, store: Store
    ) -> None:
        tasks = [await claimed(queue) for _ in range(10)]
        await queue.settle(tasks[3])  # what comes of it below is a late result
        dated = Upsert("health", {"name": "dev"}, {"url": "u", "seen": DECIDED_AT})
        counted = Upsert("health", OPS, {"url": "u"}, {"seen": 2})
        recurring, at = RecurringRows([counted, dated], 0), queue.clock.now_ms()
        ends = [queue.settlement(task, recurring=[recurring]) for task in tasks]
        for number, end in enumerate(ends):
            end.at = at + number
        written = await asyncio.gather(*(store.write(settle.settle(end)) for end in ends))
        assert [one.accepted for one in written] == [n != 3 for n in range(10)]
        assert await plugin_rows.rows(store, "health") == [
            {"name": "dev", "url": "u", "seen": at + 9, "note": None},
            {"name": "ops", "url": "u", "seen": 18, "note": None},
        ]

    async def test_a_row_that_says_about_when_is_written_again_where_more_changes(
        self, queue: Any, store: Store
    ) -> None:
        values = {"url": "u", "seen": DECIDED_ABOUT, "note": None}
        recurring, at = RecurringRows([Upsert("health", OPS, values)], 0), queue.clock.now_ms()

        async def seen_after(*after: int) -> int:
            ends = [queue.settlement(await claimed(queue), recurring=[recurring]) for _ in after]
            for end, each in zip(ends, after, strict=True):
                end.at = at + each
            await asyncio.gather(*(store.write(settle.settle(end)) for end in ends))
            [row] = await plugin_rows.rows(store, "health")
            assert row == {"name": "ops", "url": "u", "seen": row["seen"], "note": None}
            return int(row["seen"]) - at

        steps = (5, 900), (1899,), (1900,), (1901,), (1000,), (900,)
        assert [await seen_after(*each) for each in steps] == [900, 900, 1900, 1900, 1900, 900]
        for changed in ({"url": "v"}, {"note": "n"}, {"seen": None}):
            other = Upsert("health", OPS, {"url": "u", **changed})
            await store.write(effects.write_effects([other]))
            assert await seen_after(1001) == 1001
            await seen_after(3000)
            await seen_after(1001)

    async def test_rows_are_found_by_values_alike_on_all_databases(self, store: Store) -> None:
        other = Upsert("health", {"name": "other"}, {"url": "u", "seen": 1})
        await store.write(effects.write_effects([Upsert("health", OPS, {"url": "u"}), other]))
        for where, names in (
            ({"seen": None, "url": "u"}, ["ops"]),
            ({"seen": True, "note": None}, ["other"]),
            ({"note": "n", "seen": None}, []),
        ):
            found = await plugin_rows.rows(store, "health", where)
            assert [row["name"] for row in found] == names, where
        for wrong, why in (
            ({"url": 1}, r"health\.url is TEXT: int is not str"),
            ({"seen": "1"}, r"health\.seen is INTEGER: str is not int"),
        ):
            with pytest.raises(QueueError, match=why):
                await plugin_rows.rows(store, "health", wrong)

    async def test_an_upsert_leaves_other_columns(self, store: Store) -> None:
        await store.write(effects.write_effects([Upsert("health", OPS, {"url": "u", "note": "n"})]))
        await store.write(effects.write_effects([Upsert("health", OPS, {}, {"seen": 3})]))
        await store.write(effects.write_effects([Upsert("health", OPS, {})]))
        assert await plugin_rows.rows(store, "health") == [
            {"name": "ops", "url": "u", "seen": 3, "note": "n"}
        ]

    async def test_delete(self, store: Store) -> None:
        for name in ("ops", "dev"):
            await store.write(
                effects.write_effects([Upsert("health", {"name": name}, {"url": "u"})])
            )
        await store.write(
            effects.write_effects([Delete("health", OPS), Delete("health", {"name": "never"})])
        )
        assert [row["name"] for row in await plugin_rows.rows(store, "health")] == ["dev"]

    @pytest.mark.parametrize(
        "nonsense",
        [
            Upsert("unknown", OPS, {}),
            Upsert("retry_schedule", {"id": 1}, {"status": "failed"}),
            Upsert("health", OPS, {"colour": "red"}),
            Upsert("health", {"url": "u"}, {}),
            Upsert("health", OPS, {"url": {"a": 1}}),
            Upsert("health", {"name": "fresh"}, {"note": "url may not be null"}),
            Upsert("health", OPS, {"url": "u", "seen": 2**70}),
            Upsert("health", OPS, {"url": "\udc80"}),
            Delete("health", {"seen": 1}),
            Insert(NewTask("call", "crm/get", params={"o": object()})),
            Insert(NewTask("call", "crm/get", delay=float("nan"))),
            Insert(NewTask("call", "crm/get", delay=1e300)),
            Insert(NewTask(None, "crm/get")),  # type: ignore[arg-type]
        ],
    )
    async def test_a_plugins_nonsense_harms_nothing_else(
        self, queue: Any, store: Store, caplog: pytest.LogCaptureFixture, nonsense: Any
    ) -> None:
        task = await claimed(queue)
        good = Upsert("health", {"name": "good"}, {"url": "u"})
        hook = Insert(queue.new(HOOK))
        settled = await queue.settle(task, effects=[good, nonsense, hook])
        assert settled.accepted
        assert (await store.read(search.get(task.id))).status == Status.SUCCEEDED
        assert [row["name"] for row in await plugin_rows.rows(store, "health")] == ["good"]
        *dropped, written = settled.inserted
        assert (await store.read(search.get(written.id))).key == HOOK
        # One answer for each task that was to be written, so that slots can be given back.
        assert [item.id for item in dropped] == ([0] if isinstance(nonsense, Insert) else [])
        assert "skipped a plugin's write" in caplog.text
        assert (await store.counts())["pending"] == 1


async def test_the_last_success_of_an_endpoint(queue: Any, store: Store) -> None:
    for at in (2000, 3000, 1000):
        await queue.settle(await claimed(queue), last_success_at=at)
    await queue.settle(await claimed(queue), Status.FAILED)
    assert await store.read(settle.last_success()) == {"crm/get": 3000}


@pytest.mark.slow
async def test_counts_are_right_whatever_happens(queue: Any, store: Store) -> None:
    chance = random.Random(7)
    for _ in range(60):
        await queue.add_all([queue.new(delay=chance.choice([0, 0, 60])) for _ in range(3)])
        for task in await queue.claim(limit=3):
            move = chance.randrange(6)
            if move == 0:
                await store.write(claim.release_claims([task]))
            elif move == 1:
                await store.write(manual.cancel(task.id))
            if move < 5:
                status = chance.choice(["succeeded", "failed", "pending"])
                effects = [Insert(queue.new(HOOK))] * chance.randrange(2)
                await queue.settle(task, status, next_try=queue.clock.now_ms(), effects=effects)
        for status in ("pending", "failed", "cancelled"):
            wanted = search.page(TaskFilter(status=(status,)), chance.randrange(2))
            for task in (await store.read(wanted))[0]:
                move_on = manual.cancel if chance.random() < 0.5 else manual.trigger
                await store.write(move_on(task.id))
        queue.clock.turn(20)
    seen = [task.status for task in (await store.read(search.page(TaskFilter(), 1000)))[0]]
    expected = {str(status): seen.count(status) for status in Status}
    assert await store.counts() == expected
    assert min(expected.values()) > 0
    assert await (await queue.reopen()).counts() == expected
