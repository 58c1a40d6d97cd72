"""What callers may send, told apart from what they may not."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PlainValidator,
    StrictBool,
    StrictInt,
    StrictStr,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, ErrorDetails
from typing_extensions import TypedDict

from orchestratord.api.filters import (
    ENDPOINTS,
    MAX_ID,
    ORDERS,
    TaskFilterBody,
    TaskQuery,
    one_of,
)
from orchestratord.config.validate.error_text import expectation, sentence, value_text
from orchestratord.errors import InvalidParams, SendError
from orchestratord.model.declared import Described
from orchestratord.model.task import Kind, Status
from orchestratord.model.test_case import FakeAnswer, parse_code
from orchestratord.plugin.hookspecs import PHASES
from orchestratord.values.clock import parse_first_try
from orchestratord.values.durations import Duration, parse_duration, parse_rate
from orchestratord.values.suggest import MOST_UNKNOWN, suggest

MAX_WAIT = 30.0
"""Seconds that a client can be kept waiting for the end of a task."""
MAX_PAGE = 1_000
"""Tasks of one page of a list."""
MAX_KEY = 255
"""Characters of an idempotency key."""
MAX_NOTE = 1_000
"""Characters of a note."""
MOST_ERRORS = 1_000
"""Of one body, that are named."""
STOP_AFTER = 50
"""Failures after which a retry of many pauses, if it does not say."""

_EXPECTED = dict.fromkeys(("model_type", "dict_type"), "a JSON object")
"""What would have fitted, by the kind of pydantic's error, where it is no mapping of YAML's."""

_RATE = WithJsonSchema(
    {"type": "string", "pattern": r"^\d+(\.\d+)?/(s|sec|second|m|min|minute|h|hour)$"}
)

EMPTY: Any = Field(default_factory=dict, json_schema_extra={"default": {}})
"""An empty object by default. As a plain default it would be copied for each body, which takes as
long as checking all else of a call."""

M = TypeVar("M", bound="RequestBody")


class ShownAs:
    """What a value is in the description of the API, which is read as something wider."""

    def __init__(self, document: type) -> None:
        self._document = document

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return handler(TypeAdapter(self._document).core_schema)


FirstTry = Annotated[
    int,
    PlainValidator(parse_first_try),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
"""A time in RFC 3339, as it is stored."""


class RequestBody(Described, BaseModel):
    """Base of all request bodies: an unknown key is an error, not a wish that goes unheard."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    @classmethod
    def read(cls, value: Any) -> Self:
        """The body `value`, None for no body. Raises InvalidParams."""
        return read_body(cls, value)


class ReloadBody(RequestBody):
    """What a reload is asked for."""

    diff: StrictBool = False
    """Name the keys that differ; if none does, those of the last reload that changed any."""
    dry_run: StrictBool = False
    """Change nothing; answer with the consequences."""
    folder: Annotated[StrictStr, Field(pattern="^/")] | None = None
    """For a dry run over the control socket: read this folder instead of the daemon's."""
    accept_removals: StrictBool = False
    """Accept the removal of most endpoints that tasks wait for."""


class NoBody(RequestBody):
    """Empty: `{}` or nothing."""


class ResumeBody(RequestBody):
    """What is to go on."""

    name: str
    """A lane (`api:shop`), the URL of deliveries, `api/name`, or `api/name#webhook`."""


class CallBody(RequestBody):
    """A call, or a batch of calls."""

    params: dict[str, Any] = EMPTY
    """Parameters by name."""
    text_params: dict[str, StrictStr] = EMPTY
    """More parameters as texts; the daemon converts each to its declared type."""
    batch: list[dict[str, Any]] | None = None
    """The params of each call, 10,000 at most; excludes `params`."""
    delay: Duration = 0.0
    """Time until the first try."""
    at: FirstTry | None = None
    """Time of the first try, instead of `delay`: 2026-11-24T22:00:00Z. A past time is due now."""


