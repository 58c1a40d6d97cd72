"""The end of a run that cannot be told, or waits for its endpoint, holds up no other."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestratord.engine.http_executor import HttpPlugin
from orchestratord.engine.worker import Worker
from orchestratord.http.client import HttpClient
from orchestratord.model.task import NewTask, RunSummary, Task
from orchestratord.plugin.hook_marks import hookimpl, only_for
from orchestratord.queue import run_counts
from orchestratord.queue.batch import Read
from orchestratord.queue.housekeeping import run_ends
from orchestratord.queue.operations import effects, manual
from orchestratord.queue.records import Chore, Insert
from orchestratord.queue.store import Store
from orchestratord.runtime import chore_runner
from orchestratord.runtime.run_end_teller import RunEndTeller
from orchestratord.testing import Rig
from orchestratord.values.clock import Clock


async def test_an_end_that_cannot_be_told_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(chore_runner, "AT_ONCE", 2)
    told: list[int] = []

    class Ends:
        @hookimpl
        def on_run_end(self, run: RunSummary, task: Task) -> None:
            told.append(run.id)

    rig, clock = Rig(HttpPlugin()), Clock()
    rig.host.register(Ends(), "ends")
    store = await Store.open(f"sqlite:///{tmp_path / 'q.db'}")
    worker = Worker(store, rig.host, HttpClient(), clock)
    worker.placement.adopt(rig.config(rig.endpoint("shop/good"), rig.endpoint("shop/bad")))
    ids = []
    for name in ("bad", "gone", "gone", "gone", "good", "good"):
        new = [Insert(NewTask("call", f"shop/{name}"), begins_run=True)]
        [call] = await store.write(effects.enqueue(new))
        await store.write(manual.cancel(call.id))
        ids.append(call.id)
    teller = RunEndTeller(worker)
    root = teller._root

    async def broken(run: RunSummary) -> Task:
        if run.endpoint_id == "shop/bad":
            raise ValueError("no")
        return await root(run)

    monkeypatch.setattr(teller, "_root", broken)
    caplog.set_level(logging.WARNING, "orchestratord.chores")
    runner = chore_runner.ChoreRunner(store, {run_counts.CHORE: teller.step}, teller.is_needless)
    running: asyncio.Task[Any] = asyncio.create_task(runner.run())
    async with asyncio.timeout(60):
        while len(told) < 2:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert told == ids[-2:]
    assert caplog.messages == [f"cannot do the chore run {ids[0]} shop/bad yet: no"]
    assert [run for run, _ in map(run_ends.subject_of, await left(store))] == ids[:4]
    await store.close()


async def left(store: Store) -> list[Chore]:
    """The chores that are still there."""
    rows = await store.read(Read(lambda db: db.all("SELECT id, kind, subject FROM chores")))
    return [Chore(*row) for row in rows]


async def test_an_end_of_which_no_hook_wants_to_know_asks_none(tmp_path: Path) -> None:
    asked: list[int] = []

    class Ends:
        @hookimpl
        @only_for(lambda kind, endpoint: endpoint.id == "shop/loud")
        def on_run_end(self, run: RunSummary) -> None:
            asked.append(run.id)

    rig, clock = Rig(HttpPlugin()), Clock()
    rig.host.register(Ends(), "ends")
    store = await Store.open(f"sqlite:///{tmp_path / 'q.db'}")
    worker = Worker(store, rig.host, HttpClient(), clock)
    worker.placement.adopt(rig.config(rig.endpoint("shop/loud"), rig.endpoint("shop/quiet")))
    teller = RunEndTeller(worker)
    ids = {}
    for name in ("quiet", "loud"):
        new = [Insert(NewTask("call", f"shop/{name}"), begins_run=True)]
        [call] = await store.write(effects.enqueue(new))
        await store.write(manual.cancel(call.id))
        ids[name] = call.id
    steps = {run_counts.CHORE: teller.step}
    running = asyncio.create_task(chore_runner.ChoreRunner(store, steps, teller.is_needless).run())
    async with asyncio.timeout(60):
        while await left(store):
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert asked == [ids["loud"]]
    await store.close()


async def test_an_end_that_a_clock_ahead_has_written_is_told(tmp_path: Path) -> None:
    rig, clock = Rig(HttpPlugin()), Clock()
    store = await Store.open(f"sqlite:///{tmp_path / 'q.db'}")
    worker = Worker(store, rig.host, HttpClient(), clock)
    worker.placement.adopt(rig.config())
    new = [Insert(NewTask("call", "shop/gone"), begins_run=True)]
    [call] = await store.write(effects.enqueue(new))
    await store.write(manual.cancel(call.id))
    run = await store.read(run_ends.row_of(call.id))
    assert run is not None
    teller = RunEndTeller(worker)
    assert teller._is_left(run)
    weeks = 40 * 86_400_000
    assert not teller._is_left(replace(run, ended_at=clock.now_ms() + weeks))
    await store.close()
