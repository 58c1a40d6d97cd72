"""The headers that make browsers careful; every answer over TCP has them."""

from __future__ import annotations

from starlette.types import Message, Send

CAREFUL: dict[str, str] = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # With `no-referrer` a form would be sent with the origin `null`, which is nobody's.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
"""Name → value."""

_RAW = [(name.encode(), value.encode()) for name, value in CAREFUL.items()]


def careful(send: Send) -> Send:
    """A `send` that adds them, but for those that an answer has itself."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = list(message.get("headers", ()))
            names = {name.lower() for name, _ in own}
            own += [header for header in _RAW if header[0] not in names]
            message = {**message, "headers": own}
        await send(message)

    return sending
