"""What stands under `tests:` in an endpoint's YAML: a fake answer, and what is to follow.

A test case sends nothing. The request is prepared, the fake answer of the file is judged, and
the decision is taken by the code that does so in the daemon.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from orchestratord.errors import SendErrorKind
from orchestratord.model.declared import Model
from orchestratord.model.task import Reason
from orchestratord.values.attached_file import BodyFile
from orchestratord.values.clock import from_rfc3339
from orchestratord.values.durations import parse_duration
from orchestratord.values.status_set import StatusCode, StatusSet

NOON = "2027-01-01T12:00:00Z"
"""What time it is in a test case that does not say."""

Verdict = Literal["succeeded", "retry", "failed"]


def parse_code(value: Any) -> StatusCode:
    """One status code: a number, `error` or `ok`. Raises ValueError for anything else."""
    text = str(value).strip()
    if text in StatusSet.WORDS:
        return text
    if not isinstance(value, bool) and text.isascii() and text.isdigit() and 100 <= int(text) < 600:
        return int(text)
    raise ValueError(f"{value!r} is not one status code: write 503, or error for no answer")


def _parse_moment(value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    try:
        return from_rfc3339(value) / 1000
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{value!r} is not a time: write {NOON}") from None


Moment = Annotated[
    float,
    BeforeValidator(_parse_moment),
    WithJsonSchema({"type": "string", "format": "date-time", "description": f"such as {NOON}"}),
]
"""Seconds since the epoch, written as a time."""


def _parse_span(value: Any) -> tuple[float, float]:
    if not isinstance(value, list | tuple):
        delay = parse_duration(value)
        return delay, delay
    if len(value) != 2:
        raise ValueError("a range of delays has two ends: [1s, 10s]")
    first, last = parse_duration(value[0]), parse_duration(value[1])
    if first > last:
        raise ValueError("the range of delays is empty: its first end is the longer one")
    return first, last


_ONE_DELAY = {"type": ["string", "number"], "description": "a duration, such as 10s"}

Span = Annotated[
    tuple[float, float],
    BeforeValidator(_parse_span),
    WithJsonSchema(
        {
            "anyOf": [
                _ONE_DELAY,
                {"type": "array", "items": _ONE_DELAY, "minItems": 2, "maxItems": 2},
            ],
            "description": "a duration, or the two ends of a range",
        }
    ),
]
"""The shortest and the longest delay in seconds."""

Code = Annotated[
    int | str,
    BeforeValidator(parse_code),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 100, "maximum": 599},
                {"enum": ["ok", "error"]},
            ],
            "description": "a number, or error for no answer; ok and error for a database",
        }
    ),
]


class FakeAnswer(Model):
    """A simulated answer, or the error instead of one."""

    status_code: Code | None = None
    """A number; `error` for a sent request without an answer."""
    headers: Mapping[str, str] = {}
    """The headers of the answer."""
    body: Any = None
    """A text as written; other values become JSON."""
    file: BodyFile | None = None
    """The file with the body, relative to the config folder."""
    error: SendErrorKind | None = None
    """The kind of error instead of an answer."""

    @model_validator(mode="after")
    def _one(self) -> FakeAnswer:
        if (self.status_code is None) is (self.error is None):
            raise ValueError("give one of status_code and error")
        answered = isinstance(self.status_code, int)
        if self.headers and not answered:
            raise ValueError("headers are those of an answer by HTTP; there is none")
        if self.file is not None and (self.body is not None or not answered):
            raise ValueError("a file is the body of an answer by HTTP; give one of body and file")
        if self.body is not None and not (answered or self.status_code == "ok"):
            raise ValueError("a body is that of an answer; there is none")
        return self

    @property
    def code(self) -> StatusCode:
        """The status code that comes of it."""
        return self.status_code if self.error is None else "error"


class ExpectedRequest(Model):
    """The expected request. The test ignores parts that are left out."""

    method: str | None = None
    """The method, such as POST."""
    url: str | None = None
    """The whole URL, with its query."""
    headers: Mapping[str, str] = {}
    """These headers, among others."""
    body: Any = None
    """A text as written; other values are compared as JSON."""
    database: str | None = None
    """The name of the database, for a statement."""
    statement: str | None = None
    """The statement; white space may differ."""
    params: Mapping[str, Any] | None = None
    """Exactly the values bound to the statement."""


class ExpectedCall(Model):
    """An expected call."""

    call: str
    """The endpoint, `api/name`."""
    params: Mapping[str, Any] | None = None
    """Exactly these, with defaults; by default any."""


def _parse_call(value: Any) -> Any:
    return {"call": value} if isinstance(value, str) else value


class Expected(Model):
    """The expected consequences. The test ignores those that are left out."""

    outcome: Verdict | None = None
    """`succeeded`, `retry` (another attempt or look follows) or `failed` (for good)."""
    reason: Reason | None = None
    """Why it failed for good."""
    delay: Span | None = None
    """The delay until the next attempt, before jitter: a duration or a range."""
    webhooks: tuple[str, ...] | None = None
    """The names of exactly those that fire, in any order."""
    calls: tuple[Annotated[ExpectedCall, BeforeValidator(_parse_call)], ...] | None = None
    """Exactly the calls that follow, in order: `api/name`, or with `params`."""
    request: ExpectedRequest | None = None
    """The request; the test ignores parts that are left out."""

    @model_validator(mode="after")
    def _fitting(self) -> Expected:
        if not self.model_fields_set:
            raise ValueError(
                "expects nothing; give one of outcome, delay, webhooks, calls, request"
            )
        if self.delay is not None and self.outcome in ("succeeded", "failed"):
            raise ValueError(f"there is no delay where the outcome is {self.outcome}")
        if self.reason is not None and self.outcome in ("succeeded", "retry"):
            raise ValueError(f"there is no reason where the outcome is {self.outcome}")
        return self


class TestCase(Model):
    """A test case of an endpoint: an answer and its expected consequences."""

    name: str = ""
    """Its name in the output."""
    params: Mapping[str, Any] = {}
    """The parameters of the call."""
    attempt: int = Field(1, ge=1, le=1000)
    """The number of the attempt, from 1."""
    now: Moment = Field(default_factory=lambda: from_rfc3339(NOON) / 1000)
    """The time: 2027-01-01T12:00:00Z."""
    answer: FakeAnswer | None = None
    """The simulated answer: a status code with headers and a body, or an error. An event has
    none."""
    expect: Expected
    """The expected consequences."""
