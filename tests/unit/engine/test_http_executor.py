"""The call of an endpoint: the request byte for byte, and what is done about its answer."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from orchestratord.engine.http_executor import HttpExecutor, HttpSpec
from orchestratord.errors import InvalidPayload, Reject
from orchestratord.http.api_client import AttemptClient, Sender
from orchestratord.http.client import HttpClient
from orchestratord.model.auth import Auth
from orchestratord.model.endpoint import Api, Endpoint
from orchestratord.model.outcome import Outcome
from orchestratord.model.retry_policy import RetryPolicy
from orchestratord.model.settings import Config, DaemonSettings
from orchestratord.model.task import Task
from orchestratord.plugin.executor import Target
from orchestratord.values.attached_file import BodyFile
from orchestratord.values.jmespath_expression import Expression
from orchestratord.values.redact import Redactor

NOW = 1_795_557_600.0
"""2026-11-24T22:00:00Z."""
TASK = Task(
    id=42, kind="call", endpoint_id="shop/get", webhook="", phase=None, status="running",
    reason=None, attempts=2, max_attempts=15, next_try=None, params={}, payload=None,
    parent_id=None, created_at=0, updated_at=0, scheduled_at=1_795_557_600_005)  # fmt: skip


def target_of(
    spec: dict[str, Any], *, retry: dict[str, Any] | None = None, timeout: float = 10.0,
    idempotent: bool | None = None, base_url: str = "http://api.example", **api: Any,
) -> Target:  # fmt: skip
    http = HttpSpec.model_validate({"path": "/", **spec})
    executor = HttpExecutor()
    safe = executor.default_idempotent(http) if idempotent is None else idempotent
    endpoint = Endpoint(
        id="shop/get",
        api=Api.model_validate(
            {"name": "shop", "base_url": base_url, "egress": ("127.0.0.1",), **api}
        ),
        type="http",
        spec=http,
        retry=RetryPolicy.model_validate({"jitter": 0, **(retry or {})}),
        timeout=timeout,
        idempotent=safe,
    )
    config = Config(Path(), DaemonSettings(), {}, {}, Redactor(), "")
    target = executor.standing(endpoint, "", config)
    assert isinstance(target, Target)
    return target


def prepare(
    spec: dict[str, Any], params: dict[str, Any] | None = None, **api: Any
) -> httpx.Request:
    executor = HttpExecutor()
    executor.bind("q7", {"shop/get": 1_795_557_000_000})
    return executor.prepare(replace(TASK, params=params or {}), target_of(spec, **api), NOW)


def raw_url(spec: dict[str, Any], params: dict[str, Any] | None = None, **api: Any) -> str:
    request = prepare(spec, params, **api)
    return request.url.raw_path.decode()


# -- the URL --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base_url", "path", "url"),
    [
        ("http://h", "/a", "http://h/a"),
        ("http://h/", "/a", "http://h/a"),
        ("http://h/v1", "/a", "http://h/v1/a"),
        ("http://h/v1/", "a/", "http://h/v1/a/"),
        ("http://h:8080", "", "http://h:8080/"),
        ("https://h", "/services/data/v59.0/sobjects/User/", "https://h/services/data/v59.0/sobjects/User/"),
        ("http://h", "/a?x=1", "http://h/a?x=1"),
        ("http://h", "/a#b", "http://h/a%23b"),
        ("http://h", "//a//b", "http://h//a//b"),
        ("http://h", "/@evil.example/", "http://h/@evil.example/"),
        ("http://h", "/a%2Fb", "http://h/a%2Fb"),
        ("http://h", "/a;v=1,2:3!$&'()*+~", "http://h/a;v=1,2:3!$&'()*+~"),
        ("http://h", "/ü b", "http://h/%C3%BC%20b"),
    ],
)  # fmt: skip
def test_the_path_is_added_to_the_base_url(base_url: str, path: str, url: str) -> None:
    assert str(prepare({"path": path}, base_url=base_url).url) == url


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        ("plain-_.~", "plain-_.~"),
        ("a/b", "a%2Fb"),
        ("a b+c", "a%20b%2Bc"),
        ("?x=1&y#z", "%3Fx%3D1%26y%23z"),
        ("%2F", "%252F"),
        ("é/€", "%C3%A9%2F%E2%82%AC"),
        ("@evil.example", "%40evil.example"),
        ("//evil.example/", "%2F%2Fevil.example%2F"),
        ("a\r\nHost: evil", "a%0D%0AHost%3A%20evil"),
        ("\x00", "%00"),
        ("!$&'()*+,;=:", "%21%24%26%27%28%29%2A%2B%2C%3B%3D%3A"),
        ("...", "..."),
        ("..a", "..a"),
        (7, "7"),
        (True, "true"),
        (1.5, "1.5"),
    ],
)
def test_a_value_in_the_path_is_one_piece_of_it(value: Any, encoded: str) -> None:
    request = prepare({"path": "/u/{{ params.v }}/end"}, {"v": value})
    assert request.url.raw_path == f"/u/{encoded}/end".encode()
    assert request.url.host == "api.example"


@pytest.mark.parametrize(
    "value", ["..", ".", "../x", "a/../b", "/..", "..\\x", "./x", "a/.", "x/..", "..\\..\\x"]
)
def test_a_value_cannot_climb_out_of_the_path(value: str) -> None:
    with pytest.raises(InvalidPayload, match="climb"):
        prepare({"path": "/u/{{ params.v }}/end"}, {"v": value})


def test_pieces_of_a_segment_cannot_climb_either() -> None:
    with pytest.raises(InvalidPayload, match="climb"):
        prepare({"path": "/u/{{ params.a }}{{ params.b }}/x"}, {"a": ".", "b": "."})
    with pytest.raises(InvalidPayload, match="climb"):
        prepare({"path": "/u/.{{ params.a }}/x"}, {"a": "."})
    # What is encoded twice is a name like any other; so is what stands in the query.
    assert raw_url({"path": "/u/{{ params.a }}"}, {"a": "%2e%2e"}) == "/u/%252e%252e"
    assert raw_url({"path": "/u?d={{ params.a }}"}, {"a": "../x"}) == "/u?d=..%2Fx"


@settings(deadline=None)
@given(st.text(max_size=30), st.text(max_size=10))
def test_no_value_leaves_its_place_in_the_url(value: str, other: str) -> None:
    spec = {"path": "/u/{{ params.v }}/end", "query": {"q": "{{ params.o }}"}}
    try:
        request = prepare(spec, {"v": value, "o": other})
    except InvalidPayload:
        return
    path, _, query = request.url.raw_path.partition(b"?")
    assert path.count(b"/") == 3
    assert path.startswith(b"/u/")
    assert path.endswith(b"/end")
    assert query.count(b"=") == 1
    assert b"&" not in query
    assert request.url.host == "api.example"


# -- the query ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "params", "raw"),
    [
        ({"a": "1", "b": "x y"}, {}, "/?a=1&b=x%20y"),
        ({"limit": 50, "on": True}, {}, "/?limit=50&on=true"),
        ({"limit": "{{ params.limit }}"}, {"limit": 50}, "/?limit=50"),
        ({"limit": "{{ params.limit }}"}, {"limit": None}, "/"),
        ({"a": "{{ params.a }}", "b": "{{ params.b }}"}, {"a": None, "b": 0}, "/?b=0"),
        ({"a": "{{ params.a }}"}, {"a": ""}, "/?a="),
        ({"a": "{{ params.a }}"}, {"a": False}, "/?a=false"),
        ({"id": "{{ params.ids }}"}, {"ids": [1, "b&c", None, True]}, "/?id=1&id=b%26c&id=true"),
        ({"id": "{{ params.ids }}"}, {"ids": []}, "/"),
        ({"id": "n{{ params.ids }}"}, {"ids": [1, 2]}, "/?id=n%5B1%2C%202%5D"),
        ({"f": "{{ params.f }}"}, {"f": {"a": [1]}}, "/?f=%7B%22a%22%3A%20%5B1%5D%7D"),
        ({"a b": "é/+%&=#?"}, {}, "/?a%20b=%C3%A9%2F%2B%25%26%3D%23%3F"),
        ({"q": "SELECT Id FROM User WHERE Name = 'O''Hara'"}, {},
         "/?q=SELECT%20Id%20FROM%20User%20WHERE%20Name%20%3D%20%27O%27%27Hara%27"),
        ({"since": "{{ task.scheduled_at }}"}, {}, "/?since=2026-11-24T22%3A00%3A00.005Z"),
    ],
)  # fmt: skip
def test_the_query_byte_for_byte(query: dict[str, Any], params: dict[str, Any], raw: str) -> None:
    assert raw_url({"query": query}, params) == raw


@pytest.mark.parametrize(
    ("target", "url"),
    [
        ("/jobs/7?x=1", "http://api.example/jobs/7?x=1&y=2"),
        ("jobs/7", "http://api.example/v1/jobs/7?y=2"),
        ("?page=2", "http://api.example/v1/?page=2&y=2"),
        ("http://api.example/a%2Fb#top", "http://api.example/a%2Fb?y=2"),
        ("HTTP://API.example:80/x", "http://api.example/x?y=2"),
    ],
)
def test_a_parameter_says_the_whole_target(target: str, url: str) -> None:
    spec = {"path": {"from": "params.job.at"}, "query": {"y": "2"}}
    request = prepare(spec, {"job": {"at": target}}, base_url="http://api.example/v1")
    assert str(request.url) == url


@pytest.mark.parametrize(
    "target",
    [
        "https://api.example/x", "http://api.example:81/x", "http://other.example/x",
        "//other.example/x", "http://me:pw@api.example/x", "file:///etc/passwd", "mailto:a@b",
        "http://api.example.evil.example/", "http://api.example@evil.example/", "http://[::1/",
        "a\nb", 7, None, ["/x"],
    ],
)  # fmt: skip
def test_another_origin_is_rejected(target: Any) -> None:
    with pytest.raises(Reject, match=r"^path\.from: .* is (no URL: |not of the origin)"):
        prepare({"path": {"from": "params.at"}}, {"at": target})


@pytest.mark.parametrize("value", ["location", "params", "{{ params.a }}", "params.a.", "task.id"])
def test_a_target_from_what_is_no_parameter(value: str) -> None:
    with pytest.raises(ValidationError, match=r"names a parameter, such as params\.location"):
        HttpSpec.model_validate({"path": {"from": value}})


def test_a_query_in_the_path_goes_first() -> None:
    assert raw_url({"path": "/a?x=1", "query": {"y": "2"}}) == "/a?x=1&y=2"
    assert raw_url({"path": "/a#b", "query": {"y": "2"}}) == "/a%23b?y=2"


# -- the headers ----------------------------------------------------------------------------------


def test_the_endpoints_headers_win_over_the_apis() -> None:
    request = prepare(
        {"headers": {"x-trace": "{{ task.id }}/{{ task.attempt }}", "user-agent": "mine"}},
        headers={"X-Trace": "api", "X-Team": "{{ params.team }}"},
        params={"team": "a"},
    )
    assert request.headers.get_list("x-trace") == ["42/2"]
    assert request.headers["X-Team"] == "a"
    assert request.headers.get_list("User-Agent") == ["mine"]
    assert request.headers["Host"] == "api.example"


def test_what_a_header_may_hold() -> None:
    request = prepare({"headers": {"X-A": "{{ params.v }}", "X-N": 5}}, {"v": "ü\tx"})
    assert request.headers.raw[-2:] == [(b"X-A", "ü\tx".encode()), (b"X-N", b"5")]


@pytest.mark.parametrize(
    "value", ["a\rb", "a\nb", "a\r\nEvil: 1", "\x00", "a\x7f", "\x1b[31m", "\n"]
)
def test_a_header_with_a_line_break_is_refused(value: str) -> None:
    with pytest.raises(InvalidPayload, match="X-A would hold a control character"):
        prepare({"headers": {"X-A": "x{{ params.v }}"}}, {"v": value})
    with pytest.raises(InvalidPayload, match="control character"):
        prepare({"headers": {"X-A": value}})
    with pytest.raises(InvalidPayload, match="control character"):
        prepare({}, headers={"X-A": value})
    with pytest.raises(InvalidPayload, match="Authorization would hold a control character"):
        prepare({}, auth={"bearer": f"t{value}t"})
    with pytest.raises(InvalidPayload, match="X-Key would hold a control character"):
        prepare({}, auth={"header": {"name": "X-Key", "value": f"t{value}t"}})


@pytest.mark.parametrize("name", ["", "X A", "X:A", "X\r\nA", "Ü", "X\x00"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(InvalidPayload, match="is not the name of a header"):
        prepare({"headers": {name: "x"}})


def wire_headers(request: httpx.Request) -> list[tuple[str, str]]:
    return [(name.decode(), value.decode()) for name, value in request.headers.raw]


def test_the_order_of_the_headers() -> None:
    """Those of the client, the API's, the endpoint's, who calls, and what belongs to the body."""
    request = prepare(
        {
            "method": "POST",
            "headers": {"X-Trace": "{{ task.id }}", "X-Last": "e"},
            "body": {"text": "hello"},
        },
        headers={"X-Team": "{{ params.team }}", "X-Api": "a"},
        auth={"bearer": "t0ken"},
        params={"team": "blue"},
    )
    assert wire_headers(request) == [
        ("Host", "api.example"),
        ("User-Agent", "orchestratord"),
        ("Accept", "*/*"),
        ("Accept-Encoding", request.headers["Accept-Encoding"]),
        ("X-Team", "blue"),
        ("X-Api", "a"),
        ("X-Trace", "42"),
        ("X-Last", "e"),
        ("Authorization", "Bearer t0ken"),
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Idempotency-Key", "q7-42"),
        ("Content-Length", "5"),
    ]


@pytest.mark.parametrize(
    ("api", "own"),
    [("constant", "other"), ("constant", "{{ params.v }}"), ("{{ params.w }}", "constant"),
     ("{{ params.w }}", "{{ params.v }}"), ("{{ params.w }}", "x{{ task.id }}")],
)  # fmt: skip
@pytest.mark.parametrize("name", ["X-Other", "x-other", "X-OTHER"])
def test_a_header_has_one_value_and_keeps_its_place(name: str, api: str, own: str) -> None:
    request = prepare(
        {"headers": {name: own, "X-After": "2"}},
        {"v": "rendered"},  # and what is overridden is not even looked at
        headers={"X-Before": "1", "X-Other": api, "X-Between": "{{ params.v }}"},
    )
    value = {"other": "other", "constant": "constant", "{{ params.v }}": "rendered"}.get(own, "x42")
    found = [(key.lower(), text) for key, text in wire_headers(request)][4:]
    assert found == [
        ("x-before", "1"), ("x-other", value), ("x-between", "rendered"), ("x-after", "2"),
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["mine", "{{ params.v }}"])
@pytest.mark.parametrize("name", ["Authorization", "authorization"])
def test_who_calls_wins_over_a_header_of_the_same_name(name: str, text: str) -> None:
    for auth, value in (
        ({"bearer": "t0ken"}, "Bearer t0ken"),
        ({"basic": {"username": "u", "password": "p"}}, "Basic dTpw"),
        ({"header": {"name": "AUTHORIZATION", "value": "k3y"}}, "k3y"),
    ):
        for spec, api in (({"headers": {name: text}}, {}), ({}, {name: text})):
            request = prepare(spec, headers=api, auth=auth)
            assert request.headers.get_list("Authorization") == [value]


@pytest.mark.parametrize("text", ["mine", "m{{ params.v }}"])
@pytest.mark.parametrize(
    "name",
    ["Content-Type", "content-type", "Idempotency-Key", "IDEMPOTENCY-KEY", "User-Agent", "accept",
     "accept-encoding"],
)  # fmt: skip
def test_what_the_file_says_wins_over_what_is_added(name: str, text: str) -> None:
    for own, api in (({name: text}, {}), ({}, {name: text})):
        spec = {"method": "POST", "body": {"json": {}}, "headers": own}
        request = prepare(spec, {"v": "ine"}, headers=api)
        assert request.headers.get_list(name) == ["mine"]


HEADER_NAMES = st.sampled_from(["X-A", "x-a", "X-B", "x-B", "Accept", "accept", "Authorization"])
HEADER_TEXTS = st.sampled_from(["1", "two", "{{ params.v }}", "{{ task.id }}", "{{ params.none }}"])
DECLARED = st.dictionaries(HEADER_NAMES, HEADER_TEXTS, max_size=5)


@given(api=DECLARED, own=DECLARED, called=st.booleans())
def test_headers_are_those_that_one_after_the_other_would_set(
    api: dict[str, str], own: dict[str, str], called: bool
) -> None:
    rendered = {"{{ params.v }}": "v", "{{ task.id }}": "42", "{{ params.none }}": ""}
    expected = httpx.Headers({"User-Agent": "orchestratord", "Accept": "*/*"})
    expected["Accept-Encoding"] = ""
    for name, text in {**api, **own}.items():
        expected[name] = rendered.get(text, text)
    if called:
        expected["Authorization"] = "Bearer t"
    auth: dict[str, Any] = {"auth": {"bearer": "t"}} if called else {}
    request = prepare({"headers": own}, {"v": "v", "none": None}, headers=api, **auth)
    expected["Accept-Encoding"] = request.headers["Accept-Encoding"]
    # What is null in the end is left out.
    left = [(name, value) for name, value in expected.multi_items() if value]
    assert request.headers.multi_items()[1:] == left


def test_a_header_that_is_null_is_left_out() -> None:
    declared = {"X-A": "{{ params.a }}", "X-B": "b{{ params.a }}", "X-C": "{{ params.c }}"}
    request = prepare({"headers": declared}, {"a": None, "c": ""})
    assert "x-a" not in request.headers
    assert (request.headers["x-b"], request.headers["x-c"]) == ("b", "")


def test_a_bad_constant_header_fails_each_request_and_no_reload() -> None:
    target = target_of({"headers": {"X-A": "a\nb", "X-B": "{{ params.v }}"}})
    executor = HttpExecutor()
    for _ in range(2):
        with pytest.raises(InvalidPayload, match="the header X-A would hold a control character"):
            executor.prepare(TASK, target, NOW)


@pytest.mark.parametrize(
    "auth",
    [{"basic": {"username": "u", "password": "p\udcff"}}, {"bearer": "t\udcff"},
     {"header": {"name": "X-Key", "value": "\udcff"}}, {"header": {"name": "Ü", "value": "x"}}],
    ids=["basic", "bearer", "header", "name"],
)  # fmt: skip
def test_a_secret_that_no_header_can_hold_is_an_invalid_payload(auth: dict[str, Any]) -> None:
    """Such as one from the environment that is no UTF-8."""
    for _ in range(2):
        with pytest.raises(InvalidPayload) as caught:
            prepare({}, auth=auth)
        assert "\udcff" not in str(caught.value)


# -- the plan -------------------------------------------------------------------------------------


def test_a_plan_is_made_for_the_first_request_and_once() -> None:
    target = target_of({"headers": {"X-A": "{{ params.v }}"}})
    assert "plan" not in vars(target.detail)
    executor = HttpExecutor()
    task = replace(TASK, params={"v": 1})
    executor.prepare(task, target, NOW)
    plan = target.detail.plan
    other = executor.prepare(replace(task, params={"v": 2}), target, NOW)
    assert target.detail.plan is plan
    assert other.headers["X-A"] == "2"
    assert plan.headers["X-A"] == ""  # nothing of a request stays in it


PLACES: list[dict[str, Any]] = [
    {"path": "/a/{{ V }}"}, {"path": "/a", "query": {"q": "{{ V }}"}},
    {"path": "/a", "headers": {"X-A": "{{ V }}"}},
    {"method": "POST", "path": "/a", "body": {"text": "{{ V }}"}},
    {"method": "POST", "path": "/a", "body": {"form": {"a": "{{ V }}"}}},
    {"method": "POST", "path": "/a", "body": {"json": {"a": ["{{ V }}"]}}},
    {"method": "POST", "path": "/a", "body": {"json": "{{ V }}"}},
]  # fmt: skip
IDS = ["path", "query", "header", "text", "form", "json", "whole json"]


def put(spec: Any, expression: str) -> Any:
    """The same declaration with an expression in its place."""
    if isinstance(spec, dict):
        return {key: put(value, expression) for key, value in spec.items()}
    if isinstance(spec, list):
        return [put(value, expression) for value in spec]
    return spec.replace("V", expression) if isinstance(spec, str) else spec


@pytest.mark.parametrize("spec", PLACES, ids=IDS)
@pytest.mark.parametrize(
    ("expression", "text"),
    [("params.id", "7"), ("now", "2026-11-24T22:00:00.000Z"), ("now.year", "2026"),
     ("task.id", "42"), ("task['attempt']", "2"), ("task.scheduled_at", "2026-11-24T22:00:00.005Z"),
     ("task.last_success_at", "2026-11-24T21:50:00.000Z"), ("params.id + task.id", "49"),
     ("params['id'] if now else 0", "7"), ("1 + 1", "2"), ("[now, task.id][1]", "42")],
)  # fmt: skip
def test_every_name_can_be_used_in_every_place(
    spec: dict[str, Any], expression: str, text: str
) -> None:
    request = prepare(put(spec, expression), {"id": 7})
    everything = " ".join(
        [str(request.url), request.headers.get("X-A", ""), request.content.decode()]
    )
    assert text in unquote(everything)
    # A plan that looks at the parameters alone does not make the rest.
    names = {word for word in ("now", "task") if word in expression}
    target = target_of(put(spec, expression))
    assert target.detail.plan.wants_all is bool(names)
    # And what looks up names alone needs no count of what it costs.
    assert HttpExecutor().evaluates(target) is (re.fullmatch(r"[a-z_.]+", expression) is None)


@pytest.mark.parametrize("spec", PLACES, ids=IDS)
@pytest.mark.parametrize("expression", ["nobody", "nobody.id", "params.id ~ nobody", "env.HOME"])
def test_a_name_that_is_not_there_is_named(spec: dict[str, Any], expression: str) -> None:
    name = "env" if "env" in expression else "nobody"
    with pytest.raises(InvalidPayload, match=name):
        prepare(put(spec, expression), {"id": 7})


def test_nothing_of_one_request_is_in_the_next() -> None:
    target = target_of(
        {"method": "POST", "headers": {"X-A": "{{ params.a }}"}, "query": {"q": "{{ params.q }}"},
         "body": {"json": {"n": "{{ task.id }}", "list": [1, {"a": "{{ params.a }}"}]}}},
    )  # fmt: skip
    executor = HttpExecutor()
    executor.bind("q7", {})
    one = executor.prepare(replace(TASK, id=1, params={"a": "x", "q": [1, 2]}), target, NOW)
    before = (one.url, one.headers.raw, one.content)
    two = executor.prepare(replace(TASK, id=2, params={"a": "y", "q": None}), target, NOW)
    assert (one.url, one.headers.raw, one.content) == before
    assert two.url == "http://api.example/"
    assert (two.headers["X-A"], two.headers["Idempotency-Key"]) == ("y", "q7-2")
    assert two.content == b'{"n":2,"list":[1,{"a":"y"}]}'


# -- who calls ------------------------------------------------------------------------------------


def test_bearer() -> None:
    request = prepare({}, auth={"bearer": "s3cret-token"})
    assert request.headers["Authorization"] == "Bearer s3cret-token"


@pytest.mark.parametrize("password", ["hunter2", "p:a:s s", "pä€ss"])
def test_basic(password: str) -> None:
    request = prepare({}, auth={"basic": {"username": "usér", "password": password}})
    scheme, _, encoded = request.headers["Authorization"].partition(" ")
    assert scheme == "Basic"
    assert base64.b64decode(encoded).decode() == f"usér:{password}"


def test_a_header_of_the_apis_own() -> None:
    request = prepare(
        {"headers": {"x-api-key": "overridden"}},
        auth={"header": {"name": "X-API-Key", "value": "k3y"}},
    )
    assert request.headers.get_list("X-API-Key") == ["k3y"]
    assert "Authorization" not in request.headers


def test_a_secret_is_not_shown_by_the_declaration() -> None:
    auth = Auth.model_validate({"bearer": "s3cret-token"})
    assert "s3cret" not in repr(auth)


# -- the body -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "content", "type_"),
    [
        ({"json": {"id": "{{ params.id }}", "n": [1, None, "é"]}},
         '{"id":7,"n":[1,null,"é"]}'.encode(), "application/json"),
        ({"json": "{{ params.map }}"}, b'{"a":1}', "application/json"),
        ({"json": {"at": "{{ now }}", "when": ["{{ task.scheduled_at }}"]}},
         b'{"at":"2026-11-24T22:00:00.000Z","when":["2026-11-24T22:00:00.005Z"]}',
         "application/json"),
        ({"json": None}, b"null", "application/json"),
        ({"json": []}, b"[]", "application/json"),
        ({"json": ["{{ params.yes }}", "{{ params.id }}", True]}, b"[true,7,true]",
         "application/json"),
        ({"form": {"a": "x y&z", "b": "{{ params.none }}", "c": "{{ params.list }}"}},
         b"a=x+y%26z&c=1&c=2", "application/x-www-form-urlencoded"),
        ({"form": {}}, b"", "application/x-www-form-urlencoded"),
        ({"text": "id={{ params.id }} é\r\n"}, "id=7 é\r\n".encode(), "text/plain; charset=utf-8"),
        ({"text": "{{ params.map }}"}, b'{"a": 1}', "text/plain; charset=utf-8"),
        ({"text": ""}, b"", "text/plain; charset=utf-8"),
    ],
)  # fmt: skip
def test_the_body(body: dict[str, Any], content: bytes, type_: str) -> None:
    params = {"id": 7, "map": {"a": 1}, "none": None, "list": [1, 2], "yes": True}
    request = prepare({"method": "POST", "body": body}, params)
    assert request.content == content
    assert request.headers["Content-Type"] == type_
    assert request.headers["Content-Length"] == str(len(content))
    own = prepare({"method": "POST", "body": body, "headers": {"content-type": "x/y"}}, params)
    assert own.headers.get_list("Content-Type") == ["x/y"]


def test_no_body() -> None:
    post = prepare({"method": "POST"})
    assert (post.content, post.headers["Content-Length"]) == (b"", "0")
    assert "Content-Type" not in post.headers
    get = prepare({})
    assert get.content == b""
    assert "Content-Length" not in get.headers


def test_a_body_that_is_a_file_goes_out_as_it_is() -> None:
    content = b"\xff\x00{{ params.id }}"
    body = {"file": BodyFile("bodies/order.json", content)}
    request = prepare({"method": "POST", "body": body}, {"id": 7})
    assert request.content == content
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["Content-Length"] == str(len(content))


@pytest.mark.parametrize(
    "body",
    [{}, {"json": {}, "text": "x"}, {"text": None}, {"form": None}, {"xml": "x"}, "x",
     {"file": None}, {"file": "a", "text": "x"}, {"file": "anywhere"}],
)  # fmt: skip
def test_a_body_is_one_of_four(body: Any) -> None:
    with pytest.raises(ValidationError):
        HttpSpec.model_validate({"path": "/", "method": "POST", "body": body})


NOT_A_NUMBER = float("nan")


@pytest.mark.parametrize(
    "spec",
    [
        {"path": "/{{ params.missing }}"},
        {"path": "/{{ params.half }}"},
        {"query": {"a": "{{ params.half }}"}},
        {"headers": {"X-A": "{{ params.half }}"}},
        {"method": "POST", "body": {"text": "{{ params.half }}"}},
        {"method": "POST", "body": {"text": "x{{ params.half }}"}},
        {"method": "POST", "body": {"form": {"a": "{{ params.half }}"}}},
        {"method": "POST", "body": {"json": {"a": "{{ params.half }}"}}},
        {"method": "POST", "body": {"json": "{{ params.nan }}"}},
        {"method": "POST", "body": {"json": ["{{ params.missing }}"]}},
        {"query": {"a": "{{ params.long }}"}},
        {"query": {"a": "{{ params.huge }}"}},
        {"headers": {"X-A": "{{ params.huge }}"}},
    ],
    ids=range(13),
)
def test_what_cannot_be_built_is_an_invalid_payload(spec: dict[str, Any]) -> None:
    params = {"half": "a\ud800", "nan": NOT_A_NUMBER, "long": "x" * 70_000, "huge": 10**5000}
    with pytest.raises(InvalidPayload):
        prepare(spec, params)


@pytest.mark.parametrize(
    "value",
    ["", 'a\u2028\\"/\x00\x7f\U0010ffff', 0, -(10**30), True, None, 1e16, 1.5, [1, {"ä": None}]],
)
def test_a_value_in_the_body_is_written_as_python_writes_it(value: Any) -> None:
    spec = {"method": "POST", "body": {"json": {"a": "{{ params.a }}"}}}
    expected = json.dumps({"a": value}, ensure_ascii=False, separators=(",", ":"))
    assert prepare(spec, {"a": value}).content.decode() == expected


@pytest.mark.parametrize(
    ("path", "why"),
    [("params.half", "the request cannot be built: 'utf-8' codec can't encode character '\\ud800'"),
     ("params.huge", "body.json cannot be written as JSON: Exceeds the limit"),
     ("params.none.a", "in the template {{ params.none.a }}: 'None' has no attribute 'a'"),
     ("params.other", "in the template {{ params.other }}: there is no 'other'")],
)  # fmt: skip
def test_why_a_body_cannot_be_built(path: str, why: str) -> None:
    params = {"half": "a\ud800", "huge": 10**5000, "none": None}
    with pytest.raises(InvalidPayload, match=re.escape(why)):
        prepare({"method": "POST", "body": {"json": {"a": f"{{{{ {path} }}}}"}}}, params)


# -- the idempotency key --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "key", "idempotent"),
    [("GET", False, True), ("HEAD", False, True), ("OPTIONS", False, True), ("PUT", True, True),
     ("DELETE", True, True), ("POST", True, False), ("PATCH", True, False)],
)  # fmt: skip
def test_unsafe_methods_carry_a_key_and_only_two_are_not_idempotent(
    method: str, key: bool, idempotent: bool
) -> None:
    assert ("Idempotency-Key" in prepare({"method": method}).headers) is key
    spec = HttpSpec.model_validate({"path": "/", "method": method})
    assert HttpExecutor().default_idempotent(spec) is idempotent


def test_the_key_is_the_same_at_each_attempt_and_another_for_each_task_and_queue() -> None:
    target = target_of({"method": "POST"})

    def key(instance: str = "q7", **changes: Any) -> str:
        executor = HttpExecutor()
        executor.bind(instance, {})
        return executor.prepare(replace(TASK, **changes), target, NOW).headers["Idempotency-Key"]

    first = key()
    assert key(attempts=9, retried_at=5, status="pending", granted=2) == first
    assert len({first, key(id=43), key("q8"), key(generation=1), key(generation=2)}) == 5
    # Of tasks with ids that could be run together: 4 in generation 21, and 42 in generation 1.
    assert key(id=4, generation=21) != key(id=42, generation=1)
    # A queue from before tasks had random keys sends what it has sent before.
    assert (first, key(generation=1)) == ("q7-42", "q7-42-1")
    assert key(nonce="u1", id=43, generation=1) == key("q8", nonce="u1") == "u1"


@pytest.mark.parametrize(
    "spec", [{"body": {"json": {}}}, {"body": {"json": {}}, "query": {"a": "1"}}, {}]
)
def test_there_is_one_key_however_the_request_is_made(spec: dict[str, Any]) -> None:
    target = target_of({"method": "POST", **spec})
    assert (target.detail.plan.form is not None) is (spec == {"body": {"json": {}}})
    executor = HttpExecutor()
    executor.bind("q7", {})
    for number in (1, 2):
        request = executor.prepare(replace(TASK, id=number), target, NOW)
        assert request.headers.get_list("Idempotency-Key") == [f"q7-{number}"]


@pytest.mark.parametrize(
    "spec",
    [{"path": "/{{ params.id }}"}, {"query": {"a": "{{ params.id }}"}},
     {"headers": {"X-Id": "{{ params.id }}"}}],
)  # fmt: skip
def test_what_differs_is_made_for_each_request(spec: dict[str, Any]) -> None:
    target = target_of({"method": "POST", "body": {"json": "{{ params.id }}"}, **spec})
    for number in (1, 2):
        task = replace(TASK, params={"id": number})
        request = HttpExecutor().prepare(task, target, NOW)
        assert request.content == str(number).encode()
        assert str(number) in f"{request.url.path} {request.url.query!r} {request.headers}"


def test_a_constant_that_json_cannot_hold_is_told_of_each_request() -> None:
    spec = {"method": "POST", "body": {"json": {"a": NOT_A_NUMBER}}}
    with pytest.raises(InvalidPayload, match=r"body\.json cannot be written as JSON"):
        prepare(spec)


def test_a_key_of_the_endpoints_own_stays() -> None:
    spec = {"method": "POST", "headers": {"idempotency-key": "{{ params.order }}"}}
    request = prepare(spec, {"order": "o-1"})
    assert request.headers.get_list("Idempotency-Key") == ["o-1"]


def test_preparing_is_pure() -> None:
    executor = HttpExecutor()
    target = target_of({"method": "POST", "body": {"json": {"n": "{{ now }}"}}})
    one, two = (executor.prepare(TASK, target, NOW) for _ in range(2))
    assert one is not two
    assert one.headers.raw == two.headers.raw
    assert (one.method, one.url, one.content) == (two.method, two.url, two.content)


def test_the_context_of_the_templates() -> None:
    spec = {
        "method": "POST",
        "body": {"json": {"last": "{{ task.last_success_at }}", "id": "{{ task.id }}",
                          "attempt": "{{ task.attempt }}", "now": "{{ now }}"}},
    }  # fmt: skip
    assert json.loads(prepare(spec).content) == {
        "last": "2026-11-24T21:50:00.000Z", "id": 42, "attempt": 2,
        "now": "2026-11-24T22:00:00.000Z",
    }  # fmt: skip
    never = HttpExecutor().prepare(TASK, target_of(spec), NOW)
    assert json.loads(never.content)["last"] is None


# -- sending --------------------------------------------------------------------------------------

Script = Callable[["Peer"], Awaitable[None]]


@dataclass
class Peer:
    """The receiver's end of one connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    receiver: Receiver

    async def request(self) -> bytes:
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        raw = head + await self.reader.readexactly(length)
        self.receiver.requests.append(raw)
        return raw

    async def answer(self, status: int = 200, body: bytes = b"ok", **headers: str) -> None:
        lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        await self.writer.drain()


