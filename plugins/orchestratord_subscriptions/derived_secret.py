"""The secrets of subscriptions: derived from the operator's key, and never stored.

HKDF with SHA-256 (RFC 5869) makes a secret of the key, and of a random id and salt in the row.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Any

from orchestratord import Secret

LEAST = 32
"""Bytes of a key."""
PREFIX = "whsec_"


def hkdf(key: bytes, salt: bytes, info: bytes, length: int = 32) -> bytes:
    """RFC 5869 with SHA-256: `length` bytes, up to 32, derived from `key`."""
    extracted = hmac.digest(salt or bytes(32), key, "sha256")
    return hmac.digest(extracted, info + b"\x01", "sha256")[:length]


@dataclass(frozen=True, slots=True)
class MasterKey:
    """The operator's key; nothing prints it."""

    value: bytes = field(repr=False)

    @property
    def id(self) -> str:
        """What a row names it by; nothing can be read out of it."""
        return hkdf(self.value, b"", b"orchestratord subscriptions: key id", 8).hex()

    @classmethod
    def parse(cls, value: Any) -> MasterKey:
        """Decode a key. Raises ValueError without showing it."""
        text = Secret.parse(value).reveal().strip()
        try:
            decoded = base64.b64decode(text, validate=True)
        except ValueError:
            decoded = b""
        if len(decoded) < LEAST:
            raise ValueError(
                "the key of subscriptions is base64 of 32 bytes or more; "
                "make one with: openssl rand -base64 32"
            )
        return cls(decoded)

    def secret(self, subscription: str, salt: str) -> bytes:
        """What the deliveries of a subscription are signed with; `salt` in hexadecimal digits."""
        info = b"orchestratord subscriptions: signing secret of " + subscription.encode()
        return hkdf(self.value, bytes.fromhex(salt), info)


def shown(secret: bytes) -> str:
    """A secret as its receiver is given it."""
    return PREFIX + base64.b64encode(secret).decode()


def digest_of(text: str) -> str:
    """What tells one body of a request from another."""
    return hashlib.sha256(text.encode()).hexdigest()
