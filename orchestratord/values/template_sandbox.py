"""The expressions of templates, evaluated by Jinja within bounds.

What a receiver answered may be a value in them. The sandbox keeps Python's insides out of reach,
and here it is kept from making something huge out of something small, too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from jinja2 import StrictUndefined
from jinja2.exceptions import SecurityError
from jinja2.filters import do_round
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_RENDERED = 1_048_576
"""Characters that one template may make."""


def sandbox(to_text: Callable[[Any], str]) -> ImmutableSandboxedEnvironment:
    """An environment for expressions; `to_text` writes what JSON has no form for."""
    env = _Sandbox(undefined=StrictUndefined, autoescape=False)
    env.globals.clear()
    env.filters = {name: env.filters[name] for name in _FILTERS}
    env.filters |= {"replace": _replace, "join": _join, "round": _round}
    env.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False, default=to_text)
    return env


class _Sandbox(ImmutableSandboxedEnvironment):
    """Expressions only, and nothing that makes something huge out of something small."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "%" and isinstance(left, str):
            raise SecurityError("formatting with % is not available; write a ~ b")
        if operator == "**" and not (_small(left) and _small(right)):
            raise SecurityError("the numbers of a power are bounded")
        if operator == "*":
            for repeated, times in ((left, right), (right, left)):
                if isinstance(repeated, str) and isinstance(times, int):
                    _bounded(len(repeated) * times)
                elif hasattr(repeated, "__len__"):
                    # Its items would be shared, and take their room only when they are written.
                    raise SecurityError("only numbers and texts can be multiplied")
        return super().call_binop(context, operator, left, right)

    def getattr(self, obj: Any, attribute: str) -> Any:
        # A parameter named `items` is meant, not the method.
        if isinstance(obj, Mapping) and attribute in obj:
            return obj[attribute]
        if isinstance(obj, str) and attribute in _BOUNDED:
            return partial(_BOUNDED[attribute], obj)
        return super().getattr(obj, attribute)

    def wrap_str_format(self, value: Any) -> None:
        """Jinja's own is safe, but not small."""

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, str) and (attr in _GROWING or attr in _BOUNDED):
            return False
        return attr != "to_bytes" and super().is_safe_attribute(obj, attr, value)


_GROWING = frozenset(
    {"center", "ljust", "rjust", "zfill", "expandtabs", "format", "format_map", "translate"}
    | {"encode"}  # bytes would have all of these again
)
"""Methods of a text that are not available."""


def _small(value: Any) -> bool:
    return isinstance(value, int | float) and -1000 <= value <= 1000


def _bounded(length: int) -> None:
    if length > MAX_RENDERED:
        raise SecurityError(f"the result would be over {MAX_RENDERED} characters")


def _replace(value: Any, old: str, new: str, count: int | None = None) -> str:
    text = str(value)
    found = text.count(old) if count is None or count < 0 else min(count, text.count(old))
    _bounded(len(text) + found * (len(new) - len(old)))
    return text.replace(old, new, -1 if count is None else count)


def _join(items: Any, separator: str = "") -> str:
    texts = [str(item) for item in items]
    _bounded(sum(map(len, texts)) + len(separator) * (len(texts) - 1))
    return separator.join(texts)


def _round(value: float, precision: int = 0, method: Any = "common") -> float:
    if not _small(precision):
        raise SecurityError("the precision of round is bounded")
    rounded: float = do_round(value, precision, method)
    return rounded


_BOUNDED: dict[str, Callable[..., str]] = {
    "replace": _replace,
    "join": lambda separator, items: _join(items, separator),
}
"""Methods of a text that could make much out of little, as they are available."""

_FILTERS = [
    "abs", "capitalize", "count", "d", "default", "dictsort", "first", "float", "int",
    "items", "last", "length", "list", "lower", "map", "max", "min", "reject", "rejectattr",
    "reverse", "select", "selectattr", "sort", "string", "sum", "title", "trim", "truncate",
    "unique", "upper", "urlencode",
]  # fmt: skip
"""Those of Jinja's filters that are available as they are."""
