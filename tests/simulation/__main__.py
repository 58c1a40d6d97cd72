"""`python -m tests.simulation`: see the README beside it."""

from __future__ import annotations

import os
import sys

if __name__ == "__main__" and os.environ.get("PYTHONHASHSEED") != "0":
    os.environ["PYTHONHASHSEED"] = "0"  # the order of sets of texts is a part of the universe
    os.execv(sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]])

import argparse
import gc
import logging
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from functools import cache, partial
from itertools import islice
from typing import Any, NamedTuple

from orchestratord.plugin import host
from tests.simulation.plants import PLANTS, SHOWN_BY
from tests.simulation.shrink import shrink
from tests.simulation.universe import Universe, run

CAMPAIGN = range(1, 10_001)
"""The seeds of a campaign."""
PLANTED = range(1, 201)
"""Those within which each planted fault is found."""
RENEWED = 250
"""Universes that a process runs."""
LARGE = "60 tasks or more, eight faults or more and two owners or more"
Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]
"""`map`, by several processes where there are."""


class Told(NamedTuple):
    """What is told of a universe."""

    seed: int
    violations: list[str]
    tasks: int
    faults: int
    owners: int
    digest: str
    took: float

    @property
    def large(self) -> bool:
        """Whether it counts as `LARGE`."""
        return self.tasks >= 60 and self.faults >= 8 and self.owners >= 2


def run_planted(seed: int, plant: str | None, only: Collection[int] | None = None) -> Universe:
    """Run a universe with a planted fault, or without one for None."""
    with nullcontext() if plant is None else PLANTS[plant]():
        return run(seed, only)


def tell(plant: str | None, seed: int, only: Collection[int] | None = None) -> Told:
    """Run a universe, and tell of it."""
    began = time.process_time()
    universe = run_planted(seed, plant, only)
    owners, digest = len(universe.processes), universe.trace.digest()
    took = time.process_time() - began
    return Told(seed, universe.violations, universe.tasks, universe.faults, owners, digest, took)


def prepare() -> None:
    """What is the same for all universes of a process."""
    import importlib.metadata as metadata

    logging.disable(logging.CRITICAL)
    metadata.version = cache(metadata.version)
    # Whether plugins are written as they should be is no question of time.
    host._check_hooks = lambda plugin: None  # type: ignore[assignment]
    gc.freeze()  # what is there now is no garbage of a universe


