"""Each planted fault is found within 200 universes, the one that is known to show it first.

A planted fault shows in some universes only, and those are others whenever the order of steps in
the product changes. The test then takes longer, at most some minutes, until another one shows it;
`python -m tests.simulation --find all` prints what is to stand in `SHOWN_BY`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from multiprocessing import get_context

import pytest

pytest.importorskip("greenlet")

from tests.simulation.plants import PLANTS, SHOWN_BY
from tests.simulation.test_simulation import LAST


def test_each_plant_has_its_seed() -> None:
    assert SHOWN_BY.keys() == PLANTS.keys()


def is_found(plant: str) -> bool:
    """Whether a universe shows it, the one that is known to show it first."""
    from tests.simulation.__main__ import HIDDEN, PLANTED, find, run_planted

    seed = SHOWN_BY[plant]
    # `test_simulation` runs these without the fault.
    if seed <= LAST and run_planted(seed, plant).violations:
        return True
    return HIDDEN not in find(PLANTED, plant)


@pytest.fixture(scope="module")
def look() -> Iterator[Callable[[str], bool]]:
    """`is_found`, in one process for all plants: its imports take longer than most universes."""
    from tests.simulation.__main__ import prepare  # the whole product, which no other test needs

    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONHASHSEED", "0")
        pool = get_context("spawn").Pool(1, prepare)
    with pool:
        yield lambda plant: pool.apply_async(is_found, (plant,)).get(280)


@pytest.mark.slow
@pytest.mark.parametrize("plant", SHOWN_BY)
def test_a_planted_fault_is_found(plant: str, look: Callable[[str], bool]) -> None:
    assert look(plant)
