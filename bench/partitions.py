"""What partitions cost: claims and settlements of 100 tasks, with and without.

\b
    python -m bench.partitions               100,000 tasks on SQLite and on PostgreSQL; some minutes
    python -m bench.partitions --tasks 20000

The tasks are due, of one key. They have no partition, each has one of its own, or all have the same
one; besides, each has an ordered one, or one with a limit, of its own. The queues are measured in
turns, so that all of them meet what else the machine does. The table has the medians, and what they
are times those without a partition; of the CPU, that of this process.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import click

from bench.environment.postgres import folder_for_server, queue_url, server
from bench.results.table import Table
from orchestratord.model.partition_turn import Partition
from orchestratord.model.task import Attempt, Key, NewTask, Task
from orchestratord.model.task import Table as PluginTable
from orchestratord.queue.operations import claim, effects, settle
from orchestratord.queue.records import Insert, Pick, Settlement
from orchestratord.queue.store import Store

KEY = Key("bench/post")
AT_ONCE, BATCH = 100, 2_000
ROUNDS, WARM = 150, 5

ONE, QUICK = "customer", frozenset({"customer"})
"""The one of all, which is known to be quick, as after its first attempt."""

KINDS: dict[str, Callable[[int], Partition | None]] = {
    "no partition": lambda _: None,
    "a partition for each task": lambda n: Partition(f"customer-{n}"),
    "one partition for all": lambda _: Partition(ONE),
    "an ordered one for each": lambda n: Partition(f"customer-{n}", ordered=True),
    "one with a limit for each": lambda n: Partition(f"customer-{n}", concurrency=2),
}


class Measured:
    """A queue, and what its steps took: milliseconds until done, and of CPU."""

    at_once = AT_ONCE
    """Tasks of a turn."""

    def __init__(self, name: str, store: Store) -> None:
        self.name = name
        self.store = store
        self.wall: list[float] = []
        self.cpu: list[float] = []

    async def fill(self, tasks: int) -> None:
        """Accept so many."""
        make = KINDS[self.name]
        for first in range(0, tasks, BATCH):
            new = [
                Insert(NewTask("call", KEY.endpoint_id, {"n": n}, partition=make(n)))
                for n in range(first, min(first + BATCH, tasks))
            ]
            await self.store.write(effects.enqueue(new))

    async def take_turn(self, counts: bool) -> None:
        """Claim 100, and settle them."""
        wall, cpu = time.perf_counter(), time.process_time()
        now = int(time.time() * 1000) + 1000
        pick = Pick(KEY, self.at_once, True, now, quick=QUICK)
        claimed = await self.store.write(claim.claim([pick]))
        if len(claimed.tasks) != self.at_once:
            raise RuntimeError(f"{self.name}: {len(claimed.tasks)} were claimed")
        ends = [settle.settle(_succeeded(task, now)) for task in claimed.tasks]
        settled = await asyncio.gather(*map(self.store.write, ends))
        if not all(one.accepted for one in settled):
            raise RuntimeError(f"{self.name}: a settlement was not accepted")
        if counts:
            self.wall.append((time.perf_counter() - wall) * 1000)
            self.cpu.append((time.process_time() - cpu) * 1000)


def _succeeded(task: Task, now: int) -> Settlement:
    attempt = Attempt(task.attempts, now, 1.5, 200, None, None, "succeeded")
    return Settlement(task, "succeeded", now, status_code=200, attempt=attempt, last_success_at=now)


Queue = TypeVar("Queue", bound=Measured)


async def measure(
    url: Callable[[int], str],
    tasks: int,
    kind: type[Queue],
    names: Iterable[str],
    *,
    at_once: int = AT_ONCE,
    tables: Sequence[PluginTable] = (),
) -> list[Queue]:
    """Fill a queue of each name, at the URL of its number and with these tables of plugins, and
    have them take turns, of so many tasks each."""
    queues = [
        kind(name, await Store.open(url(number), tables=tables))
        for number, name in enumerate(names)
    ]
    try:
        for queue in queues:
            queue.at_once = at_once
            await queue.fill(tasks)
        rounds = ROUNDS * AT_ONCE // at_once
        for number in range(-WARM, min(rounds, tasks // at_once - WARM)):
            for queue in queues:
                await queue.take_turn(number >= 0)
    finally:
        for queue in queues:
            await queue.store.close()
    return queues


def table_of(words: str, queues: Sequence[Measured]) -> Table:
    """Medians, and how many times those of the first one."""
    table = Table((words, "ms", "times", "ms of CPU", "times"), [])
    first = [statistics.median(times) for times in (queues[0].wall, queues[0].cpu)]
    for queue in queues:
        wall, cpu = statistics.median(queue.wall), statistics.median(queue.cpu)
        table.rows.append(
            (
                queue.name,
                f"{wall:.1f}",
                f"{wall / first[0]:.2f}",
                f"{cpu:.1f}",
                f"{cpu / first[1]:.2f}",
            )
        )
    return table


@click.command(help=__doc__)
@click.option("--tasks", default=100_000, help="of each queue")
@click.option("--sqlite", "only", flag_value="sqlite", help="only there")
@click.option("--postgres", "only", flag_value="postgres", help="only there")
def main(tasks: int, only: str | None) -> None:
    if only != "postgres":
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            place = Path(folder)
            sqlite_url = f"sqlite:///{place}/{{}}/queue.db".format
            queues = asyncio.run(measure(sqlite_url, tasks, Measured, KINDS))
        click.echo(table_of("SQLite", queues).text())
    if only != "sqlite":
        with ExitStack() as stack:
            servers = [
                stack.enter_context(server(stack.enter_context(folder_for_server()))) for _ in KINDS
            ]
            queues = asyncio.run(measure(lambda n: queue_url(servers[n]), tasks, Measured, KINDS))
        click.echo(table_of("PostgreSQL", queues).text())


if __name__ == "__main__":
    main(prog_name="python -m bench.partitions")
