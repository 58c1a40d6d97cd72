"""Secrets are found in whatever form they stand in a text."""

from __future__ import annotations

import base64
import json
import re
from typing import Any
from urllib.parse import quote, quote_plus, urlencode

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orchestratord.values.redact import MASK, Redactor, is_secret_header

SECRETS = [
    "hunter2-hunter2",
    "pa ss/w+rd=?&",
    'quo"te\\back',
    "gehe1m€ß",
    "sk_live_51Habcdef0123456789",
    "dGhpcyBpcyBhIGtleQ==",
    "abcd",
]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize(
    "form",
    [
        str,
        lambda s: quote(s, safe=""),
        quote,
        quote_plus,
        lambda s: urlencode({"k": s}).removeprefix("k="),
        lambda s: json.dumps(s)[1:-1],
        lambda s: json.dumps(s, ensure_ascii=False)[1:-1],
        lambda s: json.dumps(s)[1:-1].replace("/", "\\/"),
        lambda s: re.sub("%..", lambda match: match[0].lower(), quote(s, safe="")),
    ],
)
def test_a_secret_is_masked_in_every_form(secret: str, form: Any) -> None:
    text = Redactor([secret]).text(f"before {form(secret)} after")
    assert text == f"before {MASK} after"


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("before", ["", "a", "ab", "abc", "user:", "somebody@example.com:"])
@pytest.mark.parametrize("after", ["", "z", "zz", ":more"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_a_secret_within_base64_is_masked_at_every_offset(
    secret: str, before: str, after: str, encode: Any
) -> None:
    encoded = encode(f"{before}{secret}{after}".encode()).decode()
    # Each character carries six bits: those between the first and the last bit of the secret.
    first, length = len(before.encode()), len(secret.encode())
    masked = f"{encoded[: -(-first * 8 // 6)]}{MASK}{encoded[(first + length) * 8 // 6 :]}"
    assert Redactor([secret]).text(f"Basic {encoded}") == f"Basic {masked}"


def test_basic_auth_as_httpx_sends_it() -> None:
    request = httpx.Request("GET", "http://x")
    next(httpx.BasicAuth("user", "hunter2-hunter2").auth_flow(request))
    shown = Redactor(["hunter2-hunter2"]).text(request.headers["authorization"])
    assert "aHVudGVyMi1odW50ZXIy" not in shown
    assert MASK in shown


def test_a_short_secret_is_left_alone() -> None:
    assert Redactor(["abc", ""]).text("abc abcabc") == "abc abcabc"
    assert Redactor(["abcd"]).text("abcabcd") == f"abc{MASK}"


def test_the_longest_of_several_secrets_is_masked_whole() -> None:
    redactor = Redactor(["token", "token-1234", "token-12"])
    assert redactor.text("token-1234 token-12 token") == f"{MASK} {MASK} {MASK}"


def test_a_secret_with_a_line_end_is_masked_without_it() -> None:
    redactor = Redactor(["hunter2hunter2\n"])
    assert redactor.text("x hunter2hunter2 y") == f"x {MASK} y"


def test_characters_that_mean_something_in_patterns_are_plain() -> None:
    redactor = Redactor([".*[a]+(b)|c?^$"])
    assert redactor.text("anything") == "anything"
    assert redactor.text("x.*[a]+(b)|c?^$x") == f"x{MASK}x"


def test_nothing_known_changes_nothing() -> None:
    text = "any text\n" * 100
    assert Redactor().text(text) == text


def test_values_are_masked_with_their_keys() -> None:
    redactor = Redactor(["hunter2hunter2"])
    value = {
        "hunter2hunter2": ["x hunter2hunter2", {"deep": ("hunter2hunter2", 5, None, True)}],
        "n": 1.5,
    }
    assert redactor.value(value) == {MASK: [f"x {MASK}", {"deep": [MASK, 5, None, True]}], "n": 1.5}


def test_headers_are_masked_by_name_and_by_value() -> None:
    redactor = Redactor(["hunter2hunter2"])
    shown = redactor.headers(
        [
            ("Authorization", "Bearer unknown-to-the-daemon"),
            ("Set-Cookie", "sid=1"),
            ("X-Trace", "hunter2hunter2-7"),
            ("Content-Type", "text/plain"),
        ]
    )
    assert shown == [
        ("Authorization", MASK),
        ("Set-Cookie", MASK),
        ("X-Trace", f"{MASK}-7"),
        ("Content-Type", "text/plain"),
    ]


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("AUTHORIZATION", True), ("Proxy-Authorization", True), ("cookie", True),
        ("X-API-Key", True), ("x-apikey", True), ("X-Shopify-Access-Token", True),
        ("X-Client-Secret", True), ("Api_Key", True), ("X-Amz-Credential", True),
        ("Content-Type", False), ("Idempotency-Key", False), ("webhook-id", False),
        ("Retry-After", False), ("X-Request-Id", False), ("Location", False),
    ],
)  # fmt: skip
def test_which_headers_are_secret_by_name(name: str, secret: bool) -> None:
    assert is_secret_header(name) is secret


