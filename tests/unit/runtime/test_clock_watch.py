"""When the daemon looks for times that a clock which was ahead has written."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

from orchestratord.queue.housekeeping.future_times import BroughtBack
from orchestratord.runtime import clock_watch
from orchestratord.runtime.clock_watch import ClockWatch
from orchestratord.values import world
from orchestratord.values.clock import Clock, ClockChange


async def test_the_queue_is_looked_through_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Others that write to it may have gone by the wrong clock for longer."""
    looked, enough = [0], asyncio.Event()

    async def bring_back(store: object) -> BroughtBack:
        looked[0] += 1
        if looked[0] == 3:
            enough.set()
        return BroughtBack()

    monkeypatch.setattr(clock_watch, "bring_back", bring_back)
    for name in ("BACK_AFTER", "LOOK", "LOOK_BACK_EACH"):
        monkeypatch.setattr(clock_watch, name, 0.001)
    other: Any = None
    worker: Any = SimpleNamespace(clock=Clock(), store=None, host=SimpleNamespace(events=None))
    watching = asyncio.create_task(ClockWatch(worker, other, other).run())
    await asyncio.wait_for(enough.wait(), 10)
    watching.cancel()


async def test_what_is_taken_back_is_looked_for_once_all_workers_follow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Until they do, they write times that lie ahead."""
    followed, looked = asyncio.Event(), asyncio.Event()

    async def bring_back(store: object) -> BroughtBack:
        looked.set()
        return BroughtBack()

    class Following(Clock):
        def look(self) -> ClockChange | None:
            if followed.is_set():
                return None
            followed.set()
            return ClockChange("followed", -3600.0, takes_back=True)

    monkeypatch.setattr(clock_watch, "bring_back", bring_back)
    monkeypatch.setattr(clock_watch, "LOOK", 0.001)
    monkeypatch.setattr(clock_watch, "BACK_AFTER", 0.05)
    worker: Any = MagicMock(clock=Following(), store=None)
    watch = ClockWatch(worker, MagicMock(), MagicMock())
    began = world.monotonic()
    watching = asyncio.create_task(watch.run())
    await asyncio.wait_for(followed.wait(), 10)
    await asyncio.wait_for(looked.wait(), 10)
    assert world.monotonic() - began >= 0.05
    watching.cancel()
