"""The tokens of the portal: signed by a key that is derived from the operator's, and not stored."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from orchestratord import world
from orchestratord_subscriptions.derived_secret import MasterKey, hkdf

Kind = Literal["link", "session"]
SECONDS: dict[Kind, int] = {"link": 15 * 60, "session": 3600}
"""For how long each kind is good."""
_INFO = b"orchestratord subscriptions: portal"


@dataclass(frozen=True, slots=True)
class PortalToken:
    """What a token says."""

    kind: Kind
    tenant: str
    made_at: int
    """When the tenant was made (milliseconds): of a tenant that was removed and made again, the
    tokens of before are no good."""
    until: int
    """Until when it is good (seconds since the epoch)."""
    nonce: str
    """Tells one from another."""

    @classmethod
    def new(cls, kind: Kind, tenant: str, made_at: int) -> PortalToken:
        """One that is good from now on."""
        return cls(kind, tenant, made_at, int(world.time()) + SECONDS[kind], world.token_hex(16))

    def signed(self, key: MasterKey) -> str:
        """The text of it."""
        said = [self.kind, self.tenant, self.made_at, self.until, self.nonce]
        text = _encoded(json.dumps(said, separators=(",", ":")).encode())
        return f"{text}.{_signature(key, text)}"


def read(token: str, kind: Kind, keys: Iterable[MasterKey]) -> PortalToken | None:
    """What a token of this kind says; None where it is not ours, or good no more."""
    text, _, given = token.partition(".")
    good = [hmac.compare_digest(_signature(key, text), given) for key in keys if given.isascii()]
    if not any(good):
        return None
    found = PortalToken(*json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))))
    return found if found.kind == kind and found.until > world.time() else None


def _signature(key: MasterKey, text: str) -> str:
    signing = hkdf(key.value, b"", _INFO)
    return _encoded(hmac.digest(signing, text.encode("utf-8", "replace"), "sha256"))


def _encoded(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")
