"""What is kept of an answer in the table: bounded, and without secrets."""

from __future__ import annotations

import base64
import codecs
from typing import Any

import httpx

from orchestratord.exchange import header_items
from orchestratord.redact import Redactor
from orchestratord.values import StatusCode

STORED_BODY = 20_000
"""Bytes."""
_LONGEST_SECRET = 16_384
"""Bytes."""
STORED_ERROR = 2_000
"""Characters."""


def response_record(
    response: httpx.Response, redactor: Redactor, status_code: StatusCode
) -> dict[str, Any]:
    """Status code, headers and the start of the body, as JSON-like data with secrets masked.

    `status_code` is the attempt's, which need not be a number.
    """
    content = response.content
    truncated = len(content) > STORED_BODY or bool(response.extensions.get("truncated"))
    if len(content) > STORED_BODY:
        content = response.extensions.get("excerpt", content)
    # A secret that the cut would go through is masked before it is cut.
    start = content[: STORED_BODY + _LONGEST_SECRET]
    whole = len(start) == len(content)
    try:
        if whole:
            text, coding = start.decode(), "utf-8"
        else:
            decoder = codecs.getincrementaldecoder("utf-8")()
            text, coding = decoder.decode(start), "utf-8"
    except UnicodeDecodeError:
        text, coding = start.decode("latin-1"), "latin-1"
    shown = redactor.text(text)
    masked = shown.encode(coding)
    if not whole:
        # The end of what was looked at may be half a secret, which masks before it bring nearer.
        masked = masked[: len(masked) + STORED_BODY - len(text.encode(coding))]
    record: dict[str, Any] = {
        "status_code": status_code,
        "headers": [list(pair) for pair in redactor.headers(header_items(response))],
    }
    if coding == "utf-8":
        fits = whole and len(masked) <= STORED_BODY
        record["body"] = shown if fits else masked[:STORED_BODY].decode(errors="ignore")
    else:
        record["body"] = base64.b64encode(masked[:STORED_BODY]).decode()
        record["encoding"] = "base64"
    record["truncated"] = truncated
    return record


def error_record(text: str | None, redactor: Redactor) -> str | None:
    """An error as it is stored: one line of bounded length, without secrets."""
    if text is None:
        return None
    # Before the lines are joined, which may break a secret up, and after, which may make one.
    line = redactor.text(" ".join(redactor.text(text).split()))
    return line if len(line) <= STORED_ERROR else line[: STORED_ERROR - 1] + "…"
