"""The key `tests` of an endpoint: read, checked and placed like every other."""

from __future__ import annotations

import jsonschema
import pytest
from config_parts import ConfigFolder

from orchestratord.config.show.json_schema import json_schema

PARAMS = "path: /x\nparams: {id: {type: integer, required: true}, code: {type: string}}\n"
ONE = """\
path: /x
params: {id: {type: integer, required: true}, code: {type: string}}
webhooks:
  - {name: ops, phase: after_request, url: "https://ops.example.com/hook"}
tests:
  - name: it answers
    params: {id: 7, code: 007}
    answer:
      status_code: 200
    expect:
      outcome: succeeded
      webhooks: [ops]
"""


def test_they_are_read(config: ConfigFolder) -> None:
    config.endpoint(ONE)
    (test,) = config.one().tests
    assert test.name == "it answers"
    assert dict(test.params) == {"id": 7, "code": "007"}
    assert test.answer.code == 200
    assert test.expect.webhooks == ("ops",)


def test_they_say_nothing_of_what_the_endpoint_is(config: ConfigFolder) -> None:
    config.endpoint(ONE)
    assert "tests" not in config.one().shown


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("answer:", "anser:", "6:5: tests.0.answer: is required"),
        (
            "      status_code: 200",
            "      status_cod: 200",
            "9:7: tests.0.answer.status_cod: unknown key, did you mean 'status_code'?",
        ),
        (
            "status_code: 200",
            "status_code: 2xx",
            "9:7: tests.0.answer.status_code: '2xx' is not one",
        ),
        (
            "status_code: 200",
            "error: refused",
            "9:7: tests.0.answer.error: unknown value 'refused'",
        ),
        (
            "succeeded",
            "succeed",
            "11:7: tests.0.expect.outcome: unknown value 'succeed', did you mean 'succeeded'?",
        ),
        (
            "outcome: succeeded",
            "reason: exausted",
            "11:7: tests.0.expect.reason: unknown value 'exausted', did you mean 'exhausted'?",
        ),
        (
            "outcome: succeeded",
            "delay: soon",
            "11:7: tests.0.expect.delay: 'soon' is not a duration",
        ),
        ("id: 7", "id: seven", '7:14: tests.0.params.id: expected a whole number, not "seven"'),
        ("id: 7, ", "idd: 7, id: 7, ", "7:14: tests.0.params.idd: there is no such parameter"),
        ("id: 7, ", "", "7:5: tests.0.params.id: is required"),
        ("    params: {id: 7, code: 007}\n", "", "6:5: tests.0.params.id: is required"),
        (
            "[ops]",
            "[opps]",
            "12:18: tests.0.expect.webhooks.0: there is no webhook 'opps', did you mean 'ops'?",
        ),
    ],
)
def test_errors_have_their_place(config: ConfigFolder, old: str, new: str, error: str) -> None:
    assert old in ONE
    config.endpoint(ONE.replace(old, new))
    errors = config.errors()
    assert any(line.startswith(f"apis/shop/endpoints/get.yaml:{error}") for line in errors), errors


def test_expectations_that_contradict_each_other(config: ConfigFolder) -> None:
    config.endpoint(ONE.replace("      webhooks: [ops]", "      delay: 1s"))
    assert config.error() == (
        "apis/shop/endpoints/get.yaml:10:5: tests.0.expect: there is no delay where the outcome is "
        "succeeded"
    )


def test_a_webhook_is_not_known_where_there_is_none(config: ConfigFolder) -> None:
    lines = ONE.splitlines(keepends=True)
    config.endpoint("".join(lines[:2] + lines[4:]))
    assert config.error().endswith("tests.0.expect.webhooks.0: there is no webhook 'ops'")


def test_references_stand_in_them(config: ConfigFolder) -> None:
    config.environ["NUMBER"] = "12"
    text = ONE.replace("id: 7", "id: '${NUMBER}'").replace(
        "      webhooks: [ops]", "      request: {url: 'https://api.example.com/${NUMBER}'}"
    )
    config.endpoint(text)
    (test,) = config.one().tests
    assert test.params["id"] == 12
    assert test.expect.request is not None
    assert test.expect.request.url == "https://api.example.com/12"


def test_they_do_not_stand_in_api_yaml(config: ConfigFolder) -> None:
    config.api("base_url: https://api.example.com\ntests: []\n")
    config.endpoint(PARAMS)
    assert "api.yaml:2:1: tests: unknown key" in config.error()


def test_the_schema_knows_them(config: ConfigFolder) -> None:
    validator = jsonschema.Draft202012Validator(json_schema("endpoint", config.host.registry))
    answer, expect = {"status_code": 503}, {"outcome": "retry", "delay": ["1s", "2s"]}
    good = {"path": "/x", "tests": [{"answer": answer, "expect": expect}]}
    assert validator.is_valid(good)
    for answer, expect in (
        ({"status_code": 700}, {"outcome": "retry"}),
        ({"status": 200}, {"outcome": "retry"}),
        ({"status_code": 200}, {"outcome": "success"}),
        ({"status_code": 200}, {"delay": ["1s"]}),
        ({"error": "slow"}, {"outcome": "retry"}),
    ):
        assert not validator.is_valid(
            {"path": "/x", "tests": [{"answer": answer, "expect": expect}]}
        )
