"""What is kept of an answer and of an error: bounded, and without secrets."""

from __future__ import annotations

import base64
import codecs
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

import httpx

from orchestratord.model.http_message import header_items, headers_as_they_came
from orchestratord.queue.rows import response_text
from orchestratord.values.redact import Redactor
from orchestratord.values.status_set import StatusCode

# -- What is kept of an answer in the table --------------------------------------------------------

STORED_BODY = 20_000
"""Bytes."""
STORED_HEADERS = 65_536
"""Characters of all of them."""
_LONGEST_SECRET = 16_384
"""Bytes."""
STORED_ERROR = 2_000
"""Characters."""

REMEMBERED = 4096
"""Characters of what is stored of an answer's headers that are remembered for the next one."""


def response_record(response: httpx.Response, redactor: Redactor, status_code: StatusCode) -> str:
    """Status code, headers and the start of the body, as the JSON that is stored, with secrets
    masked; with `body` where it is not empty, and with `truncated` where it is true.

    `status_code` is the attempt's, which need not be a number.
    """
    head = _head_of_record(response, redactor, status_code)
    content, extensions = response.content, response.extensions
    if content or extensions.get("truncated"):
        return f"{head},{response_text(_body_record(content, extensions, redactor))[1:]}"
    return f"{head}}}"


def _body_record(
    content: bytes, extensions: Mapping[str, Any], redactor: Redactor
) -> dict[str, Any]:
    """What a record has besides status code and headers; not all of it is empty."""
    truncated = len(content) > STORED_BODY or bool(extensions.get("truncated"))
    if len(content) > STORED_BODY:
        content = extensions.get("excerpt", content)
    # A secret that the cut would go through is masked before it is cut.
    start = content[: STORED_BODY + _LONGEST_SECRET]
    whole = len(start) == len(content)
    coding = "utf-8"
    try:
        text = start.decode() if whole else codecs.getincrementaldecoder(coding)().decode(start)
    except UnicodeDecodeError:
        text, coding = start.decode("latin-1"), "latin-1"
    shown = redactor.text(text)
    masked = shown.encode(coding)
    if not whole:
        # The end of what was looked at may be half a secret, which masks before it bring nearer.
        masked = masked[: len(masked) + STORED_BODY - len(text.encode(coding))]
    if coding == "utf-8":
        fits = whole and len(masked) <= STORED_BODY
        body = shown if fits else masked[:STORED_BODY].decode(errors="ignore")
        record = {"body": body, "truncated": truncated}
    else:
        body = base64.b64encode(masked[:STORED_BODY]).decode()
        record = {"body": body, "encoding": "base64", "truncated": truncated}
    return {name: value for name, value in record.items() if value}


def _head_of_record(response: httpx.Response, redactor: Redactor, status_code: StatusCode) -> str:
    """The record without a body, and without its last brace."""
    came = headers_as_they_came(response)
    if came is None:
        return _make_head(response, redactor, status_code)
    # Within a second most servers give all of their answers the same.
    names, given = came[0], (status_code, came[1])
    known: str | None = redactor.recall(names, given)
    if known is None:
        known = _make_head(response, redactor, status_code)
        if len(known) < REMEMBERED:
            redactor.remember(names, given, known)
    return known


def _make_head(response: httpx.Response, redactor: Redactor, status_code: StatusCode) -> str:
    headers = _stored_headers(redactor.headers(header_items(response)))
    return response_text({"status_code": status_code, "headers": headers})[:-1]


def _stored_headers(headers: Iterable[tuple[str, str]]) -> list[list[str]]:
    """As many as a receiver can send: a plugin can answer with more."""
    kept, room = list(map(list, headers)), STORED_HEADERS
    if sum(map(len, chain.from_iterable(kept))) > room:
        for number, (name, value) in enumerate(kept):
            room -= len(name) + len(value)
            if room < 0:
                return kept[:number]
    return kept


def error_record(text: str | None, redactor: Redactor) -> str | None:
    """An error as it is stored: one line of bounded length, without secrets."""
    if text is None:
        return None
    # Before the lines are joined, which may break a secret up, and after, which may make one.
    line = redactor.text(" ".join(redactor.text(text).split()))
    return line if len(line) <= STORED_ERROR else line[: STORED_ERROR - 1] + "…"
