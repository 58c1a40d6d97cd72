"""`python -m bench.overload`, with a few tasks."""

from __future__ import annotations

from pathlib import Path

from bench.overload import SERVES, overload


async def test_an_overloaded_receiver_over_a_real_queue(tmp_path: Path) -> None:
    found = await overload(tmp_path, 700)
    assert found.requests - found.refused == 700
    assert found.shed <= 0.1
    assert found.peak <= 1.5 * SERVES
