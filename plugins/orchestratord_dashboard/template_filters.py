"""How times, durations and numbers are written in pages."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from markupsafe import Markup

from orchestratord import rfc3339, rough_duration, world

# What is put into these is escaped.
_WHEN = Markup('<time datetime="{}" title="{}" data-when>{}</time>')
_CLOCK = Markup('<time datetime="{}">{} UTC</time>')
_WORDS = re.compile(r"(?<=[/._-])|(?<=[a-z0-9])(?=[A-Z])")
"""Between two words of a name."""
LONGEST = 400
"""Characters of a text in a list."""


def number(value: float | None) -> str:
    """`1 234 567`; a dash for None."""
    return "–" if value is None else f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def seconds(value: float | None) -> str:
    """A duration for people, by its two largest units: `1h 25m`, `1m 30s`, `2.5s`, `900ms`."""
    return "–" if value is None else rough_duration(max(value, 0))


def milliseconds(value: float | None) -> str:
    """Milliseconds as a duration for people."""
    return seconds(None if value is None else value / 1000)


def size(value: float) -> str:
    """Bytes for people: `1.2 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"


def when(value: str | int | float | None) -> Markup | str:
    """A time as `3m ago` or `in 5s`, which the script keeps true; a dash for None.

    Args:
        value: RFC 3339 or milliseconds since the epoch.
    """
    if value is None:
        return "–"
    moment = _moment(value)
    away = moment.timestamp() - world.time()
    text = seconds(max(round(abs(away)), 1))
    text = f"in {text}" if away > 0.5 else f"{text} ago"
    exact = moment.strftime("%Y-%m-%d %H:%M:%S UTC")
    iso = moment.isoformat(timespec="milliseconds")
    return _WHEN.format(iso, exact, text)


def clock(value: str | int | float | None) -> Markup | str:
    """A time as `2026-11-24 22:00:05 UTC`; a dash for None."""
    if value is None:
        return "–"
    moment = _moment(value)
    iso = moment.isoformat(timespec="milliseconds")
    return _CLOCK.format(iso, moment.strftime("%Y-%m-%d %H:%M:%S"))


def _moment(value: str | int | float) -> datetime:
    return datetime.fromisoformat(value if isinstance(value, str) else rfc3339(round(value)))


def name(text: str) -> Markup:
    """A name, which a narrow column breaks between its words: `shop/`, `get`, `Order`."""
    return Markup("<wbr>").join(_WORDS.split(text))


def cut(text: str, longest: int = LONGEST) -> str:
    """A text of which too much is left away."""
    return text if len(text) <= longest else f"{text[:longest]}…"


def pretty(value: Any) -> str:
    """A JSON-like value, indented; a text that is JSON likewise, any other as it is."""
    try:
        if isinstance(value, str):
            found = json.loads(value)
            if not isinstance(found, dict | list):
                return value
            value = found
        return json.dumps(value, indent=2, ensure_ascii=False, default=_plain)
    except (ValueError, RecursionError):
        return str(value)


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else str(value)


def brief(params: Mapping[str, Any]) -> str:
    """Parameters in a line: `id: 7, name: Ann`, of each the beginning."""
    parts = []
    for key, value in params.items():
        text = value if isinstance(value, str) else json.dumps(value, default=_plain)
        parts.append(f"{key}: {cut(text, 60)}")
    return cut(", ".join(parts), 160)


def grade(code: int | str | None) -> str:
    """How a status code is coloured: `good`, `odd` or `bad`; nothing for none."""
    if code is None:
        return "none"
    if isinstance(code, str):
        if not code.isdecimal():
            return "good" if code == "ok" else "bad"
        code = int(code)
    return "good" if code < 300 else "odd" if code < 500 else "bad"


def schedule(declared: Mapping[str, Any] | None) -> str:
    """A schedule in words; a dash for none."""
    if not declared:
        return "–"
    if declared.get("cron"):
        text = f"cron {declared['cron']}"
    else:
        text = f"every {declared.get('every')}"
        if declared.get("at"):
            text += f" at {declared['at']}"
    zone = declared.get("timezone", "UTC")
    return text if zone == "UTC" else f"{text} ({zone})"


_ALL = (number, seconds, milliseconds, size, when, clock, name, cut, pretty, brief, grade, schedule)
FILTERS: Mapping[str, Callable[..., Any]] = {written.__name__: written for written in _ALL}
