"""What the YAML declares: an API, its endpoints, and how their calls are retried.

All of it is frozen: a change of the files makes new objects. Plugins bring keys of their own as a
`Setting` and read them as `endpoint[SETTING]`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from pydantic import Field

from orchestratord.model.auth import Auth, Proxy, Tls
from orchestratord.model.declared import Model
from orchestratord.model.http_message import MAX_RESPONSE
from orchestratord.model.retry_policy import RetryPolicy
from orchestratord.model.test_case import TestCase
from orchestratord.values.durations import Duration, Size
from orchestratord.values.rate_limit import RateLimit
from orchestratord.values.status_set import StatusSet
from orchestratord.values.template import Template

SUCCESS = StatusSet.parse("2xx")

T = TypeVar("T")


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


class Api(Model):
    """What the endpoints of one API share."""

    name: str
    base_url: str | None = None
    headers: Mapping[str, Template] = {}
    auth: Auth | None = None
    tls: Tls | None = None
    proxy: Proxy | None = None
    """The URL of the proxy that its calls go through."""
    max_response: Size = Field(MAX_RESPONSE, ge=0, le=1 << 30)
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
    keys: Model = field(default_factory=Model)
    """The keys that endpoints of all types have, as they were validated: those above, and each that
    is declared with them."""
    tests: tuple[TestCase, ...] = ()
    """What `orchestratord test` tries; nothing else looks at them."""
    remembered: dict[Any, Any] = field(init=False, default_factory=dict, compare=False, repr=False)
    """What others have worked out about it, which lives as long as it does; no part of it."""

    def __getitem__(self, setting: Setting[T]) -> T:
        value: T = self.settings.get(setting.key, setting.default)
        return value
