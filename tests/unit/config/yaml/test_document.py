from __future__ import annotations

import json

import pytest
import yaml
from config_parts import plain

from orchestratord.config.yaml.document import MAX_DEPTH, YamlDocument, read_document
from orchestratord.config.yaml.nodes import Scalar, Spot, locate

LOADERS = [yaml.SafeLoader]
if hasattr(yaml, "CSafeLoader"):
    LOADERS.append(yaml.CSafeLoader)


@pytest.fixture(params=LOADERS, ids=lambda loader: loader.__name__)
def loader(request: pytest.FixtureRequest) -> type:
    """libyaml's, and the one that serves where PyYAML was built without it."""
    assert isinstance(request.param, type)
    return request.param


def read(text: str | bytes, loader: type | None = None, file: str = "f.yaml") -> YamlDocument:
    return read_document(file, text if isinstance(text, bytes) else text.encode(), loader=loader)


def value_of(text: str) -> object:
    document = read(f"key: {text}\n")
    assert document.problems == []
    assert document.root is not None
    return plain(document.root)["key"]


def complaint(text: str | bytes, loader: type | None = None, file: str = "f.yaml") -> str:
    (problem,) = read(text, loader, file).problems
    return str(problem)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("on", "on"),
        ("no", "no"),
        ("Yes", "Yes"),
        ("off", "off"),
        ("12:30", "12:30"),
        ("1:2:3", "1:2:3"),
        ("2026-11-24", "2026-11-24"),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("=", "="),
        ("1.2.3", "1.2.3"),
        ("+", "+"),
        (".", "."),
        ("1e", "1e"),
        ("0x", "0x"),
        ("0o8", "0o8"),
        ("tRue", "tRue"),
        ("", None),
        ("~", None),
        ("null", None),
        ("NULL", None),
        ("true", True),
        ("True", True),
        ("FALSE", False),
        ("0", 0),
        ("-0", 0),
        ("007", 7),
        ("0o14", 12),
        ("0x1F", 31),
        ("+12", 12),
        ("-7", -7),
        ("1.5", 1.5),
        ("1.", 1.0),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("-1.5E-1", -0.15),
        ("'true'", "true"),
        ('"12"', "12"),
        ("!!str 12", "12"),
        ("! 12", "12"),
        ('"\\u00e9\\n"', "é\n"),
    ],
)
def test_plain_scalars_follow_the_core_schema(text: str, expected: object) -> None:
    found = value_of(text)
    assert found == expected
    assert type(found) is type(expected)


def test_a_scalar_keeps_how_it_stands() -> None:
    root = read("code: 007\nyes: True\n").root
    assert root is not None
    for key, text in (("code", "007"), ("yes", "True")):
        node = root.entries[key][1]
        assert isinstance(node, Scalar)
        assert node.text == text


def test_keys_are_texts() -> None:
    root = read("on: 1\n200: 2\nnull: 3\n1.0: 4\n").root
    assert root is not None
    assert plain(root) == {"on": 1, "200": 2, "null": 3, "1.0": 4}


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "~\n", "{}\n", "\ufeff"])
def test_an_empty_file_is_an_empty_mapping(text: str) -> None:
    document = read(text)
    assert document.problems == []
    assert document.root is not None
    assert not document.root.entries


def test_positions_are_those_of_keys_and_items(loader: type) -> None:
    text = (
        "\ufeffa: 1\n"
        "retry:\n"
        "    backoff:\n"
        "      strategy: expo\n"
        "list:\n"
        "  - one\n"
        "  -   name: ü\n"
        "      é: {x: 1, yy: [2, 3]}\n"
    )
    document = read(text, loader)
    assert document.root is not None
    for path, place in {
        ("a",): (1, 1, "a"),
        ("retry",): (2, 1, "retry"),
        ("retry", "backoff"): (3, 5, "retry.backoff"),
        ("retry", "backoff", "strategy"): (4, 7, "retry.backoff.strategy"),
        ("list", 0): (6, 5, "list.0"),
        ("list", 1): (7, 7, "list.1"),
        ("list", 1, "name"): (7, 7, "list.1.name"),
        ("list", 1, "é"): (8, 7, "list.1.é"),
        ("list", 1, "é", "yy"): (8, 17, "list.1.é.yy"),
        ("list", 1, "é", "yy", 1): (8, 25, "list.1.é.yy.1"),
    }.items():
        spot, _, skipped = locate(document.spot, document.root, path)
        assert (spot, skipped) == (Spot("f.yaml", *place), [])


