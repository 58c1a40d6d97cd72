"""What an API says is wrong, found in the answers of APIs that there are."""

from __future__ import annotations

import json
import threading
from typing import Any

import httpx
import pytest

from orchestratord.http.error_message import LONGEST
from orchestratord.http.error_message import error_message as error_message_of
from orchestratord.model.endpoint import Api
from orchestratord.values.jmespath_expression import Expression
from orchestratord.values.redact import Redactor

SECRET = "s3cr3t-t0ken-which-is-long"


async def error_message(response: httpx.Response, where: Expression | None) -> str | None:
    return await error_message_of(response, where, Redactor([SECRET]))


def answered(body: Any, kind: str = "application/json", status: int = 400) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.Response(status, headers={"Content-Type": kind, "X-Why": "so"}, content=content)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ([{"message": "No column 'Foo'", "errorCode": "INVALID_FIELD"}], "No column 'Foo'"),
        ({"error": {"code": 400, "message": "bad page", "status": "INVALID"}}, "bad page"),
        ({"error": "invalid_grant", "error_description": "expired"}, "expired"),
        ({"error": "quota is used up"}, "quota is used up"),
        ({"errors": [{"detail": "a"}, {"detail": "b"}, {"detail": "a"}]}, "a; b"),
        ({"errors": ["one", "two"]}, "one; two"),
        ({"type": "about:blank", "title": "Conflict", "detail": "it is there"}, "it is there"),
        ({"title": "Conflict", "status": 409}, "Conflict"),
        ({"fault": {"faultstring": "no key"}}, "no key"),
        ({"detail": [{"loc": ["body"], "msg": "field required"}]}, "field required"),
        ({"message": " two\n lines "}, "two lines"),
        ({"message": "x" * 5_000}, f"{'x' * (LONGEST - 1)}…"),
        ({"message": 7, "rows": []}, None),
        ({"error": {"error": {"error": {"error": {"error": {"message": "deep"}}}}}}, None),
        ([], None),
        (b"{", None),
        (b"", None),
    ],
)  # fmt: skip
async def test_the_usual_places(body: Any, said: str | None) -> None:
    assert await error_message(answered(body), None) == said


async def test_a_text_in_the_charset_that_it_names() -> None:
    said = "ungültig".encode("iso-8859-1")
    assert await error_message(answered(said, "text/plain; charset=iso-8859-1"), None) == "ungültig"


@pytest.mark.parametrize("length", [LONGEST - 10, 8 * LONGEST - 10, 8 * LONGEST + 8_192 - 10])
async def test_the_cut_goes_through_no_secret(length: int) -> None:
    for blank in ("x", " "):
        text = f"{blank * length}{SECRET} rejected{'y' * 10_000}"
        for answer in (answered({"message": text}), answered(text[:2_000].encode(), "text/plain")):
            said = await error_message(answer, None)
            assert "s3cr" not in (said or "")


async def test_a_short_text_and_no_page() -> None:
    assert await error_message(answered(b"unknown id\nmore", "text/plain"), None) == "unknown id"
    assert await error_message(answered(b"Bad Request", "text/plain"), None) is None
    assert await error_message(answered(b"<title>oh</title>", "text/html"), None) is None


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("body.why.text", "because"),
        ('headers."x-why"', "so"),
        ("body.codes[?@ > `1`]", "usual"),  # which finds no text
        ("length(body.nothing)", "usual"),  # which fails
        ("body.codes | length(@) | to_string(@)", "2"),
    ],
)
async def test_the_declared_place_first(where: str, said: str) -> None:
    body = {"why": {"text": "because"}, "message": "usual", "codes": [1, 2]}
    assert await error_message(answered(body), Expression(where)) == said


async def test_what_is_large_is_looked_into_beside_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads: set[str] = set()
    search = Expression.search

    def noted(self: Expression, *given: Any) -> Any:
        threads.add(threading.current_thread().name.partition("_")[0])
        return search(self, *given)

    monkeypatch.setattr(Expression, "search", noted)
    body = {"rows": ["x" * 100] * 1_000, "message": "m"}
    assert await error_message(answered(body), Expression("body.message")) == "m"
    assert threads == {"orchestratord-answers"}


def test_what_it_may_look_at() -> None:
    with pytest.raises(ValueError, match=r"no 'error': write body\.error"):
        Api.model_validate({"name": "crm", "error_message": "error.message"})


async def test_the_whole_is_all_that_there_is_of_an_answer() -> None:
    where = Expression("join(' ', sort(keys(@)))")
    assert await error_message(answered({"a": 1}), where) == "body headers status_code text"


SOAP_11 = b"""<s:Envelope xmlns:s="u"><s:Body><s:Fault><faultcode>a</faultcode>
<faultstring xml:lang="en">no stock</faultstring></s:Fault></s:Body></s:Envelope>"""
SOAP_12 = b"""<s:Envelope xmlns:s="u"><s:Body><s:Fault><s:Reason>
<s:Text xml:lang="en">no stock</s:Text></s:Reason></s:Fault></s:Body></s:Envelope>"""
AWS = b"<ErrorResponse><Error><Code>x</Code><Message>no stock</Message></Error></ErrorResponse>"


@pytest.mark.parametrize("body", [SOAP_11, SOAP_12, AWS])
async def test_the_usual_places_in_xml(body: bytes) -> None:
    assert await error_message(answered(body, "text/xml"), None) == "no stock"
