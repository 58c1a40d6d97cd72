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


# As botocore 1.43.11 signs them, which takes paths that are encoded already.
BOTOCORE = {
    ("s3", "/a%20b/c%2Bd%28e%29%3D%40%24.txt"):
        "4423f85519372b6ecab019bd69dbd0e56bf6099c7c7cefc76a5e6d315b852396",
    ("s3", "/a b/c%2Bd(e)=@$.txt"):
        "4423f85519372b6ecab019bd69dbd0e56bf6099c7c7cefc76a5e6d315b852396",
    ("s3", "/caf%C3%A9~x?list-type=2&prefix=a%2Fb"):
        "857544e30fad1ebaf7aae4d7eadb46d9d4534c9e2b7df8a23c85350b83a67d2a",
    ("s3", "/?lifecycle"):
        "a2436956c1bfbfec954a8f3dda2b072fd2c13eef1e05de09764ca699fa5582d3",
    ("execute-api", "/prod/a%20b(c)/%E2%98%83"):
        "e89fafe3dc5cd2b11491c3907c6089bd0260512d362c84890461175847b8fd6d",
    ("execute-api", "/prod//a"):
        "7e4546a8f212c7c6173c9a7352183a3d6004965006be2ddcd875fbe0ca32d22a",
    ("sqs", "/1/q?Action=x&B=a%2Bb"):
        "5f58d948d7d7661c371c13143ae309414b9a455764a1046712bcc379b7c6dd23",
}  # fmt: skip
HOSTS = {"s3": "b.s3", "execute-api": "x.execute-api", "sqs": "sqs"}


@pytest.mark.parametrize(("service", "path"), BOTOCORE)
def test_paths_are_signed_as_botocore_signs_them(service: str, path: str) -> None:
    url = f"https://{HOSTS[service]}.amazonaws.com{path}"
    keys = {"service": service, "secret_key": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"}
    signature = signed(bare("GET", url), **keys)["Authorization"]
    assert signature.endswith(f"Signature={BOTOCORE[service, path]}")


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