def test_what_is_not_there_is_located_at_what_should_hold_it() -> None:
    document = read("a: {b: [1]}\n")
    assert document.root is not None
    spot, _, skipped = locate(document.spot, document.root, ("a", "b", "tuple[...]", 0, "str"))
    assert (spot.key, skipped) == ("a.b.0", ["str"])
    spot, _, skipped = locate(document.spot, document.root, ("a", "c", "d"))
    assert (spot.key, skipped) == ("a", ["c", "d"])
    assert locate(document.spot, document.root, ("a", "b", 7))[2] == ["7"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\na: 2\n", "f.yaml:2:1: a: stands here twice, first in line 1; keep one of them"),
        (
            "a: {b: 1, c: 2, b: 3}\n",
            "f.yaml:1:17: a.b: stands here twice, first in line 1; keep one of them",
        ),
        (
            "a: {{ params.id }}\n",
            'f.yaml:1:5: a: a template needs quotes around the whole value: "{{ … }}"',
        ),
        ("a: {[1]: 2}\n", "f.yaml:1:5: a: a key is a text; put quotes around it"),
        ("? {x: 1}\n: 2\n", "f.yaml:1:3: a key is a text; put quotes around it"),
        (
            "base: &b {x: 1}\nuse:\n  <<: *b\n",
            "f.yaml:3:3: use: merge keys (<<) are not part of YAML 1.2; write the keys out, or "
            "share them in api.yaml or defaults",
        ),
        (
            "a: *b\n",
            "f.yaml:1:1: a: there is no such anchor above; a text that begins with * needs quotes",
        ),
        ("a: &a [*a]\n", "f.yaml:1:8: a.0: the anchor that is meant contains itself"),
        (
            "a: !ruby/object x\n",
            "f.yaml:1:1: a: a tag (!) is not read; leave it out, or quote the text",
        ),
        (
            "a: !!python/object/apply:os.system [id]\n",
            "f.yaml:1:1: a: the tag !!python/object/apply:os.system is not read; leave it out, or "
            "quote the text",
        ),
        (
            "a: !!int 1\n",
            "f.yaml:1:1: a: the tag !!int is not read; leave it out, or quote the text",
        ),
        ("a: 1\n---\nb: 2\n", "f.yaml:2:1: a second document begins here; a file holds one"),
        ("- a\n", "f.yaml:1:1: expected keys with values, such as `timeout: 30s`"),
        ("text\n", "f.yaml:1:1: expected keys with values, such as `timeout: 30s`"),
        (
            "a: .inf\n",
            "f.yaml:1:1: a: .inf cannot be used as a number; quote it if the text is meant",
        ),
        (
            "a: .NaN\n",
            "f.yaml:1:1: a: .NaN cannot be used as a number; quote it if the text is meant",
        ),
        (
            "a: 1e999\n",
            "f.yaml:1:1: a: a number too large to be used; quote it if the text is meant",
        ),
        (
            "a: " + "9" * 5000,
            "f.yaml:1:1: a: a number of so many digits cannot be used; quote it if a text is meant",
        ),
        ("a:\n\tb: 1\n", "f.yaml:2:1: a tab; indent with spaces"),
        ("a: 1\n\tb: 1\n", "f.yaml:2:1: a tab; indent with spaces"),
        ("a: [\n", "f.yaml:1:4: the [ here is never closed"),
        ("a: '['\nb: {c: [1, 2], d: # [\n", "f.yaml:2:4: the { here is never closed"),
        ("a: [1,\nb", "f.yaml:1:4: the [ here is never closed"),
        ("a: 'x\nb: 1\n", "f.yaml:1:4: a quote that is opened here is never closed"),
        ('a: "x\n---\n', "f.yaml:1:4: a quote that is opened here is never closed"),
        ("a: @x\n", "f.yaml:1:4: a text that begins with @ needs quotes"),
        ("a: `x`\n", "f.yaml:1:4: a text that begins with ` needs quotes"),
        ("a: %x\n", "f.yaml:1:4: a text that begins with % needs quotes"),
        (
            "a: {% if x %}\n",
            "f.yaml:1:5: a template has expressions only, {{ … }}, and needs quotes around it",
        ),
        (
            "a: b: c\n",
            "f.yaml:1:5: a ':' too many in this line, or wrong indentation; put a value that "
            "holds ': ' in quotes",
        ),
        (
            "a: {b: 1\n",
            "f.yaml:1:4: the { here is never closed",
        ),
        (
            "a:\n  - 1\n b: 2\n",
            "f.yaml:3:2: wrong indentation, or something left over from the line before",
        ),
        ("a: | x\n", "f.yaml:1:6: a block text begins in the line after | or >"),
        ("a: - b\n", "f.yaml:1:4: a list cannot begin in this line; begin a new one"),
        (
            "a: \x07\n",
            "f.yaml:1:4: the character U+0007 cannot stand in a file; delete it, or write it as "
            "an escape",
        ),
        (
            "a: 1\nb: \ufeff\n",
            "f.yaml:2:4: the character U+FEFF cannot stand in a file; delete it, or write it as "
            "an escape",
        ),
    ],
)
def test_complaints(text: str, expected: str, loader: type) -> None:
    assert complaint(text, loader) == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a: 1\nb: \xe9\n", "f.yaml:2:4: is not UTF-8 here; save the file as UTF-8"),
        ("a: é\nb: ".encode() + b"\xff", "f.yaml:2:4: is not UTF-8 here; save the file as UTF-8"),
        ("a: 1".encode("utf-16"), "f.yaml:1:1: is UTF-16; save it as UTF-8"),
        (b"a: \x00", "f.yaml:1:4: the character U+0000 cannot stand in a file; delete it, or "
         "write it as an escape"),
    ],
)  # fmt: skip
def test_bytes_that_are_no_text(content: bytes, expected: str) -> None:
    assert complaint(content) == expected