class ExplainBody(RequestBody):
    """An attempt that is explained."""

    phase: Annotated[StrictStr, one_of(PHASES)] | None = None
    """Predict the consequences of this phase only."""
    status_code: StrictInt | StrictStr | None = None
    """The simulated answer."""
    error: Annotated[StrictStr, one_of(SendError.KINDS)] | None = None
    """The simulated error, instead of an answer."""
    attempt: Annotated[int, Field(ge=1, le=1000)] = 1
    params: dict[str, Any] = {}
    """The daemon invents required ones that are missing."""
    draft: Annotated[dict[str, Any], Field(json_schema_extra={"maxProperties": 1})] = {}
    """A key of the endpoint, such as `webhooks` → its list as it would stand in the file."""

    def answer(self) -> FakeAnswer | None:
        """The answer that is supposed to come, if any. Raises InvalidParams."""
        wrong: dict[str, str] = {}
        phase, code = self.phase, self.status_code
        if phase is not None and phase not in PHASES:
            wrong["phase"] = f"unknown phase {phase!r}{suggest(phase, PHASES)}"
        if self.error is not None and self.error not in SendError.KINDS:
            wrong["error"] = f"unknown kind {self.error!r}{suggest(self.error, SendError.KINDS)}"
        if code is not None:
            try:
                code = parse_code(code)
            except ValueError as error:
                wrong["status_code"] = str(error)
            else:
                if self.error is not None and code != "error":
                    wrong["error"] = f"means no answer, status_code means the answer {code}"
        elif self.error is None and phase is not None and not phase.startswith("before_"):
            wrong["status_code"] = f"is required: {phase} comes after an answer"
        if wrong:
            raise InvalidParams(wrong)
        if self.error is not None:
            return FakeAnswer.model_validate({"error": self.error})
        return None if code is None else FakeAnswer.model_validate({"status_code": code})


class TriggerBody(RequestBody):
    """A retry of one task."""

    force: StrictBool = False
    """Repeat a task that has succeeded."""
    params: dict[str, Any] = {}
    """Changed parameters: the daemon makes a child task that has them."""
    text_params: dict[str, StrictStr] = {}
    """More of them as texts; the daemon converts each to its declared type."""


class ResolveBody(RequestBody):
    """How a task ended."""

    status: Annotated[Literal["succeeded", "failed"], Field(alias="as")]
    note: Annotated[StrictStr, Field(max_length=MAX_NOTE)] | None = None
    """The reason, for the action log and the timeline."""
    body: Any = None
    """The body of the answer: JSON or a text."""


class BulkBody(RequestBody):
    """A cancel of all tasks that match."""

    filter: Annotated[dict[str, Any], ShownAs(TaskFilterBody)]
    """At least one condition. The default status is failed, for a cancel pending."""
    dry_run: StrictBool = False
    """Change nothing; count the tasks."""
    rate: Annotated[float, BeforeValidator(parse_rate), _RATE] | None = None
    """The speed limit, such as `10/s`."""


class ResolveAllBody(BulkBody):
    """How all tasks ended that match."""

    status: Annotated[Literal["succeeded", "failed"], Field(alias="as")]
    note: Annotated[StrictStr, Field(max_length=MAX_NOTE)] | None = None
    """The reason, for the action log and each timeline."""


class RetryAllBody(BulkBody):
    """A retry of all tasks that match."""

    include_ambiguous: StrictBool = False
    """Include `ambiguous` and `poisoned` tasks."""
    stop_after: Annotated[StrictInt, Field(ge=0, le=MAX_ID)] = STOP_AFTER
    """Failures after which the bulk pauses; 0 for never."""
    force: StrictBool = False
    """Repeat tasks that have succeeded, if the filter names that status."""


# -- Query strings ---------------------------------------------------------------------------------


class TasksQuery(TaskQuery, total=False):
    """A page of tasks."""

    order: Annotated[str, one_of(ORDERS)]
    """`ended`: ended tasks, the last one first; a page may then be short or empty."""
    limit: Annotated[int, Field(ge=1, le=MAX_PAGE)]
    """Tasks of a page; 100 by default."""
    after: str
    """The `next` of the page before."""


class TaskPageQuery(TypedDict, total=False):
    """One task."""

    wait: str
    """Wait up to this duration, 30 s at most, for the task's end."""


class RunQuery(TypedDict, total=False):
    """What is told of a run."""

    limit: Annotated[int, Field(ge=1, le=MAX_PAGE)]
    """Tasks of it that are listed; 100 by default."""


class RunsQuery(TypedDict, total=False):
    """A page of runs."""

    status: Annotated[str, one_of(["running", "ended"])]
    limit: Annotated[int, Field(ge=1, le=MAX_PAGE)]
    """Runs of a page; 100 by default."""
    after: Annotated[int, Field(ge=1, le=MAX_ID)]
    """The `next` of the page before."""


