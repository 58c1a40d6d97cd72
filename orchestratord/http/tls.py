"""Whose certificates are trusted, what is shown to peers, and what is said where one is refused."""

from __future__ import annotations

import os
import socket
import ssl

import httpx

from orchestratord.errors import SendError
from orchestratord.model.auth import Tls
from orchestratord.values.certificate import show, trust

_UNTRUSTED = frozenset({2, 18, 19, 20, 21, 24, 27, 28})
"""OpenSSL's numbers for a chain that leads to no authority that is trusted."""
_OTHER_NAME = frozenset({62, 63, 64})
_DATES = frozenset({9, 10})
"""Not yet valid, and no more: only a new certificate, or time, helps; so it is tried again."""


class ApiContext(ssl.SSLContext):
    """For a client; it knows what it trusts, in words."""

    authority: str = ""


def context_of(tls: Tls | None = None) -> ssl.SSLContext:
    """A client's context. Reading the usual authorities takes 20 ms."""
    context = proxy_context(tls)
    context.set_alpn_protocols(("http/1.1",))
    if tls is not None and tls.cert is not None:
        show(context, tls.cert.content, (tls.key or tls.cert).content)
    return context


def proxy_context(tls: Tls | None) -> ssl.SSLContext:
    """One for a proxy: it is trusted by the same authorities, and shown no certificate."""
    if tls is None or tls.ca is None:
        return httpx.create_ssl_context()
    context = ApiContext(ssl.PROTOCOL_TLS_CLIENT)
    # An authority may be one in the middle of a chain, or the peer's own certificate.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    trust(context, tls.ca.content)
    context.authority = f"tls.ca ({tls.ca.name})"
    return context


def certificate_name(name: str) -> str:
    """A name as a certificate has it: without an address's zone, and without a final dot."""
    return name.partition("%")[0].rstrip(".")


def tls_failure(
    error: Exception, host: str, what: str, context: ssl.SSLContext | None
) -> SendError:
    """What is said where a handshake fails.

    Args:
        error: what came of it.
        host: the peer's name.
        what: the same, with the address.
        context: what it was made with.
    """
    if not isinstance(error, ssl.SSLCertVerificationError):
        failure = SendError(f"TLS with {what}: {reason(error)}", kind="tls", sent=False)
        return refused_by_peer(error) or failure
    whose, code = f"the certificate of {host}", error.verify_code
    if code in _DATES:
        return SendError(f"{whose}: {error.verify_message}", kind="tls", sent=False)
    if code in _UNTRUSTED:
        authority = context.authority if isinstance(context, ApiContext) else ""
        remedy = "" if authority else "; a private authority is named in tls.ca"
        authority = authority or "an authority that is trusted here"
        why = f"is not signed by {authority} ({error.verify_message}){remedy}"
    elif code in _OTHER_NAME:
        why = f"is for another name: {error.verify_message}"
    else:
        why = f"is invalid: {error.verify_message}"
    return SendError(f"{whose} {why}", kind="certificate", sent=False)


def refused_by_peer(error: Exception | None) -> SendError | None:
    """An alert of the peer about the certificate that it was shown, or was not. With TLS 1.3 it
    comes when the first request is on its way, which has not been looked at."""
    reason = (error.reason or "") if isinstance(error, ssl.SSLError) else ""
    about = "CERTIFICATE" in reason or "UNKNOWN_CA" in reason or "ACCESS_DENIED" in reason
    if "ALERT" not in reason or not about:
        return None
    said = reason.partition("ALERT_")[2].replace("_", " ").lower()
    what = f"the peer does not accept the certificate of tls.cert, or wants one: {said}"
    return SendError(what, kind="certificate", sent=False)


def reason(error: Exception) -> str:
    """An error of a connection in a few words."""
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    if isinstance(error, socket.gaierror):
        return error.strerror or "the resolver has no answer"
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) and error.errno:
        return os.strerror(error.errno)  # asyncio's own words repeat the address
    return str(error) or type(error).__name__
