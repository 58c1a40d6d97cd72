from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from orchestratord_webhooks.declaration import Webhook
from orchestratord_webhooks.envelope import MAX_PAYLOAD, data_of, payload_of, time_text
from webhook_parts import declared

from orchestratord import InvalidPayload, Outcome, Redactor
from orchestratord.testing import Rig, answered, task, unanswered

AT = 1_795_557_600.0  # 2026-11-24T22:00:00Z
SECRET = "t0p-s3cret"
CALL = task(id=42, endpoint_id="salesforce/getUsers", params={"id": 7})
REQUEST = httpx.Request("GET", "https://api.example.com/User/7?limit=50")


def data(outcome: Outcome | None, **changes: Any) -> dict[str, Any]:
    arguments = {
        "phase": "after_request",
        "request": REQUEST,
        "task": CALL,
        "next_try": None,
        "redactor": Redactor([SECRET]),
        **changes,
    }
    return data_of(outcome=outcome, **arguments)


def rendered(rig: Rig, about: dict[str, Any], **keys: Any) -> str:
    webhook: Webhook = rig.setting("webhooks", [declared(**keys)])[0]
    context = {
        "params": {"id": "unredacted"},
        "task": {"id": 42, "attempt": 1},
        "now": datetime.fromtimestamp(AT, UTC),
    }
    return payload_of(webhook, about, context, AT, Redactor([SECRET]))


def test_the_envelope_is_the_documented_one(rig: Rig) -> None:
    outcome = answered(503, text="down", headers={"Retry-After": "30"})
    about = data(outcome, next_try=int((AT + 5) * 1000))
    assert json.loads(rendered(rig, about)) == {
        "type": "after_request",
        "timestamp": "2026-11-24T22:00:00.000Z",
        "data": {
            "endpoint": "salesforce/getUsers",
            "phase": "after_request",
            "status_code": 503,
            "task_id": 42,
            "attempt": 1,
            "params": {"id": 7},
            "request": {"method": "GET", "url": "https://api.example.com/User/7?limit=50"},
            "response": {
                "headers": {
                    "retry-after": "30",
                    "content-length": "4",
                    "content-type": "text/plain; charset=utf-8",
                },
                "body": "down",
            },
            "reason": None,
            "error": "503 Service Unavailable",
            "next_try": "2026-11-24T22:00:05.000Z",
            "run_id": 42,
        },
    }


def test_without_an_answer(rig: Rig) -> None:
    about = data(unanswered("connection refused"))
    assert (about["status_code"], about["response"]) == ("error", None)
    assert about["error"] == "connection refused"


def test_before_a_request_and_for_what_never_ran() -> None:
    before = data(None, phase="before_request")
    assert (before["status_code"], before["response"], before["error"]) == (None, None, None)
    assert before["request"]["method"] == "GET"
    expired = task(endpoint_id="salesforce/getUsers", reason="expired")
    never = data(Outcome("failure", None, error="expired"), request=None, task=expired)
    assert never["reason"] == "expired"
    assert (never["status_code"], never["request"], never["error"]) == (None, None, "expired")
    assert data(None, request="SELECT 1")["request"] is None


# -- secrets -------------------------------------------------------------------------------------


def test_secret_headers_are_left_out_and_secrets_masked_everywhere(rig: Rig) -> None:
    outcome = answered(
        200,
        json={"echo": SECRET},
        headers=[
            ("Set-Cookie", "session=abc"),
            ("X-Api-Key", "k"),
            ("X-Auth-Token", "k"),
            ("X-Seen", f"it is {SECRET}"),
            ("X-All", SECRET),
            ("Via", "a"),
            ("Via", "b"),
        ],
    )
    about = data(
        outcome,
        request=httpx.Request("GET", f"https://api.example.com/{SECRET}?k={SECRET}"),
        task=task(params={"key": SECRET, "nested": [{"deep": f"x{SECRET}y"}]}),
    )
    headers = about["response"]["headers"]
    assert headers["x-seen"] == "it is ***"
    assert headers["via"] == "a, b"
    assert not {"set-cookie", "x-api-key", "x-auth-token", "x-all"} & set(headers)
    assert about["request"]["url"] == "https://api.example.com/***?k=***"
    assert about["params"] == {"key": "***", "nested": [{"deep": "x***y"}]}
    assert json.loads(about["response"]["body"]) == {"echo": "***"}
    assert data(unanswered(f"no {SECRET}"))["error"] == "no ***"
    assert SECRET not in rendered(rig, about)


def test_a_payload_of_ones_own_sees_masked_values_only(rig: Rig) -> None:
    about = data(answered(200, text=SECRET), task=task(params={"id": SECRET}))
    assert rendered(rig, about, payload={"a": "{{ params.id }}", "b": "{{ response.body }}"}) == (
        '{"a":"***","b":"***"}'
    )
    assert rendered(rig, about, payload={"literal": f"<{SECRET}>"}) == '{"literal":"<***>"}'
    assert rendered(rig, about, payload=f"<{SECRET}>") == "<***>"


@pytest.mark.parametrize("start", [*range(19_985, 20_005), 28_180, 28_190])
def test_no_piece_of_a_secret_is_left_where_the_body_is_cut(start: int) -> None:
    body = b"." * start + SECRET.encode() + b"." * 40_000
    shown = data(answered(200, content=body))["response"]
    assert set(shown["body"]) <= {".", "*"}
    assert shown["truncated"] is True