def mapping(jobs: int) -> Map:
    """`map` by so many processes, which are others after a while: each universe leaves some of
    the memory behind that it took."""
    if jobs == 1:
        return map

    def by_processes(do: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        left = iter(items)
        while some := list(islice(left, jobs * RENEWED)):
            with ProcessPoolExecutor(jobs, initializer=prepare) as pool:
                yield from pool.map(do, some)

    return by_processes


def run_seeds(seeds: Iterable[int], plant: str | None, each: Map, digests: bool = False) -> bool:
    """Tell of these universes; whether one shows a violation."""
    began, all_told = time.perf_counter(), list[Told]()
    for told in each(partial(tell, plant), seeds):
        all_told.append(told)
        for violation in told.violations:
            print(f"{told.seed}: {violation}", flush=True)
        if digests:
            print(told.seed, told.digest, told.tasks, told.faults, told.owners, f"{told.took:.3f}")
    count, took = len(all_told), time.perf_counter() - began
    tasks, faults = sum(one.tasks for one in all_told), sum(one.faults for one in all_told)
    large = sum(one.large for one in all_told)
    print(
        f"{count} universes in {took:.1f} s, {tasks:,} tasks, {faults:,} faults; "
        f"{large} of them ({large / count:.0%}) have {LARGE}",
        flush=True,
    )
    return any(one.violations for one in all_told)


@cache
def is_clean(seed: int) -> bool:
    """Whether a universe shows nothing without a planted fault."""
    return not run(seed).violations


def find(seeds: Collection[int], name: str) -> str:
    """Run a planted fault until a seed shows it that is clean without it, beginning with the one
    that is known to; a line of `SHOWN_BY` for it."""
    known = SHOWN_BY.get(name, 0)
    for seed in sorted(seeds, key=lambda seed: seed != known):
        violations = run_planted(seed, name).violations
        if violations and is_clean(seed):
            return f'    "{name}": {seed},  # {violations[0]}'[:100]
    return f"    # {name}: {HIDDEN} {len(seeds)}"


HIDDEN = "shown by none of"


def run_plants(plants: Iterable[str], seeds: Collection[int], each: Map) -> bool:
    """Run each of these planted faults over these seeds until one shows it; whether none shows one.
    What is printed can stand in `SHOWN_BY`."""
    hidden = False
    for line in each(partial(find, seeds), plants):
        print(line, flush=True)
        hidden = hidden or HIDDEN in line
    return hidden


def run_campaign(each: Map) -> bool:
    """Run the seeds of a campaign, then each planted fault over its own; whether a universe shows a
    violation, or none shows a planted fault."""
    wrong = run_seeds(CAMPAIGN, None, each)
    return run_plants(PLANTS, PLANTED, each) or wrong


def tell_story(seed: int, plant: str | None, only: Collection[int] | None) -> bool:
    """Print what happens in a universe; whether it shows a violation."""
    universe = run_planted(seed, plant, only)
    print(f"universe {seed}: {universe.story}", *universe.trace.lines(), sep="\n")
    print(*(universe.violations or ["no violation"]), sep="\n")
    return bool(universe.violations)


def shrink_universe(seed: int, plant: str | None, each: Map) -> bool:
    """Print the fewest steps of a universe that show its first violation; whether it has one."""
    universe = run_planted(seed, plant)
    if not universe.violations:
        print(f"universe {seed} shows no violation")
        return False
    steps, first = universe.plan.steps, universe.violations[0]
    print(f"universe {seed}, {len(steps)} steps: {first}", flush=True)

    def fails(parts: Sequence[Sequence[int]]) -> Iterator[bool]:
        for told in each(partial(tell, plant, seed), parts):
            yield _kind(first) in map(_kind, told.violations)

    left = shrink(
        [step.number for step in steps],
        fails,
        lambda count: print(f"{count} steps are left", file=sys.stderr, flush=True),
    )
    for step in sorted(steps, key=lambda step: step.at):
        if step.number in left:
            print(f"{step.at:10.3f} s  {step.what}")
    numbers = ",".join(map(str, left))
    planted = f" --plant {plant}" if plant is not None else ""
    print(f"python -m tests.simulation --trace {seed}{planted} --only {numbers}")
    return True


def _kind(violation: str) -> str:
    """A violation without its numbers, by which it is known again in a smaller universe."""
    return re.sub(r"\d[\d.,]*", "N", violation)


def _seeds(text: str) -> range:
    first, _, last = text.partition(":")
    return range(int(first), int(last or first) + 1)


def _numbers(text: str) -> frozenset[int]:
    return frozenset(map(int, text.split(",")))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--seeds", type=_seeds, metavar="A:B", help="run these, one line a violation; exit 1 if any"
    )
    what.add_argument("--trace", type=int, metavar="N", help="tell this universe step by step")
    what.add_argument(
        "--shrink", type=int, metavar="N", help="the fewest steps of it that still show what is"
    )
    what.add_argument(
        "--campaign", action="store_true", help="10,000 universes, then all planted faults"
    )
    what.add_argument(
        "--find", metavar="NAME", help="a seed of 1:200 that shows this planted fault; all: each"
    )
    parser.add_argument("--plant", metavar="NAME", help="with a planted fault: exit 1 is wanted")
    parser.add_argument("--only", type=_numbers, metavar="N,N,…", help="with these steps alone")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--digests", action="store_true", help="print what tells traces apart")
    asked = parser.parse_args()
    if not {asked.plant, asked.find} <= {None, "all", *PLANTS} or asked.plant == "all":
        print("known plants:", *sorted(PLANTS), sep="\n", file=sys.stderr)
        return 2
    prepare()
    if asked.trace is not None:
        return int(tell_story(asked.trace, asked.plant, asked.only))
    each = mapping(asked.jobs)
    if asked.shrink is not None:
        return int(shrink_universe(asked.shrink, asked.plant, each))
    if asked.campaign:
        return int(run_campaign(each))
    if asked.find is not None:
        return int(run_plants(PLANTS if asked.find == "all" else [asked.find], PLANTED, each))
    return int(run_seeds(asked.seeds, asked.plant, each, asked.digests))


if __name__ == "__main__":
    sys.exit(main())
