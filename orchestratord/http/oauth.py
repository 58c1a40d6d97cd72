"""OAuth 2.0: one token for each API, asked for once however many calls wait for it (RFC 6749)."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote_plus, urlencode

import httpx

from orchestratord.config.write_file import replace_file
from orchestratord.errors import EgressDenied, SendError
from orchestratord.http.signed_assertion import CLIENT_ASSERTION, JWT_BEARER, signed_assertion
from orchestratord.model.auth import KeptSecret, OAuth2
from orchestratord.model.http_message import Request, header

log = logging.getLogger("orchestratord.tokens")

_MARGIN, _SHARE, _LEAST = 60.0, 0.1, 1.0
"""A token is renewed so many seconds before it ends. One that lives no longer than that is renewed
in this last share of its life; but a second before its end, as servers count whole ones, or after
half of the shortest lives."""
_SPARE = 10.0
"""Seconds for which a token has to last to serve on while the next one is fetched."""
_HELD, _HELD_REFUSAL = 1.0, 5.0
"""Seconds for which an error is answered without asking again; for a refusal, which lasts."""
_UNPROVEN = 60.0
"""Seconds for which a token that was given after a refusal, and is refused too, is kept."""
_VALUE = re.compile(r"[\x21-\x7e]{1,16384}")
_LATER = frozenset({408, 425, 429})
"""Client errors of a token endpoint that are none of the client's, as all from 500 on."""
_ANOTHER_WAY = frozenset({"invalid_client", "invalid_request", "access_denied", ""})
"""What endpoints answer that want the client's secret in the body and not in a header."""
_KEYS: Mapping[str, str] = {
    "invalid_client": "client_id and client_secret",
    "unauthorized_client": "client_id",
    "access_denied": "client_id and client_secret",
    "invalid_grant": "refresh_token",
    "invalid_scope": "scope",
    "invalid_target": "audience",
}
"""The keys to look at, by the error that is answered."""
_SIGNED_KEYS = {"invalid_client": "private_key and key_id", "invalid_grant": "issuer and subject"}
"""Those of a client that signs."""

Fetch = Callable[[httpx.Request], Awaitable[httpx.Response]]
"""Sends a token request the way that the API's calls go."""

Learn = Callable[[str, tuple[str, ...]], None]
"""Is told of whom, and which secrets of theirs are in use."""


@dataclass(slots=True, eq=False)
class Token:
    """A token. Times are the loop's, in seconds."""

    value: str
    given: float
    renew_at: float
    ends_at: float
    after_refusal: bool
    """Whether it was asked for because the API had refused the one before."""
    accepted: bool = False
    """Whether the API has answered anything else to it than 401."""


class Keeper(Protocol):
    """Has the token of one API, wherever it is kept."""

    def fits(self, settings: OAuth2) -> bool:
        """Whether its token can serve with these settings, too."""
        ...

    async def token(self, fetch: Fetch, until: float) -> Token:
        """A token to call with; it is there by `until`, of the loop's time.

        Raises SendError where there is none.
        """
        ...

    async def instead_of(self, refused: Token, fetch: Fetch, until: float) -> Token | None:
        """Another token where the API has answered 401 to this one; None where it would be refused
        as well.

        Raises SendError where there is none.
        """
        ...