@dataclass
class Receiver:
    """A server that runs a script on each connection, and keeps what reaches it."""

    script: Script
    url: str = ""
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)
    unread: list[bytes] = field(default_factory=list)
    """What came on a connection that was closed instead of being read."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await self.script(Peer(reader, writer, self))
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@pytest.fixture
async def receive() -> AsyncIterator[Callable[[Script], Awaitable[Receiver]]]:
    servers: list[asyncio.Server] = []

    async def start(script: Script) -> Receiver:
        receiver = Receiver(script)
        server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
        servers.append(server)
        receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        return receiver

    yield start
    for server in servers:
        server.close()


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    client = HttpClient()
    yield client
    await client.aclose()


async def call(
    client: HttpClient, spec: dict[str, Any], receiver: Receiver, **options: Any
) -> Outcome:
    """Prepare and execute one attempt over the real client, as the worker does."""
    executor = HttpExecutor()
    target = target_of(spec, base_url=receiver.url, **options)
    request = executor.prepare(TASK, target, NOW)
    async with asyncio.timeout(60):
        return await executor.execute(
            request, TASK, target, AttemptClient(Sender(client).to(target)).send
        )


def answering(*statuses: int, **headers: str) -> Script:
    """One status after the other, whatever the connection; then the last one again and again."""
    left = list(statuses)

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.answer(left.pop(0) if len(left) > 1 else left[0], **headers)

    return script


Receive = Callable[[Script], Awaitable[Receiver]]


async def test_a_call_on_the_wire(client: HttpClient, receive: Receive) -> None:
    receiver = await receive(answering(200))
    spec = {
        "method": "POST", "path": "/a%2Fb/c", "query": {"q": "x y"}, "headers": {"X-A": "é"},
        "body": {"json": {"a": 1}},
    }  # fmt: skip
    outcome = await call(client, spec, receiver)
    assert (outcome.verdict, outcome.status_code, outcome.answered) == ("success", 200, True)
    assert outcome.response is not None
    assert outcome.response.content == b"ok"
    [raw] = receiver.requests
    head, _, body = raw.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /a%2Fb/c?q=x%20y HTTP/1.1"
    assert lines[1].lower() == f"host: {receiver.url.removeprefix('http://')}".encode()
    assert "X-A: é".encode() in lines
    assert body == b'{"a":1}'


@pytest.mark.parametrize(
    ("status", "verdict"), [(200, "success"), (404, "failure"), (503, "retry"), (302, "failure")]
)
async def test_an_answer_is_judged(
    client: HttpClient, receive: Receive, status: int, verdict: str
) -> None:
    receiver = await receive(answering(status, Location="/elsewhere"))
    outcome = await call(client, {}, receiver)
    assert (outcome.verdict, outcome.status_code) == (verdict, status)
    assert len(receiver.requests) == 1


async def test_success_is_what_the_endpoint_says(client: HttpClient, receive: Receive) -> None:
    receiver = await receive(answering(404))
    assert (await call(client, {"success": ["2xx", 404]}, receiver)).verdict == "success"


@pytest.mark.parametrize(
    ("body", "verdict", "error"),
    [
        (b'{"ok": true}', "success", None),
        (b'{"errors": []}', "success", None),
        (b"", "success", None),
        (b'{"errors": [1]}', "failure", "200, but success_if does not hold: !errors"),
        (b"<html>", "failure", "200, but success_if cannot be told: the body is no JSON"),
        (b"[" * 100_000, "failure", "200, but success_if cannot be told: the body is no JSON"),
        (b'"' + b"x" * 3000 + b'"', "failure",
         "200, but success_if cannot be told: the body is longer than max_response"),
    ],
)  # fmt: skip
async def test_success_if(
    client: HttpClient, receive: Receive, body: bytes, verdict: str, error: str | None
) -> None:
    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.answer(200, body)

    receiver = await receive(script)
    limit = 2000 if b"xxx" in body else 1_000_000
    options: dict[str, Any] = {"max_response": limit}
    outcome = await call(client, {"success_if": "!errors"}, receiver, **options)
    assert (outcome.verdict, outcome.status_code, outcome.error) == (verdict, 200, error)
    assert (outcome.answered, outcome.maybe_done) == (True, False)
    if error is not None:
        again = await call(
            client, {"success_if": "!errors"}, receiver, retry={"when": [200, 503]}, **options
        )
        assert again.verdict == "retry", "`when` covers the code"


@pytest.mark.parametrize(
    ("success_if", "items", "error"),
    [
        ("length(items[?s == 'x']) == `0`", 20_000, None),
        ("length(items[?s == 'a']) == `0`", 20_000, "200, but success_if does not hold: "),
        ("[@, @]" + " | [@, @]" * 9, 10, None),
        ("[@, @]" + " | [@, @]" * 60, 10, "200, but success_if cannot be told: [@, @] | "),
    ],
    ids=["large", "large and false", "short and dear", "too dear"],
)
async def test_what_is_dear_is_looked_into_off_the_loop(
    client: HttpClient, receive: Receive, success_if: str, items: int, error: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    threads: set[str] = set()
    holds = Expression.holds

    def noted(self: Expression, *given: Any) -> bool:
        threads.add(threading.current_thread().name.partition("_")[0])
        return holds(self, *given)

    monkeypatch.setattr(Expression, "holds", noted)

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.answer(200, json.dumps({"items": [{"s": "a"}] * items}).encode())

    outcome = await call(
        client, {"success_if": success_if}, await receive(script), max_response=1 << 20
    )
    assert (outcome.error or "").startswith(error or "")
    assert (outcome.verdict == "success") is (error is None)
    assert ("MainThread" in threads) is (items < 100)
    assert "orchestratord-answers" in threads


async def test_success_if_is_not_asked_where_the_status_says_no(
    client: HttpClient, receive: Receive
) -> None:
    receiver = await receive(answering(503))
    outcome = await call(client, {"success_if": "length(nothing)"}, receiver)
    assert (outcome.verdict, outcome.error) == ("retry", "503 X")


async def test_an_expression_that_fails_is_no_success(client: HttpClient, receive: Receive) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.answer(200, b"{}")

    outcome = await call(client, {"success_if": "length(items) > `0`"}, await receive(script))
    assert outcome.verdict == "failure"
    assert "length() takes string or array or object, not null" in str(outcome.error)


async def test_nobody_listens(client: HttpClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    nobody = Receiver(answering(200), url=f"http://127.0.0.1:{port}")
    outcome = await call(client, {"method": "POST"}, nobody)
    assert (outcome.verdict, outcome.status_code, outcome.maybe_done) == ("retry", "error", False)


async def test_an_address_that_is_not_allowed(client: HttpClient, receive: Receive) -> None:
    receiver = await receive(answering(200))
    outcome = await call(client, {}, receiver, egress=())
    assert (outcome.verdict, outcome.status_code) == ("failure", "error")
    assert outcome.final_reason == "rejected"
    assert "egress" in str(outcome.error)
    assert receiver.connections == 0


@pytest.mark.parametrize("idempotent", [True, False])
async def test_an_answer_that_is_lost_may_have_been_carried_out(
    client: HttpClient, receive: Receive, idempotent: bool
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()

    receiver = await receive(script)
    outcome = await call(client, {"method": "POST"}, receiver, idempotent=idempotent)
    assert (outcome.verdict, outcome.status_code, outcome.maybe_done) == ("retry", "error", True)
    assert len(receiver.requests) == 1


# -- a kept connection that is closed at the moment of sending ------------------------------------


def closing_when_asked_again() -> Script:
    """Answers the first request of each connection; at the second one it hangs up unread."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.answer(200)
        peer.receiver.unread.append(await peer.reader.read(1))

    return script


