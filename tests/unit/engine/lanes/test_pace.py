"""The pace: what a receiver is sent that refuses, simulated with a clock that is turned."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from itertools import pairwise
from random import Random

import pytest

from orchestratord.engine.lanes.pace import AGAIN_MS, ANY, QUIET_MS, WINDOW_MS, Pace

SERVES = 200
"""Tasks a second."""

Takes = Callable[[int, int], bool]
"""Whether a receiver takes a request at this time, of a task that was tried so often before."""


def at_random(share: float, until: int = 1 << 60) -> Takes:
    """Refuses this share of whatever it is sent."""
    chance = Random(3)
    return lambda now, tries: now >= until or chance.random() >= share


def by_the_sliding_second(serves: Callable[[int], int] = lambda now: SERVES) -> Takes:
    served = deque[int]()

    def takes(now: int, tries: int) -> bool:
        while served and served[0] <= now - 1000:
            served.popleft()
        if len(served) >= serves(now):
            return False
        served.append(now)
        return True

    return takes


def by_the_second() -> Takes:
    """So many in each second of its clock."""
    served = deque[int]()

    def takes(now: int, tries: int) -> bool:
        while served and served[0] // 1000 != now // 1000:
            served.popleft()
        if len(served) >= SERVES:
            return False
        served.append(now)
        return True

    return takes


def bucket(size: int) -> Takes:
    """A bucket that is filled while it is used."""
    left, at = float(size), 0

    def takes(now: int, tries: int) -> bool:
        nonlocal left, at
        left, at = min(left + (now - at) * SERVES / 1000, float(size)), now
        if left < 1:
            return False
        left -= 1
        return True

    return takes


class Run:
    """What became of tasks that were due at these times (milliseconds).

    Args:
        takes: the receiver.
        due: when the tasks are due.
        paces: one a daemon; none where nothing slows them.
        apart: milliseconds between the begins of two tasks of a daemon at least.
        delay: seconds of the first backoff, which doubles.
        latency: milliseconds of an answer.
    """

    def __init__(
        self,
        takes: Takes,
        due: Iterable[int],
        paces: int = 1,
        *,
        apart: float = 0.4,
        delay: float = 5.0,
        latency: int = 1,
    ) -> None:
        chance = Random(1)
        lanes = [_Lane(Pace(0)) for _ in range(paces)] or [_Lane(None)]
        for number, at in enumerate(due):
            heapq.heappush(lanes[number % len(lanes)].waiting, (at, number, 0))
        self.requests = self.refused = self.late = self.ended = 0
        left, now = sum(len(lane.waiting) for lane in lanes), 0
        self.rates: list[float | None] = []
        while left:
            for lane in lanes:
                while lane.flight and lane.flight[0][0] <= now:
                    _, began, number, tries, taken = heapq.heappop(lane.flight)
                    if lane.pace is not None:
                        others = bool(lane.waiting) and lane.waiting[0][0] <= now
                        lane.pace.note(now, began, tries + 1, refused=not taken, due=others)
                        self.rates.append(lane.pace.rate)
                    if taken:
                        left, self.ended = left - 1, now
                        continue
                    self.refused += 1
                    wait = delay * 2**tries * (0.9 + 0.2 * chance.random()) * 1000
                    heapq.heappush(lane.waiting, (now + round(wait), number, tries + 1))
                room = 10 - len(lane.flight)
                if lane.pace is not None:
                    room = min(room, lane.pace.room(now))
                room = min(room, int(lane.free(now, apart)))
                while room > 0 and lane.waiting and lane.waiting[0][0] <= now:
                    was_due, number, tries = heapq.heappop(lane.waiting)
                    if lane.pace is not None:
                        lane.pace.take(1, now)
                    lane.used += 1
                    self.late += now - was_due > 100
                    self.requests += 1
                    taken = takes(now, tries)
                    heapq.heappush(lane.flight, (now + latency, now, number, tries, taken))
                    room -= 1
            now += 1

    @property
    def shed(self) -> float:
        """The share of the requests that was refused."""
        return self.refused / self.requests


class _Lane:
    def __init__(self, pace: Pace | None) -> None:
        self.pace = pace
        self.waiting: list[tuple[int, int, int]] = []
        self.flight: list[tuple[int, int, int, int, bool]] = []
        self.used = 0.0

    def free(self, now: int, apart: float) -> float:
        """How many may begin, where each takes its time."""
        self.used = max(self.used, now / apart - 10)
        return now / apart - self.used


@pytest.mark.parametrize(
    "receiver",
    [by_the_second, by_the_sliding_second, partial(bucket, 20), partial(bucket, SERVES)],
)
@pytest.mark.parametrize("apart", [2.5, 0.4, 0.2])
def test_an_overloaded_receiver_gets_what_it_serves(
    receiver: Callable[[], Takes], apart: float
) -> None:
    run = Run(receiver(), [0] * 8_000, apart=apart)
    assert run.ended <= 1.45 * 8_000 / SERVES * 1000
    assert run.shed <= 0.2  # the first second is a fortieth of it all


@pytest.mark.parametrize("apart", [1.25, 0.2])
def test_twenty_thousand_take_a_tenth_longer_and_a_tenth_is_refused(apart: float) -> None:
    run = Run(by_the_sliding_second(), [0] * 20_000, apart=apart)
    assert run.ended <= 1.2 * 20_000 / SERVES * 1000
    assert run.shed < 0.1


@pytest.mark.parametrize("daemons", [2, 4])
def test_several_daemons_are_no_worse_than_without_a_pace(daemons: int) -> None:
    run = Run(by_the_sliding_second(), [0] * 8_000, daemons)
    without = Run(by_the_sliding_second(), [0] * 8_000, 0)
    assert run.ended <= without.ended
    assert run.shed <= without.shed


@pytest.mark.parametrize("share", [0.01, 0.05, 0.1, 0.3])
@pytest.mark.parametrize("delay", [0.1, 5.0])
@pytest.mark.parametrize("apart", [2.5, 0.7, 0.2])
def test_what_refuses_at_random_is_not_slowed(share: float, delay: float, apart: float) -> None:
    """It takes as long as where the same share is answered 500, of which no pace hears."""
    run = Run(at_random(share), [0] * 3_000, apart=apart, delay=delay)
    assert run.ended <= Run(at_random(share), [0] * 3_000, 0, apart=apart, delay=delay).ended / 0.9


def test_where_a_cut_is_in_vain_it_is_tried_again_after_half_a_minute() -> None:
    pace, now = Pace(0), 0
    slowed: list[int] = []
    chance = Random(5)
    while now < 70_000:
        now += 5
        before = pace.rate
        pace.note(now, now - 1, 1, refused=chance.random() < 0.3, due=True)
        if pace.rate is not None and (before is None or pace.rate < before):
            slowed.append(now)
    assert len(slowed) == 3
    assert all(b - a >= AGAIN_MS for a, b in pairwise(slowed))


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_a_lane_with_nothing_due_waits_for_nothing(share: float) -> None:
    run = Run(at_random(share), range(0, 60_000, 50), latency=20)
    assert run.late == 0


@pytest.mark.parametrize("delay", [0.2, 5.0])
@pytest.mark.parametrize("apart", [3.0, 0.4])
@pytest.mark.parametrize("times", [1, 2])
def test_each_first_attempt_is_refused(delay: float, apart: float, times: int) -> None:
    def takes(now: int, tries: int) -> bool:
        return tries >= times

    due = [*[0] * 3_000, *range(0, 10_000, 5)]
    run, without = (Run(takes, due, paces, apart=apart, delay=delay) for paces in (1, 0))
    assert run.ended <= 1.1 * without.ended


def test_the_full_rate_is_back_once_the_refusals_end() -> None:
    pace, now, due = Pace(0), 0, by_the_sliding_second(lambda at: SERVES if at < 30_000 else ANY)
    unlimited = 0
    while now < 60_000 and not unlimited:
        now += 1
        for _ in range(min(pace.room(now), 1)):
            pace.take(1, now)
            pace.note(now, now, 1, refused=not due(now, 0), due=True)
        if now > 30_000 and pace.rate is None:
            unlimited = now
    assert 30_000 < unlimited <= 45_000


def test_a_receiver_that_changes_what_it_takes() -> None:
    serves = by_the_sliding_second(lambda at: 200 if at < 20_000 else 50 if at < 40_000 else 400)
    run = Run(serves, [0] * 9_000)
    assert run.ended <= 70_000
    assert run.shed <= 0.25


def test_nothing_served_is_the_breakers_matter() -> None:
    pace = Pace(0)
    for now in range(1, 20_000, 2):
        pace.note(now, now - 1, 1, refused=True, due=True)
    assert pace.rate is None


def test_what_began_before_a_cut_says_nothing_of_it() -> None:
    pace = Pace(0)
    for now in range(1, 1_000):
        pace.note(now, now - 1, 1, refused=now % 5 > 0, due=True)
    assert pace.rate is not None
    rate = pace.rate
    cut_at = next(now for now in range(1, 1_000) if now >= pace.since)
    for now in range(1_000, 1_500):
        assert not pace.note(now, cut_at - 1, 1, refused=True, due=True)
    assert pace.rate == rate


def test_nothing_due_ends_it_and_without_refusals_it_is_forgotten() -> None:
    pace = Pace(0)
    for now in range(1, 600):
        pace.note(now, now - 1, 1, refused=now % 5 > 0, due=True)
    assert pace.rate is not None
    assert not pace.is_over(1 << 40)
    pace.note(600, 599, 1, refused=True, due=False)
    assert pace.rate is None
    assert pace.room(600) == ANY
    assert not pace.is_over(600 + QUIET_MS - 1)
    assert pace.is_over(600 + QUIET_MS)


def slowed(rate: float, now: int = 0) -> Pace:
    """A pace of so many a second."""
    pace = Pace(now)
    pace._set(rate, now)
    return pace


@pytest.mark.parametrize("rate", [1.0, 7.5, 60.0, 2_000.0])
def test_so_many_begin_in_a_second(rate: float) -> None:
    pace, begun = slowed(rate), 0
    for now in range(10 * WINDOW_MS):
        if room := pace.room(now):
            pace.take(room, now)
            begun += room
    assert begun == pytest.approx(10 * rate, rel=0.05, abs=2)


def test_what_is_not_used_is_lost_and_a_clock_that_is_put_back_takes_it_along() -> None:
    pace = slowed(10, 1_000)
    assert pace.room(60_000) <= 2
    pace.take(2, 60_000)
    assert pace.room(60_000) == 0
    pace.return_token(1)
    assert pace.room(60_000) == 1
    pace.take(1, 60_000)
    pace.shift(-50_000)
    assert pace.next_at(10_000) <= 10_300
