"""Durations and times: read from the command line, written for people."""

from __future__ import annotations

import re
from datetime import UTC, datetime

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)?", re.ASCII)


def parse_duration(text: str) -> float:
    """Seconds of `500ms`, `10s`, `5m`, `2h`, `1d` or a number of seconds.

    Raises:
        ValueError: it is none of these.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"'{text}' is no duration; write 500ms, 10s, 5m, 2h, 1d or seconds")
    return float(match[1]) * _UNITS[match[2] or "s"]


def parse_since(text: str) -> str:
    """`text` as the API reads it: a duration with its unit, or a time in UTC.

    Raises:
        ValueError: it is neither a duration nor a time.
    """
    text = text.strip()
    match = _DURATION.fullmatch(text)
    if match is not None:
        return text if match[2] else f"{text}s"
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"'{text}' is neither a duration (2h) nor a time (2026-11-24T22:00:00Z)"
        ) from None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return when.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"


def seconds_at(value: object) -> float | None:
    """Seconds since the epoch of an RFC 3339 time, or None where `value` is no such text."""
    if not isinstance(value, str):
        return None
    try:
        when = datetime.fromisoformat(value)
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def clock_time(value: object) -> str:
    """A time to the second in UTC, as `2026-11-24 22:00:00Z`; anything else as its text."""
    seconds = seconds_at(value)
    if seconds is None:
        return "-" if value is None else str(value)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}Z"


def short_time(value: object) -> str:
    """A time to the second in UTC without its year, as `11-24 22:00:00`."""
    seconds = seconds_at(value)
    if seconds is None:
        return "-" if value is None else str(value)
    return f"{datetime.fromtimestamp(seconds, UTC):%m-%d %H:%M:%S}"


def span(seconds: float) -> str:
    """A length of time in at most two units: `120ms`, `5.1s`, `4m40s`, `2h3m`, `3d4h`."""
    if seconds < 0.9995:
        return f"{max(seconds, 0) * 1000:.0f}ms"
    if seconds < 59.95:
        return f"{seconds:.1f}".removesuffix(".0") + "s"
    whole = round(seconds)
    for size, unit, smaller, smaller_unit in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "m"),
        (60, "m", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size}{unit}" + (f"{rest}{smaller_unit}" if rest else "")
    return f"{whole}s"


def coarse(seconds: float) -> str:
    """A length of time in one unit, rounded down: `12s`, `4m`, `2h`, `3d`."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{int(max(seconds, 0))}s"


def ago(value: object, now: float) -> str:
    """How long ago a time was, as `2h ago`; `-` where there is none."""
    seconds = seconds_at(value)
    return "-" if seconds is None else f"{coarse(now - seconds)} ago"


def until(value: object, now: float) -> str:
    """How far ahead a time is, as `in 12s`; `due` once it is reached, `-` where there is none."""
    seconds = seconds_at(value)
    if seconds is None:
        return "-"
    return "due" if seconds <= now else f"in {coarse(seconds - now + 0.999)}"


def with_age(value: object, now: float) -> str:
    """A time and how long ago it was, as `2026-11-24 22:00:00Z (2h ago)`."""
    return (
        clock_time(value)
        if seconds_at(value) is None
        else (f"{clock_time(value)} ({ago(value, now)})")
    )