async def test_a_stale_connection_is_repeated_once_on_a_new_one(
    client: HttpClient, receive: Receive
) -> None:
    receiver = await receive(closing_when_asked_again())
    for _ in range(3):
        outcome = await call(client, {}, receiver, retry={"max_attempts": 1})
        assert (outcome.verdict, outcome.status_code) == ("success", 200)
    assert receiver.connections == 3
    assert len(receiver.requests) == 3
    assert receiver.unread == [b"G", b"G"]


@pytest.mark.parametrize("when", [[503], ["error"]])
async def test_a_stale_connection_is_no_error_of_the_receiver(
    client: HttpClient, receive: Receive, when: list[Any]
) -> None:
    """It is repeated whatever `when` says of errors, and costs no inline try."""
    receiver = await receive(closing_when_asked_again())
    await call(client, {}, receiver)
    outcome = await call(client, {}, receiver, retry={"when": when})
    assert outcome.verdict == "success"


async def test_a_stale_connection_costs_no_inline_try(client: HttpClient, receive: Receive) -> None:
    connections = 0

    async def script(peer: Peer) -> None:
        nonlocal connections
        connections += 1
        await peer.request()
        await peer.answer({1: 200, 2: 503}.get(connections, 200))
        await peer.reader.read(1)

    receiver = await receive(script)
    await call(client, {}, receiver)
    outcome = await call(client, {}, receiver, retry={"inline": 1})
    assert (outcome.verdict, connections) == ("success", 3)


