"""The breaker: what opens it, what does not, and how it finds out that the receiver is back."""

from __future__ import annotations

import random

import pytest
from failing import failed

from orchestratord.engine.lanes.breaker import (
    FIRST_PAUSE_MS,
    LASTING_MS,
    LEAST,
    STEADY_PAUSE_MS,
    WINDOW_MS,
    Breaker,
    is_down,
)
from orchestratord.engine.lanes.pace import ANY
from orchestratord.engine.lanes.throttle import Throttle
from orchestratord.errors import SendError
from orchestratord.model.outcome import Outcome
from orchestratord.testing import answered, unanswered
from orchestratord.values.rate_limit import RateLimit
from orchestratord.values.status_set import StatusSet

DENIED = Outcome.from_error(
    SendError("10.0.0.1 is private", kind="egress", sent=False), when=StatusSet.parse("error")
)


@pytest.mark.parametrize(
    ("outcome", "down"),
    [(answered(200), False), (answered(301), False), (answered(404), False), (answered(429), False),
     (answered(500), True), (answered(501), False), (answered(503), True), (answered(522), True),
     (unanswered(), True), (unanswered("no answer came in time", sent=True), True),
     (unanswered().failure("UNIQUE constraint failed"), False), (DENIED, False),
     (answered(503).success(), False), (answered(503).failure(), True),
     (answered(503).failure(reason="rejected"), True), (answered(200).failure(), False)],
)  # fmt: skip
def test_what_says_that_a_receiver_is_down(outcome: Outcome, down: bool) -> None:
    """Not what it has against one request, nor what was not sent to it."""
    assert is_down(outcome) is down


def opened(now: int = 0) -> Breaker:
    breaker = Breaker(now)
    assert not failed(breaker, now - LASTING_MS, "503")
    more = [failed(breaker, now, "503") for _ in range(LEAST - 1)]
    assert more == [False] * (LEAST - 2) + [True]
    return breaker


def test_it_opens_when_all_has_failed() -> None:
    breaker = opened(1_000)
    assert breaker.opened_at == 1_000
    assert breaker.next_probe == 1_000 + FIRST_PAUSE_MS
    assert not failed(breaker, 1_001, "what was under way already")
    assert breaker.next_probe == 1_000 + FIRST_PAUSE_MS


def test_what_lasts_for_a_moment_does_not_open_it() -> None:
    breaker = Breaker(0)
    assert not any(failed(breaker, now, "503") for now in range(LASTING_MS))
    assert failed(breaker, LASTING_MS, "503")


def test_a_clock_that_is_put_back_opens_nothing() -> None:
    breaker = Breaker(10_000_000)
    failed(breaker, 10_000_000, "503")
    assert not any(failed(breaker, now, "503") for now in range(LASTING_MS))


def test_one_answer_of_ten_keeps_it_open_to_doubt() -> None:
    """Where a tenth and more is answered, it never opens."""
    breaker = Breaker(0)
    for now in range(0, 600_000, 100):
        if now % 900 == 0:
            breaker.answered(now)
        else:
            assert not failed(breaker, now, "503")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.7])
def test_a_flaky_receiver_is_hardly_ever_taken_for_one_that_is_down(share: float) -> None:
    """A day of attempts, ten and a thousand a minute: how long tasks had to wait for it."""
    for every in (6_000, 60):
        chance = random.Random(11)
        breaker, waited = Breaker(0), 0
        for now in range(0, 86_400_000, every):
            if breaker.opened_at is not None:
                if now < breaker.next_probe:
                    waited += every
                elif chance.random() < share:
                    breaker.probe_failed(now, "503")
                else:
                    breaker.answered(now)
            elif chance.random() < share:
                failed(breaker, now, "503")
            else:
                breaker.answered(now)
        assert waited < 60_000, f"{waited} ms of a day"


