"""What the YAML declares: an API, its endpoints, and how their calls are retried.

All of it is frozen: a change of the files makes new objects. Plugins bring keys of their own as a
`Setting` and read them as `endpoint[SETTING]`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from orchestratord.errors import InvalidPayload
from orchestratord.model.answer_expression import ErrorMessage
from orchestratord.model.auth import Auth, Proxy, Tls
from orchestratord.model.declared import Model
from orchestratord.model.http_message import MAX_RESPONSE
from orchestratord.model.partition_turn import Partition
from orchestratord.model.quota import Quota
from orchestratord.model.retry_policy import RetryPolicy
from orchestratord.model.test_case import TestCase
from orchestratord.values.durations import Duration, Size
from orchestratord.values.rate_limit import RateLimit
from orchestratord.values.status_set import StatusSet
from orchestratord.values.template import Template, to_text

SUCCESS = StatusSet.parse("2xx")

T = TypeVar("T")

MAX_PARTITION = 200
"""Characters of a partition's name."""

_UNFIT = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
"""Control characters, and halves of characters, which no database keeps."""


class Param(Model):
    """One parameter of an endpoint."""

    type: Literal["string", "integer", "number", "boolean", "array", "object"] | None = None
    """The type of the value; by default any JSON."""
    required: bool = False
    """Every call must give it."""
    default: Any = None
    """The value if a call does not give it; by default null."""
    description: str = ""
    """Its purpose, for the dashboard and OpenAPI."""


class ParamRules(Model):
    """The keys of a type of endpoint that say more of a call's parameters than `params` does."""

    @property
    def free(self) -> bool:
        """Whether a call may give any parameters where the endpoint declares none."""
        return False

    def problems(self, params: Mapping[str, Any]) -> dict[str, str]:
        """What is wrong with the parameters of one call, by the names of the parameters."""
        return {}

    @property
    def apart(self) -> bool:
        """Whether `problems` takes long for some parameters: a daemon asks `problems_apart`."""
        return False

    async def problems_apart(self, calls: Sequence[Mapping[str, Any]]) -> Sequence[dict[str, str]]:
        """The `problems` of each of these calls, while the event loop goes on; of none, what starts
        for the next ones is started.

        Raises SchemaTooCostly.
        """
        return [self.problems(params) for params in calls]


class Schedule(Model):
    """When the daemon calls an endpoint by itself: `every`, `every` with `at`, or `cron`."""

    every: str | float | None = None
    """A duration such as 15m, counted from the Unix epoch, or `minute`, `hour`, `day`, `monday` …
    `sunday`."""
    at: str | None = None
    """The time of day, `10:30`, with `every: day` or a weekday; for an hour `:30`."""
    timezone: str = "UTC"
    """The time zone of `at` and `cron`, such as Europe/Paris."""
    cron: str | None = None
    """Five fields: minute, hour, day, month, weekday, such as `*/15 * * * *`."""
    params: Mapping[str, Any] = {}
    """The parameters of each call."""
    overlap: Literal["skip", "allow"] = "skip"
    """`skip`: makes no call while the one before is not done. `allow`: makes it."""
    catch_up: bool = True
    """Make one call for slots that passed while no daemon ran."""
    splay: Duration = 0.0
    """Delays each call by up to this, always the same for one endpoint: 5m."""

    @model_validator(mode="before")
    @classmethod
    def _check_form(cls, value: Any) -> Any:
        if isinstance(value, str | int | float):
            raise ValueError(
                "expected {every: 15m}, {every: day, at: '10:30'} or {cron: '*/15 * * * *'}, "
                f"not {str(value)!r}"
            )
        return value


OFF = "off"
LASTING_MS = 4_000
"""For how long failing has to have gone on by default: a receiver that is restarted is not down,
and a few quick retries are none of its business. The first retries of the default backoff come
later than this, so that a receiver that goes down costs a call one attempt and not two."""


