"""When the daemon looks for times that a clock which was ahead has written."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest

from orchestratord.queue.housekeeping.future_times import BroughtBack
from orchestratord.runtime import clock_watch
from orchestratord.runtime.clock_watch import ClockWatch
from orchestratord.values.clock import Clock


@pytest.mark.parametrize("shared", [False, True])
async def test_a_queue_that_others_write_is_looked_through_again(
    monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    """One of them may have gone by the wrong clock for longer."""
    looked, enough = [0], asyncio.Event()

    async def bring_back(store: object) -> BroughtBack:
        looked[0] += 1
        if looked[0] == 3:
            enough.set()
        return BroughtBack()

    monkeypatch.setattr(clock_watch, "bring_back", bring_back)
    for name in ("BACK_AFTER", "LOOK", "LOOK_BACK_EACH"):
        monkeypatch.setattr(clock_watch, name, 0.001)
    store: Any = SimpleNamespace(several_daemons=shared)
    other: Any = None
    watching = asyncio.create_task(ClockWatch(Clock(), store, other, other, other, other).run())
    with suppress(TimeoutError):
        await asyncio.wait_for(enough.wait(), 10 if shared else 0.2)
    watching.cancel()
    assert (looked[0] > 1) is shared
