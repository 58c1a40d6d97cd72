"""How values are written for people: harmless text, times, durations, sizes, and problems."""

from __future__ import annotations

import json
import re
import time
import unicodedata
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import pairwise

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

GAP = "  "
"""Between columns, and between a label and its value."""

# -- text from elsewhere -------------------------------------------------------------------------
# What receivers answer can hold escape sequences, line breaks and characters that turn the line
# around. They are shown as JSON writes them (`\u001b`), so that a JSON document stays the document
# that it was.

_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def escape(text: str, keep: str = "") -> str:
    """`text` with every character that is not plainly visible written out.

    Args:
        text: anything.
        keep: characters that stay as they are, such as the line break in a text of many lines.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else _SHORT.get(c) or code(c) for c in text)


def code(character: str) -> str:
    """The character as JSON escapes it, a pair of surrogates where one unit does not hold it."""
    point = ord(character)
    if point < 0x10000:
        return f"\\u{point:04x}"
    point -= 0x10000
    return f"\\u{0xD800 + (point >> 10):04x}\\u{0xDC00 + (point & 0x3FF):04x}"


def body_lines(body: str) -> list[str]:
    """A text of many lines, each made harmless; tabs stay."""
    return escape(body.replace("\r\n", "\n"), keep="\n\t").split("\n")


def cut(text: str, width: int) -> str:
    """`text`, or its beginning and an ellipsis, in at most `width` characters."""
    return text if len(text) <= width else text[: width - 1] + "…"


def cut_middle(text: str, width: int) -> str:
    """`text`, or its beginning, an ellipsis and its end, in at most `width` characters."""
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return text[: width - 1 - tail] + "…" + (text[-tail:] if tail else "")


def wrap(text: str, width: int | None) -> list[str]:
    """`text` in lines of at most `width` characters, broken between words where that is possible.

    No width means one line, however long.
    """
    if width is None or len(text) <= width:
        return [text]
    lines = [""]
    for word in text.split(" "):
        joined = f"{lines[-1]} {word}" if lines[-1] else word
        if len(joined) <= width:
            lines[-1] = joined
            continue
        if lines[-1]:
            lines.append("")
        lines[-1:] = [word[at : at + width] for at in range(0, len(word), width)]
    return lines


# -- times and durations -------------------------------------------------------------------------


_UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


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
    return _written_time(value, "%Y-%m-%d %H:%M:%SZ")


def short_time(value: object) -> str:
    """A time to the second in UTC without its year, as `11-24 22:00:00`."""
    return _written_time(value, "%m-%d %H:%M:%S")


def _written_time(value: object, form: str) -> str:
    seconds = seconds_at(value)
    if seconds is None:
        return "-" if value is None else str(value)
    return datetime.fromtimestamp(seconds, UTC).strftime(form)


def span(seconds: float) -> str:
    """A length of time in at most two units: `120ms`, `5.1s`, `4m40s`, `2h3m`, `3d4h`."""
    if seconds < 0.9995:
        return f"{max(seconds, 0) * 1000:.0f}ms"
    if seconds < 59.95:
        return f"{seconds:.1f}".removesuffix(".0") + "s"
    whole = round(seconds)
    for (size, unit), (smaller, smaller_unit) in pairwise(_UNITS):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size}{unit}" + (f"{rest}{smaller_unit}" if rest else "")
    return f"{whole}s"


def coarse(seconds: float) -> str:
    """A length of time in one unit, rounded down: `12s`, `4m`, `2h`, `3d`."""
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return "0s"


def ago(value: object, now: float | None = None) -> str:
    """How long ago a time was, as `2h ago`; `-` where there is none. No `now` means this moment."""
    seconds = seconds_at(value)
    if seconds is None:
        return "-"
    return f"{coarse((time.time() if now is None else now) - seconds)} ago"


def until(value: object, now: float | None = None) -> str:
    """How far ahead a time is, as `in 12s`; `due` once it is reached, `-` where there is none."""
    seconds = seconds_at(value)
    if seconds is None:
        return "-"
    now = time.time() if now is None else now
    return "due" if seconds <= now else f"in {coarse(seconds - now + 0.999)}"


def with_age(value: object, now: float | None = None) -> str:
    """A time and how long ago it was, as `2026-11-24 22:00:00Z (2h ago)`."""
    text = clock_time(value)
    return text if seconds_at(value) is None else f"{text} ({ago(value, now)})"


# -- values of the API ---------------------------------------------------------------------------


def compact(value: Any) -> str:
    """A value of the API in one line: texts as they are, anything else as JSON."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def named(item: dict[str, Any]) -> str:
    """The endpoint and the webhook of an event or of what fails, as far as it has them."""
    return " ".join(str(item[name]) for name in ("endpoint", "webhook") if item.get(name))


