"""One daemon on its queue: what it still has to do, and what it does not look for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestratord.engine.http_executor import HttpPlugin
from orchestratord.engine.new.scheduler import Scheduler
from orchestratord.engine.worker import Worker
from orchestratord.http.client import HttpClient
from orchestratord.model.event import RETRY_AFTER, BreakerEvent, EventType, StoredThrottle
from orchestratord.model.task import Key, NewTask, Status
from orchestratord.queue.batch import Rank, Write
from orchestratord.queue.daemon_health import Trouble
from orchestratord.queue.database import Workers
from orchestratord.queue.operations import claim, daemons, effects, search, stored_throttles
from orchestratord.queue.records import Beat, Insert, Pick
from orchestratord.queue.store import Store
from orchestratord.runtime.fleet import CHANGED_WITHIN, Fleet
from orchestratord.testing import Rig
from orchestratord.values import world
from orchestratord.values.clock import Clock

LEASES_RUN_OUT = "UPDATE daemons SET lease_until = 1"


@asynccontextmanager
async def running(url: str, workers: Workers | None = None) -> AsyncIterator[SimpleNamespace]:
    """A daemon, as far as its fleet needs one."""
    rig, clock, client = Rig(HttpPlugin()), Clock(), HttpClient()
    store = await Store.open(url, workers=workers)
    worker = Worker(store, rig.host, client, clock)
    scheduler = Scheduler(store, clock, worker.pipe.new_tasks, rig.host.events)
    reloader: Any = SimpleNamespace(config=rig.config(rig.endpoint()), elsewhere=())
    worker.placement.adopt(reloader.config)
    fleet = Fleet(worker, scheduler, reloader, workers)
    await fleet.begin()
    going = asyncio.create_task(fleet.run())
    yield SimpleNamespace(
        store=store, worker=worker, reloader=reloader, fleet=fleet, rig=rig, scheduler=scheduler
    )
    going.cancel()
    await client.aclose()
    await store.close()


@pytest.fixture
async def alone(tmp_path: Path) -> AsyncIterator[SimpleNamespace]:
    """One that has a file for itself."""
    async with running(f"sqlite:///{tmp_path}/queue.db") as daemon:
        yield daemon


async def test_one_that_is_alone_looks_for_nobody(
    alone: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It once went round twenty times a second for others that there could not be."""
    await asyncio.sleep(0.1)
    rounds: list[None] = []
    wake = alone.fleet._wake
    clear = wake.clear
    monkeypatch.setattr(wake, "clear", lambda: (rounds.append(None), clear()))
    await asyncio.sleep(0.5)
    assert len(rounds) <= 1