async def test_a_stale_connection_is_repeated_only_once(
    client: HttpClient, receive: Receive
) -> None:
    first = True

    async def script(peer: Peer) -> None:
        nonlocal first
        await peer.request()
        if first:
            first = False
            await peer.answer(200)
            await peer.reader.read(1)

    receiver = await receive(script)
    await call(client, {}, receiver)
    outcome = await call(client, {}, receiver)
    assert (outcome.status_code, outcome.maybe_done) == ("error", True)
    assert receiver.connections == 2


async def test_what_is_not_idempotent_never_meets_a_stale_connection(
    client: HttpClient, receive: Receive
) -> None:
    receiver = await receive(closing_when_asked_again())
    for spec in ({}, {"method": "POST"}, {"method": "POST"}):
        outcome = await call(client, spec, receiver)
        assert outcome.verdict == "success"
    # Each POST had a connection of its own, and the one that was kept was not touched.
    assert receiver.connections == 3
    assert receiver.unread == []
    assert [raw.split()[0] for raw in receiver.requests] == [b"GET", b"POST", b"POST"]


@pytest.mark.parametrize("says", [b"Connection: close\r\n", b""], ids=["told", "not told"])
@pytest.mark.parametrize("busy", [0.0, 0.005, 0.05])
async def test_a_server_that_closes_after_an_answer_gets_each_request_once(
    client: HttpClient, says: bytes, busy: float
) -> None:
    """Also where the loop had something else to do, and has not seen the end of the connection."""
    answer = b"HTTP/1.1 200 OK\r\n%bContent-Length: 0\r\n\r\n" % says
    requests: list[bytes] = []

    def serve() -> None:
        with suppress(OSError):
            while True:
                end, _ = listening.accept()
                with end:
                    requests.append(end.recv(4096).split()[0])
                    end.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            receiver = Receiver(closing_when_asked_again())
            receiver.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            methods = ["GET", "PUT", "POST", "GET", "GET"]
            for method in methods:
                outcome = await call(client, {"method": method}, receiver)
                assert (outcome.verdict, outcome.status_code) == ("success", 200)
                time.sleep(busy)
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(10)
    assert requests == [method.encode() for method in methods]


