"""Whatever is done to partitions, in whichever order and by how many daemons: their order, limits
and turns hold, and none of them stands still."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from orchestratord.errors import Conflict, Overtaken
from orchestratord.model.partition_turn import HOLD, Partition
from orchestratord.model.task import Key, Reason, Task
from orchestratord.queue.batch import Read
from orchestratord.queue.operations import bulk as bulks
from orchestratord.queue.operations import claim, manual, settle
from orchestratord.queue.records import Line, TaskFilter
from tests.conformance.store.conftest import Queue

EXAMPLES, STEPS = int(os.environ.get("EXAMPLES", "8")), 40
"""For each database; the first in the environment as EXAMPLES, to look for longer."""

RULES = {
    "fair": Partition("fair"),
    "other": Partition("other"),
    "third": Partition("third"),
    "two": Partition("two", concurrency=2),
    "one": Partition("one", concurrency=1),
    "ordered": Partition("ordered", ordered=True),
    "holds": Partition("holds", ordered=True, hold=True),
    # What was accepted before its rule was changed.
    "mixed": Partition("holds", concurrency=1),
}
LIMITS = {rule.value: rule.concurrency for rule in RULES.values() if not rule.ordered}
TRIES = st.integers(0, 1 << 16)


class World:
    """The stores, which all examples have in common: each has a key of its own."""

    def __init__(self, make: Callable[[], Queue], stores: int) -> None:
        self.runner = asyncio.Runner()
        self.queues = [make() for _ in range(stores)]
        for queue in self.queues:
            queue.clock = self.queues[0].clock
            self.wait(queue.open())
        self.numbers = itertools.count(1)

    def wait(self, doing: Awaitable[Any]) -> Any:
        async def do() -> Any:
            return await doing

        return self.runner.run(do())

    def close(self) -> None:
        for queue in self.queues:
            self.wait(queue.store.close())
        self.runner.close()


class Machine(RuleBasedStateMachine):
    """One key, and what is known of its tasks.

    No rule has a precondition: what runs after daemons have claimed at once is not the same twice.
    """

    world: World

    def __init__(self) -> None:
        super().__init__()
        self.key = Key(f"crm/get{next(self.world.numbers)}")
        self.clock = self.world.queues[0].clock
        self.running: dict[int, tuple[int, Task]] = {}
        """What runs: by its id the store that has claimed it, and the task as it was."""
        self.started: dict[str, int] = {}
        """Of each ordered partition the highest that has started, but for what was forced."""
        self.forced: set[int] = set()
        self.passes: dict[Line, Counter[Line]] = defaultdict(Counter)
        """How often a line was served since another one has been due and was not."""

    # -- what is done --------------------------------------------------------------------------

    @rule(name=st.sampled_from(sorted(RULES)), count=st.integers(1, 3), later=st.booleans())
    def accept(self, name: str, count: int, later: bool) -> None:
        partition = RULES[name]
        delay = 5.0 if later and not partition.ordered else 0.0
        new = [self.queue().new(self.key, partition=partition, delay=delay) for _ in range(count)]
        self.wait(self.queue().add_all(new))

    @rule(which=TRIES, limit=st.integers(1, 4))
    def claim(self, which: int, limit: int) -> None:
        self.clock.turn(0.002)
        due, store = self.due(), which % len(self.world.queues)
        tasks = self.wait(self.world.queues[store].claim(self.key, limit))
        assert tasks or not due, "what is due was not claimed"
        self.took(store, tasks)
        if limit == 1:
            self.turns(due, line_of(tasks[0]) if tasks else None)

    @rule(limit=st.integers(1, 3), which=TRIES)
    def claim_at_once(self, limit: int, which: int) -> None:
        """All daemons claim, while something ends."""
        self.clock.turn(0.002)

        async def do() -> list[Any]:
            claims = [queue.claim(self.key, limit) for queue in self.world.queues]
            if self.running:
                store, task = self.pop(which)
                claims.append(self.world.queues[store].settle(task))
            return await asyncio.gather(*claims)

        found = self.wait(do())
        for store, tasks in enumerate(found[: len(self.world.queues)]):
            self.took(store, tasks)
        self.passes.clear()

    @rule(which=TRIES, how=st.sampled_from(["succeeded", "failed", "expired", "pending"]))
    def settle(self, which: int, how: str) -> None:
        if not self.running:
            return
        store, task = self.pop(which)
        queue = self.world.queues[store]
        fields: dict[str, Any] = {}
        status = how
        if how == "pending":
            fields["next_try"] = self.clock.now_ms() + 3000
        elif how == "expired":
            status, fields["reason"] = "failed", Reason.EXPIRED
        elif how == "failed":
            fields["reason"] = Reason.EXHAUSTED
        settled = self.wait(queue.settle(task, status, **fields))
        assert settled.accepted
        assert task.turn is not None
        assert settled.holds == (how == "failed" and task.turn.partition_rule == HOLD)

    @rule(which=TRIES)
    def settle_many(self, which: int) -> None:
        taken = [self.pop(which) for _ in range(min(3, len(self.running)))]

        async def do() -> None:
            ends = []
            for number, (store, task) in enumerate(taken):
                queue = self.world.queues[store]
                status = ("succeeded", "pending", "failed")[number]
                later = {"next_try": self.clock.now_ms() + 1000} if number == 1 else {}
                ends.append(queue.store.write(
                    settle.settle(queue.settlement(task, status, **later))
                ))  # fmt: skip
            await asyncio.gather(*ends)

        self.wait(do())

    @rule(which=TRIES)
    def release(self, which: int) -> None:
        if not self.running:
            return
        store, task = self.pop(which)
        self.wait(self.world.queues[store].store.write(claim.release_claims([task])))
        self.passes.clear()

    @rule(which=TRIES)
    def cancel(self, which: int) -> None:
        rows = [row for row in self.rows() if row["status"] in ("pending", "failed")]
        if rows:
            self.wait(self.queue().store.write(manual.cancel(rows[which % len(rows)]["id"])))

    @rule(which=TRIES, force=st.booleans())
    def retry(self, which: int, force: bool) -> None:
        rows = self.rows()
        if not rows:
            return
        row = rows[which % len(rows)]
        ended = row["status"] in ("failed", "cancelled", "succeeded")
        try:
            self.wait(self.queue().store.write(manual.trigger(row["id"], force=force)))
        except Overtaken as refused:
            right = not force and row["partition_rule"] < 0 and refused.by > row["id"]
        except Conflict:
            right = row["status"] == "running" or (row["status"] == "succeeded" and not force)
        else:
            right = row["status"] != "running"
            if force and ended:
                self.forced.add(row["id"])
        assert right, row
        self.passes.clear()

    @rule()
    def retry_all(self) -> None:
        queue = self.queue()
        wanted = TaskFilter(endpoint=self.key.endpoint_id)
        bulk = self.wait(queue.bulk(wanted))
        while bulk.status == "running":
            bulk, _ = self.wait(bulks.step(queue.store, bulk.id, 5))
        assert bulk.moved + bulk.skipped == bulk.matched
        self.passes.clear()

    @rule(seconds=st.sampled_from([0.001, 1.0, 4.0]))
    def wait_for_a_time(self, seconds: float) -> None:
        self.clock.turn(seconds)

    @rule(which=TRIES, started=st.booleans())
    def die(self, which: int, started: bool) -> None:
        """A daemon dies, and what it had claimed is taken over."""
        store = which % len(self.world.queues)
        lost = [id_ for id_, (owner, _) in self.running.items() if owner == store]
        queue = self.world.queues[store]
        if not started and lost:
            ids = ", ".join(map(str, lost))
            queue.run(f"UPDATE retry_schedule SET started_at = NULL WHERE id IN ({ids})")
        if queue.store.several_daemons:
            queue.run(
                "UPDATE retry_schedule SET lease_until = 1 "
                f"WHERE status = 'running' AND locked_by = '{queue.store.owner}'"
            )
        clock = queue.clock
        self.wait(queue.reopen())
        assert queue.clock is clock
        for id_ in lost:
            del self.running[id_]
        while True:
            count, tasks = self.wait(claim.reclaim(self.world.queues[store].store))
            self.running |= {task.id: (store, task) for task in tasks if task.key == self.key}
            if not count and not tasks:
                break
        self.passes.clear()

    # -- what holds ----------------------------------------------------------------------------

    @invariant()
    def lines_are_in_order(self) -> None:
        lines: dict[Line, list[dict[str, Any]]] = defaultdict(list)
        found = self.rows()
        assert {row["id"] for row in found if row["status"] == "running"} == set(self.running)
        for row in found:
            line = Line(*self.key, row["partition"], row["partition_rule"] < 0)
            lines[line].append(row)
        for line, rows in lines.items():
            held = [row for row in rows if row["held"]]
            assert all(row["status"] == "pending" for row in held)
            heads = [row for row in rows if row["status"] == "pending" and not row["held"]]
            running = [row for row in rows if row["status"] == "running"]
            # Of daemons that elect at the same time, each may have let one go where nothing else
            # would have: that is no more than a turn too many.
            most = 1 if line.ordered or LIMITS[line.partition] else len(self.world.queues)
            assert len(heads) <= most, rows
            if line.ordered:
                self.is_ordered(rows, heads, running)
                continue
            limit = LIMITS[line.partition]
            if limit:
                assert len(running) + len(heads) <= limit, rows
            if held and not heads:
                assert limit, f"nothing has its turn: {rows}"
                assert len(running) == limit, rows
            for head in heads:
                first = min((row["next_try"] for row in held), default=head["next_try"])
                now = self.clock.now_ms()
                assert head["next_try"] <= max(first, now), rows

    def is_ordered(self, rows: Any, heads: Any, running: Any) -> None:
        assert len(heads) + len(running) <= 1, rows
        for row in rows:
            waits = row["status"] in ("pending", "running")
            assert row["turn_at"] or not waits, row
        blocks = [row for row in rows if row["turn_at"]]
        if blocks and not running:
            first = blocks[0]
            assert first["status"] == "failed" or heads == [first], rows
            assert first["status"] == "pending" or not heads, rows

    def took(self, store: int, tasks: list[Task]) -> None:
        for task in tasks:
            assert task.id not in self.running
            assert not task.held
            self.running[task.id] = store, task
            if not task.ordered:
                continue
            assert task.first_at is not None
            highest = self.started.get(task.partition or "", 0)
            assert task.id >= highest or task.id in self.forced, "out of order"
            self.started[task.partition or ""] = max(highest, task.id)

    def turns(self, due: set[Line], served: Line | None) -> None:
        """No line is served twice while another one is due all the time."""
        for line in list(self.passes):
            if line not in due or line == served:
                del self.passes[line]
        if served is None:
            return
        for line in due - {served}:
            self.passes[line][served] += 1
            assert self.passes[line][served] <= 1, f"{line} waits, {served} is served again"

    # -- helpers -------------------------------------------------------------------------------

    def queue(self) -> Queue:
        return self.world.queues[0]

    def wait(self, doing: Awaitable[Any]) -> Any:
        return self.world.wait(doing)

    def rows(self) -> list[dict[str, Any]]:
        names = ("id", "status", "partition", "partition_rule", "held", "turn_at", "next_try")
        select = f"SELECT {', '.join(names)} FROM retry_schedule WHERE endpoint_id = ? ORDER BY id"
        key = (self.key.endpoint_id,)
        found = self.wait(self.queue().store.read(Read(lambda db: db.all(select, key))))
        return [dict(zip(names, row, strict=True)) for row in found]

    def due(self) -> set[Line]:
        now = self.clock.now_ms()
        return {
            Line(*self.key, row["partition"], row["partition_rule"] < 0)
            for row in self.rows()
            if row["status"] == "pending" and not row["held"] and row["next_try"] <= now
        }

    def pop(self, which: int) -> tuple[int, Task]:
        ids = sorted(self.running)
        return self.running.pop(ids[which % len(ids)])


def line_of(task: Task) -> Line:
    return Line(task.endpoint_id, task.webhook, task.partition or "", task.ordered)


@pytest.fixture
def world(url: str, unopened: Callable[[], Queue]) -> Iterator[World]:
    alone = url.startswith("sqlite") and unopened().workers is None
    made = World(unopened, 1 if alone else 2)
    yield made
    made.close()


@pytest.mark.slow
def test_order_limits_and_turns_hold(world: World) -> None:
    class OfThisQueue(Machine):
        pass

    OfThisQueue.world = world
    run_state_machine_as_test(
        OfThisQueue,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
