"""How long the queue's steps take, and whether that grows with the queue.

\b
    python -m bench.store               10 thousand and 1 million rows; half a minute
    python -m bench.store --large       10 million as well; two minutes more, and 3 GB of disk

Half of a table's rows are of tasks that have succeeded, a tenth is due in one key whose lane is
full, and the rest waits in 10,000 other keys; in one table, a million is due in the full one. What
is claimed and settled was queued last, or at all times.
"""

from __future__ import annotations

import asyncio
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from bench.measures.fill import FULL, SPLITS, Filling, fill
from bench.results.table import Table, insert
from orchestratord.model.task import Attempt, Key, Status, Task
from orchestratord.queue.operations import claim, settle
from orchestratord.queue.records import Pick, Settlement
from orchestratord.queue.store import Store

AT_ONCE = 100
"""Rows that are claimed, and then settled, at once."""
WARM = 1
"""Rounds that do not count."""
ROUNDS = 16
ROUNDS_OF_FULL = 3
"""The full key of the smallest table has no more."""
DUE = len(SPLITS) * AT_ONCE * (WARM + ROUNDS)

SIZES = {"10 thousand": 10_000, "1 million": 1_000_000}
LARGE = {"10 million": 10_000_000}


def fillings(large: bool) -> Iterator[Filling]:
    """The tables that are made."""
    sizes = {**SIZES, **(LARGE if large else {})}
    for words, rows in sizes.items():
        yield Filling(f"{words} rows", rows, DUE, together=True)
    yield Filling(
        "1 million due in the full lane", 1_000_000 + DUE, DUE, together=True, all_full=True
    )
    for words, rows in sizes.items():
        yield Filling(f"{words}, what is due spread evenly", rows, DUE)


class Times:
    """What each step took, in the order in which they stand in the table."""

    def __init__(self) -> None:
        self.wall: dict[str, list[float]] = {}
        """Milliseconds until it was done."""
        self.cpu: dict[str, list[float]] = {}
        """Milliseconds of CPU, of all threads."""

    @contextmanager
    def step(self, name: str, counts: bool = True) -> Iterator[None]:
        """Take the time of what happens inside; one that does not `count` is not noted."""
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        if counts:
            self.wall.setdefault(name, []).append((time.perf_counter() - wall) * 1000)
            self.cpu.setdefault(name, []).append((time.process_time() - cpu) * 1000)


async def measure(folder: Path, filling: Filling) -> Times:
    """Fill a queue in an empty folder, and take the time of each step."""
    url = f"sqlite:///{folder}/queue.db"
    await (await Store.open(url)).close()
    fill(folder / "queue.db", filling)
    times = Times()
    with times.step("open"):
        store = await Store.open(url)
    try:
        with times.step("first due of each key"):
            keys = await store.read(claim.earliest())
        if FULL not in keys:
            raise RuntimeError(f"the full key is not among the {len(keys)} with pending tasks")
        for split in SPLITS:
            picked = [Key(f"split{split}/key{number}") for number in range(split)]
            await _claims(store, times, f"claim 100 of {split} key{'s' * (split > 1)}", picked)
        await _claims(store, times, "claim 100 of the full key", [FULL], rounds=ROUNDS_OF_FULL)
    finally:
        await store.close()
    return times


async def _claims(
    store: Store, times: Times, step: str, keys: list[Key], rounds: int = ROUNDS
) -> None:
    for number in range(-WARM, rounds):
        now = int(time.time() * 1000)
        picks = [Pick(key, AT_ONCE // len(keys), True, now) for key in keys]
        with times.step(step, counts=number >= 0):
            claimed = await store.write(claim.claim(picks))
        # Keys that are claimed in step leave a few behind.
        if not AT_ONCE // 2 <= len(claimed.tasks) <= AT_ONCE:
            raise RuntimeError(f"{step}: {len(claimed.tasks)} were claimed")
        settlements = [_succeeded(task, now) for task in claimed.tasks]
        with times.step("settle 100", counts=number >= 0):
            settled = await asyncio.gather(*map(store.write, map(settle.settle, settlements)))
        if not all(result.accepted for result in settled):
            raise RuntimeError("a settlement was not accepted")


def _succeeded(task: Task, now: int) -> Settlement:
    return Settlement(
        task=task,
        status=Status.SUCCEEDED,
        at=now,
        status_code=200,
        response='{"status_code":200,"headers":[["content-length","0"]]}',
        attempt=Attempt(task.attempts, now, 1.5, 200, None, None, "succeeded"),
        max_attempts=15,
    )


@click.command(help=__doc__)
@click.option("--large", is_flag=True, help="a table of 10 million rows as well")
@click.option(
    "--markdown",
    type=click.Path(path_type=Path, dir_okay=False),
    help="write the tables into this page, between its two marks",
)
def main(large: bool, markdown: Path | None) -> None:
    tables = {"ms until done": Table((), []), "ms of CPU": Table((), [])}
    for filling in fillings(large):
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            times = asyncio.run(measure(Path(folder), filling))
        for (what, table), steps in zip(tables.items(), (times.wall, times.cpu), strict=True):
            medians = (f"{statistics.median(values):.2f}" for values in steps.values())
            table.head = (f"{what}, medians", *steps)
            table.rows.append((filling.name, *medians))
    click.echo("\n\n".join(made.text() for made in tables.values()))
    if markdown is not None:
        command = shlex.join(["python", "-m", "bench.store", *sys.argv[1:]])
        parts = [f"`{command}`:", *(made.markdown() for made in tables.values())]
        insert(markdown, "bench.store", "\n\n".join(parts))


if __name__ == "__main__":
    main(prog_name="python -m bench.store")
