"""What a delivery says: the envelope of what happened, or a payload of the operator's own.

A payload is rendered when the event happens and is stored with the delivery, so no secret may be
in it; every text that comes from outside goes through the redactor, piece by piece.
"""

from __future__ import annotations

import base64
import codecs
import json
import math
from collections.abc import Mapping
from datetime import datetime
from itertools import chain
from operator import itemgetter
from typing import Any

import httpx
from pydantic_core import to_json

from orchestratord import (
    InvalidPayload,
    Outcome,
    Redactor,
    RunSummary,
    Statement,
    Task,
    Template,
    TemplateTree,
    header_items,
    rfc3339,
    url_text,
)
from orchestratord_webhooks.declaration import Webhook
from orchestratord_webhooks.webhook_templates import RUN_END

MAX_PAYLOAD = 512 << 10
"""Bytes of a payload; what is larger is not sent. By default, the parameters of a call are half."""
MAX_BODY = 20_000
"""Bytes of the answer's body that the envelope holds."""
_MARGIN = 8_192
"""Bytes read beyond them, so that a secret that the cut would go through is seen whole."""

REMEMBERED = 4096
"""Characters of an answer's headers that are remembered for the next one."""
_name_of = itemgetter(0)

_OPTIONAL = frozenset({"params", "request", "response"})
_NO_REQUEST: Mapping[str, Any] = {
    "method": None,
    "url": None,
    "database": None,
    "statement": None,
    "params": {},
}
_NO_RESPONSE: Mapping[str, Any] = {"headers": {}, "body": None}


def data_of(
    phase: str,
    outcome: Outcome | None,
    request: Any,
    task: Task,
    next_try: int | None,
    redactor: Redactor,
) -> dict[str, Any]:
    """The envelope's `data`. The arguments are those of the hook `announce`."""
    error = outcome.error if outcome else None
    data: dict[str, Any] = {
        "endpoint": task.endpoint_id,
        "phase": phase,
        "status_code": outcome.status_code if outcome else None,
        "task_id": task.id,
        "attempt": task.attempts,
        "params": redactor.data.value(task.params),
        "request": _request(request, redactor),
        "response": _response(outcome.response if outcome else None, redactor.data),
        "reason": task.reason if outcome else None,
        "error": None if error is None else redactor.text(error),
        "next_try": None if next_try is None else time_text(next_try / 1000),
    }
    if task.turn is not None:
        data["partition"] = redactor.data.text(task.turn.partition)
    data["run_id"] = task.id if task.run_id is None else task.run_id
    return data


def run_data_of(
    run: RunSummary, outcome: Outcome, task: Task, redactor: Redactor
) -> dict[str, Any]:
    """The data of the end of a run. The arguments are those of the hook `on_run_end`."""
    data = data_of(RUN_END, outcome, None, task, None, redactor)
    return {**data, "run_id": run.id, **redactor.value(run.details())}


def names_of(data: Mapping[str, Any], context: Mapping[str, Any]) -> dict[str, Any]:
    """What the templates of a payload and of a partition may use: `data`, and further names."""
    names = {"partition": None, **context, **data}
    # A template can ask for the body of an answer that did not come; it finds nothing there.
    names["request"] = {**_NO_REQUEST, **(data["request"] or {})}
    names["response"] = data["response"] or _NO_RESPONSE
    return names


