"""Waits 1, 1, 2, 3, 5 … units, and does not take an error for a success because it says 200."""

from __future__ import annotations

from collections.abc import Mapping

import httpx

from orchestratord import Backoff, Duration, Endpoint, Outcome, Task, hookimpl


class Fibonacci(Backoff):
    """delay · F(n)"""

    delay: Duration = 1.0

    def seconds(self, n: int) -> float:
        a, b = 1, 1
        for _ in range(n - 1):
            a, b = b, a + b
        return self.delay * a


@hookimpl
def register_backoff() -> Mapping[str, type[Backoff]]:
    return {"fibonacci": Fibonacci}


@hookimpl
def after_request(
    outcome: Outcome, request: httpx.Request, task: Task, endpoint: Endpoint
) -> Outcome | None:
    if task.kind != "call" or outcome.verdict != "success" or outcome.response is None:
        return None
    if b'"error"' not in outcome.response.content:
        return None
    if b'"later"' in outcome.response.content:
        return outcome.retry("the body says later")
    return outcome.failure("the body says error")
