"""Each way out of an attempt: what was not sent is released, and what may have been is settled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from worker_parts import CALL, Bench, Doing, ExecutorPlugin, working

from orchestratord.engine.attempt import pipe as pipe_module
from orchestratord.engine.attempt.pipe import Pipe
from orchestratord.engine.feedback import Feedback
from orchestratord.engine.new.new_tasks import NewTasks
from orchestratord.engine.settle import attempt_ends
from orchestratord.engine.settle.attempt_ends import AttemptEnds
from orchestratord.engine.settle.held_claims import WayOut
from orchestratord.errors import QueueError
from orchestratord.http import client as client_module
from orchestratord.model.outcome import Outcome
from orchestratord.model.partition_turn import Partition
from orchestratord.model.task import NewTask, Task
from orchestratord.plugin.hook_marks import hookimpl
from orchestratord.plugin.host import Host
from orchestratord.queue.batch import Rank, Write
from orchestratord.queue.operations import claim, manual, search
from orchestratord.queue.operations.settle import take_steps
from orchestratord.queue.records import Start
from orchestratord.queue.session import Session
from orchestratord.values import world
from tests.postgres import Postgres

DO = NewTask("call", "a/do")


class Asked:
    """Has each step of an attempt something to ask a hook for, and a child that follows."""

    @hookimpl
    async def before_request(self) -> None:
        await asyncio.sleep(0)

    @hookimpl
    async def after_request(self) -> None:
        await asyncio.sleep(0)

    @hookimpl
    async def on_success(self, task: Task) -> list[NewTask]:
        return [replace(DO, parent_id=task.id, delay=3600)]

    @hookimpl
    async def announce(self) -> None:
        await asyncio.sleep(0)


class Work(SimpleNamespace):
    """A bench, and an executor that says how often it was called."""

    bench: Bench
    calls: list[int]
    ways: list[str]
    outcome: Outcome

    async def end(self) -> Task:
        """The one task, once no attempt of it is under way, and every way out that was taken."""
        await self.bench.until(lambda: bool(self.ways))
        await self.bench.until(lambda: not self.bench.worker.claims.running)
        task: Task = await self.bench.store.read(search.get(self.id))
        return task


@asynccontextmanager
async def one_task(
    tmp_path: Path, patch: pytest.MonkeyPatch, *, idempotent: bool, url: str = "", **changes: Any
) -> AsyncIterator[Work]:
    """A task that is about to be claimed; it waits for `begin`."""
    work = Work(calls=[], ways=[], outcome=Outcome("success", 200))

    async def execute(task: Task) -> Outcome:
        work.calls.append(task.id)
        return work.outcome

    def noting(of: object, name: str) -> None:
        way_out = getattr(of, name)

        async def run(*arguments: Any) -> str:
            way: str = await way_out(*arguments)
            work.ways.append(way)
            return way

        patch.setattr(of, name, run)

    noting(Pipe, "_run")
    noting(AttemptEnds, "_settle_again")
    executor = Doing(execute)
    executor.phases = ("before_request", "after_request")
    async with working(tmp_path, Asked(), ExecutorPlugin(executor), url=url) as bench:
        config, work.bench = bench.config, bench
        endpoint = replace(
            config.endpoints["a/get"], id="a/do", type="doing", idempotent=idempotent, timeout=30.0
        )
        work.adopt = lambda: bench.worker.placement.adopt(
            replace(config, endpoints={"a/do": endpoint})
        )
        [work.id] = await bench.put([replace(DO, **changes)])
        yield work


def failing(times: int = 1, error: BaseException | None = None) -> Callable[..., Any]:
    """Fails the first times, and is what it was from then on."""
    left = [error or RuntimeError("a bug")] * times

    def of(function: Callable[..., Any]) -> Callable[..., Any]:
        def fails(*arguments: Any, **named: Any) -> Any:
            if left:
                raise left.pop()
            return function(*arguments, **named)

        async def fails_later(*arguments: Any, **named: Any) -> Any:
            await asyncio.sleep(0)
            return await fails(*arguments, **named)

        return fails_later if asyncio.iscoroutinefunction(function) else fails

    return of


def fail(patch: pytest.MonkeyPatch, of: object, name: str, **how: Any) -> None:
    patch.setattr(of, name, failing(**how)(getattr(of, name)))


ERRORS = [RuntimeError("a bug"), MemoryError(), QueueError("no room"), asyncio.CancelledError()]
BEFORE: list[tuple[object, str]] = [
    (Pipe, "_begin"), (Pipe, "_is_made"), (Pipe, "_prepare"),
    (Pipe, "_started"), (Pipe, "_start"), (NewTasks, "items"), (NewTasks, "written"),
]  # fmt: skip
"""What is called before the executor; each of them may fail."""


@pytest.mark.parametrize("idempotent", [True, False])
@pytest.mark.parametrize(("of", "step"), BEFORE)
async def test_what_fails_before_the_executor_is_called_is_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of: object, step: str, idempotent: bool
) -> None:
    if step in {"_start", "items", "written"} and idempotent:
        pytest.skip("its claim is its start")
    sleep = asyncio.sleep
    monkeypatch.setattr(asyncio, "sleep", lambda seconds: sleep(min(seconds, 0.01)))
    async with one_task(tmp_path, monkeypatch, idempotent=idempotent) as work:
        for error in ERRORS:
            fail(monkeypatch, of, step, error=error)
        work.adopt()
        await work.bench.until(lambda: bool(work.calls))
        task = await work.end()
        released = ["released"] * len(ERRORS)
        assert work.ways[: len(ERRORS) + 1] == [*released, "settled"]
        assert (task.status, task.attempts, task.deaths) == ("succeeded", 1, 0)
        assert work.calls == [work.id]
        assert len(await work.bench.store.read(search.attempts(work.id))) == 1


AFTER: list[tuple[object, str]] = [
    (Host, "fold_after"), (Pipe, "_conclude"), (Pipe, "_ask"),
    (AttemptEnds, "write_soon"), (NewTasks, "items"), (attempt_ends, "settlement_of"),
    (pipe_module, "check_outcome"), (AttemptEnds, "_note_run"), (Feedback, "note"),
]  # fmt: skip
"""What is called after it."""


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("idempotent", [True, False])
@pytest.mark.parametrize(("of", "step"), AFTER)
async def test_what_fails_after_the_executor_was_called_is_settled(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    of: object,
    step: str,
    idempotent: bool,
    error: BaseException,
) -> None:
    """Nothing of it may look unsent: a POST waits for a person, the rest for its backoff."""
    if step == "items" and not idempotent:
        pytest.skip("its start makes some as well")
    async with one_task(tmp_path, monkeypatch, idempotent=idempotent) as work:
        fail(monkeypatch, of, step, error=error)
        work.adopt()
        task = await work.end()
        assert work.ways == ["settled"]
        assert work.calls == [work.id]
        assert (task.attempts, task.deaths) == (1, 0)
        if idempotent:
            assert task.status == "pending"
            assert (task.next_try or 0) > work.bench.clock.now_ms() + 30_000
        else:
            assert (task.status, task.reason) == ("failed", "ambiguous")
            assert task.started_at is not None
        assert len(await work.bench.store.read(search.attempts(work.id))) == 1


async def test_an_end_that_is_on_disk_is_not_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where what follows from it cannot be begun."""
    async with one_task(tmp_path, monkeypatch, idempotent=True) as work:
        fail(monkeypatch, NewTasks, "written")
        work.adopt()
        task = await work.end()
        assert work.ways == ["settled"]
        assert (task.status, task.attempts) == ("succeeded", 1)
        assert f"cannot follow up the end of task {work.id}" in caplog.text


