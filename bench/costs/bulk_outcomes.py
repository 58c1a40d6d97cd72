"""What it costs that bulks count how it went: claims and settlements of 100 tasks.

\b
    python -m bench.costs.bulk_outcomes                  100,000 tasks on both databases; minutes
    python -m bench.costs.bulk_outcomes --tasks 20000

The tasks are due, of one key; a bulk has moved all of them, or none. The queues are measured in
turns, as `bench.partitions` does it. Besides, how long it takes to move them all, and to count
those that wait.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import click

from bench.environment.postgres import folder_for_server, queue_url, server
from bench.partitions import BATCH, Measured, measure, table_of
from orchestratord.model.task import NewTask
from orchestratord.queue.operations import bulk, effects
from orchestratord.queue.records import RETRY, Insert, TaskFilter

MOVED = "moved by a bulk"
BULKS = ("no bulk", MOVED)
STEP = 200
"""Tasks that a bulk moves in one transaction, as the daemon does it."""


class MovedQueue(Measured):
    """A queue whose tasks a bulk has moved, or none."""

    seconds = counting = 0.0

    async def fill(self, tasks: int) -> None:
        """Accept so many, and have them moved."""
        for first in range(0, tasks, BATCH):
            numbers = range(first, min(first + BATCH, tasks))
            new = [Insert(NewTask("call", "bench/post", {"n": n})) for n in numbers]
            await self.store.write(effects.enqueue(new))
        began = time.perf_counter()
        if self.name == MOVED:
            await self._move()
            self.seconds = time.perf_counter() - began
            began = time.perf_counter()
            await self.store.read(bulk.get(1))
            self.counting = (time.perf_counter() - began) * 1000

    async def _move(self) -> None:
        survey = await self.store.read(bulk.survey(TaskFilter(status=("pending",))))
        made = await self.store.write(bulk.create(RETRY, survey, None, stop_after=10))
        while made.status == "running":
            made, _ = await bulk.step(self.store, made.id, STEP)


def _tell(words: str, queues: list[MovedQueue]) -> None:
    click.echo(table_of(words, list(queues)).text())
    one = queues[1]
    click.echo(f"{words}: moved in {one.seconds:.1f} s, counted in {one.counting:.1f} ms")


@click.command(help=__doc__)
@click.option("--tasks", default=100_000, help="of each queue")
@click.option("--sqlite", "only", flag_value="sqlite", help="only there")
@click.option("--postgres", "only", flag_value="postgres", help="only there")
def main(tasks: int, only: str | None) -> None:
    if only != "postgres":
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            place = Path(folder)
            sqlite_url = f"sqlite:///{place}/{{}}/q.db".format
            _tell("SQLite", asyncio.run(measure(sqlite_url, tasks, MovedQueue, BULKS)))
    if only != "sqlite":
        with ExitStack() as stack:
            servers = [
                stack.enter_context(server(stack.enter_context(folder_for_server()))) for _ in BULKS
            ]
            queues = measure(lambda n: queue_url(servers[n]), tasks, MovedQueue, BULKS)
            _tell("PostgreSQL", asyncio.run(queues))


if __name__ == "__main__":
    main(prog_name="python -m bench.costs.bulk_outcomes")
