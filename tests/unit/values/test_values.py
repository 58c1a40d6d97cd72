"""Durations, rates, sizes, status sets, secrets: what they read, and what they refuse."""

from __future__ import annotations

import math
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError

from orchestratord.values.durations import (
    MAX_DURATION,
    Duration,
    Size,
    format_duration,
    format_size,
    parse_duration,
    parse_rate,
    parse_size,
)
from orchestratord.values.secret import Secret, Text
from orchestratord.values.status_set import StatusSet

DURATION: TypeAdapter[float] = TypeAdapter(Duration)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("10s", 10),
        ("5m", 300),
        ("2h", 7200),
        ("1d", 86400),
        ("1.5h", 5400),
        ("0.25s", 0.25),
        ("0", 0),
        ("0s", 0),
        ("90", 90),
        (" 10s ", 10),
        (90, 90),
        (0, 0),
        (0.5, 0.5),
        ("3650d", MAX_DURATION),
        (MAX_DURATION, MAX_DURATION),
    ],
)
def test_a_duration_is_read_as_seconds(text: Any, seconds: float) -> None:
    assert parse_duration(text) == seconds
    assert DURATION.validate_python(text) == seconds


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "s",
        "10 s",
        "10S",
        "1M",
        "1w",
        "1y",
        "1h30m",
        "-5s",
        "+5s",
        "1e3",
        "1_000",
        ".5s",
        "5.s",
        "١٠s",
        "inf",
        "nan",
        "3650.1d",
        "9" * 400,
        "9" * 400 + "d",
        -1,
        -0.001,
        10**400,
        -(10**400),
        MAX_DURATION + 1,
        math.inf,
        math.nan,
        True,
        False,
        None,
        [],
        {"s": 5},
        b"5s",
    ],
)
def test_what_is_no_duration_is_refused_and_the_forms_are_named(wrong: Any) -> None:
    with pytest.raises(ValueError, match="500ms, 10s, 5m, 2h, 1d, or a number of seconds"):
        parse_duration(wrong)
    with pytest.raises(ValidationError):
        DURATION.validate_python(wrong)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.25, "250ms"),
        (0.0005, "0.5ms"),
        (1, "1s"),
        (1.5, "1.5s"),
        (60, "1m"),
        (90, "90s"),
        (3600, "1h"),
        (5400, "90m"),
        (86400, "1d"),
        (90000, "25h"),
        (20, "20s"),
        (28.9, "28.9s"),
        (1 / 3, "333.333ms"),
        (123456789.123, "123456789.123s"),
    ],
)
def test_a_duration_is_written_in_its_shortest_form(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@settings(deadline=None)
@given(st.integers(0, int(MAX_DURATION) * 1000))
def test_what_is_written_can_be_read_again(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, rel=1e-12, abs=1e-6)


def test_the_schema_of_a_duration_takes_what_the_parser_takes() -> None:
    schema = DURATION.json_schema()
    for good in ("500ms", "1.5h", 5, 0.5, "${TIMEOUT}", "${TIMEOUT:-10s}"):
        jsonschema.validate(good, schema)
    for wrong in ("10 s", "1h30m", -1, True, None, ""):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)


@pytest.mark.parametrize(
    ("text", "rate"),
    [("10/s", 10), ("100/min", 100 / 60), ("5000/hour", 5000 / 3600), ("1/m", 1 / 60)],
)
def test_a_rate_is_read_as_times_a_second(text: str, rate: float) -> None:
    assert parse_rate(text) == pytest.approx(rate)


@pytest.mark.parametrize("wrong", ["0/s", "10", "10/d", "-1/s", "/s", "9" * 400 + "/s", 10, None])
def test_what_is_no_rate_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="is not a rate"):
        parse_rate(wrong)


@pytest.mark.parametrize(
    ("size", "text"),
    [(262_144, "256KiB"), (8 << 20, "8MiB"), (500_000, "500kB"), (10**9, "1GB"), (1 << 30, "1GiB"),
     (1025, "1025"), (0, "0")],
)  # fmt: skip
def test_sizes_are_written_as_they_are_read(size: int, text: str) -> None:
    assert format_size(size) == text
    assert parse_size(text) == size


def test_a_size_is_read_as_bytes() -> None:
    adapter: TypeAdapter[int] = TypeAdapter(Size)
    assert parse_size("1MiB") == adapter.validate_python("1 MiB") == 1 << 20
    assert (parse_size("500kB"), parse_size("64KiB"), parse_size(7)) == (500_000, 65_536, 7)
    for wrong in ("1.5MiB", "-1", "1TB", "", True, None, 1.5, "9" * 400):
        with pytest.raises(ValueError, match="is not a size"):
            parse_size(wrong)


