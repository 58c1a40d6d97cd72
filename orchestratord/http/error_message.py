"""What an API says is wrong, in its own words: taken out of the answer to a call that failed.

`error_message` of the endpoint or its api.yaml says where that stands. Without it, and where it
finds nothing, the places are looked at that most APIs use.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import httpx

from orchestratord.http.answer_view import AnswerView, is_xml, look, media_type_of, read_text
from orchestratord.values.budget import Budget, TooCostly
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
    "description title reason Text"
).split()
"""Where a text says it, the best first."""
WITHIN = (
    *("error", "errors", "fault", "Error", "detail", "details", "message"),
    *("Body", "Fault", "Reason", "Text", "#text"),  # of SOAP; a text beside attributes
)
"""What holds such a mapping, a list of them, or a text alone."""
DEEPEST = 4


async def error_message(
    response: httpx.Response, where: Expression | None, redactor: Redactor
) -> str | None:
    """What the answer says is wrong, in one line; None where it says nothing.

    Args:
        response: to a call that failed.
        where: what finds it in `{status_code, headers, body, text}`; None for the usual places.
        redactor: knows the secrets that a receiver may repeat: the cut may not go through one.
    """
    content = response.content
    if where is None and not (
        0 < len(content) <= MOST and (content.lstrip()[:1] in (b"{", b"[") or is_xml(response))
    ):
        return _plain_text(response, redactor)

    def find(view: AnswerView, budget: Budget | None) -> str | None:
        found = None
        if where is not None:
            try:
                found = _line(_text_of(where.search(view.document(where.names), budget)), redactor)
            except ValueError as error:
                if budget is not None and isinstance(error, TooCostly):
                    raise
        return found or _line(_text_of(view.root()), redactor) or _plain_text(response, redactor)

    return await look(response, find, lenient=True)


def _plain_text(response: httpx.Response, redactor: Redactor) -> str | None:
    """A body that says of itself that it is a text, and is a short one."""
    if media_type_of(response) != "text/plain" or not 0 < len(response.content) <= 4 * LONGEST:
        return None
    text = read_text(response).strip()
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
        found = value.get(name)
        if isinstance(found, Mapping):
            found = found.get("#text")
        if isinstance(found, str):
            yield found
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
