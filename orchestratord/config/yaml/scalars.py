"""What a plain scalar means: the core schema of YAML 1.2, and nothing of 1.1.

`on`, `no`, `12:30`, `1_000` and dates are texts. `true`, `null`, numbers, `0o14` and `0x1f` are
what they look like.
"""

from __future__ import annotations

import math
import re

_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_NUMBER_BEGINS = frozenset("+-.0123456789")
_INT = re.compile(r"[-+]?[0-9]+")
_OCTAL = re.compile(r"0o[0-7]+")
_HEX = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NO_NUMBER = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_LONGEST = 400
"""Characters of a number; a longer row of digits is a text that lacks its quotes."""


def resolve(text: str) -> str | int | float | bool | None:
    """The value of a plain scalar.

    Raises ValueError for a number that JSON cannot hold: infinite, not a number, or endless.
    """
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _NUMBER_BEGINS:
        return text
    if _NO_NUMBER.fullmatch(text):
        raise ValueError(f"{text} cannot be used as a number; quote it if the text is meant")
    if not _FLOAT.fullmatch(text):
        if _OCTAL.fullmatch(text):
            return _whole(text[2:], 8)
        return _whole(text[2:], 16) if _HEX.fullmatch(text) else text
    if _INT.fullmatch(text):
        return _whole(text, 10)
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number too large to be used; quote it if the text is meant")
    return number


def _whole(digits: str, base: int) -> int:
    if len(digits) > _LONGEST:
        raise ValueError("a number of so many digits cannot be used; quote it if a text is meant")
    return int(digits, base)
