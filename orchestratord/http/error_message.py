"""What an API says is wrong, in its own words: taken out of the answer to a call that failed.

`error_message` of the endpoint or its api.yaml says where that stands. Without it, and where it
finds nothing, the places are looked at that most APIs use.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import httpx

from orchestratord.model.http_message import header, header_items
from orchestratord.model.json_body import INLINE_BYTES, free_json, parse_json
from orchestratord.plugin.long_work import off_loop
from orchestratord.values.budget import INLINE_STEPS, Budget, TooCostly
from orchestratord.values.jmespath_expression import Expression
from orchestratord.values.redact import Redactor

LONGEST = 500
"""Characters of a message."""
_READ = 8 * LONGEST
"""Characters of a text that are looked at."""
_MARGIN = 8_192
"""Characters read beyond them, so that a secret that the cut would go through is seen whole."""
MOST = 1 << 20
"""Bytes of a body that is looked into without an expression."""
MOST_ERRORS = 3
"""Of a list of errors, those that are told."""

KEYS = (
    "message detail error_description errorMessage error_message faultstring Message msg "
    "description title reason"
).split()
"""Where a text says it, the best first."""
WITHIN = ("error", "errors", "fault", "Error", "detail", "details", "message")
"""What holds such a mapping, a list of them, or a text alone."""
DEEPEST = 4


async def error_message(
    response: httpx.Response, where: Expression | None, redactor: Redactor
) -> str | None:
    """What the answer says is wrong, in one line; None where it says nothing.

    Args:
        response: to a call that failed.
        where: what finds it in `{status_code, headers, body}`; None for the usual places.
        redactor: knows the secrets that a receiver may repeat: the cut may not go through one.
    """
    content = response.content
    if where is None and not (0 < len(content) <= MOST and content.lstrip()[:1] in (b"{", b"[")):
        return _plain_text(response, redactor)
    if len(content) <= INLINE_BYTES:
        try:
            return _look(response, where, redactor, Budget(INLINE_STEPS))
        except TooCostly:
            pass
    return await off_loop(_look, response, where, redactor)


def _look(
    response: httpx.Response,
    where: Expression | None,
    redactor: Redactor,
    budget: Budget | None = None,
) -> str | None:
    """`budget`: what it may cost, where it is not to be told whatever it costs. Raises
    TooCostly."""
    data: list[Any] = [_body(response)]
    try:
        found = None
        if where is not None:
            answer = {"status_code": response.status_code, "body": data[0]}
            if {"headers", "@"} & where.names:
                answer["headers"] = _headers(response)
            try:
                found = _line(_text_of(where.search(answer, budget)), redactor)
            except ValueError as error:
                if budget is not None and isinstance(error, TooCostly):
                    raise
        return found or _line(_text_of(data[0]), redactor) or _plain_text(response, redactor)
    finally:
        if budget is None:
            free_json(data)


def _body(response: httpx.Response) -> Any:
    """The value of a JSON body; None where it is none, or not all there."""
    try:
        return parse_json(response.content) if response.content.strip() else None
    except (ValueError, RecursionError):
        return None


def _headers(response: httpx.Response) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in header_items(response):
        found[name.lower()] = value
    return found


def _plain_text(response: httpx.Response, redactor: Redactor) -> str | None:
    """A body that says of itself that it is a text, and is a short one."""
    kind = (header(response, "content-type") or "").partition(";")[0].strip().lower()
    if kind != "text/plain" or not 0 < len(response.content) <= 4 * LONGEST:
        return None
    text = response.content.decode("utf-8", "replace").strip()
    if text.lower() == response.reason_phrase.lower():
        return None  # it is said already
    return _line(text.splitlines()[0], redactor) if text else None


def _text_of(value: Any, depth: int = 0) -> str | None:
    """The text that says what is wrong in a value, if there is one."""
    if isinstance(value, str):
        return value
    if depth > DEEPEST:
        return None
    if isinstance(value, list):
        texts = [text for one in value[:MOST_ERRORS] if (text := _text_of(one, depth + 1))]
        return "; ".join(dict.fromkeys(texts)) or None
    if isinstance(value, Mapping):
        return next(filter(None, _texts_in(value, depth)), None)
    return None


def _texts_in(value: Mapping[str, Any], depth: int) -> Iterator[str | None]:
    for name in KEYS:
        if isinstance(value.get(name), str):
            yield value[name]
    for name in WITHIN:
        if isinstance(value.get(name), str | list | Mapping):
            yield _text_of(value[name], depth + 1)


def _line(text: str | None, redactor: Redactor) -> str | None:
    """In one line, cut to what is worth reading; None where nothing is left."""
    if text is None:
        return None
    window = redactor.text(text[: _READ + _MARGIN])
    if len(text) > _READ + _MARGIN:  # its end may hold the beginning of a secret
        window = window[: max(len(window) - _MARGIN, 0)]
    # Where the lines are joined, there may be one again.
    line = redactor.text(" ".join(window.split()))
    return (line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…") or None