async def test_one_that_is_alone_tells_of_each_configuration(
    alone: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestratord.runtime.fleet.LOOK", 0.05)
    alone.fleet._wake.set()
    alone.reloader.config = replace(alone.reloader.config, generation=7)
    async with asyncio.timeout(60):
        while [one.generation for one in await alone.store.read(daemons.seen())] != [7]:
            await asyncio.sleep(0.01)


async def test_what_a_dead_worker_held_is_taken_over_as_soon_as_that_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestratord.runtime.fleet.LOOK", 60.0)
    url, key, team = f"sqlite:///{tmp_path}/queue.db", Key("crm/get"), Workers.make(2)
    async with running(url, team.worker(1)) as daemon:
        await asyncio.sleep(0.1)  # its first look is over
        other = await Store.open(url, workers=team.worker(2))
        await other.write(daemons.give_sign(Beat(process_group=team.group, worker=2)))
        [task] = await other.write(effects.enqueue([Insert(NewTask("call", key.endpoint_id))]))
        pick = Pick(key, 1, False, other.clock.now_ms())
        assert (await other.write(claim.claim([pick]))).tasks
        await other.write(Write(Rank.KEEP, lambda of: of.db.run(LEASES_RUN_OUT)))
        daemon.fleet.died("another")
        await asyncio.sleep(0.1)
        # It lives, as far as its supervisor has said, however long it stands still.
        assert (await other.read(search.get(task.id))).locked_by == other.owner
        await other.close()
        daemon.fleet.died(other.owner)
        async with asyncio.timeout(60):
            while (await daemon.store.read(search.get(task.id))).status == Status.RUNNING:
                await asyncio.sleep(0.01)
    team.close()


async def test_what_keeps_another_worker_from_its_work_is_shown(tmp_path: Path) -> None:
    workers, url = Workers.make(2), f"sqlite:///{tmp_path}/queue.db"
    async with running(url, workers.worker(1)) as first, running(url, workers.worker(2)) as second:
        second.store.health.begin("worker_stalled", "by a plugin")
        async with asyncio.timeout(60):
            while not (found := first.fleet.troubles()):
                await asyncio.sleep(0.01)
            [since] = [one.since for one in second.store.health.troubles.values()]
            assert found == [Trouble("worker_stalled", "worker 2: by a plugin", since)]
            second.store.health.end("worker_stalled")
            while first.fleet.troubles():
                await asyncio.sleep(0.01)
    workers.close()


async def test_the_workers_of_a_process_group_are_one_daemon(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    workers, url = Workers.make(2), f"sqlite:///{tmp_path}/queue.db"
    async with running(url, workers.worker(1)) as first, running(url, workers.worker(2)) as second:
        second.worker.lanes.place(Key("a/get"), "api:a", 10)
        now = second.store.clock.now_ms()
        held = StoredThrottle("api:a", RETRY_AFTER, "", now, now + 60_000, "429")
        second.worker.feedback.restore([held], second.reloader.config.redactor)
        async with asyncio.timeout(60):
            while not (shown := first.fleet.daemons())[0]["waiting"]:
                await asyncio.sleep(0.01)
        [daemon] = shown
        assert (daemon["owner"], daemon["this"], daemon["alive"]) == (first.store.owner, True, True)
        assert [lane["lane"] for lane in daemon["waiting"]] == ["api:a"]
        assert [daemon["this"] for daemon in second.fleet.daemons()] == [True]
        # It takes no slot for missed that the first one looks at, nor its schedule for an old one.
        assert second.scheduler._looked_since == first.fleet._seen[0].started_at
        assert second.scheduler._said_within == CHANGED_WITHIN
    assert "another daemon" not in caplog.text
    workers.close()


async def test_a_worker_that_gives_no_sign_of_life_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestratord.runtime.fleet.LOOK", 60.0)
    url, team = f"sqlite:///{tmp_path}/queue.db", Workers.make(2)
    async with running(url, team.worker(1)) as daemon:
        await asyncio.sleep(0.1)  # its first look is over
        fleet, other = daemon.fleet, await Store.open(url, workers=team.worker(2))
        sign = daemons.give_sign(Beat(process_group=team.group, worker=2))
        await other.write(sign)
        now = time.monotonic()
        clock = SimpleNamespace(**{**vars(world), "monotonic": lambda: now})
        monkeypatch.setattr("orchestratord.runtime.fleet.world", clock)
        for _ in range(3):
            now += 20.0
            await fleet._learn()
        assert fleet.troubles() == []  # it has stood still itself
        for _ in range(4):
            now += 4.0
            await fleet._learn()
        [silent] = fleet.troubles()
        assert silent == Trouble("worker_silent", "worker 2 has given no sign of life for 16 s", 0)
        await other.write(sign)
        await fleet._learn()
        assert fleet.troubles() == []
        await other.close()
    team.close()


async def test_what_a_dead_worker_held_is_looked_for_until_it_is_found(
    alone: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One write that failed once left it until its lease ended."""
    forsaken: list[set[str]] = []

    def forsake(dead: set[str]) -> object:
        forsaken.append(set(dead))
        if len(forsaken) == 1:
            raise OSError("full")
        return claim_forsake(dead)

    claim_forsake = claim.forsake
    monkeypatch.setattr(claim, "forsake", forsake)
    alone.fleet.died("owner-2")
    async with asyncio.timeout(60):
        while alone.fleet._dead:
            await asyncio.sleep(0.01)
    assert forsaken == [{"owner-2"}] * 2


async def test_leases_are_renewed_while_plugins_wait_to_look_at_their_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They wait for a reload, and that may wait for a worker."""
    monkeypatch.setattr("orchestratord.runtime.fleet.LOOK", 0.05)
    team = Workers.make(2)
    async with running(f"sqlite:///{tmp_path}/queue.db", team.worker(1)) as daemon:
        begun, goes_on = [], asyncio.Event()

        async def refresh() -> None:
            begun.append(None)
            await goes_on.wait()

        daemon.reloader.refresh = refresh
        fleet = daemon.fleet
        async with asyncio.timeout(60):
            for _ in range(3):
                fleet._flags.add("tables")
                beaten, fleet._beat_each = fleet._beaten, 0.01
                fleet._wake.set()
                while fleet._beaten == beaten or not begun:
                    await asyncio.sleep(0.01)
            assert len(begun) == 1
            goes_on.set()
            while len(begun) < 2:  # what was wanted meanwhile
                await asyncio.sleep(0.01)
    team.close()


async def test_what_is_throttled_is_kept_learnt_and_lifted(tmp_path: Path) -> None:
    workers, url = Workers.make(2), f"sqlite:///{tmp_path}/queue.db"
    async with running(url, workers.worker(1)) as first, running(url, workers.worker(2)) as second:
        async with asyncio.timeout(60):
            for daemon in (first, second):
                daemon.worker.lanes.place(Key("a/get"), "api:a", 10)
                daemon.worker.lanes.place(Key("a/get", "ops"), "h:1", 10, url="https://h:1/x")
            now = first.store.clock.now_ms()
            held = [
                StoredThrottle(name, RETRY_AFTER, "", now, now + 60_000, "429")
                for name in ("api:a", "https://h:1/x")
            ]
            first.worker.feedback.restore(held, first.reloader.config.redactor)
            while len(second.worker.waiting_lanes()) < 2:
                await asyncio.sleep(0.01)
            assert await second.store.read(stored_throttles.stored()) == held
            # The one that was not told lifts it, and it is not told again.
            assert await second.fleet.throttles.lift("https://h:1/x")
            while len(first.worker.waiting_lanes()) > 1:
                await asyncio.sleep(0.01)
            await first.fleet.throttles.keep()
            for daemon in (first, second):
                await daemon.fleet.throttles.learn()
                [view] = daemon.worker.waiting_lanes()
                assert view["lane"] == "api:a"
            assert not await second.fleet.throttles.lift("https://h:1/x")
            # What began later counts.
            later = held[1]._replace(since=first.store.clock.now_ms() + 1)
            first.worker.feedback.restore([later], first.reloader.config.redactor)
            while len(second.worker.waiting_lanes()) < 2:
                await asyncio.sleep(0.01)
    workers.close()


async def test_what_opened_as_the_daemon_ended_is_written(alone: SimpleNamespace) -> None:
    changes = alone.worker.feedback.changes
    now = alone.store.clock.now_ms()
    changes.append(BreakerEvent(EventType.BREAKER_OPENED, now, "api:a", 20, "503"))
    await alone.fleet.leave()
    assert not changes


async def test_a_breaker_is_open_again_after_a_restart(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/queue.db"
    async with running(url) as daemon:
        lanes, now = daemon.worker.lanes, daemon.store.clock.now_ms()
        lanes.place(Key("a/get"), "api:a", 10)
        lanes.scopes.get("a/get", now).breaker.open(now - 5_000, now - 5_000, "503 X")
        lanes.throttle_of(lanes.lanes["api:a"], now).wait_until(now + 60_000, "429", now)
        await daemon.fleet.throttles.keep()
    async with running(url) as daemon:
        lanes = daemon.worker.lanes
        lanes.place(Key("a/get"), "api:a", 10)
        breaker = lanes.scopes.by_name["a/get"].breaker
        assert (breaker.opened_at, breaker.why) == (now - 5_000, "503 X")
        [row, held] = await daemon.store.read(stored_throttles.stored())
        assert (row.owner, held.owner, held.until) == (daemon.store.owner, "", now + 60_000)
        assert lanes.lanes["api:a"].throttle is not None
        breaker.answered(now)
        await daemon.fleet.throttles.keep()
        assert await daemon.store.read(stored_throttles.stored()) == [held]
