"""Long work beside an event loop. How long that waits, `python -m bench.config` measures."""

from __future__ import annotations

import sys

import pytest

from orchestratord.config.yield_gil import yield_gil


def test_the_interval_is_shorter_as_long_as_anybody_works() -> None:
    usual = sys.getswitchinterval()
    with yield_gil():
        assert sys.getswitchinterval() < 0.001
        with pytest.raises(ZeroDivisionError), yield_gil():
            1 / 0  # noqa: B018
        assert sys.getswitchinterval() < 0.001
    assert sys.getswitchinterval() == usual
