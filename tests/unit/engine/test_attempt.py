"""From a claim to its settlement: who has a slot, who waits for one, and what ends in time."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from worker_parts import CALL, Bench, Doing, ExecutorPlugin, working

from orchestratord.engine import poison
from orchestratord.engine.attempt import deadlines
from orchestratord.engine.attempt.pipe import PREFETCHED_MS
from orchestratord.engine.new import new_tasks
from orchestratord.engine.settle import held_claims
from orchestratord.errors import QueueError, Snooze
from orchestratord.model.backoff import Fixed
from orchestratord.model.endpoint import PartitionRule
from orchestratord.model.event import EventType, TaskEvent
from orchestratord.model.outcome import Outcome
from orchestratord.model.partition_turn import Partition
from orchestratord.model.retry_policy import RetryPolicy
from orchestratord.model.task import NewTask, RunSummary, Task
from orchestratord.plugin.hook_marks import hookimpl, only_for
from orchestratord.plugin.long_work import off_loop
from orchestratord.queue.batch import OnCommitted, Rank, Write
from orchestratord.queue.operations import chores, claim, manual, search, slices
from orchestratord.queue.operations.settle import take_steps
from orchestratord.queue.records import Insert, TaskFilter
from orchestratord.queue.session import Session
from orchestratord.runtime.chore_runner import ChoreRunner
from orchestratord.values import world


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with working(tmp_path) as made:
        yield made


# -- claimed ahead --------------------------------------------------------------------------------


async def test_a_lane_that_is_claimed_ahead_has_never_more_in_flight_than_it_may(
    bench: Bench,
) -> None:
    bench.receiver.open.set()
    bench.be_quick()
    ids = await bench.put([CALL] * 60)
    ahead = 0
    async with asyncio.timeout(60):
        while bench.lane.claimed or bench.lane.line or len(bench.receiver.tasks) < 60:
            ahead = max(ahead, bench.lane.claimed)
            assert bench.lane.in_flight <= 1
            await asyncio.sleep(0)
    assert ahead > 1
    await bench.idle(ids)
    assert bench.receiver.most == 1
    assert bench.receiver.tasks == ids
    assert await bench.states(ids) == [("succeeded", 1)] * 60


async def test_a_claim_that_others_gave_back_and_that_comes_again_is_one(bench: Bench) -> None:
    """As after a partition that was longer than the lease: it had not begun, and waits for a slot
    here, when it is claimed here again."""
    bench.adopt(idempotent=False)
    ids = await bench.hold(4)

    def release_claims(session: Session) -> None:
        session.db.run(
            "UPDATE retry_schedule SET status = 'pending', attempts = 0, locked_by = NULL "
            "WHERE status = 'running' AND started_at IS NULL"
        )

    await bench.store._writer.submit(Write(Rank.KEEP, release_claims))
    bench.adopt(concurrency=10, idempotent=False)
    bench.worker.placement.touched(CALL.key, 0)
    async with asyncio.timeout(60):
        while [status for status, _ in await bench.states(ids)] != ["running"] * 4:
            await asyncio.sleep(0.01)
    ids += await bench.put([CALL] * 4)  # whoever is held gets a slot as these come
    await bench.until(lambda: bench.receiver.in_flight >= 5)
    bench.receiver.open.set()
    await bench.idle(ids)
    assert sorted(bench.receiver.tasks) == ids
    assert await bench.states(ids) == [("succeeded", 1)] * 8


async def test_what_is_given_back_may_be_claimed_in_the_same_transaction(bench: Bench) -> None:
    ids = await bench.hold(4)
    stop, stopped = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def hold_the_writer(session: Session) -> None:
        loop.call_soon_threadsafe(stopped.set)
        stop.wait(10)

    holding = asyncio.ensure_future(bench.store._writer.submit(Write(Rank.KEEP, hold_the_writer)))
    await stopped.wait()
    # A claim is on its way while those that wait for a slot are given back: it takes these.
    bench.be_quick()
    bench.worker.placement.touched(CALL.key, 0)
    await bench.until(lambda: bench.worker.lanes.claimed > 4)
    bench.worker.pipe.release_prefetched(0)
    stop.set()
    await holding
    bench.receiver.open.set()
    await bench.idle(ids)
    assert await bench.states(ids) == [("succeeded", 1)] * 4
    assert sorted(bench.receiver.tasks) == ids


async def test_a_receiver_that_hangs_is_not_claimed_ahead(bench: Bench) -> None:
    bench.adopt(concurrency=3)
    ids = await bench.put([CALL] * 20)
    await bench.until(lambda: bench.receiver.in_flight == 3)
    await asyncio.sleep(0.2)
    assert bench.lane.claimed == bench.worker.lanes.claimed == 3
    assert [status for status, _ in await bench.states(ids)].count("running") == 3
    bench.receiver.open.set()
    await bench.idle(ids)
    assert bench.receiver.counts == {1}


@pytest.mark.slow
@pytest.mark.parametrize(("concurrency", "total", "most"), [(1, 100, 1), (10, 100, 10), (10, 4, 4)])
async def test_thousands_of_quick_deliveries_arrive_once_each(
    bench: Bench, concurrency: int, total: int, most: int
) -> None:
    """And where one goes at a time, in the order in which they were due."""
    chance = random.Random(7)
    bench.adopt(enabled=False)
    tasks = [replace(CALL, delay=chance.randrange(300) / 1000) for _ in range(2000)]
    ids = await bench.put(tasks)
    waiting = await bench.tasks(ids)
    await asyncio.sleep(0.35)  # until the last one is due
    bench.receiver.open.set()
    bench.adopt(concurrency=concurrency, total=total)
    await bench.until(lambda: len(bench.receiver.tasks) >= 2000)
    await bench.idle(ids)
    assert len(bench.receiver.tasks) == 2000
    assert bench.receiver.counts == {1}
    assert bench.receiver.most <= most
    assert await bench.states(ids) == [("succeeded", 1)] * 2000
    if concurrency == 1:
        due = sorted(waiting, key=lambda task: (task.next_try or 0, task.id))
        assert bench.receiver.tasks == [task.id for task in due]


async def test_what_comes_into_a_quick_lane_runs_once(bench: Bench) -> None:
    bench.receiver.open.set()
    bench.adopt(concurrency=2)
    ids: list[int] = []
    for _ in range(10):
        ids += [item.id for item in await bench.worker.enqueue.accept([CALL] * 20)]
    await bench.idle(ids)
    assert sorted(bench.receiver.tasks) == ids
    assert bench.receiver.most <= 2


# -- held -----------------------------------------------------------------------------------------


async def test_what_is_held_is_claimed_and_not_in_flight(bench: Bench) -> None:
    ids = await bench.hold(5)
    assert await bench.states(ids) == [("running", 1)] * 5
    assert (bench.lane.in_flight, bench.lane.claimed) == (1, 5)
    assert bench.worker.snapshot()["in_flight"] == 1
    bench.receiver.open.set()
    await bench.idle(ids)
    assert bench.receiver.tasks == ids


async def test_what_waits_too_long_goes_back_and_its_attempt_with_it(bench: Bench) -> None:
    ids = await bench.hold(5)
    before = await bench.tasks(ids)
    since = [when for _, when in bench.lane.prefetched]
    await bench.until(lambda: not bench.lane.prefetched)
    assert bench.clock.now_ms() - min(since) >= PREFETCHED_MS
    await bench.until(lambda: len(bench.worker.claims.running) == 1)
    assert await bench.states(ids) == [("running", 1)] + [("pending", 0)] * 4
    for task, then in zip((await bench.tasks(ids))[1:], before[1:], strict=True):
        assert (task.next_try, task.started_at, task.locked_by) == (then.next_try, None, None)
    assert bench.lane.claimed == bench.worker.lanes.claimed == 1
    assert len(bench.receiver.tasks) == 1
    bench.receiver.open.set()
    await bench.idle(ids)
    assert bench.receiver.tasks == ids
    assert await bench.states(ids) == [("succeeded", 1)] * 5
    assert [len(await bench.store.read(search.attempts(task_id))) for task_id in ids] == [1] * 5


@pytest.mark.parametrize("turned_back", [0.0, 3600.0])
async def test_a_drain_gives_back_at_once_what_is_held(bench: Bench, turned_back: float) -> None:
    """Also where the clock was put back meanwhile."""
    ids = await bench.hold(5)
    bench.clock.turn(-turned_back)
    draining = asyncio.create_task(bench.worker.drain(10))
    await bench.until(lambda: not bench.lane.prefetched)
    await bench.until(lambda: len(bench.worker.claims.running) == 1)
    assert await bench.states(ids) == [("running", 1)] + [("pending", 0)] * 4
    assert not draining.done()
    bench.receiver.open.set()
    await draining
    assert bench.receiver.tasks == ids[:1]
    assert await bench.states(ids) == [("succeeded", 1)] + [("pending", 0)] * 4


async def test_a_pause_sends_nothing_of_what_is_held(bench: Bench) -> None:
    ids = await bench.hold(5)
    bench.worker.placement.set_paused({"a/get"})
    bench.receiver.open.set()
    await bench.until(lambda: bench.worker.lanes.claimed == 0)
    assert bench.receiver.tasks == ids[:1]
    assert await bench.states(ids) == [("succeeded", 1)] + [("pending", 0)] * 4
    bench.worker.placement.set_paused(set())
    await bench.idle(ids)
    assert bench.receiver.tasks == ids


async def test_a_reload_that_removes_the_endpoint_sends_nothing_of_what_is_held(
    bench: Bench,
) -> None:
    ids = await bench.hold(4)
    config = bench.config
    bench.worker.placement.adopt(replace(config, endpoints={}))
    bench.receiver.open.set()
    await bench.until(lambda: bench.worker.lanes.claimed == 0)
    assert bench.receiver.tasks == ids[:1]
    assert await bench.states(ids) == [("succeeded", 1)] + [("pending", 0)] * 3
    bench.worker.placement.adopt(config)
    await bench.idle(ids)
    assert bench.receiver.tasks == ids


async def test_what_is_held_follows_the_configuration_of_the_moment_it_starts(
    bench: Bench,
) -> None:
    ids = await bench.hold(3)
    bench.adopt(spec={"path": "/new", "headers": {"X-Task": "{{ task.id }}"}})
    bench.receiver.open.set()
    await bench.idle(ids)
    assert [head.split()[1] for head in bench.receiver.heads] == [b"/x", b"/new", b"/new"]


async def test_what_is_held_and_may_be_sent_only_once_by_now_is_claimed_as_such(
    bench: Bench,
) -> None:
    """Should the daemon die while it is in flight, its row has to say that a repeat is not safe."""
    ids = await bench.hold(3)
    bench.adopt(idempotent=False)
    bench.receiver.open.set()
    await bench.until(lambda: len(bench.receiver.tasks) == 1)
    bench.receiver.open.clear()
    await bench.until(lambda: len(bench.receiver.tasks) == 2)
    [task] = [task for task in await bench.tasks(ids[1:]) if task.id == bench.receiver.tasks[1]]
    assert (task.status, task.attempts, task.idempotent) == ("running", 1, False)
    bench.receiver.open.set()
    await bench.idle(ids)
    assert bench.receiver.counts == {1}


async def test_a_cap_that_is_raised_lets_nobody_pass(bench: Bench) -> None:
    ids = await bench.hold(4)
    bench.adopt(concurrency=3)
    # Two slots are free now, and a new task comes.
    ids += await bench.put([CALL])
    bench.be_quick()
    bench.worker.lanes.wake.set()
    await bench.until(lambda: len(bench.receiver.tasks) == 3)
    assert bench.receiver.tasks == ids[:3]
    bench.lane.pace = 0
    bench.receiver.open.set()
    await bench.idle(ids)
    assert sorted(bench.receiver.tasks) == ids
    assert bench.receiver.most <= 3


async def test_a_daemons_cap_that_is_lowered_starts_nobody_over_it(bench: Bench) -> None:
    bench.adopt(concurrency=3)
    bench.be_quick()
    ids = await bench.put([CALL] * 9)
    await bench.until(lambda: len(bench.lane.prefetched) == 6 and bench.receiver.in_flight == 3)
    bench.lane.pace = 0
    bench.adopt(concurrency=3, total=1)
    bench.receiver.open.set()
    seen = [3]
    async with asyncio.timeout(60):
        while bench.worker.lanes.claimed or len(bench.receiver.tasks) < 9:
            if bench.worker.lanes.in_flight != seen[-1]:
                seen.append(bench.worker.lanes.in_flight)
            await asyncio.sleep(0)
    assert 1 in seen
    assert max(seen[seen.index(1) :]) == 1
    assert seen[: seen.index(1)] == sorted(seen[: seen.index(1)], reverse=True)
    await bench.idle(ids)
    assert bench.receiver.counts == {1}
    assert sorted(bench.receiver.tasks) == ids


@pytest.mark.parametrize("how", ["drain", "wait", "pause"])
async def test_a_cancel_of_what_is_held_is_heard_when_it_goes_back(bench: Bench, how: str) -> None:
    events = bench.worker.host.events
    events.open(bench.clock, None)
    follower = events.follow(lambda event: event.type == EventType.TASK_CANCELLED)
    ids = await bench.hold(3)
    await bench.store.write(manual.cancel(ids[1]))
    ended = asyncio.create_task(bench.worker.waiters.wait(ids[1], 10))
    await asyncio.sleep(0)
    if how == "drain":
        draining = asyncio.create_task(bench.worker.drain(10))
        await asyncio.sleep(0)
        bench.receiver.open.set()
        await draining
    elif how == "pause":
        bench.worker.placement.set_paused({"a/get"})
        bench.receiver.open.set()
    else:
        await bench.until(lambda: not bench.lane.prefetched)
    await bench.until(lambda: len(bench.worker.claims.running) <= (how == "wait"))
    first = ("running" if how == "wait" else "succeeded", 1)
    assert await bench.states(ids) == [first, ("cancelled", 0), ("pending", 0)]
    cancelled = await bench.store.read(search.get(ids[1]))
    assert cancelled.finished_at is not None
    assert bench.receiver.tasks == ids[:1]
    assert ended.done()
    [(_, event)] = await follower.take(10, 1)
    assert isinstance(event, TaskEvent)
    assert (event.id, event.status, event.attempt) == (ids[1], "cancelled", 0)


@pytest.mark.parametrize(("status", "state"), [(200, "succeeded"), (500, "cancelled")])
async def test_a_cancel_of_what_is_held_takes_the_place_of_its_next_try(
    bench: Bench, status: int, state: str
) -> None:
    ids = await bench.hold(2)
    await bench.store.write(manual.cancel(ids[1]))
    bench.receiver.status = status
    bench.receiver.open.set()
    await bench.worker.waiters.wait(ids[1], 10)
    assert await bench.states(ids[1:]) == [(state, 1)]
    assert (await bench.store.read(search.get(ids[1]))).next_try is None


async def test_what_another_owner_has_taken_over_meanwhile_is_not_settled(bench: Bench) -> None:
    """Its claim was lost while it was held: it may be sent again, and its result is refused."""
    ids = await bench.hold(2)
    task, _ = bench.lane.prefetched[0]
    await bench.store.write(claim.release_claims([task]))
    bench.worker.placement.set_paused({"a/get"})
    bench.receiver.open.set()
    await bench.until(lambda: bench.worker.lanes.claimed == 0)
    assert await bench.states(ids) == [("succeeded", 1), ("pending", 0)]
    bench.worker.placement.set_paused(set())
    await bench.idle(ids)
    assert bench.receiver.tasks == ids


async def test_a_settlement_that_the_database_refuses_is_written_later(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write, refusals = bench.store.write, [QueueError("no room"), QueueError("no room yet")]

    async def refuse(operation: Write[Any]) -> Any:
        if operation.batch is take_steps and refusals:
            raise refusals.pop(0)
        return await write(operation)

    def refuse_told(operations: Sequence[Write[Any]], told: OnCommitted) -> None:
        for operation in operations:
            operation.error = refusals.pop(0)
        asyncio.get_running_loop().call_soon(told, operations)

    monkeypatch.setattr(bench.store, "write", refuse)
    monkeypatch.setattr(bench.store, "write_told", refuse_told)
    monkeypatch.setattr(held_claims, "AGAIN", (0.01, 0.02))
    bench.receiver.open.set()
    ids = await bench.put([CALL])
    await bench.idle(ids)
    assert await bench.states(ids) == [("succeeded", 1)]
    assert bench.receiver.tasks == ids
    said = [line for line in caplog.messages if "cannot write task" in line]
    assert said == [
        f"cannot write task {ids[0]} (no room); again in 0.01s",
        f"cannot write task {ids[0]} (no room yet); again in 0.02s",
    ]


async def test_a_drain_waits_until_it_is_written_how_attempts_have_ended(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_told, late = bench.store.write_told, 0.3

    def write_later(operations: Sequence[Write[Any]], told: OnCommitted) -> None:
        asyncio.get_running_loop().call_later(late, write_told, operations, told)

    monkeypatch.setattr(bench.store, "write_told", write_later)
    bench.receiver.open.set()
    ids = await bench.put([CALL])
    await bench.until(lambda: bench.worker.lanes.unsettled == 1)
    assert bench.worker.claimed_ids() == set(ids)
    await bench.worker.drain(10)
    assert not bench.worker.claims.running
    assert await bench.states(ids) == [("succeeded", 1)]


async def test_what_a_start_makes_is_on_disk_before_the_first_byte_and_goes_on_in_slices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (new_tasks, slices):
        monkeypatch.setattr(module, "SLICE", 3)

    class Many:
        @hookimpl
        def announce(self, phase: str, task: Task) -> Any:
            if phase == "before_request" and task.parent_id is None:
                return [replace(CALL, delay=3600, parent_id=task.id)] * 8
            return None

    async with working(tmp_path, Many()) as bench:
        [id_] = await bench.put([CALL])
        await bench.until(lambda: bench.receiver.in_flight == 1)
        waiting = search.page(TaskFilter(status=("pending",)), 100)
        assert len((await bench.store.read(waiting))[0]) == 3
        runner = ChoreRunner(bench.store, {chores.SLICE: bench.worker.enqueue.write_slice})
        writing = asyncio.create_task(runner.run())
        async with asyncio.timeout(60):
            while len(found := (await bench.store.read(waiting))[0]) < 8:
                await asyncio.sleep(0.01)
        writing.cancel()
        assert {task.parent_id for task in found} == {id_}
        bench.receiver.open.set()
        await bench.idle([id_])


async def test_a_call_or_event_that_waited_in_a_slice_stays_in_its_run(tmp_path: Path) -> None:
    class Ends:
        @hookimpl
        def on_run_end(self, run: RunSummary) -> None:
            pass

        @hookimpl
        def on_success(self, task: Task) -> Any:
            return [NewTask("call", "a/get", delay=3600, parent_id=task.id)]

    class Event(Doing):
        type, immediate, phases = "event", True, ("", "after_execute")

    event = ExecutorPlugin(Event(lambda task: None))
    async with working(tmp_path, Ends(), event) as bench:
        config = bench.config
        config.endpoints["a/event"] = replace(config.endpoints["a/get"], id="a/event", type="event")
        new = [NewTask("call", name, delay=delay) for name, delay in (("a/get", 9), ("a/event", 0))]
        waited = await bench.worker.pipe.new_tasks.items([replace(one, run_id=7) for one in new])
        assert all(isinstance(item, Insert) and not item.begins_run for item in waited)
        happened = waited[1]
        assert isinstance(happened, Insert)
        assert happened.happened is not None
        assert (happened.run_id, happened.begins_run) == (7, False)
        assert [one.run_id for one in happened.happened.effects] == [7]  # type: ignore[union-attr]
        # What nothing caused begins a run as it is accepted.
        lone = await bench.worker.pipe.new_tasks.items(new)
        assert isinstance(lone[0], Insert)
        assert lone[0].begins_run
        assert isinstance(lone[1], Insert)
        assert lone[1].happened is not None
        assert lone[1].begins_run


async def test_hooks_are_asked_about_the_kind_that_they_are_for(tmp_path: Path) -> None:
    asked: list[str] = []

    class Plugin:
        @hookimpl
        @only_for(lambda kind, endpoint: kind == "webhook")
        def before_request(self, task: Task) -> None:
            asked.append(f"before {task.kind}")

        @hookimpl
        @only_for(lambda kind, endpoint: kind == "call")
        def after_request(self, task: Task) -> None:
            asked.append(f"after {task.kind}")

    async with working(tmp_path, Plugin()) as bench:
        bench.receiver.open.set()
        await bench.idle(await bench.put([CALL]))
    assert asked == ["after call"]


async def test_a_guard_that_is_at_fault_and_a_snooze_until_a_time(tmp_path: Path) -> None:
    calls: list[int] = []
    until = round(time.time() * 1000) + 400

    class Guard:
        @hookimpl(on_fault="retry")
        def before_request(self, task: Task) -> None:
            calls.append(task.attempts)
            if len(calls) == 1:
                raise Snooze(until=until)
            if len(calls) == 2:
                raise RuntimeError("who knows")

    async with working(tmp_path, Guard()) as bench:
        bench.receiver.open.set()
        bench.adopt(retry=RetryPolicy(backoff=Fixed(delay=0.1), jitter=0))
        ids = await bench.put([CALL])
        await bench.idle(ids)
        assert await bench.states(ids) == [("succeeded", 2)]
        assert bench.receiver.tasks == ids
        assert time.time() * 1000 >= until
    assert calls == [1, 1, 2]


# -- what does not end by itself ------------------------------------------------------------------

DO = NewTask("call", "a/do")


def doing(
    bench: Bench,
    *,
    timeout: float = 0.1,
    idempotent: bool = True,
    partition: PartitionRule | None = None,
) -> None:
    """An endpoint of the other type beside the first one."""
    config = bench.config
    endpoint = replace(
        config.endpoints["a/get"], id="a/do", type="doing", timeout=timeout, idempotent=idempotent,
        partition=partition,
    )  # fmt: skip
    bench.worker.placement.adopt(replace(config, endpoints={**config.endpoints, "a/do": endpoint}))


async def hangs(task: Task) -> Any:
    await asyncio.sleep(3600)


async def answers_late(task: Task) -> Any:
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        return Outcome("success", 200)


async def answers_late_and_slowly(task: Task) -> Any:
    outcome = await answers_late(task)
    await asyncio.sleep(0.05)
    return outcome


async def raises_late(task: Task) -> Any:
    try:
        await asyncio.sleep(3600)
    finally:
        raise ValueError("something else is wrong")


async def is_cancelled_by_itself(task: Task) -> Any:
    raise asyncio.CancelledError


async def awaits_what_was_cancelled(task: Task) -> Any:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


async def cancels_its_own_task(task: Task) -> Any:
    current = asyncio.current_task()
    assert current is not None
    current.cancel()
    await asyncio.sleep(3600)


TIMED_OUT = "the executor did not end within 100ms"
CANCELLED = "CancelledError:"
Late = tuple[Callable[[Task], Any], str, str | int | None, str | None]
OVERDUE: list[Late] = [
    (hangs, "pending", "error", TIMED_OUT),
    (answers_late, "succeeded", 200, None),
    (answers_late_and_slowly, "succeeded", 200, None),
    (raises_late, "pending", "error", "ValueError: something else is wrong"),
    (is_cancelled_by_itself, "pending", "error", CANCELLED),
    (awaits_what_was_cancelled, "pending", "error", CANCELLED),
    (cancels_its_own_task, "pending", "error", CANCELLED),
]


def by_number(task: Task) -> Any:
    """What the task's parameter says; for all of them at once, as each takes its second."""
    return OVERDUE[task.params["number"]][0](task)


