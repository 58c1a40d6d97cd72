from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from orchestratord.config.params import check_params
from orchestratord.errors import InvalidParams
from orchestratord.model.endpoint import Endpoint, Param

DECLARED = {
    "id": Param(required=True),
    "limit": Param(type="integer", default=50),
    "rate": Param(type="number"),
    "name": Param(type="string"),
    "flag": Param(type="boolean"),
    "tags": Param(type="array", default=["a"]),
    "filter": Param(type="object"),
}


def endpoint(**params: Param) -> Endpoint:
    return cast("Endpoint", SimpleNamespace(params=params or DECLARED, spec=None))


def problems(given: dict[str, Any], **text: str) -> dict[str, str]:
    with pytest.raises(InvalidParams) as refused:
        check_params(endpoint(), given, text=text)
    return refused.value.problems


def test_defaults_are_filled_in() -> None:
    assert check_params(endpoint(), {"id": "x"}) == {
        "id": "x", "limit": 50, "rate": None, "name": None, "flag": None, "tags": ["a"],
        "filter": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "size"),
    [
        ({"id": "a" * 100}, 109),
        ({"id": "ä" * 50}, 109),
        ({"id": [1] * 50}, 108),
        ({"id": 10**99}, 107),
        ({"id": {"a": {"b": ["c" * 80]}}}, 103),
    ],
)
def test_all_of_them_together_are_bounded(given: dict[str, Any], size: int) -> None:
    free = endpoint(id=Param())
    assert check_params(free, given, most=size) == given
    with pytest.raises(InvalidParams) as refused:
        check_params(free, given, most=size - 1)
    assert refused.value.problems == {
        "params": f"are larger, as JSON, than the {size - 1} bytes that max_params in "
        "orchestratord.yaml allows"
    }
    with pytest.raises(InvalidParams, match="max_params"):
        check_params(free, {}, text={"id": "a" * size}, most=size)
    with pytest.raises(InvalidParams, match="max_params"):
        check_params(endpoint(id=Param(default="a" * size)), {}, most=size)


def test_nobody_changes_a_default() -> None:
    check_params(endpoint(), {"id": 1})["tags"].append("b")
    assert check_params(endpoint(), {"id": 1})["tags"] == ["a"]


@pytest.mark.parametrize("value", [None, 1, 1.5, True, "x", [1, {"a": None}], {"a": [1]}])
def test_without_a_type_any_json_value_is_taken(value: Any) -> None:
    free = endpoint(any=Param())
    assert check_params(free, {"any": value}) == {"any": value}


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("limit", 7, 7),
        ("limit", 7.0, 7),
        ("limit", -(10**30), -(10**30)),
        ("rate", 7, 7),
        ("rate", 1.5, 1.5),
        ("name", "7", "7"),
        ("name", "", ""),
        ("flag", False, False),
        ("tags", [], []),
        ("filter", {"a": {"b": 1}}, {"a": {"b": 1}}),
        ("rate", None, None),
        ("name", None, None),
    ],
)
def test_values_of_the_declared_type(name: str, value: Any, kept: Any) -> None:
    found = check_params(endpoint(), {"id": 1, name: value})[name]
    assert found == kept
    assert type(found) is type(kept)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("limit", "7", 'expected a whole number, not "7"'),
        ("limit", 1.5, "expected a whole number, not 1.5"),
        ("limit", True, "expected a whole number, not true"),
        ("limit", None, "expected a whole number, not null"),
        ("limit", float("inf"), "expected a whole number, not Infinity"),
        ("limit", float("nan"), "expected a whole number, not NaN"),
        ("rate", "1.5", 'expected a number, not "1.5"'),
        ("rate", float("nan"), "expected a number, not NaN"),
        ("rate", False, "expected a number, not false"),
        ("name", 7, "expected a text, not 7"),
        ("flag", 1, "expected true or false, not 1"),
        ("flag", "true", 'expected true or false, not "true"'),
        ("tags", {"a": 1}, 'expected a list, not {"a": 1}'),
        ("tags", "a,b", 'expected a list, not "a,b"'),
        ("filter", [1], "expected a mapping, not [1]"),
        ("filter", {"a": float("nan")}, "is not a JSON value"),
        ("id", float("inf"), "is not a JSON value"),
        ("id", "\ud800", "is not a JSON value"),
        ("name", "x" * 100, None),
    ],
)
def test_values_of_another_type(name: str, value: Any, expected: str | None) -> None:
    if expected is None:
        assert check_params(endpoint(), {"id": 1, name: value})[name] == value
    else:
        assert problems({"id": 1, name: value}) == {name: expected}


def test_a_value_nested_too_deep_for_json() -> None:
    value: Any = []
    for _ in range(100_000):
        value = [value]
    assert problems({"id": value}) == {"id": "is not a JSON value"}


def test_everything_wrong_is_named_at_once() -> None:
    assert problems({"limt": 1, "rate": "x"}) == {
        "limt": "there is no such parameter, did you mean 'limit'?",
        "id": "is required",
        "rate": 'expected a number, not "x"',
    }


def test_unknown_names_are_answered_with_the_known_ones() -> None:
    assert problems({"id": 1, "zzz": 1}) == {
        "zzz": "there is no such parameter; known are filter, flag, id, limit, name, rate, tags"
    }
    with pytest.raises(InvalidParams) as refused:
        check_params(cast("Endpoint", SimpleNamespace(spec=None, params={})), {"x": 1})
    assert refused.value.problems == {"x": "there is no such parameter"}


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("id", "007", "007"),
        ("id", "true", "true"),
        ("name", "12", "12"),
        ("limit", "007", 7),
        ("limit", " -3 ", -3),
        ("rate", "3", 3),
        ("rate", "1e3", 1000.0),
        ("flag", "true", True),
        ("flag", "False", False),
        ("tags", '["a", 1]', ["a", 1]),
        ("filter", '{"a": null}', {"a": None}),
    ],
)
def test_texts_are_turned_into_the_declared_type(name: str, text: str, expected: Any) -> None:
    found = check_params(endpoint(), {"id": "x"}, text={name: text})[name]
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("limit", "many", 'expected a whole number, not "many"'),
        ("limit", "1.5", 'expected a whole number, not "1.5"'),
        ("limit", "9" * 400, None),
        ("rate", "nan", "expected a number, not NaN"),
        ("rate", "x", 'expected a number, not "x"'),
        ("flag", "yes", 'expected true or false, not "yes"'),
        ("tags", "a,b", 'expected a list, not "a,b"'),
        ("tags", "[" * 100_000, None),
        ("filter", "[1]", "expected a mapping, not [1]"),
        ("nope", "1", None),
    ],
)
def test_texts_that_cannot_be_turned(name: str, text: str, expected: str | None) -> None:
    found = problems({"id": 1}, **{name: text})
    assert list(found) == [name]
    assert expected is None or found[name] == expected
    assert len(found[name]) < 120


def test_a_text_wins_over_a_value() -> None:
    assert check_params(endpoint(), {"id": "x", "limit": 1}, text={"limit": "2"})["limit"] == 2
