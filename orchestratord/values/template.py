"""Templates: text with `{{ expressions }}`, sandboxed, strict about undefined names.

Most of them are plain paths (`{{ params.id }}`), which are looked up without Jinja; everything else
is a sandboxed Jinja expression. There are no statements (`{% %}`), so nothing loops. What came
out of a reference is literal and never read as a template.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, ClassVar

from jinja2 import TemplateSyntaxError, Undefined, UndefinedError, meta, nodes
from jinja2.exceptions import TemplateError
from jinja2.parser import Parser

from orchestratord.errors import InvalidPayload
from orchestratord.values.budget import Budget, templates_budget, within_budget
from orchestratord.values.secret import Text
from orchestratord.values.template_sandbox import MAX_RENDERED, sandbox
from orchestratord.values.yaml_value import YamlValue, template_problem

MAX_EXPRESSION = 10_000
"""Characters; reading a long one takes long, and none is written."""

_TOKEN = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[{}]""", re.DOTALL)
"""What decides where an expression ends: a brace within a text or a mapping does not."""
_PATH = re.compile(r"\{\{\s*([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)\s*\}\}")
_WORDS = frozenset(
    {"true", "false", "none", "True", "False", "None", "and", "or", "not", "if", "else", "in", "is"}
)
"""What is no name in an expression."""
_VALUES = frozenset({"now", "params", "task"})
"""What every template may use, and what is no function."""
_MISSING = object()


