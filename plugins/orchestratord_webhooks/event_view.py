"""What the `when` of a webhook sees of an event."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

from orchestratord import (
    Budget,
    Expression,
    Redactor,
    UnreadableBody,
    free_json,
    read_body,
    reads_quickly,
)

WHOLE = "@"
"""All that there is, as `Expression.names` has it."""


class EventView:
    """The envelope's data, where the answer's body is parsed and uncut.

    Args:
        data: of the envelope.
        response: of the attempt, None where there is none.
        redactor: knows the secrets that no expression may find out.
    """

    def __init__(
        self, data: Mapping[str, Any], response: httpx.Response | None, redactor: Redactor
    ) -> None:
        self._data = data
        self._response = response
        self._redactor = redactor
        self._whole: Mapping[str, Any] | None = None
        """The data with the parsed body."""

    def holds(self, when: Expression, budget: Budget | None = None) -> bool:
        """Whether `when` is true.

        Raises:
            TooCostly: it costs more than `budget`, or than it may at all.
            ValueError: a function does not take what it is given.
        """
        if not sees_body(when, self._response):
            return when.holds(self._data, budget)
        if self._whole is None:
            self._whole = {**self._data, "response": self._parsed()}
        return when.holds(self._whole, budget)

    def free(self) -> None:
        """Free what was parsed, in pieces; nothing is looked at any more."""
        if self._whole is not None:
            free_json([self._whole["response"].pop("body")])

    def _parsed(self) -> dict[str, Any]:
        shown: dict[str, Any] = dict(self._data["response"])
        assert self._response is not None
        try:
            shown["body"] = self._redactor.data.value(read_body(self._response))
        except (UnreadableBody, RecursionError):
            return shown  # a text, as the envelope has it
        shown.pop("truncated", None)
        return shown


def sees_body(when: Expression, response: httpx.Response | None) -> bool:
    """Whether it may look into the body of this answer."""
    return response is not None and not when.names.isdisjoint({"response", WHOLE})


def is_quick(when: Expression, response: httpx.Response | None) -> bool:
    """Whether what it sees is read on the event loop, or is not read at all."""
    return response is None or not sees_body(when, response) or reads_quickly(response)
