"""What it costs that the table says of each webhook when a delivery last succeeded, and how many
failed lately: claims and settlements of 100 deliveries that succeed.

\b
    python -m bench.costs.delivery_success                  100,000 of each, both databases
    python -m bench.costs.delivery_success --tasks 20000
    python -m bench.costs.delivery_success --at-once 1      each in a transaction of its own

The deliveries are due, of one webhook. With each is written nothing of it, when it succeeded, in
`endpoint_state`, or besides what the plugin keeps: its row in `webhooks`, and how many attempts
there were, in `webhook_attempts`. The queues are measured in turns, as `bench.partitions` does it.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import click
from orchestratord_webhooks.attempt_counts import COUNTS, counted
from orchestratord_webhooks.health import TABLE

from bench.environment.postgres import folder_for_server, queue_url, server
from bench.partitions import BATCH, Measured, measure, table_of
from orchestratord.model.recurring_rows import DECIDED_ABOUT, RecurringRows
from orchestratord.model.task import Attempt, Key, NewTask, Task, Upsert
from orchestratord.queue.operations import claim, effects, settle
from orchestratord.queue.records import Insert, Pick, Settlement
from orchestratord.queue.store import Store

KEY = Key("bench/post", "ops")
NOTHING, SUCCESS, HEALTH, COUNTED = KINDS = (
    "nothing", "when it succeeded", "and how it fares", "and attempts by the hour"
)  # fmt: skip


class DeliveriesQueue(Measured):
    """A queue of deliveries, with which more or less is written."""

    def __init__(self, name: str, store: Store) -> None:
        super().__init__(name, store)
        row = {
            "last_status_code": "200", "last_error": None, "last_attempt_at": DECIDED_ABOUT,
            "last_success_at": DECIDED_ABOUT, "failures": 0, "failing_since": None,
            "failing_id": None,
        }  # fmt: skip
        key = {"endpoint_id": KEY.endpoint_id, "name": KEY.webhook}
        attempt = counted(tuple(KEY), "worker", int(time.time() * 1000), failed=False)
        health = Upsert(TABLE.name, key, row)
        rows = {HEALTH: [health], COUNTED: [health, attempt]}.get(name)
        self._recurring = [] if rows is None else [RecurringRows(rows, until=1 << 60)]

    async def fill(self, tasks: int) -> None:
        """Accept so many."""
        for first in range(0, tasks, BATCH):
            new = [
                Insert(NewTask("webhook", KEY.endpoint_id, {"n": n}, webhook=KEY.webhook))
                for n in range(first, min(first + BATCH, tasks))
            ]
            await self.store.write(effects.enqueue(new))

    async def take_turn(self, counts: bool) -> None:
        """Claim so many, and settle them."""
        wall, cpu = time.perf_counter(), time.process_time()
        now = int(time.time() * 1000) + 1000
        claimed = await self.store.write(claim.claim([Pick(KEY, self.at_once, True, now)]))
        if len(claimed.tasks) != self.at_once:
            raise RuntimeError(f"{self.name}: {len(claimed.tasks)} were claimed")
        ends = [settle.settle(self._succeeded(task, now)) for task in claimed.tasks]
        settled = await asyncio.gather(*map(self.store.write, ends))
        if not all(one.accepted for one in settled):
            raise RuntimeError(f"{self.name}: a settlement was not accepted")
        if counts:
            self.wall.append((time.perf_counter() - wall) * 1000)
            self.cpu.append((time.process_time() - cpu) * 1000)

    def _succeeded(self, task: Task, now: int) -> Settlement:
        attempt = Attempt(task.attempts, now, 1.5, 200, None, None, "succeeded")
        succeeded = None if self.name == NOTHING else now
        return Settlement(
            task, "succeeded", now, status_code=200, attempt=attempt, last_success_at=succeeded,
            recurring=self._recurring,
        )  # fmt: skip


async def _measure(url: Callable[[int], str], tasks: int, at_once: int) -> list[DeliveriesQueue]:
    return await measure(
        url, tasks, DeliveriesQueue, KINDS, at_once=at_once, tables=(TABLE, COUNTS)
    )


def _tell(words: str, queues: Sequence[DeliveriesQueue]) -> None:
    click.echo(table_of(words, queues).text())


@click.command(help=__doc__)
@click.option("--tasks", default=100_000, help="of each queue")
@click.option("--at-once", default=100, type=click.IntRange(1, 1000), help="in a transaction")
@click.option("--sqlite", "only", flag_value="sqlite", help="only there")
@click.option("--postgres", "only", flag_value="postgres", help="only there")
def main(tasks: int, at_once: int, only: str | None) -> None:
    if only != "postgres":
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            place = Path(folder)
            sqlite_url = f"sqlite:///{place}/{{}}/q.db".format
            _tell("SQLite", asyncio.run(_measure(sqlite_url, tasks, at_once)))
    if only != "sqlite":
        with ExitStack() as stack:
            servers = [
                stack.enter_context(server(stack.enter_context(folder_for_server()))) for _ in KINDS
            ]
            queues = _measure(lambda n: queue_url(servers[n]), tasks, at_once)
            _tell("PostgreSQL", asyncio.run(queues))


if __name__ == "__main__":
    main(prog_name="python -m bench.costs.delivery_success")
