"""Private keys that sign assertions."""

from __future__ import annotations

PRETENDED_KEY = "-----BEGIN PRETENDED PRIVATE KEY-----"
"""Stands for a key that is not here, where secrets are pretended."""
_SHORTEST = 256
"""Bytes of an RSA key, as RFC 7518 asks for. In bits it would be masked in an error, as any long
number of what is secret."""


def check_signing_key(pem: str, algorithm: str) -> None:
    """Raise ValueError where a text is no key to sign with, or what reads it is not installed.

    Args:
        pem: the key in PEM, without a passphrase.
        algorithm: `RS256` or `ES256`.
    """
    try:
        import jwt  # noqa: F401  # an extra, and 30 ms
        from cryptography.hazmat.primitives.asymmetric import ec, rsa
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    except ImportError:
        raise ValueError(
            "takes PyJWT, which is not installed: pip install 'orchestratord[jwt]'"
        ) from None
    try:
        key = load_pem_private_key(pem.encode(), None)
    except TypeError:
        raise ValueError("has a passphrase; give the key without one") from None
    except Exception:  # whatever it says may show a part of the key
        raise ValueError("is not a private key in PEM: -----BEGIN PRIVATE KEY-----") from None
    if algorithm == "ES256":
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
            raise ValueError("is not of the curve P-256, which ES256 signs with")
    elif not isinstance(key, rsa.RSAPrivateKey):
        raise ValueError(f"is not an RSA key, which {algorithm} signs with")
    elif key.key_size < _SHORTEST * 8:
        raise ValueError(f"is too short: {algorithm} takes a key of {_SHORTEST} bytes or more")
