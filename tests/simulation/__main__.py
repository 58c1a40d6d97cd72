"""`python -m tests.simulation`: see docs/explanation/simulation.md."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import cache
from typing import NamedTuple

from orchestratord.plugin import host
from tests.simulation.plants import PLANTS
from tests.simulation.universe import run


class Told(NamedTuple):
    """What is told of a universe."""

    seed: int
    violations: list[str]
    tasks: int
    faults: int
    owners: int
    digest: str
    took: float


def tell(seed: int) -> Told:
    """Run a universe, and tell of it."""
    began = time.process_time()
    universe = run(seed)
    return Told(
        seed,
        universe.violations,
        len(universe.calls),
        universe.faults,
        len(universe.processes),
        universe.trace.digest(),
        time.process_time() - began,
    )


PLANTED = ExitStack()
"""What is planted, for as long as this process lives."""


def prepare(plant: str | None = None) -> None:
    """What is the same for all universes of a process."""
    import importlib.metadata as metadata

    logging.disable(logging.CRITICAL)
    metadata.version = cache(metadata.version)
    if plant is not None:
        PLANTED.enter_context(PLANTS[plant]())
    # Whether plugins are written as they should be is no question of time.
    host._check_hooks = lambda plugin: None  # type: ignore[assignment]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seeds", help="FIRST:LAST")
    parser.add_argument("--trace", type=int, help="tell this universe step by step")
    parser.add_argument("--plant", help="with a planted fault; exit 1 is what is wanted then")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--digests", action="store_true", help="print what tells traces apart")
    asked = parser.parse_args()
    if asked.plant is not None and asked.plant not in PLANTS:
        print("known plants:", *sorted(PLANTS), sep="\n", file=sys.stderr)
        return 2
    if asked.trace is not None:
        prepare(asked.plant)
        universe = run(asked.trace)
        print(*universe.trace.lines(), sep="\n")
        return 1 if universe.violations else 0
    first, _, last = asked.seeds.partition(":")
    seeds = range(int(first), int(last or first) + 1)
    began, all_told = time.perf_counter(), []
    with ProcessPoolExecutor(asked.jobs, initializer=prepare, initargs=(asked.plant,)) as pool:
        for told in pool.map(tell, seeds):
            all_told.append(told)
            for violation in told.violations:
                print(f"{told.seed}: {violation}", flush=True)
            if asked.digests:
                print(
                    told.seed, told.digest, told.tasks, told.faults, told.owners, f"{told.took:.3f}"
                )
    took = time.perf_counter() - began
    large = sum(one.tasks >= 60 and one.faults >= 8 and one.owners >= 2 for one in all_told)
    print(
        f"{len(all_told)} universes in {took:.1f} s, {sum(one.tasks for one in all_told)} calls, "
        f"{sum(one.faults for one in all_told)} faults; {large} of them with 60 tasks, 8 faults "
        "and 2 owners or more"
    )
    return 1 if any(one.violations for one in all_told) else 0


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.environ["PYTHONHASHSEED"] = "0"  # the order of sets of texts is a part of the universe
        os.execv(sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]])
    sys.exit(main())
