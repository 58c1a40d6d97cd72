"""What is kept of an answer: bounded, and without secrets."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestratord.engine.stored_answer import (
    STORED_BODY,
    STORED_ERROR,
    error_record,
    response_record,
)
from orchestratord.model.http_message import Response
from orchestratord.queue.rows import response_of
from orchestratord.values.redact import MASK, Redactor

SECRET = "hunter2-hunter2-hunter2-hunter2"
NONE, KNOWN = Redactor(), Redactor([SECRET])


def record(content: bytes, redactor: Redactor = NONE, **kwargs: Any) -> dict[str, Any]:
    """What is read of a row again."""
    response = httpx.Response(200, content=content, **kwargs)
    read = response_of(response_record(response, redactor, 200))
    assert read is not None
    return read


def test_a_small_answer_is_kept_as_it_is() -> None:
    kept = record("grüße".encode(), headers={"Content-Type": "text/plain"})
    assert kept["status_code"] == 200
    assert kept["body"] == "grüße"
    assert kept["truncated"] is False
    assert "encoding" not in kept
    assert ["content-type", "text/plain"] in [[name.lower(), v] for name, v in kept["headers"]]
    json.dumps(kept)


def test_repeated_headers_are_kept_apart_and_secret_ones_masked() -> None:
    response = httpx.Response(
        200,
        headers=[("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("X-N", "1"), ("X-N", "2"),
                 ("X-Echo", f"<{SECRET}>")],
    )  # fmt: skip
    headers = json.loads(response_record(response, KNOWN, 200))["headers"]
    assert [value for name, value in headers if name.lower() == "set-cookie"] == [MASK, MASK]
    assert [value for name, value in headers if name.lower() == "x-n"] == ["1", "2"]
    assert [value for name, value in headers if name.lower() == "x-echo"] == [f"<{MASK}>"]


@pytest.mark.parametrize(("size", "truncated"), [(STORED_BODY, False), (STORED_BODY + 1, True)])
def test_a_body_is_cut_at_its_bound(size: int, truncated: bool) -> None:
    kept = record(b"x" * size)
    assert kept["body"] == "x" * STORED_BODY
    assert kept["truncated"] is truncated


@pytest.mark.parametrize("before", range(4))
def test_a_cut_through_a_character_drops_it(before: int) -> None:
    kept = record(b"a" * before + "€".encode() * 10_000)
    assert len(kept["body"].encode()) <= STORED_BODY
    assert len(kept["body"].encode()) > STORED_BODY - 3
    assert set(kept["body"]) <= {"a", "€"}
    assert kept["truncated"] is True
    assert "encoding" not in kept


def test_what_is_no_text_is_kept_as_base64() -> None:
    content = bytes(range(256)) * 200
    kept = record(content)
    assert kept["encoding"] == "base64"
    assert base64.b64decode(kept["body"]) == content[:STORED_BODY]
    assert kept["truncated"] is True
    kept = record(b"\xff\xfe")
    assert (base64.b64decode(kept["body"]), kept["truncated"]) == (b"\xff\xfe", False)
    # Half a character at the end of all is no text either.
    assert record("a€".encode()[:-1])["encoding"] == "base64"


def test_what_the_transport_had_cut_says_so() -> None:
    response = httpx.Response(200, content=b"x", extensions={"truncated": True})
    assert json.loads(response_record(response, NONE, 200))["truncated"] is True
    response = httpx.Response(200, content=b"", extensions={"truncated": True})
    assert json.loads(response_record(response, NONE, 200))["truncated"] is True


def test_no_body_is_an_empty_one_that_takes_no_room() -> None:
    assert record(b"") == {"status_code": 200, "headers": [], "body": "", "truncated": False}
    kept = response_record(httpx.Response(200), NONE, 200)
    assert kept == '{"status_code":200,"headers":[]}'


def test_what_is_remembered_of_headers_is_another_answer_s_only_where_nothing_differs() -> None:
    """Neither its status code, nor one value, nor a secret that came up since."""

    def kept(code: int, token: bytes, content: bytes = b"") -> Any:
        request = httpx.Request("GET", "http://127.0.0.1")
        fields = [(b"X-A", b"1"), (b"X-B", token)]
        return json.loads(
            response_record(Response(code, fields, content, request, {}), known, code)
        )

    known = Redactor()
    for code, token, content in [
        (200, b"abcdef", b""), (200, b"abcdef", b"x"), (201, b"abcdef", b""), (201, b"bcdefg", b""),
    ]:  # fmt: skip
        for _ in range(2):
            body = {"body": content.decode()} if content else {}
            headers = [["x-a", "1"], ["x-b", token.decode()]]
            assert kept(code, token, content) == {"status_code": code, "headers": headers, **body}
    known.learn("auth", ["bcdefg"])
    assert kept(201, b"bcdefg")["headers"] == [["x-a", "1"], ["x-b", MASK]]


def test_an_answer_of_an_older_daemon_reads_as_before() -> None:
    whole = {"status_code": 200, "headers": [["a", "b"]], "body": "", "truncated": False}
    assert response_of(json.dumps(whole)) == whole
    oldest = {"status_code": 200, "headers": {}, "body": "ok"}
    assert response_of(json.dumps(oldest)) == oldest


@pytest.mark.parametrize("before", [0, 100, STORED_BODY - 31, STORED_BODY - 30, STORED_BODY - 4,
                                    STORED_BODY - 1, STORED_BODY])  # fmt: skip
@pytest.mark.parametrize("lead", [b"", b"\xff"])
def test_a_secret_is_masked_also_where_the_cut_goes_through_it(before: int, lead: bytes) -> None:
    content = lead + b"." * before + SECRET.encode() + b"." * 100
    kept = record(content, KNOWN)
    body = base64.b64decode(kept["body"]) if lead else kept["body"].encode()
    assert SECRET[:4].encode() not in body
    assert len(body) <= STORED_BODY
    assert (MASK.encode() in body) == (len(lead) + before + len(MASK) <= STORED_BODY)


def test_what_was_masked_before_the_cut_brings_no_other_half_in() -> None:
    """Masks are shorter than secrets: what follows moves up, to the end of what was looked at."""
    many = (SECRET.encode() + b" ") * 400
    for size in range(24_050, 24_120):
        content = many + b"." * (size - len(many)) + SECRET.encode() + b"." * 100
        body = record(content, KNOWN)["body"]
        assert SECRET[:4] not in body


@settings(deadline=None, max_examples=60)
@given(
    pieces=st.lists(st.sampled_from([SECRET, "x" * 37, "é" * 53, "\x00", "."]), max_size=12),
    repeat=st.integers(1, 200),
)
def test_no_body_keeps_a_secret(pieces: list[str], repeat: int) -> None:
    kept = record(("".join(pieces) * repeat).encode(), KNOWN)
    assert SECRET[:6] not in kept["body"]
    assert len(kept["body"].encode()) <= STORED_BODY


# -- errors ---------------------------------------------------------------------------------------


def test_an_error_is_one_line() -> None:
    assert error_record("first\n  second\tthird\r\n", NONE) == "first second third"
    assert error_record(None, NONE) is None
    assert error_record("", NONE) == ""


def test_a_long_error_is_cut() -> None:
    kept = error_record("x" * 5000, NONE)
    assert kept is not None
    assert len(kept) == STORED_ERROR
    assert kept.endswith("x…")
    assert error_record("x" * STORED_ERROR, NONE) == "x" * STORED_ERROR


@pytest.mark.parametrize("secret", ["two  blanks", "line\nend-of-it", "tab\there", "a b c d e"])
def test_a_secret_with_blanks_in_it_is_masked_although_lines_are_joined(secret: str) -> None:
    redactor = Redactor([secret])
    assert error_record(f"refused: {secret}!", redactor) == f"refused: {MASK}!"
    joined = " ".join(secret.split())
    kept = error_record("a b\nc d e", Redactor(["a b c d e"]))
    assert kept == MASK
    assert joined not in str(error_record(f"x {secret}", redactor))


def test_a_secret_at_the_cut_is_masked() -> None:
    for before in range(STORED_ERROR - 40, STORED_ERROR + 1):
        kept = error_record("x" * before + SECRET, KNOWN)
        assert kept is not None
        assert SECRET[:4] not in kept


def test_a_plugin_s_answer_may_have_as_many_headers_as_it_likes() -> None:
    response = httpx.Response(200, headers=[("X-A", "x" * 1000)] * 3000)
    kept = json.loads(response_record(response, NONE, 200))["headers"]
    assert len(kept) == 65  # of 64 KiB
    assert kept[0] == ["x-a", "x" * 1000]
