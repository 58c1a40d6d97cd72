"""Tokens and sessions, by a clock of the test's own."""

from __future__ import annotations

import pytest

from orchestratord.api.server import browser_sessions as module
from orchestratord.api.server.browser_sessions import Callers
from orchestratord.model.settings import Http
from orchestratord.testing import FakeClock

TOKEN = "the-token-of-the-operators"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1000.0)


@pytest.fixture
def callers(clock: FakeClock) -> Callers:
    http = Http.model_validate({"token": TOKEN})
    return Callers(lambda: http, clock.now)


def test_a_session_ends_after_its_time(callers: Callers, clock: FakeClock) -> None:
    caller = callers.by_token(TOKEN.encode())
    assert caller is not None
    session = callers.log_in(caller)
    clock.turn(module.SESSION - 1)
    found = callers.by_session(session)
    assert found is not None
    assert callers.stands(found)
    clock.turn(1)
    assert not callers.stands(found)
    assert callers.by_session(session) is None


def test_sessions_are_bounded(callers: Callers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SESSIONS", 3)
    caller = callers.by_token(TOKEN.encode())
    assert caller is not None
    sessions = [callers.log_in(caller) for _ in range(5)]
    assert [callers.by_session(item) is not None for item in sessions] == [False] * 2 + [True] * 3


def test_wrong_tokens_are_forgotten(callers: Callers, clock: FakeClock) -> None:
    delays = [callers.wrong() for _ in range(60)]
    assert delays == sorted(delays)
    assert delays[0] == 0
    assert delays[-1] == module.LONGEST_DELAY
    clock.turn(60 * module.FORGIVEN)
    assert callers.wrong() == 0


def test_nothing_prints_a_token(callers: Callers) -> None:
    caller = callers.by_token(TOKEN.encode())
    assert TOKEN not in f"{caller} {caller!r}"