class TokenKeeper:
    """Keeps the token of one API.

    Args:
        api: the API's name.
        settings: how tokens are asked for.
        learn: is told of each token, so that nothing shows it.
    """

    def __init__(self, api: str, settings: OAuth2, learn: Learn) -> None:
        self._api = api
        self._settings = settings
        self._learn = learn
        self._loop = asyncio.get_running_loop()
        self._token: Token | None = None
        self._fetching: asyncio.Task[SendError | None] | None = None
        self._failed: tuple[SendError, float] | None = None
        self._posted: bool | None = None
        """Whether the client's secret goes into the body; None until that is known."""
        self._refresh = settings.refresh_token

    def fits(self, settings: OAuth2) -> bool:
        """Whether its token can serve with these settings, too."""
        ours, refresh = self._settings, settings.refresh_token
        same = ours.model_copy(update={"refresh_token": refresh}) == settings
        return same and refresh in (ours.refresh_token, self._refresh)

    async def token(self, fetch: Fetch, until: float) -> Token:
        """See `Keeper`."""
        now, token = self._loop.time(), self._token
        if token is not None:
            if now < token.renew_at:
                return token
            if now < token.ends_at - _SPARE:
                if self._failed is None or now >= self._failed[1]:
                    self._begin(fetch, after_refusal=False)
                return token
        return await self._another(fetch, until, after_refusal=False)

    async def instead_of(self, refused: Token, fetch: Fetch, until: float) -> Token | None:
        """See `Keeper`; `refused` may be a copy of the token, from another process."""
        token, now, accepted = self._token, self._loop.time(), refused.accepted
        if token is not None:
            if token.given != refused.given:
                return token
            accepted = accepted or token.accepted
        if refused.after_refusal and not accepted and now < refused.given + _UNPROVEN:
            return None
        if token is not None:
            token.renew_at = token.ends_at = now
        return await self._another(fetch, until, after_refusal=True)

    # -- within --------------------------------------------------------------------------------

    async def _another(self, fetch: Fetch, until: float, *, after_refusal: bool) -> Token:
        now = self._loop.time()
        if self._failed is not None and now < self._failed[1]:
            raise _again(self._failed[0])
        fetching = self._begin(fetch, after_refusal=after_refusal)
        await asyncio.wait((fetching,), timeout=max(0.0, until - now))
        if not fetching.done():
            what = f"no token came from {self._endpoint} in time"
            raise SendError(what, kind="timeout", sent=False)
        error = fetching.result()
        if error is not None:
            raise _again(error)
        assert self._token is not None
        return self._token

    def _begin(self, fetch: Fetch, *, after_refusal: bool) -> asyncio.Task[SendError | None]:
        if self._fetching is None:
            self._fetching = self._loop.create_task(self._renew(fetch, after_refusal))
        return self._fetching

    async def _renew(self, fetch: Fetch, after_refusal: bool) -> SendError | None:
        """Ask for a token, once; the error where there is none."""
        began, old = self._loop.time(), self._token
        try:
            if old is None:
                await self._read_refresh()
            answer = await self._ask(fetch)
            token = self._read(answer, began, after_refusal)
            await self._take_refresh(answer)
        except SendError as error:
            failure = error
        except Exception as error:
            log.exception("cannot ask for the token of %s", self._api)
            failure = SendError(f"no token: {type(error).__name__}", kind="access", sent=False)
        else:
            values = [token.value, *([old.value] if old else [])]
            self._learn(self._api, (*values, *([self._refresh.reveal()] if self._refresh else [])))
            self._token, self._failed, self._fetching = token, None, None
            return None
        held = _HELD_REFUSAL if failure.kind == "access" else _HELD
        self._failed, self._fetching = (failure, self._loop.time() + held), None
        log.warning("cannot authorise calls of %s: %s", self._api, failure)
        return failure

    async def _ask(self, fetch: Fetch) -> Mapping[str, Any]:
        """The endpoint's answer to a request for a token. Raises SendError where it is none."""
        if self._posted is not None or self._settings.client_secret is None:
            posted = self._posted is not False
            return self._judge(await self._sent(fetch, posted=posted))
        response = await self._sent(fetch, posted=False)
        if response.status_code in (400, 401) and _error(_json(response)) in _ANOTHER_WAY:
            # Not all of them know the header that every one has to know.
            other = await self._sent(fetch, posted=True)
            if other.is_success:
                answer = self._judge(other)
                self._posted = True
                return answer
        answer = self._judge(response)
        self._posted = False
        return answer

    async def _sent(self, fetch: Fetch, *, posted: bool) -> httpx.Response:
        settings, secret = self._settings, self._settings.client_secret
        form: dict[str, str] = {"grant_type": "client_credentials"}
        if self._refresh is not None:
            form = {"grant_type": "refresh_token", "refresh_token": self._refresh.reveal()}
        if settings.grant == "jwt_bearer":
            form = {"grant_type": JWT_BEARER, "assertion": signed_assertion(settings)}
        elif settings.private_key is not None:
            form["client_assertion_type"] = CLIENT_ASSERTION
            form["client_assertion"] = signed_assertion(settings)
        if settings.scope is not None:
            form["scope"] = settings.scope
        if settings.audience is not None and settings.private_key is None:
            form["audience"] = settings.audience
        headers = {
            "User-Agent": "orchestratord",
            "Accept": "application/json",
            "Content-Type": "application/x-www-form-urlencoded",
        }
        if secret is None or posted:
            if settings.client_id is not None:
                form["client_id"] = settings.client_id
            if secret is not None:
                form["client_secret"] = secret.reveal()
        else:
            # Both are encoded as in a form before they are joined (RFC 6749, 2.3.1).
            pair = quote_plus(settings.client_id or ""), quote_plus(secret.reveal())
            headers["Authorization"] = httpx.BasicAuth(*pair)._auth_header
        content = urlencode(form).encode()
        try:
            request = Request("POST", settings.token_url, headers=headers, content=content)
            return await fetch(request)
        except EgressDenied as error:
            raise EgressDenied(f"no token: {error}") from None
        except SendError as error:
            raise _for_call(f"no token: {error}", error) from None

    def _judge(self, response: httpx.Response) -> Mapping[str, Any]:
        """What an answer says. Raises SendError where it gives no token."""
        code, answer = response.status_code, _json(response)
        said = f"no token: {self._endpoint} answered {code}"
        if code in _LATER or code >= 500:
            raise SendError(said, kind="connect", sent=False)
        error, described = _error(answer), str(answer.get("error_description") or "")
        if 200 <= code < 300:
            value = answer.get("access_token")
            if isinstance(value, str) and _VALUE.fullmatch(value):
                kind = str(answer.get("token_type") or "bearer")
                if kind.lower() == "bearer":
                    return answer
                what = f"{said} with a token of the type {kind[:40]!r}; only bearer is known here"
                raise SendError(what, kind="access", sent=False)
            if not error:  # some refuse with 200
                raise SendError(f"{said} without a token", kind="protocol", sent=False)
        if error:
            said += f" {error}"
        if described:
            said += f" ({' '.join(described.split())[:200]})"
        if code < 400 and (location := header(response, "location")) is not None:
            said += f", to {location[:200]}"
        keys = _KEYS if self._settings.private_key is None else {**_KEYS, **_SIGNED_KEYS}
        key = keys.get(error, "token_url" if not error else "oauth2")
        key = "auth.oauth2" if key == "oauth2" else f"auth.oauth2.{key}"
        # Of a webhook, the name says so.
        place = self._api if " " in self._api else f"the api.yaml of {self._api}"
        what = f"{said}; look at {key} in {place}"
        raise SendError(what, kind="access", sent=False)

    def _read(self, answer: Mapping[str, Any], began: float, after_refusal: bool) -> Token:
        """The token of an answer; its life is counted from when it was asked for."""
        life = _seconds(answer.get("expires_in"))
        margin = 0.0
        if life <= _MARGIN:
            margin = max(life * _SHARE, min(_LEAST, life / 2))
        elif life < math.inf:
            margin = _MARGIN
        value = answer["access_token"]
        return Token(value, began, began + life - margin, began + life, after_refusal)

    async def _read_refresh(self) -> None:
        """Begin with the refresh token that was written last: the worker before this one, from
        whose configuration it was forked, may have replaced the one that stood there."""
        known = self._refresh
        if known is None or known.file is None:
            return
        try:
            value = (await asyncio.to_thread(Path(known.file).read_text)).rstrip("\r\n")
        except (OSError, UnicodeDecodeError):
            return  # the one that is known may serve
        if value and value != known.reveal():
            self._refresh = new = KeptSecret(value)
            new.file = known.file
            self._learn(self._api, (value, known.reveal()))

    async def _take_refresh(self, answer: Mapping[str, Any]) -> None:
        """Where the endpoint gives another refresh token, the one before may be worth nothing."""
        value, old = answer.get("refresh_token"), self._refresh
        if old is None or not isinstance(value, str) or not value or value == old.reveal():
            return
        self._refresh = new = KeptSecret(value)
        new.file = old.file
        # Before it is written: else an error of that could show it in the log.
        self._learn(self._api, (value, old.reveal()))
        if old.file is None:
            log.warning(
                "the refresh token of %s was replaced, and will be lost with the daemon; write "
                "refresh_token: ${file:/path}, and the new one is kept there",
                self._api,
            )
            return
        try:
            await asyncio.to_thread(_write_back, old.file, value)
        except OSError as error:
            log.error(
                "cannot keep the new refresh token of %s in %s (%s): it will be lost with the "
                "daemon; let the daemon write that file and its folder",
                self._api, old.file, error.strerror,
            )  # fmt: skip

    @property
    def _endpoint(self) -> str:
        return f"the token endpoint {httpx.URL(self._settings.token_url).host}"


def _for_call(message: str, error: SendError) -> SendError:
    """What an error on the way to a token means for a call, of which nothing was sent."""
    found = SendError(message, kind=error.kind, sent=False, shortage=error.shortage)
    found.receiver_only = error.receiver_only
    return found


def _again(error: SendError) -> SendError:
    """A copy of an error for another call: each is raised, and changed, by itself."""
    if isinstance(error, EgressDenied):
        return EgressDenied(error.message)
    return _for_call(error.message, error)


def _json(response: httpx.Response) -> Mapping[str, Any]:
    try:
        found = json.loads(response.content)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _error(answer: Mapping[str, Any]) -> str:
    error = answer.get("error")
    return error[:80] if isinstance(error, str) else ""


def _seconds(value: Any) -> float:
    """How long a token lasts. Where it is not said: until it is refused."""
    try:
        seconds = float(value)
    except (TypeError, ValueError, OverflowError):
        return math.inf
    return max(seconds, 0.0) if seconds == seconds else math.inf


def _write_back(path: str, secret: str) -> None:
    """Replace what a file holds, whole or not at all; who may read it stays, and a link stays one.

    Raises OSError.
    """
    replace_file(Path(os.path.realpath(path)), f"{secret}\n".encode(), same_owner=False)
