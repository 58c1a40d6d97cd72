"""Reading filters over tasks, from a query string or from JSON."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from orchestratord.errors import InvalidParams
from orchestratord.model.task import Status
from orchestratord.queue.records import Place, TaskFilter
from orchestratord.values.clock import from_rfc3339
from orchestratord.values.durations import parse_duration
from orchestratord.values.status_set import StatusSet
from orchestratord.values.suggest import suggest

NAMES = (
    "status", "status_code", "endpoint", "kind", "since", "until", "text", "id", "parent",
)  # fmt: skip
"""What tasks can be chosen by."""

ORDERS = ("newest", "ended")
"""How tasks are listed: the newest first; or those that have ended, the last one first."""

MAX_IDS = 1_000
"""Tasks that are named one by one."""
MAX_TEXT = 200
"""Characters that are looked for."""
_FIELDS = {"id": "ids"}
"""The fields of a filter that have another name."""
MAX_ID = (1 << 63) - 1

_ENDPOINT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/([A-Za-z0-9][A-Za-z0-9._-]*|\*)")
# `+` in a query string is a space to those who did not escape it.
_PLACE = re.compile(r"([0-9]{1,18})\.([0-9]{1,18})")
_LOST_PLUS = re.compile(r"(T[\d:.]+) (\d\d:\d\d)")


def read_filter(given: Mapping[str, Any], now: int) -> TaskFilter:
    """The filter that `given` describes; what is empty or None counts as left out.

    Args:
        given: by the names of `NAMES`: texts, numbers, or lists of them; several statuses,
            status codes or ids in one text are separated by commas.
        now: milliseconds since the epoch, from which a duration in `since` or `until` is
            counted back.

    Raises:
        InvalidParams: a name is unknown, or a value does not fit; all of them at once.
    """
    read: dict[str, Callable[[Any], Any]] = {
        "status": statuses,
        "status_code": lambda value: StatusSet.parse(items(value)),
        "endpoint": endpoint_filter,
        "kind": _word,
        "since": lambda value: _time(value, now),
        "until": lambda value: _time(value, now),
        "text": _text,
        "id": _ids,
        "parent": _id,
    }
    found: dict[str, Any] = {}
    problems: dict[str, str] = {}
    for name, value in given.items():
        if name not in read:
            problems[name] = f"there is no such filter{suggest(name, NAMES)}"
        elif value is not None and value != "" and value != []:
            try:
                found[_FIELDS.get(name, name)] = read[name](value)
            except (ValueError, OverflowError) as error:
                problems[name] = str(error)
    if problems:
        raise InvalidParams(problems)
    return TaskFilter(**found)


def read_id(given: int | str | None) -> int | None:
    """The `next` of tasks by their ids. Raises InvalidParams."""
    if given is None or given == "":
        return None
    number = whole_number(str(given))
    if number is None or not 1 <= number <= MAX_ID:
        raise InvalidParams({"after": f"must be a whole number from 1 to {MAX_ID}"})
    return number


def whole_number(text: str) -> int | None:
    """A number of at most 19 plain digits; None for everything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def read_place(text: str | None) -> Place | None:
    """A `next` of tasks by their end, as `place_text` writes it. Raises InvalidParams."""
    if not text:
        return None
    found = _PLACE.fullmatch(text)
    if found is None:
        raise InvalidParams({"after": "must be the `next` of a page in the same order"})
    return Place(int(found[1]), int(found[2]))


def place_text(place: Place | None) -> str | None:
    """The `next` that goes on after a place."""
    return None if place is None else f"{place.finished_at}.{place.id}"


def items(value: Any) -> list[Any]:
    """The items of a list, or of a text that separates them by commas."""
    if isinstance(value, list):
        return value
    return [item.strip() for item in value.split(",")] if isinstance(value, str) else [value]


def statuses(value: Any) -> tuple[str, ...]:
    """One status or several. Raises ValueError for what is none."""
    found = []
    for item in items(value):
        try:
            found.append(Status(item).value)
        except ValueError:
            raise ValueError(f"{item!r} is not a status; there are {', '.join(Status)}") from None
    return tuple(found)


def endpoint_filter(value: Any) -> str:
    """`api/name`, or `api/*`. Raises ValueError for anything else."""
    if not isinstance(value, str) or not _ENDPOINT.fullmatch(value):
        raise ValueError(
            f"{value!r} is not an endpoint: write api/name, or api/* for all of an api"
        )
    return value


def _word(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a text")
    return value


def _text(value: Any) -> str:
    text = _word(value).strip()
    if not 0 < len(text) <= MAX_TEXT:
        raise ValueError(f"must have 1 to {MAX_TEXT} characters")
    return text


def _ids(value: Any) -> tuple[int, ...]:
    found = tuple(dict.fromkeys(_id(item) for item in items(value)))
    if len(found) > MAX_IDS:
        raise ValueError(f"names {len(found)} tasks; {MAX_IDS} are taken")
    return found


def _id(value: Any) -> int:
    number = None if isinstance(value, bool) else whole_number(str(value))
    if number is None:
        raise ValueError(f"{value!r} is not the number of a task")
    return min(number, MAX_ID)


def _time(value: Any, now: int) -> int:
    try:
        return now - round(parse_duration(value) * 1000)
    except ValueError:
        pass
    try:
        return from_rfc3339(_LOST_PLUS.sub(r"\1+\2", value))
    except (TypeError, ValueError, OverflowError):
        raise ValueError(
            f"{value!r} is neither a duration (2h) nor a time (2026-11-24T22:00:00Z)"
        ) from None