# -- the body --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "kept", "truncated"),
    [(0, 0, None), (19_999, 19_999, None), (20_000, 20_000, None), (20_001, 20_000, True),
     (28_192, 20_000, True), (28_193, 20_000, True), (1_000_000, 20_000, True)],
)  # fmt: skip
def test_the_body_is_cut_at_20000_bytes(size: int, kept: int, truncated: bool | None) -> None:
    shown = data(answered(200, content=b"a" * size))["response"]
    assert len(shown["body"]) == kept
    assert shown.get("truncated") is truncated


def test_a_cut_leaves_no_half_character() -> None:
    for shift in range(4):
        body = "x" * shift + "€" * 20_000
        shown = data(answered(200, content=body.encode()))["response"]
        assert body.startswith(shown["body"])
        assert 19_996 < len(shown["body"].encode()) <= 20_000
        assert "encoding" not in shown


def test_what_the_client_had_cut_already_is_said_to_be_cut() -> None:
    outcome = answered(200, content=b"abc", extensions={"truncated": True})
    assert data(outcome)["response"]["truncated"] is True


def test_a_body_that_is_no_text_travels_as_base64() -> None:
    body = b"\xff\xfe" + SECRET.encode() + bytes(30_000)
    shown = data(answered(200, content=body))["response"]
    assert shown["encoding"] == "base64"
    assert shown["truncated"] is True
    decoded = base64.b64decode(shown["body"], validate=True)
    assert decoded.startswith(b"\xff\xfe***\0\0")
    assert 19_990 < len(decoded) <= 20_000


# -- include and payload ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("include", "there"),
    [
        (None, {"params", "request", "response"}),
        (["params"], {"params"}),
        (["response", "request"], {"response", "request"}),
        ([], set()),
    ],
)
def test_include_narrows_the_data(rig: Rig, include: list[str] | None, there: set[str]) -> None:
    keys = {} if include is None else {"include": include}
    sent = json.loads(rendered(rig, data(answered(200)), **keys))["data"]
    assert {"params", "request", "response"} & set(sent) == there
    assert {"endpoint", "phase", "status_code", "task_id", "attempt", "error"} <= set(sent)


def test_a_mapping_is_sent_as_json_and_values_keep_their_types(rig: Rig) -> None:
    payload = {
        "text": "{{ endpoint }} answered {{ status_code }}",
        "code": "{{ status_code }}",
        "params": "{{ params }}",
        "at": "{{ now }}",
        "list": ["{{ attempt }}", 1.5, None, True],
        "call": "{{ task.id }}",
    }
    assert json.loads(rendered(rig, data(answered(500)), payload=payload)) == {
        "text": "salesforce/getUsers answered 500",
        "code": 500,
        "params": {"id": 7},
        "at": "2026-11-24T22:00:00.000Z",
        "list": [1, 1.5, None, True],
        "call": 42,
    }


def test_a_text_is_sent_as_it_stands(rig: Rig) -> None:
    about = data(answered(500, text="ä {{ not_evaluated }}"))
    assert rendered(rig, about, payload="{{ status_code }}") == "500"
    assert rendered(rig, about, payload="{{ response.body }}!") == "ä {{ not_evaluated }}!"


def test_templates_find_nothing_where_no_answer_came(rig: Rig) -> None:
    payload = {"body": "{{ response.body }}", "method": "{{ request.method }}"}
    assert rendered(rig, data(unanswered(), request=None), payload=payload) == (
        '{"body":null,"method":null}'
    )


@pytest.mark.parametrize(
    ("payload", "part"),
    [
        ("{{ params.nothing }}", "nothing"),
        ({"a": "{{ response.headers.nothing }}"}, "nothing"),
        ({"a": "{{ 1 / 0 }}"}, "division"),
        ({"a": "{{ 1e308 * 10 }}"}, "JSON"),
        ({"a": "{{ params.id * 100000 }}{{ 'x' * 600000 }}"}, "at most 524288"),
        ("{{ 'x' * 600000 }}", "at most 524288"),
    ],
)
def test_a_payload_that_does_not_render(rig: Rig, payload: Any, part: str) -> None:
    with pytest.raises(InvalidPayload, match=part):
        rendered(rig, data(answered(200)), payload=payload)


def test_the_size_is_bounded_in_bytes(rig: Rig) -> None:
    def large(size: int) -> dict[str, Any]:
        return data(answered(200), task=task(params={"text": "€" * size}))

    small = rendered(rig, large(170_000))
    assert len(small.encode()) <= MAX_PAYLOAD
    with pytest.raises(InvalidPayload, match="at most 524288"):
        rendered(rig, large(180_000))


def test_half_a_character_harms_nothing(rig: Rig) -> None:
    about = data(answered(200), task=task(params={"text": "a\ud800b"}))
    assert json.loads(rendered(rig, about))["data"]["params"] == {"text": "a?b"}


@given(st.floats(0, 4_000_000_000) | st.integers(0, 4_000_000_000_000).map(lambda ms: ms / 1000))
def test_a_time_is_written_as_datetime_writes_it(seconds: float) -> None:
    moment = datetime.fromtimestamp(seconds, UTC)
    assert time_text(seconds) == moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
