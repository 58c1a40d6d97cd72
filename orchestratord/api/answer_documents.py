"""The documents that the API answers: their fields, and what each of them says.

`serialize` and `status` make them; mypy holds what they make against this. `/openapi.json` and the
reference in docs/api.md are made of it, with the docstrings as descriptions.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal, NotRequired, TypeVar

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict
from typing_extensions import TypedDict

from orchestratord.model.task import Reason, Status, WaitsFor

T = TypeVar("T", bound=type)


def example(value: JsonDict, *, is_open: bool = False) -> Callable[[T], T]:
    """Decorate a document with an example of it.

    `is_open`: it may have more keys than those that are described.
    """

    def decorate(document: T) -> T:
        config = ConfigDict(use_attribute_docstrings=True)
        config["json_schema_extra"] = {"examples": [value]}
        if is_open:
            config["extra"] = "allow"
        # As `pydantic.with_config` does it, which its stubs refuse for a TypedDict of a variable.
        setattr(document, "__pydantic_config__", config)  # noqa: B010
        return document

    return decorate


Time = Annotated[
    str, Field(json_schema_extra={"format": "date-time"}, examples=["2026-11-24T22:00:00.000Z"])
]
"""RFC 3339 in UTC, with milliseconds."""
Code = Annotated[int | str | None, Field(examples=[503])]
"""A number; `error` where no answer came; `ok` of a statement; null where nothing was sent."""
Name = Annotated[str, Field(examples=["shop/getOrder"])]
"""An endpoint: `api/name`."""
TaskId = Annotated[int, Field(examples=[42])]
_Status = Annotated[str, Field(json_schema_extra={"enum": [one.value for one in Status]})]
_Reason = Annotated[str, Field(json_schema_extra={"enum": [one.value for one in Reason]})]
Counts = Annotated[dict[str, int], Field(examples=[{}])]

# -- Tasks -----------------------------------------------------------------------------------------

_TASK: JsonDict = {
    "id": 42,
    "kind": "call",
    "endpoint": "shop/getOrder",
    "webhook": None,
    "phase": None,
    "status": "pending",
    "reason": None,
    "attempts": 1,
    "max_attempts": 5,
    "deaths": 0,
    "looks": 0,
    "looked_since": None,
    "waits_for": None,
    "next_try": "2026-11-24T22:00:05.214Z",
    "params": {"id": 1001},
    "truncated": False,
    "parent_id": None,
    "run_id": None,
    "partition": None,
    "bulk_id": None,
    "replaces": None,
    "last_status_code": 503,
    "last_error": "503 Service Unavailable",
    "created_at": "2026-11-24T22:00:00.000Z",
    "updated_at": "2026-11-24T22:00:00.031Z",
    "finished_at": None,
}
_WAIT: JsonDict = {
    "for": "breaker",
    "why": "the breaker of api:shop is open: 503 Service Unavailable",
    "lane": "api:shop",
    "since": "2026-11-24T21:58:04.000Z",
    "until": "2026-11-24T22:00:12.000Z",
    "task": None,
}
_ATTEMPT: JsonDict = {
    "attempt": 1,
    "started_at": "2026-11-24T22:00:00.002Z",
    "duration_ms": 28.4,
    "status_code": 503,
    "error": "503 Service Unavailable",
    "delay": 5.214,
    "why": "exponential 5s·2^0=5s, jitter +214ms",
}


@example(_TASK)
class TaskDocument(TypedDict):
    """A task: a call, or the delivery of a webhook."""

    id: TaskId
    kind: Annotated[str, Field(examples=["call"])]
    """`call` or `webhook`."""
    endpoint: Name
    """`api/name`."""
    webhook: str | None
    """The webhook of a delivery."""
    phase: str | None
    """The phase that a delivery announces."""
    status: _Status
    reason: _Reason | None
    """Why it failed for good; a cancelled task keeps `ambiguous`, `poisoned` and `replaced`."""
    attempts: int
    """Attempts that an answer or error ended, and the one under way."""
    max_attempts: int
    deaths: int
    """Attempts that ended with the daemon's death."""
    looks: int
    """How often an answer said not done yet (`poll`)."""
    looked_since: Time | None
    """The time of the first such answer."""
    waits_for: str | None
    """Why a plugin's hook put it off until `next_try`, or null."""
    next_try: Time | None
    """When it is due; null unless pending."""
    params: Any
    """A list cuts them after 2,000 characters."""
    truncated: bool
    """True if `params` are cut."""
    parent_id: int | None
    """The task that caused it."""
    run_id: int | None
    """The run of a call: the id of its first call. Null for a lone call without child tasks."""
    partition: str | None
    bulk_id: int | None
    """The last bulk that moved it."""
    replaces: int | None
    """The task that it repeats with other parameters."""
    last_status_code: Code
    """A number, `error` for no answer, `ok` for a statement, or null."""
    last_error: str | None
    created_at: Time
    updated_at: Time
    finished_at: Time | None


