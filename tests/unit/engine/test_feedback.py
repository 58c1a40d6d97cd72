"""What a lane waits for, over a real store and a receiver: its rate, its breaker, Retry-After."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from worker_parts import CALL, KEY, Bench, working

from bench.outage import outage, without_breaker
from orchestratord.engine.attempt_in_progress import AttemptInProgress
from orchestratord.engine.lanes.breaker import LASTING_MS, LEAST, LONGEST_PAUSE_MS
from orchestratord.engine.lanes.pace import WINDOW_MS, Pace
from orchestratord.errors import Reject, Snooze
from orchestratord.model.event import BreakerEvent, Event, EventType, StoredThrottle
from orchestratord.model.outcome import Outcome
from orchestratord.model.retry_policy import RetryPolicy
from orchestratord.model.task import Effect, Task
from orchestratord.plugin.hook_marks import hookimpl
from orchestratord.queue.operations import manual, search


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with working(tmp_path) as made:
        made.receiver.open.set()
        yield made


async def ended(bench: Bench, ids: list[int]) -> None:
    """Return when each of these has ended or failed once, and nothing is under way."""

    async def settled() -> bool:
        tasks = await bench.tasks(ids)
        return all(task.attempts and task.status != "running" for task in tasks)

    async with asyncio.timeout(60):
        while not await settled() or bench.worker.lanes.claimed:
            await asyncio.sleep(0.01)


async def why(bench: Bench, task_id: int) -> tuple[str, str] | None:
    waits = await bench.worker.wait_reason(await bench.store.read(search.get(task_id)))
    return None if waits is None else (waits.what, waits.why)


# -- the rate -------------------------------------------------------------------------------------


async def test_no_second_holds_more_requests_than_the_rate_and_none_costs_an_attempt(
    bench: Bench,
) -> None:
    bench.adopt(concurrency=10, rate="10/s")
    bench.be_quick()
    inserted = await bench.worker.enqueue.accept([CALL] * 12)
    ids = [item.id for item in inserted] + await bench.put([CALL] * 13)
    await bench.idle(ids)
    times = sorted(bench.receiver.times)
    assert len(times) == 25
    for first, eleventh in zip(times, times[10:], strict=False):
        assert eleventh - first >= 0.9  # 1.05 as they leave, and the machine may be busy
    assert times[-1] - times[0] < 8  # some 2 s where the machine is idle
    assert await bench.states(ids) == [("succeeded", 1)] * 25


async def test_what_is_sent_late_counts_from_when_it_is_sent(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The start of one that is not idempotent has to be on disk before, and the disk is slow."""
    start, begun = bench.worker.pipe._start, 0

    async def slow(attempt: AttemptInProgress, effects: Sequence[Effect]) -> bool:
        nonlocal begun
        ours, begun = await start(attempt, effects), begun + 1
        await asyncio.sleep(0.6 if begun <= 3 else 0)
        return ours

    monkeypatch.setattr(bench.worker.pipe, "_start", slow)
    bench.adopt(concurrency=10, rate="3/s", idempotent=False)
    bench.be_quick()
    await bench.idle(await bench.put([CALL] * 7))
    times = sorted(bench.receiver.times)
    assert (len(times), begun) == (7, 7)
    assert min(later - sooner for sooner, later in zip(times, times[3:], strict=False)) > 0.9


async def test_a_task_that_waits_for_its_rate_says_so_and_holds_no_slot(bench: Bench) -> None:
    bench.adopt(concurrency=10, rate="2/min")
    ids = await bench.put([CALL] * 3)
    await ended(bench, ids[:2])
    await bench.until(lambda: bench.lane.throttled)
    assert bench.worker.lanes.claimed == 0
    assert await bench.states(ids[2:]) == [("pending", 0)]
    assert await why(bench, ids[2]) == ("rate_limit", "rate_limit 2/min of api:a")
    [lane] = bench.worker.snapshot()["lanes"]
    assert (lane["rate"]["limit"], lane["rate"]["used"], lane["due"]) == ("2/min", 2, 1)
    assert 55_000 < lane["rate"]["next"] - bench.clock.now_ms() <= 61_000
    bench.clock.turn(61)
    bench.worker.lanes.wake.set()
    await bench.idle(ids)


