"""Assertions: who asks for a token, signed with a private key (RFC 7523)."""

from __future__ import annotations

from typing import Any

from orchestratord.model.auth import OAuth2
from orchestratord.values import world

JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
CLIENT_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def signed_assertion(settings: OAuth2) -> str:
    """One that no other request has: servers may refuse a `jti` that they have seen."""
    import jwt  # an extra, and 30 ms

    assert settings.private_key is not None
    now = int(world.time())
    claims: dict[str, Any] = {
        "iss": settings.issuer or settings.client_id,
        "aud": settings.audience or settings.token_url,
        "iat": now,
        "exp": now + max(1, round(settings.assertion_lifetime)),
        "jti": world.token_urlsafe(24),
    }
    subject = settings.subject
    if settings.grant == "client_credentials":
        subject = subject or settings.client_id
    elif settings.scope is not None:
        claims["scope"] = settings.scope  # where Google looks for it
    if subject is not None:
        claims["sub"] = subject
    headers = {"kid": settings.key_id} if settings.key_id else None
    return jwt.encode(
        claims, settings.private_key.reveal(), algorithm=settings.algorithm, headers=headers
    )