_For = TypedDict(
    "_For",
    {
        "for": Annotated[
            WaitsFor,
            Field(
                description="`parked`: paused, disabled, or without its plugin; `snooze`: put off "
                "by a plugin's hook"
            ),
        ]
    },
)


@example(_WAIT)
class WaitDocument(_For):
    """What else than its `next_try` a pending task waits for."""

    why: str
    lane: str | None
    since: Time | None
    until: Time | None
    """When the lane may begin its next task, maybe another one; null if unknown."""
    task: int | None
    """The task that has the turn or holds the partition."""


@example(_ATTEMPT)
class AttemptDocument(TypedDict):
    """One attempt."""

    attempt: int
    started_at: Time
    duration_ms: float
    status_code: Code
    error: str | None
    delay: float | None
    """Seconds until the next one, or null."""
    why: str
    """How the delay was chosen, or why there is none."""


@example(
    {
        **_TASK,
        "waits": None,
        "replaced_by": None,
        "holds_partition": False,
        "cancel_requested": False,
        "idempotency_key": "9f3b6a52c07d41e8a1d4c2f0b7e65a38",
        "client_key": "order-1001",
        "payload": None,
        "response": None,
        "attempt_log": [_ATTEMPT],
    }
)
class TaskPageDocument(TaskDocument):
    """A task in full."""

    waits: WaitDocument | None
    replaced_by: int | None
    """The task that runs, or ran, in its place."""
    holds_partition: bool
    """True if tasks behind it wait until a person retries or cancels it."""
    cancel_requested: bool
    """True if it was cancelled while it runs: no attempt follows this one."""
    idempotency_key: str | None
    """The Idempotency-Key that it sends, or the webhook-id of a delivery. Null if it sends none or
    the endpoint declares its own."""
    client_key: str | None
    """The Idempotency-Key of the client that made the call."""
    payload: str | None
    """The body of a delivery."""
    response: Any
    """The last answer."""
    attempt_log: list[AttemptDocument]
    """All attempts, the oldest first."""


class TasksDocument(TypedDict):
    """A page of tasks."""

    retries: list[TaskDocument]
    next: Annotated[int | str | None, Field(examples=[17])]
    """The `after` of the next page; null at the end."""


class AcceptedCall(TypedDict):
    """A call, on disk."""

    id: TaskId
    status: _Status


class AcceptedBatch(TypedDict):
    """A batch of calls, on disk."""

    ids: Annotated[list[int], Field(examples=[[42, 43]])]
    """In the order of the batch."""


@example(
    {
        "method": "GET",
        "url": "https://shop.example.com/orders/1001",
        "headers": {"authorization": "***"},
        "body": None,
        "curl": "curl https://shop.example.com/orders/1001 \\\n  -H 'authorization: ***'",
    }
)
class RequestDocument(TypedDict, total=False):
    """An HTTP request or a statement, with secrets masked."""

    method: str
    url: str
    headers: dict[str, str]
    body: str | None
    body_file: str
    """The file of the body, instead of `body`."""
    curl: str
    """The request as a command line."""
    database: str
    statement: str
    params: Any
    added: list[str]
    """Headers that the daemon adds when it sends."""


# -- Many tasks ------------------------------------------------------------------------------------


class BegunBulk(TypedDict):
    """A bulk that has begun."""

    matched: Annotated[int, Field(examples=[1207])]
    bulk: Annotated[int, Field(examples=[3])]
    """Its id."""
    left_out: Counts
    """Reason → tasks that the bulk leaves alone for it."""


class CountDocument(TypedDict):
    """Tasks that failed for one reason at one endpoint."""

    reason: _Reason | None
    endpoint: Name
    tasks: int


class SurveyDocument(TypedDict):
    """What a bulk would do."""

    matched: Annotated[int, Field(examples=[1207])]
    bulk: None
    left_out: Counts
    """Reason → tasks that the bulk leaves alone for it."""
    counts: list[CountDocument]
    """The largest first."""
    examples: list[TaskDocument]


