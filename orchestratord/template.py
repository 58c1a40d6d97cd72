"""Templates: text with `{{ expressions }}`, sandboxed, strict about undefined names.

Most of them are plain paths (`{{ params.id }}`), which are looked up without Jinja; everything else
is a sandboxed Jinja expression. There are no statements (`{% %}`), so nothing loops. What came
out of a reference is literal and never read as a template.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

from jinja2 import StrictUndefined, TemplateSyntaxError, UndefinedError, meta, nodes
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from orchestratord.errors import InvalidPayload
from orchestratord.values import Text

MAX_RENDERED = 1_048_576
"""Characters that one template may make."""

_MARK = re.compile(r"(\{\{.*?\}\})", re.DOTALL)
_PATH = re.compile(r"\{\{\s*([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)\s*\}\}")
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


class _Sandbox(ImmutableSandboxedEnvironment):
    """Expressions only, and nothing that makes something huge out of something small."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "%" and isinstance(left, str):
            raise SecurityError("formatting with % is not available; write a ~ b")
        if operator == "**" and not (_small(left) and _small(right)):
            raise SecurityError("the numbers of a power are bounded")
        if operator == "*":
            for text, times in ((left, right), (right, left)):
                if isinstance(text, str | list | tuple) and len(text) * times > MAX_RENDERED:
                    raise SecurityError(f"the result would be over {MAX_RENDERED} characters")
        return super().call_binop(context, operator, left, right)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, str) and attr in _GROWING:
            return False
        return super().is_safe_attribute(obj, attr, value)


_GROWING = frozenset({"center", "ljust", "rjust", "zfill", "format", "format_map", "expandtabs"})


def _small(value: Any) -> bool:
    return isinstance(value, int | float) and -1000 <= value <= 1000


_FILTERS = frozenset(
    {
        "abs",
        "capitalize",
        "count",
        "d",
        "default",
        "dictsort",
        "first",
        "float",
        "int",
        "items",
        "join",
        "last",
        "length",
        "list",
        "lower",
        "map",
        "max",
        "min",
        "reject",
        "rejectattr",
        "replace",
        "reverse",
        "round",
        "select",
        "selectattr",
        "sort",
        "string",
        "sum",
        "title",
        "tojson",
        "trim",
        "truncate",
        "unique",
        "upper",
        "urlencode",
    }
)


def _environment() -> _Sandbox:
    env = _Sandbox(undefined=StrictUndefined, autoescape=False)
    env.globals.clear()
    env.filters = {name: env.filters[name] for name in _FILTERS if name in env.filters}
    env.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False, default=to_text)
    return env


_ENV = _environment()


@lru_cache(maxsize=4096)
def _expression(source: str) -> Callable[..., Any]:
    """Compile what stands between the braces. Compiling waits for the first use: it is slow."""
    return _ENV.compile_expression(source, undefined_to_none=False)


@lru_cache(maxsize=16384)
def _names(source: str) -> frozenset[str]:
    tree = _ENV.parse("{{" + source + "}}")
    if len(tree.body) != 1 or not isinstance(tree.body[0], nodes.Output):
        raise TemplateSyntaxError("only expressions can stand between the braces", 1)
    return frozenset(meta.find_undeclared_variables(tree))


