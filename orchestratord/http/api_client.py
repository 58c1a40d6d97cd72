"""The client as an executor sees it: within the deadline, over the TLS and proxy of its API."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import lru_cache
from typing import Any

import httpx

from orchestratord.errors import SendError
from orchestratord.http.client import HttpClient, SendOptions
from orchestratord.http.egress import Egress, parse_rule
from orchestratord.http.oauth import AWAITED, Keeper, Learn, Token, TokenKeeper
from orchestratord.http.proxy import ProxyRoute
from orchestratord.http.tls import context_of, proxy_context
from orchestratord.model.auth import OAuth2
from orchestratord.model.endpoint import Api
from orchestratord.model.http_message import MAX_RESPONSE, put_headers, request_header
from orchestratord.model.outcome import Send
from orchestratord.plugin.executor import Target
from orchestratord.values.durations import format_duration

_WITH_TOKEN = "orchestratord.token"  # noqa: S105  # the name of an extension
"""The extension of a request whose Authorization is ours to fill in."""
_TOKEN_TIMEOUT = 30.0
_TOKEN_ANSWER = 65_536
"""Seconds, and bytes, of an answer with a token."""

MOST_OPTIONS = 1024
"""Options of requests to one API that are remembered: a plugin may have its own for each."""

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
        self._options: dict[SendOptions, SendOptions] = {}
        """Those of requests, with what all of this have in common."""
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
        """Send a request as `options` say, with the context and by the route of this.

        Where the API refuses the token, the request is sent once more with another one: nothing
        was carried out. `now` and `until`, when the answer has to be there, are the loop's time.
        Awaiting raises SendError.
        """
        keeper, known = self._keeper, self._options.get(options)
        if known is None:
            known = replace(options, ssl_context=self.ssl_context, route=self.route)
            if len(self._options) >= MOST_OPTIONS:
                self._options.clear()
            self._options[options] = known
        if keeper is None or (
            _WITH_TOKEN not in request.extensions
            and request_header(request, "authorization") != AWAITED
        ):  # no token, or a hook has set an Authorization of its own
            return self._client.send_by(request, known, now, until)
        return self._authorized(request, known, keeper, until)

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
    """Makes the `send` of each attempt.

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

    def within(self, target: Target) -> Send:
        """A `send` whose deadline begins with its first call and covers all of them."""
        api_client = None if target.access is None else self._api_client(target.access)
        return _Within(self._client, target, api_client)

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


class _Within:
    """Sends the requests of one attempt."""

    _deadline: float | None = None

    def __init__(self, client: HttpClient, target: Target, api_client: ApiClient | None) -> None:
        self._client = client
        self._target = target
        self._api_client = api_client

    def __call__(
        self,
        request: httpx.Request,
        *,
        fresh: bool = False,
        follow_redirects: bool = False,
        max_response: int = MAX_RESPONSE,
    ) -> Coroutine[Any, Any, httpx.Response]:
        client, target, api_client = self._client, self._target, self._api_client
        timeout = target.timeout
        options = _options(
            target.egress, client.listeners, timeout, max_response, follow_redirects, fresh
        )
        now, deadline = asyncio.get_running_loop().time(), self._deadline
        if deadline is None:
            self._deadline = deadline = now + timeout
        elif now >= deadline:
            return _late(format_duration(timeout))
        if api_client is None:
            return client.send_by(request, options, now, deadline)
        return api_client.send(request, options, now, deadline)


async def _late(limit: str) -> httpx.Response:
    raise SendError(f"no answer within {limit}", kind="timeout", sent=False)


@lru_cache(maxsize=1024)
def _options(
    rules: tuple[str, ...],
    listeners: frozenset[tuple[str, int]],
    timeout: float,
    max_response: int,
    follow_redirects: bool,
    fresh: bool,
) -> SendOptions:
    """Those of a request, which many attempts have in common."""
    return SendOptions(
        timeout=timeout,
        egress=_egress(rules, listeners),
        max_response=max_response,
        follow_redirects=follow_redirects,
        fresh=fresh,
    )


@lru_cache(maxsize=1024)
def _egress(rules: tuple[str, ...], listeners: frozenset[tuple[str, int]]) -> Egress:
    return Egress(tuple(parse_rule(rule) for rule in rules), listeners)