async def test_an_executor_that_does_not_end_is_ended(tmp_path: Path) -> None:
    """About a second after its timeout; what it makes of that is its outcome."""
    async with working(tmp_path, ExecutorPlugin(Doing(by_number))) as bench:
        doing(bench)
        loop = asyncio.get_running_loop()
        began = loop.time()
        ids = await bench.put([replace(DO, params={"number": n}) for n in range(len(OVERDUE))])
        await bench.until(lambda: bench.worker.lanes.in_flight > 0)
        await bench.until(lambda: not bench.worker.claims.running)
        assert 1.1 <= loop.time() - began < 10
        for task, (function, status, code, error) in zip(
            await bench.tasks(ids), OVERDUE, strict=True
        ):
            got = (task.status, task.last_status_code, task.last_error, task.attempts)
            assert got == (status, code, error, 1), function.__name__
            [attempt] = await bench.store.read(search.attempts(task.id))
            assert (attempt.status_code, attempt.error) == (code, error)
            late = error is not CANCELLED
            assert (attempt.duration_ms >= 1100) is late, function.__name__
            if status == "pending":
                assert (task.next_try or 0) > bench.clock.now_ms()


async def test_an_answer_that_waits_to_be_looked_into_is_not_late(tmp_path: Path) -> None:
    async def looks_into_it(task: Task) -> Any:
        await off_loop(int)
        return Outcome("success", 200)

    async with working(tmp_path, ExecutorPlugin(Doing(looks_into_it))) as bench:
        doing(bench)
        before = asyncio.create_task(off_loop(time.sleep, 4))
        await asyncio.sleep(0)
        [task_id] = await bench.put([DO])
        await bench.idle([task_id])
        [task] = await bench.tasks([task_id])
        assert (task.status, task.last_error) == ("succeeded", None)
        await before