def test_several_problems_of_one_file_are_all_reported() -> None:
    assert [str(found) for found in read("a: !x 1\nb: {{ y }}\na: 2\n<<: 3\n").problems] == [
        "f.yaml:1:1: a: a tag (!) is not read; leave it out, or quote the text",
        'f.yaml:2:5: b: a template needs quotes around the whole value: "{{ … }}"',
        "f.yaml:3:1: a: stands here twice, first in line 1; keep one of them",
        "f.yaml:4:1: merge keys (<<) are not part of YAML 1.2; write the keys out, or share them "
        "in api.yaml or defaults",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "a: {{ params.id }}\nb: 2\n",
        "a: {{ params.id }}/x\nb: 2\n",
        "a: {{ params.id | upper }} y\n",
        "a: {{ params['id'] }}\n",
    ],
)
def test_a_template_without_quotes_is_one_problem(text: str, loader: type) -> None:
    expected = 'f.yaml:1:5: a: a template needs quotes around the whole value: "{{ … }}"'
    assert complaint(text, loader) == expected


def test_a_template_without_quotes_is_read_as_if_it_had_them(loader: type) -> None:
    text = "a: {{ x }}\nb: {c: {{ y }}, d: 1}\ne:\n- {{ z }}\n- 2\n"
    document = read(text, loader)
    assert len(document.problems) == 3
    assert document.root is not None
    value = plain(document.root)
    assert value == {"a": "{{ x }}", "b": {"c": "{{ y }}", "d": 1}, "e": ["{{ z }}", 2]}


