"""What the routes of tenants and subscriptions take and answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, NotRequired, Self

from pydantic import AfterValidator, BeforeValidator, Field
from typing_extensions import TypedDict

from orchestratord import Expression, RateLimit, RequestBody, is_named_for_secret, is_secret_header
from orchestratord_subscriptions.subscription import MOST_WHEN

Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]

_HEADER = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,100}")
_RESERVED = frozenset(
    "host connection content-length content-type transfer-encoding te trailer upgrade expect "
    "webhook-id webhook-timestamp webhook-signature".split()
)


def _headers(value: dict[str, str]) -> dict[str, str]:
    for name, text in value.items():
        if not _HEADER.fullmatch(name):
            raise ValueError(f"{name!r} is not the name of a header")
        if name.lower() in _RESERVED:
            raise ValueError(f"{name} is set by the daemon")
        if is_secret_header(name) or is_named_for_secret(name):
            raise ValueError(
                f"{name} would hold a secret, and none is stored: verify the signature instead"
            )
        if not text.isascii() or not text.isprintable() or len(text) > 1000:
            raise ValueError(f"{name} is to have up to 1,000 printable characters of ASCII")
    return value


def _cleared(value: Any) -> Any:
    # A verb's options are texts, so null comes as its word.
    return None if value in ("", "null") else value


def _listed(value: Any) -> Any:
    if _cleared(value) is None:
        return ()
    return [one.strip() for one in value.split(",")] if isinstance(value, str) else value


def _short(value: Any) -> Any:
    if isinstance(value, str) and len(value.encode("utf-8", "replace")) > MOST_WHEN:
        raise ValueError(f"has more than {MOST_WHEN} bytes")
    return _cleared(value)


_Pattern = Annotated[str, Field(pattern=r"^[A-Za-z0-9*?._/-]{1,200}$")]


class PatchedSubscription(RequestBody):
    """What is changed of a subscription."""

    url: Annotated[str, Field(max_length=2000)] = ""
    """Where its deliveries go."""
    events: Annotated[tuple[_Pattern, ...], Field(max_length=100), BeforeValidator(_listed)] = ()
    """Which events: public names, or patterns over ids, such as shop/*; empty for all. A list, or a
    text with commas."""
    when: Annotated[Expression | None, BeforeValidator(_short)] = None
    """JMESPath over the payload, which has to hold; up to 512 bytes."""
    headers: Annotated[dict[str, str], Field(max_length=20), AfterValidator(_headers)] = Field({})
    """Headers of each delivery, without secrets."""
    description: Annotated[str, Field(max_length=1000)] = ""
    """For people."""
    enabled: bool = True
    """Whether anything is delivered."""
    rate: Annotated[RateLimit | None, BeforeValidator(_cleared)] = None
    """How many deliveries may begin at most: 10/s."""


class NewSubscription(PatchedSubscription):
    """A subscription as it is made."""

    url: Annotated[str, Field(max_length=2000)]
    """Where its deliveries go."""


class TenantBody(RequestBody):
    """What there is to say of a tenant."""

    name: Annotated[str, Field(max_length=200)] | None = None
    """For people."""


class ReplayBody(RequestBody):
    """Which deliveries are sent again."""

    since: Annotated[str, Field(max_length=50)] = "1d"
    """Those made since then: a duration back from now, or a time."""
    only_failed: bool = True
    """Whether those that succeeded are left out."""


class TenantDocument(TypedDict):
    """A tenant, and how its subscriptions fare."""

    tenant: Annotated[str, Field(examples=["acme"])]
    name: str | None
    created_at: Time | None
    subscriptions: int
    """How many it has."""
    failing: int
    """How many of them fail now."""
    disabled: int
    """How many of them are disabled."""
    failing_since: Time | None
    """Since when the first of them fails."""


class TenantPage(TypedDict):
    """A page of tenants."""

    tenants: list[TenantDocument]
    next: str | None
    """What `after` has to be for the next page; null for none."""


class PageQuery(RequestBody):
    """Which page."""

    after: str = ""
    """The `next` of the page before."""
    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    """How many at most."""

    @classmethod
    def read(cls, value: Mapping[str, str]) -> Self:
        """That of a query, in which what is empty counts as left out. Raises InvalidParams."""
        return super().read({name: text for name, text in value.items() if text})


class DeliveriesQuery(PageQuery):
    """Which deliveries."""

    status: str = ""
    """In this status."""


class SubscriptionDocument(TypedDict):
    """A subscription, and how it fares."""

    id: Annotated[str, Field(examples=["sub_2c6f0a0b7f5e4d0c9a51"])]
    tenant: str
    url: str
    events: list[str]
    when: str | None
    headers: dict[str, str]
    description: str | None
    rate: str | None
    enabled: bool
    disabled_at: Time | None
    disabled_reason: str | None
    last_status_code: str | None
    last_error: str | None
    last_attempt_at: Time | None
    last_success_at: Time | None
    """Exact to a second, as `last_attempt_at` is after a success."""
    failures: int
    """Deliveries that failed in a row."""
    failing_since: Time | None
    missed_deleted: int
    """Missed deliveries that `keep_missed` had no room or time for, since it was disabled last."""
    too_costly: int
    """Events in a row that did not match since `when` took too many steps."""
    created_at: Time
    secret: NotRequired[str]
    """What it is signed with; only in the answer that made it."""


class SubscriptionPage(TypedDict):
    """A page of subscriptions."""

    subscriptions: list[SubscriptionDocument]
    next: str | None


class SecretDocument(TypedDict):
    """The secret of a subscription."""

    id: str
    secret: Annotated[str, Field(examples=["whsec_…"])]
    previous_until: Time | None
    """Until when the secret before signs as well."""


class RemovedDocument(TypedDict):
    """What was removed."""

    tenant: str
    subscriptions: int
    """How many subscriptions."""
    tasks: int
    """How many deliveries wait for them, and fail as `webhook_removed`."""


class BegunReplay(TypedDict):
    """A bulk that sends deliveries again."""

    matched: int
    bulk: int | None
    left_out: dict[str, int]
