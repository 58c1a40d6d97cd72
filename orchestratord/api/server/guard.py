"""What stands between the network and the API: who asks, from where, and may they?

Over the control socket the file's mode answers that. Over TCP, a request has to be for a host of
`http.hosts`, must not come from another site's page, and shows a token or a browser's session. The
order is that of what is known: a request that is refused for where it comes from teaches its sender
nothing about tokens. What a foreign page has its visitor's browser send is told apart by headers
that no page can set: Host, Origin and Sec-Fetch-Site.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from functools import lru_cache

from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestratord.api.server.browser_sessions import (
    LOGIN,
    LOGOUT,
    Callers,
    KnownCaller,
    page,
    read_form,
    safe_next,
)
from orchestratord.api.server.handler import READING
from orchestratord.api.server.problem_json import Refusal
from orchestratord.api.server.seat import Seat
from orchestratord.config.validate.bind_address import allowed_hosts
from orchestratord.model.settings import Http

log = logging.getLogger("orchestratord.control")

OPEN = ("/healthz", "/readyz")
"""What load balancers and supervisors may ask without a token."""

_COOKIE = "Path=/; HttpOnly; SameSite=Strict"
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="orchestratord"'}


class Guard:
    """An ASGI application that lets requests through to another one, or refuses them.

    Who asks stands in the request's state: `caller`, in words, `writes` and `session`.
    """

    def __init__(
        self, application: ASGIApp, address: str, port: int, settings: Callable[[], Http]
    ) -> None:
        """
        Args:
            application: what is guarded.
            address: where it is served, as the socket has it.
            port: the same.
            settings: the `http` in force, asked for with each request.
        """
        self._application = application
        self._address = address
        self._port = port
        self._settings = settings
        self._callers = Callers(settings)
        # Cookies know no ports: daemons on one machine would log each other's users out.
        self.cookie = f"orchestratord-{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        send = careful(send)
        # As the routes find it: what is encoded otherwise is another path.
        path = scope["raw_path"].decode("ascii")
        try:
            check_host(request, hosts := self._hosts())
            if path in OPEN and request.method in READING:
                await self._application(scope, receive, send)
                return
            check_origin(request, hosts)
            if path in (LOGIN, LOGOUT):
                await (await self._door(request, path))(scope, receive, send)
                return
            caller = await self._caller(request)
            seat: Seat = scope["state"]["seat"]
            seat.known = caller is not None
            if caller is None:
                await _stranger(request, path)(scope, receive, send)
                return
            _check_may(caller, request)
        except Refusal as refusal:
            await refusal.response()(scope, receive, send)
            return
        except ClientDisconnect:
            return
        who, session = f"{caller}, {_peer(request)}", caller.session is not None
        scope["state"] |= {"caller": who, "writes": caller.writes, "session": session}
        await self._application(scope, receive, self._while_it_stands(caller, send))

    def _hosts(self) -> frozenset[str]:
        return allowed_hosts(self._settings().hosts, self._address, self._port)

    # -- who asks ------------------------------------------------------------------------------

    async def _caller(self, request: Request) -> KnownCaller | None:
        """Who asks; None where nothing is shown. Raises Refusal (401) for a wrong token."""
        shown = request.headers.getlist("authorization")
        if not shown:
            return self._callers.by_session(request.cookies.get(self.cookie, ""))
        scheme, _, token = shown[0].partition(" ")
        if len(shown) == 1 and scheme.lower() == "bearer":
            # Headers are latin-1 to starlette, whatever was meant.
            caller = self._callers.by_token(token.strip().encode("latin-1"))
            if caller is not None:
                return caller
        await self._wrong(request)
        raise Refusal("wrong_token", "this token is not known here", headers=_CHALLENGE)

    async def _wrong(self, request: Request) -> None:
        delay = self._callers.wrong()
        log.warning("a wrong token came from %s", _peer(request))
        await asyncio.sleep(delay)

    def _while_it_stands(self, caller: KnownCaller, send: Send) -> Send:
        """A `send` that ends an answer which goes on and on once its caller would be refused."""
        ended = False

        async def sending(message: Message) -> None:
            nonlocal ended
            if ended:
                return
            if message.get("more_body") and not self._callers.stands(caller):
                ended = True
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        return sending

    # -- logging in and out ----------------------------------------------------------------------

    async def _door(self, request: Request, path: str) -> Response:
        if path == LOGIN and request.method in READING:
            return page(200, request.query_params.get("next", "/"))
        if request.method != "POST":
            allowed = "POST" if path == LOGOUT else "GET, HEAD, POST"
            detail = f"{request.method} is not possible here; possible: {allowed}"
            raise Refusal("method_not_allowed", detail, headers={"Allow": allowed})
        return await self._log_in(request) if path == LOGIN else self._log_out(request)

    async def _log_in(self, request: Request) -> Response:
        token, next_ = await read_form(request)
        caller = self._callers.by_token(token)
        if caller is None:
            await self._wrong(request)
            return page(401, next_, "This token is not known here.", _CHALLENGE)
        log.info("%s logged in from %s", caller, _peer(request))
        cookie = f"{self.cookie}={self._callers.log_in(caller)}; {_COOKIE}"
        if request.headers.get("origin", "").startswith("https://"):
            cookie += "; Secure"
        return RedirectResponse(safe_next(next_), 303, {"Set-Cookie": cookie})

    def _log_out(self, request: Request) -> Response:
        check_own(request)
        self._callers.log_out(request.cookies.get(self.cookie, ""))
        return RedirectResponse(LOGIN, 303, {"Set-Cookie": f"{self.cookie}=; {_COOKIE}; Max-Age=0"})


def _check_may(caller: KnownCaller, request: Request) -> None:
    """Refuse what this caller may not do, or not in this way."""
    if request.method not in READING:
        if not caller.writes:
            raise Refusal("read_only", "this token is for looking only")
        if caller.session is not None:
            check_own(request)
    if _has_body(request):
        types = [text.partition(";")[0] for text in request.headers.getlist("content-type")]
        if [text.strip().lower() for text in types] != ["application/json"]:
            raise Refusal("not_json", "a body has to be sent as application/json")


def _has_body(request: Request) -> bool:
    length = request.headers.get("content-length", "0")
    return "transfer-encoding" in request.headers or length.strip("0") != ""


def _stranger(request: Request, path: str) -> Response:
    """The answer to who shows neither token nor session: for a person, the form."""
    if request.method in READING and "text/html" in request.headers.get("accept", ""):
        query = request.scope["query_string"].decode("latin-1")
        return page(401, f"{path}?{query}" if query else path, headers=_CHALLENGE)
    detail = "show a token: Authorization: Bearer …"
    return Refusal("no_token", detail, headers=_CHALLENGE).response()


def _peer(request: Request) -> str:
    return request.client.host if request.client is not None else "an unknown address"


# -- Where a request comes from, as the browser that sends it says ---------------------------------

_OURS = ("same-origin", "none")
_SCHEMES = ("http", "https")


def check_host(request: Request, hosts: Collection[str]) -> None:
    """Refuse (421) what was not sent to one of these hosts.

    A name that leads to this address without its owner's doing, as in DNS rebinding, is none of
    them, and a browser sends the name.
    """
    given = request.headers.getlist("host")
    if len(given) != 1 or given[0].lower() not in hosts:
        detail = "this host is not served here; http.hosts names those that are"
        raise Refusal("unknown_host", detail)


def check_origin(request: Request, hosts: Collection[str]) -> None:
    """Refuse (403) what another site's page sends, but a link that is followed."""
    if not all(is_own(origin, hosts) for origin in request.headers.getlist("origin")):
        raise _foreign()
    sites = request.headers.getlist("sec-fetch-site")
    if not all(site in _OURS for site in sites) and not _is_link(request):
        raise _foreign()


