"""The HTTP client: it sends requests by HTTP/1.1 over connections of its own, with httpx's objects.

httpx's own transport is not used: its deadline is one a read and never ends an answer that drips,
its decoder turns a few KiB into gigabytes, and its pool costs ten times this one. What is kept of
httpx is what others see: `Request` and `Response`.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property, lru_cache

import httpx

from orchestratord.errors import SendError
from orchestratord.http.connect import Resolver, SystemResolver, is_shortage
from orchestratord.http.egress import Egress
from orchestratord.http.gathered_writes import GatheredWrites
from orchestratord.http.http1 import Http1Connection, open_connection
from orchestratord.http.pool import IdleConnections
from orchestratord.http.proxy import PoolKey, ProxyRoute
from orchestratord.http.request_bytes import encode, encode_plain, unsendable
from orchestratord.http.streamed_body import SENT
from orchestratord.http.tls import context_of, reason
from orchestratord.model.http_message import MAX_RESPONSE, Origin, Request, Response, origin_of

CONNECT_TIMEOUT = 5.0
HANDED_OVER = "orchestratord.handed_over"
"""The extension of a request of which a byte may have been handed to the kernel."""
_MAX_REDIRECTS = 3
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# Headers that speak of a body, and go where it goes.
_BODY_HEADERS = (
    b"content-length",
    b"transfer-encoding",
    b"content-type",
    b"content-encoding",
    b"content-language",
    b"content-location",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SendOptions:
    """How one request is sent.

    Args:
        timeout: seconds for all of it: resolving, connecting, TLS, sending, and the answer up to
            its last byte, redirects included.
        egress: the rules that every address has to pass.
        connect_timeout: seconds for resolving, connecting and TLS, within `timeout`.
        max_response: how many bytes of the decoded body are kept. A longer one is cut and the
            connection closed; the response's extension `truncated` is then True.
        follow_redirects: follow up to three redirects within the origin. Any other answer of
            status 3xx is handed back as it is.
        fresh: send over a new connection, where a kept one that turns out to be closed would leave
            open whether the request has been carried out.
        ssl_context: for https; None verifies against the usual authorities.
        route: through which proxy; None goes there directly.
    """

    timeout: float
    egress: Egress
    connect_timeout: float = CONNECT_TIMEOUT
    max_response: int = MAX_RESPONSE
    follow_redirects: bool = False
    fresh: bool = False
    ssl_context: ssl.SSLContext | None = None
    route: ProxyRoute | None = None


class HttpClient:
    """Sends requests and keeps idle connections. One serves a whole daemon, on one loop.

    It sends what it is given once: no retry, no cookies, no header of its own.

    Args:
        resolver: from host and port to [(family, address)]; the system's where left out.
        max_idle: how many idle connections are kept in all.
        max_idle_per_host: how many of them to one host and port.
        idle_timeout: seconds after which an idle connection is closed. Many servers close theirs
            after five, and a request that meets such a close gets no answer.
        listeners: (address, port) of the daemon's own sockets, which every `Egress` for this client
            denies.
    """

    def __init__(
        self,
        resolver: Resolver | None = None,
        *,
        max_idle: int = 512,
        max_idle_per_host: int = 128,
        idle_timeout: float = 4.0,
        listeners: frozenset[tuple[str, int]] = frozenset(),
    ) -> None:
        self.listeners = listeners
        self._system: SystemResolver | None = None
        if resolver is None:
            resolver = self._system = SystemResolver()
        self._resolver = resolver
        self._pool = IdleConnections(max_idle, max_idle_per_host, idle_timeout)
        self._gathered = GatheredWrites() if len(os.sched_getaffinity(0)) == 1 else None

    async def send(self, request: httpx.Request, *, options: SendOptions) -> httpx.Response:
        """Send a request whose content has been read, and read the answer to its end.

        Returns:
            The response with its content decoded and its headers as they came: Content-Encoding
            and Content-Length are those of the bytes on the wire. Extension `truncated` tells
            whether the content was cut. After a redirect, `response.request` is the last one sent.

        Raises:
            EgressDenied: no address of the host may be dialled.
            SendError: there is no usable answer.
        """
        start = asyncio.get_running_loop().time()
        return await self.send_by(request, options, start, start + options.timeout)

    async def send_by(
        self, request: httpx.Request, options: SendOptions, now: float, deadline: float
    ) -> httpx.Response:
        """Send by a deadline that may have begun before: it goes for `options.timeout`.

        Args:
            request: what is sent.
            options: how.
            now: the loop's time.
            deadline: when the last byte of the answer has to be there, likewise.
        """
        if now >= deadline:
            raise SendError("no time was left to send it", kind="timeout", sent=False)
        if isinstance(request, Request) and (plain := request.plain) is not None:
            origin, encoded = plain.origin, encode_plain(request, plain)
        else:
            origin, encoded = _origin(request.url), encode(request)
        if origin.scheme == b"http":
            key = _direct_key(origin)
            if options.route is not None:
                key = key._replace(route=options.route)
                encoded = options.route.handed(encoded, origin)
        else:
            key = self._secure_key(origin, options)
        connection = None if options.fresh else self._pool.take(key, options.egress, now)
        if connection is None:
            until = min(deadline, now + options.connect_timeout)
            connection = await self._open(key, options, until)
        request.extensions[HANDED_OVER] = True
        try:
            status, reason, version, fields, names, content, cut = await connection.exchange(
                encoded, options.max_response, deadline
            )
        except BaseException:
            if connection.not_sent:
                del request.extensions[HANDED_OVER]
            connection.abandon()
            raise
        end = asyncio.get_running_loop().time()
        if connection.reusable:
            self._pool.give(key, connection, end)
        extensions = {"http_version": version, "reason_phrase": reason, "truncated": cut}
        response = Response(status, fields, content, request, extensions, names, end - now)
        if options.follow_redirects and status in _REDIRECTS:
            return await self._follow(response, options, now, deadline)
        return response

    async def _open(self, key: PoolKey, options: SendOptions, until: float) -> Http1Connection:
        connection = await open_connection(
            key,
            resolver=self._resolver,
            egress=options.egress,
            deadline=until,
            gathered=self._gathered,
        )
        if connection.is_closing():
            what = "the connection was closed before anything was sent"
            raise SendError(what, kind="reset", sent=False)
        return connection

    async def _follow(
        self, response: httpx.Response, options: SendOptions, start: float, deadline: float
    ) -> httpx.Response:
        """What comes after a redirect: the answer to the last request that was sent."""
        loop = asyncio.get_running_loop()
        left = replace(options, follow_redirects=False)
        for _ in range(_MAX_REDIRECTS):
            following = _redirected(response.request, response)
            if following is None:
                break
            try:
                response = await self.send_by(following, left, loop.time(), deadline)
            except SendError as error:
                # The redirect was an answer to a request that was sent, whatever became of this.
                error.sent = True
                raise
        response.elapsed = timedelta(seconds=loop.time() - start)
        return response

    async def aclose(self) -> None:
        """Close the idle connections, and each other one as its exchange ends."""
        self._pool.close()
        if self._system is not None:
            self._system.close()
        await asyncio.sleep(0)  # the loop closes their sockets in its next round

    def _secure_key(self, origin: Origin, options: SendOptions) -> PoolKey:
        ssl_context = options.ssl_context or self._default_context
        return PoolKey(origin.name, origin.port or 443, ssl_context, options.route)

    @cached_property
    def _default_context(self) -> ssl.SSLContext:
        """Made once, where it is needed."""
        try:
            return context_of()
        except OSError as error:
            what = f"cannot read the certificate authorities of this machine: {reason(error)}"
            raise SendError(what, kind="tls", sent=False, shortage=is_shortage(error)) from error


@lru_cache(maxsize=4096)
def _direct_key(origin: Origin) -> PoolKey:
    """Of a receiver that is reached without TLS, and without a proxy."""
    return PoolKey(origin.name, origin.port or 80, None)


def _origin(url: httpx.URL) -> Origin:
    if url.raw_scheme not in (b"http", b"https") or not url.raw_host:
        raise unsendable("its URL is not http or https with a host")
    if url.userinfo:
        raise unsendable("its URL holds user information; use a header")
    return Origin.of(url)


def _redirected(request: httpx.Request, response: httpx.Response) -> httpx.Request | None:
    """The request that follows a redirect, or None where it is not to be followed.

    Only within the origin: the headers may hold credentials, which are meant for that origin alone.
    After 303, and after 301 or 302 to a POST, it is a GET without a body.
    """
    status = response.status_code
    if status not in _REDIRECTS:
        return None
    location = response.headers.get("location")
    if not location:
        return None
    try:
        url = request.url.join(location)
    except (httpx.InvalidURL, ValueError):
        return None
    if origin_of(url) != origin_of(request.url) or url.userinfo:
        return None
    method, headers, body = request.method, request.headers.raw, request.content
    extensions = request.extensions
    becomes_get = (status == 303 and method != "HEAD") or (
        status in (301, 302) and method == "POST"
    )
    if becomes_get:
        method, body = "GET", b""
        headers = [field for field in headers if field[0].lower() not in _BODY_HEADERS]
        extensions = {name: value for name, value in extensions.items() if name != SENT}
    # Given as a stream, the body brings no headers of its own beside those that are there.
    following = httpx.Request(
        method, url, headers=headers, stream=httpx.ByteStream(body), extensions=extensions
    )
    following.read()
    return following
