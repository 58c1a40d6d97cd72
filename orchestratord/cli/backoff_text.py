"""A table of delays with a picture, no wider than a terminal of 80 columns."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from orchestratord.simulate.timetable import about, between

_WIDTH = 80
_HEADS = ("AFTER", "DELAY", "WITH JITTER", "AT")
_BLOCKS = ("█", "▒")
_ASCII = ("#", "-")


def backoff_text(document: Mapping[str, Any]) -> str:
    """The text for what the command found out."""
    return "\n".join(_lines(document))


def _lines(document: Mapping[str, Any]) -> Iterator[str]:
    policy, delays = document["policy"], document["delays"]
    options = ", ".join(f"{key} {_plain(value)}" for key, value in policy["backoff"].items())
    title = "" if document["of"] is None else f"{document['of']}: "
    yield f"{title}{options.removeprefix('strategy ')}"
    said = [f"{key} {_plain(policy[key])}" for key in ("max_attempts", "max_delay", "jitter")]
    if policy["give_up_after"] is not None:
        said.append(f"give_up_after {policy['give_up_after']}")
    yield ", ".join(said)
    if delays:
        yield ""
        yield from _table(delays)
    yield ""
    if document["expires"]:
        yield f"The next attempt would lie past give_up_after: {_attempts(document)}."
    else:
        yield f"Then it has failed for good (exhausted): {_attempts(document)}."
    total = f"Total: {about(document['total'])}"
    if document["shortest_total"] != document["longest_total"]:
        total += f" ({between(document['shortest_total'], document['longest_total'])} with jitter)"
    yield f"{total}, and the time that the attempts take."


def _attempts(document: Mapping[str, Any]) -> str:
    count = document["attempts"]
    return f"{count} attempt" if count == 1 else f"{count} attempts"


def _table(delays: list[Mapping[str, Any]]) -> Iterator[str]:
    rows = [
        (
            str(item["after_attempt"]),
            about(item["delay"]),
            between(item["shortest"], item["longest"]),
            about(item["since_first"]),
        )
        for item in delays
    ]
    widths = [max(map(len, column)) for column in zip(_HEADS, *rows, strict=True)]
    yield "  ".join(head.ljust(width) for head, width in zip(_HEADS, widths, strict=True)).rstrip()
    room = _WIDTH - sum(widths) - 2 * len(widths)
    longest = max(item["longest"] for item in delays)
    for row, item in zip(rows, delays, strict=True):
        cells = [row[0].rjust(widths[0]), row[1].rjust(widths[1])]
        cells += [row[2].ljust(widths[2]), row[3].rjust(widths[3])]
        yield f"{'  '.join(cells)}  {_bar(item, longest, room)}".rstrip()


def _bar(item: Mapping[str, Any], longest: float, room: int) -> str:
    """As long as the longest delay; what only jitter can add is lighter."""
    if longest <= 0:
        return ""
    full, light = _characters()
    sure = round(item["shortest"] / longest * room)
    whole = round(item["longest"] / longest * room)
    bar = full * sure + light * (whole - sure)
    return bar or (light if item["longest"] > 0 else "")


def _characters() -> tuple[str, str]:
    try:
        "".join(_BLOCKS).encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return _ASCII
    return _BLOCKS


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return " ".join(map(_plain, value)) if isinstance(value, list | tuple) else str(value)
