"""Stored times and their text."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestratord.values import clock as clock_module
from orchestratord.values import world
from orchestratord.values.clock import (
    APART,
    BACK_AFTER,
    FORWARD_AFTER,
    NEAR,
    REMEMBERED,
    Clock,
    ClockChange,
    from_rfc3339,
    rfc3339,
)

LAST = 253_402_300_799_999
"""The end of the year 9999."""


def test_the_clock_is_the_wall_clock_in_whole_milliseconds() -> None:
    before, now, after = time.time(), Clock().now_ms(), time.time()
    assert int(before * 1000) <= now <= int(after * 1000)
    assert isinstance(now, int)
    assert before <= Clock().now()


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1, "1970-01-01T00:00:00.001Z"),
        (1_795_557_600_000, "2026-11-24T22:00:00.000Z"),
        (1_795_557_600_999, "2026-11-24T22:00:00.999Z"),
        (LAST, "9999-12-31T23:59:59.999Z"),
        (None, None),
    ],
)
def test_a_time_is_written_in_utc_with_milliseconds(
    milliseconds: int | None, text: str | None
) -> None:
    assert rfc3339(milliseconds) == text


@settings(deadline=None)
@given(st.integers(0, LAST))
def test_what_is_written_is_read_again(milliseconds: int) -> None:
    assert from_rfc3339(str(rfc3339(milliseconds))) == milliseconds


@pytest.mark.parametrize(
    "text",
    ["2026-11-24T22:00:00Z", "2026-11-24T23:00:00+01:00", "2026-11-24 22:00:00.000000Z",
     "2026-11-24T16:30:00-05:30"],
)  # fmt: skip
def test_other_zones_and_precisions_are_read(text: str) -> None:
    assert from_rfc3339(text) == 1_795_557_600_000


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "2026-11-24", "2026-11-24T22:00:00", "2026-13-24T22:00:00Z",
     "2026-11-24T25:00:00Z", "1795557600", "2026-11-24T22:00:00 Europe/Paris"],
)  # fmt: skip
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        from_rfc3339(text)


def test_a_time_without_a_zone_is_told_what_it_lacks() -> None:
    with pytest.raises(ValueError, match="has no time zone"):
        from_rfc3339("2026-11-24T22:00:00")


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_times_at_the_ends_of_the_calendar_are_read(text: str) -> None:
    assert isinstance(from_rfc3339(text), int)


# -- a clock that jumps ----------------------------------------------------------------------------

HOUR, DAY = 3600.0, 86400.0
BEGAN = 1_800_000_000.0


class Machine:
    """A machine whose clocks stand still until they are turned: the one that can be set, and the
    one that cannot."""

    def __init__(self) -> None:
        self.wall = BEGAN
        self.elapsed = 5000.0

    def pass_(self, seconds: float) -> None:
        self.wall += seconds
        self.elapsed += seconds


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    monkeypatch.setattr(world, "elapsed", lambda: machine.elapsed)
    monkeypatch.setattr(world, "time", lambda: machine.wall)
    return machine


@pytest.fixture
def clock(machine: Machine) -> Clock:
    return Clock()


def changes(clock: Clock, machine: Machine, seconds: float) -> list[tuple[str, int]]:
    """What `look` finds, twice a second."""
    found = []
    for _ in range(round(seconds * 2)):
        machine.pass_(0.5)
        if change := clock.look():
            found.append((change.what, round(change.by)))
    return found


@pytest.mark.parametrize("by", [HOUR, -HOUR, 400 * DAY, APART, -APART])
def test_a_jump_is_not_followed_at_once(clock: Clock, machine: Machine, by: float) -> None:
    machine.wall += by
    assert clock.now() == BEGAN
    assert clock.in_doubt
    assert clock.machine_ahead == by
    assert changes(clock, machine, 4) == [("jumped", by)]
    assert clock.now() == BEGAN + 4
    machine.wall -= by
    assert changes(clock, machine, 1) == [("returned", by)]
    assert clock.now() == BEGAN + 5
    assert not clock.in_doubt
    assert clock.skipped_since(0) == 0


@pytest.mark.parametrize(("by", "after"), [(HOUR, FORWARD_AFTER), (-HOUR, BACK_AFTER)])
def test_a_jump_that_lasts_is_followed(
    clock: Clock, machine: Machine, by: float, after: float
) -> None:
    machine.wall += by
    assert changes(clock, machine, after) == [("jumped", by)]
    assert clock.now() == BEGAN + after
    assert changes(clock, machine, 1) == [("followed", by)]
    assert clock.now() == BEGAN + after + 1 + by
    assert changes(clock, machine, 200) == []


def test_another_jump_begins_anew(clock: Clock, machine: Machine) -> None:
    machine.wall += HOUR
    assert changes(clock, machine, FORWARD_AFTER - 1) == [("jumped", HOUR)]
    machine.wall += DAY
    assert changes(clock, machine, FORWARD_AFTER - 1) == [("jumped", HOUR + DAY)]
    machine.wall -= HOUR + 2 * DAY
    assert changes(clock, machine, BACK_AFTER - 1) == [("jumped", -DAY)]


@pytest.mark.parametrize("by", [0.4, -0.4, APART - 0.1, 0.1 - APART])
def test_small_steps_are_followed_with_the_next_look(
    clock: Clock, machine: Machine, by: float
) -> None:
    for _ in range(100):
        before = clock.now()
        machine.wall += by
        assert clock.now() == before
        assert changes(clock, machine, 0.5) == []
        assert clock.now() == pytest.approx(machine.wall, abs=1e-6)
        assert clock.now_ms() == int(clock.now() * 1000)
    assert clock.machine_ahead == pytest.approx(0, abs=1e-5)


def test_what_two_readings_cannot_tell_is_not_followed(clock: Clock, machine: Machine) -> None:
    machine.wall += NEAR / 2
    assert changes(clock, machine, 0.5) == []
    assert clock.now() == BEGAN + 0.5
    machine.wall += NEAR
    assert changes(clock, machine, 0.5) == []
    assert clock.now() == pytest.approx(machine.wall, abs=1e-6)


def test_a_turn_of_another_thread_between_two_readings_moves_no_clock(
    clock: Clock, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = iter([0.0, 0.3, 0.3] * 2)

    def interrupted() -> float:
        wall = machine.wall
        machine.pass_(next(turns, 0.0))
        return wall

    monkeypatch.setattr(world, "time", interrupted)
    assert clock.look() is None
    assert clock.now() == pytest.approx(machine.wall, abs=1e-6)


def test_time_that_is_slept_through_has_passed(clock: Clock, machine: Machine) -> None:
    machine.pass_(8 * HOUR)
    assert clock.now() == BEGAN + 8 * HOUR
    assert changes(clock, machine, 1) == []


def follow(clock: Clock, machine: Machine, by: float) -> None:
    machine.wall += by
    changes(clock, machine, FORWARD_AFTER + 1)


def test_what_was_jumped_over_has_not_passed(clock: Clock, machine: Machine) -> None:
    made = clock.now_ms()
    follow(clock, machine, DAY)
    passed = FORWARD_AFTER + 1
    after = clock.now_ms()
    assert after - made == (DAY + passed) * 1000
    assert clock.skipped_since(made) == DAY * 1000
    assert clock.skipped_since(after) == 0
    # It is an hour old when an hour has passed.
    assert clock.before(HOUR) < made
    machine.pass_(HOUR - passed)
    assert clock.before(HOUR) == made
    assert clock.before(HOUR - 1) == made + 1000
    # What was written since is as old as it looks.
    machine.pass_(HOUR)
    assert clock.before(HOUR) == clock.now_ms() - HOUR * 1000


def test_what_others_have_written_by_a_clock_that_was_put_back_is_not_old(
    clock: Clock, machine: Machine
) -> None:
    """A worker that had just started, and did not follow yet, deleted what the others wrote."""
    machine.wall -= 40 * DAY
    machine.pass_(1)
    written = Clock().now_ms()
    assert clock.now() == BEGAN + 1
    assert clock.before(DAY) <= written - DAY * 1000
    machine.wall += 80 * DAY  # what lies before is not older for that
    assert clock.before(DAY) == round((BEGAN + 1 - DAY) * 1000)


def test_what_was_jumped_over_comes_after_all(clock: Clock, machine: Machine) -> None:
    made = clock.now_ms()
    follow(clock, machine, DAY)
    follow(clock, machine, HOUR)
    follow(clock, machine, -2 * HOUR)
    assert clock.skipped_since(made) == (DAY - HOUR) * 1000
    follow(clock, machine, -DAY)
    assert clock.skipped_since(made) == 0
    for _ in range(REMEMBERED + 5):
        follow(clock, machine, HOUR)
    assert clock.skipped_since(made) == REMEMBERED * HOUR * 1000


# -- the clock of a database -----------------------------------------------------------------------


def test_the_databases_clock_counts_once_it_was_asked(clock: Clock, machine: Machine) -> None:
    assert clock.source == "machine"
    clock.asked(int((BEGAN + HOUR) * 1000), took=1.0)
    assert clock.source == "database"
    assert clock.now() == BEGAN + HOUR + 0.5
    machine.wall += DAY  # which is no matter
    assert clock.now() == BEGAN + HOUR + 0.5
    assert changes(clock, machine, 100) == []
    assert clock.machine_ahead == DAY - HOUR - 0.5
    clock.asked(int((BEGAN + HOUR + 101.5) * 1000))
    assert clock.now() == BEGAN + HOUR + 101.5


def test_an_answer_that_came_late_says_little(clock: Clock, machine: Machine) -> None:
    clock.asked(int((BEGAN - 0.4) * 1000), took=1.0)
    assert clock.source == "database"
    assert clock.now() == BEGAN  # it may have been that when it was answered
    clock.asked(int((BEGAN - 0.4) * 1000), took=0.1)
    assert clock.now() == pytest.approx(BEGAN - 0.35)


def test_a_jump_of_the_databases_clock_is_one(clock: Clock, machine: Machine) -> None:
    clock.asked(int(BEGAN * 1000))
    machine.pass_(10)
    clock.asked(int((BEGAN + 10 + DAY) * 1000))
    assert clock.in_doubt
    assert clock.now() == BEGAN + 10
    assert changes(clock, machine, 30) == [("jumped", DAY)]
    clock.asked(int((BEGAN + 40) * 1000))
    assert not abs(clock.now() - BEGAN - 40) > 0.001
    assert changes(clock, machine, 1) == [("returned", DAY)]


# -- over a restart --------------------------------------------------------------------------------


def test_a_jump_while_no_daemon_ran_is_told_from_time_that_passed(machine: Machine) -> None:
    mark = Clock().mark()
    machine.pass_(DAY)
    machine.wall += HOUR
    clock = Clock()
    assert clock.now() == BEGAN + DAY + HOUR
    clock.resume(mark)
    assert clock.now() == BEGAN + DAY
    assert changes(clock, machine, 1) == [("jumped", HOUR)]


def test_after_a_start_of_the_machine_its_clock_is_believed(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Clock()
    made = before.now_ms()
    follow(before, machine, HOUR)
    mark = before.mark()
    monkeypatch.setattr(clock_module, "_boot", lambda: "another")
    machine.elapsed = 3.0
    machine.wall += DAY
    clock = Clock()
    clock.resume(mark)
    assert clock.now() == machine.wall
    assert clock.skipped_since(made) == HOUR * 1000


@pytest.mark.parametrize("mark", ["", "null", "[]", "{}", '{"boot": 1, "now": "x", "elapsed": 1}'])
def test_a_mark_that_is_none_is_passed_over(machine: Machine, mark: str) -> None:
    clock = Clock()
    clock.resume(mark)
    assert clock.now() == BEGAN
    assert clock.look() is None


def test_a_change_is_a_value() -> None:
    assert ClockChange("jumped", 1.0) == ClockChange("jumped", 1.0)
