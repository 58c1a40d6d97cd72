"""What the expressions of `then:` look at."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NoReturn

import httpx

from orchestratord import Outcome, Redactor, Task, header_items

NAMES = frozenset({"status_code", "headers", "body", "params", "task"})
ITEM = "item"
"""The name that `each` adds."""
WHOLE = "@"
"""All of them together, as `Expression.names` has it."""


class Unreadable(Exception):
    """The answer has no body that could be looked at; the message says why."""


class Answer:
    """One answer, read as far as somebody looks.

    Args:
        outcome: of the attempt.
        task: the call.
        redactor: knows which headers are secret; these are left out.
    """

    def __init__(self, outcome: Outcome, task: Task, redactor: Redactor) -> None:
        self._outcome = outcome
        self._task = task
        self._redactor = redactor
        self._known: dict[str, Any] = {}

    def document(self, names: frozenset[str]) -> Mapping[str, Any]:
        """All that can be looked at, at least what `names` names.

        Raises Unreadable where the body is wanted, and is not all there or no JSON.
        """
        if not self._known:
            self._known = {
                "status_code": self._outcome.status_code,
                "params": self._task.params,
                "task": _about(self._task),
            }
        if {"headers", WHOLE} & names and "headers" not in self._known:
            self._known["headers"] = self._headers()
        if {"body", WHOLE} & names and "body" not in self._known:
            self._known["body"] = _body(self._outcome.response)
        return self._known

    def _headers(self) -> dict[str, str]:
        headers: dict[str, str] = {}
        response = self._outcome.response
        found = header_items(response) if response is not None else ()
        for name, value in self._redactor.headers(found):
            if value != "***":
                headers[name] = f"{headers[name]}, {value}" if name in headers else value
        return headers


def _about(task: Task) -> dict[str, Any]:
    slot = datetime.fromtimestamp(task.scheduled_at / 1000, UTC)
    return {
        "id": task.id,
        "attempt": task.attempts,
        "scheduled_at": slot.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }


def _body(response: httpx.Response | None) -> Any:
    content = response.content if response is not None else b""
    if response is not None and response.extensions.get("truncated"):
        raise Unreadable(
            f"the answer was cut after {len(content)} bytes; ask for less at once, or give it a "
            "larger max_response"
        )
    if not content.strip():
        raise Unreadable("the answer has no body")
    try:
        return json.loads(content, parse_constant=_refuse)
    except RecursionError:
        raise Unreadable("the body of the answer is nested too deeply") from None
    except ValueError as error:
        raise Unreadable(f"the body of the answer is not JSON: {error}") from None


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number")
