"""Signatures as AWS documents them: its own examples, word for word."""

from __future__ import annotations

import asyncio

import httpx
import orchestratord_sigv4
import pytest

from orchestratord.testing import Rig, task

AT = 1_440_938_160.0  # 2015-08-30T12:36:00Z, as in the test suite of AWS
KEYS = {
    "access_key": "AKIDEXAMPLE",
    "secret_key": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
    "service": "service",
}


def signed(request: httpx.Request, kind: str = "call", **keys: str) -> httpx.Headers:
    rig = Rig(orchestratord_sigv4)
    endpoint = rig.endpoint("files/get", sigv4={**KEYS, **keys})
    given = task(kind=kind, endpoint_id=endpoint.id)
    return asyncio.run(rig.before(request, task=given, endpoint=endpoint)).headers


@pytest.fixture(autouse=True)
def at_the_time_of_the_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orchestratord_sigv4, "clock", lambda: AT)


def bare(method: str, url: str) -> httpx.Request:
    return httpx.Request(method, url)


def test_get_vanilla_of_the_suite() -> None:
    headers = signed(bare("GET", "https://example.amazonaws.com/"))
    assert headers["Authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        "SignedHeaders=host;x-amz-date, "
        "Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
    )


def test_get_vanilla_query_order_of_the_suite() -> None:
    url = "https://example.amazonaws.com/?Param2=value2&Param1=value1"
    assert signed(bare("GET", url))["Authorization"].endswith(
        "Signature=b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"
    )


def test_body_and_path_change_the_signature() -> None:
    one = signed(httpx.Request("POST", "https://example.amazonaws.com/a", content=b"1"))
    other = signed(httpx.Request("POST", "https://example.amazonaws.com/a", content=b"2"))
    third = signed(httpx.Request("POST", "https://example.amazonaws.com/b", content=b"1"))
    assert len({headers["Authorization"] for headers in (one, other, third)}) == 3


def test_s3_and_temporary_credentials_have_headers_of_their_own() -> None:
    headers = signed(bare("GET", "https://b.s3.amazonaws.com/k"), service="s3", session_token="t")
    assert headers["X-Amz-Security-Token"] == "t"
    assert headers["X-Amz-Content-Sha256"].startswith("e3b0c442")
    assert "x-amz-content-sha256" in headers["Authorization"]


def test_deliveries_and_other_apis_are_left_alone() -> None:
    url = "https://example.amazonaws.com/"
    assert "Authorization" not in signed(bare("POST", url), kind="webhook")
    rig = Rig(orchestratord_sigv4)
    assert "Authorization" not in asyncio.run(rig.before(bare("GET", url))).headers
