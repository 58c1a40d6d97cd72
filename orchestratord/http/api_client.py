"""The client as an executor sees it: within the deadline, over the TLS and proxy of its API."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import lru_cache
from typing import Any

import httpx

from orchestratord.errors import SendError
from orchestratord.http.client import HANDED_OVER, HttpClient, SendOptions
from orchestratord.http.egress import Egress, parse_rule
from orchestratord.http.oauth import Keeper, Learn, Token, TokenKeeper
from orchestratord.http.proxy import ProxyRoute
from orchestratord.http.tls import context_of, proxy_context
from orchestratord.model.auth import AWAITED, OAuth2
from orchestratord.model.endpoint import Api
from orchestratord.model.http_message import MAX_RESPONSE, put_headers, request_header
from orchestratord.plugin.executor import Target
from orchestratord.values.durations import format_duration

_WITH_TOKEN = "orchestratord.token"  # noqa: S105  # the name of an extension
"""The extension of a request whose Authorization is ours to fill in."""
_TOKEN_TIMEOUT = 30.0
_TOKEN_ANSWER = 65_536
"""Seconds, and bytes, of an answer with a token."""

MOST_OPTIONS = 64
"""Options of requests to one target that are remembered: a plugin may have its own for each."""

MakeKeeper = Callable[[str, OAuth2, Learn], Keeper]
"""Makes what has the token of an API: see `TokenKeeper`."""


class ApiClient:
    """Sends the requests of one API. It is made anew where its api.yaml changes.

    Args:
        client: sends them.
        api: what is to be reached.
        egress: the rules for all of its requests.
        keeper: keeps its token, None without OAuth 2.0.
    """

    def __init__(self, client: HttpClient, api: Api, egress: Egress, keeper: Keeper | None) -> None:
        self._client = client
        self._keeper = keeper
        self.ssl_context = context_of(api.tls) if api.tls is not None else None
        self.route: ProxyRoute | None = None
        if api.proxy is not None:
            context = proxy_context(api.tls) if api.proxy.scheme == "https" else None
            self.route = ProxyRoute(api.proxy, context)
        self._for_token = SendOptions(
            timeout=_TOKEN_TIMEOUT,
            egress=egress,
            max_response=_TOKEN_ANSWER,
            fresh=True,
            ssl_context=self.ssl_context,
            route=self.route,
        )

    def send(
        self, request: httpx.Request, options: SendOptions, now: float, until: float
    ) -> Coroutine[Any, Any, httpx.Response]:
        """Send a request as `options` say, which have the context and the route of this.

        Where the API refuses the token, the request is sent once more with another one: nothing
        was carried out. `now` and `until`, when the answer has to be there, are the loop's time.
        Awaiting raises SendError.
        """
        keeper = self._keeper
        if keeper is None or (
            _WITH_TOKEN not in request.extensions
            and request_header(request, "authorization") != AWAITED
        ):  # no token, or a hook has set an Authorization of its own
            return self._client.send_by(request, options, now, until)
        return self._authorized(request, options, keeper, until)

    async def _authorized(
        self, request: httpx.Request, options: SendOptions, keeper: Keeper, until: float
    ) -> httpx.Response:
        token = await keeper.token(self._fetch, until)
        response = await self._send_with(token.value, request, options, until)
        if response.status_code == httpx.codes.UNAUTHORIZED:
            other = await keeper.instead_of(token, self._fetch, until)
            if other is None:
                return response
            token = other
            response = await self._send_with(token.value, request, options, until)
        if response.status_code != httpx.codes.UNAUTHORIZED:
            token.accepted = True
        return response

    async def token(self, refused: Token | None, until: float) -> Token | None:
        """A token by `until`, of the loop's time: see `Keeper`. None, too, where it needs none.

        Args:
            refused: the one that the API has answered 401 to, if it has.
            until: when it has to be there.

        Raises SendError.
        """
        if self._keeper is None:
            return None
        if refused is None:
            return await self._keeper.token(self._fetch, until)
        return await self._keeper.instead_of(refused, self._fetch, until)

    async def _send_with(
        self, token: str, request: httpx.Request, options: SendOptions, until: float
    ) -> httpx.Response:
        request.extensions[_WITH_TOKEN] = True
        put_headers(request, {"authorization": f"Bearer {token}"})
        now = asyncio.get_running_loop().time()
        return await self._client.send_by(request, options, now, until)

    async def _fetch(self, request: httpx.Request) -> httpx.Response:
        return await self._client.send(request, options=self._for_token)


class Sender:
    """Makes what sends the requests of each target.

    Args:
        client: sends the requests.
        learn: is told of the tokens that come up, so that nothing shows them.
        make_keeper: makes what has the token of an API.
    """

    def __init__(
        self,
        client: HttpClient,
        learn: Learn = lambda owner, secrets: None,
        make_keeper: MakeKeeper = TokenKeeper,
    ) -> None:
        self._client = client
        self._learn = learn
        self._make_keeper = make_keeper
        self._known: dict[str, tuple[Api, ApiClient]] = {}
        self._keepers: dict[str, Keeper] = {}

    def to(self, target: Target) -> TargetClient:
        """What sends the requests of a target's attempts."""
        api_client = None if target.access is None else self._api_client(target.access)
        return TargetClient(self._client, target, api_client)

    async def token(self, api: Api, refused: Token | None, until: float) -> Token | None:
        """A token of an API, as its own requests have it: see `ApiClient.token`."""
        return await self._api_client(api).token(refused, until)

    def _api_client(self, api: Api) -> ApiClient:
        """For an API as it is declared now; a token that can serve on does so."""
        known = self._known.get(api.name)
        if known is not None and known[0] is api:
            return known[1]
        settings = api.auth.oauth2 if api.auth is not None else None
        keeper = self._keeper(api.name, settings) if settings is not None else None
        egress = _egress(api.egress, self._client.listeners)
        made = ApiClient(self._client, api, egress, keeper)
        self._known[api.name] = api, made
        return made

    def _keeper(self, name: str, settings: OAuth2) -> Keeper:
        keeper = self._keepers.get(name)
        if keeper is None or not keeper.fits(settings):
            keeper = self._keepers[name] = self._make_keeper(name, settings, self._learn)
        return keeper