def time_text(seconds: float) -> str:
    """RFC 3339 in UTC with milliseconds, of seconds since the epoch."""
    whole = math.floor(seconds)
    # As `datetime` rounds to microseconds; what is below a millisecond is cut off.
    further, micros = divmod(round((seconds - whole) * 1_000_000), 1_000_000)
    return rfc3339((whole + further) * 1000 + micros // 1000)


def payload_of(
    webhook: Webhook,
    data: Mapping[str, Any],
    context: Mapping[str, Any],
    at: float,
    redactor: Redactor,
) -> str:
    """The body of one delivery, as it is stored and sent.

    Args:
        webhook: as declared when the event happened.
        data: what `data_of` made.
        context: further names for the templates of the webhook's own payload.
        at: when it happened, in seconds since the epoch.
        redactor: knows the secrets that a payload may not hold.

    Raises:
        InvalidPayload: a template fails, or the result is too large or no JSON.
    """
    if webhook.payload is None:
        sent = narrowed(webhook, data)
        encoded = _encoded({"type": webhook.phase, "timestamp": time_text(at), "data": sent})
    else:
        text = own_text(webhook.payload, names_of(data, context), redactor)
        encoded = text.encode("utf-8", "replace")
    return checked_size(encoded)


def own_text(payload: Template | TemplateTree, names: Mapping[str, Any], redactor: Redactor) -> str:
    """What a webhook's own payload renders to. Raises InvalidPayload where it does not."""
    if isinstance(payload, TemplateTree):
        return json_text(redactor.data.value(payload.render(names)))
    text: str = redactor.data.text(payload.render(names, quote=str))
    return text


def checked_size(encoded: bytes) -> str:
    """A payload as it is stored. Raises InvalidPayload where it is too large."""
    if len(encoded) > MAX_PAYLOAD:
        size = len(encoded)
        raise InvalidPayload(f"the payload has {size} bytes; at most {MAX_PAYLOAD} are sent")
    return encoded.decode()


def narrowed(webhook: Webhook, data: Mapping[str, Any]) -> Mapping[str, Any]:
    """What `include` leaves of the envelope's data."""
    if webhook.include is None:
        return data
    left_out = _OPTIONAL.difference(webhook.include)
    return {name: value for name, value in data.items() if name not in left_out}


def _request(request: Any, redactor: Redactor) -> dict[str, Any] | None:
    if isinstance(request, Statement):
        return {
            "database": request.database,
            "statement": redactor.text(request.text),
            "params": redactor.data.value(request.params),
        }
    if not isinstance(request, httpx.Request):
        return None
    return {"method": request.method, "url": redactor.text(url_text(request))}


def _response(response: httpx.Response | None, redactor: Redactor) -> dict[str, Any] | None:
    if response is None:
        return None
    content = response.content
    if len(content) > MAX_BODY:
        content = response.extensions.get("excerpt", content)
    shown: dict[str, Any] = {"headers": _headers(response, redactor), **_body(content, redactor)}
    if response.extensions.get("truncated"):
        shown["truncated"] = True
    return shown


def _headers(response: httpx.Response, redactor: Redactor) -> dict[str, str]:
    items = list(header_items(response))
    names = ("envelope", *map(_name_of, items))
    # Within a second most servers give all of their answers the same.
    headers: dict[str, str] | None = redactor.recall(names, items)
    if headers is None:
        headers = {}
        for name, value in redactor.headers(items):
            if value != "***":
                headers[name] = f"{headers[name]}, {value}" if name in headers else value
        if sum(map(len, chain.from_iterable(items))) < REMEMBERED:
            redactor.remember(names, items, headers)
    return headers.copy()


def _body(content: bytes, redactor: Redactor) -> dict[str, Any]:
    if not content:
        return {"body": ""}
    window = content[: MAX_BODY + _MARGIN]
    beyond = len(content) > len(window)
    try:
        # Where there is more, the last character of the window may be incomplete: it is left out.
        text = codecs.getincrementaldecoder("utf-8")().decode(window, final=not beyond)
        encoding = "utf-8"
    except UnicodeDecodeError:
        text = window.decode("latin-1")
        encoding = "latin-1"
    masked = redactor.text(text).encode(encoding)
    # The end of the window may hold the beginning of a secret.
    whole = max(len(masked) - _MARGIN, 0) if beyond else len(masked)
    cut = masked[: min(MAX_BODY, whole)]
    if encoding == "utf-8":
        body: dict[str, Any] = {"body": cut.decode(errors="ignore")}
    else:
        body = {"body": base64.b64encode(cut).decode(), "encoding": "base64"}
    if beyond or len(cut) < len(masked):
        body["truncated"] = True
    return body


def _encoded(envelope: Mapping[str, Any]) -> bytes:
    try:
        return to_json(envelope)  # in a fifth of the time
    except ValueError:
        # JSON can name half of a character that takes two; UTF-8 cannot write it.
        return json_text(envelope).encode("utf-8", "replace")


def json_text(value: Any) -> str:
    """A payload as JSON. Raises InvalidPayload for what JSON cannot say."""
    try:
        return _ENCODER.encode(value)
    except (TypeError, ValueError) as error:
        raise InvalidPayload(f"the payload cannot be written as JSON: {error}") from None


def _plain(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    raise TypeError(f"a {type(value).__name__} has no place in it")


_ENCODER = json.JSONEncoder(
    ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=_plain
)