async def test_an_answer_that_cannot_be_looked_into_is_ended(tmp_path: Path) -> None:
    gate = threading.Event()

    async def looks_into_it(task: Task) -> Any:
        await off_loop(gate.wait, 60)

    async with working(tmp_path, ExecutorPlugin(Doing(looks_into_it))) as bench:
        doing(bench, idempotent=False)
        [task_id] = await bench.put([DO])
        await bench.worker.waiters.wait(task_id, 10)
        task = await bench.store.read(search.get(task_id))
        assert (task.status, task.reason, task.last_error) == ("failed", "ambiguous", TIMED_OUT)
    gate.set()


async def test_what_is_ordered_ends_before_its_lease_can_run_out(tmp_path: Path) -> None:
    """Where that cannot be renewed, another daemon would send it, and then what comes after it."""
    async with working(tmp_path, ExecutorPlugin(Doing(hangs))) as bench:
        doing(bench, timeout=30.0)
        bench.store.several_daemons, bench.store.lease = True, 0.9
        ordered = replace(DO, partition=Partition("acme", ordered=True))
        first, second, other = await bench.put([ordered, ordered, DO])
        async with asyncio.timeout(60):
            while (task := await bench.store.read(search.get(first))).last_error is None:
                await asyncio.sleep(0.05)
        assert (task.attempts, task.last_error) == (1, deadlines.LOST_SOON)
        assert (await bench.store.read(search.get(second))).held
        async with asyncio.timeout(60):
            while (await bench.store.read(search.get(other))).status != "running":
                await asyncio.sleep(0.05)
        bench.store.several_daemons = False


