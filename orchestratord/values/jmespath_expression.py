"""JMESPath over the body of an answer, checked when the files are read and bounded when it runs.

The library knows the language; what is added is that a wrong expression is found before it is
used, unknown functions included, and that evaluating one costs no more than so much: the body is
the receiver's, and a slip in an expression can double a list with every step.
"""

from __future__ import annotations

import heapq
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

import httpx
import jmespath.exceptions
import jmespath.lexer
import jmespath.parser
import jmespath.visitor
from jmespath.functions import Functions as Known
from jmespath.functions import signature

from orchestratord.values.budget import JSON_PER_STEP, PER_STEP, Budget, TooCostly
from orchestratord.values.json_body import from_json, to_json
from orchestratord.values.secret import Text
from orchestratord.values.status_set import StatusSet
from orchestratord.values.yaml_value import YamlValue, template_problem

LONGEST = 4_000
"""Characters of an expression."""
_SHOWN = 100
"""Characters of an expression in an error."""
_RUN = 20_000
"""Items that are sorted in one go."""
_TEXT = {"types": ["string", "null"]}


class Functions(Known):  # type: ignore[misc]  # it publishes no types
    """JMESPath's own, those for links, `from_json` and `to_json`."""

    @signature({"types": ["array-string", "array-number"]})  # type: ignore[untyped-decorator]
    def _func_sort(self, items: list[Any]) -> list[Any]:
        # Sorting a million in one go lets no other thread run meanwhile.
        if len(items) <= _RUN:
            return sorted(items)
        runs = (sorted(items[start : start + _RUN]) for start in range(0, len(items), _RUN))
        return list(heapq.merge(*runs))

    @signature(_TEXT, {"types": ["string"]})  # type: ignore[untyped-decorator]
    def _func_query(self, url: str | None, name: str) -> str | None:
        """`query(body.next, 'cursor')`: a parameter of a URL's query; null for none."""
        found = parse_qs(urlsplit(url or "").query, keep_blank_values=True).get(name)
        return found[0] if found else None

    @signature(_TEXT)  # type: ignore[untyped-decorator]
    def _func_last_segment(self, url: str | None) -> str | None:
        """`last_segment(body.next)`: the last part of a URL's path; null for none."""
        return unquote(urlsplit(url or "").path.rstrip("/").rpartition("/")[2]) or None

    @signature(_TEXT, {"types": ["string"]})  # type: ignore[untyped-decorator]
    def _func_link(self, header: str | None, rel: str) -> str | None:
        """`link(headers.link, 'next')`: the URL that a Link header has for this relation."""
        links = httpx.Response(200, headers={"link": header or ""}).links
        found: str | None = links.get(rel, {}).get("url")
        return found

    @signature(_TEXT)  # type: ignore[untyped-decorator]
    def _func_from_json(self, text: str | None) -> Any:
        """`from_json(body.payload)`: the value of a text that holds JSON; null of null."""
        return from_json(text)

    @signature({"types": []})  # type: ignore[untyped-decorator]
    def _func_to_json(self, value: Any) -> str:
        """`to_json(body.items)`: a value as JSON."""
        return to_json(value)


