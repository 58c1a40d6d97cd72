"""Delta debugging: the fewest steps of a universe that still show what is wrong with it.

Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", IEEE TSE 2002: try ever
smaller parts of the steps, and what is left without each part; go on with the first that still
fails, until no single step can be left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

Fails = Callable[[Sequence[Sequence[int]]], Iterator[bool]]
"""Says of each of these lists of steps, in their order, whether it still fails."""


def shrink(steps: Sequence[int], fails: Fails, told: Callable[[int], None]) -> list[int]:
    """The fewest of these steps that still fail, as far as leaving out parts of them finds them.

    `told`: is told how many are left, whenever it is fewer.
    """
    left, parts = list(steps), 2
    while len(left) > 1:
        parts = min(parts, len(left))
        size = -(-len(left) // parts)
        chunks = [left[first : first + size] for first in range(0, len(left), size)]
        without = [[one for one in left if one not in chunk] for chunk in chunks]
        tried = [*chunks, *without] if parts == 2 else without
        found = next(
            (some for some, failed in zip(tried, fails(tried), strict=False) if failed), None
        )
        if found is not None:
            parts = max(parts - 1, 2) if len(found) > size else 2
            left = found
            told(len(left))
        elif parts >= len(left):
            break
        else:
            parts *= 2
    return left
