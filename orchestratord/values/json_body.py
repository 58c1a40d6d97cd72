"""JSON from outside, however large: read in short pieces, and measured without being written.

Python's reader is written in C, and lets no other thread run until it has read all of a text: 50 ms
for a megabyte, and longer for more. Here a long text is read by the reader that Python has beside
it, in Python, and only short objects by the one in C; `python -m bench.answers` compares them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, partial
from json.decoder import JSONArray, JSONObject  # type: ignore[attr-defined]  # it has no types
from json.scanner import c_make_scanner, py_make_scanner  # type: ignore[attr-defined]
from typing import Any, NoReturn

INLINE_BYTES = 32 << 10
"""Bytes of JSON up to which it is looked into on the event loop: that takes less time than a thread
needs to wake up, or not much more. `python -m bench.answers` shows it."""
SHORT_TEXT = INLINE_BYTES // 6
"""Characters of a JSON text up to which its value has no more than `INLINE_BYTES` however it is
written: no character becomes more than six, in `1e15` it is 4.5."""
MAX_DEPTH = 64
"""Arrays and objects within each other that are taken from outside."""
PIECE = 256 << 10
"""Characters that are read in one go, at most; that takes up to 15 ms."""


MAX_BATCH = 10_000
"""Calls that are accepted at once; and so many members has a list in the object of a long text."""


_KEY = re.compile(r'"([^"]*)"\s*:\s*\Z')
"""Just before its value."""


class TooMany(Exception):
    """A JSON text has more values than there is room for; in which part of its object."""


def parse_json(content: bytes | str, room: int | None = None, **options: Any) -> Any:
    """The value of a JSON text.

    Args:
        content: bytes are in UTF-8, 16 or 32.
        room: how many values of a long text are read. Each member of a list in its object, which
            may be the params of one call, has as much room, and there are `MAX_BATCH` of them.
        **options: `parse_constant`, `parse_float` and so on, as `json.loads` takes them.

    Raises:
        TooMany: as soon as it has more than there is room for.
        ValueError: it is no JSON.
        RecursionError: it is nested too deeply.
    """
    text = content
    if isinstance(text, bytes):
        text = text.decode(json.detect_encoding(text), "surrogatepass")
    if len(text) <= PIECE:
        return json.loads(text, cls=_decoder, **options)  # type: ignore[arg-type]  # it makes one
    return _Decoder(room, **options).decode(text)


@lru_cache(maxsize=16)
def _decoder(**options: Any) -> json.JSONDecoder:
    """One that was made before: making it takes longer than most texts."""
    return json.JSONDecoder(**options)


class _Decoder(json.JSONDecoder):
    """Reads objects within objects and lists one by one; its options are the library's."""

    def __init__(self, room: int | None, **options: Any) -> None:
        super().__init__(**options)
        scan = c_make_scanner(self)
        left, members, depth, name = room or 0, MAX_BATCH, 0, "params"

        def parse_within(parse: Any, place: tuple[str, int], *others: Any) -> tuple[Any, int]:
            nonlocal depth, name
            depth += 1
            if depth == 2:
                key = _KEY.search(place[0][max(place[1] - 200, 0) : place[1] - 1])
                name = key[1] if key else name
            *before, scan_once = others[: 2 if parse is JSONObject else 1]
            members_of_body = depth == 2 and parse is JSONArray

            def counted(text: str, index: int) -> tuple[Any, int]:
                nonlocal left, members
                if members_of_body:
                    left, members = room or 0, members - 1
                left -= 1
                if min(left, members) < 0:
                    raise TooMany(name)
                return scan_once(text, index)  # type: ignore[no-any-return]

            scan_value, behind = counted if room else scan_once, others[len(before) + 1 :]
            found = parse(place, *before, scan_value, *behind)
            depth -= 1
            return found  # type: ignore[no-any-return]

        def parse_object(place: tuple[str, int], *others: Any) -> tuple[Any, int]:
            nonlocal left
            text, start = place  # behind the opening brace
            # One without another one in it ends at the first brace, unless that is in a string;
            # what is cut short cannot be read, and is gone through.
            end = text.find("}", start, start + PIECE)
            if end > 0:
                try:
                    value, length = scan(text[start - 1 : end + 1], 0)
                except (StopIteration, ValueError):
                    pass
                else:
                    left -= len(value)
                    return value, start - 1 + length
            return parse_within(JSONObject, place, *others)

        self.parse_object = parse_object
        self.parse_array = partial(parse_within, JSONArray)
        self.scan_once = py_make_scanner(self)