async def test_a_restart_does_not_forget_what_was_charged(tmp_path: Path) -> None:
    async with working(tmp_path) as bench:
        bench.adopt(concurrency=10, rate="3/min")
        bench.receiver.open.set()
        await bench.idle(await bench.put([CALL] * 3))
    async with working(tmp_path, rate="3/min") as bench:
        bench.receiver.open.set()
        [late] = [item.id for item in await bench.worker.enqueue.accept([CALL])]
        await bench.until(lambda: bench.lane.throttled)
        assert await bench.states([late]) == [("pending", 0)]
        assert bench.receiver.tasks == []
        bench.clock.turn(61)
        bench.worker.lanes.wake.set()
        await bench.idle([late])


class Refusing:
    """Refuses the first call, puts the second one off, and lets the others pass."""

    def __init__(self) -> None:
        self.asked = 0

    @hookimpl
    def before_request(self, task: Task) -> None:
        self.asked += 1
        if self.asked == 1:
            raise Reject("not today")
        if self.asked == 2:
            raise Snooze(3600)


async def test_what_is_not_sent_is_not_charged(tmp_path: Path) -> None:
    async with working(tmp_path, Refusing()) as bench:
        bench.receiver.open.set()
        bench.adopt(concurrency=10, rate="1/h")
        ids = await bench.put([CALL] * 4)
        await bench.until(lambda: len(bench.receiver.tasks) == 1 and bench.lane.throttled)
        await bench.until(lambda: not bench.worker.claims.running)
        assert sorted(state for state, _ in await bench.states(ids)) == [
            "failed", "pending", "pending", "succeeded",
        ]  # fmt: skip


async def test_what_egress_denies_is_not_charged(bench: Bench) -> None:
    bench.adopt(concurrency=10, rate="1/h", egress=())
    denied = await bench.put([CALL] * 3)
    await bench.idle(denied)
    assert {status for status, _ in await bench.states(denied)} == {"failed"}
    bench.adopt(concurrency=10, rate="1/h")
    await bench.idle(await bench.put([CALL]))
    assert len(bench.receiver.tasks) == 1


class Rejecting:
    """Rejects each answer."""

    @hookimpl
    def after_request(self, outcome: Outcome) -> Outcome:
        return outcome.failure("no customer any more", reason="rejected")


async def test_what_a_hook_rejects_after_it_was_sent_is_charged(tmp_path: Path) -> None:
    async with working(tmp_path, Rejecting()) as bench:
        bench.receiver.open.set()
        bench.adopt(concurrency=10, rate="2/h")
        ids = await bench.put([CALL] * 4)
        await bench.until(lambda: len(bench.receiver.tasks) >= 2 and bench.lane.throttled)
        await bench.until(lambda: not bench.worker.claims.running)
        assert len(bench.receiver.tasks) == 2
        states = [status for status, _ in await bench.states(ids)]
        assert sorted(states) == ["failed", "failed", "pending", "pending"]


# -- Retry-After ---------------------------------------------------------------------------------


