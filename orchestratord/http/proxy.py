"""Through a proxy: plain requests are handed to it, TLS goes through a tunnel that it opens."""

from __future__ import annotations

import asyncio
import re
import ssl
from dataclasses import dataclass
from typing import NamedTuple

from orchestratord.errors import EgressDenied, SendError
from orchestratord.http.egress import Egress
from orchestratord.http.request_bytes import Encoded
from orchestratord.http.tls import certificate_name, tls_failure
from orchestratord.model.auth import Proxy
from orchestratord.model.http_message import Origin

_LONGEST = 16_384
"""Bytes of a proxy's answer."""
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])(?: ([\x20-\x7e]*))?")
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""What a proxy answers when it is not its rules that are in the way."""


@dataclass(frozen=True, slots=True, eq=False)
class ProxyRoute:
    """A way through a proxy. Only requests that are given the very same one share connections.

    Args:
        proxy: where it is, and who is said to call.
        context: for TLS with the proxy itself; None without.
    """

    proxy: Proxy
    context: ssl.SSLContext | None = None

    def check_target(self, egress: Egress, host: str, port: int) -> None:
        """Raise EgressDenied where the target is an address that may not be called. A name is
        resolved by the proxy, and it is for its rules to say where that leads."""
        if (problem := egress.literal_problem(host, port)) is not None:
            raise EgressDenied(problem)

    def handed(self, encoded: Encoded, origin: Origin) -> Encoded:
        """A plain request as the proxy wants it: with all of its URL, and with who is calling."""
        method, rest = encoded.head.split(b" ", 1)
        line, fields = rest.split(b"\r\n", 1)
        target = b"http://" + origin.netloc + line
        head = b"%b %b\r\n%b%b" % (method, target, self._authorization, fields)
        return encoded._replace(head=head)

    def connect(self, host: str, port: int) -> bytes:
        """The request for a tunnel."""
        target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        line = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n".encode("ascii")
        return line + self._authorization + b"\r\n"

    @property
    def _authorization(self) -> bytes:
        value = self.proxy.authorization
        return b"" if value is None else f"Proxy-Authorization: {value}\r\n".encode()


class PoolKey(NamedTuple):
    """What a request and a connection must have in common. `ssl_context` is None without TLS,
    `route` without a proxy."""

    host: str
    port: int
    ssl_context: ssl.SSLContext | None
    route: ProxyRoute | None = None


async def connect_through(
    transport: asyncio.Transport, answer: ProxyAnswer, key: PoolKey, connection: asyncio.Protocol
) -> None:
    """Have the proxy open a tunnel to the target, and secure it.

    Args:
        transport: of the connection to the proxy, whose protocol is `answer`.
        answer: reads what it says.
        key: the target, and how the proxy is asked.
        connection: what is spoken with the target, once there is TLS with it.

    Raises:
        SendError: the proxy does not open one, or there is no TLS with the target.
    """
    host, port, context, route = key
    assert context is not None
    assert route is not None
    try:
        transport.write(route.connect(host, port))
        status, words = await answer.status
        if not 200 <= status < 300:
            raise _refusal(route.proxy, f"{host}:{port}", status, words)
        # What comes before a request has it close its transport: until there is TLS, this one.
        connection.connection_made(transport)
        secured = await asyncio.get_running_loop().start_tls(
            transport, connection, context, server_hostname=certificate_name(host)
        )
        if secured is None:
            raise ConnectionResetError
    except BaseException as error:
        transport.abort()
        if isinstance(error, OSError | ValueError):
            what = f"{host} through the proxy {route.proxy}"
            raise tls_failure(error, host, what, context) from error
        raise
    connection.connection_made(secured)
    if transport.is_closing():
        secured.abort()


def _refusal(proxy: Proxy, target: str, status: int, words: str) -> SendError:
    said = f"{status} {words}".rstrip()
    if status in _PASSING:
        what = f"the proxy {proxy} does not reach {target}: {said}"
        return SendError(what, kind="connect", sent=False)
    what = f"the proxy {proxy} refuses to connect to {target}: {said}"
    if status in (401, 407):
        what = f"the proxy {proxy} wants a user and a password that it accepts ({said})"
        what += "; check proxy in api.yaml"
    return SendError(what, kind="access", sent=False)


class ProxyAnswer(asyncio.Protocol):
    """Reads the answer to CONNECT. What is behind it is the target's."""

    def __init__(self, loop: asyncio.AbstractEventLoop, proxy: Proxy) -> None:
        self.status: asyncio.Future[tuple[int, str]] = loop.create_future()
        self._proxy = proxy
        self._data = b""

    def data_received(self, data: bytes) -> None:
        if self.status.done():
            return
        self._data += data
        head, end, rest = self._data.partition(b"\r\n\r\n")
        if not end and len(self._data) <= _LONGEST:
            return
        match = _STATUS.match(head)
        # A target that speaks first would speak into the middle of the handshake.
        if not end or match is None or (rest and match[1].startswith(b"2")):
            self._fail("does not answer as a proxy does")
        else:
            self.status.set_result((int(match[1]), (match[2] or b"").decode("ascii").strip()))

    def connection_lost(self, error: Exception | None) -> None:
        if not self.status.done():
            self._fail("hung up")

    def _fail(self, what: str) -> None:
        error = SendError(f"the proxy {self._proxy} {what}", kind="connect", sent=False)
        self.status.set_exception(error)
        self.status.exception()  # what waits for it may have gone
