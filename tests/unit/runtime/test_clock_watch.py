"""When the daemon looks for times that a clock which was ahead has written."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from orchestratord.queue.housekeeping.future_times import BroughtBack
from orchestratord.runtime import clock_watch
from orchestratord.runtime.clock_watch import ClockWatch
from orchestratord.values.clock import Clock


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