class BreakerRule(Model):
    """When the breakers of an API's calls, or of a webhook, open."""

    failures: int = Field(default=20, ge=1, le=100_000)
    """The number of failed attempts that opens it, if they are nine of ten."""
    window: Annotated[Duration, Field(gt=0)] = 120.0
    """The time in which failures count: 2m."""

    @property
    def off(self) -> bool:
        """Whether there are no breakers."""
        return not self.failures

    @property
    def lasting_ms(self) -> int:
        """For how long it has to have gone on; a number that is written down decides alone."""
        written = "failures" in self.model_fields_set
        return 0 if written else min(LASTING_MS, round(self.window * 500))


def _read(value: Any) -> Any:
    if value == OFF:
        return BreakerRule.model_construct(failures=0)
    if isinstance(value, str | int | float):
        raise ValueError(f"expected off, or {{failures: 20, window: 2m}}, not {to_text(value)}")
    return value


def _schema(schema: dict[str, Any]) -> None:
    schema["anyOf"] = [{"$ref": schema.pop("$ref")}, {"const": OFF}]


BreakerKey = Annotated[BreakerRule, BeforeValidator(_read), Field(json_schema_extra=_schema)]
"""As it stands in the YAML."""


class PartitionRule(Model):
    """How the tasks of an endpoint or webhook are divided into partitions."""

    by: Template
    """A template: tasks with the same result are in the same partition."""
    ordered: bool = False
    """Send the tasks of a partition one after the other, in the order of acceptance."""
    concurrency: int | None = Field(None, ge=1)
    """The most tasks of a partition in flight, in all daemons; by default any number."""
    on_failure: Literal["continue", "hold"] = "continue"
    """What happens in an ordered partition after a final failure: the next tasks go on
    (`continue`), or wait for a person (`hold`)."""

    def of(self, context: Mapping[str, Any]) -> Partition:
        """The partition of one task.

        Args:
            context: the names that `by` may use.

        Raises:
            InvalidPayload: it does not render, or makes what is no name of a partition.
        """
        value = to_text(self.by.render(context))
        if len(value) > MAX_PARTITION:
            raise InvalidPayload(
                f"partition: {value[:40]!r}… has {len(value)} characters; {MAX_PARTITION} are taken"
            )
        if _UNFIT.search(value):
            raise InvalidPayload("partition: the value holds a control character")
        concurrency = 1 if self.ordered else self.concurrency or 0
        return Partition(value, concurrency, self.ordered, self.on_failure == "hold")

    @field_validator("by")
    @classmethod
    def _public(cls, value: Template) -> Template:
        if value.secret:
            raise ValueError(
                "a secret here would be stored in the database; name partitions by something else"
            )
        return value

    @field_validator("concurrency")
    @classmethod
    def _one_at_a_time(cls, value: int | None, info: ValidationInfo) -> int | None:
        if info.data.get("ordered") and value not in (None, 1):
            raise ValueError(
                "with `ordered: true` one task of a partition is in flight at a time, and not "
                f"{value}; leave concurrency out"
            )
        return value

    @field_validator("on_failure")
    @classmethod
    def _of_ordered(cls, value: str, info: ValidationInfo) -> str:
        if info.data.get("ordered") is False:
            raise ValueError(
                "goes with `ordered: true`; tasks that are not ordered do not wait for each other"
            )
        return value


def _whole(value: Any) -> Any:
    """A template alone stands for its mapping. Raises ValueError for what is neither."""
    if isinstance(value, Mapping | PartitionRule):
        return value
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return {"by": value}
    raise ValueError("expected a template, such as {{ params.account }}, or a mapping with `by`")


PartitionKey = Annotated[
    PartitionRule, BeforeValidator(_whole, json_schema_input_type=Template | PartitionRule)
]
"""The key of the YAML: a template, or a mapping."""


Pace = Literal["on", "off"]
"""As it stands in the YAML."""


class Guards(Model):
    """What keeps a receiver from being sent more than it takes."""

    breaker: BreakerKey = BreakerRule()
    """When the circuit breakers of its tasks open: {failures: 20, window: 2m}, or `off`."""
    pace: Pace = "on"
    """`on`: sends fewer tasks to a receiver that answers 429 or 503, if that helps. `off` never."""