def test_failures_of_long_ago_do_not_count() -> None:
    breaker = Breaker(0)
    for n in range(10 * LEAST):
        assert not failed(breaker, n * WINDOW_MS // LEAST * 2, "503")
    assert not breaker.quiet(n * WINDOW_MS // LEAST * 2)
    assert breaker.quiet(n * WINDOW_MS // LEAST * 2 + 2 * WINDOW_MS)


def test_pauses_between_probes_grow_up_to_ten_seconds() -> None:
    breaker = opened(0)
    pauses = []
    now = breaker.next_probe
    for _ in range(9):
        breaker.probe_failed(now, "503")
        pauses.append(breaker.next_probe - now)
        now = breaker.next_probe
    assert pauses == [1_000, 2_000, 4_000, 8_000] + [STEADY_PAUSE_MS] * 5
    assert breaker.probes == 9


@pytest.mark.parametrize(("hours", "seconds"), [(0.1, 10), (0.25, 15), (0.5, 30), (24, 30)])
def test_the_longer_it_lasts_the_longer_are_the_pauses(hours: float, seconds: int) -> None:
    breaker = opened(0)
    for now in range(5):
        breaker.probe_failed(now, "503")
    now = int(hours * 3_600_000)
    breaker.probe_failed(now, "503")
    assert breaker.next_probe - now == seconds * 1_000


def test_an_answer_closes_it_and_nothing_of_before_counts() -> None:
    breaker = opened(0)
    assert breaker.answered(5_000)
    assert breaker.opened_at is None
    assert breaker.quiet(5_000)
    assert not breaker.answered(5_001)
    assert not any(failed(breaker, 5_002, "503") for _ in range(LEAST - 1))


def test_a_clock_that_is_put_back_does_not_keep_a_probe_waiting() -> None:
    throttle = Throttle(0)
    throttle.breaker = opened(10_000_000)
    assert throttle.room(50) == 1
    assert throttle.opens_at(50) == 50


# -- the throttle ---------------------------------------------------------------------------------


def only_probes_pass(now: int = 0) -> Throttle:
    throttle = Throttle(now)
    throttle.breaker = opened(now)
    return throttle


def test_one_probe_passes_at_a_time() -> None:
    throttle = only_probes_pass()
    assert throttle.room(FIRST_PAUSE_MS - 1) == 0
    assert throttle.opens_at(0) == FIRST_PAUSE_MS
    assert throttle.room(FIRST_PAUSE_MS) == 1
    assert throttle.take(1, FIRST_PAUSE_MS)
    assert throttle.room(10_000_000) == 0
    assert throttle.opens_at(10_000_000) is None
    throttle.probe = 7
    assert throttle.admits(7, 600)
    assert not throttle.admits(8, 600)
    throttle.probe_over()
    throttle.breaker.probe_failed(600, "503")
    assert throttle.room(600) == 0
    assert throttle.opens_at(600) == 1_600


def test_by_hand_one_passes_at_once() -> None:
    throttle = only_probes_pass()
    throttle.by_hand = True
    assert throttle.room(0) == 1
    assert throttle.opens_at(0) == 0
    assert throttle.take(1, 0)
    assert not throttle.by_hand


def test_who_has_said_when_to_come_back_is_not_asked_before() -> None:
    throttle = only_probes_pass()
    throttle.wait_until(90_000, "503 with Retry-After")
    throttle.wait_until(60_000, "an earlier one counts no more")
    assert throttle.room(89_999) == 0
    assert throttle.opens_at(1) == 90_000
    assert throttle.room(90_000) == 1


def test_once_a_hold_is_over_nothing_waits() -> None:
    throttle = Throttle(0)
    throttle.wait_until(5_000, "429 with Retry-After")
    assert throttle.probes_only(4_999)
    assert not throttle.idle(4_999)
    assert throttle.room(4_999) == 0
    assert throttle.room(5_000) == ANY
    throttle.over = None  # as it is told of
    assert throttle.idle(5_000)


def test_what_failed_within_the_window_before_it_opened_counts() -> None:
    breaker = Breaker(0)
    breaker.open(500_000, 500_000, "503")
    assert breaker.failing_since == 500_000 - WINDOW_MS
    breaker.shift(-1_000)
    assert breaker.failing_since == 499_000 - WINDOW_MS


def test_the_rate_counts_for_probes_too() -> None:
    throttle = only_probes_pass()
    throttle.limit(RateLimit.parse("1/min"))
    assert throttle.take(1, FIRST_PAUSE_MS)
    throttle.probe_over()
    assert throttle.window is not None
    assert throttle.opens_at(FIRST_PAUSE_MS) is None
    throttle.window.begin(FIRST_PAUSE_MS)
    assert throttle.room(30_000) == 0
    assert throttle.opens_at(30_000) == FIRST_PAUSE_MS + 61_000
    throttle.limit(None)
    assert throttle.window is None
