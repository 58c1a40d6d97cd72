"""When attempts follow each other."""

from __future__ import annotations

from typing import Any

import pytest

from orchestratord import Backoff
from orchestratord.model.backoff import Fixed
from orchestratord.model.retry_policy import RetryPolicy
from orchestratord.simulate.timetable import timetable
from orchestratord.values.durations import rough_duration


def policy(**keys: Any) -> RetryPolicy:
    return RetryPolicy.model_validate({"backoff": Fixed(delay=10.0), "max_attempts": 4, **keys})


def unexpected(strategy: str, fault: object) -> None:
    raise AssertionError(f"{strategy}: {fault}")


def test_one_wait_between_two_attempts() -> None:
    waits = timetable(policy(jitter=0.2), unexpected)
    assert [wait.after for wait in waits] == [1, 2, 3]
    assert [wait.since for wait in waits] == [10.0, 20.0, 30.0]
    assert {(wait.delay, wait.shortest, wait.longest) for wait in waits} == {(10.0, 8.0, 12.0)}
    assert waits[0].why == "fixed 10s"


def test_one_attempt_has_none() -> None:
    assert timetable(policy(max_attempts=1), unexpected) == []


def test_max_delay_comes_before_jitter() -> None:
    waits = timetable(policy(max_delay=5, jitter=0.1), unexpected)
    assert (waits[0].delay, waits[0].longest) == (5.0, 5.5)


def test_nothing_lies_past_give_up_after() -> None:
    assert len(timetable(policy(give_up_after="20s"), unexpected)) == 2
    assert len(timetable(policy(give_up_after="19s"), unexpected)) == 1


def test_a_strategys_fault_is_told() -> None:
    class Bad(Backoff):
        def seconds(self, n: int) -> float:
            return float("nan")

    faults: list[str] = []
    (wait,) = timetable(
        policy(backoff=Bad(), max_attempts=2), lambda name, fault: faults.append(str(fault))
    )
    assert wait.delay == 5.0
    assert faults == ["returned nan as a delay"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.0456, "45.6ms"),
        (0.9, "900ms"),
        (0.9999, "1s"),
        (1.05, "1.05s"),
        (59.94, "59.9s"),
        (59.96, "1m"),
        (90, "1m 30s"),
        (3600, "1h"),
        (3630, "1h"),
        (5120, "1h 25m"),
        (86400, "1d"),
        (86400 + 60, "1d"),
        (272105, "3d 3h"),
    ],
)
def test_durations_for_people(seconds: float, text: str) -> None:
    assert rough_duration(seconds) == text


def test_a_range_of_one_is_one() -> None:
    assert rough_duration(5, 5) == "5s"
    assert rough_duration(4.5, 5.5) == "4.5s to 5.5s"
