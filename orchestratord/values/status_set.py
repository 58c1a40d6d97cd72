"""Sets of status codes: `200`, `2xx`, `500-599`, `error`, or a list of these."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from orchestratord.values.yaml_value import YamlValue

StatusCode = int | str | None
"""A number, `ok` or `error` (SQL, and no answer), or None for a task that never ran."""

_CLASS = re.compile(r"([1-5])xx", re.IGNORECASE)
_RANGE = re.compile(r"([1-5]\d\d)\s*-\s*([1-5]\d\d)", re.ASCII)
_ONE: dict[str, Any] = {
    "anyOf": [
        {"type": "integer", "minimum": 100, "maximum": 599},
        {
            "type": "string",
            "pattern": r"^([1-5]\d\d|[1-5][xX]{2}|[1-5]\d\d\s*-\s*[1-5]\d\d|error|ok)$",
        },
    ]
}


@dataclass(frozen=True, slots=True)
class StatusSet(YamlValue):
    """A set of status codes: `200`, `2xx`, `500-599`, `error`, `ok`, or a list of these.

    `ranges` are pairs of first and last code, both included; `words` holds `error` and `ok`.
    """

    text: str
    ranges: tuple[tuple[int, int], ...]
    words: frozenset[str] = frozenset()

    WORDS: ClassVar[frozenset[str]] = frozenset({"error", "ok"})
    json_schema: ClassVar[Mapping[str, Any]] = {
        "anyOf": [*_ONE["anyOf"], {"type": "array", "items": _ONE, "minItems": 1}],
        "description": "200, 2xx, 500-599, error (no answer), or a list of these",
    }

    @classmethod
    def parse(cls, value: Any) -> StatusSet:
        """Read a code, a pattern or a list of them. Raises ValueError naming the wrong one."""
        items = list(value) if isinstance(value, list | tuple) else [value]
        if not items:
            raise ValueError("an empty list matches nothing; leave the key out to match any")
        ranges: list[tuple[int, int]] = []
        words: set[str] = set()
        texts: list[str] = []
        for item in items:
            text = str(item).strip()
            texts.append(text)
            if isinstance(item, bool):
                raise ValueError(cls._problem(item))
            if text in cls.WORDS:
                words.add(text)
            elif match := _CLASS.fullmatch(text):
                ranges.append((int(match[1]) * 100, int(match[1]) * 100 + 99))
            elif match := _RANGE.fullmatch(text):
                if int(match[1]) > int(match[2]):
                    raise ValueError(f"the range {text} is empty: its first code is the larger one")
                ranges.append((int(match[1]), int(match[2])))
            elif text.isascii() and text.isdigit() and 100 <= int(text) <= 599:
                ranges.append((int(text), int(text)))
            else:
                raise ValueError(cls._problem(item))
        return cls(",".join(texts), tuple(ranges), frozenset(words))

    @staticmethod
    def _problem(item: Any) -> str:
        return f"{item!r} is not a status code: write 200, 2xx, 500-599, error, or a list of these"

    @property
    def codes(self) -> list[int | str]:
        """What is in it, as the YAML would list it."""
        return [int(code) if code.isdecimal() else code for code in self.text.split(",")]

    def overlaps(self, other: StatusSet) -> bool:
        """Whether any code is in both."""
        return bool(self.words & other.words) or any(
            first <= last_other and first_other <= last
            for first, last in self.ranges
            for first_other, last_other in other.ranges
        )

    def __contains__(self, code: object) -> bool:
        if isinstance(code, int):
            return _is_within(code, self.ranges)
        return code in self.words

    def __str__(self) -> str:
        return self.text


@lru_cache(maxsize=1024)
def _is_within(code: int, ranges: tuple[tuple[int, int], ...]) -> bool:
    return any(first <= code <= last for first, last in ranges)
