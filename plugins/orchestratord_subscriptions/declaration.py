"""What the YAML declares: `subscriptions:` of orchestratord.yaml, and `public:` of an endpoint."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from orchestratord_webhooks import MissedRule, Retry, SigningKey
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BeforeValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    PrivateAttr,
    WithJsonSchema,
    model_validator,
)

from orchestratord import (
    DaemonSetting,
    Duration,
    Egress,
    Model,
    Port,
    Setting,
    host_and_port,
    world,
)
from orchestratord_subscriptions.derived_secret import MasterKey

ENDPOINT = "subscriptions"
"""The endpoint of all deliveries to subscriptions, which no file declares."""


def _as_list(value: Any) -> Any:
    if value == []:
        raise ValueError("has no key")
    return value if isinstance(value, list | tuple) else (value,)


def _rule(value: str) -> str:
    Egress.of([value])
    return value


_KEY = Annotated[MasterKey, PlainValidator(MasterKey.parse), PlainSerializer(lambda key: "***")]
_ONE = {"type": "string", "description": "base64 of 32 bytes or more; preferably a reference"}


def _public_url(value: str) -> str:
    scheme, _, rest = value.partition("://")
    if scheme not in ("https", "http") or not rest or set(value) & set("?#@ "):
        raise ValueError("expected the public address of the portal: https://hooks.example.com")
    return value


_Origin = Annotated[str, Field(pattern=r"^https?://[A-Za-z0-9.:\[\]-]+$")]


class PortalSettings(Port):
    """Where tenants see to their subscriptions themselves."""

    url: Annotated[str, AfterValidator(_public_url)]
    """Its public address, such as https://hooks.example.com."""
    frame_origins: tuple[_Origin, ...] = ()
    """The origins whose pages may show it in a frame: [https://app.example.com]."""
    name: str = Field("", max_length=100)
    """The name at its top."""
    colour: str = Field("#1f56c3", pattern=r"^#[0-9a-fA-F]{6}$")
    """The colour of its buttons: "#1f56c3"."""


def _absolute(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError("expected an absolute path, such as /var/lib/orchestratord/svix.json")
    return value


class ImportedSecrets(Model):
    """Secrets of the previous sender: each signs beside the derived one for a time."""

    file: Annotated[str, AfterValidator(_absolute)] = Field(json_schema_extra={"pattern": "^/"})
    """Its absolute path. It holds JSON: the secret of each subscription, by TENANT/ID."""
    until: AwareDatetime
    """Until when they sign: 2027-03-01T00:00:00Z."""
    _keys: dict[str, SigningKey] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _read(self) -> ImportedSecrets:
        if world.time() < self.until.timestamp():
            try:
                found = json.loads(Path(self.file).read_bytes())
                self._keys.update((name, SigningKey.parse(found[name])) for name in found)
            except (OSError, ValueError, TypeError) as error:
                why = getattr(error, "strerror", None) or "it holds no secrets by TENANT/ID"
                remedy = "`orchestratord import svix` writes it"
                raise ValueError(f"cannot read its file: {why}; {remedy}") from None
        return self

    def keys(self, name: str, now: float) -> Sequence[SigningKey]:
        """What also signs for the subscription TENANT/ID `now` (seconds since the epoch)."""
        found = self._keys.get(name) if now < self.until.timestamp() else None
        return () if found is None else (found,)


class SubscriptionSettings(Model):
    """How tenants subscribe to events."""

    key: Annotated[
        tuple[_KEY, ...],
        BeforeValidator(_as_list),
        WithJsonSchema({"anyOf": [_ONE, {"type": "array", "items": _ONE, "minItems": 1}]}),
    ]
    """The key that makes the secrets of subscriptions: base64 of 32 bytes or more; a list,
    newest first, while it is rotated."""
    imported_secrets: ImportedSecrets | None = None
    """Secrets of the previous sender: {file: /var/lib/orchestratord/svix.json, until: …}."""
    portal: PortalSettings | None = None
    """A port with pages for tenants: {bind: 127.0.0.1:8440, url: https://hooks.example.com}."""
    max_per_tenant: int = Field(50, ge=1, le=1000)
    """How many subscriptions a tenant may have."""
    require_https: bool = True
    """Whether an address has to begin with https://."""
    ports: tuple[Annotated[int, Field(ge=1, le=65535)], ...] = (443,)
    """Which ports addresses may have: [443]."""
    allow: tuple[Annotated[str, AfterValidator(_rule)], ...] = ()
    """Which private addresses subscriptions may go to; `egress.allow` does not apply to them."""
    disable_after: Annotated[Duration, Field(gt=0)] | None = 432_000.0
    """How long without a success disables a subscription: 5d."""
    keep_missed: MissedRule = Field(default_factory=dict, validate_default=True)
    """The missed deliveries that a disabled subscription keeps: {for: 7d, max: 10000}."""
    timeout: Annotated[Duration, Field(gt=0)] = 15.0
    """How long a delivery may take: 15s."""
    retry: Retry = Field(default_factory=dict, validate_default=True)
    """When to try a failed delivery again."""

    def address_problem(self, url: str) -> str | None:
        """Why no subscription may have this address; None where one may. A name is resolved, and
        checked again, at each delivery."""
        scheme, _, rest = url.partition("://")
        if self.require_https and scheme.lower() != "https":
            return "must begin with https://"
        if scheme.lower() not in ("http", "https"):
            return "must begin with https:// or http://"
        if "@" in rest.split("/")[0]:
            return "must hold no user name or password"
        if "#" in url or any(not "!" <= character <= "~" for character in url):
            return "must hold no fragment, blank or character beyond ASCII"
        if (found := host_and_port(url)) is None:
            return "has no host or port that can be used"
        host, port = found
        if port not in self.ports:
            return f"has the port {port}; possible: {', '.join(map(str, self.ports))}"
        if Egress.of(self.allow).literal_problem(host, port) is not None:
            return "is no public address"
        return None


class PublicEvent(Model):
    """An event as tenants see it."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)
    """What tenants call it, such as order.paid."""
    description: str = Field("", max_length=1000)
    """What it says, in a sentence for tenants."""


SUBSCRIPTIONS: DaemonSetting[SubscriptionSettings | None] = DaemonSetting(
    "subscriptions",
    SubscriptionSettings | None,
    default=None,
    description="Lets tenants subscribe to events at run time, each with addresses of their own.",
)
PUBLIC: Setting[PublicEvent | None] = Setting(
    "public",
    PublicEvent | None,
    default=None,
    description="What tenants see of an event whose webhook has `subscribers`.",
)