def to_text(value: Any) -> str:
    """A value inside a longer text: JSON's words for true, false and null's absence, RFC 3339."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, Mapping | list | tuple):
        return json.dumps(value, ensure_ascii=False, default=to_text)
    return str(value)


_ENV = sandbox(to_text)


@lru_cache(maxsize=4096)
def _expression(source: str) -> Callable[..., Any]:
    """Compile what stands between the braces. Compiling waits for the first use: it is slow."""
    return _ENV.compile_expression(source, undefined_to_none=False)


@lru_cache(maxsize=16384)
def _names(source: str) -> tuple[frozenset[str], frozenset[str]]:
    """The names that an expression uses, and those of them with what is read from them."""
    parser = Parser(_ENV, source, state="variable")
    try:
        tree = nodes.Template([nodes.Output([parser.parse_expression()])], lineno=1)
        if not parser.stream.eos:
            raise TemplateSyntaxError("more than one expression", 1)
        tree.set_environment(_ENV)
        names = frozenset(meta.find_undeclared_variables(tree))
    except RecursionError:
        raise TemplateSyntaxError("it is nested too deeply", 1) from None
    for call in tree.find_all(nodes.Call):
        if isinstance(call.node, nodes.Name) and call.node.name in _VALUES:
            raise TemplateSyntaxError(f"{call.node.name} is not a function; leave out ()", 1)
    paths: set[str] = set()
    for read in tree.find_all(nodes.Getattr):
        if isinstance(read.node, nodes.Name):
            paths.add(f"{read.node.name}.{read.attr}")
    for item in tree.find_all(nodes.Getitem):
        if isinstance(item.node, nodes.Name) and isinstance(item.arg, nodes.Const):
            paths.add(f"{item.node.name}.{item.arg.value}")
    return names, frozenset(paths)


class Template(YamlValue):
    """One text of the YAML, cut into literal parts and expressions. Equal texts are equal."""

    __slots__ = ("_alone", "_literal", "_parts", "computed", "names", "paths", "secret", "source")

    json_schema: ClassVar[Mapping[str, Any]] = {"type": ["string", "number", "boolean"]}

    def __init__(self, value: str) -> None:
        """Parse `value`. Raises ValueError with what is wrong and where in the text."""
        if type(value) is str and "{" not in value:  # most hold no expression
            self._parts: tuple[str | _Part, ...] = (value,) if value else ()
            self.source: str = value
            self.secret: bool = False
            self._literal: str | None = value
            self._alone: _Part | None = None
            self.computed: bool = False
            self.names: frozenset[str] = frozenset()
            self.paths: frozenset[str] = frozenset()
            return
        pieces = value.parts if isinstance(value, Text) else ((str(value), False),)
        self.source = value.source if isinstance(value, Text) else str(value)
        self.secret = value.secret if isinstance(value, Text) else False
        parts: list[str | _Part] = []
        names: set[str] = set()
        paths: set[str] = set()
        for text, referenced in pieces:
            for part in [text] if referenced else _cut(text):
                if isinstance(part, str):
                    if part:
                        parts.append(part)
                    continue
                source, path = part
                if path:
                    names.add(path[0])
                    if len(path) > 1:
                        paths.add(".".join(path[:2]))
                else:
                    if len(source) > MAX_EXPRESSION:
                        raise ValueError(
                            f"the template {{{{ {source[:60]}… is longer than {MAX_EXPRESSION} "
                            "characters"
                        )
                    try:
                        used, read = _names(source)
                    except TemplateError as error:
                        raise ValueError(
                            f"in the template {{{{ {source[:60]} }}}}: {error.message}"
                        ) from None
                    names |= used
                    paths |= read
                parts.append(part)
        self._parts = tuple(parts)
        one = parts[0] if len(parts) == 1 else ""
        self._alone = None if isinstance(one, str) else one
        self._literal = None
        if all(isinstance(part, str) for part in parts):
            self._literal = "".join(str(part) for part in parts)
        self.computed = any(not isinstance(part, str) and part[1] is None for part in parts)
        """Whether an expression in it is more than a path, and may cost something."""
        self.names = frozenset(names)
        self.paths = frozenset(paths)

    @property
    def path(self) -> tuple[str, ...] | None:
        """The names of a template that is one path and nothing else; None for any other."""
        return None if self._alone is None else self._alone[1]

    @property
    def constant(self) -> bool:
        """True where nothing has to be looked up."""
        return self._literal is not None

    @property
    def literal(self) -> str:
        """What is the same in whatever is rendered: all but the expressions. What references stand
        for belongs to it."""
        return "".join(part for part in self._parts if isinstance(part, str))

    def render(self, context: Mapping[str, Any], quote: Callable[[str], str] | None = None) -> Any:
        """The value for `context`. A template that is one expression keeps its value's type.

        Args:
            context: the names that may be used.
            quote: applied to each value as text; with it the result is always a text.

        Raises:
            InvalidPayload: a name is undefined, or the expression fails.
        """
        if self._literal is not None:
            return self._literal
        if quote is None and self._alone is not None:
            return _evaluate(self._alone, context)
        texts: list[str] = []
        for part in self._parts:
            if isinstance(part, str):
                texts.append(part)
            else:
                texts.append(_text_of(part, context, quote))
        joined = "".join(texts)
        if len(joined) > MAX_RENDERED:
            raise InvalidPayload(f"the template makes more than {MAX_RENDERED} characters")
        return joined

    def written(self) -> str:
        return self.source

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Template) and other._parts == self._parts

    def __hash__(self) -> int:
        return hash(self._parts)

    def __repr__(self) -> str:
        return f"Template({self.source!r})"

    @classmethod
    def parse(cls, value: Any) -> Template:
        """A text, or a plain number or boolean, becomes a template; ValueError for the rest."""
        if isinstance(value, str):
            return cls(value)
        if isinstance(value, bool | int | float):
            return cls(to_text(value))
        raise ValueError("expected a text")


_Part = tuple[str, tuple[str, ...] | None]
"""An expression; the names of its path if it is no more than that."""


def _cut(text: str) -> Iterator[str | _Part]:
    """The literal pieces and the expressions of a text, in order. Raises ValueError."""
    position = 0
    while (start := text.find("{{", position)) >= 0:
        yield _literal(text[position:start])
        plain = _PATH.match(text, start)
        path = tuple(plain[1].split(".")) if plain else ()
        if plain and path[0] not in _WORDS:
            yield plain[0][2:-2].strip(), path
            position = plain.end()
            continue
        end = _end(text, start)
        source = text[start + 2 : end]
        if source[:1] in ("-", "+") or source[-1:] in ("-", "+"):
            raise ValueError(
                f"in the template {{{{{source}}}}}: put a space beside the braces; "
                "{{- and -}} are not available"
            )
        yield source.strip(), None
        position = end + 2
    yield _literal(text[position:])


def _literal(text: str) -> str:
    if "{%" in text or "{#" in text:
        raise ValueError(
            "templates have expressions only: {{ … }}; {% %} and {# #} are not available"
        )
    return text


def _end(text: str, start: int) -> int:
    depth = 0
    for token in _TOKEN.finditer(text, start + 2):
        if token[0] == "{":
            depth += 1
        elif token[0] == "}" and depth:
            depth -= 1
        elif token[0] == "}" and text.startswith("}}", token.start()):
            return token.start()
    raise ValueError(f"the template in {text.strip()[:60]!r} has {{{{ without }}}}")


def _text_of(part: _Part, context: Mapping[str, Any], quote: Callable[[str], str] | None) -> str:
    value = _evaluate(part, context)
    try:
        text = to_text(value)
        return quote(text) if quote else text
    except Exception as error:
        # Half a surrogate pair, or a number of more digits than Python writes.
        raise InvalidPayload(f"in the template {{{{ {part[0]} }}}}: {error}") from None


def _evaluate(part: _Part, context: Mapping[str, Any]) -> Any:
    source, path = part
    if path is not None:
        value: Any = context
        try:
            for name in path:
                value = value[name]
            return value
        except (LookupError, TypeError):  # it is not there, or an attribute: Jinja's business
            _check_names(source, path, context)
    try:
        budget = templates_budget()
        if budget is not None:
            return _computed(source, context, budget)
        budget = Budget()
        return within_budget(budget, _computed, source, context, budget)
    except UndefinedError as error:
        raise InvalidPayload(f"in the template {{{{ {source} }}}}: {error.message}") from None
    except Exception as error:
        # An expression is the operator's text over untrusted values: whatever it raises is its own.
        raise InvalidPayload(f"in the template {{{{ {source} }}}}: {error}") from None


def _check_names(source: str, path: tuple[str, ...], context: Mapping[str, Any]) -> None:
    """Raise InvalidPayload with the first name of a path that a mapping does not have."""
    value: Any = context
    for name in path:
        if not isinstance(value, Mapping):
            return
        value = value.get(name, _MISSING)
        if value is _MISSING:
            raise InvalidPayload(f"in the template {{{{ {source} }}}}: there is no {name!r}")


def _computed(source: str, context: Mapping[str, Any], budget: Budget) -> Any:
    return _settled(_expression(source)(**context), budget)


def _settled(value: Any, budget: Budget) -> Any:
    """A value with nothing in it that is still to be computed, undefined, or no value at all."""
    budget.spend(1)
    if isinstance(value, Undefined):
        value._fail_with_undefined_error()
    if isinstance(value, Mapping):
        return {key: _settled(item, budget) for key, item in value.items()}
    if isinstance(value, list | tuple | Iterator):
        return [_settled(item, budget) for item in value]
    if callable(value):
        raise TypeError("this is a function; call it, or name a value")
    return value


def checked_name(name: str) -> str:
    """A name beside which a template stands. Raises ValueError where it looks like one itself."""
    if wrong := template_problem(name, "write each name out"):
        raise ValueError(f"the name {name} {wrong}")
    return name


class TemplateTree(YamlValue):
    """A JSON-like value with templates in its texts (keys are taken as they are)."""

    __slots__ = ("computed", "names", "paths", "secret", "tree")

    json_schema: ClassVar[Mapping[str, Any]] = {
        "description": "any value; texts in it may hold {{ templates }}"
    }

    def __init__(self, value: Any) -> None:
        """Compile `value`. Raises ValueError for a template that does not parse."""
        names: set[str] = set()
        paths: set[str] = set()
        self.secret = False
        self.computed = False
        self.tree = self._compile(value, names, paths)
        """JSON-like, with a `Template` wherever one stands."""
        self.names = frozenset(names)
        self.paths = frozenset(paths)

    def _compile(self, value: Any, names: set[str], paths: set[str]) -> Any:
        if isinstance(value, str):
            template = Template(value)
            names |= template.names
            paths |= template.paths
            self.secret = self.secret or template.secret
            self.computed = self.computed or template.computed
            return str(value) if template.constant else template
        if isinstance(value, Mapping):
            return {str(key): self._compile(item, names, paths) for key, item in value.items()}
        if isinstance(value, Sequence):
            return [self._compile(item, names, paths) for item in value]
        return value

    def render(self, context: Mapping[str, Any]) -> Any:
        """The value with every template rendered. Raises InvalidPayload."""
        return _render(self.tree, context)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TemplateTree) and other.tree == self.tree

    __hash__ = None  # type: ignore[assignment]  # holds lists

    @classmethod
    def parse(cls, value: Any) -> TemplateTree:
        """Any JSON-like value becomes a tree; ValueError for a template that does not parse."""
        return cls(value)

    def written(self) -> TemplateTree:
        return self


def _render(tree: Any, context: Mapping[str, Any]) -> Any:
    if isinstance(tree, Template):
        return tree.render(context)
    if isinstance(tree, dict):
        return {key: _render(item, context) for key, item in tree.items()}
    if isinstance(tree, list):
        return [_render(item, context) for item in tree]
    return tree


class JsonText:
    """A tree as JSON in UTF-8, all of it worked out that no template changes.

    Args:
        tree: what is written.
        encode: writes one value; raises TypeError or ValueError for one that JSON cannot hold.
    """

    __slots__ = ("_encode", "_params", "_pieces", "_templates")

    def __init__(self, tree: TemplateTree, encode: Callable[[Any], bytes]) -> None:
        self._encode = encode
        templates: list[Template] = []
        self._pieces = [b""]
        """What stands around the values, each of which has a place of its own in between."""
        for piece in _pieces(tree.tree, encode):
            if isinstance(piece, Template):
                templates.append(piece)
                self._pieces += (b"", b"")
            else:
                self._pieces[-1] += piece
        self._templates = tuple(templates)
        paths = [template.path or () for template in templates]
        params = [path[1] for path in paths if len(path) == 2 and path[0] == "params"]
        self._params = params if len(params) == len(paths) else None
        """Their names, where each template is one of the parameters, as in most bodies."""

    def render(self, context: Mapping[str, Any]) -> bytes:
        """The text. Raises InvalidPayload, and what `encode` raises."""
        encode, pieces = self._encode, self._pieces.copy()
        if self._params is not None:
            try:
                pieces[1::2] = map(encode, map(context["params"].__getitem__, self._params))
                return b"".join(pieces)
            except KeyError:
                pass  # which one is not there is told below
        pieces[1::2] = [encode(template.render(context)) for template in self._templates]
        return b"".join(pieces)


def _pieces(tree: Any, encode: Callable[[Any], bytes]) -> Iterator[bytes | Template]:
    if isinstance(tree, Template):
        yield tree
    elif isinstance(tree, dict):
        before = b"{"
        for key, item in tree.items():
            yield b"%b%b:" % (before, encode(key))
            yield from _pieces(item, encode)
            before = b","
        yield b"}" if tree else b"{}"
    elif isinstance(tree, list):
        before = b"["
        for item in tree:
            yield before
            yield from _pieces(item, encode)
            before = b","
        yield b"]" if tree else b"[]"
    else:
        yield encode(tree)
