"""When a schedule has its slots: a function of the schedule and the clock alone."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orchestratord.model.endpoint import Schedule
from orchestratord.model.schedule_slots import (
    MOST_RUNS,
    WEEKDAYS,
    is_taken,
    next_free_slot,
    next_slot,
    previous_slot,
    run_before,
    spec,
    splay_offset,
    take,
)

DAY = 86_400_000
PARIS = "Europe/Paris"


def ms(text: str, zone: str = "UTC", fold: int = 0) -> int:
    moment = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)
    return round(moment.timestamp() * 1000)


def local(slot: int | None, zone: str = PARIS) -> str:
    assert slot is not None
    return datetime.fromtimestamp(slot / 1000, ZoneInfo(zone)).isoformat()


def slots(schedule: Schedule, first: str, count: int, zone: str = PARIS) -> list[str]:
    """The next slots after a local time, as local times."""
    found: list[str] = []
    at = ms(first, zone)
    for _ in range(count):
        following = next_slot(schedule, at)
        assert following is not None
        assert following > at
        found.append(local(following, zone))
        at = following
    return found


# -- durations: counted from the Unix epoch -------------------------------------------------------


@pytest.mark.parametrize(
    ("every", "step"), [("15m", 900_000), ("1d", DAY), ("90s", 90_000), (3600.0, 3_600_000)]
)
def test_a_duration_is_anchored_to_the_epoch(every: str | float, step: int) -> None:
    schedule = Schedule(every=every)
    now = ms("2026-11-24T22:07:13.500")
    following = next_slot(schedule, now)
    assert following is not None
    assert following % step == 0
    assert now < following <= now + step
    assert previous_slot(schedule, now) == following - step
    assert next_slot(schedule, following) == following + step
    assert previous_slot(schedule, following) == following


def test_a_day_as_a_duration_is_utc_whatever_the_zone() -> None:
    schedule = Schedule(every="1d", timezone=PARIS)
    assert local(next_slot(schedule, ms("2026-07-01T12:00")), "UTC") == "2026-07-02T00:00:00+00:00"


# -- words ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("every", "at", "first", "expected"),
    [
        ("minute", None, "2026-11-24T22:07:13", ["22:08:00", "22:09:00"]),
        ("hour", None, "2026-11-24T22:07:13", ["23:00:00", "00:00:00"]),
        ("hour", ":30", "2026-11-24T22:07:13", ["22:30:00", "23:30:00"]),
        ("hour", ":05", "2026-11-24T22:07:13", ["23:05:00", "00:05:00"]),
        ("day", None, "2026-11-24T22:07:13", ["00:00:00", "00:00:00"]),
        ("day", "10:30", "2026-11-24T10:29:59", ["10:30:00", "10:30:00"]),
        ("day", "9:05", "2026-11-24T10:29:59", ["09:05:00", "09:05:00"]),
    ],
)
def test_minutes_hours_and_days(
    every: str, at: str | None, first: str, expected: list[str]
) -> None:
    found = slots(Schedule(every=every, at=at, timezone=PARIS), first, len(expected))
    assert [text[11:19] for text in found] == expected


@pytest.mark.parametrize("number", range(7))
def test_days_of_the_week(number: int) -> None:
    schedule = Schedule(every=WEEKDAYS[number], at="10:30", timezone=PARIS)
    found = slots(schedule, "2026-11-24T22:00", 3)
    moments = [datetime.fromisoformat(text) for text in found]
    assert [moment.weekday() for moment in moments] == [number] * 3
    assert [text[11:19] for text in found] == ["10:30:00"] * 3
    assert moments[0] - datetime.fromisoformat("2026-11-24T22:00+01:00") < timedelta(days=7)
    assert moments[2].date() - moments[0].date() == timedelta(days=14)


def test_cron_has_five_fields_in_the_zone() -> None:
    schedule = Schedule(cron="*/15 8-9 * * 1-5", timezone=PARIS)
    found = slots(schedule, "2026-11-27T09:40", 3)  # a Friday
    assert found == [
        "2026-11-27T09:45:00+01:00", "2026-11-30T08:00:00+01:00", "2026-11-30T08:15:00+01:00",
    ]  # fmt: skip


def test_a_leap_day_is_found() -> None:
    schedule = Schedule(cron="0 0 29 2 *")
    assert local(next_slot(schedule, ms("2026-11-24T00:00")), "UTC").startswith("2028-02-29")
    assert local(previous_slot(schedule, ms("2026-11-24T00:00")), "UTC").startswith("2024-02-29")


@pytest.mark.parametrize("at", ["", "10", ":30", "10:", "noon", "10:30:00", "10.30"])
def test_an_at_that_cannot_be_read_is_an_error(at: str) -> None:
    with pytest.raises(ValueError, match="10:30"):
        next_slot(Schedule(every="day", at=at or "x"), 0)


# -- exactly now ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "schedule",
    [
        Schedule(every="15m"),
        Schedule(every="hour", at=":30"),
        Schedule(every="day", at="10:30"),
        Schedule(cron="30 10 * * *"),
        Schedule(every="tuesday", at="10:30"),
    ],
)
def test_a_slot_is_now_for_what_was_and_not_for_what_comes(schedule: Schedule) -> None:
    now = ms("2026-11-24T10:30")
    assert previous_slot(schedule, now) == now
    assert previous_slot(schedule, now + 1) == now
    before = previous_slot(schedule, now - 1)
    assert before is not None
    assert before < now
    assert next_slot(schedule, now - 1) == now
    assert next_slot(schedule, now - 999) == now
    following = next_slot(schedule, now)
    assert following is not None
    assert following > now


# -- the two nights of the year -------------------------------------------------------------------

GAP = "2026-03-29"  # 02:00 to 03:00 does not exist
FOLD = "2026-10-25"  # 02:00 to 03:00 exists twice


def test_a_time_within_the_gap_is_made_up_for_once() -> None:
    schedule = Schedule(every="day", at="02:30", timezone=PARIS)
    assert slots(schedule, "2026-03-28T00:00", 3) == [
        "2026-03-28T02:30:00+01:00", "2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00",
    ]  # fmt: skip
    after = ms("2026-03-29T04:00", PARIS)
    assert local(previous_slot(schedule, after)) == "2026-03-29T03:00:00+02:00"


def test_a_time_within_the_fold_comes_once() -> None:
    schedule = Schedule(every="day", at="02:30", timezone=PARIS)
    assert slots(schedule, "2026-10-24T03:00", 2) == [
        "2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00",
    ]  # fmt: skip


@pytest.mark.parametrize("minute", [0, 29, 30, 31, 59])
def test_within_the_second_hour_of_the_fold(minute: int) -> None:
    """The slot of the first hour is past, and neither comes again nor is forgotten."""
    schedule = Schedule(every="day", at="02:30", timezone=PARIS)
    now = ms(f"{FOLD}T02:{minute:02d}", PARIS, fold=1)
    assert local(previous_slot(schedule, now)) == "2026-10-25T02:30:00+02:00"
    assert local(next_slot(schedule, now)) == "2026-10-26T02:30:00+01:00"


@pytest.mark.parametrize(
    ("zone", "cron", "day", "expected"),
    [
        # 03:45 is 02:45 again, in the middle of an hour.
        (
            "Pacific/Chatham", "*/15 3 * * *", "2026-04-05",
            ["03:00:00+13:45", "03:15:00+13:45", "03:30:00+13:45", "03:00:00+12:45",
             "03:15:00+12:45", "03:30:00+12:45", "03:45:00+12:45"],
        ),
        ("Pacific/Chatham", "*/7 2 * * 0", "2026-04-05", [
            f"02:{minute}:00+13:45" for minute in "00 07 14 21 28 35 42 49 56".split()
        ] + ["02:49:00+12:45", "02:56:00+12:45"]),
        # 02:00 is 01:30 again.
        ("Australia/Lord_Howe", "*/20 3 * * *", "2026-04-05",
         ["03:00:00+10:30", "03:20:00+10:30", "03:40:00+10:30"]),
        # The day begins at 01:00.
        ("Asia/Beirut", "*/20 1 * * 0", "2026-03-29",
         ["01:00:00+03:00", "01:20:00+03:00", "01:40:00+03:00"]),
    ],
)  # fmt: skip
def test_each_slot_of_a_day_whose_hours_are_no_whole_ones(
    zone: str, cron: str, day: str, expected: list[str]
) -> None:
    schedule = Schedule(cron=cron, timezone=zone)
    noon = datetime.fromisoformat(day) - timedelta(hours=12)
    found = slots(schedule, noon.isoformat(), len(expected), zone)
    assert found == [f"{day}T{time}" for time in expected]
    last = round(datetime.fromisoformat(found[-1]).timestamp() * 1000)
    assert local(previous_slot(schedule, last), zone) == found[-1]
    assert local(previous_slot(schedule, last - 1), zone) == found[-2]


def test_an_hourly_slot_comes_in_both_hours_of_the_fold() -> None:
    schedule = Schedule(every="hour", at=":30", timezone=PARIS)
    assert slots(schedule, f"{FOLD}T01:00", 4) == [
        "2026-10-25T01:30:00+02:00", "2026-10-25T02:30:00+02:00",
        "2026-10-25T02:30:00+01:00", "2026-10-25T03:30:00+01:00",
    ]  # fmt: skip
    assert slots(schedule, f"{GAP}T01:00", 2) == [
        "2026-03-29T01:30:00+01:00", "2026-03-29T03:30:00+02:00",
    ]  # fmt: skip


# -- forwards and backwards agree -----------------------------------------------------------------

CHANGES = {
    PARIS: ["2026-03-29T01:00", "2026-10-25T01:00"],
    "America/New_York": ["2026-03-08T07:00", "2026-11-01T06:00"],
    "America/Santiago": ["2026-04-05T03:00", "2026-09-06T04:00"],  # at midnight
    "Pacific/Apia": ["2011-12-30T10:00"],  # by a day
    "Asia/Kathmandu": ["2026-01-01T00:00"],  # never, and a quarter of an hour beside the others
    "Pacific/Chatham": ["2026-04-04T14:00", "2026-09-26T14:00"],  # at a quarter to
    "Asia/Beirut": ["2026-03-28T22:00", "2026-10-24T21:00"],  # at midnight, too
    "UTC": ["2026-01-01T00:00"],
}
"""When the clocks are changed, UTC."""
TIMES = st.tuples(st.sampled_from([0, 1, 2, 3, 23, 12]), st.sampled_from([0, 1, 15, 30, 45, 59]))
SCHEDULES = st.one_of(
    st.sampled_from(["15m", "7m", "1d", "90s"]).map(lambda every: {"every": every}),
    st.integers(0, 59).map(lambda minute: {"every": "hour", "at": f":{minute:02d}"}),
    st.tuples(st.sampled_from(["day", "saturday", "sunday"]), TIMES).map(
        lambda t: {"every": t[0], "at": f"{t[1][0]:02d}:{t[1][1]:02d}"}
    ),
    st.sampled_from(
        ["*/15 * * * *", "0,30 2 * * *", "15,45 1-3 * * *", "0 2,3 * * *", "*/20 2 * * *",
         "5 */6 * * *", "0 0 1 * *", "30 2 29 3 *", "0 0 * * *", "59 23 31 12 *"]
    ).map(lambda cron: {"cron": cron}),
)  # fmt: skip


@st.composite
def schedules_and_times(draw: st.DrawFn) -> tuple[Schedule, int]:
    """A schedule and a time, often within hours of a change of its zone's clocks."""
    zone = draw(st.sampled_from(sorted(CHANGES)))
    change = ms(draw(st.sampled_from(CHANGES[zone])))
    hours = draw(st.sampled_from([3, 30, 24 * 200]))
    at = change + draw(st.integers(-hours * 3_600_000, hours * 3_600_000))
    return Schedule.model_validate({**draw(SCHEDULES), "timezone": zone}), at