@example(
    {
        "id": 3,
        "action": "retry",
        "status": "running",
        "matched": 1207,
        "moved": 340,
        "skipped": 2,
        "why_skipped": {"changed": 1, "webhook_disabled": 1},
        "succeeded": 301,
        "failed": 4,
        "waiting": 35,
        "stop_after": 50,
        "filter": {
            "status": "failed",
            "status_code": "5xx",
            "endpoint": "shop/*",
            "since": "2026-11-23T22:00:00.000Z",
        },
        "include_ambiguous": False,
        "rate": "10/s",
        "created_at": "2026-11-24T22:00:00.000Z",
        "finished_at": None,
        "ended_at": None,
    }
)
class BulkDocument(TypedDict):
    """A retry, cancel or resolve of many tasks, and its progress."""

    id: int
    action: Annotated[str, Field(json_schema_extra={"enum": ["retry", "cancel", "resolve"]})]
    status: Annotated[
        str, Field(json_schema_extra={"enum": ["running", "paused", "finished", "cancelled"]})
    ]
    """`finished`: moved all; `paused`: after `stop_after` failures, until a person resumes it."""
    matched: int
    moved: int
    skipped: int
    why_skipped: Counts
    """`changed`, or the reason why they would fail again → tasks."""
    succeeded: int
    """Moved tasks that have succeeded. 0 unless a retry, as the next two."""
    failed: int
    """Moved tasks that have failed for good."""
    waiting: int
    """Moved tasks that have not ended. The rest were cancelled or moved by a later bulk."""
    stop_after: int
    """Failures after which the bulk pauses; 0 for never."""
    filter: Any
    include_ambiguous: bool | None
    """Null unless a retry."""
    rate: str | None
    created_at: Time
    finished_at: Time | None
    """When it had moved all tasks or was cancelled."""
    ended_at: Time | None
    """When the last moved task had ended."""


class BulksDocument(TypedDict):
    """The latest bulks."""

    bulks: list[BulkDocument]


# -- The action log --------------------------------------------------------------------------------


@example(
    {
        "id": 9,
        "at": "2026-11-24T22:00:00.000Z",
        "who": "a session of token, 127.0.0.1",
        "action": "retry",
        "endpoint": "shop/getOrder",
        "webhook": None,
        "task": 42,
        "bulk": None,
        "detail": {},
    }
)
class ActionDocument(TypedDict):
    """A manual action."""

    id: int
    at: Time
    who: str
    action: str
    endpoint: str | None
    webhook: str | None
    task: int | None
    bulk: int | None
    detail: Any


class ActionLog(TypedDict):
    """A page of the action log."""

    actions: list[ActionDocument]
    next: int | None
    """The `after` of the next page; null at the end."""


# -- Endpoints -------------------------------------------------------------------------------------


@example(
    {
        "id": "shop/getOrder",
        "method": "GET",
        "path": "/orders/{{ params.id }}",
        "enabled": True,
        "webhooks": [],
        "paused": False,
        "next_run": None,
        "source": "apis/shop/endpoints/getOrder.yaml",
    },
    is_open=True,
)
class EndpointDocument(TypedDict):
    """An endpoint: its state, and the keys of its merged declaration with secrets masked."""

    id: Name
    enabled: bool
    webhooks: Any
    paused: bool
    next_run: Time | None
    """The next time of its schedule."""
    source: str
    """Its file."""


class EndpointsDocument(TypedDict):
    """All endpoints."""

    endpoints: list[EndpointDocument]


class PausedDocument(TypedDict):
    """Whether an endpoint is paused."""

    id: Name
    paused: bool
    lifted: NotRequired[bool]
    """After a resume: true if a throttle ended."""
    disabled_in: NotRequired[str]
    """After a resume: the file whose `enabled: false` keeps it disabled."""


class LiftedDocument(TypedDict):
    """The result of a resume."""

    name: Annotated[str, Field(examples=["api:shop"])]
    lifted: bool
    """True if a throttle ended."""


class DecisionDocument(TypedDict):
    """The predicted decision about the call."""

    outcome: Literal["succeeded", "retry", "failed"]
    reason: _Reason | None
    covered: bool
    """True if `retry.when` has the status code."""
    why: str
    delay: float | None
    """Seconds, before jitter."""
    shortest: float | None
    longest: float | None


class ConsequenceDocument(TypedDict):
    """A predicted consequence, or why there is none."""

    plugin: str
    kind: str
    name: str
    phase: str
    happens: bool
    why: str
    partition: str | None
    """The partition of the task."""
    request: RequestDocument | None
    error: str | None
    """Why the request cannot be built."""


class FoundDocument(TypedDict):
    """The result of an expression."""

    key: str
    """Its key: `fail_if`, `retry.if`, `success_if`."""
    expression: str
    value: Any
    error: str | None
    """Why there is no result."""


class ExplanationDocument(TypedDict):
    """The predicted consequences of an answer."""

    endpoint: Name
    enabled: bool
    attempt: int
    max_attempts: int
    params: Any
    partition: str | None
    """The partition of the call."""
    request: RequestDocument | None
    hooks: dict[str, list[str]]
    """Deciding phase → the plugins that may change the prediction."""
    status_code: Code
    error: str | None
    expressions: list[FoundDocument]
    """The expressions that judge the answer."""
    rate_limit: str | None
    decision: DecisionDocument | None
    reached: list[str]
    """The phases of the attempt."""
    phases: list[str]
    """The phases of `consequences`."""
    consequences: list[ConsequenceDocument]
    notes: list[str]
    """Faults of plugins meanwhile."""