class Told:
    """Keeps what hooks are told of failures."""

    def __init__(self) -> None:
        self.lost: list[bool] = []

    @hookimpl
    async def on_retry(self, outcome: Outcome) -> None:
        self.lost.append(outcome.lost)


async def test_what_ends_with_its_lease_says_nothing_of_its_receiver(tmp_path: Path) -> None:
    """No webhook is disabled for it, as for what is lost with its daemon."""
    told = Told()
    async with working(tmp_path, told, ExecutorPlugin(Doing(hangs))) as bench:
        events = bench.worker.host.events
        events.open(bench.clock, None)
        follower = events.follow(lambda event: event.type == EventType.TASK_RETRIED)
        doing(bench, timeout=30.0)
        bench.store.several_daemons, bench.store.lease = True, 0.9
        await bench.put([replace(DO, partition=Partition("acme", ordered=True))])
        await bench.until(lambda: bool(told.lost))
        [(_, event)] = await follower.take(10, 1)
        assert isinstance(event, TaskEvent)
        assert (event.error, event.lost, told.lost) == (deadlines.LOST_SOON, True, [True])
        bench.store.several_daemons = False


async def test_its_lease_counts_from_the_claim(tmp_path: Path) -> None:
    """Also where it waited for a slot for most of that, as for the database."""
    async with working(tmp_path, ExecutorPlugin(Doing(hangs))) as bench:
        doing(bench, timeout=30.0)
        bench.store.several_daemons, bench.store.lease = True, 90.0
        leases = bench.worker.pipe.deadlines.leases
        leases.renewed = world.elapsed() - 3600
        [task_id] = await bench.put([replace(DO, partition=Partition("acme", ordered=True))])
        sending = bench.worker.pipe.deadlines.sending
        await bench.until(lambda: bool(sending))
        [running] = sending
        assert not leases.may_be_lost(sending[running])
        task = await bench.store.read(search.get(task_id))
        run: Any = SimpleNamespace(task=task, leased=None, elapsed=lambda: 0.0)
        assert not leases.may_be_lost(run)
        bench.clock.turn(61)
        assert leases.may_be_lost(run)
        bench.store.several_daemons = False
        bench.worker.pipe.deadlines.overdue[running] = "it is enough"
        running.cancel()


