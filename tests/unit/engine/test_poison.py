"""Poison candidates: who begins when, and beside whom."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from orchestratord.engine import poison
from orchestratord.engine.lanes.lane_set import LaneSet
from orchestratord.engine.poison import HELD, OFTEN, OUTLIVED, PoisonCandidates, batch_size
from orchestratord.model.task import Task
from orchestratord.testing import task

LANE = "api:a"


class PassingTime:
    """The loop's time, and what a test has let pass of it at once."""

    def __init__(self) -> None:
        self.passed = 0.0
        self._loop = asyncio.get_running_loop()
        self.call_later = self._loop.call_later

    def time(self) -> float:
        return self._loop.time() + self.passed


class Line:
    def __init__(self, *deaths: int) -> None:
        self.lanes = LaneSet()
        self.found = PoisonCandidates(self.lanes)
        self.loop: Any = PassingTime()
        self.found._loop = self.loop
        self.tasks = [task(id=number, deaths=count) for number, count in enumerate(deaths)]

    def admit(self, *tasks: Task) -> None:
        for one in tasks or self.tasks:
            self.found.admit(one, LANE)

    def next(self) -> Task | None:
        """The one that begins; where it runs alone, that is on disk."""
        turn = self.found.take_turn()
        if turn is None:
            return None
        self.found.written(turn[0])
        return turn[0]

    def pass_(self, seconds: float) -> None:
        self.loop.passed += seconds

    def work(self, *, due: bool = True) -> None:
        """There is other work; or there is none any more."""
        self.lanes._ready.update(dict.fromkeys([LANE] if due else []))
        if not due:
            self.lanes._ready.clear()

    async def begin(self, count: int) -> list[Task]:
        """So many begin, as soon as they may."""
        begun: list[Task] = []
        async with asyncio.timeout(60):
            while len(begun) < count:
                if (one := self.next()) is not None:
                    begun.append(one)
                await asyncio.sleep(0.001)
        return begun


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poison, "APART", 0.01)
    monkeypatch.setattr(poison, "BATCH_APART", 0.005)


async def test_the_newest_is_next_when_the_one_before_has_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(poison, "APART", 10.0)
    line = Line(1, 1, 1)
    first, second, third = line.tasks
    line.admit()
    assert line.next() is third
    assert line.next() is None
    assert line.found.waiting_ids() == [first.id, second.id]
    line.found.ended(second)  # it is not the one whose end is waited for
    assert line.next() is None
    line.found.ended(third)
    assert line.lanes.wake.is_set()
    assert line.next() is second
    assert line.found.take_waiting() == [first]
    line.found.ended(second)
    assert line.next() is None


async def test_those_that_died_once_run_beside_each_other() -> None:
    """What takes long holds up the next one for a moment only."""
    line = Line(*[1] * 40)
    line.admit()
    assert await line.begin(40) == line.tasks[::-1]
    assert not line.lanes.held


async def test_one_that_died_twice_runs_alone_until_its_end() -> None:
    line = Line(1, OFTEN, 1, OFTEN)
    first, deadly, second, other = line.tasks
    line.admit()
    assert line.next() is other
    assert line.found.is_alone(other)
    assert line.lanes.held
    await asyncio.sleep(0.02)
    assert line.next() is None
    line.found.ended(other)
    assert line.next() is deadly
    assert line.lanes.held
    line.found.ended(deadly)
    assert not line.lanes.held
    assert line.next() is second
    assert (await line.begin(1)) == [first]


async def test_alone_is_alone_in_the_daemon() -> None:
    """What is under way ends first, and no other work begins."""
    line = Line(OFTEN)
    [deadly] = line.tasks
    line.admit()
    line.lanes.claimed = 3
    assert line.next() is None
    assert line.lanes.held
    line.lanes.claimed, line.lanes.unsettled = 0, 1
    assert line.next() is None
    line.lanes.unsettled = 0
    assert line.next() is deadly
    line.work()
    assert line.found.company() is None
    line.found.ended(deadly)
    assert not line.lanes.held


async def test_other_work_is_held_up_for_some_seconds() -> None:
    line = Line(OFTEN, OFTEN, OFTEN)
    first, second, third = line.tasks
    line.admit()
    assert line.next() is third
    line.pass_(HELD)
    assert line.found.company() is None  # there is none that waits
    line.work()
    assert line.found.company() is third
    # Until it is on disk, nothing else begins, and it is not written as alone again.
    assert line.lanes.held
    assert not line.found.is_alone(third)
    assert line.next() is None
    assert line.found.company() is third
    line.found.end_alone()
    assert not line.lanes.held
    assert line.found.company() is None
    # The others go on beside it.
    line.found.ended(third)
    assert await line.begin(2) == [second, first]
    assert not line.found.is_alone(second)
    assert not line.lanes.held
    for one in (second, first):
        line.found.ended(one)
    # With one more death they are held up for longer.
    later = task(id=9, deaths=OFTEN + 1)
    line.admit(later)
    assert await line.begin(1) == [later]
    line.pass_(HELD)
    assert line.found.company() is None
    line.pass_(HELD)
    assert line.found.company() is later


async def test_what_is_under_way_is_not_waited_for_for_ever() -> None:
    line = Line(OFTEN)
    line.admit()
    line.lanes.claimed = 1
    assert line.next() is None
    line.pass_(HELD)
    assert line.next() is line.tasks[0]
    assert not line.found.is_alone(line.tasks[0])
    assert not line.lanes.held


async def test_the_next_one_begins_beside_one_that_outlives_some_seconds() -> None:
    line = Line(OFTEN, OFTEN)
    first, second = line.tasks
    line.admit()
    assert line.next() is second
    line.pass_(OUTLIVED)
    assert line.found.company() is second
    line.found.end_alone()
    line.lanes.claimed = 1
    assert await line.begin(1) == [first]
    assert not line.found.is_alone(first)


async def test_one_whose_start_is_not_on_disk_stays_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poison, "HELD", 0.0)
    line = Line(OFTEN)
    line.admit()
    assert line.found.take_turn()
    line.work()
    assert line.found.company() is None
    line.found.written(line.tasks[0])
    assert line.found.company() is line.tasks[0]


async def test_many_that_died_twice_run_in_two_batches() -> None:
    line = Line(*[OFTEN] * 40)
    line.admit()
    batch = await line.begin(20)
    assert batch == line.tasks[:19:-1]
    assert not line.lanes.held
    await asyncio.sleep(0.02)
    assert line.next() is None
    for one in batch:
        line.found.ended(one)
    assert len(await line.begin(20)) == 20
    assert line.found.waiting_ids() == []


@pytest.mark.parametrize("count", [1, 2, 4, 5, 40, 1000])
async def test_a_batch_that_dies_comes_in_smaller_ones_until_each_is_alone(count: int) -> None:
    """Whatever it is among them that kills, they are never charged together for ever."""
    deaths: dict[int, int] = dict.fromkeys(range(count), OFTEN)
    for _ in range(8):
        died: Any = Line()
        died.tasks = [task(id=number, deaths=many) for number, many in deaths.items()]
        died.admit()
        many = died.found._often[-1].task.deaths
        batch = await died.begin(batch_size(count, many))
        if died.found.is_alone(batch[0]):
            assert deaths[batch[0].id] <= OFTEN + 5
            return
        for one in batch:
            deaths[one.id] += 1
    pytest.fail("none ran alone")
