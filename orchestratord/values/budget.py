"""What an expression may cost: a template, or JMESPath.

The data comes from outside, and may be large.

Steps are counted, and not time: whether an expression is too dear depends on the data alone, and
not on what else the machine does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

BUDGET = 500_000
"""Steps of one evaluation, some microseconds each at most."""
INLINE_STEPS = 10_000
"""Those that are taken on the event loop, 1.5 µs each: short data can be dear, too."""
PER_STEP = 64
"""Characters of a text, or items that the library goes through in one go, that cost one step."""
JSON_PER_STEP = 8
"""Characters of JSON that are read for one step."""


_TOO_MUCH = "it costs too much over data of this size"
_PLAIN = frozenset({int, float, bool, type(None)})
"""Asking them whether they are of an abstract class takes longer than all the rest."""


class TooCostly(ValueError):
    """Evaluating an expression costs more than it may."""


class Budget:
    """What evaluating expressions may still cost, all that are given this one together."""

    __slots__ = ("_left",)

    def __init__(self, steps: int = BUDGET) -> None:
        """`steps`: of some microseconds each at most."""
        self._left = steps

    @property
    def is_spent(self) -> bool:
        """Whether something has cost more than there was."""
        return self._left < 0

    def spend(self, steps: int) -> None:
        """Raise TooCostly where there are not so many steps left."""
        self._left -= steps
        if self._left < 0:
            raise TooCostly(_TOO_MUCH)

    def weigh(self, value: Any) -> int:
        """Spend what it takes to go through all of a JSON-like value, what repeats in it included;
        returns that."""
        weight = 0
        waiting = [value]
        while waiting:
            item = waiting.pop()
            steps = 1
            if isinstance(item, str):
                steps += len(item) // PER_STEP
            elif isinstance(item, list | tuple):
                waiting.extend(item)
            elif type(item) not in _PLAIN and isinstance(item, Mapping):
                waiting.extend(item.values())
            self.spend(steps)
            weight += steps
        return weight

    def count(self, items: Iterable[Any], steps: int) -> Iterator[Any]:
        """The items as they are; each costs so many steps when it is taken."""
        for item in items:
            self.spend(steps)
            yield item


_templates: ContextVar[Budget | None] = ContextVar("templates", default=None)
"""What the templates that are rendered now may still cost, together."""


def templates_budget() -> Budget | None:
    """What is left to the templates that are rendered now; None where each has its own."""
    return _templates.get()


def within_budget(budget: Budget, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """What `function` returns, or raises; all templates that it renders share one budget.

    Raises TooCostly where they cost more, whatever `function` makes of that.
    """
    token = _templates.set(budget)
    try:
        result = function(*args, **kwargs)
    except Exception:
        if budget.is_spent:
            raise TooCostly(_TOO_MUCH) from None
        raise
    finally:
        _templates.reset(token)
    if budget._left < 0:
        raise TooCostly(_TOO_MUCH)
    return result
