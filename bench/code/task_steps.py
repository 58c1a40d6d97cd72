"""How many instructions a task takes in the queue and in the lanes, to within three in a thousand.

\b
    python -m bench.code.task_steps                        of this checkout
    python -m bench.code.task_steps --against CHECKOUT     and of another one, and what is more here
    python -m bench.code.task_steps --postgres             the client's part of PostgreSQL, instead

A hundred calls of one endpoint are accepted, claimed and settled, each step in one transaction, and
go through a slot of their lane; nothing is sent. valgrind counts that for few rounds and for many.
Nothing depends on the time, so that it finds what `bench.code.instructions` does not: how much a
column, an index or a test more costs each task. The other checkout is one in which something was
taken out, or the one before it came.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from bench.environment.folder import install_debian
from bench.environment.postgres import queue_url, server
from orchestratord.engine.lanes.lane_set import LaneSet
from orchestratord.model.task import Attempt, Key, NewTask, Task
from orchestratord.queue.batch import Rank, Write
from orchestratord.queue.operations import claim, effects, settle
from orchestratord.queue.records import Insert, Pick, Settlement
from orchestratord.queue.store import Store

ROOT = Path(__file__).parents[2]
KEY, LANE = Key("bench/post"), "api:bench"
AT_ONCE = 100
FEW, MANY = 4, 64
"""Rounds."""
PARAMS = {"number": 7, "text": "x" * 1000}
RESPONSE = '{"status_code":200,"headers":[["content-length","0"]]}'


async def round_trip(store: Store, lanes: LaneSet) -> None:
    """Bring a hundred calls from their acceptance to their end."""
    calls = [NewTask("call", KEY.endpoint_id, PARAMS) for _ in range(AT_ONCE)]
    await _together(store, [effects.enqueue([Insert(call)]) for call in calls])
    now = int(time.time() * 1000) + 1000
    lanes.touch(KEY, now)
    [choice] = lanes.choose(now)
    pick = Pick(choice.key, choice.limit, True, now, choice.lane)
    [claimed] = await _together(store, [claim.claim([pick])])
    lanes.answered(choice, len(claimed.tasks), None)
    if len(claimed.tasks) != AT_ONCE:
        raise RuntimeError(f"{len(claimed.tasks)} were claimed")
    lanes.begin(LANE, claimed.tasks, now)
    for task in claimed.tasks:
        lanes.ended()
        lanes.release_slot(LANE, task, now)
    settled = await _together(store, [settle.settle(_end(task, now)) for task in claimed.tasks])
    if not all(one.accepted for one in settled):
        raise RuntimeError("a settlement was not accepted")
    for _ in claimed.tasks:
        lanes.settled()


async def _together(store: Store, operations: list[Write[Any]]) -> list[Any]:
    """Write all of these in one transaction, after one in which the writer waits for the last."""
    all_there = threading.Event()
    first = store.write(Write(Rank.SETTLE, lambda _: all_there.wait()))
    waiting = [asyncio.ensure_future(one) for one in (first, *map(store.write, operations))]
    await asyncio.sleep(0)
    all_there.set()
    return (await asyncio.gather(*waiting))[1:]


def _end(task: Task, now: int) -> Settlement:
    return Settlement(
        task, "succeeded", now, status_code=200, response=RESPONSE, last_success_at=now,
        attempt=Attempt(task.attempts, now, 1.5, 200, None, None, "succeeded"),
    )  # fmt: skip


async def inside(url: str, rounds: int) -> None:
    """What is counted: so many rounds, in an empty queue."""
    lanes = LaneSet(4 * AT_ONCE)  # a new lane has a quarter at first
    lanes.place(KEY, LANE, AT_ONCE, alone=True)
    store = await Store.open(url)
    for _ in range(rounds):
        await round_trip(store, lanes)
    await store.close()


def counted(checkout: Path, postgres: bool) -> int:
    """Instructions for a task, by the code of a checkout."""
    _run(checkout, postgres, 1)  # which compiles what has changed
    few, many = (_executed(checkout, postgres, rounds) for rounds in (FEW, MANY))
    return (many - few) // ((MANY - FEW) * AT_ONCE)


def _executed(checkout: Path, postgres: bool, rounds: int) -> int:
    with tempfile.TemporaryDirectory(prefix="bench-") as home:
        found = Path(home) / "counted"
        valgrind = "valgrind", "--tool=cachegrind", "--cache-sim=no"
        _run(checkout, postgres, rounds, *valgrind, f"--cachegrind-out-file={found}")
        summary = re.search(r"^summary: (\d+)", found.read_text(), re.MULTILINE)
    assert summary is not None
    return int(summary[1])


def _run(checkout: Path, postgres: bool, rounds: int, *wrapper: str) -> None:
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        url = f"sqlite:///{home}/queue.db"
        if postgres:
            url = queue_url(stack.enter_context(server()))
        environ = {
            **os.environ, "PYTHONPATH": f"{checkout}:{checkout / 'plugins'}", "PYTHONHASHSEED": "0",
        }  # fmt: skip
        command = [sys.executable, "-P", __file__, "--inside", url, str(rounds)]
        ran = subprocess.run([*wrapper, *command], env=environ, capture_output=True, text=True)  # noqa: S603
        if ran.returncode:
            raise click.ClickException(ran.stderr[-2000:])


@click.command(help=__doc__)
@click.option(
    "--against",
    type=click.Path(path_type=Path, exists=True, file_okay=False, resolve_path=True),
    help="another checkout",
)
@click.option("--postgres", is_flag=True, help="the client's part of PostgreSQL")
def main(against: Path | None, postgres: bool) -> None:
    install_debian({"valgrind": ("valgrind", "/usr/bin")})
    here = counted(ROOT, postgres)
    click.echo(f"{here:,} instructions for a task")
    if against is not None:
        there = counted(against, postgres)
        click.echo(f"{there:,} in {against}")
        click.echo(f"{here - there:,} more here: {here / there:.3f} times")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        asyncio.run(inside(sys.argv[2], int(sys.argv[3])))
    else:
        main(prog_name="python -m bench.code.task_steps")
