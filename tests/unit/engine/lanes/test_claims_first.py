from __future__ import annotations

import asyncio

import pytest

from orchestratord.engine.lanes import claims_first
from orchestratord.engine.lanes.claims_first import ClaimsFirst
from orchestratord.engine.lanes.lane_set import LaneSet


async def test_all_go_on_with_the_next_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims_first, "LONGEST", 60.0)
    first = ClaimsFirst(LaneSet())
    first.claimed()  # of no concern: nothing waits
    for _ in range(2):
        waiting = [asyncio.create_task(first.wait()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.sleep(0)
        assert [task.done() for task in waiting] == [True, False, False]
        first.claimed()
        async with asyncio.timeout(10):
            await asyncio.gather(*waiting[1:])


async def test_none_waits_for_long() -> None:
    async with asyncio.timeout(10):
        await ClaimsFirst(LaneSet()).wait()