async def test_deadlines_are_kept_while_the_worker_waits_for_the_database(tmp_path: Path) -> None:
    goes_on = asyncio.Event()
    async with working(tmp_path, ExecutorPlugin(Doing(hangs))) as bench:
        doing(bench, idempotent=False)
        [task_id] = await bench.put([DO])
        await bench.until(lambda: bool(bench.worker.pipe.deadlines.sending))

        async def waits(*_: Any) -> None:
            await goes_on.wait()

        bench.worker.pipe.start_candidate = waits  # type: ignore[method-assign]
        await bench.worker.waiters.wait(task_id, 10)
        task = await bench.store.read(search.get(task_id))
        assert (task.status, task.last_error) == ("failed", TIMED_OUT)
        goes_on.set()


@pytest.mark.parametrize("rendered", [True, False])
async def test_a_call_from_before_there_were_partitions(tmp_path: Path, rendered: bool) -> None:
    """It runs without one; one that was accepted since, and has none, has to have one."""
    done = asyncio.Event()

    async def does(task: Task) -> Any:
        done.set()
        return Outcome("success", 200)

    async with working(tmp_path, ExecutorPlugin(Doing(does))) as bench:
        rule = PartitionRule.model_validate({"by": "{{ params.account }}"})
        doing(bench, partition=rule)
        [task_id] = await bench.put([replace(DO, error=None if rendered else "no account")])
        await bench.idle([task_id])
        [task] = await bench.tasks([task_id])
        assert (task.reason is None, done.is_set()) == (rendered, rendered)
        assert rendered or task.reason == "invalid_payload"