def test_a_merge_conflict_is_one_problem(loader: type) -> None:
    text = "a: 1\n<<<<<<< HEAD\nb: 2\n=======\nb: 3\nc\n>>>>>>> other\nd: 4\n"
    assert complaint(text, loader) == (
        "f.yaml:2:1: a merge conflict begins here and ends in line 7: keep one of its sides, and "
        "delete the lines that begin with <<<<<<<, ======= and >>>>>>>"
    )
    assert complaint("<<<<<<< HEAD\n{}\n", file="f.json").startswith("f.json:1:1: a merge conflict")
    assert value_of("|\n  <<<<<<< HEAD") == "<<<<<<< HEAD\n"


TOO_FAR_LEFT = "indent the text in brackets or quotes here by {} or more"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [1,\n2]\n", f"f.yaml:2:1: {TOO_FAR_LEFT.format('1 blank')}"),
        ("a:\n  b: {c: 1,\n  d: 2}\n", f"f.yaml:3:3: {TOO_FAR_LEFT.format('3 blanks')}"),
        ("b:\n- a: [[1],\n  [2]]\n", f"f.yaml:3:3: {TOO_FAR_LEFT.format('3 blanks')}"),
        ("a:\n- [1,\n2]\n", f"f.yaml:3:1: {TOO_FAR_LEFT.format('1 blank')}"),
        ('a: "b\nc"\n', f"f.yaml:2:1: {TOO_FAR_LEFT.format('1 blank')}"),
        ("a: 'b\n\n# c'\n", f"f.yaml:3:1: {TOO_FAR_LEFT.format('1 blank')}"),
        ('a: &x\n  b: "c\n  d"\n', f"f.yaml:3:3: {TOO_FAR_LEFT.format('3 blanks')}"),
        ('a: "b\r\nc"\r\n', f"f.yaml:2:1: {TOO_FAR_LEFT.format('1 blank')}"),
        ('a: "b\n\tc"\n', "f.yaml:2:2: a tab; indent with spaces"),
        (
            "a: >\n \n   \n  # b\n",
            "f.yaml:4:3: an empty line above has more blanks than this one: take them away",
        ),
    ],
)
def test_lines_that_begin_too_far_to_the_left(text: str, expected: str, loader: type) -> None:
    assert complaint(text, loader) == expected


def test_a_tab_where_a_block_text_begins(loader: type) -> None:
    # PyYAML's own loader complains of it once more.
    assert str(read("a: |\n\t\nb: 1\n", loader).problems[0]).startswith("f.yaml:2:1: a tab")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: [\n  1,\n]\nb: {\n}\n", {"a": [1], "b": {}}),
        ("a: [{\n  b: 1\n}, {\n  b: 2\n}]\n", {"a": [{"b": 1}, {"b": 2}]}),
        ("a: [1,\n# a comment\n\n 2]\n", {"a": [1, 2]}),
        ("{a: 1,\nb: 'c\nd'}\n", {"a": 1, "b": "c d"}),
        ('a:\n  - "b\n    c"\n', {"a": ["b c"]}),
        ('a:\n- "b\n c"\n', {"a": ["b c"]}),
        ("a: &x\n  b: 'c\n    d'\n", {"a": {"b": "c d"}}),
        ("a: &x\n- 'c\n d'\n", {"a": ["c d"]}),
        ("a: |\n\n \n  b\n   c\n", {"a": "\n\nb\n c\n"}),
        ("a: |2\n   b\n", {"a": " b\n"}),
        ("a: >-\n\n\nb: 1\n", {"a": "", "b": 1}),
    ],
)
def test_lines_that_are_indented_enough(text: str, value: object, loader: type) -> None:
    document = read(text, loader)
    assert document.problems == []
    assert document.root is not None
    assert plain(document.root) == value


