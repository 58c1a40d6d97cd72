"""Signatures by the Standard Webhooks specification, https://www.standardwebhooks.com

The `standardwebhooks` library verifies well, and the tests let it; for signing, it takes the body
as text only, and one secret, while a webhook whose secret is being rotated carries a signature
for each.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, PlainValidator, WithJsonSchema

from orchestratord import Secret

HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature")
"""The headers that only the signature sets."""

PREFIX = "whsec_"
SIZES = range(24, 65)
"""Bytes that a secret has by the specification."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """What a signature is made with; nothing prints it."""

    value: bytes = field(repr=False)
    mac: hmac.HMAC = field(init=False, repr=False, compare=False)
    """Of an empty message."""

    def __post_init__(self) -> None:
        mac = hmac.new(self.value, digestmod=hashlib.sha256)
        # Where it stands for OpenSSL's, as it usually does, that is asked itself.
        object.__setattr__(self, "mac", getattr(mac, "_hmac", None) or mac)

    @classmethod
    def parse(cls, value: Any) -> SigningKey:
        """Decode a secret. Raises ValueError without showing it."""
        text = Secret.parse(value).reveal().strip().removeprefix(PREFIX).rstrip("=")
        try:
            decoded = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
        except ValueError:
            decoded = b""
        if not decoded:
            raise ValueError(
                "the secret of a webhook is base64, with or without whsec_ before it; "
                "make one with: openssl rand -base64 32"
            )
        return cls(decoded)


def signed(
    keys: Sequence[SigningKey], message_id: str, timestamp: int, body: bytes
) -> dict[str, str]:
    """The headers of one attempt.

    Args:
        keys: newest first; without any the message is not signed.
        message_id: the same for each attempt of one message.
        timestamp: of this attempt, in seconds since the epoch.
        body: the bytes that are sent.
    """
    headers = {"webhook-id": message_id, "webhook-timestamp": str(timestamp)}
    if keys:
        message = f"{message_id}.{timestamp}.".encode() + body
        headers["webhook-signature"] = " ".join([_signature(key, message) for key in keys])
    return headers


def _signature(key: SigningKey, message: bytes) -> str:
    # Not `hmac.digest`: it lets other threads go first, and waits for them, for each message.
    mac = key.mac.copy()
    mac.update(message)
    return "v1," + binascii.b2a_base64(mac.digest(), newline=False).decode()


def _as_list(value: Any) -> Any:
    if value in ([], ()):
        raise ValueError("an empty list signs nothing: name a secret, or leave `secret` out")
    return value if isinstance(value, list | tuple) else (value,)


_ONE = Annotated[SigningKey, PlainValidator(SigningKey.parse), PlainSerializer(lambda key: "***")]
_ONE_SCHEMA = {"type": "string", "description": "base64, whsec_ optional; preferably a reference"}

SigningKeys = Annotated[
    tuple[_ONE, ...],
    BeforeValidator(_as_list),
    WithJsonSchema(
        {"anyOf": [_ONE_SCHEMA, {"type": "array", "items": _ONE_SCHEMA, "minItems": 1}]}
    ),
]
"""A key of the YAML that holds one secret, or several, newest first, while they are rotated."""
