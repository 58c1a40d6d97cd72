"""What stands under `tests:`, by itself."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from orchestratord.model.test_case import NOON, Expected, FakeAnswer, parse_code
from orchestratord.model.test_case import TestCase as Case

GIVEN = {"answer": {"status_code": 200}, "expect": {"outcome": "succeeded"}}


@pytest.mark.parametrize(
    ("text", "code"), [("503", 503), (200, 200), ("error", "error"), ("ok", "ok")]
)
def test_a_status_code(text: Any, code: Any) -> None:
    assert parse_code(text) == code


@pytest.mark.parametrize("text", ["5xx", "600", "99", "", "none", True, "500-502", "²00", 20.5])
def test_what_is_no_single_status_code(text: Any) -> None:
    with pytest.raises(ValueError, match="is not one status code"):
        parse_code(text)


def test_defaults() -> None:
    case = Case.model_validate(GIVEN)
    assert (case.name, dict(case.params), case.attempt) == ("", {}, 1)
    assert Case.model_validate({**GIVEN, "now": NOON}).now == case.now == 1798804800.0


@pytest.mark.parametrize("now", ["2027-01-01", "2027-01-01T12:00:00", "noon", [], True])
def test_a_time_has_a_date_an_hour_and_a_zone(now: Any) -> None:
    with pytest.raises(ValidationError, match="is not a time"):
        Case.model_validate({**GIVEN, "now": now})


@pytest.mark.parametrize(
    ("delay", "span"),
    [("2s", (2.0, 2.0)), (0.5, (0.5, 0.5)), (["1s", "1m"], (1.0, 60.0)), ((3, 3), (3.0, 3.0))],
)
def test_a_delay_or_the_ends_of_a_range(delay: Any, span: tuple[float, float]) -> None:
    assert Expected.model_validate({"delay": delay}).delay == span


@pytest.mark.parametrize(
    "delay", [["1s"], ["1s", "2s", "3s"], ["2s", "1s"], "soon", ["1s", "soon"]]
)
def test_what_is_no_delay(delay: Any) -> None:
    with pytest.raises(ValidationError):
        Expected.model_validate({"delay": delay})


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ({"status_code": 503, "headers": {"Retry-After": "3"}, "body": {"a": 1}}, 503),
        ({"status_code": "error"}, "error"),
        ({"error": "connect"}, "error"),
        ({"status_code": "ok"}, "ok"),
        ({"status_code": "ok", "body": {"rows": []}}, "ok"),
    ],
)
def test_an_answer(answer: dict[str, Any], code: Any) -> None:
    assert FakeAnswer.model_validate(answer).code == code


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        ({}, "give one of status_code and error"),
        ({"status_code": 200, "error": "dns"}, "give one of status_code and error"),
        ({"error": "dns", "body": "x"}, "there is none"),
        ({"status_code": "error", "headers": {"A": "b"}}, "there is none"),
        ({"status_code": "ok", "headers": {"A": "b"}}, "there is none"),
        ({"status_code": "error", "body": "x"}, "there is none"),
        ({"error": "slow"}, "Input should be"),
        ({"status": 200}, "Extra inputs"),
    ],
)
def test_what_is_no_answer(answer: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        FakeAnswer.model_validate(answer)


@pytest.mark.parametrize(
    ("expect", "complaint"),
    [
        ({}, "expects nothing"),
        ({"outcome": "succeeded", "delay": "1s"}, "no delay where the outcome is succeeded"),
        ({"outcome": "failed", "delay": "1s"}, "no delay where the outcome is failed"),
        ({"outcome": "retry", "reason": "exhausted"}, "no reason where the outcome is retry"),
        ({"reason": "tired"}, "Input should be"),
        ({"outcome": "success"}, "Input should be"),
    ],
)
def test_expectations_that_make_no_sense(expect: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        Expected.model_validate(expect)
