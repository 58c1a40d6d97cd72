"""Templates: what they render to, what they refuse, and that they stay small."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import StrictUndefined
from jinja2.exceptions import TemplateError
from jinja2.sandbox import SandboxedEnvironment
from pydantic import BaseModel, ConfigDict, ValidationError

from orchestratord.errors import InvalidPayload
from orchestratord.values.budget import Budget, TooCostly, within_budget
from orchestratord.values.secret import Text
from orchestratord.values.template import Template, TemplateTree, to_text
from orchestratord.values.template_sandbox import MAX_RENDERED

NOW = datetime(2026, 11, 24, 22, 0, 0, 5000, tzinfo=UTC)
CONTEXT: dict[str, Any] = {
    "params": MappingProxyType(
        {
            "id": 7,
            "name": "a/b c",
            "on": True,
            "none": None,
            "list": [1, "two", None],
            "map": {"deep": {"er": 1.5}},
            "items": ["x", "y"],
            "keys": "k",
            "markup": "<i> & '\"",
        }
    ),
    "task": {"id": 42, "attempt": 1, "scheduled_at": NOW, "last_success_at": None},
    "now": NOW,
}


def render(text: str, **more: Any) -> Any:
    return Template(text).render({**CONTEXT, **more})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{{ params.id }}", 7),
        ("{{params.on}}", True),
        ("{{ params.none }}", None),
        ("{{ params.list }}", [1, "two", None]),
        ("{{ params.map.deep }}", {"er": 1.5}),
        ("{{ task.scheduled_at }}", NOW),
        ("{{ params.id + 1 }}", 8),
        ("{{ params.list[1] }}", "two"),
        ("{{ params['map']['deep'].er }}", 1.5),
        ("{{ params.id == 7 and params.on }}", True),
        ("{{ 'big' if params.id > 5 else 'small' }}", "big"),
        ("{{ params.missing | default('spare') }}", "spare"),
        ("{{ params.missing is defined }}", False),
        ("{{ true }}", True),
        ("{{ none }}", None),
        ("{{ not params.on }}", False),
        ("{{ -params.id }}", -7),
        ("{{ [params.id, 'x'] }}", [7, "x"]),
        ("{{ params.list | map('string') }}", ["1", "two", "None"]),
        ("{{ params.items | map('upper') | list }}", ["X", "Y"]),
        ("{{ params.name.replace('/', '-') }}", "a-b c"),
        ("{{ ', '.join(params.items) }}", "x, y"),
        ("{{ params.items | join('+') }}", "x+y"),
        ("{{ params.map | tojson }}", '{"deep": {"er": 1.5}}'),
        ("{{ params.map | to_json }}", '{"deep": {"er": 1.5}}'),
        ("{{ (('[1, ' ~ params.id ~ ']') | from_json)[1] }}", 7),
        ("{{ (params.map | to_json | from_json).deep }}", {"er": 1.5}),
        ("{{ params.none | from_json }}", None),
        ("{{ 2.345 | round(1) }}", 2.3),
        ("{{ now.year }}", 2026),
    ],
)
def test_a_single_expression_keeps_its_type(text: str, value: Any) -> None:
    rendered = render(text)
    assert rendered == value
    assert type(rendered) is type(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("id {{ params.id }}", "id 7"),
        ("{{ params.id }}{{ params.id }}", "77"),
        ("{{ params.on }}!", "true!"),
        ("<{{ params.none }}>", "<>"),
        ("{{ params.list }} ", '[1, "two", null] '),
        ("at {{ now }}", "at 2026-11-24T22:00:00.005Z"),
        ("{{ params.map }}.", '{"deep": {"er": 1.5}}.'),
        ("é {{ params.map.deep.er }}", "é 1.5"),
        ("a\r\n{{ params.id }}\n", "a\r\n7\n"),
        ("{ } }} {{ params.id }}}", "{ } }} 7}"),
        ("<a b='{{ params.markup | e }}'/>", "<a b='&lt;i&gt; &amp; &#39;&#34;'/>"),
        # Jinja's own would escape what is joined to it, too.
        ("{{ (params.markup | e) + '<br>' }}!", "&lt;i&gt; &amp; &#39;&#34;<br>!"),
        ("{{ '<b>' ~ (params.markup | e) | upper }}!", "<b>&LT;I&GT; &AMP; &#39;&#34;!"),
        ("<a>{{ params.none | e }}{{ params.on | e }}{{ params.id | e }}</a>", "<a>true7</a>"),
        ("{{ params.list | e }}.", "[1, &#34;two&#34;, null]."),
        ("{{ params.items | map('e') | join }}.", "xy."),
        ("{{ [true, 7, none, params.map] | join(',') }}.", 'true,7,,{"deep": {"er": 1.5}}.'),
        ('{"a": {{ params.markup | tojson }}}', r"""{"a": "<i> & '\""}"""),
        ("{{ params.none | tojson }} {{ now | tojson }}", 'null "2026-11-24T22:00:00.005Z"'),
        ("?q={{ params.markup | urlencode }}", "?q=%3Ci%3E%20%26%20%27%22"),
        ("{{ params.name | urlencode }}.{{ params.on | urlencode }}", "a/b%20c.true"),
        ("{{ {'a b': params.id, 'c': none} | urlencode }}.", "a+b=7&c=."),
        ("{{ [['a', '&']] | urlencode }}.", "a=%26."),
    ],
)
def test_in_a_longer_text_values_are_written_as_text(text: str, value: str) -> None:
    assert render(text) == value


@pytest.mark.parametrize("text", ["", "plain", "{", "}} x {", "100 %", "$5", "a { b } c"])
def test_a_text_without_expressions_is_itself(text: str) -> None:
    template = Template(text)
    assert template.constant
    assert template.render({}) == text


@pytest.mark.parametrize(
    ("parts", "constant", "value"),
    [
        ([("", False)], True, ""),
        ([], True, ""),
        ([("a", False), ("{{ params.id }}", True), ("b", False)], True, "a{{ params.id }}b"),
        ([("{{ params.id }}", True)], True, "{{ params.id }}"),
        ([("x/", False), ("%2F ü/", True)], True, "x/%2F ü/"),
        ([("", True), ("{{ params.id }}", False)], False, 7),
        ([("a", True), ("{{ params.id }}", False)], False, "a7"),
    ],
)
def test_what_is_made_of_literals_alone_is_constant(
    parts: list[tuple[str, bool]], constant: bool, value: Any
) -> None:
    template = Template(Text.of(parts, secret=False, source="s"))
    assert template.constant is constant
    for _ in range(2):
        rendered = template.render({} if constant else CONTEXT)
        assert rendered == value
        assert type(rendered) is type(value)  # no Text, which remembers its parts
    if constant:
        # Only values are quoted, and there are none.
        assert template.render({}, quote=lambda text: quote(text, safe="")) == value
        assert (template.names, template.paths) == (frozenset(), frozenset())


@given(st.text(st.sampled_from("ab{} %ü/\n\x00"), max_size=12))
def test_a_constant_is_known_by_having_no_expression(text: str) -> None:
    try:
        template = Template(text)
    except ValueError:
        return
    assert template.constant is not ("{{" in text)
    if template.constant:
        assert template.render({}) == text == template.source


def test_a_constant_of_any_length_is_itself() -> None:
    text = "x" * 2_000_000
    assert Template(text).render({}) == text
    assert Template.parse(5).render({}) == "5"
    assert Template.parse(True).render({}) == "true"


def test_constants_in_a_tree_are_the_texts_themselves() -> None:
    tree = TemplateTree({"a": ["x", "", "{{ params.id }}"], "{{ k }}": 5, "n": None, "t": True})
    first, second = tree.render(CONTEXT), tree.render(CONTEXT)
    assert first == {"a": ["x", "", 7], "{{ k }}": 5, "n": None, "t": True}
    first["a"].append("changed")
    assert second == tree.render(CONTEXT) == {**first, "a": ["x", "", 7]}
    assert tree.names == {"params"}


def test_equal_texts_are_equal_constant_or_not() -> None:
    for text in ("", "plain", "{{ params.id }}", "a {{ now }} b"):
        assert Template(text) == Template(text)
        assert hash(Template(text)) == hash(Template(text))
        assert Template(text) != Template(text + "x")
    literal = Template(Text.of([("{{ params.id }}", True)], secret=False, source=""))
    assert literal != Template("{{ params.id }}")


# -- what is wrong is said at load ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{{ params.id", "{{ without }}"),
        ("{{ params.id }", "{{ without }}"),
        ("{{ }}", "in the template {{  }}"),
        ("{{ params. }}", "expected name"),
        ("{{ 1 + }}", "end of template"),
        ("{{ params.id params.id }}", "more than one expression"),
        ("{{ 1, 2 }}", "more than one expression"),
        ("{{ it's }}", "unexpected char"),
        ("{% for x in y %}{% endfor %}", "expressions only"),
        ("{{ params.id }}{# note #}", "expressions only"),
        ("{{ params.id | nosuch }}", "nosuch"),
        ("{{ params.id | indent }}", "indent"),
        ("{{ params.id | center(5) }}", "center"),
        ("{{ params.id | attr('real') }}", "attr"),
        ("{{ params.id | xmlattr }}", "xmlattr"),
        ("{{- params.id }}", "not available"),
        ("{{ params.id -}}", "not available"),
        ("{{-params.id}}", "not available"),
        ("{{ " + "(" * 4000 + "1" + ")" * 4000 + " }}", "nested too deeply"),
        ("{{ " + "1 + " * 2500 + "1 }}", "longer than 10000 characters"),
    ],
)
def test_what_does_not_parse_is_a_value_error(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as caught:
        Template(text)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{{ {'a': {'b': params.id}} }}", {"a": {"b": 7}}),
        ("{{ {'a': {'b': 1}}}}", {"a": {"b": 1}}),
        ("{{ '}}' }}", "}}"),
        ("{{ '{{' }} {{ \"}} {% x %}\" }}", "{{ }} {% x %}"),
        ("{{ 'it\\'s }}' }}", "it's }}"),
    ],
)
def test_braces_within_an_expression_do_not_end_it(text: str, value: Any) -> None:
    assert render(text) == value


def test_the_names_that_are_used_are_known() -> None:
    template = Template("{{ params.id }} {{ task['id'] ~ (now if params.on else other.thing) }}")
    assert template.names == {"params", "task", "now", "other"}
    assert template.paths >= {"params.id", "task.id", "params.on", "other.thing"}
    assert Template("{{ true }}").names == frozenset()
    assert Template("{{ params }}").names == {"params"}


# -- strict ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "{{ nothing }}",
        "{{ params.missing }}",
        "{{ params.map.deep.er.more }}",
        "{{ params.none.more }}",
        "{{ params.values }}",
        "{{ params.missing + 1 }}",
        "{{ params.missing | upper }}",
        "{{ params.missing | e }}",
        "{{ params.missing | tojson }}",
        "{{ params.missing | urlencode }}",
        "{{ params.missing | from_json }}",
        "{{ params.name | from_json }}",
        "{{ params.id | from_json }}",
        "{{ 'NaN' | from_json }}",
        "{{ (1e308 * 10) | tojson }}",
        "{{ params['missing'] }}",
        "{{ [params.missing] }}",
        "{{ {'a': [params.missing]} }}",
        "{{ params.list[9] }}",
        "{{ 'x' if params.none }}",
        "{{ params.missing ~ 'x' }}",
        "text {{ params.missing }}",
        "{{ range(3) }}",
        "{{ dict(a=1) }}",
        "{{ cycler('a') }}",
        "{{ lipsum() }}",
        "{{ namespace() }}",
        "{{ self }}",
        "{{ 1 // 0 }}",
        "{{ params.id.real.__class__ }}",
        "{{ now.isoformat }}",
    ],
)
def test_what_is_undefined_or_fails_is_an_invalid_payload(text: str) -> None:
    with pytest.raises(InvalidPayload, match="in the template"):
        render(text)


def test_a_value_that_cannot_be_written_is_an_invalid_payload() -> None:
    for value in (10**5000, {(1, 2): 3}):
        with pytest.raises(InvalidPayload):
            render("x {{ params.v }}", params={"v": value})
    with pytest.raises(InvalidPayload):
        Template("/{{ v }}").render({"v": "\ud800"}, quote=quote)


# -- the sandbox ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__ }}",
        "{{ ''['__class__'] }}",
        "{{ params.__class__ }}",
        "{{ now.__class__.__mro__ }}",
        "{{ [''] | map(attribute='__class__') | list }}",
        "{{ params.list.__class__.__base__.__subclasses__() }}",
        "{{ ''.format.__globals__ }}",
        "{{ params.__init__.__globals__ }}",
        "{{ (1).real.__class__ }}",
        "{{ params.items.append('z') }}",
        "{{ params.map.update({'a': 1}) }}",
        "{{ params.map.pop('deep') }}",
        "{{ task.clear() }}",
    ],
)
def test_nothing_reaches_pythons_insides_or_changes_its_context(text: str) -> None:
    with pytest.raises(InvalidPayload):
        render(text)
    assert CONTEXT["params"]["items"] == ["x", "y"]
    assert CONTEXT["task"]["id"] == 42


@pytest.mark.parametrize(
    "text",
    [
        "{{ 'a' * 10**9 }}",
        "{{ 10**9 * 'a' }}",
        "{{ 'a' * 2000000 }}",
        "{{ [0] * 10**9 }}",
        "{{ (1, 2) * 5 }}",
        "{{ ['a' * 1000000] * 1000000 }}",
        "{{ 10 ** 10 ** 10 }}",
        "{{ 9999 ** 9999 }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ '{a:1000000000}'.format_map({'a': 1}) }}",
        "{{ 'a'.center(10**9) }}",
        "{{ 'a'.ljust(10**9) }}",
        "{{ 'a'.rjust(10**9) }}",
        "{{ 'a'.zfill(10**9) }}",
        "{{ 'a\t'.expandtabs(10**9) }}",
        "{{ 'a'['center'](10**9) }}",
        "{{ '{:1000000000}'['format'](1) }}",
        "{{ ('a' * 5000).replace('a', 'b' * 5000) }}",
        "{{ ('a' * 5000)['replace']('a', 'b' * 5000) }}",
        "{{ ('a' * 5000) | replace('a', 'b' * 5000) }}",
        "{{ ('a' * 5000) | replace('', 'b' * 5000) }}",
        "{{ ('a' * 5000) | list | join('b' * 5000) }}",
        "{{ ('b' * 5000).join(('a' * 5000) | list) }}",
        "{{ 'a'.encode() * 10**9 }}",
        "{{ 'a'.translate({97: 'b'}) }}",
        "{{ (1).to_bytes(10**9, 'big') }}",
        "{{ 1.5 | round(10**9, 'ceil') }}",
        "{{ 5 | round(-10**9) }}",
        "x{{ 'a' * 1000000 }}{{ 'a' * 1000000 }}",
    ],
)
def test_nothing_makes_something_huge(text: str) -> None:
    with pytest.raises(InvalidPayload):
        render(text)


def test_json_that_is_read_is_bounded() -> None:
    read = Template("{{ params.text | from_json }}")
    with pytest.raises(InvalidPayload, match="nested more than 64 deep"):
        read.render({"params": {"text": "[" * 65 + "]" * 65}})
    with pytest.raises(InvalidPayload, match="nested more than 64 deep"):
        read.render({"params": {"text": "[" * 100_000}})
    with pytest.raises(InvalidPayload, match="costs too much"):
        read.render({"params": {"text": " " * 4_100_000 + "1"}})
    again = Template("{{ params.all | map('from_json') | list | length }}")
    with pytest.raises(InvalidPayload, match="costs too much"):
        again.render({"params": {"all": ["[" + "1," * 1_000 + "1]"] * 2_000}})


@pytest.mark.parametrize("name", ["e", "tojson", "urlencode"])
def test_what_a_filter_writes_is_bounded(name: str) -> None:
    for filters in (f" | {name}", f" | {name}" * 30):
        grows = Template("{{ params.text" + filters + " }}")
        with pytest.raises(InvalidPayload, match=f"over {MAX_RENDERED} characters"):
            grows.render({"params": {"text": "\0" * 350_000 + "\"<%&'" * 50_000}})
    each = Template("{{ params.all | map('" + name + "') | list | length }}")
    with pytest.raises(InvalidPayload, match="costs too much"):
        each.render({"params": {"all": ["<" * 640] * 64_000}})


def test_what_stays_small_is_allowed() -> None:
    assert render("{{ 'ab' * 3 }}") == "ababab"
    assert render("{{ 2 ** 10 * 3 % 7 }}") == 2**10 * 3 % 7
    assert render("{{ 'aXa' | replace('a', 'b', 1) }}") == "bXa"
    assert render("{{ 'aXa'.replace('a', '') }}") == "X"


def test_a_parameter_with_the_name_of_a_method_is_the_parameter() -> None:
    assert render("{{ params.items }}") == ["x", "y"]
    assert render("{{ params.items | length }}") == 2
    assert render("{{ params.keys ~ '!' }}") == "k!"
    assert render("{{ params.map.items() | list }}") == [["deep", {"er": 1.5}]]


# -- data is never a template ---------------------------------------------------------------------


def test_a_value_that_looks_like_a_template_is_not_evaluated() -> None:
    for value in ("{{ params.id }}", "{% raw %}", "{{ 'a' * 10**9 }}"):
        assert render("{{ params.v }}", params={"v": value}) == value
        assert render("= {{ params.v | upper }}", params={"v": value}) == f"= {value.upper()}"


@pytest.mark.parametrize("value", ["{{ params.id }}", "{{", "}}", "{%", "{# x", "{{ x"])
def test_what_came_out_of_a_reference_is_literal(value: str) -> None:
    text = Text.of(
        [("key=", False), (value, True), ("&id={{ params.id }}", False)],
        secret=True,
        source="key=${secret:KEY}&id={{ params.id }}",
    )
    template = Template(text)
    assert template.render(CONTEXT) == f"key={value}&id=7"
    assert template.secret
    assert template.source == "key=${secret:KEY}&id={{ params.id }}"
    assert value not in repr(template) or value == "{{ params.id }}" or value in text.source


def test_a_reference_cannot_complete_a_template() -> None:
    text = Text.of([("{", False), ("{ params.id }}", True)], secret=False, source="{${X}")
    assert Template(text).render(CONTEXT) == "{{ params.id }}"
    opened = Text.of([("{{ ", False), ("params.id", True), (" }}", False)], secret=False, source="")
    with pytest.raises(ValueError, match="without"):
        Template(opened)


# -- paths ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        ("a/b c", "a%2Fb%20c"),
        ("..", ".."),
        ("../x", "..%2Fx"),
        ("%2e%2e", "%252e%252e"),
        ("?x=1&y#z", "%3Fx%3D1%26y%23z"),
        ("é€", "%C3%A9%E2%82%AC"),
        (5, "5"),
        (True, "true"),
        (None, ""),
        ([1], "%5B1%5D"),
    ],
)
def test_quoting_is_for_values_and_not_for_the_text_around(value: Any, encoded: str) -> None:
    template = Template("/a%2F/{{ v }}/b?x")
    text = template.render({"v": value}, quote=lambda text: quote(text, safe=""))
    assert text == f"/a%2F/{encoded}/b?x"
    assert Template("{{ v }}").render({"v": value}, quote=str) == to_text(value)


# -- the short way and Jinja agree ----------------------------------------------------------------

ENV = SandboxedEnvironment(undefined=StrictUndefined)
NAMES = st.sampled_from(
    ["params", "task", "id", "name", "map", "deep", "er", "list", "none", "true", "not", "in",
     "missing", "now", "year", "items", "_x", "é"]
)  # fmt: skip


@settings(deadline=None, max_examples=400)
@given(path=st.lists(NAMES, min_size=1, max_size=4), tight=st.booleans())
def test_a_plain_path_is_what_jinja_says_it_is(path: list[str], tight: bool) -> None:
    source = ".".join(path)
    text = "{{%s}}" % source if tight else "{{  %s\n}}" % source  # noqa: UP031
    context = {**CONTEXT, "params": {**CONTEXT["params"], "items": 1}, "_x": {"é": 2}}

    def ours() -> Any:
        try:
            return Template(text).render(context)
        except (InvalidPayload, ValueError):
            return "refused"

    assert ours() == _jinjas(
        lambda: ENV.compile_expression(source, undefined_to_none=False), context
    )


def _jinjas(compile_: Callable[[], Any], context: dict[str, Any]) -> Any:
    try:
        value = compile_()(**context)
    except TemplateError:
        return "refused"
    if isinstance(value, StrictUndefined):
        return "refused"
    if callable(value):  # a method of a mapping is no value; a key of that name is
        return 1 if value.__self__ is context["params"] else "refused"
    return value


# -- trees ----------------------------------------------------------------------------------------


def test_a_tree_renders_its_texts_and_keeps_the_rest() -> None:
    tree = TemplateTree(
        {"id": "{{ params.id }}", "n": 5, "no": None, "list": ["{{ params.on }}", 1.5, {"k": "v"}],
         "{{ params.id }}": True}
    )  # fmt: skip
    assert tree.render(CONTEXT) == {
        "id": 7,
        "n": 5,
        "no": None,
        "list": [True, 1.5, {"k": "v"}],
        "{{ params.id }}": True,
    }
    assert tree.names == {"params"}


def test_a_tree_knows_that_it_holds_a_secret() -> None:
    secret = Text.of([("s3cret", True)], secret=True, source="${secret:X}")
    assert TemplateTree({"a": [secret]}).secret
    assert not TemplateTree({"a": ["x"]}).secret
    assert TemplateTree({"a": [secret]}).render({}) == {"a": ["s3cret"]}


def test_a_tree_refuses_at_load_and_at_render() -> None:
    with pytest.raises(ValueError, match="without"):
        TemplateTree({"a": ["{{ x"]})
    with pytest.raises(InvalidPayload):
        TemplateTree({"a": ["{{ missing }}"]}).render(CONTEXT)


class Holder(BaseModel):
    model_config = ConfigDict(extra="forbid")
    text: Template
    tree: TemplateTree | None = None


def test_templates_are_read_by_pydantic() -> None:
    holder = Holder.model_validate({"text": "{{ a }}", "tree": ["{{ a }}"]})
    assert holder.text.render({"a": 1}) == 1
    assert holder.tree is not None
    assert holder.tree.render({"a": 1}) == [1]
    for plain, text in ((5, "5"), (1.5, "1.5"), (True, "true")):
        assert Holder.model_validate({"text": plain}).text.render({}) == text
    for wrong in (None, ["x"], {"a": "b"}, "{{ x"):
        with pytest.raises(ValidationError):
            Holder.model_validate({"text": wrong})


def test_equal_texts_are_equal() -> None:
    assert Template("a {{ b }}") == Template("a {{ b }}") == Template("a {{b}}")
    assert Template("a {{ b }}") != Template("a {{ c }}")
    assert hash(Template("x{{ b }}")) == hash(Template("x{{ b }}"))
    assert TemplateTree(["{{ b }}"]) == TemplateTree(["{{ b }}"]) != TemplateTree(["b"])


MANY = [f"item {number}" for number in range(64_000)]
"""Of a quarter of a megabyte as JSON there can be so many."""


@pytest.mark.parametrize(
    "text",
    [
        "{{ params.all | map('upper') | list }}",
        "{{ params.all | unique | join(',') }}",
        "{{ params.all | select('ne', 'item 7') | map('length') | sum }}",
        "{{ 'item 7' in params.all }}",
    ],
)
def test_what_takes_each_item_once_may_be_done_with_many(text: str) -> None:
    assert Template(text).render({"params": {"all": MANY}})


@pytest.mark.parametrize(
    "text",
    [
        "{{ params.all | select('in', params.all) | list }}",
        "{{ params.all | map('default', params.all) | list }}",
        "{{ params.none | map('default', params.all, true) | tojson }}",
        "{{ params.none | map(attribute='x', default=params.all) | join }}",
        "{{ ', '.join(params.none | map(attribute='x', default=params.all)) }}",
        "{{ params.some | map('select', 'in', params.all) | map('list') | list }}",
    ],
)
def test_what_takes_all_for_each_item_is_bounded(text: str) -> None:
    params = {"all": MANY, "none": [{}] * len(MANY), "some": [MANY[-100:]] * 100}
    template = Template(text)
    with pytest.raises(InvalidPayload, match="it costs too much over data of this size"):
        template.render({"params": params})
    few = {name: value[:3] for name, value in params.items()}
    assert template.render({"params": few})


def test_sum_adds_numbers_and_copies_no_lists() -> None:
    assert Template("{{ params.n | sum(start=1) }}").render({"params": {"n": [1, 2]}}) == 4
    with pytest.raises(InvalidPayload, match="sum adds numbers"):
        Template("{{ params.n | sum(start=[]) }}").render({"params": {"n": [[1], [2]]}})


def test_a_budget_that_is_spent_is_told_whatever_is_made_of_it() -> None:
    template, context = Template("{{ params.n | map('abs') | list }}"), {"params": {"n": [-1] * 50}}

    def swallows() -> Any:
        try:
            return template.render(context)
        except InvalidPayload:
            return "the payload did not render"

    with pytest.raises(TooCostly):
        within_budget(Budget(99), swallows)
    assert within_budget(Budget(1000), swallows) == [1] * 50
