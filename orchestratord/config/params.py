"""A call's parameters against what its endpoint declares."""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from orchestratord.errors import InvalidParams
from orchestratord.model.endpoint import Endpoint, Param, ParamRules
from orchestratord.model.settings import Config
from orchestratord.model.task import NewTask
from orchestratord.values.json_body import is_larger
from orchestratord.values.suggest import MOST_UNKNOWN, suggest

_SIMPLE = frozenset({int, bool, type(None)})
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)
_INTEGER = re.compile(r"[-+]?\d{1,300}")


def check_call(
    config: Config,
    endpoint: Endpoint,
    params: Mapping[str, Any],
    texts: Mapping[str, str] = {},
    key: str | None = None,
) -> dict[str, Any]:
    """What `check_params` makes of a call's parameters, which are going to be stored; what
    `rule_problems` finds is to be asked besides.

    Raises InvalidParams, also where they or the call's key hold a secret of the configuration.
    """
    checked = check_params(endpoint, params, text=texts, most=config.daemon.max_params, apart=True)
    named = {**params, **texts} if texts else params
    if key is not None:
        named = {**named, "Idempotency-Key": key}
    if problems := config.redactor.problems_in(named):
        raise InvalidParams(problems)
    return checked


def check_params(
    endpoint: Endpoint,
    given: Mapping[str, Any],
    *,
    text: Mapping[str, str] = {},
    most: int | None = None,
    apart: bool = False,
) -> dict[str, Any]:
    """The parameters of one call, defaults filled in.

    Args:
        endpoint: what declares them.
        given: JSON values by name.
        text: the same as texts (`-p limit=5`), turned into the declared type; they win.
        most: bytes that all of them may have as JSON: `max_params`; None for as many as there are.
        apart: leave out the rules that `rule_problems` asks, as a daemon does.

    Raises:
        InvalidParams: with everything that is wrong: unknown names, missing ones, wrong types, or
            too much of it.
    """
    # Before anything is done with them, and with the defaults.
    _check_size({**given, **text} if text else given, most)
    rules = endpoint.spec if isinstance(endpoint.spec, ParamRules) else None
    declared = endpoint.params
    if rules is not None and rules.free and not declared:
        declared = dict.fromkeys((*given, *text), _ANY_PARAM)
    params = fill(declared, given, text)
    if len(params) > len(given):
        _check_size(params, most)
    if rules is not None and not (apart and rules.apart) and (found := rules.problems(params)):
        raise InvalidParams(found)
    return params


def _check_size(params: Mapping[str, Any], most: int | None) -> None:
    if most is not None and is_larger(params, most):
        raise InvalidParams({"params": TOO_LARGE.format(most)})


async def rule_problems(config: Config, calls: Sequence[NewTask]) -> list[dict[str, str]]:
    """What is wrong with each of these calls by those rules of its endpoint that are asked apart.

    Raises SchemaTooCostly where it takes too long to find that out of all calls of an endpoint.
    """
    found: list[dict[str, str]] = [{} for _ in calls]
    places: dict[str, list[int]] = {}
    for place, call in enumerate(calls):
        places.setdefault(call.endpoint_id, []).append(place)
    for endpoint_id, its_places in places.items():
        rules = config.endpoints[endpoint_id].spec
        if isinstance(rules, ParamRules) and rules.apart:
            problems = await rules.problems_apart([calls[place].params for place in its_places])
            for place, wrong in zip(its_places, problems, strict=True):
                found[place] = wrong
    return found


TOO_LARGE = "are larger, as JSON, than the {} bytes that max_params in orchestratord.yaml allows"


def fill(
    declared: Mapping[str, Param], given: Mapping[str, Any], text: Mapping[str, str] = {}
) -> dict[str, Any]:
    """Fill in the parameters of a declaration. Raises InvalidParams."""
    problems = {
        name: "there is no such parameter" + suggest(name, declared)
        for name in [name for name in (*given, *text) if name not in declared][:MOST_UNKNOWN]
    }
    values: dict[str, Any] = {}
    for name, param in declared.items():
        try:
            if name in text:
                values[name] = from_text(param, text[name])
            elif name in given:
                values[name] = fitted(param, given[name])
            elif param.required:
                raise ValueError("is required")
            else:
                values[name] = _fresh(param.default)
        except ValueError as error:
            problems[name] = str(error)
    if problems:
        raise InvalidParams(problems)
    return values


def exemplary(
    endpoint: Endpoint, given: Mapping[str, Any], most: int | None = None
) -> dict[str, Any]:
    """The parameters of a call that is not made: what is required and missing is made up.

    `most` and what is raised are those of `check_params`, without the rules that are asked apart.
    """
    made_up = {
        name: _TYPES[param.type].example
        for name, param in endpoint.params.items()
        if param.required and name not in given
    }
    return check_params(endpoint, {**made_up, **given}, most=most, apart=True)


def fitted(param: Param, value: Any) -> Any:
    """A JSON value as the parameter's type. Raises ValueError where it is of another."""
    if value is None and not param.required and param.default is None:
        return None
    type_ = _TYPES[param.type]
    if not type_.fits(value):
        raise ValueError(f"expected {type_.words}, not {_json_text(value)}")
    kind = type(value)
    if not (kind in _SIMPLE or (kind is str and value.isascii())):
        try:
            _ENCODER.encode(value).encode()
        except (ValueError, TypeError, RecursionError):
            raise ValueError("is not a JSON value") from None
    return int(value) if param.type == "integer" else value


def from_text(param: Param, text: str) -> Any:
    """A text as the parameter's type. Raises ValueError where it cannot be read as that."""
    return fitted(param, _TYPES[param.type].read(text))


def _integer(text: str) -> Any:
    return int(text) if _INTEGER.fullmatch(text.strip()) else text


def _number(text: str) -> Any:
    if _INTEGER.fullmatch(text.strip()):
        return int(text)
    try:
        return float(text)
    except ValueError:
        return text


def _boolean(text: str) -> Any:
    return {"true": True, "false": False}.get(text.strip().lower(), text)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _is_number(value: Any) -> bool:
    return (isinstance(value, int) and not isinstance(value, bool)) or (
        isinstance(value, float) and math.isfinite(value)
    )


def _fresh(default: Any) -> Any:
    """A default that the call may change."""
    return copy.deepcopy(default) if isinstance(default, dict | list) else default


def _json_text(value: Any) -> str:
    try:
        text = json.dumps(value, default=str)
    except (ValueError, RecursionError):
        return "this"
    return text if len(text) <= 60 else text[:59] + "…"


class _Type(NamedTuple):
    """A type that a parameter may have: in words, of which values, one for example, and how a text
    is read as one; what is none comes out as it went in."""

    words: str
    fits: Callable[[Any], bool]
    example: Any
    read: Callable[[str], Any]


_TYPES: Mapping[str | None, _Type] = {
    "string": _Type("a text", lambda value: isinstance(value, str), "example", str),
    "integer": _Type(
        "a whole number", lambda value: _is_number(value) and value == int(value), 1, _integer
    ),
    "number": _Type("a number", _is_number, 1, _number),
    "boolean": _Type("true or false", lambda value: isinstance(value, bool), True, _boolean),
    "array": _Type("a list", lambda value: isinstance(value, list | tuple), [], _json),
    "object": _Type("a mapping", lambda value: isinstance(value, Mapping), {}, _json),
    None: _Type("any value", lambda value: True, "example", str),
}
_ANY_PARAM = Param(required=True)
"""Of an endpoint that takes any."""
