"""Each planted fault, with a seed that is known to show it.

A planted fault shows in some universes only, and those are others whenever what universes are made
of changes. Where one no longer shows, `python -m tests.simulation --plant all --seeds 1:200` finds
a seed for each.
"""

from __future__ import annotations

import pytest

pytest.importorskip("greenlet")

from tests.simulation.plants import PLANTS
from tests.simulation.test_simulation import run

SHOWN_BY: dict[str, int] = {
    "acknowledged-and-not-written": 2,
    "acknowledged-before-the-commit": 4,
    "batch-member-that-is-told-twice": 8,
    "brought-forward-before-its-floor": 5,
    "bulk-that-counts-twice": 2,
    "clock-whose-times-stay": 2,
    "count-off-by-one-after-a-kill": 15,
    "delivery-of-another-phase": 2,
    "effect-that-is-lost": 2,
    "effect-that-is-written-twice": 2,
    "key-that-is-not-looked-up": 3,
    "lock-that-two-hold": 8,
    "one-more-than-its-concurrency": 2,
    "order-that-is-not-kept": 4,
    "post-that-is-sent-again": 2,
    "reload-that-drops-what-waits": 13,
    "retention-that-removes-what-waits": 2,
    "run-end-that-is-told-twice": 2,
    "run-that-ends-before-its-last-call": 2,
    "settlement-that-is-not-repeated": 7,
    "slot-that-is-fired-twice": 5,
    "slot-that-is-not-given-back": 2,
    "start-committed-and-not-sent": 2,
    "success-that-nobody-answered": 2,
    "sync-that-is-left-out": 8,
    "take-over-does-nothing": 2,
    "token-that-is-not-given-back": 2,
}
"""None of these shows anything without its plant."""


def test_no_seed_is_of_a_plant_that_is_gone() -> None:
    assert SHOWN_BY.keys() <= PLANTS.keys()


@pytest.mark.campaign
@pytest.mark.parametrize("plant", SHOWN_BY)
def test_a_planted_fault_is_found(plant: str) -> None:
    done = run("--plant", plant, "--seeds", str(SHOWN_BY[plant]), "--jobs", "1")
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr == ""
