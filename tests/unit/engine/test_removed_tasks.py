"""Tasks that fail without being run, because what they belong to is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from worker_parts import CALL, Doing, ExecutorPlugin, working

from orchestratord.engine.lanes.placement import REMOVED_AFTER
from orchestratord.engine.settle.removed_tasks import BATCH, NAMED, TURNS
from orchestratord.errors import Reject, Unreachable
from orchestratord.model.endpoint import Endpoint
from orchestratord.model.outcome import Outcome
from orchestratord.model.partition_turn import Partition
from orchestratord.model.settings import Config
from orchestratord.model.task import NewTask, Task
from orchestratord.plugin.executor import Doomed, Standing
from orchestratord.plugin.hook_marks import hookimpl
from orchestratord.queue.batch import Rank, Write
from orchestratord.queue.housekeeping import undeclared
from orchestratord.queue.operations import search
from tests.postgres import Postgres


async def test_an_api_that_is_removed_is_not_brought_into_memory_whole(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """All its endpoints are gone at the same moment, and one line of the log says so."""
    async with working(tmp_path) as bench:
        calls = [NewTask("call", f"gone/{number}") for number in range(3 * TURNS)]
        ids = await bench.put([call for call in calls for _ in range(BATCH)])
        bench.clock.turn(REMOVED_AFTER + 1)
        most = 0

        async def look() -> int:
            nonlocal most
            counts = await bench.store.counts()
            most = max(most, counts["running"])
            return counts["failed"]

        async with asyncio.timeout(60):
            while await look() < len(ids):
                await bench.store.write(Write(Rank.KEEP, lambda session: None))
        assert 0 < most <= TURNS * BATCH
        assert {task.reason for task in await bench.tasks(ids[::BATCH])} == {"endpoint_removed"}
        await bench.until(lambda: "waiting tasks have failed" in caplog.text)
    [line] = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
    assert line.startswith(f"{len(ids)} waiting tasks have failed: ")
    assert line.endswith(f"({BATCH}) and {3 * TURNS - NAMED} more")


async def test_what_was_lost_is_announced_though_its_endpoint_is_paused_and_it_is_cancelled(
    tmp_path: Path,
) -> None:
    phases: list[str] = []

    class Announced:
        @hookimpl
        def announce(self, phase: str) -> None:
            phases.append(phase)

    async with working(tmp_path, Announced()) as bench:
        [id_] = await bench.put([CALL])
        await bench.until(lambda: bench.receiver.in_flight == 1)
        task = await bench.store.read(search.get(id_))
        bench.worker.placement.set_paused({CALL.endpoint_id})
        asked = "UPDATE retry_schedule SET cancel_requested = 1"
        await bench.store.write(Write(Rank.HAND, lambda session: session.db.run(asked)))
        phases.clear()
        assert await bench.worker.removed._lost(task) == "settled"
        assert await bench.states([id_]) == [("cancelled", 0)]
        assert phases == ["after_request", "on_retry", "after_request"]
        bench.receiver.open.set()


class Remembering(Doing):
    """Takes its tasks for doomed until it looks again, at which it may raise first."""

    def __init__(self, raises: list[BaseException]) -> None:
        super().__init__(self._succeed)
        self.raises = raises
        self.doomed = True
        self.changed: Callable[[], None] = lambda: None

    async def _succeed(self, task: Task) -> Outcome:
        return Outcome("success", 200)

    def standing(self, endpoint: Endpoint, webhook: str, config: Config) -> Standing:
        if self.doomed:
            return Doomed("webhook_disabled", "it is disabled", after=0.0)
        return super().standing(endpoint, webhook, config)

    async def look_again(self, endpoint_id: str, webhook: str) -> None:
        if self.raises:
            raise self.raises.pop()
        self.doomed = False
        self.changed()


@pytest.mark.parametrize(
    ("raised", "faults"),
    [
        (None, 0),
        (ValueError("no row"), 1),
        (SystemExit(), 1),
        (Reject("no"), 1),
        (Unreachable("it is away"), 0),
    ],
)
async def test_before_tasks_fail_their_executor_looks_again(
    tmp_path: Path, raised: BaseException | None, faults: int
) -> None:
    """Where it cannot, they wait. Its fault is the plugin's; one of the database is not."""
    executor = Remembering([] if raised is None else [raised])
    async with working(tmp_path, ExecutorPlugin(executor)) as bench:
        executor.changed = lambda: bench.worker.placement.standing_changed(*CALL.key)
        bench.adopt(type="doing")
        ids = await bench.put([CALL])
        await bench.idle(ids)
        assert await bench.states(ids) == [("succeeded", 1)]
        info = bench.worker.host.plugins["plugin_0"]
    assert info.faults == faults
    assert ("looking again at a/get" in (info.last_fault or "")) == bool(faults)