class Expression(YamlValue):
    """One JMESPath expression. Equal texts are equal."""

    __slots__ = ("_tree", "names", "paths", "source")

    json_schema: ClassVar[Mapping[str, Any]] = {
        "type": "string",
        "minLength": 1,
        "description": "a JMESPath expression",
    }

    def __init__(self, value: str) -> None:
        """Parse `value`. Raises ValueError with what is wrong and where in the text."""
        text = str(value)
        self.source: str = value.source if isinstance(value, Text) else text
        """As it stands in the file."""
        if not text.strip() or len(text) > LONGEST:
            raise ValueError(f"an expression has from 1 to {LONGEST} characters")
        try:
            self._tree = jmespath.parser.Parser().parse(text).parsed
            _check_words(list(jmespath.lexer.Lexer().tokenize(text)))
            for node in _nodes(self._tree):
                _check_function(node)
                _check_not(node)
            reads = list(_reads(self._tree))
            self.names = frozenset(name for name, _ in reads)
            """What it reads of the outermost mapping; `@` where it takes that as a whole."""
            self.paths = frozenset(f"{name}.{field}" for name, field in reads if field)
            """Those of them with what it reads of them, such as `params.id`."""
        except jmespath.exceptions.JMESPathError as error:
            raise ValueError(f"is not JMESPath: {_problem(error, text)}") from None
        except RecursionError:
            raise ValueError("is not JMESPath that can be used: it is nested too deeply") from None
        if wrong := template_problem(self.source, "name what it sees, without {{ }}"):
            raise ValueError(wrong)

    @property
    def is_list_of_parts(self) -> bool:
        """Whether it names the parts of a list or a mapping: `[a, b]`, `{x: a, y: b}`."""
        return self._tree["type"] in ("multi_select_list", "multi_select_dict")

    @property
    def capital_header(self) -> str:
        """What is wrong where it names a header with a capital letter, which finds nothing."""
        found = _CAPITAL.search(self.source)
        wrong = "{0} is always null: write {1}, as names of headers are here"
        return wrong.format(found[0], found[0].lower()) if found else ""

    def misfits(self, types: Mapping[str, str]) -> tuple[list[str], bool]:
        """Comparisons of a value with one of another type, in words, and whether the expression is
        never true.

        Args:
            types: of the paths that are known, `Param.type`, `status code`, or `NOTHING`.
        """
        found: list[str] = []
        return found, _is_never(self._tree, types, found)

    def search(self, data: Any, budget: Budget | None = None) -> Any:
        """What the expression finds in JSON-like data; None where there is nothing.

        `budget`: what it may cost; `BUDGET` where none is given.

        Raises:
            TooCostly: it costs more than that.
            ValueError: a function does not take what it was given.
        """
        try:
            return _Interpreter(budget or Budget()).visit(self._tree, data)
        except TooCostly as error:
            raise TooCostly(f"{_cut(self.source)}: {error}") from None
        except jmespath.exceptions.JMESPathError as error:
            what = _problem(error, "")
        except (RecursionError, ArithmeticError, TypeError) as error:
            what = f"{type(error).__name__}: {error}"
        except ValueError as error:
            what = str(error)
        raise ValueError(f"{_cut(self.source)}: {what}")

    def holds(self, data: Any, budget: Budget | None = None) -> bool:
        """Whether what is found counts as true: all but null, false, and what is empty.

        Takes and raises what `search` does.
        """
        return not _is_false(self.search(data, budget))

    def written(self) -> str:
        return self.source

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expression) and other.source == self.source

    def __hash__(self) -> int:
        return hash((Expression, self.source))

    def __repr__(self) -> str:
        return f"Expression({self.source!r})"

    @classmethod
    def parse(cls, value: Any) -> Expression:
        """A text becomes an expression; ValueError for the rest."""
        if isinstance(value, Expression):
            return value
        if not isinstance(value, str):
            raise ValueError("expected a JMESPath expression, such as \"status == 'done'\"")
        return cls(value)


def _is_false(value: Any) -> bool:
    return value is None or value is False or (isinstance(value, str | list | dict) and not value)


# -- what is wrong with one ------------------------------------------------------------------------


def _nodes(tree: Any) -> Iterator[Any]:
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        # A slice has numbers for children.
        if isinstance(node, Mapping):
            yield node
            waiting.extend(node.get("children", ()))


def _reads(node: Any) -> Iterator[tuple[str, str]]:
    """Each name that is read of the outermost mapping, and the field that is read of it or ''."""
    kind, children = node["type"], node.get("children", [])
    if kind == "field":
        yield node["value"], ""
    elif kind in _ITSELF:
        yield "@", ""
    elif kind in ("subexpression", "pipe") and children[0]["type"] in _ITSELF:
        yield from _reads({**node, "children": children[1:]})
    elif kind == "subexpression" and children[0]["type"] == "field" and children[1:]:
        inner = children[1]
        while inner["type"] in _NARROWING:
            inner = inner["children"][0]
        yield children[0]["value"], str(inner["value"]) if inner["type"] == "field" else ""
    elif kind in _NARROWING:
        yield from _reads(children[0])
    elif kind not in ("expref", "index", "slice"):
        # What `&` refers to looks at the items of what stands beside it.
        for child in children:
            yield from _reads(child)


