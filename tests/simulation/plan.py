"""What is going to happen in a universe, step by step: calls, what people do, and faults."""

from __future__ import annotations

from collections.abc import Callable, Collection
from random import Random
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tests.simulation.universe import Universe


class Step(NamedTuple):
    """One thing that happens by itself."""

    number: int
    at: float
    """Seconds since the universe began."""
    what: str


class Plan:
    """The steps of a universe. Each draws from a stream of chance of its own: where some are left
    out, the others do what they did."""

    def __init__(self, universe: Universe, only: Collection[int] | None = None) -> None:
        """`only`: the numbers of the steps that happen; None for all."""
        self._universe = universe
        self._only = only
        self.steps: list[Step] = []
        """Those that happen, in the order in which they were planned."""
        self._number = 0

    def add(self, when: float, what: str, do: Callable[[], None]) -> None:
        """Have something done at this time of the baton."""
        universe, number = self._universe, self._number
        self._number += 1
        chance = Random(universe.chance.getrandbits(64))
        if self._only is not None and number not in self._only:
            return
        self.steps.append(Step(number, when - universe.began, what))

        def happen() -> None:
            before, universe.chance = universe.chance, chance
            try:
                do()
            finally:
                universe.chance = before

        universe.baton.at(when, happen)
