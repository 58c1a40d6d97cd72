"""What one task costs in the store alone: instructions, and CPU time, of each of its steps.

\b
    python -m bench.costs.store_task             on SQLite, under valgrind; a minute
    python -m bench.costs.store_task --postgres  on PostgreSQL: the daemon's part of it
    python -m bench.costs.store_task --at-once 20

Calls of one endpoint are accepted in batches of 400, claimed so many at once as a daemon does
it, and settled together. Instructions are those of the whole process, without the kernel's part,
which are the same on a machine that is busy. They are counted up to each
step, and for few tasks and for many: the differences leave out the start and the end. CPU time has
the kernel's part too, and is taken without valgrind.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import click

from bench.environment.folder import install_debian
from bench.environment.postgres import folder_for_server, queue_url, server
from bench.results.table import Table
from orchestratord.model.task import Attempt, Key, NewTask, Task
from orchestratord.queue.operations import claim, effects, settle
from orchestratord.queue.records import Insert, Pick, Settlement
from orchestratord.queue.store import Store

KEY = Key("bench/post")
STEPS = ("accept", "claim", "settle")
FEW, MANY = 400, 1_600
TIMED = 8_000
BATCH = 400
PARAMS = {"number": 0, "text": "x" * 1000}


async def run(url: str, count: int, steps: int, at_once: int) -> list[float]:
    """Have so many tasks go so many steps; CPU seconds of each."""
    store = await Store.open(url)
    spent = []
    try:
        began = time.process_time()
        for first in range(0, count, BATCH):
            new = [
                Insert(NewTask("call", KEY.endpoint_id, PARAMS | {"number": n}))
                for n in range(first, min(first + BATCH, count))
            ]
            await store.write(effects.enqueue(new))
        spent.append(time.process_time() - began)
        claimed: list[Task] = []
        now = int(time.time() * 1000) + 1000
        if steps > 1:
            began = time.process_time()
            while len(claimed) < count:
                pick = Pick(KEY, at_once, False, now)
                claimed += (await store.write(claim.claim([pick]))).tasks
            spent.append(time.process_time() - began)
        if steps > 2:
            began = time.process_time()
            for first in range(0, count, at_once):
                ends = [settle.settle(_ended(t, now)) for t in claimed[first : first + at_once]]
                for settled in await asyncio.gather(*map(store.write, ends)):
                    assert settled.accepted
            spent.append(time.process_time() - began)
    finally:
        await store.close()
    return spent


def _ended(task: Task, now: int) -> Settlement:
    return Settlement(
        task=task,
        status="succeeded",
        at=now,
        status_code=200,
        response='{"status_code":200,"headers":[["content-length","2"]],"body":"ok"}',
        attempt=Attempt(task.attempts, now, 1.5, 200, None, None, "succeeded"),
        max_attempts=15,
        last_success_at=now,
    )


def _queue(stack: ExitStack, postgres: bool) -> str:
    """The URL of a new queue."""
    if postgres:
        return queue_url(stack.enter_context(server(stack.enter_context(folder_for_server()))))
    return f"sqlite:///{stack.enter_context(tempfile.TemporaryDirectory(prefix='bench-'))}/q.db"


def _command(url: str, count: int, steps: int, at_once: int) -> list[str]:
    options = (f"--url={url}", f"--count={count}", f"--steps={steps}", f"--at-once={at_once}")
    return [sys.executable, "-m", "bench.costs.store_task", *options]


def executed(postgres: bool, count: int, steps: int, at_once: int) -> int:
    """Instructions of a process that does so many tasks up to a step."""
    with ExitStack() as stack:
        url = _queue(stack, postgres)
        found = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "counted"
        valgrind = ["valgrind", "-q", "--tool=cachegrind", "--cache-sim=no",
                    f"--cachegrind-out-file={found}"]  # fmt: skip
        subprocess.run([*valgrind, *_command(url, count, steps, at_once)], check=True)  # noqa: S603
        summary = re.search(r"^summary: (\d+)", found.read_text(), re.MULTILINE)
    assert summary is not None
    return int(summary[1])


@click.command(help=__doc__)
@click.option("--postgres", is_flag=True)
@click.option("--at-once", default=40, help="tasks that are claimed, and settled, at once")
@click.option("--url", help="only do the steps there, and print nothing", hidden=True)
@click.option("--count", default=TIMED, hidden=True)
@click.option("--steps", default=len(STEPS), hidden=True)
def main(postgres: bool, at_once: int, url: str | None, count: int, steps: int) -> None:
    if url is not None:
        asyncio.run(run(url, count, steps, at_once))
        return
    install_debian({"valgrind": ("valgrind", "/usr/bin")})
    few = executed(postgres, FEW, 1, at_once)
    many = [executed(postgres, MANY, number, at_once) for number in range(1, len(STEPS) + 1)]
    each = [(many[0] - few) // (MANY - FEW)]
    each += [(after - before) // MANY for before, after in pairwise(many)]
    with ExitStack() as stack:
        spent = asyncio.run(run(_queue(stack, postgres), TIMED, len(STEPS), at_once))
    table = Table((f"a task, {at_once} at once", "instructions", "µs of CPU"), [])
    for name, count, seconds in zip(STEPS, each, spent, strict=True):
        table.rows.append((name, f"{count:,}", f"{seconds / TIMED * 1e6:.1f}"))
    table.rows.append(("all", f"{sum(each):,}", f"{sum(spent) / TIMED * 1e6:.1f}"))
    click.echo(table.text())


if __name__ == "__main__":
    main(prog_name="python -m bench.costs.store_task")
