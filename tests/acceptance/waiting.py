"""Waiting for a condition, never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 60.0
"""Seconds after which what a test waits for is not going to happen any more."""


def until(look: Callable[[], T], what: str, timeout: float = PATIENCE) -> T:
    """The first thing that `look` returns and that counts as true.

    Raises AssertionError, naming `what` and the last thing seen, after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    pause = 0.005
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not happen within {timeout:g}s; last seen: {found!r}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)