async def test_what_may_have_been_carried_out_is_left_to_a_person(tmp_path: Path) -> None:
    async with working(tmp_path, ExecutorPlugin(Doing(hangs))) as bench:
        doing(bench, idempotent=False)
        [task_id] = await bench.put([DO])
        await bench.worker.waiters.wait(task_id, 10)
        task = await bench.store.read(search.get(task_id))
        assert (task.status, task.reason, task.last_error) == ("failed", "ambiguous", TIMED_OUT)


@pytest.mark.parametrize("idempotent", [True, False])
async def test_what_this_machine_could_not_send_costs_no_attempt(
    tmp_path: Path, idempotent: bool
) -> None:
    """It says why, and is tried again; what waits meanwhile is not rushed through."""
    lacks = "no connection to 127.0.0.1:9: Too many open files"
    plenty = asyncio.Event()

    async def sends(task: Task) -> Any:
        if plenty.is_set():
            return Outcome("success", 200)
        return Outcome("retry", "error", error=lacks, shortage=True)

    async with working(tmp_path, ExecutorPlugin(Doing(sends))) as bench:
        doing(bench, timeout=30.0, idempotent=idempotent)
        [task_id] = await bench.put([DO])
        await bench.until(lambda: bench.worker.lanes.halted)
        assert bench.worker.lanes.choose(10**14) == []
        await bench.until(lambda: not bench.worker.claims.running)
        task = await bench.store.read(search.get(task_id))
        assert (task.status, task.attempts, task.started_at) == ("pending", 0, None)
        assert (task.last_error, task.last_status_code) == (lacks, "error")
        assert (task.next_try or 0) > bench.clock.now_ms()
        assert await bench.store.read(search.attempts(task_id)) == []
        assert bench.lane.throttle is None
        plenty.set()
        await bench.idle([task_id])
        assert await bench.states([task_id]) == [("succeeded", 1)]


