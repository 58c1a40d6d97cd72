"""The documents that the API answers: their fields, and what each of them says.

`serialize` and `status` make them; mypy holds what they make against this. `/openapi.json` and the
reference in docs/api.md are made of it, with the docstrings as descriptions.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal, NotRequired, TypeVar

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict
from typing_extensions import TypedDict

from orchestratord.model.task import Reason, Status

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
    """Of a delivery: the webhook's name."""
    phase: str | None
    """Of a delivery: the phase that it tells of."""
    status: _Status
    reason: _Reason | None
    """Why it failed for good; of what was cancelled, `ambiguous`, `poisoned` and `replaced`."""
    attempts: int
    """How many an answer or an error has ended; while one runs, it is counted."""
    max_attempts: int
    deaths: int
    """Starts that ended with the daemon's death."""
    looks: int
    """How often an answer said that it is not done yet (`poll`)."""
    looked_since: Time | None
    """When the first of these came."""
    waits_for: str | None
    """Why a plugin's hook put it off until `next_try`; null where none did."""
    next_try: Time | None
    """When it is due; null unless it is pending."""
    params: Any
    """In a list, more than 2,000 characters of them are cut."""
    truncated: bool
    """Whether `params` are cut."""
    parent_id: int | None
    """The task that it follows from."""
    run_id: int | None
    """Of a call: the run that it belongs to, the id of the call that began it; null for a call that
    nothing caused and that has no child tasks."""
    partition: str | None
    bulk_id: int | None
    """The last bulk that moved it."""
    replaces: int | None
    """The task that it was made of, with other parameters, and whose place it takes."""
    last_status_code: Code
    """A number, `error` where no answer came, `ok` of a statement, or null."""
    last_error: str | None
    created_at: Time
    updated_at: Time
    finished_at: Time | None


_For = TypedDict(
    "_For",
    {
        "for": Annotated[
            Literal[
                "breaker",
                "retry_after",
                "overload",
                "rate_limit",
                "concurrency",
                "parked",
                "partition",
                "snooze",
            ],
            Field(
                description="`parked`: it is paused, disabled, or lacks its plugin; `snooze`: a "
                "plugin's hook put it off"
            ),
        ]
    },
)


@example(_WAIT)
class WaitDocument(_For):
    """What a pending task waits for beside its `next_try`."""

    why: str
    lane: str | None
    since: Time | None
    until: Time | None
    """When the lane may begin its next task, which may be another one; null where that depends on
    something else."""
    task: int | None
    """Which one has the turn, or holds the partition."""


@example(_ATTEMPT)
class AttemptDocument(TypedDict):
    """One attempt."""

    attempt: int
    started_at: Time
    duration_ms: float
    status_code: Code
    error: str | None
    delay: float | None
    """Seconds until the next one; null where there is none."""
    why: str
    """How the delay came about, or why there is none."""