@pytest.mark.parametrize("idempotent", [True, False])
async def test_a_refused_end_whose_cancel_fails_is_settled_as_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, idempotent: bool
) -> None:
    async with one_task(tmp_path, monkeypatch, idempotent=idempotent) as work:
        work.outcome = Outcome("retry", 503)

        async def asks(*arguments: Any) -> Outcome:
            await work.bench.store.write(manual.cancel(work.id))
            return work.outcome

        monkeypatch.setattr(Host, "fold_after", asks)
        results = work.bench.worker.pipe.hooks
        fail(monkeypatch, results, "cancelled")
        work.adopt()
        task = await work.end()
        assert work.ways[-1] == "settled"
        wanted = ("cancelled", None) if idempotent else ("failed", "ambiguous")
        assert (task.status, task.reason, task.attempts) == (*wanted, 1)


@pytest.mark.parametrize("error", [QueueError("no room"), RuntimeError("a bug")])
async def test_ends_that_cannot_be_handed_over_are_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async with one_task(tmp_path, monkeypatch, idempotent=True) as work:
        monkeypatch.setattr(Asked, "on_success", lambda: None)
        work.outcome = Outcome("success", 201)
        fail(monkeypatch, work.bench.store, "write_told", error=error)
        work.adopt()
        task = await work.end()
        assert (task.status, task.attempts) == ("succeeded", 1)


