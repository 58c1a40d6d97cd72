"""Tokens of OAuth 2.0: when one is asked for, how, and what is said where none is given."""

from __future__ import annotations

import asyncio
import copy
import json
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from orchestratord.errors import EgressDenied, SendError
from orchestratord.http.oauth import TokenKeeper
from orchestratord.model.auth import KeptSecret, OAuth2
from orchestratord.values.redact import MASK, Redactor

SETTINGS = {
    "token_url": "https://login.example.com/token",
    "client_id": "a client/1",
    "client_secret": "s e+c%r&t",
}


class Endpoint:
    """Answers token requests in turn, the last answer for ever, and keeps what came."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []
        self.open = asyncio.Event()
        self.open.set()

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        await self.open.wait()
        if isinstance(answer, Exception):
            raise answer
        status, body = answer if isinstance(answer, tuple) else (200, answer)
        if isinstance(body, dict):
            body = json.dumps(body).encode()
        return httpx.Response(status, content=body, request=request)

    def forms(self) -> list[dict[str, str]]:
        return [dict(parse_qsl(request.content.decode())) for request in self.requests]


def given(value: str = "token-0001", **more: Any) -> dict[str, Any]:
    return {"access_token": value, "token_type": "Bearer", **more}


def keeper(learned: Redactor | None = None, **settings: Any) -> TokenKeeper:
    learn = (learned or Redactor()).learn
    keys = {key: value for key, value in {**SETTINGS, **settings}.items() if value is not None}
    return TokenKeeper("shop", OAuth2.model_validate(keys), learn)


def soon() -> float:
    return asyncio.get_running_loop().time() + 5


async def test_one_request_however_many_wait() -> None:
    endpoint, keeps = Endpoint(given(expires_in=3600)), keeper(scope="a b", audience="api")
    endpoint.open.clear()
    waiting = [asyncio.create_task(keeps.token(endpoint, soon())) for _ in range(50)]
    await asyncio.sleep(0)
    waiting[0].cancel()  # whoever asked first may go
    await asyncio.sleep(0)
    endpoint.open.set()
    tokens = await asyncio.gather(*waiting[1:])
    assert {token.value for token in tokens} == {"token-0001"}
    assert (await keeps.token(endpoint, soon())).value == "token-0001"
    (request,) = endpoint.requests
    assert endpoint.forms() == [
        {"grant_type": "client_credentials", "scope": "a b", "audience": "api"}
    ]
    # RFC 6749, 2.3.1: each of the two encoded like a form, then both as in HTTP Basic.
    basic = httpx.BasicAuth("a+client%2F1", "s+e%2Bc%25r%26t")._auth_header
    assert request.headers["authorization"] == basic
    assert request.headers["content-type"] == "application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    ("life", "margin"), [(3600, 60), (61, 60), (60, 6), (5, 1), (1, 0.5), ("300", 60), (0, 0)]
)
async def test_when_it_is_renewed(life: Any, margin: float) -> None:
    token = await keeper().token(Endpoint(given(expires_in=life)), soon())
    assert token.ends_at - token.given == pytest.approx(float(life))
    assert token.ends_at - token.renew_at == pytest.approx(margin)


@pytest.mark.parametrize("life", [None, "soon", "nan", [], 1e400])
async def test_a_life_that_is_not_said_lasts_until_a_refusal(life: Any) -> None:
    token = await keeper().token(Endpoint(given(expires_in=life)), soon())
    assert token.renew_at == float("inf")


async def test_a_token_that_still_lasts_serves_while_the_next_one_comes() -> None:
    endpoint, keeps = Endpoint(given(expires_in=3600), given("token-0002", expires_in=60)), keeper()
    token = await keeps.token(endpoint, soon())
    token.renew_at = 0.0
    endpoint.open.clear()
    assert await keeps.token(endpoint, soon()) is token
    assert await keeps.token(endpoint, soon()) is token
    endpoint.open.set()
    async with asyncio.timeout(60):
        while (await keeps.token(endpoint, soon())).value != "token-0002":
            await asyncio.sleep(0.001)
    assert len(endpoint.requests) == 2
    # One that is about to end does not: a call would come too late with it.
    last = await keeps.token(endpoint, soon())
    endpoint.answers = [given("token-0003", expires_in=60)]
    last.renew_at, last.ends_at = 0.0, asyncio.get_running_loop().time() + 1
    assert (await keeps.token(endpoint, soon())).value == "token-0003"


async def test_a_refusal_by_the_api() -> None:
    endpoint, keeps = Endpoint(given("first"), given("second"), given("third")), keeper()
    first = await keeps.token(endpoint, soon())
    several = [keeps.instead_of(first, endpoint, soon()) for _ in range(20)]
    tokens = await asyncio.gather(*several)
    assert {token and token.value for token in tokens} == {"second"}
    second = await keeps.token(endpoint, soon())
    assert (await keeps.instead_of(first, endpoint, soon())) is second, "there is one already"
    # The API does not like this one either: another would be no better, for a minute.
    assert await keeps.instead_of(second, endpoint, soon()) is None
    assert await keeps.token(endpoint, soon()) is second
    assert len(endpoint.requests) == 2
    second.accepted = True
    third = await keeps.instead_of(second, endpoint, soon())
    assert third is not None
    assert third.value == "third"


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        ((401, {"error": "invalid_client", "error_description": "no\nsuch one"}), "access",
         "answered 401 invalid_client (no such one); look at auth.oauth2.client_id and "
         "client_secret in the api.yaml of shop"),
        ((400, {"error": "invalid_scope"}), "access", "look at auth.oauth2.scope in"),
        ((400, {"error": "invalid_grant"}), "access", "look at auth.oauth2.refresh_token in"),
        ((400, {"error": "of_its_own"}), "access", "400 of_its_own; look at auth.oauth2 in"),
        ((404, b"<html>"), "access", "answered 404; look at auth.oauth2.token_url in"),
        ((302, b""), "access", "answered 302; look at auth.oauth2.token_url in"),
        ((429, b""), "connect", "answered 429"),
        ((503, {"error": "invalid_client"}), "connect", "answered 503"),
        ((200, b"<html>"), "protocol", "answered 200 without a token"),
        ((200, [1]), "protocol", "answered 200 without a token"),
        ((200, b"[" * 100_000), "protocol", "answered 200 without a token"),
        ((200, {"access_token": "a\r\nb"}), "protocol", "answered 200 without a token"),
        ((200, {"error": "invalid_grant", "error_description": "it was revoked"}), "access",
         "answered 200 invalid_grant (it was revoked); look at auth.oauth2.refresh_token in"),
        ((200, given(token_type="mac")), "access", "with a token of the type 'mac'; only bearer"),
        (SendError("no connection", kind="connect", sent=True), "connect", "no connection"),
        (SendError("no answer came in time", kind="timeout", sent=True), "timeout", "in time"),
        (EgressDenied("10.0.0.1 is a private address"), "egress", "10.0.0.1 is a private address"),
        (RuntimeError("what"), "access", "no token: RuntimeError"),
    ],
)  # fmt: skip
async def test_what_is_said_where_none_is_given(answer: Any, kind: str, message: str) -> None:
    if isinstance(answer, tuple) and isinstance(answer[1], list):
        answer = (answer[0], json.dumps(answer[1]).encode())
    endpoint, keeps = Endpoint(answer), keeper()
    for _ in range(3):  # it is not asked again at once
        with pytest.raises(SendError) as caught:
            await keeps.token(endpoint, soon())
        assert (caught.value.kind, caught.value.sent) == (kind, False)
        assert caught.value.message.startswith("no token: ")
        assert message in caught.value.message
    assert isinstance(caught.value, EgressDenied) == (kind == "egress")
    assert len(endpoint.requests) <= 2


async def test_no_token_in_time() -> None:
    endpoint, keeps = Endpoint(given()), keeper()
    endpoint.open.clear()
    with pytest.raises(SendError, match=r"no token came from .* login\.example\.com in time") as no:
        await keeps.token(endpoint, asyncio.get_running_loop().time() + 0.01)
    assert (no.value.kind, no.value.sent) == ("timeout", False)
    endpoint.open.set()
    assert (await keeps.token(endpoint, soon())).value == "token-0001"
    assert len(endpoint.requests) == 1, "it was still under way"


async def test_a_secret_in_the_body_where_the_header_is_not_taken() -> None:
    refused = (401, {"error": "invalid_client"})
    endpoint, keeps = Endpoint(refused, given("one", expires_in=0), given("two")), keeper()
    assert (await keeps.token(endpoint, soon())).value == "one"
    assert (await keeps.token(endpoint, soon())).value == "two"
    _, *forms = endpoint.forms()
    wanted = {"client_id": "a client/1", "client_secret": "s e+c%r&t"}
    assert forms == [{"grant_type": "client_credentials", **wanted}] * 2, "and so from then on"
    assert "authorization" not in endpoint.requests[-1].headers


async def test_a_client_without_a_secret() -> None:
    endpoint = Endpoint(given())
    await keeper(client_secret=None, refresh_token="refresh-1").token(endpoint, soon())
    assert endpoint.forms() == [
        {"grant_type": "refresh_token", "refresh_token": "refresh-1", "client_id": "a client/1"}
    ]


async def test_everything_that_comes_is_a_secret_at_once() -> None:
    redactor = Redactor()
    keeps = keeper(redactor, refresh_token="refresh-1")
    endpoint = Endpoint(
        given("first-token", expires_in=0, refresh_token="refresh-2"), given("second-token")
    )
    await keeps.token(endpoint, soon())
    assert redactor.text("first-token refresh-2") == f"{MASK} {MASK}"
    await keeps.token(endpoint, soon())
    assert endpoint.forms()[1]["refresh_token"] == "refresh-2"
    assert redactor.text("first-token second-token refresh-2") == f"{MASK} {MASK} {MASK}"
    later = Redactor(["another"]).merged(redactor)
    redactor.learn("shop", ["third-token"])
    assert later.text("another third-token first-token") == f"{MASK} {MASK} first-token"


async def test_which_settings_its_token_can_serve() -> None:
    def settings(**keys: Any) -> OAuth2:
        return OAuth2.model_validate({**SETTINGS, **keys})

    keeps = keeper(refresh_token="refresh-1")
    await keeps.token(Endpoint(given(refresh_token="refresh-2")), soon())
    assert keeps.fits(settings(refresh_token="refresh-1"))
    assert keeps.fits(settings(refresh_token="refresh-2"))
    assert not keeps.fits(settings(refresh_token="refresh-3"))
    assert not keeps.fits(settings())
    assert not keeps.fits(settings(refresh_token="refresh-1", scope="more"))


async def test_the_refresh_token_that_was_written_last_is_used(tmp_path: Path) -> None:
    kept, redactor = KeptSecret("refresh-1"), Redactor()
    file = tmp_path / "refresh"
    kept.file = str(file)
    file.write_text("refresh-2\n")
    endpoint, keeps = Endpoint(given()), keeper(redactor, refresh_token=kept)
    await keeps.token(endpoint, soon())
    assert endpoint.forms()[0]["refresh_token"] == "refresh-2"
    assert redactor.text("refresh-2") == MASK


async def test_a_copy_of_a_token_that_was_refused() -> None:
    endpoint = Endpoint(given("token-0001"), given("token-0002"), given("token-0003"))
    keeps = keeper()
    first = await keeps.token(endpoint, soon())
    copies = [copy.copy(first), copy.copy(first)]
    second = await keeps.instead_of(copies[0], endpoint, soon())
    assert second is not None
    assert second is await keeps.instead_of(copies[1], endpoint, soon()), "it is renewed once"
    copied = copy.copy(second)
    assert await keeps.instead_of(copied, endpoint, soon()) is None, "refused, too"
    second.accepted = True
    third = await keeps.instead_of(copied, endpoint, soon())
    assert third is not None
    assert third.value == "token-0003"


async def test_a_refresh_token_that_cannot_be_kept(
    tmp_path: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = KeptSecret("refresh-1")
    gone.file = str(tmp_path / "gone")
    endpoint = Endpoint(given(refresh_token="refresh-2"))
    keeps = keeper(refresh_token=gone)
    assert (await keeps.token(endpoint, soon())).value == "token-0001"
    assert "cannot keep the new refresh token of" in caplog.text
    assert "refresh-2" not in caplog.text


def signing_key(kind: str = "rsa") -> tuple[str, Any]:
    """A private key in PEM, and its public key."""
    key: Any = rsa.generate_private_key(65537, 2048)
    if kind == "ec":
        key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return pem, key.public_key()


async def test_an_assertion_as_google_wants_it() -> None:
    pem, public = signing_key()
    endpoint = Endpoint(given(expires_in=3600))
    keeps = keeper(
        client_id=None, client_secret=None, grant="jwt_bearer", private_key=pem, issuer="me@x",
        scope="a b", key_id="k1", assertion_lifetime="2m",
    )  # fmt: skip
    token = await keeps.token(endpoint, soon())
    await keeps.instead_of(token, endpoint, soon())
    first, second = endpoint.forms()
    assert first.keys() == {"grant_type", "assertion", "scope"}
    assert first["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    claims = [
        jwt.decode(form["assertion"], public, ["RS256"], audience=SETTINGS["token_url"])
        for form in (first, second)
    ]
    assert jwt.get_unverified_header(first["assertion"])["kid"] == "k1"
    assert claims[0].keys() == {"iss", "aud", "iat", "exp", "jti", "scope"}
    assert (claims[0]["iss"], claims[0]["scope"]) == ("me@x", "a b")
    assert claims[0]["exp"] - claims[0]["iat"] == 120
    assert abs(claims[0]["iat"] - time.time()) < 5
    assert claims[0]["jti"] != claims[1]["jti"], "new for each request"
    assert "authorization" not in endpoint.requests[0].headers


@pytest.mark.parametrize("refresh", [None, "a-refresh-token"])
async def test_a_client_that_signs(refresh: str | None) -> None:
    pem, public = signing_key("ec")
    endpoint = Endpoint((400, {"error": "invalid_client"}), given())
    keeps = keeper(
        client_secret=None, private_key=pem, algorithm="ES256", audience="https://as.example",
        refresh_token=refresh,
    )  # fmt: skip
    with pytest.raises(SendError, match=r"auth\.oauth2\.private_key and key_id in the api\.yaml"):
        await keeps.token(endpoint, soon())
    (form,) = endpoint.forms()
    assertion = form.pop("client_assertion")
    kind = {"client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}
    grant = {"grant_type": "refresh_token", "refresh_token": refresh}
    expected = grant if refresh else {"grant_type": "client_credentials"}
    assert form == {**expected, **kind, "client_id": "a client/1"}
    claims = jwt.decode(assertion, public, ["ES256"], audience="https://as.example")
    assert claims["iss"] == claims["sub"] == "a client/1"
    assert pem not in repr(keeps._settings)
