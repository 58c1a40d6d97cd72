"""Opening a connection: resolve once, check, connect to what was checked, secure."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import Callable
from typing import cast

from orchestratord.engine.connection import Connection
from orchestratord.engine.egress import Egress
from orchestratord.engine.http1 import Http1Connection
from orchestratord.engine.resolver import Found, Resolver
from orchestratord.errors import EgressDenied, SendError, SendErrorKind


async def dial(
    host: str,
    port: int,
    *,
    resolver: Resolver,
    egress: Egress,
    ssl_context: ssl.SSLContext | None,
    deadline: float,
) -> Connection:
    """Open a connection to a name, of HTTP/2 where TLS has agreed on it. Such a one stands when the
    peer's settings have come: until then nobody can tell how many requests it takes, or whether it
    is alive at all.

    Its addresses are tried in turn, those that egress denies left out; each gets an equal share of
    the time that is left, so that a silent one does not use up the others'.

    Args:
        host: a name or an address; TLS verifies it.
        port: the port.
        resolver: asked once.
        egress: the rules.
        ssl_context: for TLS; None for a plain connection.
        deadline: the loop's time at which the connection has to stand.

    Raises:
        EgressDenied: no address of the name is allowed.
        SendError: of kind dns, connect, tls or timeout.
    """
    loop = asyncio.get_running_loop()
    addresses = await _resolve(host, port, resolver, deadline)
    allowed: list[tuple[int, str]] = []
    denied: EgressDenied | None = None
    for family, address in addresses:
        try:
            egress.check(address, port, host)
        except EgressDenied as error:
            denied = denied or error
        else:
            allowed.append((family, address))
    failure: SendError = denied or _failure("dns", f"{host} has no address")
    for position, (family, address) in enumerate(allowed):
        now = loop.time()
        until = now + (deadline - now) / (len(allowed) - position)
        try:
            sock = await _connect(loop, family, address, port, until)
        except SendError as error:
            failure = error
        else:
            return await _open(loop, sock, address, host, port, egress, ssl_context, deadline)
    raise failure


async def _resolve(host: str, port: int, resolver: Resolver, deadline: float) -> Found:
    try:
        async with asyncio.timeout_at(deadline) as limit:
            return await resolver(host, port)
    except (OSError, ValueError) as error:  # TimeoutError is an OSError
        if limit.expired():
            raise _failure("timeout", f"{host} could not be resolved in time") from None
        raise _failure("dns", f"{host} cannot be resolved: {_reason(error)}") from error


async def _connect(
    loop: asyncio.AbstractEventLoop, family: int, address: str, port: int, until: float
) -> socket.socket:
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise _failure("connect", f"{_at(address, port)}: {_reason(error)}") from error
    try:
        sock.setblocking(False)
        async with asyncio.timeout_at(until) as limit:
            await loop.sock_connect(sock, _sockaddr(family, address, port))
        if sock.getsockname() == sock.getpeername():
            # Where nobody listens on a port that the system also hands out to clients, a socket
            # can be given that very port and connect to itself; it would be its own answer.
            raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
    except OSError as error:
        sock.close()
        if limit.expired():
            what = f"no connection to {_at(address, port)} in time"
            raise _failure("timeout", what) from None
        what = f"no connection to {_at(address, port)}: {_reason(error)}"
        raise _failure("connect", what) from error
    except BaseException:
        sock.close()
        raise
    return sock


async def _open(
    loop: asyncio.AbstractEventLoop,
    sock: socket.socket,
    address: str,
    host: str,
    port: int,
    egress: Egress,
    ssl_context: ssl.SSLContext | None,
    deadline: float,
) -> Connection:
    # asyncio closes the socket itself when this does not succeed.
    def http1() -> Connection:
        return Http1Connection(loop, sock, address, egress)

    if ssl_context is None:
        return (await loop.create_connection(http1, sock=sock))[1]

    def http2() -> Connection:
        # Imported by those who meet such a peer.
        from orchestratord.engine.http2 import Http2Connection

        return Http2Connection(loop, sock, address, egress)

    arriving: _Arriving | None = None
    what = f"{host} ({_at(address, port)})"
    try:
        async with asyncio.timeout_at(deadline) as limit:
            _, arriving = await loop.create_connection(
                lambda: _Arriving(http1, http2),
                sock=sock,
                ssl=ssl_context,
                # A certificate names neither an address's zone nor a name's final dot.
                server_hostname=host.partition("%")[0].rstrip("."),
            )
            connection = arriving.connection
            await connection.ready()
            return connection
    except BaseException as error:
        if arriving is not None:
            arriving.connection.close()
        if isinstance(error, OSError) and limit.expired():  # TimeoutError is an OSError
            reached = "the TLS handshake" if arriving is None else "the beginning of HTTP/2"
            raise _failure("timeout", f"{reached} with {what} did not end in time") from None
        if isinstance(error, OSError | ValueError):
            raise _failure("tls", f"TLS with {what}: {_reason(error)}") from error
        raise


class _Arriving(asyncio.Protocol):
    """Gives a connection that TLS has secured to the protocol that was agreed on meanwhile."""

    def __init__(self, http1: Callable[[], Connection], http2: Callable[[], Connection]) -> None:
        self._http1 = http1
        self._http2 = http2

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        agreed = transport.get_extra_info("ssl_object").selected_alpn_protocol()
        self.connection = self._http2() if agreed == "h2" else self._http1()
        # At once: what the peer says first may be here already.
        cast("asyncio.Transport", transport).set_protocol(self.connection)
        self.connection.connection_made(transport)


def _sockaddr(family: int, address: str, port: int) -> tuple[str, int] | tuple[str, int, int, int]:
    if family == socket.AF_INET:
        return address, port
    bare, _, zone = address.partition("%")
    if not zone:
        return bare, port, 0, 0
    return bare, port, 0, int(zone) if zone.isdecimal() else socket.if_nametoindex(zone)


def _at(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    if isinstance(error, socket.gaierror):
        return error.strerror or "the resolver has no answer"
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) and error.errno:
        return os.strerror(error.errno)  # asyncio's own words repeat the address
    return str(error) or type(error).__name__


def _failure(kind: SendErrorKind, message: str) -> SendError:
    return SendError(message, kind=kind, sent=False)
