"""Who may use the API over TCP: tokens, and the sessions of browsers that have shown one."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest

from orchestratord.settings import Http
from orchestratord.values import Secret

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
class Caller:
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
        self, settings: Callable[[], Http], now: Callable[[], float] = time.monotonic
    ) -> None:
        """
        Args:
            settings: the `http` in force, asked for each time.
            now: seconds of a clock that only goes forward.
        """
        self._settings = settings
        self._now = now
        self._sessions: dict[str, tuple[Caller, float]] = {}
        self._wrong = 0.0
        self._counted_at = now()

    def by_token(self, given: bytes) -> Caller | None:
        """Whose token it is; None for a wrong one. As long for every wrong one."""
        http = self._settings()
        digest = sha256(given).digest()
        found = None
        for token, writes in ((http.read_token, False), (http.token, True)):
            if token is not None and compare_digest(_digest(token), digest):
                found = Caller(token, writes)
        return found

    def by_session(self, session: str) -> Caller | None:
        """Whose session it is; None for one that has ended or never was."""
        caller, until = self._sessions.get(session, (None, 0.0))
        if caller is None:
            return None
        if self._now() < until and self._is_current(caller):
            return caller
        del self._sessions[session]
        return None

    def log_in(self, caller: Caller) -> str:
        """Begin a session; its value, which says nothing about the token."""
        if len(self._sessions) >= MAX_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        session = secrets.token_urlsafe(32)
        until = self._now() + SESSION
        self._sessions[session] = (Caller(caller.token, caller.writes, session), until)
        return session

    def log_out(self, session: str) -> None:
        """End a session, if it is one."""
        self._sessions.pop(session, None)

    def stands(self, caller: Caller) -> bool:
        """Whether who was let in once would still be."""
        if caller.session is not None:
            return self.by_session(caller.session) is not None
        return self._is_current(caller)

    def wrong(self) -> float:
        """A wrong token was given; the seconds that its answer has to wait.

        Only wrong ones wait: nobody is locked out by whoever guesses.
        """
        now = self._now()
        self._wrong = max(self._wrong - (now - self._counted_at) / FORGIVEN, 0.0) + 1
        self._counted_at = now
        over = self._wrong - FREE
        if over <= 0:
            return 0.0
        return float(min(FIRST_DELAY * 2 ** min(over, 10), LONGEST_DELAY))

    def _is_current(self, caller: Caller) -> bool:
        http = self._settings()
        token = http.token if caller.writes else http.read_token
        return token is not None and compare_digest(_digest(token), _digest(caller.token))


def _digest(token: Secret) -> bytes:
    # Of equal length, so that comparing takes equally long.
    return sha256(token.reveal().encode()).digest()
