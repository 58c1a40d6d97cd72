"""A few universes, and that a seed is the same wherever it runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("greenlet")

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.simulation", *arguments]
    environ = {**os.environ, "PYTHONHASHSEED": "0"}
    return subprocess.run(
        command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=300, check=False
    )


def test_no_universe_shows_a_violation() -> None:
    done = run("--seeds", "1:10", "--jobs", "1")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr


def test_a_seed_is_the_same_in_each_process() -> None:
    first, second = run("--trace", "7"), run("--trace", "7")
    assert first.stdout == second.stdout
    assert "accepted" in first.stdout
