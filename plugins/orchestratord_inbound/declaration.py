"""What the YAML declares: `inbound:` of an endpoint, and of orchestratord.yaml."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from orchestratord import DaemonSetting, Expression, Model, Port, RateLimit, Secret, Setting, Size

Named = Literal["standard", "stripe", "github", "slack", "shopify"]
NAMED: tuple[str, ...] = ("standard", "stripe", "github", "slack", "shopify")
SIGNED_IDS = {"standard": 'headers."webhook-id"', "stripe": "body.id", "slack": "body.event_id"}
"""Where the sender's own id of a request stands, of the schemes whose signature covers it: what
`dedupe` is where it is left out. An id that is not signed is none: with a copy of a signed request
it could be sent again under another one."""
UNSIGNED_IDS = {"github": "x-github-delivery", "shopify": "x-shopify-webhook-id"}
"""The headers of the ids that are not signed, for who trusts the way here."""

_PATH = re.compile(r"/[!$&-;=@-Z_a-z~%]*")
_HEADER = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


def _header(name: str) -> str:
    if not _HEADER.fullmatch(name):
        raise ValueError("is not the name of a header")
    return name.lower()


Header = Annotated[str, AfterValidator(_header)]


class CustomScheme(Model):
    """How a sender signs, if no named scheme fits."""

    header: Header
    """The header with the signature."""
    algorithm: Literal["sha1", "sha256", "sha512"] = "sha256"
    """The hash function of the HMAC."""
    encoding: Literal["hex", "base64"] = "hex"
    """The notation of the signature."""
    prefix: str = ""
    """The text before the signature in the header, such as `sha256=`."""
    timestamp: Header | None = None
    """The header with the seconds since the epoch, if the sender signs `TIME.BODY`. It may be five
    minutes old."""


def _scheme(value: Any) -> Any:
    if isinstance(value, str) and value not in NAMED:
        known = ", ".join(NAMED)
        raise ValueError(
            f"unknown scheme {value!r}; known are {known}, or write "
            "{header: …, algorithm: …, encoding: …, prefix: …, timestamp: …}"
        )
    return value


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else (value,)


_ONE = {"type": "string", "minLength": 1, "description": "the secret; preferably a reference"}
Secrets = Annotated[
    tuple[Secret, ...],
    Field(min_length=1),
    BeforeValidator(_as_list),
    WithJsonSchema({"anyOf": [_ONE, {"type": "array", "items": _ONE, "minItems": 1}]}),
]
"""One secret, or several, newest first, while they are rotated."""


def _path(value: str) -> str:
    if not _PATH.fullmatch(value) or value == "/":
        raise ValueError("expected a path without a query, such as /in/stripe")
    return value


def _of_memory(limit: RateLimit) -> RateLimit:
    if limit.is_kept:
        raise ValueError("requests are counted in memory, an hour at most: write s, min or h")
    return limit


class Inbound(Model):
    """How a sender's requests become events of an endpoint."""

    path: Annotated[str, AfterValidator(_path)]
    """The path for the sender's requests, such as /in/stripe."""
    verify: Annotated[Named | CustomScheme, BeforeValidator(_scheme)]
    """How the sender signs: `standard`, `stripe`, `github`, `slack`, `shopify`, or a mapping."""
    secret: Secrets
    """The sender's signing secret; a list, newest first, during a rotation."""
    dedupe: Expression | None = None
    """JMESPath over headers, query and body: requests with the same result are one event, for seven
    days. By default, the id that the sender signs (`standard`, `stripe`, `slack`)."""
    verify_token: Secret | None = None
    """The token that Meta shows to verify the address."""
    rate_limit: Annotated[RateLimit, AfterValidator(_of_memory)] | None = None
    """The most requests in a unit of time, such as 100/s. The daemon answers 429 to the rest."""
    max_body: Annotated[Size, Field(ge=1)] | None = None
    """The most bytes of a body, such as 64KiB; `max_params` is the default and the maximum."""

    @model_validator(mode="before")
    @classmethod
    def _check_form(cls, value: Any) -> Any:
        if isinstance(value, str):
            raise ValueError("expected {path: /in/stripe, verify: stripe, secret: …}")
        if isinstance(value, dict) and value.get("dedupe") is None:
            return {**value, "dedupe": SIGNED_IDS.get(str(value.get("verify")))}
        return value


INBOUND: Setting[Inbound | None] = Setting(
    "inbound",
    Inbound,
    default=None,
    description="How a sender's webhooks become events of this endpoint.",
)
"""The key of the YAML; `endpoint[INBOUND]` reads it."""

PORT: DaemonSetting[Port | None] = DaemonSetting(
    "inbound",
    Port,
    default=None,
    description="The address for incoming webhooks: `{bind: 127.0.0.1:8430}`.",
)
"""The key of orchestratord.yaml; `config[PORT]` reads it."""
