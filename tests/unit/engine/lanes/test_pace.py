"""The pace: what a receiver is sent that takes less, simulated with a clock that is turned."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from random import Random

import pytest

from orchestratord.engine.lanes.pace import (
    FORGOTTEN_MS,
    GENTLE,
    IN_VAIN_AFTER_MS,
    QUIET_MS,
    SLOWEST,
    Pace,
    Served,
)

SERVES = 200
"""Tasks a second."""
LATENCY = 3
"""Milliseconds of an answer, and of a claim."""


def by_the_second(served: deque[int], now: int) -> bool:
    """Whether a receiver takes one more: so many in each second of its clock."""
    while served and served[0] // 1000 != now // 1000:
        served.popleft()
    return len(served) < SERVES


def by_the_sliding_second(served: deque[int], now: int) -> bool:
    while served and served[0] <= now - 1000:
        served.popleft()
    return len(served) < SERVES


class Bucket:
    """A bucket of twenty that is filled while it is used."""

    def __init__(self) -> None:
        self.left, self.at = 20.0, 0

    def __call__(self, served: deque[int], now: int) -> bool:
        self.left = min(self.left + (now - self.at) * SERVES / 1000, 20.0)
        self.at = now
        if self.left < 1:
            return False
        self.left -= 1
        return True


class Run:
    """What became of `tasks` that were due at once."""

    def __init__(self, takes: Callable[[deque[int], int], bool], tasks: int) -> None:
        self.requests: list[int] = []
        self.refused = 0
        self.ended = 0
        """When the last one was done."""
        chance, served, measured = Random(1), deque[int](), Served()
        pace: Pace | None = None
        due = [(0, number, 0) for number in range(tasks)]
        flight: list[tuple[int, int, int, int, bool]] = []
        now, done, quiet = 500, 0, QUIET_MS  # in the middle of the receiver's second
        while done < tasks:
            while flight and flight[0][0] <= now:
                _, began, number, tries, accepted = heapq.heappop(flight)
                measured.tried(now, served=accepted)
                if accepted:
                    done += 1
                    self.ended = now
                    continue
                self.refused += 1
                measured.refused_at = now
                delay = 5_000 * 2**tries * (0.9 + 0.2 * chance.random())
                heapq.heappush(due, (now + round(delay), number, tries + 1))
                rate, sure = measured.rate(now)
                if pace is None:
                    pace = Pace.overloaded(now, rate, sure=sure)
                else:
                    pace.refused(now, began, rate, sure=sure)
            if pace is not None and pace.over(now):
                pace = None
            if pace is not None and pace.has_room_left(now) and now - measured.refused_at >= quiet:
                quiet *= 2
                due = sorted((now, number, tries) for _, number, tries in due)
            room = 10 - len(flight)
            if pace is not None:
                room = min(room, pace.room(now))
            while room > 0 and due and due[0][0] <= now:
                _, number, tries = heapq.heappop(due)
                if pace is not None:
                    pace.take(1, now)
                at = now + LATENCY
                accepted = takes(served, at)
                if accepted:
                    served.append(at)
                self.requests.append(at)
                heapq.heappush(flight, (at + LATENCY, now, number, tries, accepted))
                room -= 1
            now += chance.choice((1, 1, 1, 2, 5))  # the worker comes when it can

    def peak(self) -> int:
        """Requests of the busiest second."""
        most, first = 0, 0
        for last, at in enumerate(self.requests):
            while self.requests[first] <= at - 1000:
                first += 1
            most = max(most, last - first + 1)
        return most


@pytest.mark.parametrize("takes", [by_the_second, by_the_sliding_second, Bucket()])
def test_an_overloaded_receiver_gets_what_it_serves(
    takes: Callable[[deque[int], int], bool],
) -> None:
    run = Run(takes, 20_000)
    assert run.ended <= 1.2 * 20_000 / SERVES * 1000
    assert run.refused <= 0.1 * len(run.requests)
    assert run.peak() <= 1.5 * SERVES


def test_it_is_halved_and_comes_back() -> None:
    pace = Pace.overloaded(1_000, 100, sure=True)
    assert pace.rate == 50
    assert pace.room(1_019) == 0
    assert pace.next_at(1_001) == 1_021
    assert pace.room(1_021) == 1
    pace.take(15, 1_021)  # what goes within the time that it takes to come back
    assert pace.rate == 95
    pace.take(285, 1_021)
    assert pace.rate == pytest.approx(100)
    pace.take(100, 1_021)
    assert pace.rate == pytest.approx(200)


def test_what_began_before_it_was_halved_does_not_halve_it_again() -> None:
    pace = Pace.overloaded(1_000, 100, sure=True)
    assert not pace.refused(1_010, 999, 100, sure=True)
    assert pace.refused(1_020, 1_005, 100, sure=True)
    assert pace.rate == 25
    for now in range(1_021, 1_040):
        pace.refused(now, now, 0, sure=True)
    assert pace.rate == SLOWEST
    assert pace.served == 100  # what it took a moment ago


def test_what_refuses_as_many_of_few_as_of_many_is_not_overloaded() -> None:
    pace = Pace.overloaded(0, 100, sure=True)
    now = 0
    while not pace.is_in_vain:
        assert now < IN_VAIN_AFTER_MS + 5_000
        now = pace.next_at(now)
        pace.take(pace.room(now), now)
        if now % 3:
            pace.refused(now, now, pace.rate / 2, sure=True)
    assert now >= IN_VAIN_AFTER_MS
    pace = Pace.overloaded(0, 100, sure=True)
    for now in range(0, 60_000, 500):  # it serves what it is said to
        pace.take(30, now)
        pace.refused(now, now, 100, sure=True)
        assert not pace.is_in_vain


def test_a_pace_that_is_not_needed_is_over() -> None:
    pace = Pace.overloaded(0, 100, sure=True)
    assert not pace.over(FORGOTTEN_MS - 1)
    assert pace.over(FORGOTTEN_MS)
    pace.take(10_000, 1)
    assert pace.over(1)


def test_after_a_pause_it_begins_gently() -> None:
    pace = Pace.after_a_pause(0, 0)
    assert pace.rate == GENTLE
    assert pace.room(0) == 1
    pace.take(1, 0)
    assert pace.room(1) == 0
    pace.take(20, 1)
    assert pace.rate > 2 * GENTLE
    assert Pace.after_a_pause(0, 300).rate == 150


def test_what_is_not_used_is_lost_and_a_clock_that_is_put_back_holds_up_nothing() -> None:
    pace = Pace.overloaded(0, 100, sure=True)
    assert pace.room(5_000) == 5  # a tenth of a second's
    assert pace.has_room_left(5_000)
    pace.take(5, 5_000)
    assert not pace.has_room_left(5_000)
    assert pace.room(5_001) == 0
    pace.shift(1_000)
    assert pace.room(6_001) == 0
    assert pace.room(10) == 1


def test_what_was_served_is_counted_by_the_second() -> None:
    served = Served()
    for now in range(0, 1_000, 10):
        served.tried(now, served=True)
    assert served.rate(999) == (100, False)
    assert served.rate(1_500) == (50, True)
    served.tried(1_500, served=False)
    assert served.rate(5_000) == (0, False)
    assert served.last_rate == 100
