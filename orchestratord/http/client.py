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

import httpx

from orchestratord.errors import SendError
from orchestratord.http.connect import Resolver, SystemResolver, is_shortage
from orchestratord.http.egress import Egress
from orchestratord.http.gathered_writes import GatheredWrites
from orchestratord.http.http1 import open_connection
from orchestratord.http.pool import IdleConnections
from orchestratord.http.proxy import PoolKey, ProxyRoute
from orchestratord.http.request_bytes import encode, encode_plain, unsendable
from orchestratord.http.tls import context_of, reason
from orchestratord.model.http_message import MAX_RESPONSE, Origin, Request, Response

CONNECT_TIMEOUT = 5.0
_MAX_REDIRECTS = 3
_METHOD_KEPT = (307, 308)
_METHOD_CHANGED = (301, 302, 303)
_REDIRECTS = frozenset({*_METHOD_KEPT, *_METHOD_CHANGED})
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
        self._default_context: ssl.SSLContext | None = None

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
        loop = asyncio.get_running_loop()
        start = loop.time()
        deadline = start + options.timeout
        if start >= deadline:
            raise SendError("no time was left to send it", kind="timeout", sent=False)
        plain = request.plain if isinstance(request, Request) else None
        origin = plain.origin if plain is not None else _origin(request.url)
        key = self._key(origin, options)
        encoded = encode(request) if plain is None else encode_plain(request, plain)
        if key.route is not None and key.ssl_context is None:
            encoded = key.route.handed(encoded, origin)
        connection = None if options.fresh else self._pool.take(key, options.egress, start)
        if connection is None:
            until = min(deadline, start + options.connect_timeout)
            connection = await open_connection(
                key,
                resolver=self._resolver,
                egress=options.egress,
                deadline=until,
                gathered=self._gathered,
            )
        answer = await connection.exchange(encoded, options.max_response, deadline)
        now = loop.time()
        if answer.reusable:
            self._pool.give(key, connection, now)
        response = Response(
            answer.status,
            answer.headers,
            bytes(answer.body),
            request,
            {
                "http_version": answer.http_version,
                "reason_phrase": answer.reason,
                "truncated": answer.truncated,
            },
            answer.names,
        )
        if options.follow_redirects and answer.status in _REDIRECTS:
            return await self._follow(response, options, start)
        response.elapsed = timedelta(seconds=now - start)
        return response

    async def _follow(
        self, response: httpx.Response, options: SendOptions, start: float
    ) -> httpx.Response:
        """What comes after a redirect: the answer to the last request that was sent."""
        loop = asyncio.get_running_loop()
        deadline = start + options.timeout
        for _ in range(_MAX_REDIRECTS):
            following = _redirected(response.request, response)
            if following is None:
                break
            left = replace(options, follow_redirects=False, timeout=deadline - loop.time())
            try:
                response = await self.send(following, options=left)
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

    def _key(self, origin: Origin, options: SendOptions) -> PoolKey:
        if origin.scheme == b"http":
            return PoolKey(origin.name, origin.port or 80, None, options.route)
        ssl_context = options.ssl_context
        if ssl_context is None:
            ssl_context = self._default_context
            if ssl_context is None:  # made once, where it is needed
                ssl_context = self._default_context = _usual_context()
        return PoolKey(origin.name, origin.port or 443, ssl_context, options.route)


def _usual_context() -> ssl.SSLContext:
    try:
        return context_of()
    except OSError as error:
        what = f"the authorities of this machine cannot be read: {reason(error)}"
        raise SendError(what, kind="tls", sent=False, shortage=is_shortage(error)) from error


def _origin(url: httpx.URL) -> Origin:
    if url.raw_scheme not in (b"http", b"https") or not url.raw_host:
        raise unsendable("its URL is not one of http or https with a host")
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
    if _scheme_host_port(url) != _scheme_host_port(request.url) or url.userinfo:
        return None
    method, headers, body = request.method, request.headers.raw, request.content
    becomes_get = (status == 303 and method != "HEAD") or (
        status in (301, 302) and method == "POST"
    )
    if becomes_get:
        method, body = "GET", b""
        headers = [field for field in headers if field[0].lower() not in _BODY_HEADERS]
    # Given as a stream, the body brings no headers of its own beside those that are there.
    following = httpx.Request(
        method, url, headers=headers, stream=httpx.ByteStream(body), extensions=request.extensions
    )
    following.read()
    return following


def _scheme_host_port(url: httpx.URL) -> tuple[bytes, bytes, int]:
    """Of an http or https URL, the port also where it is the default."""
    scheme = url.raw_scheme
    return scheme, url.raw_host, url.port or (443 if scheme == b"https" else 80)