async def test_on_retry_after_the_lane_waits_and_no_task_of_it_loses_an_attempt(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    bench.receiver.status, bench.receiver.headers = 429, b"Retry-After: 40\r\n"
    first, *others = ids = await bench.put([CALL] * 5)
    await ended(bench, [first])
    await bench.until(lambda: bench.lane.throttled)
    bench.receiver.status, bench.receiver.headers = 200, b""
    assert await bench.states(ids) == [("pending", 1)] + [("pending", 0)] * 4
    assert await why(bench, others[0]) == (
        "retry_after", "api:a was told to wait: 429 with Retry-After",
    )  # fmt: skip
    said = [record.message for record in caplog.records if "told to wait" in record.message]
    assert len(said) == 1
    assert said[0].startswith("api:a was told to wait (429 with Retry-After): its tasks wait unt")
    bench.clock.turn(41)
    bench.worker.lanes.wake.set()
    await bench.idle(others)
    assert await bench.states(others) == [("succeeded", 1)] * 4
    bench.clock.turn(60)
    await bench.idle(ids)
    bench.clock.turn(61)
    await bench.until(lambda: bench.lane.throttle is None)


@pytest.mark.parametrize(
    ("status", "header", "retry"),
    [(429, b"", {}), (500, b"Retry-After: 40\r\n", {}), (429, b"Retry-After: 0\r\n", {}),
     (429, b"Retry-After: never\r\n", {}),
     (503, b"Retry-After: 40\r\n", {"respect_retry_after": False})],
)  # fmt: skip
async def test_otherwise_only_the_task_waits(
    bench: Bench, status: int, header: bytes, retry: dict[str, Any]
) -> None:
    policy = bench.config.endpoints["a/get"].retry
    bench.adopt(retry=policy.model_copy(update=retry))
    bench.receiver.status, bench.receiver.headers = status, header
    await ended(bench, await bench.put([CALL] * 5))
    assert len(bench.receiver.tasks) == 5


async def test_waiting_ends_with_max_retry_after(bench: Bench) -> None:
    policy = bench.config.endpoints["a/get"].retry
    bench.adopt(retry=policy.model_copy(update={"max_retry_after": 5.0}))
    bench.receiver.status, bench.receiver.headers = 429, b"Retry-After: 4000000\r\n"
    await ended(bench, await bench.put([CALL]))
    throttle = bench.lane.throttle
    assert throttle is not None
    assert 4_000 < throttle.told_until - bench.clock.now_ms() <= 5_000


class Turns(asyncio.Event):
    """Counts how often it is told."""

    count = 0

    def set(self) -> None:
        self.count += 1
        super().set()


async def test_what_another_daemon_was_asked_for_holds_here_too(bench: Bench) -> None:
    bench.worker.feedback.turned = turned = Turns()
    await bench.idle(await bench.put([CALL]))
    now = bench.clock.now_ms()
    row = StoredThrottle("api:a", "retry_after", "", now, now + 40_000, "429 with Retry-After")
    bench.worker.feedback.restore([row, row._replace(until=now + 39_999)], bench.config.redactor)
    [late] = await bench.put([CALL])
    await bench.until(lambda: bench.lane.throttled)
    assert await why(bench, late) == (
        "retry_after", "api:a was told to wait: 429 with Retry-After",
    )  # fmt: skip
    assert turned.count == 1
    bench.clock.turn(41)
    bench.worker.lanes.wake.set()
    await bench.idle([late])
    assert await bench.states([late]) == [("succeeded", 1)]
    bench.clock.turn(61)
    await bench.until(lambda: bench.lane.throttle is None)
    bench.worker.feedback.restore([row], bench.config.redactor)  # it is over
    assert not bench.worker.waiting_lanes()


async def test_what_the_others_are_told(bench: Bench) -> None:
    bench.worker.feedback.turned = turned = Turns()
    await broken(bench, waiting=10)
    [told] = bench.worker.waiting_lanes()
    assert (told["lane"], told["retry_after"]) == ("api:a", None)
    assert told["breaker"]["why"].startswith("503")
    bench.receiver.status = 200
    bench.clock.turn(LONGEST_PAUSE_MS / 1000)
    bench.worker.lanes.wake.set()
    await bench.until(lambda: bench.worker.waiting_lanes() == [])
    assert turned.count >= 2


async def test_by_hand_one_is_tried_and_where_it_is_taken_the_rest_follow(bench: Bench) -> None:
    bench.receiver.status, bench.receiver.headers = 503, b"Retry-After: 4000\r\n"
    ids = await bench.put([CALL] * 5)
    await ended(bench, ids[:1])
    await bench.until(lambda: bench.lane.throttled)
    bench.receiver.status, bench.receiver.headers = 200, b""
    task = await bench.store.write(manual.trigger(ids[3]))
    assert task.next_try is not None
    bench.worker.placement.touched(KEY, task.next_try)
    bench.worker.try_now(KEY)
    await bench.idle(ids[1:])
    assert bench.receiver.tasks[1] == ids[3]


# -- the breaker ----------------------------------------------------------------------------------


async def broken(bench: Bench, *, waiting: int) -> list[int]:
    """Let the breaker open; the ids of the tasks that wait then."""
    bench.adopt(concurrency=5)
    bench.receiver.status = 503
    first = await bench.put([CALL])
    await ended(bench, first)
    bench.clock.turn(LASTING_MS / 1000)
    ids = await bench.put([CALL] * (LEAST + waiting))
    await bench.until(
        lambda: bench.lane.throttle is not None and bench.lane.throttle.probes_only(0)
    )
    throttle = bench.lane.throttle
    assert throttle is not None
    # The first probes would come within the seconds that this takes.
    throttle.breaker._pause = LONGEST_PAUSE_MS
    throttle.breaker.next_probe = bench.clock.now_ms() + LONGEST_PAUSE_MS
    bench.worker.lanes.throttle_changed(bench.lane, bench.clock.now_ms())
    await bench.until(lambda: not bench.worker.lanes.claimed and not bench.worker.claims.running)
    states = await bench.states(ids)
    assert set(states) <= {("pending", 0), ("pending", 1)}
    waits = [task for task, state in zip(ids, states, strict=True) if state[1] == 0]
    assert len(waits) >= waiting - 5  # those that were under way when it opened
    return waits


async def test_while_a_receiver_is_down_tasks_wait_and_lose_no_attempt(bench: Bench) -> None:
    events: list[Event] = []
    bench.worker.host.events.open(bench.clock, None)
    follower = bench.worker.host.events.follow(lambda event: isinstance(event, BreakerEvent))
    waiting = await broken(bench, waiting=30)
    probes = len(bench.receiver.tasks)
    what, words = await why(bench, waiting[-1]) or ("", "")
    assert (what, words) == ("breaker", "the breaker of api:a is open: 503 X")
    for _ in range(3):
        bench.clock.turn(31)
        bench.worker.lanes.wake.set()
        probes += 1
        await bench.until(lambda: len(bench.receiver.tasks) == probes)  # noqa: B023
        await bench.until(lambda: not bench.worker.lanes.claimed)
    [lane] = bench.worker.snapshot()["lanes"]
    assert lane["breaker"]["state"] == "open"
    assert lane["breaker"]["why"] == "503 X"
    assert lane["openings"] == 1
    await asyncio.sleep(0.1)
    assert len(bench.receiver.tasks) == probes
    bench.receiver.status = 200
    bench.clock.turn(31)
    bench.worker.lanes.wake.set()
    left = [id_ for id_ in waiting if (await bench.store.read(search.get(id_))).attempts == 0]
    await bench.idle(left)
    assert await bench.states(left) == [("succeeded", 1)] * len(left)
    async with asyncio.timeout(60):
        while len(events) < 2:
            events += [event for _, event in await follower.take(10, 0.1)]  # type: ignore[misc]
    opened, closed = events
    assert isinstance(opened, BreakerEvent)
    assert isinstance(closed, BreakerEvent)
    assert (opened.type, opened.lane, opened.error) == (EventType.BREAKER_OPENED, "api:a", "503 X")
    assert opened.failures >= LEAST
    assert (closed.type, closed.opened_at) == (EventType.BREAKER_CLOSED, opened.at)
    assert closed.duration_ms is not None
    assert closed.duration_ms > 100_000


async def test_claims_that_come_after_it_has_opened_go_back(bench: Bench) -> None:
    """Those that were claimed ahead wait for the same slot as the one that opens it."""
    bench.adopt(concurrency=1)
    bench.receiver.status = 503
    bench.receiver.open.clear()
    ids = await bench.hold(LEAST + 10)
    assert bench.lane.throttle is None
    throttle = bench.worker.lanes.scopes.get("a/get", bench.clock.now_ms())
    for _ in range(LEAST - 1):
        throttle.breaker.count(bench.clock.now_ms() - LASTING_MS, "503")
    bench.receiver.open.set()
    lanes = bench.worker.lanes
    await bench.until(lambda: not lanes.claimed and not bench.worker.claims.running)
    await bench.until(lambda: bench.lane.throttled)
    assert await bench.states(ids[1:]) == [("pending", 0)] * (LEAST + 9)


async def test_by_hand_a_task_is_the_probe(bench: Bench) -> None:
    waiting = await broken(bench, waiting=20)
    bench.receiver.status = 200
    task = await bench.store.write(manual.trigger(waiting[-1]))
    assert task.next_try is not None
    bench.worker.placement.touched(KEY, task.next_try)
    before = len(bench.receiver.tasks)
    bench.worker.try_now(KEY)
    await bench.idle(waiting)
    assert bench.receiver.tasks[before] == waiting[-1]


async def test_a_changed_configuration_lets_a_probe_through(bench: Bench) -> None:
    waiting = await broken(bench, waiting=20)
    bench.receiver.status = 200
    bench.adopt(concurrency=5)
    await bench.idle(waiting)


async def test_what_expires_meanwhile_is_no_probe(bench: Bench) -> None:
    waiting = await broken(bench, waiting=20)
    policy = RetryPolicy(give_up_after=100.0)
    bench.adopt(concurrency=5, retry=policy)
    bench.receiver.status = 200
    bench.clock.turn(101)
    await bench.idle(waiting)
    assert {status for status, _ in await bench.states(waiting)} == {"failed"}
    # The next one that is due is it; a claim that finds nothing may still be under way.
    await bench.until(lambda: bench.lane.throttle is not None and not bench.lane.throttle.probing)
    bench.adopt(concurrency=5)
    await bench.idle(await bench.put([CALL]))
    bench.clock.turn(61)
    await bench.until(lambda: bench.lane.throttle is None)


@pytest.mark.slow
async def test_ten_minutes_of_an_outage(tmp_path: Path) -> None:
    """`python -m bench.outage`, with a few tasks."""
    for name in ("with", "without"):
        (tmp_path / name).mkdir()
    guarded = await outage(tmp_path / "with", 40)
    with without_breaker():
        bare = await outage(tmp_path / "without", 40)
    assert guarded.lost == bare.lost == 0
    assert guarded.failed <= 120 < 240 <= bare.failed
    assert guarded.most <= 5 < 6 <= bare.most  # with the probes, which cost nothing
    assert guarded.first <= 10.5
    assert guarded.last <= 31


# -- the pace -------------------------------------------------------------------------------------


async def test_a_lane_of_which_another_daemon_took_the_last_is_slowed_no_longer(
    bench: Bench,
) -> None:
    await ended(bench, await bench.put([CALL]))
    now = bench.clock.now_ms()
    throttle = bench.worker.lanes.throttle_of(bench.lane, now)
    throttle.pace = Pace(now)
    throttle.pace.take_back(1.0, now)
    bench.clock.turn(WINDOW_MS / 2000)
    bench.worker.feedback.tick()
    assert throttle.is_slowed  # what was refused may only wait for its backoff
    bench.clock.turn(WINDOW_MS / 2000 + 0.001)
    bench.worker.feedback.tick()
    assert not throttle.is_slowed