_ITSELF = frozenset({"current", "identity"})
_NARROWING = frozenset(
    {"subexpression", "pipe", "index_expression", "flatten"}
    | {"projection", "value_projection", "filter_projection"}
)
"""Nodes of which the first child alone looks at the data; the others at what that has found."""


NOTHING = "nothing"
"""The type of what never has a value."""
_NUMBER = (int, float)
_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": _NUMBER,
    "number": _NUMBER,
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "status code": _NUMBER,  # or a word
    NOTHING: (),
}
_PLAIN_JSON = re.compile(r"-?\d+(\.\d+)?|true|false")


def _fits(value: Any, type_: str) -> bool:
    """Whether a value that is not null can be of a type."""
    is_word = type_ == "status code" and str(value) in StatusSet.WORDS
    return is_word or type(value) in _TYPES[type_]


def _is_never(node: Any, types: Mapping[str, str], found: list[str]) -> bool:
    """Whether a node is never true; what it compares with another type goes to `found`."""
    kind, children = node["type"], node.get("children", [])
    if kind in ("and_expression", "or_expression", "not_expression"):
        never = [_is_never(child, types, found) for child in children]
        return kind != "not_expression" and (any if kind == "and_expression" else all)(never)
    if kind != "comparator":
        return types.get(_path(node)) == NOTHING
    for compared, other in (children, children[::-1]):
        value, type_ = other.get("value"), types.get(path := _path(compared))
        if other["type"] != "literal" or value is None or not type_ or _fits(value, type_):
            continue
        if type_ != NOTHING:
            found.append(_misfit(path, type_, value))
        return bool(node["value"] != "ne")
    return False


def _misfit(path: str, type_: str, value: Any) -> str:
    text = isinstance(value, str)
    written = f"'{value}'" if text else f"`{json.dumps(value)}`"
    remedy = "a value of that type"
    if type_ == "string":
        remedy = f"'{value}'"
    elif text and _PLAIN_JSON.fullmatch(value):
        remedy = f"`{value}`"
    return f"{path} is never {written}, as its type is {type_}: write {remedy}"


def _path(node: Any) -> str:
    """The fields that lead from the outermost mapping to a node; empty for all else."""
    parts = node["children"] if node["type"] == "subexpression" else [node]
    if all(part["type"] == "field" for part in parts):
        return ".".join(part["value"] for part in parts)
    return ""


def _check_function(node: Any) -> None:
    """Raise where a function is called that there is not, or with another number of arguments."""
    if node["type"] != "function_expression":
        return
    name, given = node["value"], len(node["children"])
    known = Functions.FUNCTION_TABLE.get(name)
    if known is None:
        raise jmespath.exceptions.UnknownFunctionError(f"there is no function {name}()")
    signature = known["signature"]
    more = bool(signature) and signature[-1].get("variadic", False)
    if given < len(signature) or (given > len(signature) and not more):
        wanted = (
            f"{len(signature)}{' or more' * more} argument{'s' * (len(signature) != 1 or more)}"
        )
        raise jmespath.exceptions.UnknownFunctionError(f"{name}() takes {wanted}, not {given}")


def _check_not(node: Any) -> None:
    """Raise where something is taken out of what `!` gives, which has nothing in it: `!a.b`."""
    if node["type"] in _TAKING and node["children"][0]["type"] == "not_expression":
        raise ValueError(
            "`!` belongs to the name right behind it alone, so that !a.b is always null; write "
            "!(a.b)"
        )


def _check_words(tokens: list[Any]) -> None:
    """Raise where a field is named and a text or a truth value is meant: it would be null in
    silence."""
    for before, token, after in zip([_NOTHING, *tokens], tokens, tokens[1:], strict=False):
        alone = before["type"] != "dot" and after["type"] not in _LINKS
        compared = before["type"] in _COMPARING or after["type"] in _COMPARING
        given = before["type"] in ("lparen", "comma") and after["type"] in ("rparen", "comma")
        kind, value = token["type"], token["value"]
        if not alone or not (compared or given):
            continue
        if kind == "unquoted_identifier" and value in ("true", "false"):
            raise ValueError(f"{value} is the name of a field here; the value is written `{value}`")
        # In double quotes stands the name of a field, which only some names need.
        if kind == "quoted_identifier" and (
            before["type"] in _COMPARING or _PLAIN.fullmatch(value) is not None
        ):
            raise ValueError(
                f'"{_cut(value)}" in double quotes is the name of a field; a text has single ones: '
                f"'{_cut(value)}'"
            )


