"""Each planted fault, with a seed that is known to show it.

A planted fault shows in some universes only, and those are others whenever what universes are made
of changes. Where one no longer shows, `python -m tests.simulation --plant all --seeds 1:200` finds
a seed for each, and prints what is to stand in `SHOWN_BY`.
"""

from __future__ import annotations

import pytest

pytest.importorskip("greenlet")

from tests.simulation.plants import PLANTS, SHOWN_BY
from tests.simulation.test_simulation import run


def test_each_plant_has_its_seed() -> None:
    assert SHOWN_BY.keys() == PLANTS.keys()


@pytest.mark.campaign
@pytest.mark.parametrize("plant", SHOWN_BY)
def test_a_planted_fault_is_found(plant: str) -> None:
    done = run("--plant", plant, "--seeds", str(SHOWN_BY[plant]), "--jobs", "1")
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr == ""
