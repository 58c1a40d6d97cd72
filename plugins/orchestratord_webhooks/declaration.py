"""What stands under `webhooks:` in the YAML."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PlainSerializer,
    PlainValidator,
    PrivateAttr,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from orchestratord import (
    MOST_MEMBERS,
    PHASES,
    Auth,
    BreakerKey,
    Duration,
    Expression,
    Guards,
    Model,
    Pace,
    PartitionKey,
    RetryPolicy,
    Setting,
    StatusSet,
    Template,
    TemplateTree,
    Text,
    suggest,
    url_problem,
)
from orchestratord_webhooks import webhook_templates
from orchestratord_webhooks.event_view import WHOLE
from orchestratord_webhooks.signature import SigningKey, SigningKeys
from orchestratord_webhooks.webhook_templates import (
    NOWHERE,
    OF_BATCH,
    OF_RUN_END,
    PAYLOAD,
    UrlKey,
    WebhookUrl,
    check_names,
    data_names,
)

DELAYS = ("5s", "5m", "30m", "2h", "5h", "10h", "14h", "20h", "24h")
"""What the Standard Webhooks specification proposes; ten attempts take about 75 hours."""

WHEN = StatusSet.parse(["error", "1xx", "3xx", "400-409", "411-499", "5xx"])
"""Anything but 2xx, which is success, and 410, which asks for no more."""

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
LONGEST_TEXT = 512
"""Characters of a name, and of all else but the detail, that a task or a member of a batch has."""
CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_HEADER = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_UNNAMEABLE = re.compile(r"[^A-Za-z0-9._-]+")

Part = Literal["params", "request", "response"]
"""What can be left out of the envelope's data."""


class Retry(RetryPolicy):
    """When to try a delivery again; it inherits nothing from the retry of calls."""

    default_backoff: ClassVar[Mapping[str, Any]] = {"strategy": "list", "delays": DELAYS}

    max_attempts: int = Field(10, ge=1, le=1000)
    max_delay: Duration = 86400.0
    jitter: float = Field(0.2, ge=0, le=1)
    when: StatusSet = WHEN


def _known_phase(value: str) -> str:
    if value in PHASES:
        return value
    raise ValueError(f"unknown phase {value!r}{suggest(value, PHASES)}")


def _parse_payload(value: Any) -> Template | TemplateTree:
    if isinstance(value, Template | TemplateTree):
        return value
    if isinstance(value, Mapping):
        return TemplateTree(value)
    if isinstance(value, str):
        return Template(value)
    raise ValueError("a payload is a mapping, which is sent as JSON, or a text")


def _storable(payload: Template | TemplateTree) -> Template | TemplateTree:
    check_names(payload, PAYLOAD | OF_BATCH | OF_RUN_END)
    if payload.secret:
        raise ValueError(
            "a payload is stored, and a secret never is: it would be sent as ***; "
            "put it into a header"
        )
    return payload


def _sendable(header: Template) -> Template:
    check_names(header, webhook_templates.DELIVERY)
    if CONTROL.search(header.literal):
        raise ValueError("a header holds no line break or control character")
    if not header.literal.isascii():
        raise ValueError("a header of a webhook holds ASCII alone; put other letters into payload")
    return header


def _header_name(name: str) -> str:
    if not _HEADER.fullmatch(name):
        raise ValueError("is not the name of a header")
    if name.lower() in ("content-length", "transfer-encoding"):
        raise ValueError("is set by the client itself; leave it out")
    return name


def _usable(auth: Auth) -> Auth:
    name, value = auth.sent
    _header_name(name)
    if CONTROL.search(value):
        raise ValueError("a header holds no line break or control character")
    if auth.oauth2 is not None and (wrong := url_problem(auth.oauth2.token_url, query=True)):
        raise ValueError(f"oauth2.token_url: {wrong}")
    return auth


def _reachable(url: WebhookUrl) -> WebhookUrl:
    check_names(url.template, webhook_templates.DELIVERY)
    if CONTROL.search(url.template.literal) or "\t" in url.template.literal:
        raise ValueError("a URL holds no line break or control character")
    return url


def _known_in_payload(template: Template) -> Template:
    check_names(template, PAYLOAD | OF_RUN_END)
    return template


def _known_names(rule: PartitionKey) -> PartitionKey:
    check_names(rule.by, PAYLOAD | OF_RUN_END)
    return rule