def number(value: Any) -> str:
    """A count with its thousands set apart; `-` where it is missing."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return compact(value)
    return f"{value:,}"


def size(value: Any) -> str:
    """Bytes as `12.3 MiB`."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return compact(value)
    amount = float(value)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


# -- problems of the configuration -----------------------------------------------------------------
# As a compiler would show them: the line, a caret, and a hint. `orchestratord check` does so, too.

WIDTH = 72
"""Characters of a file's line that are shown; 80 columns hold them and the margin."""

_WORD = re.compile(r"""[^\s:,\[\]{}'"#]+""")


def excerpt(source: str, line: int | None, column: int | None, hint: str) -> list[tuple[str, str]]:
    """The lines below a problem's first one, as pairs of what they are and their text.

    They are `source`, `caret` and `hint`; those that there is nothing to say in are left out.

    Args:
        source: the line that the problem is in; may be empty.
        line: its number, from 1; None where the problem has no place.
        column: where in the line, from 1.
        hint: what could stand there; may be empty.
    """
    lines: list[tuple[str, str]] = []
    number = "" if line is None else str(line)
    margin = max(len(number), 4)
    if source and line is not None:
        text, at = _part(source, (column or 1) - 1)
        word = _WORD.match(text, at)
        under = "^" + "~" * (len(word[0]) - 1 if word else 0)
        lines.append(("source", f" {number:>{margin}} | {text}"))
        lines.append(("caret", f" {'':{margin}} | {_blank(text[:at].ljust(at))}{under}"))
    if hint:
        lines.append(("hint", f" {'':{margin}} = {hint}"))
    return lines


def _part(text: str, column: int) -> tuple[str, int]:
    """As much of a line as fits, and where the column is in it."""
    start = max(column - WIDTH // 2, 0) if len(text) > WIDTH else 0
    part = text[start : start + WIDTH]
    if start:
        part = "…" + part[1:]
    if start + WIDTH < len(text):
        part = part[:-1] + "…"
    return part, column - start


def _blank(text: str) -> str:
    """Blanks as wide as a text: some characters take two columns, a tab what the terminal gives."""
    return "".join(
        "\t" if c == "\t" else "  " if unicodedata.east_asian_width(c) in "WF" else " "
        for c in text
        if not unicodedata.combining(c)
    )


def error_lines(errors: Iterable[Any]) -> list[str]:
    """Each error as `file:line:column: key: message`, without the parts that it lacks."""
    return [_error_line(error) for error in errors]


def error_excerpt(error: Any) -> list[str]:
    """The error's line, and below it the line of the file with a caret, and a hint, if known."""
    first = _error_line(error)
    if not isinstance(error, dict):
        return [first]
    source, hint = (str(error.get(key) or "") for key in ("source", "hint"))
    line, column = error.get("line"), error.get("column")
    if not (source or hint) or not all(
        part is None or type(part) is int for part in (line, column)
    ):
        return [first]
    # A tab would be written out, and the caret no longer stand below its place.
    below = excerpt(source.replace("\t", " "), line, column, hint)
    return [first, *(text for _, text in below)]


def _error_line(error: Any) -> str:
    if not isinstance(error, dict):
        return str(error)
    place = [error.get("file"), error.get("line"), error.get("column")]
    position = ":".join(str(part) for part in place if part is not None)
    parts = (position, error.get("key"), error.get("message"))
    return ": ".join(str(part) for part in parts if part)