class RowsQuery(TypedDict, total=False):
    """A page of a list."""

    limit: Annotated[int, Field(ge=1, le=MAX_PAGE)]
    """Rows of a page; 100 by default."""
    after: Annotated[int, Field(ge=1, le=MAX_ID)]
    """The `next` of the page before."""


class ExplainQuery(TypedDict, total=False):
    """An attempt that is explained."""

    phase: Annotated[str, one_of(PHASES)]
    """Predict the consequences of this phase only."""
    status_code: str
    """The simulated answer."""
    error: Annotated[str, one_of(SendError.KINDS)]
    """The simulated error, instead of an answer."""
    attempt: Annotated[int, Field(ge=1, le=1000)]


class EventsQuery(TypedDict, total=False):
    """Filters of events; an event without the field does not match."""

    endpoint: Annotated[str, Field(pattern=f"^{ENDPOINTS}$")]
    """`api/name`, `api/*`, or `orchestratord` for the daemon's own."""
    kind: list[Annotated[str, one_of(Kind)]]
    status: list[Annotated[str, one_of(Status)]]
    type: list[str]
    """Such as `task.failed`, or `task.*`."""


def read_body(model: type[M], value: Any) -> M:
    """The body `value` (None: there was none) as a `model`. Raises InvalidParams."""
    try:
        return model.model_validate({} if value is None else value)
    except ValidationError as error:
        if (count := error.error_count()) > MOST_ERRORS:
            raise InvalidParams({"body": f"{count} values in it do not fit"}) from None
        raise InvalidParams(
            {
                ".".join(str(part) for part in item["loc"]) or "body": _problem_text(model, item)
                for item in error.errors(include_url=False)
            }
        ) from None


def read_wait(query: Mapping[str, str], most: float) -> float:
    """The seconds of `wait` in a query string, at most `most`. Raises InvalidParams."""
    try:
        seconds = parse_duration(query.get("wait") or 0)
    except ValueError as error:
        raise InvalidParams({"wait": str(error)}) from None
    if seconds > most:
        raise InvalidParams({"wait": f"must be at most {most:g} seconds; ask again after that"})
    return seconds


def read_key(headers: Mapping[str, str]) -> str | None:
    """The idempotency key of a request; None where it has none. Raises InvalidParams."""
    name = "Idempotency-Key"
    # `get` of these raises an error and catches it where the name is missing, as mostly.
    return check_key(headers[name], name) if name in headers else None


def check_key(key: str | None, name: str) -> str | None:
    """An idempotency key, which is called `name` where it stands. Raises InvalidParams."""
    if key is not None and not (0 < len(key) <= MAX_KEY and key.isprintable()):
        raise InvalidParams({name: f"must have 1 to {MAX_KEY} printable characters"})
    return key


def refuse_unknown(query: Mapping[str, str], understood: type | None = None) -> None:
    """Raise InvalidParams where the query string says something that is not understood.

    `understood`: the `TypedDict` of its parameters; None where there are none.
    """
    known = tuple(understood.__annotations__) if understood is not None else ()
    if unknown := [name for name in query if name not in known][:MOST_UNKNOWN]:
        if not known:
            raise InvalidParams(dict.fromkeys(unknown, "this endpoint has no parameters"))
        raise InvalidParams(
            {name: f"there is no such parameter{suggest(name, known)}" for name in unknown}
        )


def _problem_text(model: type[RequestBody], error: ErrorDetails) -> str:
    value = error["input"]
    if error["type"] == "extra_forbidden":
        if not model.model_fields:
            return "unknown key; this takes no keys"
        return f"unknown key{suggest(str(error['loc'][-1]), model.model_fields)}"
    if (wanted := _EXPECTED.get(error["type"]) or expectation(error)) is not None:
        return f"expected {wanted}, not {_in_json(value)}"
    text = sentence(error)
    if error["type"] == "value_error" and (value is None or isinstance(value, bool)):
        # Parsers of values begin with what they were given, as Python writes it.
        return json.dumps(value) + text[len(repr(value)) :]
    return text


def _in_json(value: Any) -> str:
    if value is None:
        return "null"
    return "an object" if isinstance(value, Mapping) else value_text(value)
