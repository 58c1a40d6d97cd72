"""Tasks that fail without being run, because what they belong to is gone."""

from __future__ import annotations

import asyncio
from pathlib import Path

from worker_parts import working

from orchestratord.engine.lanes.placement import REMOVED_AFTER
from orchestratord.engine.removed_tasks import BATCH, TURNS
from orchestratord.model.task import NewTask
from orchestratord.queue.batch import Rank, Write


async def test_an_api_that_is_removed_is_not_brought_into_memory_whole(tmp_path: Path) -> None:
    """All its endpoints are gone at the same moment."""
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

        async with asyncio.timeout(30):
            while await look() < len(ids):
                await bench.store.write(Write(Rank.KEEP, lambda session: None))
        assert 0 < most <= TURNS * BATCH
        assert {task.reason for task in await bench.tasks(ids[::BATCH])} == {"endpoint_removed"}