def check_own(request: Request) -> None:
    """Refuse (403) what no header shows to come from the daemon's own pages.

    For what a browser adds its cookie to; `check_origin` has found nothing foreign.
    """
    sites = request.headers.getlist("sec-fetch-site")
    if "origin" not in request.headers and sites != ["same-origin"]:
        detail = "with a cookie, Origin or Sec-Fetch-Site has to show that this is no other site's"
        raise Refusal("cross_site", detail)


def is_own(origin: str, hosts: Collection[str]) -> bool:
    """Whether a page of this origin came from one of the hosts."""
    scheme, separator, host = origin.partition("://")
    # A proxy may speak TLS in the daemon's place.
    return bool(separator) and scheme in _SCHEMES and host.lower() in hosts


def _is_link(request: Request) -> bool:
    """A page that is opened in a tab of its own: the other site sees nothing of the answer."""
    headers = request.headers
    return (
        request.method in READING
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
        and "authorization" not in headers
    )


def _foreign() -> Refusal:
    return Refusal("cross_site", "a page of another site sent this")


# -- The headers that make browsers careful; every answer over TCP has them ------------------------

Headers = tuple[tuple[bytes, bytes], ...]
CAREFUL: dict[str, str] = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # With `no-referrer` a form would be sent with the origin `null`, which is no site's.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
"""Name → value."""

_RAW = tuple((name.encode(), value.encode()) for name, value in CAREFUL.items())


@lru_cache(maxsize=256)
def with_careful(own: Headers) -> Headers:
    """Headers, with those that make browsers careful."""
    names = {name.lower() for name, _ in own}
    return (*own, *(header for header in _RAW if header[0] not in names))


def careful(send: Send) -> Send:
    """A `send` that adds them, but for those that an answer has itself."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": with_careful(tuple(message["headers"]))}
        await send(message)

    return sending
