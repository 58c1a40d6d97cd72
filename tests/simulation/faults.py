"""What goes wrong in a universe. A fault is a function of the universe that begins it; the seed
says which comes when (`Universe._plan`). A new one is a function here, and its row in `FAULTS`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.simulation.baton import Strand

if TYPE_CHECKING:
    from tests.simulation.process import Process
    from tests.simulation.universe import Universe

LEASE = 30.0
"""Seconds; as the configuration of universes says."""


def kill_at_turn(universe: Universe) -> None:
    """Kill -9 of whichever process has one of the next turns."""
    left = universe.chance.randint(1, 300)

    def watch(strand: Strand, what: str) -> bool:
        nonlocal left
        left -= 1
        if left == 0:
            universe.kill(strand.process, f"at {what} of {strand.name}")
        return left <= 0

    universe.baton.watches.append(watch)


def kill_in_transaction(universe: Universe) -> None:
    """Kill -9 between two statements of a transaction."""
    left = universe.chance.randint(1, 30)

    def watch(strand: Strand, what: str) -> bool:
        nonlocal left
        left -= what == "write"
        if left == 0:
            universe.kill(strand.process, f"within a transaction, in {strand.name}")
        return left <= 0

    universe.baton.watches.append(watch)


def terminate(universe: Universe) -> None:
    """SIGTERM: it drains, and a successor starts once it has ended."""
    process = _one(universe)
    if process is not None:
        universe.terminate(process)


def stand_still(universe: Universe) -> None:
    """SIGSTOP of one process, for up to three leases."""
    process = _one(universe)
    if process is not None:
        _stop([process], universe)


def all_stand_still(universe: Universe) -> None:
    """The machine sleeps."""
    _stop(universe.living, universe)


def _one(universe: Universe) -> Process | None:
    serving = [one for one in universe.living if one.serves and not one.stopped]
    return universe.chance.choice(serving) if serving else None


def _stop(processes: list[Process], universe: Universe) -> None:
    seconds = universe.chance.choice((0.2, 2.0, LEASE / 2, LEASE * 1.5, LEASE * 3))
    universe.faults += 1
    for process in processes:
        process.stopped = True
        universe.trace.note(process.name, "stands still for", seconds)

    def go_on() -> None:
        for process in processes:
            universe.baton.resume(process)

    universe.baton.at(universe.baton.now + seconds, go_on)


FAULTS: dict[Callable[[Universe], None], float] = {
    kill_at_turn: 5,
    kill_in_transaction: 4,
    terminate: 1,
    stand_still: 1,
    all_stand_still: 0.5,
}
"""Each, and how often it comes in comparison with the others."""