# -- status sets ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "inside", "outside"),
    [
        (200, [200], [199, 201, "error", "ok", None]),
        ("200", [200], [201]),
        ("2xx", [200, 204, 299], [199, 300]),
        ("5XX", [500, 599], [499]),
        ("500-599", [500, 550, 599], [499, 600]),
        ("500 - 503", [500, 503], [504]),
        ("404-404", [404], [403, 405]),
        ("error", ["error"], [500, None, "ok"]),
        (["5xx", "error"], [500, "error"], [404, None]),
        (("2xx", 404), [204, 404], [405]),
        (["error", 408, 425, 429, 500, 502, 503, 504], ["error", 408, 504], [501, 505, 200]),
        ("ok", ["ok"], ["error", 200]),
    ],
)
def test_what_a_status_set_holds(written: Any, inside: list[Any], outside: list[Any]) -> None:
    read = StatusSet.parse(written)
    assert all(code in read for code in inside)
    assert not any(code in read for code in outside)


def test_a_task_that_never_ran_is_in_no_set() -> None:
    assert None not in StatusSet.parse(["1xx", "2xx", "3xx", "4xx", "5xx", "error", "ok"])


@pytest.mark.parametrize(
    "wrong",
    ["", "abc", "20", "2000", "99", "600", "0xx", "6xx", "xx", "2x", "2xxx", "5xx,error", "599-500",
     "500-", "-500", "500-600", "99-200", "²xx", "٢٠٠", "5٠٠-599", "Error", 99, 600, -200, 200.0,
     True, False, None, {}, {"200": 1}, [], [[200]], [200, "nope"], [None], [True], b"200"],
)  # fmt: skip
def test_what_is_no_status_set_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"status code|empty"):
        StatusSet.parse(wrong)


def test_the_wrong_one_of_a_list_is_named() -> None:
    with pytest.raises(ValueError, match=r"'5x' is not a status code"):
        StatusSet.parse(["2xx", "5x"])


def test_a_status_set_is_written_as_it_stands_in_the_table() -> None:
    assert str(StatusSet.parse(["5xx", "error"])) == "5xx,error"
    assert str(StatusSet.parse(503)) == "503"
    assert StatusSet.parse(["5xx", "error"]) == StatusSet.parse(("5xx", "error"))


class Rules(BaseModel):
    when: StatusSet


def test_pydantic_reads_status_sets() -> None:
    rules = Rules.model_validate({"when": ["5xx", "error"]})
    assert 503 in rules.when
    assert rules.model_dump(mode="json") == {"when": "5xx,error"}
    with pytest.raises(ValidationError, match="is not a status code"):
        Rules.model_validate({"when": ["5x"]})


CODE = st.one_of(
    st.integers(100, 599),
    st.integers(1, 5).map(lambda n: f"{n}xx"),
    st.tuples(st.integers(100, 599), st.integers(0, 100)).map(
        lambda pair: f"{pair[0]}-{min(pair[0] + pair[1], 599)}"
    ),
    st.sampled_from(["error", "ok"]),
)


@settings(deadline=None)
@given(st.lists(CODE, min_size=1, max_size=4), st.integers(90, 610))
def test_a_list_holds_what_its_members_hold(written: list[Any], code: int) -> None:
    schema = TypeAdapter(StatusSet).json_schema()
    jsonschema.validate(written, schema)
    assert (code in StatusSet.parse(written)) == any(
        code in StatusSet.parse(item) for item in written
    )


# -- text and secrets -----------------------------------------------------------------------------


def test_a_text_is_what_it_resolved_to() -> None:
    text = Text.of([("a-", False), ("b", True)], secret=True, source="a-${secret:B}")
    assert text == "a-b"
    assert isinstance(text, str)
    assert (text.parts, text.secret, text.source) == (
        (("a-", False), ("b", True)), True, "a-${secret:B}",
    )  # fmt: skip


def test_nothing_prints_a_secret() -> None:
    secret = Secret.parse("hunter2hunter2")
    assert secret.reveal() == "hunter2hunter2"
    shown = (str(secret), repr(secret), f"{secret}", f"{secret!s}", "%s" % secret, repr([secret]))  # noqa: UP031
    assert not any("hunter" in text for text in shown)
    assert repr({"k": secret}) == "{'k': ***}"


class Login(BaseModel):
    password: Secret


def test_a_model_with_a_secret_does_not_print_it() -> None:
    login = Login.model_validate({"password": "hunter2hunter2"})
    for shown in (repr(login), login.model_dump_json(), str(login.model_dump(mode="json"))):
        assert "hunter" not in shown
        assert "***" in shown


@pytest.mark.parametrize("wrong", ["", None, 5, ["x"], {"hunter2": 1}, b"hunter2"])
def test_what_is_no_secret_is_refused_without_being_shown(wrong: Any) -> None:
    with pytest.raises(ValueError, match="a secret is a text that is not empty") as caught:
        Secret.parse(wrong)
    assert "hunter" not in str(caught.value)


def test_secrets_are_equal_by_value_and_never_to_a_text() -> None:
    assert Secret("a") == Secret("a") != Secret("b")
    assert hash(Secret("a")) == hash(Secret("a"))
    assert Secret("a") != "a"
    assert Secret.parse(Secret("a")) == Secret("a")
