"""Whether the functions that plugins register can be called as the daemon calls them.

What that is stands once, where the classes are declared: in the types of their fields, and in the
methods of `Executor`.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

from orchestratord.plugin.executor import Executor
from orchestratord.plugin.route import Route


def check_functions(registered: Any) -> None:
    """Raise TypeError where one of what was registered cannot be; see `check_function`."""
    type_: Any = type(registered)
    article = "an" if type_.__name__[0] in "AEIOU" else "a"
    for name, (given, waits) in _expected(type_).items():
        if isinstance(registered, Route):
            given = 3 + registered.caller
        what = f"{article} {type_.__name__} whose {name} is"
        check_function(what, getattr(registered, name), given, waits=waits)


def check_function(
    what: str, function: Any, given: int | None, *, waits: bool | None = False
) -> None:
    """Raise TypeError for what is no function, takes another number of arguments than it is `given`
    (None for any), or is a `def` where it `waits`, or an `async def` where it does not (None for
    either)."""
    try:
        signature = inspect.signature(function)
        if given is not None:
            signature.bind(*[None] * given)
    except TypeError as error:
        raise TypeError(f"{what} called with {given} arguments: {error}") from None
    except ValueError:
        return  # a builtin, of which that is not known
    if waits not in (None, inspect.iscoroutinefunction(inspect.unwrap(function))):
        wrong, right = ("a `def`", "an `async def`") if waits else ("an `async def`", "a `def`")
        raise TypeError(f"{what} {wrong}; write {right}")


@cache
def _expected(type_: Any) -> Mapping[str, tuple[int | None, bool | None]]:
    """The functions of an instance: how many arguments they get, and whether they wait."""
    if issubclass(type_, Executor):
        return {
            name: (one.__code__.co_argcount - 1, inspect.iscoroutinefunction(one) and None)
            for name, one in vars(Executor).items()
            if inspect.isfunction(one)
        }
    hints = get_type_hints(type_, localns={"Markup": str}).items()
    found = {name: get_args(hint) for name, hint in hints if get_origin(hint) is Callable}
    return {
        name: (None if given is ... else len(given), get_origin(result) is Awaitable)
        for name, (given, result) in found.items()
    }