Payload = Annotated[
    Template | TemplateTree,
    PlainValidator(_parse_payload),
    AfterValidator(_storable),
    PlainSerializer(lambda payload: getattr(payload, "source", None)),
    WithJsonSchema(
        {
            "type": ["object", "string"],
            "description": "a mapping (sent as JSON) or a text; may hold {{ templates }}",
        }
    ),
]


class BatchRule(Model):
    """When a webhook sends several events in one delivery."""

    every: Annotated[Duration, Field(gt=0)] = 300.0
    """How long after its first event a batch closes: 5m."""
    max: int = Field(1_000, ge=1, le=MOST_MEMBERS)
    """The number of events that closes a batch earlier."""


class MissedRule(Model):
    """The missed deliveries that the daemon keeps while a webhook is disabled."""

    for_: Annotated[Duration, Field(alias="for", gt=0)] = 7 * 86400.0
    """How long to keep each: 7d."""
    max: int = Field(10_000, ge=0, le=1_000_000)
    """The most to keep; the oldest go first."""


class Addressed(Model):
    """What is told to a receiver, and how: what every webhook has."""

    name: str = Field("", pattern=_NAME, max_length=LONGEST_TEXT)
    """Unique within its endpoint; by default made of phase, status code and host."""
    url: Annotated[UrlKey, AfterValidator(_reachable)]
    """The URL of the receiver; path and query may have templates."""
    secret: SigningKeys = ()
    """The secret that signs deliveries; without one, they have no signature."""
    headers: Mapping[
        Annotated[str, AfterValidator(_header_name)], Annotated[Template, AfterValidator(_sendable)]
    ] = {}
    """Headers of each delivery."""
    auth: Annotated[Auth, AfterValidator(_usable)] | None = None
    """How to authenticate at the receiver: `bearer`, `basic`, `header` or `oauth2`."""
    payload: Payload | None = None
    """The body to send instead of the standard envelope."""
    timeout: Annotated[Duration, Field(gt=0)] = 15.0
    """How long a delivery may take: 15s."""
    retry: Retry = Field(default_factory=dict, validate_default=True)
    """When to try a delivery again; it inherits nothing from the endpoint's retry."""
    breaker: BreakerKey | None = None
    """When the circuit breakers of its deliveries open: {failures: 20, window: 2m}, or `off`; by
    default as in `defaults`."""
    pace: Pace | None = None
    """`on`: sends fewer deliveries to a receiver that answers 429 or 503, if that helps. `off`:
    never. By default as in `defaults`."""
    enabled: bool = True
    """`false`: it does not fire, and its waiting deliveries keep waiting."""

    _fingerprint: str = PrivateAttr("")

    @property
    def fingerprint(self) -> str:
        """Another one after any change of the declaration; nothing can be read out of it."""
        return self._fingerprint

    def guards(self, defaults: Guards) -> Guards:
        """Its breaker and pace, with what `defaults` says where it says nothing."""
        breaker, pace = self.breaker or defaults.breaker, self.pace or defaults.pace
        return Guards.model_construct(breaker=breaker, pace=pace)

    @property
    def templated(self) -> bool:
        """True where the URL or a header may have to be rendered for each delivery."""
        return bool(self.headers) or not self.url.template.constant

    @classmethod
    def default_name(cls, declared: Mapping[str, Any]) -> str:
        """Its name, where the YAML gives none."""
        return name_of(declared)

    @field_validator("name", mode="before")
    @classmethod
    def _public(cls, value: Any) -> Any:
        if isinstance(value, Text) and value.secret:
            raise ValueError(
                "a secret here would be stored in the database; put the reference into headers"
            )
        return value

    @model_validator(mode="wrap")
    @classmethod
    def _name_and_remember(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(value, Mapping):
            return handler(value)
        named = {"name": cls.default_name(value), **value}
        if "subscribers" in value and "url" not in value:
            named["url"] = NOWHERE
        webhook = handler(named)
        webhook._fingerprint = _fingerprint(named, webhook.secret)
        return webhook


def _with_one_address(schema: dict[str, Any]) -> None:
    schema["required"].remove("url")
    schema["anyOf"] = [{"required": ["url"]}, {"required": ["subscribers"]}]


class Webhook(Addressed):
    """One webhook of an endpoint."""

    model_config = ConfigDict(json_schema_extra=_with_one_address)

    subscribers: Annotated[Template, AfterValidator(_known_in_payload)] | None = None
    """Whose subscriptions it goes to, instead of one `url`: a template that makes the id of a
    tenant, such as `"{{ params.tenant }}"`."""

    phase: Annotated[
        str, AfterValidator(_known_phase), WithJsonSchema({"type": "string", "enum": list(PHASES)})
    ]
    """The phase that it announces, such as after_request or on_final_failure."""
    status_code: StatusSet | None = None
    """The answers that it fires for: `5xx`, `404`, `error`, or a list; by default all."""
    when: Expression | None = None
    """JMESPath over the envelope's data, with `response.body` parsed: it fires only if true, such
    as `"response.body.total > `100`"`; by default always."""
    include: tuple[Part, ...] | None = None
    """The parts of the envelope's data to send; by default all."""
    partition: Annotated[PartitionKey, AfterValidator(_known_names)] | None = None
    """Divides its deliveries into partitions with fair turns, or an order: a template over the
    envelope's data, or `{by, ordered, concurrency, on_failure}`."""
    batch: BatchRule | None = None
    """Sends several events in one delivery: {every: 5m, max: 1000}. A batch opens with the first
    event of any endpoint, and closes when it is full or its time is over."""

    disable_after: Annotated[Duration, Field(gt=0)] | None = None
    """How long without a success disables it: 5d; by default never."""
    keep_missed: MissedRule = Field(default_factory=dict, validate_default=True)
    """Keeps the deliveries that it misses while it is disabled, as failed ones: {for: 7d, max:
    10000}. `webhooks enable --replay` sends them."""

    def obstacle(self, phase: str, status_code: int | str | None) -> str | None:
        """Why it does not fire for this phase, decided with this status code; None: it does."""
        if not self.enabled:
            return "disabled in the YAML"
        if phase != self.phase:
            return f"phase is {self.phase}"
        if self.status_code is not None and status_code not in self.status_code:
            given = "a call that was not sent" if status_code is None else status_code
            return f"status_code {self.status_code} does not cover {given}"
        return None

    @field_validator("status_code")
    @classmethod
    def _answered(cls, value: StatusSet | None, info: ValidationInfo) -> StatusSet | None:
        phase = str(info.data.get("phase", ""))
        if value is not None and phase.startswith("before_"):
            later = phase.replace("before_", "after_")
            raise ValueError(
                f"{phase} comes before there is a status code; "
                f"leave status_code out, or use the phase {later}"
            )
        return value

    @field_validator("when")
    @classmethod
    def _of_event(cls, value: Expression | None, info: ValidationInfo) -> Expression | None:
        known = data_names(str(info.data.get("phase", "")))
        for name in sorted(value.names - known - {WHOLE} if value is not None else ()):
            raise ValueError(f"{name!r} is not in the envelope's data{suggest(name, known)}")
        return value


def shortened(text: str) -> str:
    """A text as a member of a batch may have it: of a longer one its beginning, and a digest that
    tells it from others."""
    if len(text) <= LONGEST_TEXT:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
    return f"{text[: LONGEST_TEXT - len(digest) - 1]} {digest}"


def name_of(declared: Mapping[str, Any]) -> str:
    """A name for a webhook without one, such as `after_request-5xx-error-ops.example.com`.

    It takes the mapping as it stands in the YAML, and so copes with whatever may be wrong in it.
    """
    codes = declared.get("status_code")
    words = [declared.get("phase"), *(codes if isinstance(codes, list | tuple) else [codes])]
    url = declared.get("url")
    if url is None and "subscribers" in declared:
        words.append("subscribers")
    if isinstance(url, str) and not (isinstance(url, Text) and url.secret):
        host = re.match(r"https?://(?:[^/?#@]*@)?([^/?#]*)", url, re.IGNORECASE)
        words.append(host[1] if host else None)
    texts = [_UNNAMEABLE.sub("-", str(word)).strip("-._") for word in words if word is not None]
    return "-".join(text for text in texts if text) or "webhook"


def _fingerprint(declared: Mapping[str, Any], keys: Sequence[SigningKey]) -> str:
    # The secrets are the key and not a part of the message: the table gives away no more of
    # them than any signature.
    text = json.dumps({**declared, "secret": None, "auth": None}, sort_keys=True, default=str)
    auth = json.dumps(declared["auth"], default=str) if declared.get("auth") else ""
    secrets = b"".join(key.value for key in keys) + auth.encode()
    return hmac.new(secrets, text.encode(), hashlib.sha256).hexdigest()


WEBHOOKS: Setting[tuple[Webhook, ...]] = Setting(
    "webhooks",
    tuple[Webhook, ...],
    default=(),
    merge="by_name",
    name_of=name_of,
    description="Webhooks that announce the phases of a call.",
)
"""The key of the YAML; `endpoint[WEBHOOKS]` reads it."""
