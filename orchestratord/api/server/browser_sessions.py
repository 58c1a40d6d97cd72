"""Who may use the API over TCP: tokens, and the sessions of browsers that have shown one."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest
from html import escape
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from orchestratord.api.server.problem_json import Refusal
from orchestratord.model.settings import Http
from orchestratord.values import world
from orchestratord.values.secret import Secret

SESSION = 7 * 86400.0
"""Seconds after its login that a session ends, whatever its browser does."""
MAX_SESSIONS = 1_000
"""At once; another one takes the place of the oldest."""

FREE = 3
"""Wrong tokens that are answered at once."""
FIRST_DELAY = 0.25
LONGEST_DELAY = 3.0
FORGIVEN = 20.0
"""Seconds after which one wrong token is forgotten."""


@dataclass(frozen=True, slots=True)
class KnownCaller:
    """Who asks.

    Args:
        token: what they have shown.
        writes: whether it is good for more than looking.
        session: the cookie's value; None where the token itself came with the request.
    """

    token: Secret
    writes: bool
    session: str | None = None

    def __str__(self) -> str:
        what = "token" if self.writes else "read_token"
        return what if self.session is None else f"a session of {what}"


class Callers:
    """Knows tokens and sessions. These live as long as the daemon, and as the token they are of."""

    def __init__(
        self, settings: Callable[[], Http], now: Callable[[], float] = world.monotonic
    ) -> None:
        """
        Args:
            settings: the `http` in force, asked for each time.
            now: seconds of a clock that only goes forward.
        """
        self._settings = settings
        self._now = now
        self._sessions: dict[str, tuple[KnownCaller, float]] = {}
        self._tokens_of: Http | None = None
        self._tokens: list[tuple[bytes, KnownCaller]] = []
        """Digests of the tokens of `_tokens_of`, and who shows them."""
        self._wrong = 0.0
        self._counted_at = now()

    def by_token(self, given: bytes) -> KnownCaller | None:
        """Whose token it is; None for a wrong one. As long for every wrong one."""
        digest, found = sha256(given).digest(), None
        if (http := self._settings()) is not self._tokens_of:
            tokens = (http.read_token, False), (http.token, True)
            self._tokens = [(_digest(one), KnownCaller(one, may)) for one, may in tokens if one]
            self._tokens_of = http
        for known, caller in self._tokens:
            if compare_digest(known, digest):
                found = caller
        return found

    def by_session(self, session: str) -> KnownCaller | None:
        """Whose session it is; None for one that has ended or never was."""
        caller, until = self._sessions.get(session, (None, 0.0))
        if caller is None:
            return None
        if self._now() < until and self._is_current(caller):
            return caller
        del self._sessions[session]
        return None

    def log_in(self, caller: KnownCaller) -> str:
        """Begin a session; its value, which says nothing about the token."""
        if len(self._sessions) >= MAX_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        session = world.token_urlsafe(32)
        until = self._now() + SESSION
        self._sessions[session] = (KnownCaller(caller.token, caller.writes, session), until)
        return session

    def log_out(self, session: str) -> None:
        """End a session, if it is one."""
        self._sessions.pop(session, None)

    def stands(self, caller: KnownCaller) -> bool:
        """Whether who was let in once would still be."""
        if caller.session is not None:
            return self.by_session(caller.session) is not None
        return self._is_current(caller)

    def wrong(self) -> float:
        """A wrong token was given; the seconds that its answer has to wait.

        Only wrong ones wait: one who guesses locks no other caller out.
        """
        now = self._now()
        self._wrong = max(self._wrong - (now - self._counted_at) / FORGIVEN, 0.0) + 1
        self._counted_at = now
        over = self._wrong - FREE
        if over <= 0:
            return 0.0
        return float(min(FIRST_DELAY * 2 ** min(over, 10), LONGEST_DELAY))

    def _is_current(self, caller: KnownCaller) -> bool:
        http = self._settings()
        token = http.token if caller.writes else http.read_token
        return token is not None and compare_digest(_digest(token), _digest(caller.token))


def _digest(token: Secret) -> bytes:
    # Of equal length, so that comparing takes equally long.
    return sha256(token.reveal().encode()).digest()


# -- Logging in and out with a browser -------------------------------------------------------------

LOGIN = "/login"
LOGOUT = "/logout"

MAX_FORM = 16 << 10
"""Bytes."""
MAX_NEXT = 4_000
"""Characters of an address to go on to."""

_NEXT = re.compile(r"/(?!/)[!-\[\]-~]*")
"""A path on this very host: browsers take `//` and `/\\` for another one."""

_STYLE = """
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 22rem; margin: 15vh auto; padding: 0 1rem; }
h1 { font-size: 1.25rem; }
label, input, button { display: block; box-sizing: border-box; width: 100%; font: inherit; }
input, button { margin: .25rem 0 1rem; padding: .5rem; }
"""
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Log in – orchestratord</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>orchestratord</h1>
{said}<form method="post" action="{action}">
<label for="token">Token</label>
<input id="token" name="token" type="password" autocomplete="current-password" required autofocus>
<input name="next" type="hidden" value="{next}">
<button type="submit">Log in</button>
</form>
<p>Followed a link, and logged in before? <a href="{next}">Go on</a>.</p>
</main>
</body>
</html>
"""
_POLICY = (
    f"default-src 'none'; "
    f"style-src 'sha256-{base64.b64encode(sha256(_STYLE.encode()).digest()).decode()}'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def page(
    status: int, next_: str, said: str = "", headers: Mapping[str, str] | None = None
) -> Response:
    """The page with the form.

    Args:
        status: of the answer.
        next_: the path to go on to afterwards.
        said: what went wrong.
        headers: further headers of the answer.
    """
    text = _PAGE.format(
        style=_STYLE,
        said=f'<p role="alert">{escape(said)}</p>\n' if said else "",
        action=LOGIN,
        next=escape(safe_next(next_)),
    )
    return HTMLResponse(text, status, {"content-security-policy": _POLICY, **(headers or {})})


def safe_next(text: str) -> str:
    """`text` if it is a path on this host to go on to, else `/`."""
    if len(text) > MAX_NEXT or not _NEXT.fullmatch(text):
        return "/"
    return "/" if text.partition("?")[0] in (LOGIN, LOGOUT) else text


async def read_form(request: Request) -> tuple[bytes, str]:
    """The token and the path to go on to. Raises Refusal: 413, 415, or 400 for what is no form."""
    types = request.headers.getlist("content-type")
    kinds = [text.partition(";")[0].strip().lower() for text in types]
    if kinds != ["application/x-www-form-urlencoded"]:
        raise Refusal("not_a_form", "send a form: application/x-www-form-urlencoded")
    raw = b""
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > MAX_FORM:
            raise Refusal("too_large", f"the form is larger than {MAX_FORM >> 10} KiB")
    try:
        fields = parse_qs(raw.decode("ascii"), max_num_fields=10, errors="strict")
    except ValueError:
        raise Refusal("bad_form", "this is not a form") from None
    token = fields.get("token", [""])[0].strip()
    return token.encode(), fields.get("next", ["/"])[0]
