"""`python -m bench.overload`, with a few tasks."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bench.overload import SERVES, back, overload, refused, second_time, trickle

pytestmark = pytest.mark.slow


async def test_an_overloaded_receiver_over_a_real_queue(tmp_path: Path) -> None:
    found = await overload(tmp_path, 300)
    assert found.requests - found.refused == 300
    assert found.refused > 0
    assert found.peak > SERVES


async def test_what_is_refused_once_or_at_random(tmp_path: Path) -> None:
    assert 0.1 < await refused(tmp_path / "once", second_time, 503, 100) < 10
    attempts, late = await trickle(tmp_path / "some", 429, 1)
    assert attempts > 100
    assert late < 5


def test_when_the_full_rate_is_back(tmp_path: Path) -> None:
    assert asyncio.run(back(tmp_path / "back", 6, 12, tasks=100_000)) <= 12
