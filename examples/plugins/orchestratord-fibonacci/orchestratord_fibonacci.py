"""The backoff strategy `fibonacci`: 1, 1, 2, 3, 5, 8 … times `delay`."""

from __future__ import annotations

from collections.abc import Mapping

from orchestratord import Backoff, Duration, hookimpl


class Fibonacci(Backoff):
    """delay · F(n)"""

    delay: Duration = 1.0
    """After the first attempt, and after the second."""

    def seconds(self, n: int) -> float:
        a, b = 1, 1
        for _ in range(n - 1):
            a, b = b, a + b
        return self.delay * a


@hookimpl
def register_backoff() -> Mapping[str, type[Backoff]]:
    return {"fibonacci": Fibonacci}
