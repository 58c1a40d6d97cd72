"""Values that parse themselves: durations, rates, status sets, secrets, and text with references.

Each of them is what a key of the YAML turns into, and says in its error what it would have taken.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import (
    BeforeValidator,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

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


def format_duration(seconds: float) -> str:
    """The shortest exact form that `parse_duration` reads: `1h`, `90s`, `250ms`, `1.5s`."""
    for unit, factor in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= factor and seconds % factor == 0:
            return f"{seconds / factor:.0f}{unit}"
    if 0 < seconds < 1:
        return f"{round(seconds * 1000, 3):g}ms"
    return f"{round(seconds, 3):.12g}s"


Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str, when_used="json"),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": r"^\d+(\.\d+)?(ms|s|m|h|d)?$"},
                {"type": "number", "minimum": 0},
                {"type": "string", "pattern": r"\$\{"},
            ],
            "description": "a duration: 500ms, 10s, 5m, 2h, 1d, or a number of seconds",
        }
    ),
]
"""Seconds, written as a duration."""

_SIZE = re.compile(r"(\d+)\s*(B|kB|KB|KiB|MB|MiB|GB|GiB)?", re.ASCII)
_FACTORS = {
    None: 1, "B": 1, "kB": 1000, "KB": 1000, "KiB": 1 << 10,
    "MB": 1000**2, "MiB": 1 << 20, "GB": 1000**3, "GiB": 1 << 30,
}  # fmt: skip


def parse_size(value: Any) -> int:
    """Bytes of `1MiB`, `64KiB`, `500kB`, or of a number of bytes.

    Raises ValueError for anything else.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and len(value) <= 20 and (match := _SIZE.fullmatch(value.strip())):
        return int(match[1]) * _FACTORS[match[2]]
    raise ValueError(f"{value!r} is not a size: write 64KiB, 1MiB, or a number of bytes")


Size = Annotated[
    int,
    BeforeValidator(parse_size),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": r"^\d+\s*(B|kB|KB|KiB|MB|MiB|GB|GiB)?$"},
                {"type": "integer", "minimum": 0},
                {"type": "string", "pattern": r"\$\{"},
            ],
            "description": "a size: 64KiB, 1MiB, or a number of bytes",
        }
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


StatusCode = int | str | None
"""A number, `ok` or `error` (SQL, and no answer), or None for a task that never ran."""

_CLASS = re.compile(r"([1-5])xx", re.IGNORECASE)
_RANGE = re.compile(r"([1-5]\d\d)\s*-\s*([1-5]\d\d)", re.ASCII)


@dataclass(frozen=True, slots=True)
class StatusSet:
    """A set of status codes: `200`, `2xx`, `500-599`, `error`, `ok`, or a list of these.

    `ranges` are pairs of first and last code, both included; `words` holds `error` and `ok`.
    """

    text: str
    ranges: tuple[tuple[int, int], ...]
    words: frozenset[str] = frozenset()

    WORDS: ClassVar[frozenset[str]] = frozenset({"error", "ok"})

    @classmethod
    def parse(cls, value: Any) -> StatusSet:
        """Read a code, a pattern or a list of them. Raises ValueError naming the wrong one."""
        if isinstance(value, StatusSet):
            return value
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
                raise ValueError(cls._complaint(item))
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
                raise ValueError(cls._complaint(item))
        return cls(",".join(texts), tuple(ranges), frozenset(words))

    @staticmethod
    def _complaint(item: Any) -> str:
        return f"{item!r} is not a status code: write 200, 2xx, 500-599, error, or a list of these"

    def __contains__(self, code: object) -> bool:
        if isinstance(code, int):
            return any(first <= code <= last for first, last in self.ranges)
        return code in self.words

    def __str__(self) -> str:
        return self.text

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls.parse, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        one = {
            "anyOf": [
                {"type": "integer", "minimum": 100, "maximum": 599},
                {
                    "type": "string",
                    "pattern": r"^([1-5]\d\d|[1-5][xX]{2}|[1-5]\d\d\s*-\s*[1-5]\d\d|error|ok)$",
                },
            ]
        }
        return {
            "anyOf": [*one["anyOf"], {"type": "array", "items": one, "minItems": 1}],
            "description": "200, 2xx, 500-599, error (no answer), or a list of these",
        }


class Text(str):
    """A string of the YAML whose references were resolved.

    It is the resolved text; `parts` keeps what stood in the file apart from what came out of a
    reference, so that a reference's value is never read as a template, and `secret` says whether
    one of them was secret.
    """

    __slots__ = ("parts", "secret", "source")

    parts: tuple[tuple[str, bool], ...]
    """(text, came from a reference) in order."""
    secret: bool
    source: str
    """As it stands in the file."""

    @classmethod
    def of(cls, parts: Iterable[tuple[str, bool]], *, secret: bool, source: str) -> Text:
        """Join `parts` and remember them."""
        kept = tuple(parts)
        text = cls("".join(part for part, _ in kept))
        text.parts = kept
        text.secret = secret
        text.source = source
        return text


class Secret:
    """A value that nothing prints. `reveal()` gives it to whoever sends it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The secret itself, for the wire alone."""
        return self._value

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    @classmethod
    def parse(cls, value: Any) -> Secret:
        """A non-empty string becomes a secret. Raises ValueError without showing the value."""
        if isinstance(value, Secret):
            return value
        if not isinstance(value, str) or not value:
            raise ValueError(
                "a secret is a text that is not empty, best a reference: ${secret:NAME}"
            )
        return cls(str(value))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls.parse, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {
            "type": "string",
            "minLength": 1,
            "description": "a secret, by reference: ${secret:NAME}, ${credential:name}, "
            "${file:/path}",
        }
