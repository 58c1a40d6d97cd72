"""The strategy, as the daemon asks it."""

from __future__ import annotations

import orchestratord_fibonacci
from orchestratord_fibonacci import Fibonacci

from orchestratord.testing import Rig


def test_its_delays() -> None:
    assert [Fibonacci(delay=2).seconds(n) for n in range(1, 8)] == [2, 2, 4, 6, 10, 16, 26]
    assert Fibonacci().seconds(200) > 1e40, "the core keeps it within max_delay"


def test_it_is_registered() -> None:
    found = Rig(orchestratord_fibonacci).host.registry.backoffs["fibonacci"]
    assert (found, found.name) == (Fibonacci, "fibonacci")
