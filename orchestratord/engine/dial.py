"""Opening a connection: resolve once, check, connect to what was checked, secure."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import Callable
from typing import NamedTuple, cast

from orchestratord.engine.connection import Connection
from orchestratord.engine.resolver import Found, Resolver
from orchestratord.engine.trust import reason, tls_failure
from orchestratord.engine.tunnel import ProxyAnswer, ProxyRoute, ProxyTarget, certified, open_tunnel
from orchestratord.errors import EgressDenied, SendError, SendErrorKind
from orchestratord.http.egress import Egress
from orchestratord.http.http1 import Http1Connection


async def dial(
    host: str,
    port: int,
    *,
    resolver: Resolver,
    egress: Egress,
    ssl_context: ssl.SSLContext | None,
    deadline: float,
    route: ProxyRoute | None = None,
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
        route: through which proxy; its addresses are those that are tried, and checked.

    Raises:
        EgressDenied: no address of the name is allowed.
        SendError: of kind dns, connect, tls, certificate, access or timeout.
    """
    loop = asyncio.get_running_loop()
    target = ProxyTarget(host, port, ssl_context)
    if route is not None:
        route.check_target(egress, host, port)
        host, port = route.proxy.host, route.proxy.port
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
            way = _Way(loop, sock, address, egress, route)
            return await _open(way, target, f"{host} ({_at(address, port)})", deadline)
    raise failure


async def _resolve(host: str, port: int, resolver: Resolver, deadline: float) -> Found:
    try:
        async with asyncio.timeout_at(deadline) as limit:
            return await resolver(host, port)
    except (OSError, ValueError) as error:  # TimeoutError is an OSError
        if limit.expired():
            raise _failure("timeout", f"{host} could not be resolved in time") from None
        raise _failure("dns", f"{host} cannot be resolved: {reason(error)}") from error


async def _connect(
    loop: asyncio.AbstractEventLoop, family: int, address: str, port: int, until: float
) -> socket.socket:
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise _failure("connect", f"{_at(address, port)}: {reason(error)}") from error
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
        what = f"no connection to {_at(address, port)}: {reason(error)}"
        raise _failure("connect", what) from error
    except BaseException:
        sock.close()
        raise
    return sock


class _Way(NamedTuple):
    """How far it is there: a socket that is connected to an address, the target's or a proxy's."""

    loop: asyncio.AbstractEventLoop
    sock: socket.socket
    address: str
    egress: Egress
    route: ProxyRoute | None

    def choose(self, agreed: str | None) -> Connection:
        """A connection of the protocol that TLS has agreed on."""
        if agreed != "h2":
            return Http1Connection(self.loop, self.sock, self.address, self.egress)
        # Imported by those who meet such a peer.
        from orchestratord.engine.http2 import Http2Connection

        return Http2Connection(self.loop, self.sock, self.address, self.egress)


async def _open(way: _Way, target: ProxyTarget, what: str, deadline: float) -> Connection:
    route, peer = way.route, target
    if route is not None:
        peer = ProxyTarget(route.proxy.host, route.proxy.port, route.context)
        if target.ssl_context is None:
            route = None  # the proxy is handed the requests themselves
    # asyncio closes the socket itself when this does not succeed.
    if route is None and peer.ssl_context is None:
        return (await way.loop.create_connection(lambda: way.choose(None), sock=way.sock))[1]
    connection: Connection | None = None
    name = certified(peer.host) if peer.ssl_context is not None else None
    try:
        async with asyncio.timeout_at(deadline) as limit:
            if route is not None:
                transport, answer = await way.loop.create_connection(
                    lambda: ProxyAnswer(way.loop, route.proxy),
                    sock=way.sock, ssl=peer.ssl_context, server_hostname=name,
                )  # fmt: skip
                connection = await open_tunnel(
                    way.loop, transport, answer, route, target, way.choose
                )
            else:
                arriving = (await way.loop.create_connection(
                    lambda: _Arriving(way.choose),
                    sock=way.sock, ssl=peer.ssl_context, server_hostname=name,
                ))[1]  # fmt: skip
                connection = arriving.connection
            await connection.ready()
            return connection
    except BaseException as error:
        if connection is not None:
            connection.close()
        if isinstance(error, OSError) and limit.expired():  # TimeoutError is an OSError
            reached = "the TLS handshake" if connection is None else "the beginning of HTTP/2"
            raise _failure("timeout", f"{reached} with {what} did not end in time") from None
        if isinstance(error, OSError | ValueError):
            raise tls_failure(error, peer.host, what, peer.ssl_context) from error
        raise


class _Arriving(asyncio.Protocol):
    """Gives a connection that TLS has secured to the protocol that was agreed on meanwhile."""

    def __init__(self, choose: Callable[[str | None], Connection]) -> None:
        self._choose = choose

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        agreed = transport.get_extra_info("ssl_object").selected_alpn_protocol()
        self.connection = self._choose(agreed)
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


def _failure(kind: SendErrorKind, message: str) -> SendError:
    return SendError(message, kind=kind, sent=False)
