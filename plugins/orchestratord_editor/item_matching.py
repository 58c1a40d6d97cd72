"""Which item of a list is which one of another list."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from orchestratord import nodes

_FEW = 200


def same(one: Any, other: Any) -> bool:
    """Equal, and of the same types; the order of keys does not matter."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and bool(one == other)


def matched(
    before: Sequence[Any], new: Sequence[Any], name: Callable[[Any], str | None] | None = None
) -> list[int | None]:
    """For each new item, which of those before it is; None for one that was not there.

    The same ones first, then those of the same name, then those that are the same for the most
    part: they have another name now.

    Args:
        before: items, JSON-like.
        new: the same.
        name: of an item; None where only the same ones are looked for.
    """
    found: list[int | None] = [None] * len(new)
    free = dict.fromkeys(range(len(before)))

    def take(key: Callable[[Any], str | None]) -> None:
        known: dict[str, list[int]] = defaultdict(list)
        for number in reversed(free):
            if (text := key(before[number])) is not None:
                known[text].append(number)
        for number, item in enumerate(new):
            text = key(item)
            if found[number] is None and text is not None and known[text]:
                found[number] = old = known[text].pop()
                del free[old]

    take(lambda item: json.dumps(item, sort_keys=True))
    if name is not None:
        take(name)
        # A list of thousands was made by a program, which has not renamed one of them.
        for number, item in enumerate(new[:_FEW]):
            if found[number] is None and 0 < len(free) <= _FEW:
                most = max(free, key=lambda old: _alike(before[old], item))
                if 2 * _alike(before[most], item) >= 1:
                    found[number] = most
                    del free[most]
    return found


class ListChange(NamedTuple):
    """A list as it is to be: its items, JSON-like; those that stand there; and for each new one,
    which of these it is, None for one that was not there."""

    new: Sequence[Any]
    before: Sequence[nodes.Node]
    kept: Sequence[int | None]

    @classmethod
    def of(cls, list_: nodes.Node, new: Sequence[Any]) -> ListChange:
        """Of a list inside an item, whose own items go by what is the same in them."""
        before = nodes.items_of(list_)
        return cls(new, before, matched([nodes.data_of(item) for item in before], new))


def _alike(one: Any, other: Any) -> float:
    """The share of keys that two mappings have in common, with their values."""
    if not isinstance(one, Mapping) or not isinstance(other, Mapping):
        return 0.0
    most = max(len(one), len(other))
    return sum(key in one and same(one[key], other[key]) for key in other) / most if most else 0.0
