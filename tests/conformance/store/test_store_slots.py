"""The slots of schedules make one task each, wherever the clock goes meanwhile."""

from __future__ import annotations

from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from orchestratord.engine.http_executor import HttpPlugin
from orchestratord.engine.new.scheduler import Scheduler
from orchestratord.errors import Unreachable
from orchestratord.model.endpoint import Endpoint, Schedule
from orchestratord.model.event import Event, ScheduleEvent
from orchestratord.model.schedule_slots import MOST_MISSED, spec
from orchestratord.queue.housekeeping import future_times
from orchestratord.queue.operations import schedules
from orchestratord.queue.records import Insert
from orchestratord.testing import Rig
from tests.conformance.store.conftest import Queue

MINUTE, HOUR, YEAR = 60, 3600, 400 * 86400
NAME = "demo/get"


class Machine:
    """The schedulers of some daemons, all of which go by one clock."""

    def __init__(self, queue: Queue, daemons: int = 1, **schedule: Any) -> None:
        self.queue, self.clock = queue, queue.clock
        self.endpoint: Endpoint = Rig(HttpPlugin()).endpoint(NAME)
        self.schedule = Schedule(**({"every": "1m", "overlap": "allow"} | schedule))
        self.daemons: list[Scheduler] = []
        self.shown: list[int] = []
        """The slots that came while a daemon looked."""
        self.told: list[Event] = []
        for _ in range(daemons):
            self.daemons.append(Scheduler(*self.parts()))

    def parts(self) -> Any:
        async def nothing(*_: Any) -> list[Any]:
            return []

        new_tasks = SimpleNamespace(insert=Insert, of_event=nothing, written=nothing)
        host = Rig(HttpPlugin()).host
        host.events.publish = self.told.append  # type: ignore[method-assign]
        return self.queue.store, self.clock, new_tasks, host.events

    def missed(self) -> list[tuple[int, int, int, bool]]:
        """What was told of slots that were missed: how many, the first, the last, caught up."""
        return [
            (one.slots, one.first_slot, one.slot, one.caught_up)
            for one in self.told
            if isinstance(one, ScheduleEvent)
        ]

    async def begin(self) -> None:
        """Each daemon starts anew."""
        self.daemons = [Scheduler(*self.parts()) for _ in self.daemons]
        for daemon in self.daemons:
            await daemon._begin()
            self.adopt(daemon)

    def adopt(self, daemon: Scheduler) -> None:
        object.__setattr__(self.endpoint, "schedule", self.schedule)
        daemon.adopt(SimpleNamespace(endpoints={NAME: self.endpoint}))  # type: ignore[arg-type]

    async def look(self) -> None:
        for daemon in self.daemons:
            await daemon._look(NAME, self.clock.now_ms())

    async def go_on(self, seconds: int) -> None:
        """Time passes, a slot after the other."""
        for _ in range(seconds // MINUTE):
            self.clock.turn(MINUTE)
            self.shown.append(self.clock.now_ms() // 60_000 * 60_000)
            await self.look()

    async def put(self, ahead: int) -> None:
        """The clock is put forward or back, and followed."""
        self.clock.turn(ahead)
        for daemon in self.daemons:
            daemon._begin_anew()
        await future_times.bring_back(self.queue.store)
        await self.look()

    def slots(self) -> list[int]:
        """The slots that have a task."""
        rows = self.queue.run("SELECT scheduled_at FROM retry_schedule ORDER BY scheduled_at")
        return [row["scheduled_at"] for row in rows]

    def each_once(self) -> list[int]:
        """The same; none has two, and none was left out."""
        slots = self.slots()
        assert len(set(slots)) == len(slots)
        assert set(self.shown) <= set(slots)
        return slots


@pytest.fixture
async def machine(queue: Queue) -> Machine:
    queue.clock.turn(30)
    found = Machine(queue, 2 if queue.store.several_daemons else 1)
    await found.begin()
    await found.look()
    return found


@pytest.mark.parametrize("restart", [False, True])
async def test_a_clock_that_is_behind_makes_no_second_task(machine: Machine, restart: bool) -> None:
    await machine.go_on(2 * HOUR)
    before = machine.each_once()
    await machine.put(-HOUR)
    if restart:
        await machine.begin()
    await machine.go_on(10 * MINUTE)
    assert machine.each_once() == before
    await machine.put(HOUR)
    await machine.go_on(10 * MINUTE)
    assert len(machine.each_once()) == len(before) + 11  # of those that were missed, one


async def test_a_slot_keeps_its_time(machine: Machine) -> None:
    """Its task may wait while the clock is behind, and is asked what slot it runs for."""
    await machine.go_on(10 * MINUTE)
    before = machine.slots()
    await machine.put(-HOUR)
    assert machine.slots() == before


async def test_a_clock_that_stays_behind_goes_on_where_it_has_not_been(machine: Machine) -> None:
    await machine.go_on(HOUR)
    await machine.put(-10 * MINUTE)
    await machine.go_on(HOUR)
    slots = machine.each_once()
    assert slots == list(range(slots[0], slots[-1] + 1, 60_000))


@pytest.mark.slow
@pytest.mark.parametrize("ahead", [HOUR, YEAR])
async def test_a_clock_that_was_ahead_leaves_no_slot_out(machine: Machine, ahead: int) -> None:
    await machine.go_on(HOUR)
    await machine.put(ahead)
    await machine.go_on(5 * MINUTE)
    await machine.put(-ahead)
    await machine.begin()
    await machine.go_on(2 * HOUR)  # past those that it showed, which had theirs too early
    machine.each_once()


async def test_a_clock_that_is_ahead_from_the_start(queue: Queue) -> None:
    queue.clock.turn(YEAR)
    machine = Machine(queue)
    await machine.begin()
    await machine.look()
    await machine.go_on(5 * MINUTE)
    await machine.put(-YEAR)
    before = len(machine.slots())
    await machine.go_on(5 * MINUTE)
    assert len(machine.each_once()) == before + 5


async def test_a_daily_slot_that_was_jumped_over(queue: Queue) -> None:
    """It comes while the clock shows another day."""
    clock = queue.clock  # at 8:00
    machine = Machine(queue, every="day", at="10:30")
    await machine.begin()
    await machine.look()
    clock.turn(HOUR)
    await machine.put(YEAR)
    early = machine.slots()
    clock.turn(2 * HOUR)
    await machine.look()
    await machine.put(-YEAR)
    [today] = [slot for slot in machine.slots() if slot <= clock.now_ms()]
    assert today not in early
    assert today == clock.now_ms() - 30 * MINUTE * 1000


@pytest.mark.slow
async def test_the_clock_goes_anywhere(queue: Queue) -> None:
    for seed in range(4):
        chance = Random(seed)
        machine = Machine(queue, 2)
        await machine.begin()
        await machine.look()
        machine.shown.clear()
        for _ in range(25):
            await machine.put(chance.choice([0, 1, -1, 1, -1, 7, -7]) * chance.choice([60, HOUR]))
            await machine.go_on(chance.randrange(8) * MINUTE)
            if chance.random() < 0.2:
                await machine.begin()
        slots = machine.slots()
        assert len(set(slots)) == len(slots)
        queue.run("DELETE FROM retry_schedule")
        queue.run("DELETE FROM schedules")


async def test_one_that_was_slow_takes_the_slot_of_one_that_died(queue: Queue) -> None:
    """Another daemon took the slots before, which the slow one does not know."""
    machine = Machine(queue, 2)
    await machine.begin()
    await machine.look()
    quick, slow = machine.daemons
    machine.daemons = [quick]
    await machine.go_on(5 * MINUTE)
    machine.daemons = [slow]
    await machine.go_on(MINUTE)
    assert len(machine.each_once()) == 6


async def test_what_daemons_of_before_took(queue: Queue) -> None:
    """They knew the last slot alone."""
    machine = Machine(queue)
    await machine.begin()
    await machine.look()
    await machine.go_on(5 * MINUTE)
    before = machine.slots()
    queue.run("UPDATE schedules SET taken = NULL")
    await machine.begin()
    await machine.put(-3 * MINUTE)
    assert machine.slots() == before
    await machine.put(3 * MINUTE)
    assert machine.slots() == before


async def test_a_schedule_that_changes_takes_none_again(machine: Machine) -> None:
    await machine.go_on(10 * MINUTE)
    before = machine.slots()
    for every in ("2m", "1m"):
        machine.schedule = Schedule(every=every, overlap="allow")
        for daemon in machine.daemons:
            daemon.adopt(SimpleNamespace(endpoints={}))  # type: ignore[arg-type]
            machine.adopt(daemon)
        await machine.look()
        await machine.put(-5 * MINUTE)
        await machine.go_on(4 * MINUTE)
        assert machine.slots() == before
        await machine.put(MINUTE)
    row = await machine.queue.store.read(schedules.slot(NAME))
    assert row is not None
    assert '"1m"' in row.spec


async def test_one_with_the_schedule_before_waits_to_hear_who_declares_the_new_one(
    queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    """A reload is known to the others a few seconds later. One whose slot came before that went
    back to the schedule before, and who had the new one stood aside for good."""
    one, two = Machine(queue), Machine(queue)
    before, after = spec(one.schedule), spec(Schedule(every="2m", overlap="allow"))
    for machine in (one, two):
        await machine.begin()

    async def look(declared: str | None, within: float = 60.0) -> str:
        """What is in force once both have looked at the slot of a whole even minute."""
        queue.clock.turn(120 - queue.clock.now() % 120)
        known = {NAME: {declared}} if declared is not None else {}
        one.daemons[0].set_elsewhere(known, within)
        for machine in (two, one):
            await machine.look()
        return str(queue.run("SELECT spec FROM schedules")[0]["spec"])

    two.daemons[0].set_elsewhere({NAME: {before}}, 60.0)
    assert await look(before) == before
    two.endpoint = Rig(HttpPlugin()).endpoint(NAME)
    two.schedule = Schedule(every="2m", overlap="allow")
    two.adopt(two.daemons[0])
    assert await look(before) == after
    assert await look(before) == after
    assert "this one is older" not in caplog.text
    assert await look(after) == after
    assert caplog.text.count("and this one makes no calls") == 1
    two.daemons.clear()  # it has ended
    assert await look(None, 0.0) == before


async def test_slots_that_pass_while_it_cannot_look_are_told(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine was asleep, or the database away: each time of it is told once, at its end."""
    await machine.go_on(5 * MINUTE)
    assert machine.missed() == []  # none was
    last = machine.slots()[-1]
    machine.clock.turn(4 * MINUTE)
    for _ in range(3):
        await machine.look()
    first = (3, last + 60_000, last + 180_000, False)
    assert machine.missed() == [first]
    assert machine.slots()[-1] == last + 240_000  # which was made, and is not told of

    async def away(write: object) -> Any:
        raise Unreachable("the database is away")

    await machine.go_on(2 * MINUTE)
    last = machine.slots()[-1]
    with monkeypatch.context() as patch:
        patch.setattr(machine.queue.store, "write", away)
        for _ in range(3):
            machine.clock.turn(MINUTE)
            await machine.look()
    assert machine.missed() == [first]
    await machine.go_on(3 * MINUTE)
    assert machine.missed() == [first, (3, last + 60_000, last + 180_000, False)]


@pytest.mark.parametrize("catch_up", [True, False])
async def test_slots_that_pass_while_nothing_runs_are_told_once(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, catch_up: bool
) -> None:
    machine = Machine(queue, 2, catch_up=catch_up)
    await machine.begin()
    await machine.look()
    await machine.go_on(2 * MINUTE)
    last = machine.slots()[-1]
    machine.clock.turn(3 * MINUTE + 30)
    await machine.begin()

    async def away(write: object) -> Any:
        raise Unreachable("the database is away")

    with monkeypatch.context() as patch:
        patch.setattr(queue.store, "write", away)
        await machine.look()
    assert machine.missed() == []  # the slot is not taken yet
    await machine.look()
    await machine.go_on(2 * MINUTE)
    await machine.begin()  # and nothing was missed
    await machine.go_on(2 * MINUTE)
    assert machine.missed() == [(3, last + 60_000, last + 180_000, catch_up)]
    assert (last + 180_000 in machine.slots()) is catch_up


async def test_of_very_many_missed_slots_the_last_is_told(machine: Machine) -> None:
    await machine.go_on(MINUTE)
    last = machine.slots()[-1]
    machine.clock.turn((MOST_MISSED + 501) * MINUTE)
    await machine.look()
    end = last + (MOST_MISSED + 500) * 60_000
    assert machine.missed() == [(MOST_MISSED, last + 60_000, end, False)]


async def test_slots_of_a_paused_endpoint_are_not_told(machine: Machine) -> None:
    for daemon in machine.daemons:
        daemon.set_paused({NAME})
    machine.clock.turn(4 * MINUTE)
    await machine.look()
    assert machine.missed() == []


@pytest.mark.parametrize("looked", [False, True])
async def test_a_worker_that_begins_takes_no_slot_for_missed_that_another_looks_at(
    machine: Machine, looked: bool
) -> None:
    """It may come to it before the other one does, which is about to."""
    machine.schedule = Schedule(every="1m", overlap="allow", catch_up=False)
    await machine.begin()
    await machine.look()
    since = machine.clock.now_ms()
    machine.clock.turn(MINUTE)
    await machine.begin()
    for daemon in machine.daemons:
        daemon.set_elsewhere({}, 0.0, since if looked else None)
    await machine.look()
    assert len(machine.slots()) == looked
    assert len(machine.missed()) == (not looked)
