"""Certificates in PEM: which there are in a file, when they end, and giving them to OpenSSL.

Python's ssl reads certificates and keys from files only, and tells the dates of authorities only.
"""

from __future__ import annotations

import os
import re
import ssl
from datetime import UTC, datetime

_CERTIFICATE = re.compile(
    rb"-----BEGIN (?:TRUSTED )?CERTIFICATE-----\s.*?-----END (?:TRUSTED )?CERTIFICATE-----", re.S
)
_TIMES = {0x17: "%y%m%d%H%M%SZ", 0x18: "%Y%m%d%H%M%SZ"}
"""How ASN.1 writes a time, by its tag."""
_VERSION = 0xA0


def certificates(pem: bytes) -> list[str]:
    """The certificates in a file, each in PEM by itself, without what stands between them."""
    return [match[0].decode("ascii", "replace") for match in _CERTIFICATE.finditer(pem)]


def ends(certificate: str) -> datetime | None:
    """When a certificate in PEM ends, None where that cannot be told."""
    try:
        der = ssl.PEM_cert_to_DER_cert(certificate)
        _, at, _ = _element(der, 0)  # the certificate
        _, at, _ = _element(der, at)  # what of it is signed
        tag, _, end = _element(der, at)
        if tag == _VERSION:
            at = end
        for _ in ("serial number", "algorithm", "issuer"):
            at = _element(der, at)[2]
        _, at, _ = _element(der, at)  # its time
        at = _element(der, at)[2]  # which begins
        tag, start, end = _element(der, at)
        return datetime.strptime(der[start:end].decode(), _TIMES[tag]).replace(tzinfo=UTC)
    except (ValueError, IndexError, KeyError):
        return None


def _element(der: bytes, at: int) -> tuple[int, int, int]:
    """The tag of the element of ASN.1 at a place, and where its content begins and ends."""
    tag, length = der[at], der[at + 1]
    at += 2
    if length & 0x80:
        size = length & 0x7F
        length = int.from_bytes(der[at : at + size], "big")
        at += size
    return tag, at, at + length


def trust(context: ssl.SSLContext, pem: bytes) -> None:
    """Trust the certificates in `pem`. Raises ValueError where there is none that can be used."""
    found = certificates(pem)
    if not found:
        raise ValueError("holds no certificate in PEM")
    try:
        context.load_verify_locations(cadata="\n".join(found))
    except (ssl.SSLError, ValueError) as error:
        raise ValueError(f"holds a certificate that cannot be used: {_reason(error)}") from None


def show(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Have `context` show a certificate, with its chain and its private key.

    Raises ValueError where they cannot be used, or do not belong together.
    """
    if not certificates(certificate):
        raise ValueError("holds no certificate in PEM")
    if b"PRIVATE KEY-----" not in key:
        raise ValueError("holds no private key in PEM")
    if b"ENCRYPTED" in key:
        raise ValueError("is protected by a passphrase; store it without one, for the daemon alone")
    # A file that is only in memory: OpenSSL has to be given a path.
    handle = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        with os.fdopen(handle, "wb", closefd=False) as file:
            file.write(b"\n".join([*(c.encode() for c in certificates(certificate)), key]))
        context.load_cert_chain(f"/proc/self/fd/{handle}", password=lambda: b"")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ValueError("does not fit the certificate") from None
        raise ValueError(f"cannot be used: {_reason(error)}") from None
    finally:
        os.close(handle)


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None)
    return reason.replace("_", " ").lower() if isinstance(reason, str) else str(error)
