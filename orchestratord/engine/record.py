"""What is kept of an answer in the table: bounded, and without secrets."""

from __future__ import annotations

import base64
from typing import Any

import httpx

from orchestratord.redact import Redactor

STORED_BODY = 20_000
"""Bytes."""
STORED_ERROR = 2_000
"""Characters."""


def response_record(response: httpx.Response, redactor: Redactor) -> dict[str, Any]:
    """Status code, headers and the start of the body, as JSON-like data with secrets masked."""
    content = response.content
    cut = content[:STORED_BODY]
    record: dict[str, Any] = {
        "status_code": response.status_code,
        "headers": [list(pair) for pair in redactor.headers(response.headers.multi_items())],
    }
    try:
        # The cut may go through a character; what is left of it is dropped.
        text = cut.decode() if len(cut) == len(content) else cut.decode(errors="ignore")
        if len(cut) < len(content) and len(text.encode()) < len(cut) - 3:
            raise UnicodeDecodeError("utf-8", cut, 0, 1, "not a text")
        record["body"] = redactor.text(text)
    except UnicodeDecodeError:
        record["body"] = base64.b64encode(cut).decode()
        record["encoding"] = "base64"
    record["truncated"] = len(cut) < len(content) or bool(response.extensions.get("truncated"))
    return record


def error_record(text: str | None, redactor: Redactor) -> str | None:
    """An error as it is stored: one line of bounded length, without secrets."""
    if text is None:
        return None
    line = redactor.text(" ".join(text.split()))
    return line if len(line) <= STORED_ERROR else line[: STORED_ERROR - 1] + "…"