def from_json(text: Any) -> Any:
    """The value of a text that holds JSON, as expressions read it; None of None.

    Raises ValueError: it is no text, no JSON, or nested deeper than `MAX_DEPTH`.
    """
    if text is None:
        return None
    if not isinstance(text, str):
        raise ValueError(f"from_json takes a text, not {type(text).__name__}")
    try:
        value = parse_json(text, parse_constant=_refuse)
    except RecursionError:
        value = None
    except ValueError as error:
        raise ValueError(f"from_json finds no JSON: {error}") from None
    else:
        if is_shallow(value):
            return value
    raise ValueError(f"from_json finds JSON that is nested more than {MAX_DEPTH} deep")


def to_json(value: Any, default: Callable[[Any], Any] | None = None) -> str:
    """A value as JSON; `default` writes what JSON has no form for.

    Raises ValueError or TypeError where there is none.
    """
    return json.dumps(value, ensure_ascii=False, allow_nan=False, default=default)


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number")


def is_shallow(value: Any) -> bool:
    """Whether a value that was read from JSON is nested `MAX_DEPTH` deep at most."""
    level = _nested([value])
    for _ in range(MAX_DEPTH):
        if not level:
            return True
        level = [
            inner
            for outer in level
            for inner in _nested(outer.values() if isinstance(outer, dict) else outer)
        ]
    return not level


def _nested(values: Iterable[Any]) -> list[Any]:
    return [value for value in values if isinstance(value, dict | list)]


RUN = 10_000
"""Values that are freed in one go."""


def free_json(values: list[Any]) -> None:
    """Free values that were read from JSON, and that this list alone still holds, in short pieces.

    Python frees what hangs together in one go, and no other thread runs meanwhile: 180 ms for what
    was 16 MiB of empty lists. What is held elsewhere, too, stays as it is.
    """
    item: Any = None
    for item in values:  # and what is added meanwhile
        if isinstance(item, dict):
            values.extend(item.values())
        elif isinstance(item, list):
            for start in range(0, len(item), RUN):
                values.extend(item[start : start + RUN])
    del item
    values.reverse()  # what holds others goes before them
    while values:
        del values[-RUN:]


# -- How large it is -------------------------------------------------------------------------------

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_LONGEST = 6
"""Bytes of a character, at most."""
_AROUND = 64
"""Bytes of a plain value that is no text, at most, and of what stands around it."""
_PLAIN, _TEXT = frozenset({bool, float, type(None)}), frozenset({str})
_SMALL_INTEGER = 1 << 63


def is_larger(values: Mapping[str, Any], most: int) -> bool:
    """Whether a mapping has more than `most` bytes as JSON.

    Raises TypeError, ValueError or RecursionError for what JSON cannot hold.
    """
    if _is_surely_smaller(values, most):
        return False  # as nearly always
    if _is_surely_larger(values, most):
        return True
    return len(_ENCODER.encode(dict(values)).encode("utf-8", "replace")) > most


def _is_surely_smaller(values: Any, room: int) -> bool:
    """Whether there is room for the values however each of their characters is written."""
    if room < _AROUND * len(values):
        return False
    waiting = [values]
    for item in waiting:  # and what is added meanwhile
        kind = type(item)
        room -= _AROUND
        if kind is str:
            room -= _LONGEST * len(item)
        elif kind is dict:
            if not _TEXT.issuperset(map(type, item)):
                return False
            room -= _LONGEST * sum(map(len, item))
            waiting += item.values()
        elif kind is list:
            waiting += item
        elif kind not in _PLAIN and not (kind is int and abs(item) < _SMALL_INTEGER):
            return False
        if room < 0:
            return False
    return True


def _is_surely_larger(value: Any, room: int) -> bool:
    """Whether the texts and the number of the values alone are more than there is room for."""
    waiting = [value]
    while waiting and room >= 0:
        item = waiting.pop()
        if isinstance(item, str):
            room -= len(item) + 2
        elif isinstance(item, Mapping):
            room -= len(item) * 2 + 2
            for name, inner in item.items():
                room -= len(str(name)) + 1
                waiting.append(inner)
        elif isinstance(item, list | tuple):
            room -= 1
            if len(item) > room:
                return True
            waiting.extend(item)
        else:
            room -= 1
    return room < 0
