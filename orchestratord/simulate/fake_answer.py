"""A fake answer: judged as if it had come."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from functools import partial
from typing import Any

import httpx

from orchestratord.engine.file_transfer import PRETENDED
from orchestratord.errors import Conflict, SendError, SendErrorKind
from orchestratord.model.outcome import Outcome
from orchestratord.model.task import Task
from orchestratord.model.test_case import FakeAnswer
from orchestratord.plugin.executor import Executor, Target
from orchestratord.plugin.isolation import is_ctrl_c, words
from orchestratord.values.template import to_text

_ERRORS: Mapping[SendErrorKind, tuple[str, bool]] = {
    "dns": ("the name of the host does not resolve", False),
    "connect": ("connection refused", False),
    "tls": ("the TLS handshake failed", False),
    "certificate": ("the certificate is not signed by an authority that is trusted here", False),
    "access": ("no token is given", False),
    "egress": ("the address may not be dialled", False),
    "send": ("the connection broke while the request was sent", True),
    "timeout": ("no answer came in time", True),
    "reset": ("the connection was closed before an answer came", True),
    "protocol": ("the answer is not HTTP", True),
}
"""What is said of each, and whether the request can have been carried out."""

NO_ANSWER: SendErrorKind = "timeout"
"""What the status code `error` stands for alone."""


async def _answered(answer: FakeAnswer, request: httpx.Request, **options: Any) -> httpx.Response:
    """A `send` that sends nothing: each request gets the same fake answer."""
    if not isinstance(answer.code, int):
        kind = answer.error or NO_ANSWER
        message, sent = _ERRORS[kind]
        raise SendError(message, kind=kind, sent=sent)
    headers = {
        name: value
        for name, value in answer.headers.items()
        # The body is written as it is read, whatever the file says of its encoding.
        if name.lower() not in ("content-encoding", "content-length", "transfer-encoding")
    }
    body = answer.body if answer.file is None else answer.file.content
    content = _content(body, headers)
    return httpx.Response(answer.code, headers=headers, content=content, request=request)


async def outcome_of(
    executor: Executor, request: Any, task: Task, target: Target, answer: FakeAnswer
) -> Outcome:
    """How the attempt ends with this answer, as the executor judges it; no hook has seen it.

    Raises Conflict where it is no answer that can come.
    """
    if executor.immediate and answer.code != "ok":
        raise Conflict("an event has no answer; leave it out")
    if executor.phases[0] != "before_request":
        return _executed(executor, request, target, answer)
    if isinstance(request, httpx.Request):
        request.extensions[PRETENDED] = True
    try:
        async with asyncio.timeout(target.timeout):
            outcome = await executor.execute(request, task, target, partial(_answered, answer))
    except asyncio.CancelledError:
        raise
    except BaseException as fault:  # it may be a plugin's
        if is_ctrl_c(fault):
            raise
        outcome = Outcome("retry", "error", error=words(fault), maybe_done=True)
    return outcome


def _executed(executor: Executor, request: Any, target: Target, answer: FakeAnswer) -> Outcome:
    """Of what is not sent: judged by its executor, as far as that can tell. Raises Conflict."""
    if answer.code == "ok":
        body = json.loads(json.dumps(answer.body, default=to_text))
        try:
            outcome = executor.pretend(request, target, body)
        except ValueError as error:
            raise Conflict(f"the answer cannot be pretended: {error}") from None
        if outcome is not None:
            return outcome
        headers: dict[str, str] = {}
        content = _content(answer.body, headers)
        response = httpx.Response(200, headers=headers, content=content)
        return Outcome("success", "ok", response, answered=True)
    sent = _ERRORS[answer.error or NO_ANSWER][1]
    verdict = "retry" if "error" in target.retry.when else "failure"
    return Outcome(verdict, "error", error="a pretended error", maybe_done=sent)  # type: ignore[arg-type]


def _content(body: Any, headers: dict[str, str]) -> bytes:
    if body is None:
        return b""
    if isinstance(body, str | bytes):
        return body.encode() if isinstance(body, str) else body
    if not any(name.lower() == "content-type" for name in headers):
        headers["Content-Type"] = "application/json"
    return json.dumps(body, ensure_ascii=False, default=to_text).encode()