@settings(deadline=None, max_examples=400)
@given(schedules_and_times())
def test_next_and_previous_agree(drawn: tuple[Schedule, int]) -> None:
    schedule, at = drawn
    following = next_slot(schedule, at)
    assert following is not None
    assert following > at
    # It is a slot; nothing lies between; and what came before it has it as its next one.
    assert previous_slot(schedule, following) == following
    before = previous_slot(schedule, following - 1)
    assert before is not None
    assert before <= at
    assert before == previous_slot(schedule, at)
    assert next_slot(schedule, before) == following


@settings(deadline=None, max_examples=100)
@given(drawn=schedules_and_times(), data=st.data())
def test_a_walk_meets_each_slot_once(drawn: tuple[Schedule, int], data: st.DataObject) -> None:
    """Whoever looks at any time finds the slots that whoever looked all the time has seen."""
    schedule, start = drawn
    at = start
    seen = []
    for _ in range(12):
        following = next_slot(schedule, at)
        assert following is not None
        seen.append(following)
        at = following
    assert seen == sorted(set(seen))
    looked = data.draw(st.integers(start, at))
    expected = [slot for slot in seen if slot > looked]
    assert next_slot(schedule, looked) == (expected[0] if expected else next_slot(schedule, at))


# -- splay and spec -------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.text(max_size=30), st.floats(0, 86_400))
@example("a/b", 0.0)
def test_splay_is_below_its_bound_and_always_the_same(endpoint: str, splay: float) -> None:
    offset = splay_offset(endpoint, splay)
    assert offset == splay_offset(endpoint, splay)
    assert 0 <= offset <= splay


