"""A `.json` file is held to the rules of JSON, then read by the same road as YAML."""

from __future__ import annotations

import json
import re
from typing import Any

from orchestratord.config import syntax
from orchestratord.errors import Problem

_ESCAPE = re.compile(
    r"\\(?:u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|.)"
)

_CONSTANT = re.compile(r'"(?:\\.|[^"\\])*"|(-?Infinity|NaN)', re.DOTALL)
"""A text, or a word that Python takes for a number and JSON does not."""


def check(file: str, text: str, problems: list[Problem]) -> str | None:
    """The text as YAML reads it to the same value; None, and a problem, where it is not JSON."""
    try:
        json.loads(text, parse_constant=_refuse, parse_int=str, parse_float=str)
    except json.JSONDecodeError as error:
        complaint = error.msg[:1].lower() + error.msg[1:]
        problems.append(
            Problem(f"is not JSON: {complaint}", file=file, line=error.lineno, column=error.colno)
        )
        return None
    except ValueError as error:
        found = next(match for match in _CONSTANT.finditer(text) if match[1])
        problems.append(syntax.at(file, text, found.start(1), str(error)))
        return None
    except RecursionError:
        pass  # the depth is refused, with its place, when the tree is built
    if match := next((m for m in _ESCAPE.finditer(text) if _is_half(m[3])), None):
        message = f"{match[0]} is half of a character"
        problems.append(syntax.at(file, text, match.start(), message))
        return None
    return _ESCAPE.sub(_joined, text)


def _refuse(word: str) -> Any:
    raise ValueError(f"{word} is not JSON; quote it if the text is meant")


def _is_half(code: str | None) -> bool:
    return code is not None and 0xD800 <= int(code, 16) <= 0xDFFF


def _joined(match: re.Match[str]) -> str:
    # JSON writes a character beyond U+FFFF as two escapes, YAML as one.
    if match[1] is None:
        return match[0]
    pair = bytes.fromhex(match[1] + match[2]).decode("utf-16-be")
    return f"\\U{ord(pair):08x}"
