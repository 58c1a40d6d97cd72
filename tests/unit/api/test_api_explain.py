"""Explaining over the API: the questions that can be asked, and who answers."""

from __future__ import annotations

from typing import Any

import pytest

from orchestratord.config.params import exemplary
from orchestratord.engine.http_executor import HttpPlugin
from orchestratord.errors import InvalidParams
from orchestratord.model.endpoint import Param
from orchestratord.testing import Rig
from tests.unit.api.control_parts import Parts

PATH = "/v1/endpoints/demo/get/explain"


async def test_what_would_be_sent_and_what_would_follow(parts: Parts) -> None:
    answer = await parts.client.get(PATH, params={"status_code": "503", "attempt": "2"})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (found["endpoint"], found["attempt"], found["status_code"]) == ("demo/get", 2, 503)
    assert found["reached"] == ["before_request", "after_request", "on_retry"]
    assert found["decision"]["outcome"] == "retry"
    assert not parts.receiver.targets
    asked = {"phase": "on_success", "status_code": 200, "params": {"id": "x"}}
    found = (await parts.post(PATH, asked)).json()
    assert found["phases"] == ["on_success"]
    assert found["request"]["url"].endswith("/things/x")
    assert (await parts.post(PATH)).json()["reached"] == ["before_request"]
    assert (await parts.post(PATH, {"error": "connect"})).json()["status_code"] == "error"


@pytest.mark.parametrize(
    ("asked", "wrong"),
    [
        ({"phase": "on_sucess", "status_code": 200}, "phase"),
        ({"phase": "on_success"}, "status_code"),
        ({"status_code": 99}, "status_code"),
        ({"status_code": "5xx"}, "status_code"),
        ({"status_code": True}, "status_code"),
        ({"error": "nothing"}, "error"),
        ({"error": "connect", "status_code": 200}, "error"),
        ({"attempt": 0}, "attempt"),
        ({"attempt": "two"}, "attempt"),
        ({"params": {"other": 1}}, "other"),
        ({"draft": {"webhooks": [], "others": []}}, "draft"),
        ({"draft": []}, "draft"),
        ({"drafts": {}}, "drafts"),
    ],
)
async def test_questions_that_make_no_sense(parts: Parts, asked: Any, wrong: str) -> None:
    answer = await parts.post(PATH, asked)
    assert answer.status_code == 422, answer.text
    assert any(error["key"].startswith(wrong) for error in answer.json()["errors"])


async def test_what_cannot_be_answered(parts: Parts) -> None:
    assert (await parts.client.get(PATH, params={"state": "1"})).status_code == 422
    assert (await parts.client.get(PATH, params={"attempt": "x"})).status_code == 422
    both = await parts.client.post(f"{PATH}?attempt=1", json={"attempt": 1})
    assert both.status_code == 422
    assert (await parts.client.get("/v1/endpoints/demo/gone/explain")).status_code == 404
    off = await parts.client.get("/v1/endpoints/demo/off/explain")
    assert (off.status_code, off.json()["enabled"]) == (200, False)


def test_parameters_that_are_made_up() -> None:
    types: list[Any] = ["string", "integer", "number", "boolean", "array", "object", None]
    params = {str(type_): Param(type=type_, required=True) for type_ in types}
    endpoint = Rig(HttpPlugin(), name="http").endpoint(params={**params, "free": Param(default=7)})
    made = exemplary(endpoint, {"string": "mine"})
    assert made == {
        "string": "mine", "integer": 1, "number": 1, "boolean": True, "array": [], "object": {},
        "None": "example", "free": 7,
    }  # fmt: skip
    with pytest.raises(InvalidParams, match="integer"):
        exemplary(endpoint, {"integer": "x"})
