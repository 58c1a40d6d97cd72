"""What expressions see of an answer."""

from __future__ import annotations

import tracemalloc
from typing import Any

import httpx
import pytest
from pydantic import TypeAdapter, ValidationError

from orchestratord.http.answer_view import (
    MOST_XML,
    AnswerView,
    UnreadableBody,
    look,
    read_body,
    read_text,
)
from orchestratord.model.answer_expression import AnswerExpression
from orchestratord.values.budget import Budget
from orchestratord.values.jmespath_expression import Expression

XML = "text/xml; charset=utf-8"
FAULT = """<?xml version="1.0" encoding="utf-8"?>
<soap:Envelope xmlns:soap="http://schemas.xmlsoap.org/soap/envelope/" soap:encodingStyle="x">
  <soap:Body><soap:Fault xmlns="">
    <faultcode>soap:Server</faultcode><faultstring xml:lang="en">no stock</faultstring>
    <detail><item n="1"/><item>two</item></detail>
  </soap:Fault></soap:Body>
</soap:Envelope>"""


def answered(body: str | bytes, kind: str = "", **headers: str) -> httpx.Response:
    if kind:
        headers["content-type"] = kind
    content = body if isinstance(body, bytes) else body.encode()
    return httpx.Response(200, headers=headers, content=content)


def found(response: httpx.Response, expression: str) -> Any:
    return AnswerView(response).search(Expression(expression))


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("status_code", 200),
        ("headers.\"x-job\"", "7"),
        ("body.a.b", [1]),
        ("text", '{"a": {"b": [1]}}'),
        ("sort(keys({s: status_code, h: headers, b: body, t: text}))", list("bhst")),
        # These name nothing of the document, and so mean the body alone.
        ("a.b", [1]),
        ("@.a.b", [1]),
        ("length(@)", 1),
    ],
)  # fmt: skip
def test_the_document_or_the_body_alone(expression: str, value: Any) -> None:
    response = answered('{"a": {"b": [1]}}', **{"X-Job": "7"})
    assert found(response, expression) == value


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("body.Envelope.Body.Fault.faultcode", "soap:Server"),
        ("body.Envelope.Body.Fault.faultstring", {"@lang": "en", "#text": "no stock"}),
        ("body.Envelope.Body.Fault.detail.item", [{"@n": "1"}, "two"]),
        ("body.Envelope.\"@encodingStyle\"", "x"),
        ("Envelope.Body.Fault.faultcode", "soap:Server"),
    ],
)  # fmt: skip
def test_xml_by_local_names(expression: str, value: Any) -> None:
    assert found(answered(FAULT, XML), expression) == value
    assert found(answered(FAULT), expression) == value, "without a Content-Type"


def test_xml_in_the_charset_that_it_names() -> None:
    declared = '<?xml version="1.0" encoding="iso-8859-1"?><a>é</a>'.encode("iso-8859-1")
    assert read_body(answered(declared, "application/xml")) == {"a": "é"}
    said = answered("<a>é</a>".encode("iso-8859-1"), "application/soap+xml; charset=iso-8859-1")
    assert read_body(said) == {"a": "é"}


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ('<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "entities are disabled"),
        ("<a>" * 100 + "</a>" * 100, "nested deeper than 64"),
        ("<a>" * 100, "nested deeper than 64"),
        ("<a{}/>".format("".join(f" a{n}=''" for n in range(MOST_XML))), "more than 200,000"),
        (f"<a>{'<b/>' * (MOST_XML + 1)}</a>", "more than 200,000 elements"),
        ("<a>", "no element found"),
    ],
)
def test_xml_that_is_not_taken(body: str, why: str) -> None:
    with pytest.raises(UnreadableBody, match="no XML that is taken") as refused:
        read_body(answered(body, XML))
    assert why in refused.value.detail


def test_what_is_too_deep_takes_no_memory() -> None:
    tracemalloc.start()
    try:
        with pytest.raises(UnreadableBody):
            read_body(answered("<a>" * 500_000, XML))
        assert tracemalloc.get_traced_memory()[1] < 4 << 20  # the text itself has 1.5 MB
    finally:
        tracemalloc.stop()


def test_xml_loads_nothing() -> None:
    outside = answered('<!DOCTYPE a SYSTEM "file:///etc/passwd"><a>x&b;</a>', XML)
    assert read_body(outside) == {"a": "x"}


def test_the_fields_of_a_form() -> None:
    response = answered("a=1&b=x+y&b=&c=", "application/x-www-form-urlencoded")
    assert read_body(response) == {"a": "1", "b": ["x y", ""], "c": ""}


@pytest.mark.parametrize(
    ("response", "why"),
    [
        (answered("<html>", "text/html"), "the body is no JSON"),
        (answered("[" * 100_000), "the body is no JSON"),
        (answered("NaN"), "the body is no JSON"),
    ],
)
def test_a_body_that_is_nothing_of_that(response: httpx.Response, why: str) -> None:
    with pytest.raises(UnreadableBody, match=why):
        found(response, "body.a")
    assert found(response, "status_code") == 200, "what does not name it is answered"


def test_json_in_the_charset_that_it_names() -> None:
    latin = '{"a": "é"}'.encode("iso-8859-1")
    assert found(answered(latin, "application/json; charset=ISO-8859-1"), "body.a") == "é"
    for kind in ("", "; charset=utf-8", "; charset=none-such", "; charset*=a; charset*0=b"):
        with pytest.raises(UnreadableBody, match="the body is no JSON"):
            found(answered(latin, f"application/json{kind}"), "body.a")


def test_an_empty_body_is_null() -> None:
    assert found(answered(""), "body") is None
    assert found(answered(" \n", XML), "body") is None


def test_headers_of_one_name_are_joined() -> None:
    response = httpx.Response(200, headers=[("Link", "a"), ("link", "b")])
    assert found(response, "headers.link") == "a, b"


@pytest.mark.parametrize("expression", ["body.a && b", "status_code == `1` || @", "text == other"])
def test_the_document_and_the_body_cannot_be_mixed(expression: str) -> None:
    with pytest.raises(ValidationError, match="is a part of the answer, and"):
        TypeAdapter(AnswerExpression).validate_python(expression)


async def test_what_is_dear_is_asked_again_in_a_thread() -> None:
    budgets: list[Budget | None] = []

    def ask(document: AnswerView, budget: Budget | None) -> Any:
        budgets.append(budget)
        return document.search(Expression("[body, body]" + " | [@, @]" * 12), budget)

    await look(answered('{"a": "%s"}' % ("x" * 100)), ask)
    assert [budget is None for budget in budgets] == [False, True]


@pytest.mark.parametrize("given", ["=undefined", "*=a; charset*0=b", "*=a%00''b", "=none-such"])
def test_a_receivers_charset_raises_nothing_odd(given: str) -> None:
    """Python knows codecs that refuse with other errors, and cannot read some headers."""
    assert read_text(answered("é", f"text/plain; charset{given}")) == "é"
    with pytest.raises(UnreadableBody):
        read_body(answered("<a/>", f"text/xml; charset{given}"))
