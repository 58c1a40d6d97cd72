"""What the YAML declares: an API, its endpoints, and how their calls are retried.

All of it is frozen: a change of the files makes new objects. Plugins bring keys of their own as a
`Setting` and read them as `endpoint[SETTING]`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

from pydantic import Field, ValidationInfo, field_validator, model_validator

from orchestratord.access import OAuth2, Proxy, Tls
from orchestratord.backoff import Backoff, Fixed
from orchestratord.model import Model as Model  # also by this name, with what is made of it
from orchestratord.rate import RateLimit
from orchestratord.template import Template
from orchestratord.values import Duration, Secret, Size, StatusCode, StatusSet

if TYPE_CHECKING:
    from orchestratord.trial import Trial

CALL_WHEN = StatusSet.parse(["error", 408, 425, 429, 500, 502, 503, 504])
SUCCESS = StatusSet.parse("2xx")

T = TypeVar("T")


class RetryPolicy(Model):
    """When a failed attempt is tried again, and how often. Durations in seconds.

    A plugin that wants other defaults subclasses it. The strategies that `backoff` may name come as
    validation context, `{"backoffs": {name: class}}`; without it there is only `fixed`.
    """

    default_backoff: ClassVar[Mapping[str, Any]] = {"strategy": "exponential"}
    """As it would stand in the YAML; where no plugin brings that strategy, it is `fixed`."""

    backoff: Backoff = Field(default_factory=Fixed)
    """A strategy's name, or a mapping with `strategy` and its options."""
    max_attempts: int = Field(15, ge=1, le=1000)
    """The first one counts."""
    max_delay: Duration = 3600.0
    jitter: float = Field(0.1, ge=0, le=1)
    """The delay is drawn from d·(1 ± jitter); 0 for none."""
    give_up_after: Duration | None = None
    """Since the task was created or last retried by hand; a next try past it fails at once."""
    inline: int = Field(0, ge=0, le=10)
    """Tries at once, inside one attempt and its timeout, where a repeat is safe."""
    when: StatusSet = CALL_WHEN
    """Answers that are tried again."""
    respect_retry_after: bool = True
    """The later of the backoff and the answer's Retry-After counts."""
    max_retry_after: Duration = 86400.0

    @model_validator(mode="before")
    @classmethod
    def _give_backoff(cls, value: Any, info: ValidationInfo) -> Any:
        known = cls.default_backoff["strategy"] in _strategies(info)
        if known and isinstance(value, Mapping) and "backoff" not in value:
            return {**value, "backoff": cls.default_backoff}
        return value

    @field_validator("backoff", mode="before")
    @classmethod
    def _build_backoff(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, Backoff):
            return value
        options = {"strategy": value} if isinstance(value, str) else value
        if not isinstance(options, Mapping) or not isinstance(options.get("strategy"), str):
            raise ValueError(
                "expected the name of a strategy, or a mapping with `strategy` and its options"
            )
        name = str(options["strategy"])
        strategy = _strategies(info).get(name)
        if strategy is None:
            raise ValueError(f"unknown strategy {name!r}")
        given = {key: option for key, option in options.items() if key != "strategy"}
        return strategy.model_validate(given, context=info.context)

    def covers(self, status_code: StatusCode) -> bool:
        """True where a `when` that somebody wrote names this status code."""
        return "when" in self.model_fields_set and status_code in self.when


def _strategies(info: ValidationInfo) -> Mapping[str, type[Backoff]]:
    known: Mapping[str, type[Backoff]] = (info.context or {}).get("backoffs", {"fixed": Fixed})
    return known


class Param(Model):
    """One parameter of an endpoint."""

    type: Literal["string", "integer", "number", "boolean", "array", "object"] | None = None
    """Without a type any JSON value is taken."""
    required: bool = False
    default: Any = None
    description: str = ""


class Schedule(Model):
    """When an endpoint is called by itself: `every`, `every` with `at`, or `cron`."""

    every: str | float | None = None
    """A duration counted from the Unix epoch, or minute, hour, day, monday … sunday."""
    at: str | None = None
    """`10:30`, for an hour `:30`."""
    timezone: str = "UTC"
    cron: str | None = None
    """Five fields."""
    params: Mapping[str, Any] = {}
    overlap: Literal["skip", "allow"] = "skip"
    """What happens to a slot whose predecessor is not done."""
    catch_up: bool = True
    """Slots that were missed while nothing ran become one call."""
    splay: Duration = 0.0
    """Each slot is delayed by up to this, always the same for one endpoint."""


class Basic(Model):
    """HTTP Basic."""

    username: str
    password: Secret


class HeaderAuth(Model):
    """A header with a secret value."""

    name: str
    value: Secret


class Auth(Model):
    """How an API is told who calls; one of the four."""

    bearer: Secret | None = None
    basic: Basic | None = None
    header: HeaderAuth | None = None
    oauth2: OAuth2 | None = None


class Api(Model):
    """What the endpoints of one API share."""

    name: str
    base_url: str | None = None
    headers: Mapping[str, Template] = {}
    auth: Auth | None = None
    tls: Tls | None = None
    proxy: Proxy | None = None
    """The URL of the proxy that its calls go through."""
    max_response: Size = Field(1_048_576, ge=0, le=1 << 30)
    """Bytes; a longer body is cut, the status decides."""
    concurrency: int = Field(10, ge=1)
    """In flight in one daemon."""
    rate_limit: RateLimit | None = None
    """How many of its calls begin at most, in all daemons together: 10/s, 100/min, 5000/h."""
    follow_redirects: bool = False
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
        type: what pydantic validates it to; frozen, best a `Model` or a tuple of them.
        default: the value where the key is missing.
        merge: `mapping` merges by key, `replace` takes the endpoint's whole, `by_name` unites two
            lists of mappings by their `name`, the endpoint's winning.
        name_of: for `by_name`: derives the name of a mapping that has none.
    """

    key: str
    type: Any
    default: T
    merge: Literal["mapping", "replace", "by_name"] = "mapping"
    name_of: Callable[[Mapping[str, Any]], str] | None = None

    def __hash__(self) -> int:
        return hash(self.key)


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
    settings: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    """The file it is declared in, relative to the config folder."""
    shown: Mapping[str, Any] = field(default_factory=dict)
    """The merged declaration as JSON-like data with secrets masked, for people."""
    tests: tuple[Trial, ...] = ()
    """What `orchestratord test` tries; nothing else looks at them."""
    remembered: dict[Any, Any] = field(init=False, default_factory=dict, compare=False, repr=False)
    """What others have worked out about it, which lives as long as it does; no part of it."""

    def __getitem__(self, setting: Setting[T]) -> T:
        value: T = self.settings.get(setting.key, setting.default)
        return value
