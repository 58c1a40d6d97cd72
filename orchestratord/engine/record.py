"""What is kept of an answer in the table: bounded, and without secrets."""

from __future__ import annotations

import base64
import codecs
from typing import Any

import httpx

from orchestratord.redact import Redactor

STORED_BODY = 20_000
"""Bytes."""
_LONGEST_SECRET = 4_096
"""Bytes."""
STORED_ERROR = 2_000
"""Characters."""


def response_record(response: httpx.Response, redactor: Redactor) -> dict[str, Any]:
    """Status code, headers and the start of the body, as JSON-like data with secrets masked."""
    content = response.content
    truncated = len(content) > STORED_BODY or bool(response.extensions.get("truncated"))
    # A secret that the cut would go through is masked before it is cut.
    start = content[: STORED_BODY + _LONGEST_SECRET]
    record: dict[str, Any] = {
        "status_code": response.status_code,
        "headers": [list(pair) for pair in redactor.headers(response.headers.multi_items())],
    }
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(start, final=start is content)
    except UnicodeDecodeError:
        masked = redactor.text(start.decode("latin-1")).encode("latin-1")
        record["body"] = base64.b64encode(masked[:STORED_BODY]).decode()
        record["encoding"] = "base64"
    else:
        record["body"] = redactor.text(text).encode()[:STORED_BODY].decode(errors="ignore")
    record["truncated"] = truncated
    return record


def error_record(text: str | None, redactor: Redactor) -> str | None:
    """An error as it is stored: one line of bounded length, without secrets."""
    if text is None:
        return None
    line = redactor.text(" ".join(text.split()))
    return line if len(line) <= STORED_ERROR else line[: STORED_ERROR - 1] + "…"
