"""JMESPath: what is wrong is said when it is read, and what it costs is bounded."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from orchestratord.values.budget import BUDGET, Budget, TooCostly
from orchestratord.values.jmespath_expression import Expression


@pytest.mark.parametrize(
    ("source", "data", "found"),
    [
        ("body.records[0].Id", {"body": {"records": [{"Id": "a"}]}}, "a"),
        ("records[?done].id", {"records": [{"id": 1, "done": True}, {"id": 2}]}, [1]),
        ("next || 'none'", {}, "none"),
        ("to_string(a)", {"a": [1, {"b": None}]}, '[1,{"b":null}]'),
        ("sort_by(a, &n)[].n", {"a": [{"n": 2}, {"n": 1}]}, [1, 2]),
        ("nowhere.at.all", [1, 2], None),
    ],
)
def test_what_it_finds(source: str, data: Any, found: Any) -> None:
    assert Expression(source).search(data) == found


@pytest.mark.parametrize(
    ("data", "held"),
    [({}, True), ({"errors": []}, True), (None, True), ({"errors": [1]}, False)],
)
def test_whether_it_holds(data: Any, held: bool) -> None:
    assert Expression("!errors").holds(data) is held


@pytest.mark.parametrize(("value", "held"), [(0, True), ("no", True), ("", False), ([], False)])
def test_what_counts_as_true(value: Any, held: bool) -> None:
    assert Expression("a").holds({"a": value}) is held


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("a[?", "it ends too early"),
        ("a b", "unexpected 'b' at character 3"),
        ("a == 'x", "unclosed ' delimiter at character 6"),
        ("a#", "unknown token # at character 2"),
        ("lenght(a)", "there is no function lenght()"),
        ("length(a, b)", "length() takes 1 argument, not 2"),
        ("merge()", "merge() takes 1 or more arguments, not 0"),
        ("(" * 3000, "nested too deeply"),
        ("a." * 3000 + "a", "from 1 to 4000 characters"),
        (" ", "from 1 to 4000 characters"),
    ],
)
def test_what_is_wrong_is_said_when_it_is_read(source: str, complaint: str) -> None:
    with pytest.raises(ValueError) as caught:
        Expression(source)
    assert complaint in str(caught.value)


def test_a_function_that_is_given_something_else() -> None:
    with pytest.raises(ValueError, match=r"^length\(a\): length\(\) takes .*, not null$"):
        Expression("length(a)").search({})


@pytest.mark.parametrize(
    "source",
    [
        "[@, @]" + " | [@, @]" * 60,
        "[@, @][]" + " | [@, @][]" * 60,
        "{a: @, b: @}" + " | {a: @, b: @}" * 60,
        "join('', [a, a])" + " | join('', [@, @])" * 60,
        "[*][*][*][*].a",
        "[*].[" + ", ".join(["@"] * 200) + "]",
    ],
)
def test_it_costs_no_more_than_so_much(source: str) -> None:
    data: Any = {"a": "aaaa"} if source.startswith("join") else [[[[{}] * 40] * 40] * 40] * 40
    began = time.thread_time()
    with pytest.raises(ValueError, match="it costs too much"):
        Expression(source).search(data)
    assert time.thread_time() - began < 10, "a bound, not a measurement"


def test_several_expressions_have_one_budget() -> None:
    budget, found = Budget(100), Expression("items[*].a")
    assert found.search({"items": [{"a": 1}] * 20}, budget) == [1] * 20
    with pytest.raises(TooCostly, match=r"^items\[\*\]\.a: it costs too much"):
        [found.search({"items": [{"a": 1}] * 20}, budget) for _ in range(10)]


def test_a_long_list_is_sorted_in_runs() -> None:
    numbers = [n * 7919 % 50_021 for n in range(50_000)]
    assert Expression("sort(@)").search(numbers) == sorted(numbers)


def test_a_page_of_records_costs_little() -> None:
    records = [{"Id": number, "Name": "x" * 50, "Active": True} for number in range(5_000)]
    found = Expression("records[?Active].{id: Id, name: Name}").search({"records": records})
    assert len(found) == 5_000 < BUDGET


def test_as_a_type_of_a_setting() -> None:
    adapter = TypeAdapter(Expression)
    assert adapter.validate_python("a.b") == Expression("a.b")
    assert adapter.dump_python(Expression("a.b")) == "a.b"
    assert adapter.json_schema()["type"] == "string"
    for bad in (1, None, ["a"], "a["):
        with pytest.raises(ValidationError):
            adapter.validate_python(bad)


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("body.records[0].Id", "body"),
        ("body | records", "body"),
        ("@.body.x", "body"),
        ("body[?a == b].c", "body"),
        ("sort_by(body.a, &b)[0]", "body"),
        ("body.a || params.b", "body params"),
        ("[body.a, status_code]", "body status_code"),
        ("{a: headers.link}", "headers"),
        ("length(body[*].a[])", "body"),
        ("'text'", ""),
        ("@", "@"),
        ("keys(@)", "@"),
        ("*.a", "@"),
        ("[?a]", "@"),
    ],
)
def test_the_names_that_it_begins_with(source: str, names: str) -> None:
    assert Expression(source).names == set(names.split())


LINK = '<https://a.test/x?page=2&per_page=5>; rel="next", <https://a.test/x?page=9>; rel="last"'


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("query(next, 'cursor')", "a b/c"),
        ("query(next, 'empty')", ""),
        ("query(next, 'limit')", None),
        ("query(nothing, 'cursor')", None),
        ("query(link, 'cursor')", None),
        ("link(link, 'next')", "https://a.test/x?page=2&per_page=5"),
        ("link(link, 'prev')", None),
        ("link(nothing, 'next')", None),
        ("query(link(link, 'next'), 'page')", "2"),
        ("last_segment(next)", "x"),
        ("last_segment('/v1/query/01g%20-2000/?q=/a')", "01g -2000"),
        ("last_segment('https://a.test/')", None),
        ("last_segment(nothing)", None),
    ],
)
def test_links_are_taken_apart(source: str, found: str | None) -> None:
    data = {"next": "https://a.test/x?cursor=a%20b%2Fc&cursor=2&empty=#top", "link": LINK}
    assert Expression(source).search(data) == found


@pytest.mark.parametrize(
    "source", ["query(n, 'a')", "query(u, 'a')", "link(n, 'next')", "last_segment(n)"]
)
def test_what_is_no_link_is_an_error(source: str) -> None:
    with pytest.raises(ValueError):
        Expression(source).search({"n": 5, "u": "https://[::1"})


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from_json(payload).user.id", "U1"),
        ("from_json(payload).actions[0].value", 3),
        ("from_json(nothing)", None),
        ("to_json(user)", '{"id": "Ü"}'),
        ("to_json(user.id)", '"Ü"'),
        ("to_json(nothing)", "null"),
        ("from_json(to_json(@)) == @", True),
    ],
)
def test_json_within_a_text(source: str, found: Any) -> None:
    payload = '{"user": {"id": "U1"}, "actions": [{"value": 3}]}'
    assert Expression(source).search({"payload": payload, "user": {"id": "Ü"}}) == found


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("from_json(words)", r"from_json\(words\): from_json finds no JSON: Expecting"),
        ("from_json(nan)", "NaN is no number"),
        ("from_json(deep)", "nested more than 64 deep"),
        ("from_json(words, nan)", "takes 1 argument"),
        ("from_json(n)", "takes string or null, not number"),
        ("from_json(long)", "costs too much"),
        ("length(many[].from_json(@))", "costs too much"),
    ],
)
def test_json_that_is_not_read(source: str, says: str) -> None:
    data = {"words": "hello", "nan": "[NaN]", "deep": "[" * 70 + "]" * 70, "n": 5}
    data |= {"long": " " * 4_100_000 + "1", "many": ["[" + "1," * 1_000 + "1]"] * 2_000}
    with pytest.raises(ValueError, match=says):
        Expression(source).search(data)


@pytest.mark.parametrize("source", ["!a.b", "x && !a.b.c", "[?!a.b]", "!a[].b", "!a[?b]", "!a.*"])
def test_a_not_that_would_swallow_what_follows(source: str) -> None:
    """JMESPath reads it as (!a).b, and finds null, whatever it looks at."""
    with pytest.raises(ValueError, match=r"always null; write !\(a\.b\)"):
        Expression(source)


@pytest.mark.parametrize("source", ["!(a.b)", "!a", "!a[0]", "!a || a.b", "[?!a].b", "!!a"])
def test_a_not_of_something(source: str) -> None:
    Expression(source)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ('status == "done"', "a text has single ones: 'done'"),
        ('"done" != status', "a text has single ones: 'done'"),
        ('[?type == "in progress"].id', "a text has single ones: 'in progress'"),
        ('contains(tags, "vip")', "a text has single ones: 'vip'"),
        ("done == true", "the value is written `true`"),
        ("[?false != active]", "the value is written `false`"),
        ("a == 1", "a number stands in backticks: `1`"),
        ("length(a) > 0", "a number stands in backticks: `0`"),
    ],
)
def test_what_would_name_a_field_and_means_a_value(source: str, says: str) -> None:
    """JMESPath compares with a field of that name, finds null, and says nothing."""
    with pytest.raises(ValueError, match=re.escape(says)):
        Expression(source)


@pytest.mark.parametrize(
    "source",
    ['headers."x-next" == \'a\'', 'body."status" == \'a\'', '"a b" == \'x\'', '"a"."b"',
     'a == "b".c', "a.true", "a == `true`", 'keys("a b")', '{"true": a}', "a == null",
     "a == 'true'", 'a == "b"[0]', '"x-y"'],
)  # fmt: skip
def test_what_names_a_field(source: str) -> None:
    Expression(source)
