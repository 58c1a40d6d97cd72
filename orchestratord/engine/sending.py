"""The client as an executor sees it: within the attempt's deadline, behind the egress check."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import lru_cache

import httpx

from orchestratord.engine.access import Accesses
from orchestratord.engine.tokens import Learn
from orchestratord.engine.transport import HttpClient, SendOptions
from orchestratord.errors import SendError
from orchestratord.http.egress import Egress, parse_rule
from orchestratord.model.outcome import Send
from orchestratord.plugin.executor import Target
from orchestratord.values.durations import format_duration


class Sender:
    """Makes the `send` of each attempt."""

    def __init__(self, client: HttpClient, learn: Learn = lambda owner, secrets: None) -> None:
        """`learn` is told of the tokens that come up, so that nothing shows them."""
        self._client = client
        self._accesses = Accesses(client, learn)

    def within(self, target: Target) -> Send:
        """A `send` whose deadline begins with its first call and covers all of them."""
        client = self._client
        egress = _egress(target.egress, client.listeners)
        deadline: float | None = None
        access = None if target.access is None else self._accesses.of(target.access, egress)

        async def send(
            request: httpx.Request,
            *,
            fresh: bool = False,
            follow_redirects: bool = False,
            max_response: int = 1_048_576,
        ) -> httpx.Response:
            nonlocal deadline
            now = asyncio.get_running_loop().time()
            if deadline is None:
                deadline = now + target.timeout
            if now >= deadline:
                limit = format_duration(target.timeout)
                raise SendError(f"no answer within {limit}", kind="timeout", sent=False)
            options = SendOptions(
                timeout=deadline - now,
                egress=egress,
                max_response=max_response,
                follow_redirects=follow_redirects,
                fresh=fresh,
            )
            if access is None:
                return await client.send(request, options=options)
            options = replace(options, ssl_context=access.ssl_context, route=access.route)
            return await access.send(request, options)

        return send


@lru_cache(maxsize=1024)
def _egress(rules: tuple[str, ...], listeners: frozenset[tuple[str, int]]) -> Egress:
    return Egress(tuple(parse_rule(rule) for rule in rules), listeners)
