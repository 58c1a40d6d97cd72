"""Rate limits: what they are written as, and that no window ever holds more than they say."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestratord.values.rate_limit import EXACT, MOST_AHEAD, RateLimit, RateWindow


@pytest.mark.parametrize(
    ("written", "times", "unit"),
    [("10/s", 10, "s"), ("100/min", 100, "min"), ("5000/h", 5000, "h"), ("1/second", 1, "s"),
     (" 7 / minute ", 7, "min"), ("5000/d", 5000, "d"),
     ("9/day", 9, "d"), ("3/hour", 3, "h"), ("60/m", 60, "min")],
)  # fmt: skip
def test_limits_are_read_and_written(written: str, times: int, unit: str) -> None:
    limit = RateLimit.parse(written)
    assert limit == RateLimit(times, unit)
    assert RateLimit.parse(str(limit)) == limit


@pytest.mark.parametrize(
    "wrong", ["", "10", "0/s", "0.5/s", "10/w", "-1/s", "10/ms", "1e3/s", 10, None, "9999999/h"]
)
def test_what_is_no_limit_says_what_one_is(wrong: object) -> None:
    with pytest.raises(
        ValueError, match="whole number of times a second, minute, hour or day, such as"
    ):
        RateLimit.parse(wrong)


def test_what_was_free_goes_at_once_and_then_nothing_for_a_window() -> None:
    window = RateWindow(RateLimit.parse("100/min"))
    assert window.free(0) == 100
    window.charge(100, 0)
    assert window.free(60_999) == 0
    assert window.next_free(10) == 61_000
    assert window.next_free(61_000) == 61_000
    assert window.free(61_000) == 100


def test_more_than_a_hundred_are_gathered_in_a_hundred_parts() -> None:
    window = RateWindow(RateLimit.parse("5000/h"))
    for now in range(0, 3_600_000, 1_000):
        window.charge(1, now)
    assert window.used == 3_600
    assert len(window._stamps) <= EXACT + 1
    assert window.free(3_600_000) == 1_400


DAY = 86_400_000


def test_a_day_is_gathered_in_parts_that_never_lie_ahead() -> None:
    window = RateWindow(RateLimit.parse("5000/d"))
    for now in range(0, DAY, 20_000):
        window.charge(1, now)
        assert window._stamps[-1][0] <= now
    assert window.used == 4_320
    assert len(window._stamps) <= EXACT + 1
    part = DAY // EXACT
    # What began first in a part is free no earlier than what began last in it.
    assert window.free(DAY + 1_000) == 680
    assert window.free(DAY + part + 1_000) == 680 + 44


@settings(max_examples=50)
@given(st.data(), st.sampled_from([3, 150]))
def test_no_day_has_more_than_its_limit(data: st.DataObject, times: int) -> None:
    window = RateWindow(RateLimit(times, "d"))
    began: list[int] = []
    now = data.draw(st.integers(0, 10**12))
    for _ in range(60):
        now += data.draw(st.sampled_from([0, 1, 1_000, 60_000, 900_000, 7_200_000, DAY - 1, DAY]))
        count = window.free(now)
        window.charge(count, now)
        began += [now] * count
        # As after a restart: only what is written down is known.
        window = RateWindow(window.limit, window.stamps(now))
        assert sum(1 for at in began if now - DAY < at <= now) <= times


def test_what_was_not_used_can_be_charged_again() -> None:
    window = RateWindow(RateLimit.parse("3/s"))
    window.charge(1, 0)
    window.charge(2, 500)
    window.return_token(1, 600, 500)
    assert window.free(600) == 1
    window.charge(1, 600)
    # The one of the beginning was struck out for it: nothing is let through too early.
    assert window.free(1_060) == 0
    assert window.next_free(1_060) == 1_550


def test_what_counts_no_longer_is_not_given_back() -> None:
    window = RateWindow(RateLimit.parse("1/s"))
    window.charge(1, 0)
    window.charge(1, 1_050)
    window.return_token(1, 1_060, 0)
    assert window.free(1_060) == 0


def test_what_is_reserved_counts_from_when_it_begins() -> None:
    window = RateWindow(RateLimit.parse("2/s"))
    window.reserve(2)
    assert window.free(0) == 0
    assert window.next_free(0) is None
    window.begin(300)
    assert window.next_free(300) == 1_350
    window.return_token(1, 300)
    assert window.next_free(300) == 300
    window.return_token(5, 300)
    assert window.free(1_350) == 2


def test_one_that_begins_late_counts_from_when_it_does() -> None:
    window = RateWindow(RateLimit.parse("2/s"))
    window.charge(2, 0)
    assert window.postpone(0, 300, 350) == 0
    assert window.free(1_050) == 1
    assert window.next_free(1_300) == 1_300
    window.charge(1, 1_300)
    assert (window.free(1_399), window.free(1_400)) == (0, 1)
    # What has begun in its place keeps it waiting, once it counts no longer.
    window.charge(1, 1_400)
    assert window.postpone(0, 1_400, 1_450) == 950
    assert window.postpone(0, 2_350, 2_400) == 0
    assert (window.used, window.free(2_350)) == (2, 0)


def test_one_that_is_to_begin_counts_ahead_of_time() -> None:
    window = RateWindow(RateLimit.parse("1/s"))
    window.charge(1, 0)
    assert window.postpone(0, 40, MOST_AHEAD) == 0
    assert window.next_free(50) == MOST_AHEAD + 1_050


def test_where_others_have_taken_the_rest_nothing_is_free() -> None:
    window = RateWindow(RateLimit.parse("3/s"))
    window.charge(1, 0)
    window.used_up(700)
    assert (window.free(699), window.next_free(10)) == (0, 700)
    assert window.free(700) == 2
    window.used_up(10_000_000)  # by a clock that was put back since
    assert window.free(800) == 2


def test_another_limit_counts_what_went_before() -> None:
    window = RateWindow(RateLimit.parse("3/s"))
    window.charge(3, 0)
    window.adopt(RateLimit.parse("5/min"))
    assert window.free(30_000) == 2
    window.adopt(RateLimit.parse("1/min"))
    assert window.free(30_000) == 0
    assert window.next_free(30_000) == 61_000


def test_a_clock_that_is_put_back_costs_one_window_at_most() -> None:
    window = RateWindow(RateLimit.parse("2/s"))
    window.charge(2, 10_000_000)
    assert window.free(5_000) == 0
    assert window.next_free(5_000) == 6_050
    assert window.free(6_050) == 2


@settings(deadline=None)
@given(
    limit=st.sampled_from(["1/s", "3/s", "100/s", "140/s", "999/s"]),
    steps=st.lists(
        st.tuples(st.integers(-300, 1_200), st.integers(1, 1_200), st.integers(0, 600)),
        max_size=60,
    ),
)
def test_no_window_ever_holds_more_than_the_limit(
    limit: str, steps: list[tuple[int, int, int]]
) -> None:
    """Whatever is asked for, given back, and done to the clock; seen by a clock that goes right."""
    rate = RateLimit.parse(limit)
    window = RateWindow(rate)
    now, true = 10_000, 0
    used: list[tuple[int, int]] = []
    for passes, wanted, unused in steps:
        now += passes
        true += max(passes, 0)
        free = window.free(now)
        if free == 0:
            after = window.next_free(now)
            assert after is not None
            assert after > now
            assert window.free(after - 1) == 0  # and not a moment earlier than it is
            assert 1 <= window.free(after) <= rate.times
            true, now = true + after - now, after
            free = window.free(now)
        taken = min(wanted, free)
        window.charge(taken, now)
        unused = min(unused, taken)
        window.return_token(unused, now, now)
        used.append((true, taken - unused))
        assert sum(count for at, count in used if at > true - rate.window) <= rate.times
        assert window.used == sum(count for _, count in window._stamps)
