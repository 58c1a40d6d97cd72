"""How long claims stand, by which clock: also where the machine slept meanwhile."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time

import pytest

from orchestratord.queue.session import Leases
from orchestratord.values import world
from orchestratord.values.clock import Clock


def test_a_claim_made_after_the_machine_slept_stands_for_a_whole_lease(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The database went on meanwhile: by a clock that stood still, the lease had run out before it
    began, and others took the claim over at once."""
    leases, clock = Leases(90.0), Clock()
    leases.asked(1_000_000)
    before = world.elapsed()
    monkeypatch.setattr(world, "elapsed", lambda: before + 3600)
    assert leases.now(clock) == pytest.approx(1_000_000 + 3_600_000, abs=1000)
    assert leases.until(clock) - leases.now(clock) == 90_000


def test_the_clock_of_leases_goes_on_while_the_machine_sleeps() -> None:
    """In a time namespace, whose machine has slept for as long as it says."""
    unshare = shutil.which("unshare")
    slept = [unshare or "", "--time", "--boottime", "100000", "--fork"]
    if unshare is None or subprocess.run([*slept, "true"], capture_output=True).returncode:
        pytest.skip("this machine or user makes no time namespace")
    program = "from orchestratord.values import world; print(world.elapsed())"
    ended = subprocess.run(
        [*slept, sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert float(ended.stdout) - time.clock_gettime(time.CLOCK_MONOTONIC) > 99_000
