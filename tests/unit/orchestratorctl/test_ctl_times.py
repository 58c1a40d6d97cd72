from __future__ import annotations

import pytest

from orchestratorctl.times import (
    ago,
    clock_time,
    parse_duration,
    parse_since,
    seconds_at,
    span,
    until,
    with_age,
)

NOW = 1_796_000_000.0  # 2026-11-30 00:53:20Z


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("10s", 10),
        ("5m", 300),
        ("2h", 7200),
        ("1d", 86400),
        ("90", 90),
        ("1.5", 1.5),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-5s", "1h30m", "5 m", "nan", "inf", "1e3", "٣s", "5w"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="no duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("2h", "2h"),
        ("90", "90s"),
        ("2026-11-24T22:00:00Z", "2026-11-24T22:00:00Z"),
        ("2026-11-24T23:00:00+01:00", "2026-11-24T22:00:00Z"),
        ("2026-11-24 22:00", "2026-11-24T22:00:00Z"),
        ("2026-11-24", "2026-11-24T00:00:00Z"),
    ],
)
def test_since_is_sent_as_a_duration_or_a_time_in_utc(text: str, sent: str) -> None:
    assert parse_since(text) == sent


def test_what_is_no_since() -> None:
    with pytest.raises(ValueError, match="neither a duration"):
        parse_since("yesterday")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0ms"),
        (0.12, "120ms"),
        (0.9999, "1s"),
        (5.1, "5.1s"),
        (30, "30s"),
        (59.97, "1m"),
        (280, "4m40s"),
        (7380, "2h3m"),
        (3600, "1h"),
        (273600, "3d4h"),
    ],
)
def test_spans(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_times_are_shown_against_now() -> None:
    assert clock_time("2026-11-30T00:53:20.123Z") == "2026-11-30 00:53:20Z"
    assert clock_time("2026-11-30T01:53:20+01:00") == "2026-11-30 00:53:20Z"
    assert ago("2026-11-29T22:53:20Z", NOW) == "2h ago"
    assert ago("2026-11-30T00:54:00Z", NOW) == "0s ago"  # the daemon's clock may be ahead
    assert until("2026-11-30T00:53:32Z", NOW) == "in 12s"
    assert until("2026-11-30T00:53:20Z", NOW) == "due"
    assert with_age("2026-11-30T00:52:20Z", NOW) == "2026-11-30 00:52:20Z (1m ago)"


@pytest.mark.parametrize("value", [None, 5, {}, "soon", "99999-01-01T00:00:00Z"])
def test_what_is_no_time_is_shown_as_it_is(value: object) -> None:
    assert seconds_at(value) is None
    assert ago(value, NOW) == until(value, NOW) == "-"
    assert clock_time(value) == with_age(value, NOW) == ("-" if value is None else str(value))
