"""The backoff strategies `linear`, `exponential` and `list`; `fixed` is the core's.

A strategy answers one question: how many seconds to wait after the nth failed attempt. Whatever
it says, the core keeps it within `max_delay`, then adds jitter and looks at Retry-After.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from pydantic import Field

from orchestratord import Backoff, Duration, format_duration, hookimpl


class Linear(Backoff):
    """The delay grows by the same amount each time: delay · n."""

    delay: Duration = 5.0
    """The first delay, and by how much each one grows: 5s."""

    def seconds(self, n: int) -> float:
        return self.delay * n

    def explain(self, n: int) -> str:
        return f"{self.name} {format_duration(self.delay)}·{n}={_in_words(self.seconds(n))}"


class Exponential(Backoff):
    """The delay is multiplied each time: delay · factor^(n−1)."""

    delay: Duration = 5.0
    """The delay after the first failure: 5s."""
    factor: float = Field(2.0, gt=0, allow_inf_nan=False)
    """The factor from one delay to the next."""

    def seconds(self, n: int) -> float:
        if not self.delay:
            return 0.0
        try:
            return self.delay * self.factor ** (n - 1)
        except OverflowError:
            return math.inf

    def explain(self, n: int) -> str:
        terms = f"{format_duration(self.delay)}·{self.factor:g}^{n - 1}"
        return f"{self.name} {terms}={_in_words(self.seconds(n))}"


class Listed(Backoff):
    """Each delay is written down; the last one is repeated."""

    delays: tuple[Duration, ...] = Field(min_length=1)
    """The delays in order; the last one repeats: [5s, 1m, 10m]."""

    def seconds(self, n: int) -> float:
        return self.delays[self._place(n) - 1]

    def explain(self, n: int) -> str:
        return f"{self.name}[{self._place(n)}]={_in_words(self.seconds(n))}"

    def _place(self, n: int) -> int:
        """Which of the delays is used, from 1."""
        return min(n, len(self.delays))


def _in_words(seconds: float) -> str:
    return format_duration(seconds) if math.isfinite(seconds) else "∞"


@hookimpl
def register_backoff() -> Mapping[str, type[Backoff]]:
    """The names as they stand in `retry.backoff`."""
    return {"linear": Linear, "exponential": Exponential, "list": Listed}
