"""Whatever two daemons and people do to calls of the same runs at once, each run's counts are those
of its calls, and it has ended as often as its ends were told.

The long form:

    RUN_ACTS=3000 pytest --all tests/conformance/store/runs/test_store_run_acts.py
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from orchestratord.errors import Conflict
from orchestratord.model.task import Reason, Status, Task
from orchestratord.queue.housekeeping import run_ends
from orchestratord.queue.operations import bulk as bulks
from orchestratord.queue.operations import chores, claim, manual, partitions, search
from orchestratord.queue.records import CANCEL, RETRY, Chore, Insert, TaskFilter
from tests.conformance.store.runs.test_store_runs import KEY, children
from tests.conformance.store.test_store_shared import url

pytestmark = pytest.mark.slow

__all__ = ["url"]

ACTS = int(os.environ.get("RUN_ACTS", "150"))
"""Of each of the `HANDS`."""
HANDS = 6
"""That act at once, in each daemon."""
CALLS = "SELECT id FROM retry_schedule WHERE webhook = '' ORDER BY id DESC LIMIT 60"
WRONG = """
SELECT runs.id FROM runs JOIN (
    SELECT run_id, count(*) AS calls,
        sum(CASE status WHEN 'succeeded' THEN 1 ELSE 0 END) AS good,
        sum(CASE status WHEN 'failed' THEN 1 ELSE 0 END) AS bad,
        sum(CASE status WHEN 'cancelled' THEN 1 ELSE 0 END) AS given_up
    FROM retry_schedule WHERE run_id IS NOT NULL AND webhook = '' GROUP BY run_id
) AS of_run ON run_id = runs.id
WHERE tasks <> calls OR succeeded <> good OR failed <> bad OR cancelled <> given_up
    OR open_tasks <> calls - good - bad - given_up OR (ended_at IS NULL) <> (open_tasks > 0)
"""


class Daemon:
    """One of the two, and what is done there."""

    def __init__(self, queue: Any, chance: random.Random, told: Counter[int]) -> None:
        self.queue, self.store = queue, queue.store
        self.chance, self.told = chance, told
        self.held: list[Task] = []
        self.calls: list[int] = []

    async def act(self) -> None:
        if not self.calls or self.chance.random() < 0.05:
            self.calls = [row["id"] for row in self.queue.run(CALLS)]
        own: list[Callable[[], Awaitable[object]]] = [self.claim, self.settle, self.tell]
        acts = [self.queue.add, self.release, self.retry_all, self.cancel_all, *own, *own]
        if self.calls:
            acts += [self.trigger, self.cancel, self.resolve, self.replace]
        with suppress(Conflict):  # as a person is told whom another one was quicker than
            await self.chance.choice(acts)()

    async def claim(self) -> None:
        self.held += await self.queue.claim(limit=self.chance.randint(1, 8))

    async def release(self) -> None:
        if self.held:
            await self.store.write(claim.release_claims([self.held.pop()]))

    async def settle(self) -> None:
        some = [self.held.pop() for _ in range(min(len(self.held), self.chance.randint(1, 5)))]
        await asyncio.gather(*map(self.settle_one, some))

    async def settle_one(self, task: Task) -> None:
        status = self.chance.choice([Status.SUCCEEDED, Status.FAILED, Status.PENDING])
        fields: dict[str, Any] = {}
        if status == Status.FAILED:
            fields = {"reason": Reason.EXHAUSTED}
        elif status == Status.PENDING:
            fields = {"next_try": self.queue.clock.now_ms()}
        elif task.run_id is None or self.chance.random() < 0.2:
            fields = {"effects": children(task, self.chance.randint(0, 3))}
        begins = task.run_id is None and status != Status.PENDING
        await self.queue.settle(task, status, begins_run=begins, **fields)

    async def tell(self) -> None:
        for chore in await self.queue.chores():
            if chore.kind == "run":
                await self.tell_end(chore)
            else:
                await self.store.write(chores.end_all([chore]))

    async def tell_end(self, chore: Chore) -> None:
        run_id, _ = run_ends.subject_of(chore)
        run = await self.store.read(run_ends.row_of(run_id))
        await asyncio.sleep(self.chance.choice([0, 0, 0.01]))
        if run is None or run.open:
            await self.store.write(run_ends.take_back(chore))
            return
        delivery = Insert(self.queue.new(KEY._replace(webhook="end"), parent_id=run_id))
        [inserted] = await self.store.write(run_ends.tell(chore, run, [delivery]))
        self.told[run_id] += not inserted.duplicate
        if inserted.duplicate:
            await self.store.write(chores.put_off(chore, 0, self.queue.clock.now_ms()))

    async def trigger(self) -> None:
        force = self.chance.random() < 0.3
        await self.store.write(manual.trigger(self.chance.choice(self.calls), force=force))

    async def cancel(self) -> None:
        await self.store.write(manual.cancel(self.chance.choice(self.calls)))

    async def resolve(self) -> None:
        task = await self.store.read(search.get(self.chance.choice(self.calls)))
        if task.status in (Status.PENDING, Status.FAILED):
            status = self.chance.choice([Status.SUCCEEDED, Status.FAILED])
            how = {"reason": Reason.RESOLVED, "begins_run": task.run_id is None}
            await self.store.write(manual.resolve(self.queue.settlement(task, status, **how)))

    async def replace(self) -> None:
        id_ = self.chance.choice(self.calls)
        await self.store.write(partitions.replace(id_, self.queue.new(parent_id=id_), force=True))

    async def retry_all(self) -> None:
        await self.all(RETRY, "failed")

    async def cancel_all(self) -> None:
        await self.all(CANCEL, "pending", "failed")

    async def all(self, action: str, *status: str) -> None:
        bulk = await self.queue.bulk(TaskFilter(status=status), action=action)
        for _ in range(5):
            await bulks.step(self.store, bulk.id, 20)


@pytest.mark.parametrize("seed", [1, 2])
async def test_runs_are_counted_right_whatever_is_done_at_once(two: list[Any], seed: int) -> None:
    chance, told = random.Random(seed), Counter[int]()
    daemons = [Daemon(queue, chance, told) for queue in two]

    async def hand(daemon: Daemon) -> None:
        for _ in range(ACTS):
            await daemon.act()

    await asyncio.gather(*(hand(daemon) for daemon in daemons for _ in range(HANDS)))
    queue = two[0]
    assert queue.run(WRONG) == []
    untold = Counter(
        int(row["subject"].split()[0])
        for row in queue.run("SELECT subject FROM chores WHERE kind = 'run'")
    )
    ends = {row["id"]: row["ends"] for row in queue.run("SELECT id, ends FROM runs")}
    assert ends == {run_id: told[run_id] + untold[run_id] for run_id in ends}
    assert told.total() > 10
