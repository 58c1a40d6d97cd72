"""The daemon's housekeeping, where something is in its way."""

from __future__ import annotations

import asyncio

import pytest

from orchestratord.daemon.duties import Duties
from orchestratord.errors import QueueError, Unreachable


async def test_a_database_that_is_away_is_no_fault_of_the_duty(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def away() -> None:
        raise Unreachable("the database cannot be reached: refused")

    async def broken() -> None:
        raise QueueError("the database refused: no such table")

    duties = Duties()
    duties.every(1, "away", away)
    duties.every(1, "broken", broken)
    running = asyncio.create_task(duties.run())
    async with asyncio.timeout(60):
        while len({record.levelno for record in caplog.records}) < 2:
            await asyncio.sleep(0.05)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    first, *_, second = sorted(caplog.records, key=lambda record: record.levelno)
    assert first.exc_info is None
    assert "'away' now; again at its next time: the database cannot" in first.getMessage()
    assert second.exc_info is not None