async def test_a_cancellation_while_the_database_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was sent by then."""
    async with one_task(tmp_path, monkeypatch, idempotent=False) as work:
        store, waits = work.bench.store, asyncio.Event()
        write = store.write

        async def hangs(given: Write[Any]) -> Any:
            if (
                given.batch is take_steps
                and isinstance(given.item[0], Start)
                and not waits.is_set()
            ):
                waits.set()
                await asyncio.sleep(3600)
            return await write(given)

        monkeypatch.setattr(store, "write", hangs)
        work.adopt()
        await waits.wait()
        work.bench.worker.claims.running[work.id].cancel()
        await work.bench.until(lambda: bool(work.ways))
        assert work.ways[0] == "released"
        await work.bench.until(lambda: bool(work.calls))
        task = await work.end()
        assert work.calls == [work.id]
        assert (task.status, task.reason, task.attempts) == ("succeeded", None, 1)


@pytest.mark.parametrize("step", ["_start", "_conclude"])
async def test_a_claim_is_lost_only_where_the_store_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """And it is left to its new owner as it is."""
    async with one_task(tmp_path, monkeypatch, idempotent=False) as work:
        function = getattr(Pipe, step)

        async def loses(*arguments: Any) -> Any:
            await change(work.bench, "SET claims = claims + 1, locked_by = 'another'")
            return await function(*arguments)

        monkeypatch.setattr(Pipe, step, loses)
        work.adopt()
        task = await work.end()
        assert work.ways[-1] == "lost"
        assert work.calls == ([] if step == "_start" else [work.id])
        assert (task.status, task.attempts, task.locked_by) == ("running", 1, "another")


@pytest.mark.parametrize("step", ["_started", "_conclude"])
async def test_a_claim_is_left_only_where_the_daemon_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    async with one_task(tmp_path, monkeypatch, idempotent=False) as work:
        reached, claims = asyncio.Event(), work.bench.worker.claims

        async def hangs(*arguments: Any) -> None:
            reached.set()
            await asyncio.sleep(3600)

        monkeypatch.setattr(Pipe, step, hangs)
        work.adopt()
        await reached.wait()
        claims.closing = True
        claims.running[work.id].cancel()
        task = await work.end()
        assert work.ways == ["left"]
        assert (task.status, task.attempts) == ("running", 1)
        assert (task.started_at is not None) == bool(work.calls)


async def change(bench: Bench, what: str) -> None:
    """Change the running task as somebody else would."""

    def write(session: Session) -> None:
        session.db.run(f"UPDATE retry_schedule {what} WHERE status = 'running'")

    await bench.store._writer.submit(Write(Rank.KEEP, write))


@pytest.mark.parametrize("stops", ["drain", "lease"])
@pytest.mark.parametrize("partition", [None, Partition("acme", ordered=True)])
async def test_a_start_that_is_committed_and_not_sent_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stops: str, partition: Partition | None
) -> None:
    """It had not begun: its attempt is given back, and what was announced stays."""
    async with one_task(tmp_path, monkeypatch, idempotent=False, partition=partition) as work:
        pipe, start = work.bench.worker.pipe, Pipe._start
        leases = pipe.deadlines.leases

        async def starts(self: Pipe, *arguments: Any) -> bool:
            ours = await start(self, *arguments)
            task = await work.bench.store.read(search.get(work.id))
            assert task.started_at is not None
            monkeypatch.setattr(Pipe, "_start", start)
            if stops == "drain":
                work.bench.worker.placement.set_paused({"a/do"})
                pipe.deadlines.interrupt()
            else:
                fail_once = iter([True])
                monkeypatch.setattr(leases, "may_be_lost", lambda run: next(fail_once, False))
            return ours

        monkeypatch.setattr(Pipe, "_start", starts)
        work.adopt()
        await work.bench.until(lambda: bool(work.ways))
        assert work.ways[0] == "released"
        if stops == "drain":
            task = await work.bench.store.read(search.get(work.id))
            assert (task.status, task.attempts, task.started_at) == ("pending", 0, None)
            pipe.deadlines.stopping = False
            work.bench.worker.placement.set_paused(set())
        await work.bench.until(lambda: bool(work.calls))
        task = await work.end()
        assert (task.status, task.attempts) == ("succeeded", 1)
        assert work.calls == [work.id]


# -- what the executor was called for, and no byte left --------------------------------------------


@asynccontextmanager
async def connecting(
    tmp_path: Path, patch: pytest.MonkeyPatch, url: str = "", **keys: Any
) -> AsyncIterator[tuple[Bench, list[str], asyncio.Event]]:
    """A POST of an ordered partition that waits for its connection until the event is set."""
    ways: list[str] = []
    run, connect, stands = Pipe._run, client_module.open_connection, asyncio.Event()

    async def noting(*arguments: Any) -> WayOut:
        ways.append(await run(*arguments))
        return ways[-1]  # type: ignore[return-value]

    async def waits(*arguments: Any, **named: Any) -> Any:
        waiting.set()
        await stands.wait()
        return await connect(*arguments, **named)

    waiting = asyncio.Event()
    patch.setattr(Pipe, "_run", noting)
    patch.setattr(client_module, "open_connection", waits)
    async with working(tmp_path, Asked(), url=url) as bench:
        bench.receiver.open.set()
        bench.adopt(spec={"method": "POST"}, idempotent=False, **keys)
        await bench.put([replace(CALL, partition=Partition("acme", ordered=True))])
        await bench.until(waiting.is_set)
        yield bench, ways, stands


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
@pytest.mark.parametrize("stops", ["drain", "lease"])
async def test_what_waits_for_its_connection_is_released(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    database: str,
    stops: str,
) -> None:
    url = request.getfixturevalue("postgres").create() if database == "postgresql" else ""
    async with connecting(tmp_path, monkeypatch, url) as (bench, ways, stands):
        deadlines = bench.worker.pipe.deadlines
        if stops == "drain":
            bench.worker.placement.set_paused({"a/get"})
            deadlines.interrupt()
        else:
            once = iter([True])
            patched = monkeypatch.setattr
            patched(deadlines.leases, "may_be_lost", lambda attempt: next(once, False))
            deadlines.expire(world.monotonic())
        await bench.until(lambda: bool(ways))
        assert ways == ["released"]
        [task] = await bench.tasks([1])
        if stops == "drain":
            assert (task.status, task.attempts, task.started_at) == ("pending", 0, None)
            deadlines.stopping = deadlines.rates.stopping = False
            bench.worker.placement.set_paused(set())
        stands.set()
        await bench.idle([1])
        assert await bench.states([1]) == [("succeeded", 1)]
        assert bench.receiver.tasks == [1]


async def test_what_has_no_connection_in_its_time_is_a_failure_and_not_ambiguous(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The receiver may be at fault: it counts, and its backoff holds."""
    async with connecting(tmp_path, monkeypatch) as (bench, ways, _):
        bench.worker.pipe.deadlines.expire(world.monotonic() + 3600)
        await bench.until(lambda: bool(ways))
        assert ways == ["settled"]
        await bench.until(lambda: not bench.worker.claims.running)
        [task] = await bench.tasks([1])
        assert (task.status, task.reason, task.attempts) == ("pending", None, 1)
        assert "did not end within 30s" in (task.last_error or "")