# -- tries at once --------------------------------------------------------------------------------


async def test_inline_tries_are_made_within_one_attempt(
    client: HttpClient, receive: Receive
) -> None:
    receiver = await receive(answering(503, 503, 200))
    outcome = await call(client, {}, receiver, retry={"inline": 2})
    assert outcome.verdict == "success"
    assert len(receiver.requests) == 3


async def test_no_more_than_inline_says(client: HttpClient, receive: Receive) -> None:
    for inline in (0, 1, 3):
        receiver = await receive(answering(503))
        outcome = await call(client, {}, receiver, retry={"inline": inline})
        assert (outcome.verdict, outcome.status_code) == ("retry", 503)
        assert len(receiver.requests) == 1 + inline


async def test_an_inline_try_repeats_the_same_key(client: HttpClient, receive: Receive) -> None:
    receiver = await receive(answering(503, 200))
    await call(client, {"method": "PUT"}, receiver, retry={"inline": 1})
    keys = {
        line
        for raw in receiver.requests
        for line in raw.split(b"\r\n")
        if line.lower().startswith(b"idempotency-key")
    }
    assert len(receiver.requests) == 2
    assert len(keys) == 1


@pytest.mark.parametrize(
    ("method", "status", "tries"),
    [("GET", 500, 3), ("PUT", 502, 3), ("POST", 503, 3), ("POST", 429, 3), ("POST", 500, 1),
     ("POST", 502, 1), ("POST", 504, 1), ("GET", 404, 1), ("GET", 200, 1)],
)  # fmt: skip
async def test_inline_tries_only_where_a_repeat_is_safe_and_wanted(
    client: HttpClient, receive: Receive, method: str, status: int, tries: int
) -> None:
    receiver = await receive(answering(status))
    outcome = await call(client, {"method": method}, receiver, retry={"inline": 2})
    assert len(receiver.requests) == tries
    assert outcome.status_code == status