async def test_what_failed_as_it_was_lifted_is_tried_again(tmp_path: Path) -> None:
    """Another daemon had it sent again, and did not see it among what had failed."""
    executor = Remembering([])
    async with working(tmp_path, ExecutorPlugin(executor)) as bench:
        looks = 0

        def changed() -> None:
            nonlocal looks
            looks += 1
            executor.doomed = looks == 1
            bench.worker.placement.standing_changed(*CALL.key)

        executor.changed = changed
        bench.adopt(type="doing")
        ids = await bench.put([CALL])
        await bench.until(lambda: looks == 2)
        await bench.idle(ids)
        assert await bench.states(ids) == [("succeeded", 1)]


@pytest.mark.parametrize("restarted", [False, True])
async def test_what_waits_behind_a_failed_task_fails_with_it(
    tmp_path: Path, restarted: bool
) -> None:
    """It holds its partition, whose endpoint is removed: nothing waits for ever."""
    calls = [replace(CALL, partition=Partition("acme", ordered=True, hold=True))] * 3
    async with working(tmp_path) as bench:
        bench.receiver.open.set()
        bench.receiver.status = 400
        first, *rest = ids = await bench.put(calls)
        await bench.worker.waiters.wait(first, 10)
        await bench.until(lambda: bench.worker.lanes.claimed == 0)
        states = await bench.states(ids)
        assert states == [("failed", 1), ("pending", 0), ("pending", 0)]
        if not restarted:
            bench.worker.placement.adopt(replace(bench.config, apis={}, endpoints={}))
            bench.clock.turn(REMOVED_AFTER + 1)
            await bench.idle(rest)
    if restarted:
        async with working(tmp_path, declares=False) as bench:
            key = CALL.key
            await bench.until(lambda: bench.worker.lanes.known(key))
            bench.clock.turn(REMOVED_AFTER + 1)
            await bench.idle(rest)
            reasons = {task.reason for task in await bench.tasks(rest)}
    else:
        reasons = {"endpoint_removed"}
    assert reasons == {"endpoint_removed"}


async def test_what_the_last_daemon_declared_fails_only_if_it_is_meant(
    tmp_path: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each start was judged while another daemon still declared it: none was the last one's."""
    monkeypatch.setattr("orchestratord.engine.settle.removed_tasks.JUDGE_EACH", 0.05)
    url = postgres.create()
    async with working(tmp_path, url=url) as bench:
        removed = bench.worker.removed
        ids = await bench.put([NewTask("call", "gone/a"), NewTask("call", "gone/b", delay=3600)])
        assert removed.refused is None
        bench.worker.placement.set_elsewhere({"gone/a": False, "gone/b": False})
        bench.worker.placement.set_elsewhere({})
        bench.clock.turn(REMOVED_AFTER + 1)
        await bench.until(lambda: removed.refused is not None)
        assert removed.refused is not None
        [problem] = removed.refused[1]
        assert "declared: gone/a (1), gone/b (1); their tasks would fail" in str(problem)
        assert "orchestratorctl reload --accept-removals" in str(problem)
        await asyncio.sleep(1.1)
        assert await bench.states(ids) == [("pending", 0), ("pending", 0)]
        # It is accepted, by whichever daemon.
        await bench.store.write(undeclared.accept(["gone/a", "gone/b"], []))
        await bench.idle(ids)
        assert {task.reason for task in await bench.tasks(ids)} == {"endpoint_removed"}
        assert removed.refused is None
        # What is less than half of all goes by itself, and is remembered.
        call = NewTask("call", "a/get", delay=3600)
        ids = await bench.put([call, NewTask("call", "gone/c")])
        bench.clock.turn(REMOVED_AFTER + 1)
        await bench.idle(ids[1:])
    postgres.drop(url)
