"""How senders sign their requests, each scheme in a few lines.

The bytes are signed as they were sent; what is compared takes the same time whether it fits or not.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestratord import PortRequest, Secret
from orchestratord_inbound.declaration import CustomScheme

TOLERANCE = 300
"""Seconds that the time of a signature may be away from now."""

SIGNATURE, LATE = "signature", "timestamp"
"""What is wrong with a request."""
_MOST = 16
"""Signatures of one request that are looked at."""


@dataclass(frozen=True, slots=True)
class SenderScheme:
    """One way to sign.

    Args:
        header: the one with the signature.
        timestamp: the one with the time, which is signed as well; None where there is none.
        content: what is signed: `{id}`, `{time}` and the body at the end.
        prefix: what stands before each signature.
        algorithm: of the HMAC.
        encoding: `hex` or `base64`.
        named: the header holds pairs, `t=TIME,v1=SIGNATURE`.
        several: more than one signature may stand in the header, with spaces between them.
        id: the header with the message's id, where that is signed.
        base64_key: the secret is base64, and may begin with `whsec_`.
    """

    header: str
    timestamp: str | None = None
    content: str = ""
    prefix: str = ""
    algorithm: str = "sha256"
    encoding: str = "hex"
    named: bool = False
    several: bool = False
    id: str | None = None
    base64_key: bool = False

    def fault(self, request: PortRequest, secrets: Sequence[Secret], now: float) -> str | None:
        """What is wrong with how a request is signed; None where it is good."""
        found = request.header(self.header)
        if found is None or not found.isascii():
            return SIGNATURE
        time, given = self._parts(found, request)
        if (self.timestamp is not None or self.named) and not _is_time(time):
            return SIGNATURE
        ids = [value for name, value in request.headers if name == self.id] or [""]
        # A second one is not signed, and would make the same request look like another.
        if len(ids) > 1 or (self.id is not None and not ids[0]):
            return SIGNATURE
        content = self._content(ids[0], time or "", request.body)
        good = False
        for secret in secrets:
            made = self._signature(secret, content)
            for one in given[:_MOST]:
                good |= hmac.compare_digest(one, made)
        if not good:
            return SIGNATURE
        if time is not None and abs(now - int(time)) > TOLERANCE:
            return LATE
        return None

    def signed(self, secret: Secret, body: bytes, now: float, message_id: str) -> dict[str, str]:
        """The headers that a sender would sign a body with."""
        time = str(int(now))
        made = self._signature(secret, self._content(message_id, time, body))
        if self.named:
            return {self.header: f"t={time},{made}"}
        headers = {self.header: made}
        if self.timestamp is not None:
            headers[self.timestamp] = time
        if self.id is not None:
            headers[self.id] = message_id
        return headers

    def _parts(self, found: str, request: PortRequest) -> tuple[str | None, list[str]]:
        """The time that is signed, and the signatures with what stands before them."""
        if self.named:
            parts = [part.strip() for part in found.split(",")]
            times = [part[2:] for part in parts if part.startswith("t=")]
            signatures = [part for part in parts if part.startswith(self.prefix)]
            return (times[0] if times else None), signatures
        time = request.header(self.timestamp) if self.timestamp is not None else None
        return time, found.split() if self.several else [found.strip()]

    def _content(self, message_id: str, time: str, body: bytes) -> bytes:
        return self.content.format(id=message_id, time=time).encode() + body

    def _signature(self, secret: Secret, content: bytes) -> str:
        made = hmac.digest(self.key(secret), content, self.algorithm)
        text = made.hex() if self.encoding == "hex" else base64.b64encode(made).decode()
        return self.prefix + text

    def key(self, secret: Secret) -> bytes:
        """What the HMAC is made with. Raises ValueError where the secret is none."""
        text = secret.reveal()
        if not self.base64_key:
            return text.encode()
        text = text.strip().removeprefix("whsec_").rstrip("=")
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
        if not key:
            raise ValueError("is empty")
        return key


def _is_time(text: str | None) -> bool:
    return text is not None and text.isascii() and text.isdecimal() and len(text) <= 15


SCHEMES: Mapping[str, SenderScheme] = {
    "standard": SenderScheme(
        "webhook-signature",
        "webhook-timestamp",
        "{id}.{time}.",
        prefix="v1,",
        encoding="base64",
        several=True,
        id="webhook-id",
        base64_key=True,
    ),
    "stripe": SenderScheme("stripe-signature", content="{time}.", prefix="v1=", named=True),
    "github": SenderScheme("x-hub-signature-256", prefix="sha256="),
    "slack": SenderScheme(
        "x-slack-signature", "x-slack-request-timestamp", "v0:{time}:", prefix="v0="
    ),
    "shopify": SenderScheme("x-shopify-hmac-sha256", encoding="base64"),
}


def scheme_of(verify: str | CustomScheme) -> SenderScheme:
    """The scheme that the YAML names or describes."""
    if isinstance(verify, str):
        return SCHEMES[verify]
    return SenderScheme(
        verify.header,
        verify.timestamp,
        "" if verify.timestamp is None else "{time}.",
        verify.prefix,
        verify.algorithm,
        verify.encoding,
    )
