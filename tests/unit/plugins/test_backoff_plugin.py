from __future__ import annotations

import math

import orchestratord_backoff
import pytest
from pydantic import ValidationError

from orchestratord.testing import Rig


@pytest.fixture
def backoffs() -> Rig:
    return Rig(orchestratord_backoff, name="backoff")


def test_linear(backoffs: Rig) -> None:
    linear = backoffs.backoff("linear", delay="2s")
    assert [linear.seconds(n) for n in (1, 2, 3, 10)] == [2, 4, 6, 20]
    assert backoffs.backoff("linear").explain(3) == "linear 5s·3=15s"


def test_exponential(backoffs: Rig) -> None:
    exponential = backoffs.backoff("exponential")
    assert [exponential.seconds(n) for n in (1, 2, 3, 4)] == [5, 10, 20, 40]
    assert exponential.explain(3) == "exponential 5s·2^2=20s"
    gentle = backoffs.backoff("exponential", delay="1m", factor=1.5)
    assert gentle.seconds(3) == 135
    assert gentle.explain(3) == "exponential 1m·1.5^2=135s"


def test_exponential_does_not_overflow(backoffs: Rig) -> None:
    endless = backoffs.backoff("exponential", factor=10)
    assert endless.seconds(1000) == math.inf
    assert endless.explain(1000) == "exponential 5s·10^999=∞"
    assert backoffs.backoff("exponential", delay=0).seconds(100_000) == 0
    assert backoffs.backoff("exponential", factor=0.5).seconds(100_000) == 0


def test_list_repeats_its_last_delay(backoffs: Rig) -> None:
    listed = backoffs.backoff("list", delays=["5s", "5m", "30m"])
    assert [listed.seconds(n) for n in (1, 2, 3, 4, 99)] == [5, 300, 1800, 1800, 1800]
    assert listed.explain(2) == "list[2]=5m"
    assert listed.explain(99) == "list[3]=30m"


@pytest.mark.parametrize(
    ("strategy", "options", "key"),
    [
        ("list", {}, "delays"),
        ("list", {"delays": []}, "delays"),
        ("list", {"delays": ["soon"]}, "delays"),
        ("linear", {"delay": "-1s"}, "delay"),
        ("linear", {"factor": 2}, "factor"),
        ("exponential", {"factor": 0}, "factor"),
        ("exponential", {"factor": math.nan}, "factor"),
        ("exponential", {"factor": math.inf}, "factor"),
    ],
)
def test_options_are_checked(
    backoffs: Rig, strategy: str, options: dict[str, object], key: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        backoffs.backoff(strategy, **options)
    assert refused.value.errors()[0]["loc"][0] == key


def test_fixed_is_the_cores(backoffs: Rig) -> None:
    assert "fixed" not in orchestratord_backoff.register_backoff()
    assert set(backoffs.host.registry.backoffs) == {"fixed", "linear", "exponential", "list"}
