"""The base of the strategies, and the one that the core knows."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from orchestratord.model.backoff import Backoff, Fixed
from orchestratord.values.durations import Duration


class Fibonacci(Backoff):
    delay: Duration = 5.0

    def seconds(self, n: int) -> float:
        before, now = 0, 1
        for _ in range(n - 1):
            before, now = now, before + now
        return self.delay * now


def test_fixed_is_the_same_each_time() -> None:
    assert [Fixed().seconds(n) for n in (1, 2, 1000)] == [5, 5, 5]
    assert Fixed.model_validate({"delay": "250ms"}).seconds(7) == 0.25


def test_options_are_validated() -> None:
    for wrong in ({"delay": "soon"}, {"delay": -1}, {"factor": 2}, {"name": "x"}):
        with pytest.raises(ValidationError):
            Fixed.model_validate(wrong)


def test_a_strategy_cannot_be_changed() -> None:
    strategy = Fixed()
    with pytest.raises(ValidationError):
        strategy.delay = 1.0


def test_a_strategy_says_what_it_does_in_words() -> None:
    assert Fixed().explain(3) == "fixed 5s"
    assert Fibonacci().explain(6) == "fibonacci 40s"
    assert Fibonacci.model_validate({"delay": "1m"}).explain(1) == "fibonacci 1m"


def test_a_strategy_without_an_answer_is_none() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Backoff()  # type: ignore[abstract]
