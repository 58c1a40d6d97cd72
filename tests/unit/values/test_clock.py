"""Stored times and their text."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestratord.values.clock import Clock, from_rfc3339, rfc3339

LAST = 253_402_300_799_999
"""The end of the year 9999."""


def test_the_clock_is_the_wall_clock_in_whole_milliseconds() -> None:
    before, now, after = time.time(), Clock().now_ms(), time.time()
    assert int(before * 1000) <= now <= int(after * 1000)
    assert isinstance(now, int)
    assert before <= Clock().now()


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1, "1970-01-01T00:00:00.001Z"),
        (1_795_557_600_000, "2026-11-24T22:00:00.000Z"),
        (1_795_557_600_999, "2026-11-24T22:00:00.999Z"),
        (LAST, "9999-12-31T23:59:59.999Z"),
        (None, None),
    ],
)
def test_a_time_is_written_in_utc_with_milliseconds(
    milliseconds: int | None, text: str | None
) -> None:
    assert rfc3339(milliseconds) == text


@settings(deadline=None)
@given(st.integers(0, LAST))
def test_what_is_written_is_read_again(milliseconds: int) -> None:
    assert from_rfc3339(str(rfc3339(milliseconds))) == milliseconds


@pytest.mark.parametrize(
    "text",
    ["2026-11-24T22:00:00Z", "2026-11-24T23:00:00+01:00", "2026-11-24 22:00:00.000000Z",
     "2026-11-24T16:30:00-05:30"],
)  # fmt: skip
def test_other_zones_and_precisions_are_read(text: str) -> None:
    assert from_rfc3339(text) == 1_795_557_600_000


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "2026-11-24", "2026-11-24T22:00:00", "2026-13-24T22:00:00Z",
     "2026-11-24T25:00:00Z", "1795557600", "2026-11-24T22:00:00 Europe/Paris"],
)  # fmt: skip
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        from_rfc3339(text)


def test_a_time_without_a_zone_is_told_what_it_lacks() -> None:
    with pytest.raises(ValueError, match="has no time zone"):
        from_rfc3339("2026-11-24T22:00:00")


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_times_at_the_ends_of_the_calendar_are_read(text: str) -> None:
    assert isinstance(from_rfc3339(text), int)
