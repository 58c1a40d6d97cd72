"""Pydantic's errors in the words of the YAML: what was expected, and what stands there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from orchestratord.model.declared import Model
from orchestratord.values.redact import MASK
from orchestratord.values.secret import Text
from orchestratord.values.suggest import choices, suggest

M = TypeVar("M", bound=Model)

SHORTEST_SECRET = 4
"""Characters; a shorter one cannot be told from other text, and so not be masked."""

_EXPECTED = {
    "int": "a whole number",
    **dict.fromkeys(("float", "finite", "decimal"), "a number"),
    "bool": "true or false",
    "string": "a text",
    **dict.fromkeys(("dict", "mapping", "model", "dataclass"), "a mapping"),
    **dict.fromkeys(("list", "tuple", "set", "frozen", "iterable"), "a list"),
    "none": "nothing",
    "datetime": "a time, YYYY-MM-DDThh:mm:ssZ",
}
COLLECTIONS = frozenset({"a mapping", "a list"})
_SENTENCES = {
    "missing": "is required",
    "extra_forbidden": "unknown key",
    "greater_than_equal": "must be at least {ge}, not {value}",
    "greater_than": "must be more than {gt}, not {value}",
    "less_than_equal": "must be at most {le}, not {value}",
    "less_than": "must be less than {lt}, not {value}",
    "too_short": "needs {min_length} or more items, and has {actual_length}",
    "too_long": "takes {max_length} items at most, and has {actual_length}",
    "string_too_short": "needs {min_length} or more characters",
    "string_too_long": "takes {max_length} characters at most",
    "timezone_aware": "needs a time zone, such as the Z of YYYY-MM-DDThh:mm:ssZ",
    "string_pattern_mismatch": "{value} does not fit the pattern {pattern}",
}
_WORD_ERRORS = frozenset({"literal_error", "enum"})
_TYPE_ERROR = re.compile(
    r"([a-z]+)_.*(type|parsing|from_float|number)|none_required|int_.*|bool_.*"
)


def expectation(error: ErrorDetails) -> str | None:
    """What the type would have taken, such as `a whole number`; None for other kinds of error."""
    kind = error["type"]
    if not _TYPE_ERROR.fullmatch(kind):
        return None
    return _EXPECTED.get(kind.partition("_")[0])


def sentence(error: ErrorDetails, *, hidden: bool = False) -> str:
    """What is wrong with one value, where it is not merely of another type. One that is `hidden`
    is not shown."""
    kind, value = error["type"], value_text(error["input"], hidden=hidden)
    context: Mapping[str, Any] = error.get("ctx", {})
    if kind in _WORD_ERRORS:
        words = _words(error)
        remedy = suggest(str(error["input"]), words) if isinstance(error["input"], str) else ""
        return f"unknown value {value}{remedy or '; known are ' + ', '.join(words)}"
    if kind in _SENTENCES:
        limits = {k: _limit_text(v) for k, v in context.items() if isinstance(v, int | float)}
        return _SENTENCES[kind].format_map({**context, **limits, "value": value})
    message = error["msg"]
    for prefix in ("Value error, ", "Assertion failed, "):
        message = message.removeprefix(prefix)
    whole = holds_keys(error["input"])
    for secret in _texts(error["input"], hidden=hidden or whole):
        message = message.replace(repr(secret), f"'{MASK}'")
        if len(secret) >= SHORTEST_SECRET and (hidden or not whole):
            message = message.replace(secret, MASK)
    return message[:1].lower() + message[1:] if message[1:2].islower() else message


def _limit_text(limit: float) -> str:
    return f"{limit:g}" if limit < 1_000_000 else f"{limit:,.15g}"


def validated(model: type[M], values: Mapping[str, Any], context: Mapping[str, Any]) -> M:
    """What the YAML would make of `values`.

    Args:
        model: what declares the keys.
        values: by key.
        context: pydantic's, such as the strategies under `backoffs`.

    Raises:
        ValueError: some do not fit; a line for each, in the words of `check`.
    """
    try:
        return model.model_validate(values, context=context)
    except ValidationError as error:
        lines = []
        for item in error.errors(include_url=False):
            wanted = expectation(item)
            text = (
                f"expected {wanted}, not {value_text(item['input'])}" if wanted else sentence(item)
            )
            lines.append(f"{'.'.join(map(str, item['loc']))}: {text}")
        raise ValueError("\n".join(lines)) from None


def choice(error: ErrorDetails) -> str:
    """The hint beside that: all the words that could stand there."""
    if error["type"] not in _WORD_ERRORS or not isinstance(error["input"], str):
        return ""
    return choices(error["input"], _words(error))


def _words(error: ErrorDetails) -> list[str]:
    return re.findall(r"'([^']+)'", str(error.get("ctx", {}).get("expected", "")))


def holds_keys(value: Any) -> bool:
    """True for a mapping, and a list that holds one."""
    if isinstance(value, list | tuple):
        return any(map(holds_keys, value))
    return isinstance(value, Mapping)


def _texts(value: Any, *, hidden: bool) -> Iterator[str]:
    """Which texts of a value are not shown: its secrets, or all where it is hidden."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item, hidden=hidden)
    elif isinstance(value, str) and (hidden or (isinstance(value, Text) and value.secret)):
        yield str(value)


def value_text(value: Any, *, hidden: bool = False) -> str:
    """A value for a message of one line, without secrets; one that is `hidden` is one."""
    if isinstance(value, Text) and value.secret:
        return MASK
    if hidden and isinstance(value, str | int | float) and not isinstance(value, bool):
        return MASK
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = repr(str(value)) if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else text[:59] + "…"
