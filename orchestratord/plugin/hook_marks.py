"""What a plugin's author writes above a hook.

It is apart from the hooks themselves, whose arguments are of many modules: a plugin that only has
commands is imported at once by it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, TypeVar, overload

import pluggy

F = TypeVar("F", bound=Callable[..., Any])

_mark = pluggy.HookimplMarker("orchestratord")


@overload
def hookimpl(function: F, /) -> F: ...
@overload
def hookimpl(
    *, on_fault: Literal["pass", "retry", "reject"] = ..., **options: Any
) -> Callable[[F], F]: ...
def hookimpl(function: Any = None, /, *, on_fault: str = "pass", **options: Any) -> Any:
    """Mark a function as the hook that it is named for.

    Args:
        function: the hook.
        on_fault: of a deciding hook: what becomes of an attempt where it raises, takes too long or
            returns something else than it may. `pass`: as if it had returned nothing. `retry`: the
            attempt fails, and is tried again by the backoff. `reject`: the task fails for good.
        **options: those of `pluggy.HookimplMarker`, such as `specname`, `tryfirst`, `trylast`.
    """
    if function is None:
        return partial(hookimpl, on_fault=on_fault, **options)
    if on_fault not in ("pass", "retry", "reject"):
        raise ValueError(f"on_fault={on_fault!r}; write pass, retry or reject")
    if on_fault != "pass":
        function.orchestratord_on_fault = on_fault
    return _mark(**options)(function)


def pure(function: F) -> F:
    """Mark an after_ hook that does nothing but look at its arguments and decide.

    `explain` and the tests in the YAML run it as the daemon would, and need not warn of it.
    """
    function.orchestratord_pure = True  # type: ignore[attr-defined]
    return function


def required(function: F) -> F:
    """Mark a telling hook without whose answer nothing is to be written: what the files promise.

    Where it is at fault, the end of the attempt waits, and the hook is asked again until it
    answers, after a delay that grows up to a minute and with more time each time.
    """
    function.orchestratord_required = True  # type: ignore[attr-defined]
    return function


def only_for(concerned: Callable[..., object]) -> Callable[[F], F]:
    """Mark a deciding or telling hook that has nothing to say of most tasks.

    What hooks are not asked costs nothing: without this, each of them is called for each attempt.

    Args:
        concerned: whether the hook is to be asked about the tasks of this kind and endpoint: a
            `def`, and its answer is remembered for as long as the endpoint's files stay as they
            are, so it has to go by these alone. That of `announce` may take the phase as third;
            that of `on_event` takes the type of the event alone.
            Where the endpoint is gone, and where this raises, the hook is asked.
    """

    def mark(function: F) -> F:
        function.orchestratord_only_for = concerned  # type: ignore[attr-defined]
        return function

    return mark