def test_after_a_reload_the_old_secrets_are_still_secret() -> None:
    old, new = Redactor(["old-secret"]), Redactor(["new-secret"])
    merged = new.merged(old)
    assert merged.text("old-secret new-secret") == f"{MASK} {MASK}"
    assert merged.merged(old) is merged
    assert new.text("old-secret") == "old-secret"


def test_a_host_is_masked_in_errors_and_not_in_data() -> None:
    redactor = Redactor(["a-secret"], ["hooks.example"]).merged(Redactor(["old-secret"]))
    later = redactor.merged(Redactor([], ["hooks.example"]))
    text = "a-secret old-secret learned at hooks.example"
    for one in (redactor, later):
        assert one.text(text) == f"{MASK} {MASK} learned at {MASK}"
        assert one.data.text(text) == f"{MASK} {MASK} learned at hooks.example"
        assert one.data is one.data
        one.learn("one", ["learned"])
        assert one.data.text(text) == f"{MASK} {MASK} {MASK} at hooks.example"
        assert not one.is_in("hooks.example")
    assert redactor.merged(Redactor([], ["other.example"])).text("other.example") == MASK


def test_hundreds_of_secrets_that_begin_alike() -> None:
    secrets = [f"aaaaaaaa{number:04d}" for number in range(300)]
    redactor = Redactor(secrets)
    text = "a" * 20_000
    assert redactor.text(text) == text
    assert redactor.text(f"{text}0299{text}") == f"{'a' * 19_992}{MASK}{text}"


@settings(deadline=None)
@given(
    secret=st.text(st.characters(codec="utf-8"), min_size=4, max_size=40),
    before=st.text(st.characters(codec="utf-8"), max_size=20),
    after=st.text(st.characters(codec="utf-8"), max_size=20),
)
@example(secret="****", before="", after="")
def test_no_text_keeps_a_secret(secret: str, before: str, after: str) -> None:
    redactor = Redactor([secret])
    for text in (
        f"{before}{secret}{after}",
        quote(f"{before}{secret}{after}", safe=""),
        json.dumps({before: f"{before}{secret}{after}"}),
    ):
        masked = redactor.text(text)
        assert MASK in masked
        if secret not in MASK * 3 and secret not in before + MASK + after:
            assert secret not in masked


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("demonstration", False),
        (base64.b64encode(b"demo").decode(), False),
        ({"env": ["demonstration", 41234, True, None, 1.5]}, False),
        ("demo", True),
        ({"env": {"a": ["demo"]}}, True),
        ({"demo": 1}, True),
        (1234, True),
        ("1234", True),
        (12.25, True),
        (-1234, False),
        ([10**5000], False),
        ("a long-secret-1 in a text", True),
        (base64.b64encode(b"user:long-secret-1").decode(), True),
        (123456789012, True),
        (91234567890120, True),
    ],
)
@pytest.mark.parametrize("learned", [False, True])
def test_what_a_call_may_not_hold(value: Any, found: bool, learned: bool) -> None:
    secrets = ["demo", "1234", "12.25", "long-secret-1", "123456789012"]
    redactor = Redactor([] if learned else secrets)
    if learned:
        redactor.learn("one", secrets)
    assert redactor.is_in(value) is found
    assert redactor.merged(Redactor(["other"])).is_in(value) is (found and not learned)
    assert Redactor(["other"]).merged(redactor).is_in(value) is found
    assert bool(redactor.problems_in({"value": value})) is found


def test_short_secrets_are_masked_wherever_they_stand() -> None:
    assert Redactor(["demo"]).text("demonstration") == f"{MASK}nstration"
