"""Reading a request's body: bounded, and as JSON in the strict sense.

The content type is not looked at: no browser reaches a unix socket, and `curl -d` says that it
sends a form.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from typing import Any, NoReturn

from starlette.requests import Request

from orchestratord.api.server.problem_json import Refusal

MAX_BODY = 16 << 20
"""Bytes."""
MAX_DEPTH = 64
"""Of arrays and objects within each other."""

# A client that is still sending does not read: what is too long is read on for a while.
_READ_ON = 4 * MAX_BODY
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


async def read_json(request: Request) -> Any:
    """The body as a JSON value; None where there is none.

    Raises Refusal: 413 for more than `MAX_BODY` bytes, 400 for what is not JSON in UTF-8.
    """
    raw = await _read(request)
    if not raw.strip():
        return None
    try:
        value = json.loads(raw.decode(), parse_constant=_no_number, parse_float=_number)
        if _SURROGATE.search(raw):
            # Half of a surrogate pair is no character, and cannot be stored.
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:
        raise Refusal(400, "bad_json", f"the body is not JSON: {error}") from None
    if not _is_shallow(value):
        raise _too_deep()
    return value


async def _read(request: Request) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > MAX_BODY and "expect" in request.headers:
        raise _too_large()
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > _READ_ON:
            break
        if size > MAX_BODY:
            chunks.clear()
        else:
            chunks.append(chunk)
    if size > MAX_BODY:
        raise _too_large()
    return b"".join(chunks)


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is too large a number")
    return number


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number")


def _is_shallow(value: Any) -> bool:
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


def _too_deep() -> Refusal:
    return Refusal(400, "bad_json", f"the body is nested more than {MAX_DEPTH} deep")


def _too_large() -> Refusal:
    limit = f"{MAX_BODY >> 20} MiB"
    return Refusal(413, "too_large", f"the body is larger than {limit}; send several batches")
