"""Durations, sizes and rates, as the YAML writes them and as programs count them."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from orchestratord.values.yaml_value import REFERENCE

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)?", re.ASCII)
_UNITS = {"ms": 0.001, "s": 1.0, None: 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
MAX_DURATION = 10 * 365 * 86400.0
"""Ten years: what is longer is a slip of the pen, and would overflow times further down."""


def parse_duration(value: Any) -> float:
    """Seconds of `500ms`, `10s`, `5m`, `2h`, `1d`, or of a number of seconds.

    Raises ValueError for anything else, for what is negative, and for more than ten years.
    """
    seconds: float | None = None
    if isinstance(value, int | float) and not isinstance(value, bool):
        # A whole number may be too large for a float.
        seconds = float(value) if 0 <= value <= MAX_DURATION else None
    elif isinstance(value, str) and (match := _DURATION.fullmatch(value.strip())):
        seconds = float(match[1]) * _UNITS[match[2]]
    if seconds is None or not 0 <= seconds <= MAX_DURATION:
        raise ValueError(
            f"{value!r} is not a duration: write 500ms, 10s, 5m, 2h, 1d, or a number of seconds"
        )
    return seconds


def rough_duration(seconds: float, longest: float | None = None) -> str:
    """A duration for people, by its two largest units: `1h 25m`, `1m 30s`, `1.05s`, `900ms`.

    With `longest` a range, `9s to 11s`; one duration where both ends are the same.
    """
    if longest is not None:
        first, last = rough_duration(seconds), rough_duration(longest)
        return first if first == last else f"{first} to {last}"
    if round(seconds, 1) < 60:
        return f"{seconds * 1000:.3g}ms" if 0 < seconds < 0.9995 else f"{seconds:.3g}s"
    left, parts = round(seconds), list[str]()
    for unit in ("d", "h", "m", "s"):
        count, left = divmod(left, int(_UNITS[unit]))
        if count or parts:
            parts.append(f"{count}{unit}" if count else "")
    return " ".join(part for part in parts[:2] if part)


def format_duration(seconds: float) -> str:
    """The shortest exact form that `parse_duration` reads: `1h`, `90s`, `250ms`, `1.5s`."""
    for unit, factor in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= factor and seconds % factor == 0:
            return f"{seconds / factor:.0f}{unit}"
    if 0 < seconds < 1:
        return f"{round(seconds * 1000, 3):g}ms"
    return f"{round(seconds, 3):.12g}s"


def _schema(pattern: str, number: str, description: str) -> WithJsonSchema:
    written = [{"type": "string", "pattern": pattern}, {"type": number, "minimum": 0}, REFERENCE]
    return WithJsonSchema({"anyOf": written, "description": description})


Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str, when_used="json"),
    _schema(
        r"^\d+(\.\d+)?(ms|s|m|h|d)?$",
        "number",
        "a duration: 500ms, 10s, 5m, 2h, 1d, or a number of seconds",
    ),
]
"""Seconds, written as a duration."""

_SIZE = re.compile(r"(\d+)\s*(B|kB|KB|KiB|MB|MiB|GB|GiB)?", re.ASCII)
_FACTORS = {None: 1, "B": 1, "kB": 1000, "KB": 1000, "MB": 1000**2, "GB": 1000**3}
_FACTORS |= {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def parse_size(value: Any) -> int:
    """Bytes of `1MiB`, `64KiB`, `500kB`, or of a number of bytes.

    Raises ValueError for anything else.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and len(value) <= 20 and (match := _SIZE.fullmatch(value.strip())):
        return int(match[1]) * _FACTORS[match[2]]
    raise ValueError(f"{value!r} is not a size: write 64KiB, 1MiB, or a number of bytes")


def format_size(size: int) -> str:
    """Bytes as they are written: `256KiB`, `8MiB`, `500kB`; a number where no unit fits."""
    for unit in ("GiB", "MiB", "KiB", "GB", "MB", "kB"):
        if size and size % _FACTORS[unit] == 0:
            return f"{size // _FACTORS[unit]}{unit}"
    return str(size)


Size = Annotated[
    int,
    BeforeValidator(parse_size),
    PlainSerializer(format_size, return_type=str, when_used="json"),
    _schema(
        r"^\d+\s*(B|kB|KB|KiB|MB|MiB|GB|GiB)?$",
        "integer",
        "a size: 64KiB, 1MiB, or a number of bytes",
    ),
]
"""Bytes, written as a size."""

_RATE = re.compile(r"(\d+(?:\.\d+)?)/(s|sec|second|m|min|minute|h|hour)", re.ASCII)


def parse_rate(value: Any) -> float:
    """Times a second of `10/s`, `100/min`, `5000/hour`. Raises ValueError for anything else."""
    match = _RATE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None or not 0 < float(match[1]) < float("inf"):
        raise ValueError(f"{value!r} is not a rate: write 10/s, 100/min or 5000/hour")
    return float(match[1]) / {"s": 1, "m": 60, "h": 3600}[match[2][0]]
