"""What becomes of an attempt's end that is not simply written and told."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from worker_parts import CALL, Bench, working

from orchestratord.engine.attempt_in_progress import AttemptResult
from orchestratord.engine.http_executor import HttpExecutor
from orchestratord.engine.settle import published_ends
from orchestratord.engine.settle.published_ends import SettledAttempt
from orchestratord.errors import Reject
from orchestratord.model.outcome import Outcome
from orchestratord.model.recurring_rows import DECIDED_AT, RecurringRows
from orchestratord.model.task import NewTask, Table, Task, Upsert
from orchestratord.plugin.hook_marks import hookimpl
from orchestratord.queue.batch import Rank, Write
from orchestratord.queue.operations import manual, plugin_rows, search
from orchestratord.queue.session import Session
from orchestratord.testing import FakeClock


async def change(bench: Bench, sql: str) -> None:
    """Change the queue as another daemon would."""

    def write(session: Session) -> None:
        session.db.run(sql)

    await bench.store._writer.submit(Write(Rank.KEEP, write))


async def test_a_task_that_was_lost_and_is_claimed_again_stays_claimed(tmp_path: Path) -> None:
    """The end of its first attempt is refused, and does not stand for that of the second one."""
    async with working(tmp_path) as bench:
        bench.adopt(concurrency=3)
        [id_] = await bench.put([CALL])
        await bench.until(lambda: bench.receiver.in_flight == 1)
        first = bench.worker.claims.running[id_]
        assert isinstance(first, asyncio.Task)
        await change(
            bench,
            "UPDATE retry_schedule SET status = 'pending', attempts = 0, locked_by = NULL, "
            "started_at = NULL, next_try = 1",
        )
        bench.worker.placement.touched(CALL.key, 0)
        await bench.until(lambda: bench.receiver.in_flight == 2)
        assert bench.worker.claims.running[id_] is not first
        bench.worker.pipe.deadlines.overdue[first] = "late"
        first.cancel()
        await bench.until(first.done)
        await bench.until(lambda: bench.worker.lanes.unsettled == 0)
        assert bench.worker.claimed_ids() == {id_}
        asyncio.get_running_loop().call_later(0.3, bench.receiver.open.set)
        await bench.worker.drain(10)
        assert (await bench.states([id_]))[0][0] == "succeeded"


async def test_a_cancel_is_settled_where_no_hook_can_be_told_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with working(tmp_path) as bench:
        [id_] = await bench.put([CALL])
        await bench.until(lambda: bench.receiver.in_flight == 1)

        async def fails(*arguments: object) -> None:
            raise MemoryError

        await change(bench, "UPDATE retry_schedule SET cancel_requested = 1")
        monkeypatch.setattr(bench.worker.pipe.hooks, "ask", fails)
        bench.receiver.status = 503
        bench.receiver.open.set()
        await bench.until(lambda: not bench.worker.claims.running)
        assert await bench.states([id_]) == [("cancelled", 1)]  # it was sent


async def test_a_cancel_of_a_claim_that_is_lost_meanwhile_is_a_late_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with working(tmp_path) as bench:
        [id_] = await bench.put([CALL])
        await bench.until(lambda: bench.receiver.in_flight == 1)
        results, times = bench.worker.pipe.hooks, []
        cancelled = results.cancelled

        async def loses(*arguments: Any) -> AttemptResult:
            times.append(1)
            await change(bench, "UPDATE retry_schedule SET claims = claims + 1")
            return await cancelled(*arguments)

        monkeypatch.setattr(results, "cancelled", loses)
        await change(bench, "UPDATE retry_schedule SET cancel_requested = 1")
        bench.receiver.status = 503
        bench.receiver.open.set()
        await bench.until(lambda: not bench.worker.claims.running)
        assert times == [1]
        assert f"a late result of task {id_} is refused: it has another owner now" in caplog.text


class Objects:
    """Says of each answer with 200 that it is none."""

    @hookimpl
    def after_request(self, outcome: Outcome) -> Outcome | None:
        return outcome.failure("no list in it") if outcome.status_code == 200 else None


@pytest.mark.parametrize(("status", "why"), [(200, ": no list in it"), (404, "")])
async def test_the_log_says_why_unless_the_status_code_does(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, status: int, why: str
) -> None:
    async with working(tmp_path, Objects()) as bench:
        bench.receiver.status = status
        bench.receiver.open.set()
        [id_] = await bench.put([CALL])
        await bench.until(lambda: f"call {id_} " in caplog.text)
        [line] = [one for one in caplog.messages if one.startswith(f"call {id_} ")]
        assert line.endswith(f"attempt 1 {status}, failed (not_retryable){why}")


class Follows:
    """Has a call of the same endpoint follow from the first one."""

    @hookimpl
    def on_success(self, task: Task) -> list[NewTask]:
        return [replace(CALL, parent_id=task.id)] if task.parent_id is None else []


async def test_an_end_that_the_database_refuses_holds_up_nothing_else(tmp_path: Path) -> None:
    """Neither those that end with it, nor the slot of what is to follow from it."""
    async with working(tmp_path, Follows()) as bench:
        bench.adopt(concurrency=3)
        bench.receiver.open.set()
        await change(
            bench,
            "CREATE TRIGGER refuses BEFORE UPDATE ON retry_schedule "
            "WHEN NEW.id = 1 AND NEW.status = 'succeeded' "
            "BEGIN SELECT RAISE(ABORT, 'not this one'); END",
        )
        ids = await bench.put([CALL] * 3)
        await bench.until(lambda: len(bench.receiver.tasks) == 5)  # two of them, and what follows
        bench.adopt(concurrency=1)
        await bench.idle(await bench.put([replace(CALL, parent_id=9)] * 5))
        assert await bench.states(ids) == [("running", 1), ("succeeded", 1), ("succeeded", 1)]
        await change(bench, "DROP TRIGGER refuses")
        await bench.until(lambda: not bench.worker.claims.running)
        await bench.until(lambda: len(bench.receiver.tasks) == 11)
        assert bench.receiver.counts == {1}
        assert await bench.states(ids) == [("succeeded", 1)] * 3


class Unreadable:
    """Answers with what cannot be written down."""

    @hookimpl
    def after_request(self, outcome: Outcome) -> Outcome:
        long = httpx.Response(200, content=b"a" * 50_000, extensions={"excerpt": 5})
        return replace(outcome, response=long)


async def test_what_was_sent_is_not_sent_again_where_its_answer_cannot_be_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with working(tmp_path, Unreadable()) as bench:
        bench.receiver.open.set()
        ids = await bench.put([CALL])
        await bench.idle(ids)
        assert await bench.states(ids) == [("succeeded", 1)]
        assert (await bench.store.read(search.whole(ids[0]))).response is None
        assert bench.receiver.counts == {1}
    assert f"cannot keep the answer to task {ids[0]}" in caplog.text


async def test_who_waits_is_woken_though_the_ends_cannot_be_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with working(tmp_path) as bench:
        bench.adopt(concurrency=10)
        ids = await bench.put([CALL] * 5)
        await bench.until(lambda: bench.receiver.in_flight == 5)

        def fails(attempts: Sequence[SettledAttempt]) -> None:
            raise MemoryError

        monkeypatch.setattr(published_ends, "log_settled", fails)
        waiting = [asyncio.create_task(bench.worker.waiters.wait(id_, 600)) for id_ in ids]
        await asyncio.sleep(0)
        bench.receiver.open.set()
        async with asyncio.timeout(60):
            await asyncio.gather(*waiting)


async def test_what_is_costly_is_made_beside_the_loop_after_one_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_loop = []
    prepare = HttpExecutor.prepare

    def note(self: HttpExecutor, *arguments: object) -> object:
        on_loop.append(threading.current_thread() is threading.main_thread())
        return prepare(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(HttpExecutor, "prepare", note)
    costly = "{{ ('ab ' * 9000).split()|map('upper')|unique|list|length }}"
    async with working(tmp_path) as bench:
        bench.adopt(spec={"headers": {"X-Task": "{{ task.id }}", "X-Costly": costly}})
        bench.receiver.open.set()
        ids = await bench.put([CALL])
        await bench.idle(ids)
    assert on_loop == [True, False]


class Steady:
    """Returns the same of each success, for an hour."""

    def __init__(self) -> None:
        self.asked = 0
        self.rejects = False
        self.clock = FakeClock()

    @hookimpl
    def register_tables(self) -> list[Table]:
        columns = {"name": "TEXT NOT NULL", "times": "INTEGER", "at": "INTEGER"}
        return [Table("steady", columns, key=("name",))]

    @hookimpl
    def before_request(self) -> None:
        if self.rejects:
            raise Reject("not now")

    @hookimpl
    def on_success(self, task: Task) -> RecurringRows:
        self.asked += 1
        row = Upsert("steady", {"name": task.endpoint_id}, {"at": DECIDED_AT}, add={"times": 1})
        return RecurringRows((row for _ in range(1)), until=self.clock.now_ms() + 3_600_000)


class Silent:
    """Has to be asked each time."""

    @hookimpl
    def on_success(self) -> None:
        return None


async def succeeds(bench: Bench, times: int) -> None:
    """So many calls, which are all counted."""
    began = bench.clock.now_ms()
    ids = await bench.put([CALL] * times)
    await bench.idle(ids)
    [row] = await plugin_rows.rows(bench.store, "steady")
    assert row["times"] == (await bench.store.counts())["succeeded"]
    last = (await bench.tasks(ids))[-1]
    assert last.finished_at is not None
    assert began <= row["at"] <= last.finished_at


async def test_who_would_say_the_same_of_the_next_success_is_not_asked(tmp_path: Path) -> None:
    """Until an attempt ends in another way, its time is over, or the configuration changes."""
    steady = Steady()
    async with working(tmp_path, steady) as bench:
        steady.clock = bench.clock
        bench.receiver.open.set()

        async def asked(times: int) -> int:
            before = steady.asked
            await succeeds(bench, times)
            return steady.asked - before

        assert await asked(5) == 1
        assert await asked(1) == 0
        bench.receiver.status = 500
        [failed] = await bench.put([CALL])
        await bench.until(lambda: bench.receiver.tasks[-1:] == [failed])
        while (await bench.tasks([failed]))[0].status != "pending":
            await asyncio.sleep(0.01)
        bench.receiver.status = 201
        assert await asked(3) == 1, "one has failed"
        bench.receiver.status = 200
        assert await asked(3) == 1, "of this status code"
        bench.receiver.status = 201
        assert await asked(3) == 0
        steady.rejects = True
        await bench.idle(await bench.put([CALL]))
        steady.rejects = False
        assert await asked(3) == 1, "one was rejected"
        bench.clock.turn(-60)
        assert await asked(3) == 1, "the clock was put back"
        bench.adopt()
        assert await asked(3) == 1, "the configuration has changed"
        await bench.store.write(manual.cancel(failed))
        bench.clock.turn(3_600)
        assert await asked(3) == 1, "the hour is over"


async def test_all_are_asked_where_one_has_to_be(tmp_path: Path) -> None:
    steady = Steady()
    async with working(tmp_path, steady, Silent()) as bench:
        bench.receiver.open.set()
        await succeeds(bench, 3)
        assert steady.asked == 3