_NOTHING = {"type": "eof", "value": ""}
_CAPITAL = re.compile(r"""(?<![\w."'])(?:params\.)?headers\.("[^"]*[A-Z][^"]*"|\w*[A-Z]\w*)""")
_LINKS = frozenset({"dot", "lbracket", "flatten", "filter"})
_COMPARING = frozenset({"eq", "ne", "lt", "lte", "gt", "gte"})
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


_TAKING = frozenset({"subexpression", "flatten", "value_projection", "filter_projection"})


_OPERATORS = {"and": "&&", "or": "||", "is": "=="}
"""Those of Python, and what they are here."""


def _hint(value: Any, before: str) -> str:
    """What to write instead of what is unexpected behind a text, where that is known."""
    if isinstance(value, int):
        return f"; a number stands in backticks: `{value}`"
    if value in _OPERATORS:
        return f"; write {_OPERATORS[value]} for {value}"
    if re.search(r"\bnot\s+$", before):
        return "; write ! for not"
    if before.endswith("["):
        return "; a field stands behind a dot, as in body.status"
    return "; an expression stands without {{ }}" if before.strip() == "{" else ""


def _problem(error: jmespath.exceptions.JMESPathError, text: str) -> str:
    """What the library says is wrong, in one line, without the values that it quotes."""
    errors = jmespath.exceptions
    if isinstance(error, errors.JMESPathTypeError):
        wanted = " or ".join(error.expected_types)
        return f"{error.function_name}() takes {wanted}, not {error.actual_type}"
    if isinstance(error, errors.LexerError):
        message = error.message[:1].lower() + error.message[1:]
        return f"{message} at character {error.lexer_position + 1}"
    if isinstance(error, errors.IncompleteExpressionError):
        return "it ends too early"
    if isinstance(error, errors.ParseError) and not isinstance(error, errors.ArityError):
        if error.lex_position >= len(text):
            return "it ends too early"
        hint = _hint(error.token_value, text[: error.lex_position])
        return f"unexpected {error.token_value!r} at character {error.lex_position + 1}{hint}"
    return str(error).splitlines()[0]


# -- what one may cost -----------------------------------------------------------------------------


_FUNCTIONS = Functions()


class _Interpreter(jmespath.visitor.TreeInterpreter):  # type: ignore[misc]  # it publishes no types
    """The library's, which counts its steps."""

    def __init__(self, budget: Budget) -> None:
        super().__init__()
        self._functions = _FUNCTIONS
        self._spend = budget.spend
        self._weigh = budget.weigh

    def visit(self, node: Any, *args: Any, **kwargs: Any) -> Any:
        self._spend(1)
        return super().visit(node, *args, **kwargs)

    def visit_literal(self, node: Any, value: Any) -> Any:
        self._weigh(node["value"])
        return super().visit_literal(node, value)

    # These alone put one value into another twice; what is made of theirs later is no larger.

    def visit_multi_select_list(self, node: Any, value: Any) -> Any:
        found = super().visit_multi_select_list(node, value)
        self._weigh(found)
        return found

    def visit_multi_select_dict(self, node: Any, value: Any) -> Any:
        found = super().visit_multi_select_dict(node, value)
        self._weigh(found)
        return found

    def visit_function_expression(self, node: Any, value: Any) -> Any:
        arguments = [self.visit(child, value) for child in node["children"]]
        for argument in arguments:
            if node["value"] in ("to_string", "to_json"):
                self._weigh(argument)
            elif node["value"] == "from_json" and isinstance(argument, str):
                self._spend(len(argument) // JSON_PER_STEP)
            elif isinstance(argument, str | list | dict):
                self._spend(len(argument) // PER_STEP)
        return self._functions.call_function(node["value"], arguments)