class TestBounds:
    @pytest.mark.parametrize(
        ("begin", "end", "column"), [("[", "]", 23), ("{a: ", "}", 77)], ids=["lists", "mappings"]
    )
    def test_nesting(self, begin: str, end: str, column: int) -> None:
        # The file itself is the first level.
        good = "k: " + begin * (MAX_DEPTH - 1) + "1" + end * (MAX_DEPTH - 1)
        assert read(good).problems == []
        deeper = "k: " + begin * MAX_DEPTH + "1" + end * MAX_DEPTH
        (problem,) = read(deeper).problems
        assert problem.message == "nested deeper than 20 levels; flatten it"
        assert (problem.line, problem.column) == (1, column)

    @pytest.mark.parametrize("unit", ["[", "{a: ", "- ", "? ", "[[], "])
    def test_a_megabyte_of_nesting_neither_recurses_nor_lasts(self, unit: str) -> None:
        text = "k:\n  " + unit * (1_000_000 // len(unit))
        assert "nested" in read(text).problems[-1].message

    def test_aliases_may_repeat_a_little(self) -> None:
        root = read("a: &a {x: [1, 2]}\nb: [*a, *a]\nc: *a\n").root
        assert root is not None
        assert plain(root)["b"] == [{"x": [1, 2]}] * 2
        assert root.entries["c"][1] is root.entries["a"][1]

    def test_aliases_that_blow_up(self) -> None:
        lines = ['a0: &a0 ["lol"]']
        lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
        (problem,) = read("\n".join(lines)).problems
        assert problem.message == (
            "the aliases repeat too much; write it out, or share it in api.yaml or defaults"
        )

    def test_aliases_that_repeat_a_long_text(self) -> None:
        text = f"a: &a {'x' * 100_000}\nb: [{', '.join(['*a'] * 11)}]\n"
        (problem,) = read(text).problems
        assert problem.message.startswith("the aliases repeat too much")
        assert problem.key == "b.10"

    def test_aliases_do_not_hide_a_depth(self) -> None:
        nested = "[" * 10 + "1" + "]" * 10
        good = f"a: &a {nested}\nb: {'[' * 9}*a{']' * 9}\n"
        assert read(good).problems == []
        (problem,) = read(f"a: &a {nested}\nb: {'[' * 10}*a{']' * 10}\n").problems
        assert problem.message == "nested deeper than 20 levels; flatten it"

    def test_a_file_with_very_many_mistakes_is_given_up(self) -> None:
        problems = read("k: {" + "[]: 1, " * 100_000 + "}").problems
        assert len(problems) == 51


class TestJson:
    def test_it_is_read_like_yaml(self) -> None:
        text = (
            '{\n\t"a": "\\ud83d\\ude00 \\/ \\\\ud83d",\n\t"b": [1, 1.5, -2e3, true, null, "x"]\n}'
        )
        document = read(text, file="f.json")
        assert document.problems == []
        assert document.root is not None
        assert plain(document.root) == json.loads(text)
        spot, _, _ = locate(document.spot, document.root, ("b", 2))
        assert (spot.line, spot.column) == (3, 16)

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            (
                "{'a': 1}",
                "f.json:1:2: is not JSON: expecting property name enclosed in double quotes",
            ),
            ('{"a": [1 2]}', "f.json:1:10: is not JSON: expecting ',' delimiter"),
            ("a: 1", "f.json:1:1: is not JSON: expecting value"),
            ("", "f.json:1:1: is not JSON: expecting value"),
            ('{"a": 1} x', "f.json:1:10: is not JSON: extra data"),
            ('{"a": NaN}', "f.json:1:7: NaN is not JSON; quote it if the text is meant"),
            ('{\n"a": "\\ud83d"}', "f.json:2:7: \\ud83d is half of a character"),
            (
                '{"a": 1, "a": 2}',
                "f.json:1:10: a: stands here twice, first in line 1; keep one of them",
            ),
        ],
    )  # fmt: skip
    def test_complaints(self, text: str, expected: str) -> None:
        assert complaint(text, file="f.json") == expected

    def test_nesting(self) -> None:
        assert "nested" in complaint("[" * 500_000, file="f.json")
        assert "nested" in complaint('{"a": [' * 30 + "]}" * 30, file="f.json")