class Template:
    """One text of the YAML, cut into literal parts and expressions. Equal texts are equal."""

    __slots__ = ("_parts", "names", "secret", "source")

    def __init__(self, value: str) -> None:
        """Parse `value`. Raises ValueError with what is wrong and where in the text."""
        pieces = value.parts if isinstance(value, Text) else ((str(value), False),)
        self.source: str = value.source if isinstance(value, Text) else str(value)
        self.secret: bool = value.secret if isinstance(value, Text) else False
        parts: list[str | tuple[str, tuple[str, ...] | None]] = []
        names: set[str] = set()
        for text, referenced in pieces:
            for piece in [text] if referenced else _MARK.split(text):
                if not piece:
                    continue
                if referenced or not (piece.startswith("{{") and piece.endswith("}}")):
                    if not referenced and ("{{" in piece or "{%" in piece or "{#" in piece):
                        raise ValueError(_unfinished(piece))
                    parts.append(piece)
                elif match := _PATH.fullmatch(piece):
                    path = tuple(match[1].split("."))
                    names.add(path[0])
                    parts.append((piece[2:-2].strip(), path))
                else:
                    source = piece[2:-2].strip()
                    try:
                        names |= _names(source)
                    except TemplateError as error:
                        raise ValueError(f"in the template {piece}: {error.message}") from None
                    parts.append((source, None))
        self._parts = tuple(parts)
        self.names = frozenset(names)

    @property
    def constant(self) -> bool:
        """True where nothing has to be looked up."""
        return not any(isinstance(part, tuple) for part in self._parts)

    def render(self, context: Mapping[str, Any], quote: Callable[[str], str] | None = None) -> Any:
        """The value for `context`. A template that is one expression keeps its value's type.

        Args:
            context: the names that may be used.
            quote: applied to each value as text; with it the result is always a text.

        Raises:
            InvalidPayload: a name is undefined, or the expression fails.
        """
        parts = self._parts
        if quote is None and len(parts) == 1:
            part = parts[0]
            return part if isinstance(part, str) else _evaluate(part, context)
        texts: list[str] = []
        for part in parts:
            if isinstance(part, str):
                texts.append(part)
            else:
                text = to_text(_evaluate(part, context))
                texts.append(quote(text) if quote else text)
        joined = "".join(texts)
        if len(joined) > MAX_RENDERED:
            raise InvalidPayload(f"the template makes more than {MAX_RENDERED} characters")
        return joined

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Template) and other._parts == self._parts

    def __hash__(self) -> int:
        return hash(self._parts)

    def __repr__(self) -> str:
        return f"Template({self.source!r})"

    @classmethod
    def parse(cls, value: Any) -> Template:
        """A text, or a plain number or boolean, becomes a template; ValueError for the rest."""
        if isinstance(value, Template):
            return value
        if isinstance(value, str):
            return cls(value)
        if isinstance(value, bool | int | float):
            return cls(to_text(value))
        raise ValueError("expected a text")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls.parse,
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda template: template.source
            ),
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"type": ["string", "number", "boolean"]}


def _unfinished(piece: str) -> str:
    if "{%" in piece or "{#" in piece:
        return "templates have expressions only: {{ … }}; {% %} and {# #} are not available"
    return f"the template in {piece.strip()[:60]!r} has {{{{ without }}}}"


def _evaluate(part: tuple[str, tuple[str, ...] | None], context: Mapping[str, Any]) -> Any:
    source, path = part
    if path is not None:
        value: Any = context
        for name in path:
            if not isinstance(value, Mapping):
                break  # an attribute or a method: Jinja's business
            value = value.get(name, _MISSING)
            if value is _MISSING:
                raise InvalidPayload(f"in the template {{{{ {source} }}}}: there is no {name!r}")
        else:
            return value
    try:
        value = _expression(source)(**context)
        if isinstance(value, StrictUndefined):
            value._fail_with_undefined_error()
        return value
    except UndefinedError as error:
        raise InvalidPayload(f"in the template {{{{ {source} }}}}: {error.message}") from None
    except Exception as error:
        # An expression is the operator's text over untrusted values: whatever it raises is its own.
        raise InvalidPayload(f"in the template {{{{ {source} }}}}: {error}") from None


class TemplateTree:
    """A JSON-like value with templates in its texts (keys are taken as they are)."""

    __slots__ = ("_tree", "names", "secret")

    def __init__(self, value: Any) -> None:
        """Compile `value`. Raises ValueError for a template that does not parse."""
        names: set[str] = set()
        self.secret = False
        self._tree = self._compile(value, names)
        self.names = frozenset(names)

    def _compile(self, value: Any, names: set[str]) -> Any:
        if isinstance(value, str):
            template = Template(value)
            names |= template.names
            self.secret = self.secret or template.secret
            return str(value) if template.constant else template
        if isinstance(value, Mapping):
            return {str(key): self._compile(item, names) for key, item in value.items()}
        if isinstance(value, Sequence):
            return [self._compile(item, names) for item in value]
        return value

    def render(self, context: Mapping[str, Any]) -> Any:
        """The value with every template rendered. Raises InvalidPayload."""
        return _render(self._tree, context)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TemplateTree) and other._tree == self._tree

    __hash__ = None  # type: ignore[assignment]  # holds lists

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            lambda value: value if isinstance(value, TemplateTree) else cls(value)
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"description": "any value; texts in it may hold {{ templates }}"}


def _render(tree: Any, context: Mapping[str, Any]) -> Any:
    if isinstance(tree, Template):
        return tree.render(context)
    if isinstance(tree, dict):
        return {key: _render(item, context) for key, item in tree.items()}
    if isinstance(tree, list):
        return [_render(item, context) for item in tree]
    return tree