async def test_no_port_towards_one_receiver_holds_its_lane_alone(tmp_path: Path) -> None:
    plenty = asyncio.Event()

    async def sends(task: Task) -> Any:
        if plenty.is_set():
            return Outcome("success", 200)
        error = "no connection to 127.0.0.1:9: Cannot assign requested address"
        return Outcome("retry", "error", error=error, shortage=True, receiver_only=True)

    async with working(tmp_path, ExecutorPlugin(Doing(sends))) as bench:
        doing(bench, timeout=30.0)
        ids = await bench.put([DO])
        lane = bench.worker.lanes.lanes["doing"]
        await bench.until(lambda: lane.throttle is not None)
        await bench.until(lambda: not bench.worker.claims.running)
        assert not bench.worker.lanes.halted
        assert lane.throttle is not None
        assert lane.throttle.told_until > bench.clock.now_ms()
        assert "no local port" in lane.throttle.told_why
        assert await bench.states(ids) == [("pending", 0)]
        plenty.set()
        await bench.idle(ids)
        assert await bench.states(ids) == [("succeeded", 1)]


NO_OUTCOMES: list[Any] = [
    None, "success", Outcome("success", 200, error=ValueError("odd")),  # type: ignore[arg-type]
    Outcome("success", 200, response=object()),  # type: ignore[arg-type]
    Outcome("success", 200, response=httpx.Response(200, stream=httpx.ByteStream(b"unread"))),
    Outcome("retry", "\ud800"), Outcome("retry", 10**5000),
]  # fmt: skip


