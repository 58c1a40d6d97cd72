"""The expressions of templates, evaluated by Jinja within bounds.

What a receiver answered may be a value in them. The sandbox keeps Python's insides out of reach,
and here it is kept from making something huge out of something small, and from going through
something large for ever: each filter spends of a budget what the size of its value costs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial, wraps
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import StrictUndefined, Undefined, pass_environment
from jinja2.exceptions import SecurityError
from jinja2.filters import do_round, do_sum
from jinja2.sandbox import ImmutableSandboxedEnvironment
from markupsafe import escape

from orchestratord.values.budget import JSON_PER_STEP, PER_STEP, Budget, templates_budget
from orchestratord.values.json_body import from_json, to_json

MAX_RENDERED = 1_048_576
"""Characters that one template may make."""


def sandbox(to_text: Callable[[Any], str]) -> ImmutableSandboxedEnvironment:
    """An environment for expressions; `to_text` writes what JSON has no form for."""
    env = _Sandbox(undefined=StrictUndefined, autoescape=False)
    env.globals.clear()
    own = {
        "from_json": _from_json,
        "replace": _replace,
        "join": partial(_join, write=to_text),
        "round": _round,
        "sum": _sum,
    }
    own |= _writing(to_text)
    known = {**env.filters, **own}
    env.filters = {name: known[name] for name in _CHEAP}
    env.filters |= {name: _spending(known[name], deep=False) for name in _BY_ITEMS}
    env.filters |= {name: _spending(known[name], deep=True) for name in _DEEP}
    return env


class _Sandbox(ImmutableSandboxedEnvironment):
    """Expressions only, and nothing that makes something huge out of something small."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "+" and isinstance(left, list):
            _budget().spend(len(left) // PER_STEP)
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


def _join(items: Any, separator: str = "", write: Callable[[Any], str] = str) -> str:
    items = list(items)
    _budget().weigh(items)
    texts = [write(item) for item in items]
    _bounded(sum(map(len, texts)) + len(separator) * (len(texts) - 1))
    return separator.join(texts)


@pass_environment
def _sum(environment: Any, items: Any, attribute: Any = None, start: Any = 0) -> Any:
    # Lists that are added up would be copied again for each that follows.
    if not isinstance(start, int | float):
        raise SecurityError("sum adds numbers")
    return do_sum(environment, items, attribute, start)


def _round(value: float, precision: int = 0, method: Any = "common") -> float:
    if not _small(precision):
        raise SecurityError("the precision of round is bounded")
    rounded: float = do_round(value, precision, method)
    return rounded


def _writing(to_text: Callable[[Any], str]) -> dict[str, Callable[[Any], str]]:
    """Filters that write a value for where it is to stand. They make plain texts: Jinja's own are
    marked as safe, and escape what is joined to them."""

    def escaped(value: Any) -> str:
        return _within(str(escape(to_text(value))))

    def json_text(value: Any) -> str:
        return _within(to_json(value, to_text))

    def urlencoded(value: Any) -> str:
        if not isinstance(value, Mapping | list | tuple):
            return _within(quote(to_text(value)))
        pairs = value.items() if isinstance(value, Mapping) else value
        return _within(urlencode([(to_text(name), to_text(item)) for name, item in pairs]))

    return {"e": escaped, "to_json": json_text, "tojson": json_text, "urlencode": urlencoded}


def _from_json(text: Any) -> Any:
    if isinstance(text, str | Undefined):  # its length raises with the name
        _budget().spend(len(text) // JSON_PER_STEP)
    return from_json(text)


def _within(text: str) -> str:
    _bounded(len(text))
    return text


_BOUNDED: dict[str, Callable[..., str]] = {
    "replace": _replace,
    "join": lambda separator, items: _join(items, separator),
}
"""Methods of a text that could make much out of little, as they are available."""

# -- what a filter costs ---------------------------------------------------------------------------


def _budget() -> Budget:
    budget = templates_budget()
    if budget is None:
        raise RuntimeError("an expression is evaluated within a budget")
    return budget


def _spending(function: Callable[..., Any], *, deep: bool) -> Callable[..., Any]:
    """A filter that spends what its value costs: with `deep` all that is in it, else its items.

    What goes through items may look at all of its arguments for each of them, as `select('in', …)`
    does.
    """
    place = 1 if hasattr(function, "jinja_pass_arg") else 0

    @wraps(function)
    def spend_first(*args: Any, **kwargs: Any) -> Any:
        value, others = args[place], args[place + 1 :]
        budget = _budget()
        if deep and type(value) is str:  # as for each item of a list of texts
            budget.spend(1 + len(value) // PER_STEP)
        elif deep:
            value = list(value) if isinstance(value, Iterator) else value
            budget.weigh(value)
        elif not isinstance(value, Undefined):
            each = 1
            if others or kwargs:
                each += budget.weigh([*others, *kwargs.values()]) // PER_STEP
            if isinstance(value, Iterator):
                value = budget.count(value, each)
            elif hasattr(value, "__len__"):
                budget.spend(len(value) * each)
        return function(*args[:place], value, *others, **kwargs)

    return spend_first


_CHEAP = "abs count d default first float int join last length round".split()
"""Filters that do not look at what is in their value, or spend by themselves."""

_BY_ITEMS = "items list map reject rejectattr reverse select selectattr sum unique".split()
"""Filters that take one item after the other."""

_DEEP = (
    "capitalize dictsort e from_json lower max min replace sort string title to_json tojson trim "
    "truncate upper urlencode"
).split()
"""Filters that write their value as a text, or compare what is in it."""