async def test_a_lost_answer_is_tried_inline_only_where_idempotent(
    client: HttpClient, receive: Receive
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()

    for method, tries in (("GET", 3), ("POST", 1)):
        receiver = await receive(script)
        outcome = await call(client, {"method": method}, receiver, retry={"inline": 2})
        assert (outcome.status_code, outcome.maybe_done) == ("error", True)
        assert len(receiver.requests) == tries


@pytest.mark.parametrize(("respected", "tries"), [(True, 1), (False, 3)])
async def test_who_asks_to_wait_is_not_asked_again_at_once(
    client: HttpClient, receive: Receive, respected: bool, tries: int
) -> None:
    receiver = await receive(answering(503, Retry_After="30"))
    retry = {"inline": 2, "respect_retry_after": respected}
    outcome = await call(client, {}, receiver, retry=retry)
    assert outcome.retry_after == "30"
    assert len(receiver.requests) == tries


async def test_inline_tries_share_the_timeout_of_their_attempt(
    client: HttpClient, receive: Receive
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.reader.read()

    receiver = await receive(script)
    loop = asyncio.get_running_loop()
    began = loop.time()
    outcome = await call(client, {}, receiver, timeout=0.3, retry={"inline": 10})
    assert outcome.status_code == "error"
    assert loop.time() - began < 5
    assert len(receiver.requests) == 1


# -- what the API says ----------------------------------------------------------------------------


async def test_redirects_are_followed_where_the_api_says_so(
    client: HttpClient, receive: Receive
) -> None:
    def redirecting() -> Script:
        async def script(peer: Peer) -> None:
            while True:
                raw = await peer.request()
                if raw.startswith(b"GET /new "):
                    await peer.answer(200)
                else:
                    await peer.answer(302, Location="/new")

        return script

    receiver = await receive(redirecting())
    assert (await call(client, {"path": "/old"}, receiver)).status_code == 302
    assert (
        await call(client, {"path": "/old"}, receiver, follow_redirects=True)
    ).status_code == 200


async def test_a_long_answer_is_cut_and_its_status_decides(
    client: HttpClient, receive: Receive
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.answer(200, b"x" * 5000)

    receiver = await receive(script)
    outcome = await call(client, {}, receiver, max_response=1000)
    assert outcome.verdict == "success"
    assert outcome.response is not None
    assert outcome.response.content == b"x" * 1000
    assert outcome.response.extensions["truncated"] is True


def test_what_looks_like_a_template_in_a_base_url_is_not_evaluated() -> None:
    request = prepare({"path": "/a"}, {"h": "evil.example"}, base_url="http://{{ params.h }}")
    assert "evil" not in request.url.host
