"""Each planted fault is found within 200 universes, the one that is known to show it first.

A planted fault shows in some universes only, and those are others whenever the order of steps in
the product changes. The test then takes longer, at most some minutes, until another one shows it;
`python -m tests.simulation --find all` prints what is to stand in `SHOWN_BY`.
"""

from __future__ import annotations

import pytest

pytest.importorskip("greenlet")

from tests.simulation.plants import PLANTS, SHOWN_BY
from tests.simulation.test_simulation import run


def test_each_plant_has_its_seed() -> None:
    assert SHOWN_BY.keys() == PLANTS.keys()


@pytest.mark.slow
@pytest.mark.parametrize("plant", SHOWN_BY)
def test_a_planted_fault_is_found(plant: str) -> None:
    done = run("--find", plant, "--jobs", "1", timeout=280)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