def test_splay_spreads() -> None:
    offsets = [splay_offset(f"api/endpoint{n}", 60) for n in range(200)]
    for quarter in range(4):
        inside = [offset for offset in offsets if quarter * 15 <= offset < quarter * 15 + 15]
        assert 25 <= len(inside) <= 75


def test_what_the_slots_depend_on_makes_another_spec() -> None:
    day = Schedule(every="day", at="10:30", timezone=PARIS)
    assert spec(day) == spec(day.model_copy(update={"splay": 5.0, "catch_up": False}))
    assert spec(day) == spec(day.model_copy(update={"params": {"a": 1}, "overlap": "allow"}))
    others = [
        day.model_copy(update=change)
        for change in ({"at": "10:31"}, {"timezone": "UTC"}, {"every": "monday"})
    ]
    assert len({spec(day), *map(spec, others)}) == 4
    # The zone matters only where local time does.
    assert spec(Schedule(every="15m", timezone=PARIS)) == spec(Schedule(every="15m"))
    assert spec(Schedule(cron="0 1 * * *", timezone=PARIS)) != spec(Schedule(cron="0 1 * * *"))


class TestTaken:
    MINUTELY = Schedule(every="1m")

    def take(self, *minutes: int, now: int = 10_000) -> list[tuple[int, int]]:
        runs: list[tuple[int, int]] = []
        for minute in minutes:
            runs = take(runs, self.MINUTELY, minute * 60_000, now * 60_000)
        return [(first // 60_000, last // 60_000) for first, last in runs]

    def test_slots_that_follow_each_other_are_one_run(self) -> None:
        assert self.take(5, 6, 7) == [(5, 7)]
        assert self.take(7, 6, 5) == [(5, 7)]
        assert self.take(5, 7) == [(5, 5), (7, 7)]
        assert self.take(5, 7, 6) == [(5, 7)]
        assert self.take(5, 6, 6, 5) == [(5, 6)]

    def test_those_of_another_schedule_are_taken_as_well(self) -> None:
        runs = [(90_000, 210_000)]
        assert take(runs, self.MINUTELY, 240_000, 0) == [(90_000, 240_000)]
        assert is_taken(runs, 120_000)
        assert not is_taken(runs, 60_000)

    def test_old_ones_become_one(self) -> None:
        odd = range(1, 2 * MOST_RUNS + 4, 2)
        runs = self.take(*odd)
        assert len(runs) == MOST_RUNS
        assert runs[0] == (1, 5)
        # What lies ahead stays apart, however much it is.
        assert len(self.take(*odd, now=2)) == len(odd)

    def test_the_next_one_that_is_free(self) -> None:
        runs = [(60_000, 120_000), (180_000, 240_000), (360_000, 360_000)]
        assert next_free_slot(runs, self.MINUTELY, 30_000) == 300_000
        assert next_free_slot(runs, self.MINUTELY, 300_000) == 420_000
        assert next_free_slot([], self.MINUTELY, 30_000) == 60_000
        assert [run_before(runs, at) for at in (0, 60_000, 170_000)] == [None, runs[0], runs[0]]
