"""Tokens that another worker keeps: asked for over a link, from the successor too."""

from __future__ import annotations

import asyncio
import pickle
import socket
from types import SimpleNamespace
from typing import Any

import pytest

from orchestratord.errors import EgressDenied, SendError
from orchestratord.http.oauth import Token
from orchestratord.model.auth import OAuth2
from orchestratord.runtime.link import Link
from orchestratord.runtime.team_tokens import BorrowedToken, TokenBorrower, lend
from orchestratord.values.redact import MASK, Redactor

SETTINGS = OAuth2.model_validate(
    {"token_url": "https://login.example.com/token", "client_id": "a", "client_secret": "s3cret"}
)


def token(value: str, given: float = 1.0, renew_in: float = 60.0) -> Token:
    now = asyncio.get_running_loop().time()
    return Token(value, given, now + renew_in, now + renew_in + 60, after_refusal=False)


def soon(seconds: float = 5.0) -> float:
    return asyncio.get_running_loop().time() + seconds


async def fetch(request: Any) -> Any:
    raise AssertionError("this worker asks no token endpoint")


class FirstWorker:
    """The other end of a link."""

    def __init__(self) -> None:
        self.left, self.right = socket.socketpair()
        self.left.setblocking(False)
        self.right.setblocking(False)

    async def meet(self, borrower: TokenBorrower) -> None:
        self.ours, self.link = await Link.over(self.left), await Link.over(self.right)
        borrower.follow(self.ours)
        self.receiving = asyncio.create_task(self.ours.receive())

    async def asked(self) -> tuple[int, str, Token | None, float]:
        kind, values = await asyncio.wait_for(self.link.receive(), 60)
        assert kind == "token"
        found: tuple[int, str, Token | None, float] = values
        return found

    def close(self) -> None:
        self.receiving.cancel()
        self.ours.close()
        self.link.close()


async def test_a_token_is_asked_for_once_and_kept_until_it_is_to_be_renewed() -> None:
    borrower, first, redactor = TokenBorrower(), FirstWorker(), Redactor()
    keeper = BorrowedToken(borrower, "shop", SETTINGS, redactor.learn)
    waiting = asyncio.create_task(keeper.token(fetch, soon()))
    await asyncio.sleep(0)
    await first.meet(borrower)  # only now is there one to ask
    number, api, refused, _ = await first.asked()
    assert (api, refused) == ("shop", None)
    first.link.answer(number, token("token-0001"))
    found = await waiting
    assert found.value == "token-0001"
    assert await keeper.token(fetch, soon()) is found
    assert redactor.text("token-0001") == MASK

    refusing = asyncio.create_task(keeper.instead_of(found, fetch, soon()))
    number, _, refused, _ = await first.asked()
    assert refused is not None
    assert refused.value == "token-0001"
    first.link.answer(number, token("token-0002", given=2.0))
    second = await refusing
    assert second is not None
    assert await keeper.instead_of(found, fetch, soon()) is second
    assert redactor.text("token-0001 token-0002") == f"{MASK} {MASK}"
    first.close()


async def test_none_instead_of_one_that_would_be_refused_as_well() -> None:
    borrower, first = TokenBorrower(), FirstWorker()
    await first.meet(borrower)
    keeper = BorrowedToken(borrower, "shop", SETTINGS, Redactor().learn)
    asking = asyncio.create_task(keeper.instead_of(token("token-0001"), fetch, soon()))
    number, *_ = await first.asked()
    first.link.answer(number, None)
    assert await asking is None
    first.close()


async def test_the_successor_of_one_that_died_is_asked_again() -> None:
    borrower, first, second = TokenBorrower(), FirstWorker(), FirstWorker()
    await first.meet(borrower)
    asking = asyncio.create_task(borrower.ask("shop", None, soon()))
    await first.asked()
    borrower.follow(None)
    first.close()
    await asyncio.sleep(0)
    await second.meet(borrower)
    number, *_ = await second.asked()
    second.link.answer(number, token("token-0001"))
    second.link.answer(number, token("too late"))
    found = await asking
    assert found is not None
    assert found.value == "token-0001"
    second.close()


async def test_it_is_waited_for_no_longer_than_the_attempt_may_take() -> None:
    with pytest.raises(SendError, match="no token came") as error:
        await TokenBorrower().ask("shop", None, soon(0.05))
    assert (error.value.kind, error.value.sent) == ("timeout", False)


@pytest.mark.parametrize(
    "raised",
    [
        SendError("no token: refused", kind="access", sent=False),
        SendError("no token: no port", kind="connect", sent=False, shortage=True),
        EgressDenied("no token: 10.0.0.1 may not be dialled"),
    ],
)
async def test_errors_are_the_same_in_every_worker(raised: SendError) -> None:
    async def none(*_: Any) -> Any:
        raise raised

    sender: Any = SimpleNamespace(token=none)
    api: Any = SimpleNamespace(auth=SimpleNamespace(oauth2=SETTINGS))
    found = await lend(sender, {"shop": api}, "shop", None, soon())
    error = pickle.loads(pickle.dumps(found))  # as it goes to the other worker
    assert type(error) is type(raised)
    assert (error.message, error.kind, error.sent, error.shortage) == (
        raised.message, raised.kind, False, raised.shortage,
    )  # fmt: skip


async def test_an_api_that_a_reload_has_changed_meanwhile() -> None:
    sender: Any = None
    found = await lend(sender, {}, "shop", None, soon())
    assert isinstance(found, SendError)
    assert found.kind == "connect", "it is tried again"