class TargetClient:
    """What the attempts of one target have in common as they send their requests.

    Args:
        client: sends them.
        target: whose they are.
        api_client: sends them instead, where their API has TLS, a proxy or a token of its own.
    """

    def __init__(self, client: HttpClient, target: Target, api_client: ApiClient | None) -> None:
        self.timeout = target.timeout
        self.send = client.send_by if api_client is None else api_client.send
        """Sends a request by options of this."""
        self._egress = _egress(target.egress, client.listeners)
        self._ssl_context = api_client.ssl_context if api_client is not None else None
        self._route = api_client.route if api_client is not None else None
        self.known: dict[tuple[bool, bool, int], SendOptions] = {}
        """How requests are sent, by `fresh`, `follow_redirects` and `max_response`."""

    def options(self, asked: tuple[bool, bool, int]) -> SendOptions:
        """How requests are sent for which that is not known yet."""
        fresh, follow_redirects, max_response = asked
        if len(self.known) >= MOST_OPTIONS:
            self.known.clear()
        made = self.known[asked] = SendOptions(
            timeout=self.timeout,
            egress=self._egress,
            max_response=max_response,
            follow_redirects=follow_redirects,
            fresh=fresh,
            ssl_context=self._ssl_context,
            route=self._route,
        )
        return made


class AttemptClient:
    """Sends the requests of one attempt. Its deadline begins with the first and covers all.

    Args:
        client: of its target.
    """

    __slots__ = ("_client", "_deadline", "_request", "_sent_before")

    def __init__(self, client: TargetClient) -> None:
        self._client = client
        self._deadline: float | None = None
        self._request: httpx.Request | None = None
        self._sent_before = False

    @property
    def has_sent(self) -> bool:
        """Whether a byte of one of its requests may have been handed to the kernel."""
        request = self._request
        return self._sent_before or (request is not None and HANDED_OVER in request.extensions)

    def send(
        self,
        request: httpx.Request,
        *,
        fresh: bool = False,
        follow_redirects: bool = False,
        max_response: int = MAX_RESPONSE,
    ) -> Coroutine[Any, Any, httpx.Response]:
        """See `Send`."""
        client, deadline = self._client, self._deadline
        now = asyncio.get_running_loop().time()
        if deadline is None:
            self._deadline = deadline = now + client.timeout
        else:
            self._sent_before = self.has_sent
            if now >= deadline:
                return _late(format_duration(client.timeout))
        self._request = request
        asked = fresh, follow_redirects, max_response
        options = client.known.get(asked) or client.options(asked)
        return client.send(request, options, now, deadline)


async def _late(limit: str) -> httpx.Response:
    raise SendError(f"no answer within {limit}", kind="timeout", sent=False)


@lru_cache(maxsize=1024)
def _egress(rules: tuple[str, ...], listeners: frozenset[tuple[str, int]]) -> Egress:
    return Egress(tuple(parse_rule(rule) for rule in rules), listeners)