async def test_what_was_sent_stays_ambiguous(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connecting(tmp_path, monkeypatch) as (bench, _, stands):
        bench.receiver.open.clear()
        stands.set()
        await bench.until(lambda: bench.receiver.in_flight == 1)
        bench.worker.pipe.deadlines.interrupt()
        await bench.until(lambda: not bench.worker.claims.running)
        [task] = await bench.tasks([1])
        assert (task.status, task.reason) == ("failed", "ambiguous")
        bench.receiver.open.set()


# -- what nothing holds ----------------------------------------------------------------------------


@asynccontextmanager
async def unheld(
    tmp_path: Path, patch: pytest.MonkeyPatch, url: str, started: bool, idempotent: bool
) -> AsyncIterator[Work]:
    """A claim of this daemon that nothing in it holds: its attempt ended without a way out."""
    async with one_task(tmp_path, patch, idempotent=idempotent, url=url) as work:
        real: Callable[..., Awaitable[Any]] = Pipe._run

        async def vanishes(self: Pipe, task: Task, lane: str, began: int) -> str:
            if started:
                attempt = self._begin(task, lane, asyncio.current_task(), began)  # type: ignore[arg-type]
                assert attempt is not None
                await self._start(attempt, ())
            self._lanes.return_token(lane, began, task.id, began)
            self._release_slot(task, lane, began)
            self._claims.gone(task, asyncio.current_task())
            patch.setattr(Pipe, "_run", real)
            return "nowhere"

        patch.setattr(Pipe, "_run", vanishes)
        work.bench.store.lease = 0.4
        work.adopt()
        await work.bench.until(lambda: Pipe._run is real)
        await work.bench.until(lambda: not work.bench.worker.claims.running)
        yield work


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
@pytest.mark.parametrize(("started", "idempotent"), [(False, False), (True, False), (True, True)])
async def test_a_claim_that_nothing_here_holds_is_ended(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    caplog: pytest.LogCaptureFixture,
    database: str,
    started: bool,
    idempotent: bool,
) -> None:
    url = ""
    if database == "postgresql":
        postgres: Postgres = request.getfixturevalue("postgres")
        url = postgres.create()
    async with unheld(tmp_path, monkeypatch, url, started, idempotent) as work:
        worker = work.bench.worker

        async def renew() -> Task:
            await worker.removed.end_unheld(worker.claimed_ids)
            task: Task = await work.bench.store.read(search.get(work.id))
            return task

        now = world.elapsed()
        clock = SimpleNamespace(**{**vars(world), "elapsed": lambda: now})
        monkeypatch.setattr("orchestratord.engine.settle.removed_tasks.world", clock)
        for _ in range(2):  # what was claimed a moment ago may not be known here yet
            assert ((await renew()).status, worker.removed.unheld) == ("running", 0)
        now += work.bench.store.lease  # four times as long as it takes
        await renew()
        async with asyncio.timeout(60):
            while (task := await renew()).status in ("running", "pending"):
                await asyncio.sleep(0.02)
        await work.bench.until(lambda: not (worker.claims.running or worker.removed.at_work))
        assert worker.removed.unheld == worker.snapshot()["unheld_claims"] == 1
        assert f"task {work.id} was running, and nothing here held it" in caplog.text
        assert task.deaths == 0
        if started and not idempotent:
            assert (task.status, task.reason, work.calls) == ("failed", "ambiguous", [])
            assert "nothing in the daemon held" in (task.last_error or "")
        else:
            assert (task.status, task.attempts, work.calls) == ("succeeded", 1, [work.id])
        await renew()
        assert worker.removed._unheld == {}


async def test_what_is_claimed_again_meanwhile_is_another_claim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with unheld(tmp_path, monkeypatch, "", False, False) as work:
        worker = work.bench.worker
        await worker.removed.end_unheld(worker.claimed_ids)
        await asyncio.sleep(0.15)
        await change(work.bench, "SET claims = claims + 1")
        await worker.removed.end_unheld(worker.claimed_ids)
        assert worker.removed.unheld == 0
        assert (await work.bench.store.read(search.get(work.id))).status == "running"


async def test_what_cannot_be_failed_is_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest of a page of doomed tasks is not left claimed behind the one that raised."""
    async with working(tmp_path) as bench:
        fail(monkeypatch, bench.worker.pipe.hooks, "fail", times=1)
        released: list[int] = []
        later = bench.worker.claims.release_claim_later

        def noting(task: Task) -> None:
            released.append(task.id)
            later(task)

        monkeypatch.setattr(bench.worker.claims, "release_claim_later", noting)
        ids = await bench.put([NewTask("call", "gone/a")] * 3)
        bench.clock.turn(3600)
        await bench.until(lambda: len(released) == 3)
        await bench.idle(ids)
        assert {task.status for task in await bench.tasks(ids)} == {"failed"}
        assert await bench.store.read(claim.unheld(bench.store.owner, set())) == []
