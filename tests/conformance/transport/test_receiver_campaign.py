"""Receivers that do all that receivers do; the long form is `receiver_campaign`."""

from __future__ import annotations

import pytest

from tests.conformance.transport.receiver_campaign import run

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("gathers", [False, True], ids=["all cores", "one core"])
def test_what_is_told_of_each_call_is_what_its_receiver_saw(gathers: bool) -> None:
    report = run(400, seed=18, gathers=gathers)
    print("\n".join(report.lines()))
    assert report.wrong == []
    # There was enough of each, and most of it can be answered.
    assert len(report.done) > 10
    assert report.told["answered"] > 200