@example(
    {
        **_TASK,
        "waits": None,
        "replaced_by": None,
        "holds_partition": False,
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
    """The task that is carried out in its place, or was: this one is left alone."""
    holds_partition: bool
    """Whether those behind it wait until it is retried or cancelled."""
    idempotency_key: str | None
    """What its receiver tells a repeat by: the Idempotency-Key of its requests, the webhook-id of a
    delivery. Null where it is sent none, or the endpoint declares one of its own."""
    client_key: str | None
    """The Idempotency-Key with which a client has made the call."""
    payload: str | None
    """Of a delivery: its body."""
    response: Any
    """The last answer."""
    attempt_log: list[AttemptDocument]
    """All attempts, the oldest one first."""


class TasksDocument(TypedDict):
    """A page of tasks."""

    retries: list[TaskDocument]
    next: Annotated[int | str | None, Field(examples=[17])]
    """What to give as `after` for the next page; null at the end."""


class AcceptedCall(TypedDict):
    """A call that is on disk."""

    id: TaskId
    status: _Status


class AcceptedBatch(TypedDict):
    """A batch of calls that is on disk."""

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
    """What would be sent, secrets masked: a request of HTTP, or a statement."""

    method: str
    url: str
    headers: dict[str, str]
    body: str | None
    body_file: str
    """Instead of `body`: the file that holds it."""
    curl: str
    """The request as a command line."""
    database: str
    statement: str
    params: Any
    added: list[str]
    """Headers that are added when it is sent."""


# -- Many tasks ------------------------------------------------------------------------------------


class BegunBulk(TypedDict):
    """A bulk, which goes on by itself."""

    matched: Annotated[int, Field(examples=[1207])]
    bulk: Annotated[int, Field(examples=[3])]
    """Its id."""
    left_out: Counts
    """Reason → how many tasks are left alone for it."""


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
    """Reason → how many tasks are left alone for it."""
    counts: list[CountDocument]
    """The most numerous ones first."""
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
    """Many tasks retried, cancelled or resolved, and how far that has come."""

    id: int
    action: Annotated[str, Field(json_schema_extra={"enum": ["retry", "cancel", "resolve"]})]
    status: Annotated[
        str, Field(json_schema_extra={"enum": ["running", "paused", "finished", "cancelled"]})
    ]
    """`finished`: all are moved; `paused`: after `stop_after` failures, until it is resumed."""
    matched: int
    moved: int
    skipped: int
    why_skipped: Counts
    """`changed`, or the reason for which they would have failed again → how many."""
    succeeded: int
    """Of those that it moved, as all that follow; 0 but of a retry."""
    failed: int
    """For good."""
    waiting: int
    """That have not ended. The rest of them was cancelled, or moved by a later bulk."""
    stop_after: int
    """Failures after which it pauses; 0 for never."""
    filter: Any
    include_ambiguous: bool | None
    """Null but of a retry."""
    rate: str | None
    created_at: Time
    finished_at: Time | None
    """When it had moved all, or was cancelled."""
    ended_at: Time | None
    """When the last of those that it moved had ended."""


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
    """What to give as `after` for the next page; null at the end."""


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
    """An endpoint: how it stands, and its merged declaration, secrets masked, by its keys."""

    id: Name
    enabled: bool
    webhooks: Any
    paused: bool
    next_run: Time | None
    """When its schedule calls it next."""
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
    """Of a resume: whether something throttled it."""


class LiftedDocument(TypedDict):
    """What goes on."""

    name: Annotated[str, Field(examples=["api:shop"])]
    lifted: bool
    """Whether something throttled it."""


class DecisionDocument(TypedDict):
    """What would become of the call."""

    outcome: Literal["succeeded", "retry", "failed"]
    reason: _Reason | None
    covered: bool
    """Whether `retry.when` holds the status code."""
    why: str
    delay: float | None
    """Seconds, before jitter."""
    shortest: float | None
    longest: float | None


class ConsequenceDocument(TypedDict):
    """What would follow, or why it would not."""

    plugin: str
    kind: str
    name: str
    phase: str
    happens: bool
    why: str
    partition: str | None
    """That of the task."""
    request: RequestDocument | None
    error: str | None
    """Why there is no request where there should be one."""


class FoundDocument(TypedDict):
    """What an expression found in the answer."""

    key: str
    """Where it stands: `fail_if`, `retry.if`, `success_if`."""
    expression: str
    value: Any
    error: str | None
    """Why it cannot be told."""


class ExplanationDocument(TypedDict):
    """What would follow from an answer."""

    endpoint: Name
    enabled: bool
    attempt: int
    max_attempts: int
    params: Any
    partition: str | None
    """That of the call."""
    request: RequestDocument | None
    hooks: dict[str, list[str]]
    """The before_ and the after_ phase → the plugins that may decide otherwise there."""
    status_code: Code
    error: str | None
    expressions: list[FoundDocument]
    """Those that judge the answer."""
    rate_limit: str | None
    decision: DecisionDocument | None
    reached: list[str]
    """The phases that the attempt goes through."""
    phases: list[str]
    """Those that `consequences` is about."""
    consequences: list[ConsequenceDocument]
    notes: list[str]
    """What plugins did wrong meanwhile."""
