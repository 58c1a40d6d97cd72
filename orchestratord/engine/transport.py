"""Sending requests: HTTP/1.1 over connections of its own, given and giving httpx's objects.

httpx's own transport is not used: its deadline is one a read and never ends an answer that drips,
its decoder turns a few KiB into gigabytes, and its pool costs ten times this one. What is kept of
httpx is what others see: `Request` and `Response`.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from datetime import timedelta

import httpx

from orchestratord.engine.answer import Answer
from orchestratord.engine.dial import dial
from orchestratord.engine.egress import Egress
from orchestratord.engine.head import encode, unsendable
from orchestratord.engine.pool import Key, Pool
from orchestratord.engine.redirect import MAX_REDIRECTS, origin, redirected
from orchestratord.engine.resolver import Resolver, SystemResolver
from orchestratord.errors import SendError

CONNECT_TIMEOUT = 5.0
MAX_RESPONSE = 1_048_576


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
    """

    timeout: float
    egress: Egress
    connect_timeout: float = CONNECT_TIMEOUT
    max_response: int = MAX_RESPONSE
    follow_redirects: bool = False
    fresh: bool = False
    ssl_context: ssl.SSLContext | None = None


class Client:
    """Sends requests and keeps idle connections. One serves a whole daemon, on one loop.

    It sends what it is given once: no retry, no cookies, no proxy, no header of its own.

    Args:
        resolver: from host and port to [(family, address)]; the system's where left out.
        max_idle: how many idle connections are kept in all.
        max_idle_per_host: how many of them to one host and port.
        idle_timeout: seconds after which an idle connection is closed. Many servers close theirs
            after five, and a request that meets such a close gets no answer.
    """

    def __init__(
        self,
        resolver: Resolver | None = None,
        *,
        max_idle: int = 256,
        max_idle_per_host: int = 16,
        idle_timeout: float = 4.0,
    ) -> None:
        self._system: SystemResolver | None = None
        if resolver is None:
            resolver = self._system = SystemResolver()
        self._resolver = resolver
        self._pool = Pool(max_idle, max_idle_per_host, idle_timeout)
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
        redirects = 0
        while True:
            try:
                response = await self._send_once(loop, request, options, deadline)
            except SendError as error:
                # The redirect was an answer to a request that was sent, whatever became of this.
                error.sent = error.sent or redirects > 0
                raise
            following = None
            if options.follow_redirects and redirects < MAX_REDIRECTS:
                following = redirected(request, response)
            if following is None:
                response.elapsed = timedelta(seconds=loop.time() - start)
                return response
            request = following
            redirects += 1

    async def aclose(self) -> None:
        """Close the idle connections, and each other one as its exchange ends."""
        self._pool.close()
        if self._system is not None:
            self._system.close()
        await asyncio.sleep(0)  # the loop closes their sockets in its next round

    async def _send_once(
        self,
        loop: asyncio.AbstractEventLoop,
        request: httpx.Request,
        options: SendOptions,
        deadline: float,
    ) -> httpx.Response:
        if loop.time() >= deadline:
            raise SendError("no time was left to send it", kind="timeout", sent=False)
        key = self._key(request.url, options.ssl_context)
        encoded = encode(request)
        connection = None if options.fresh else self._pool.take(key, options.egress, loop.time())
        if connection is None:
            connection = await dial(
                key.host,
                key.port,
                resolver=self._resolver,
                egress=options.egress,
                ssl_context=key.ssl_context,
                deadline=min(deadline, loop.time() + options.connect_timeout),
            )
        answer = Answer(request.method, options.max_response)
        reusable = await connection.exchange(encoded.head, encoded.body, answer, deadline)
        if reusable:
            if encoded.closes:
                connection.close()
            else:
                self._pool.give(key, connection, loop)
        return _response(request, answer)

    def _key(self, url: httpx.URL, ssl_context: ssl.SSLContext | None) -> Key:
        scheme, host, port = origin(url)
        if scheme not in (b"http", b"https") or not host:
            raise unsendable("its URL is not one of http or https with a host")
        if url.userinfo:
            raise unsendable("its URL holds user information; use a header")
        if scheme == b"http":
            ssl_context = None
        elif ssl_context is None:
            ssl_context = self._default_context
            if ssl_context is None:  # made once, where it is needed: reading them takes 20 ms
                ssl_context = self._default_context = httpx.create_ssl_context()
                ssl_context.set_alpn_protocols(["http/1.1"])
        # In a URL the zone of an IPv6 address stands behind an encoded percent sign.
        return Key(host.decode("ascii").replace("%25", "%"), port, ssl_context)


def _response(request: httpx.Request, answer: Answer) -> httpx.Response:
    response = httpx.Response(
        answer.status,
        stream=httpx.ByteStream(bytes(answer.body)),
        request=request,
        extensions={
            "http_version": b"HTTP/" + answer.http_version.encode(),
            "reason_phrase": answer.reason,
            "truncated": answer.truncated,
        },
    )
    response.read()
    # Set afterwards: with a Content-Encoding among them httpx would have decoded the content, which
    # is decoded, again. Now it looks at them only for the charset.
    response.headers = httpx.Headers(answer.headers)
    return response