class Api(Guards):
    """What the endpoints of one API share."""

    name: str
    base_url: str | None = None
    """The URL before the paths of all endpoints: https://api.example.com/v2."""
    headers: Mapping[str, Template] = {}
    """Headers of every request. A value that renders to null leaves one out."""
    auth: Auth | None = None
    """How to authenticate at the API: `bearer`, `basic`, `header` or `oauth2`."""
    tls: Tls | None = None
    """The trusted authorities and the client certificate."""
    proxy: Proxy | None = None
    """The URL of the proxy for its calls: http://proxy.example.com:3128."""
    max_response: Size = Field(MAX_RESPONSE, ge=0, le=1 << 30)
    """The most bytes to read of an answer's body, such as 1MiB. The daemon cuts a longer body; its
    status code still counts."""
    concurrency: int = Field(10, ge=1)
    """The most calls in flight at once, in each daemon."""
    global_concurrency: int | None = Field(None, ge=1)
    """The most calls in flight at once, in all daemons together."""
    rate_limit: RateLimit | None = None
    """The most calls that begin in a unit of time, in all daemons together: 10/s, 100/min,
    5000/d."""
    error_message: ErrorMessage | None = None
    """JMESPath to the error text in a failed answer, `{status_code, headers, body, text}`, such as
    body.error.message. By default, the daemon looks in the usual places."""
    retry_after_scope: Literal["api", "endpoint"] = "api"
    """The calls that wait for a Retry-After: all of the `api`, or those of the `endpoint`."""
    quota: Quota | None = None
    """The headers with the rest of the API's quota and the time of the next one. If nothing is
    left, the calls of `retry_after_scope` wait."""
    follow_redirects: bool = False
    """Follow redirects, up to 3, within the same origin."""
    egress: tuple[str, ...] = ()
    """Rules of `egress.allow`, the daemon's included."""

    @property
    def plain(self) -> bool:
        """Whether its requests need nothing but a connection: no TLS of its own, proxy or token."""
        oauth2 = self.auth is not None and self.auth.oauth2 is not None
        return self.tls is None and self.proxy is None and not oauth2


@dataclass(frozen=True, slots=True)
class Setting(Generic[T]):
    """A key that a plugin adds to the endpoint files (and api.yaml and defaults).

    Args:
        key: its name in the YAML.
        type: what pydantic validates it to; frozen, preferably a `Model` or a tuple of them.
        default: the value where the key is missing.
        merge: `mapping` merges by key, `replace` takes the endpoint's whole, `by_name` unites two
            lists of mappings by their `name`, the endpoint's winning.
        name_of: for `by_name`: derives the name of a mapping that has none.
        description: a sentence for users, which editors show beside the key.
    """

    key: str
    type: Any
    default: T
    merge: Literal["mapping", "replace", "by_name"] = "mapping"
    name_of: Callable[[Mapping[str, Any]], str] | None = None
    description: str = ""

    def __hash__(self) -> int:
        return hash(self.key)


OWN_ENDPOINT = "orchestratord"
"""Stands in the place of an endpoint where a delivery tells of the daemon itself; none that files
declare is called so, as theirs have a slash."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One declared endpoint, merged and validated.

    `spec` holds the keys of its `type` (for http: method, path, query, headers, body, success).
    """

    id: str
    api: Api
    type: str
    spec: Any
    retry: RetryPolicy
    timeout: float
    """Seconds, of the whole attempt."""
    idempotent: bool
    enabled: bool = True
    params: Mapping[str, Param] = field(default_factory=dict)
    schedule: Schedule | None = None
    partition: PartitionRule | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    """The file it is declared in, relative to the config folder."""
    shown: Mapping[str, Any] = field(default_factory=dict)
    """The merged declaration as JSON-like data with secrets masked, for people."""
    keys: Model = field(default_factory=Model)
    """The keys that endpoints of all types have, as they were validated: those above, and each that
    is declared with them."""
    tests: tuple[TestCase, ...] = ()
    """What `orchestratord test` tries; nothing else looks at them."""
    waits: str = ""
    """Why its tasks wait, if a key of its belongs to a plugin that is not in force."""
    remembered: dict[Any, Any] = field(init=False, default_factory=dict, compare=False, repr=False)
    """What others have worked out about it, which lives as long as it does; no part of it."""

    def __getitem__(self, setting: Setting[T]) -> T:
        value: T = self.settings.get(setting.key, setting.default)
        return value
