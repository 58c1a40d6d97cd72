"""No universe shows a violation, and a seed is the same wherever it runs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.simulation.shrink import shrink

ROOT = Path(__file__).parents[2]


def run(*arguments: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.simulation", *arguments]
    environ = {**os.environ, "PYTHONHASHSEED": "0"}
    return subprocess.run(
        command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=timeout, check=False
    )


LAST = 150
"""The last seed that the tests run; `python -m tests.simulation --campaign` runs more."""
PARTS = ("6:50", *(f"{first}:{first + 49}" for first in range(51, LAST, 50)))
"""None takes too long for a test on a busy machine."""


@pytest.mark.parametrize(
    "seeds", ["1:5", *(pytest.param(part, marks=pytest.mark.slow) for part in PARTS)]
)
def test_no_universe_shows_a_violation(seeds: str) -> None:
    done = run("--seeds", seeds)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr


@pytest.mark.slow
def test_a_seed_is_the_same_in_each_process() -> None:
    first, second = run("--trace", "7"), run("--trace", "7")
    assert first.stdout == second.stdout
    assert "acknowledged" in first.stdout


def test_an_unknown_plant_lists_those_that_there_are() -> None:
    done = run("--plant", "no-such-fault", "--seeds", "1:2")
    assert done.returncode == 2
    assert "take-over-does-nothing" in done.stderr.splitlines()


def test_shrinking_finds_what_is_needed() -> None:
    def fails(parts: Sequence[Sequence[int]]) -> Iterator[bool]:
        return ({3, 58, 59} <= set(part) for part in parts)

    assert shrink(range(100), fails, lambda count: None) == [3, 58, 59]
