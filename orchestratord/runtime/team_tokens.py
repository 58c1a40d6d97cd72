"""Tokens of OAuth 2.0 in a run with several workers: the first one asks for them, and lends them.

So a token endpoint is asked once however many workers there are, a token that is refused is renewed
once for all, and one process alone writes the refresh tokens that replace others.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from orchestratord.errors import SendError
from orchestratord.http.api_client import Sender
from orchestratord.http.oauth import Fetch, Learn, Token
from orchestratord.model.auth import OAuth2
from orchestratord.model.endpoint import Api
from orchestratord.runtime.link import Link

log = logging.getLogger("orchestratord.tokens")


async def lend(
    sender: Sender, apis: Mapping[str, Api], name: str, refused: Token | None, until: float
) -> Token | SendError | None:
    """The token of an API for another worker, or why there is none.

    Args:
        sender: keeps it.
        apis: those that are declared.
        name: of the API.
        refused: the token that the API has answered 401 to, if it has.
        until: when it has to be there, by the clock of all loops of this machine.

    Returns None where another token would be refused as well.
    """
    api = apis.get(name)
    if api is None or api.auth is None or api.auth.oauth2 is None:
        why = f"no token: the configuration of {name} changes just now"
        return SendError(why, kind="connect", sent=False)
    try:
        return await sender.token(api, refused, until)
    except SendError as error:
        return error
    except Exception as error:
        log.exception("cannot lend the token of %s to another worker", name)
        return SendError(f"no token: {type(error).__name__}", kind="access", sent=False)


class TokenBorrower:
    """Asks the first worker for tokens; one that takes its place is waited for."""

    def __init__(self) -> None:
        self._link: Link | None = None
        self._linked = asyncio.Event()

    def follow(self, link: Link | None) -> None:
        """`link` leads to the first worker from now on; None: there is none at the moment."""
        self._link = link
        if link is None:
            self._linked.clear()
        else:
            self._linked.set()

    async def ask(self, api: str, refused: Token | None, until: float) -> Token | None:
        """A token by `until`, of the loop's time; see `lend`. Raises SendError where there is
        none."""
        try:
            async with asyncio.timeout_at(until):
                found = await self._answer(api, refused, until)
        except TimeoutError:
            what = "no token came from the worker that keeps it in time"
            raise SendError(what, kind="timeout", sent=False) from None
        if isinstance(found, SendError):
            raise found
        return found

    async def _answer(
        self, api: str, refused: Token | None, until: float
    ) -> Token | SendError | None:
        while True:
            await self._linked.wait()
            assert self._link is not None
            try:
                found: Token | SendError | None
                found = await self._link.ask("token", api, refused, until)
                return found
            except EOFError:
                continue  # to the one that takes its place


class BorrowedToken:
    """The token of one API that the first worker keeps; a `Keeper`."""

    def __init__(self, borrower: TokenBorrower, api: str, settings: OAuth2, learn: Learn) -> None:
        self._borrower = borrower
        self._api = api
        self._settings = settings
        self._learn = learn
        self._token: Token | None = None

    def fits(self, settings: OAuth2) -> bool:
        """See `Keeper`: another one costs a question to the first worker, which knows."""
        return self._settings == settings

    async def token(self, fetch: Fetch, until: float) -> Token:
        """See `Keeper`; `fetch` is of no use here."""
        token = self._token
        if token is not None and asyncio.get_running_loop().time() < token.renew_at:
            return token
        found = await self._borrower.ask(self._api, None, until)
        assert found is not None  # which is the answer to a refused one alone
        return self._take(found)

    async def instead_of(self, refused: Token, fetch: Fetch, until: float) -> Token | None:
        """See `Keeper`; `fetch` is of no use here."""
        token = self._token
        if token is not None and token.given != refused.given:
            return token
        found = await self._borrower.ask(self._api, refused, until)
        return None if found is None else self._take(found)

    def _take(self, found: Token) -> Token:
        """Keep a token; the same object as before where it is the same."""
        old = self._token
        if old is not None and old.given == found.given:
            return old
        self._learn(self._api, (found.value, *([old.value] if old else [])))
        self._token = found
        return found
