"""What it costs that calls belong to a run: 100,000 that follow from one, with and without.

\b
    python -m bench.measures.run_cost                   100,000 tasks, some minutes
    python -m bench.measures.run_cost --tasks 20000 --rounds 1

One call answers with a list, and `then` makes a call of each of its items, which the daemon sends
to an nginx: all of that counts, from the first request to the last task that is done. In the other
daemon a plugin has the child tasks belong to no run. Below it, the claims and settlements of 100
tasks alone, on both databases.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import click

from bench.environment.daemon import CONCURRENCY, daemon, succeeded
from bench.environment.postgres import folder_for_server, queue_url, server
from bench.environment.servers import Nginx
from bench.measures.drain import Drained, drain
from bench.partitions import AT_ONCE, BATCH, KEY, ROUNDS, WARM, Measured, table_of
from bench.results.table import Table
from orchestratord.model.task import NewTask
from orchestratord.queue.operations import claim, effects, settle
from orchestratord.queue.records import Insert, Pick, Settlement
from orchestratord.queue.store import Store
from tests.acceptance.receiver import Answer, Receiver

WITHOUT = """
from orchestratord.engine import phase_hooks
from orchestratord.engine.attempt import pipe
from orchestratord.engine.settle import attempt_ends

for module in (attempt_ends, phase_hooks, pipe):
    module.run_of = lambda task: None
pipe.begins_run = lambda task, items: False
"""
"""A plugin that leaves runs out."""
KINDS = ("no run", "one run of all")


def drained(home: Path, nginx: Nginx, tasks: int, *, in_run: bool) -> Drained:
    """Have a daemon make so many calls that follow from one, and send them."""
    with ExitStack() as stack:
        receiver = stack.enter_context(Receiver())
        receiver.on("/list", Answer(200, json.dumps([*range(tasks)])))
        made = stack.enter_context(
            daemon(home, concurrency=2 * CONCURRENCY, plugins={"dirs": ["plugins"]})
        )
        (made.config / "plugins").mkdir(parents=True)
        if not in_run:
            made.plugin("without", WITHOUT)
        made.api("bench", nginx.url(), concurrency=CONCURRENCY)
        made.endpoint("bench/post", "/", method="POST", idempotent=True,
                      params={"number": {"type": "integer"}})  # fmt: skip
        made.api("store", receiver.url, max_response="16MiB")
        follows = {"call": "bench/post", "each": "body", "params": {"number": "item"}}
        made.endpoint("store/list", "/list", then=[follows])
        made.start()
        root = made.call("store/list")
        result = drain(nginx, tasks, lambda: tasks + 1 - succeeded(made), [made.pid])
        run = made.get(f"/v1/runs/{root}", limit=1).json()
        if in_run and (run["end"], run["counts"]["succeeded"]) != (1, tasks + 1):
            raise RuntimeError(f"the run did not end: {json.dumps(run)}")
        made.stop()
    return result


class InRun(Measured):
    """A queue whose tasks belong to one run, or to none."""

    async def fill(self, tasks: int) -> None:
        """Accept so many, as what follows from one task."""
        await self.store.write(effects.enqueue([Insert(NewTask("call", KEY.endpoint_id))]))
        [root] = (await self.store.write(claim.claim([Pick(KEY, 1, True, 1 << 50)]))).tasks
        in_run = self.name != KINDS[0]
        run_id = root.id if in_run else None
        child = Insert(NewTask("call", KEY.endpoint_id, parent_id=root.id), run_id=run_id)
        end = Settlement(root, "succeeded", root.created_at, begins_run=in_run, effects=(child,))
        await self.store.write(settle.settle(end))
        for first in range(1, tasks, BATCH):
            new = [child] * min(BATCH, tasks - first)
            await self.store.write(effects.enqueue(new))


async def measure(url: Callable[[int], str], tasks: int) -> list[Measured]:
    """Fill both queues, at the URLs of their numbers, and have them take turns."""
    queues: list[Measured] = [
        InRun(name, await Store.open(url(number))) for number, name in enumerate(KINDS)
    ]
    try:
        for queue in queues:
            await queue.fill(tasks)
        for number in range(-WARM, min(2 * ROUNDS, tasks // AT_ONCE - WARM)):
            for queue in queues[:: 1 if number % 2 else -1]:
                await queue.take_turn(number >= 0)
    finally:
        for queue in queues:
            await queue.store.close()
    return queues


@click.command(help=__doc__)
@click.option("--tasks", default=100_000, help="of a run")
@click.option("--rounds", default=3, help="of each daemon, one after the other")
def main(tasks: int, rounds: int) -> None:
    made: dict[str, list[Drained]] = {name: [] for name in KINDS}
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        nginx = stack.enter_context(Nginx(home / "nginx"))
        for number in range(rounds):
            for name in KINDS[:: 1 if number % 2 else -1]:
                place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="b-")))
                made[name].append(drained(place, nginx, tasks, in_run=name != KINDS[0]))
    head = ("a daemon, medians", "tasks a second", "times", "ms of CPU for 1,000", "times")
    table = Table(head, [])
    first: list[float] = []
    for name, results in made.items():
        rate = statistics.median(one.rate for one in results)
        cpu = statistics.median(one.cpu for one in results) * 1000
        first = first or [rate, cpu]
        table.rows.append(
            (name, f"{rate:.0f}", f"{first[0] / rate:.3f}", f"{cpu:.0f}", f"{cpu / first[1]:.3f}")
        )
    click.echo(table.text())
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        place = Path(folder)
        queues = asyncio.run(measure(lambda n: f"sqlite:///{place}/{n}/queue.db", tasks))
    click.echo(table_of("SQLite", queues).text())
    with ExitStack() as stack:
        servers = [
            stack.enter_context(server(stack.enter_context(folder_for_server()))) for _ in KINDS
        ]
        queues = asyncio.run(measure(lambda n: queue_url(servers[n]), tasks))
    click.echo(table_of("PostgreSQL", queues).text())


if __name__ == "__main__":
    main(prog_name="python -m bench.measures.run_cost")