async def test_an_executor_that_answers_nonsense_is_not_asked_again(tmp_path: Path) -> None:
    """What it did is done: its task must not look as if it had not been begun."""
    asked: list[int] = []

    async def nonsense(task: Task) -> Any:
        asked.append(task.id)
        return NO_OUTCOMES[task.params["number"]]

    async with working(tmp_path, ExecutorPlugin(Doing(nonsense))) as bench:
        doing(bench, timeout=30.0, idempotent=False)
        ids = await bench.put([replace(DO, params={"number": n}) for n in range(len(NO_OUTCOMES))])
        await bench.idle(ids)
        assert sorted(asked) == ids
        for task in await bench.tasks(ids):
            assert (task.status, task.reason, task.attempts) == ("failed", "ambiguous", 1)


async def test_an_executor_that_does_not_end_is_ended_during_a_drain_too(tmp_path: Path) -> None:
    async with working(tmp_path, ExecutorPlugin(Doing(hangs))) as bench:
        doing(bench)
        [task_id] = await bench.put([DO])
        await bench.until(lambda: bool(bench.worker.pipe.deadlines.sending))
        loop = asyncio.get_running_loop()
        began = loop.time()
        await bench.worker.drain(60)
        assert loop.time() - began < 10
        task = await bench.store.read(search.get(task_id))
        assert (task.status, task.attempts, task.last_error) == ("pending", 1, TIMED_OUT)


async def test_a_drain_that_is_over_gives_back_what_hangs(tmp_path: Path) -> None:
    async with working(tmp_path, ExecutorPlugin(Doing(hangs))) as bench:
        doing(bench, timeout=30.0)
        [task_id] = await bench.put([DO])
        await bench.until(lambda: bool(bench.worker.pipe.deadlines.sending))
        await bench.worker.drain(0.05)
        task = await bench.store.read(search.get(task_id))
        assert (task.status, task.attempts) == ("pending", 0)
        assert "stopped before an answer came" in str(task.last_error)


async def test_an_attempt_in_time_is_left_alone(tmp_path: Path) -> None:
    """However often somebody looks."""
    reached = asyncio.Event()

    async def waits(task: Task) -> Any:
        reached.set()
        await asyncio.sleep(0.05)
        return Outcome("success", 200)

    async with working(tmp_path, ExecutorPlugin(Doing(waits))) as bench:
        doing(bench, timeout=30.0)
        [task_id] = await bench.put([DO])
        await reached.wait()
        for _ in range(3):
            bench.worker.pipe.deadlines.expire(asyncio.get_running_loop().time())
        await bench.worker.waiters.wait(task_id, 10)
        assert await bench.states([task_id]) == [("succeeded", 1)]


async def test_the_time_of_a_hook_is_not_the_executors(tmp_path: Path) -> None:
    """What is prepared for longer than the timeout is sent all the same."""

    class Slow:
        @hookimpl
        async def before_request(self) -> None:
            await asyncio.sleep(1.8)

    async with working(tmp_path, Slow()) as bench:
        bench.receiver.open.set()
        bench.adopt(timeout=0.3)
        ids = await bench.put([CALL])
        await bench.until(lambda: bool(bench.worker.pipe.deadlines.preparing))
        await bench.idle(ids)
        assert await bench.states(ids) == [("succeeded", 1)]
        assert bench.receiver.tasks == ids


async def never_answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()


async def test_poison_candidates_that_wait_for_their_turn_hold_up_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for as long as one of them may run alone."""
    monkeypatch.setattr(poison, "HELD", 1.0)
    hanging = await asyncio.start_server(never_answers, "127.0.0.1", 0)
    with closing(hanging):
        async with working(tmp_path) as bench:
            bench.adopt(concurrency=3)
            healthy = replace(bench.config.endpoints["a/get"], timeout=2.0)
            port = hanging.sockets[0].getsockname()[1]
            changes = {"name": "h", "base_url": f"http://127.0.0.1:{port}", "concurrency": 3}
            hung = replace(healthy, id="h/get", api=healthy.api.model_copy(update=changes))
            bench.receiver.open.set()
            bench.worker.placement.set_paused({"a/get", "h/get"})
            bench.worker.placement.adopt(
                replace(bench.config, endpoints={"a/get": healthy, "h/get": hung})
            )
            candidates = await bench.put([CALL] * 3)
            await bench.put([NewTask("call", "h/get")])
            await bench.store._writer.submit(
                Write(
                    Rank.HAND,
                    lambda session: session.db.run("UPDATE retry_schedule SET deaths = 2"),
                )
            )
            [fresh] = await bench.put([CALL])
            bench.worker.placement.set_paused(set())
            # The newest one runs alone, and its receiver hangs.
            await bench.until(lambda: bench.worker.lanes.held)
            assert bench.receiver.tasks == []
            await bench.until(lambda: fresh in bench.receiver.tasks)
            rows = await bench.store.read(search.page(TaskFilter(), 10))
            assert not any(task.alone for task in rows[0])
            # Once that has ended, their turn comes.
            await bench.until(lambda: set(candidates) <= set(bench.receiver.tasks))
