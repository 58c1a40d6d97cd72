"""Counting by labels, for a bounded number of label sets."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Sequence

Labels = tuple[str, ...]
"""The values of a metric's labels, in the order of their names."""

MAX_SETS = 500
"""Label sets of one metric; what comes after them is counted under the endpoint `other`."""
OTHER = "other"
"""No endpoint has this id: theirs have a slash."""


class Counts:
    """How often something happened and, with limits, how long it took: a counter or a histogram."""

    def __init__(
        self,
        name: str,
        help: str,  # noqa: A002  # as the exposition calls it
        labels: Sequence[str],
        limits: Sequence[float] = (),
        most: int = MAX_SETS,
    ) -> None:
        """
        Args:
            name: without what the exposition appends, such as `_total` and `_bucket`.
            help: what is counted.
            labels: their names; `endpoint` comes first where it is one of them.
            limits: seconds, ascending; of a counter, none.
            most: how many label sets there are at most, those of `other` not counted.
        """
        self.name = name
        self.help = help
        self.labels = tuple(labels)
        self.limits = tuple(limits)
        self._most = most
        self._of_endpoint = "endpoint" in self.labels
        self._named = 0
        """Label sets that are not those of `other`."""
        self._found: dict[Labels, list[float]] = {}

    def add(self, labels: Labels, seconds: float = 0.0) -> None:
        """It happened once more, and took so long."""
        found = self._found.get(labels)
        if found is None:
            found = self._begin(labels)
        found[bisect_left(self.limits, seconds)] += 1
        found[-1] += seconds

    def _begin(self, labels: Labels) -> list[float]:
        if self._named < self._most:
            self._named += 1
        elif self._of_endpoint:
            labels = (OTHER, *labels[1:])
        return self._found.setdefault(labels, [0.0] * (len(self.limits) + 2))

    def forget(self, declared: Collection[str]) -> None:
        """Drop the label sets of endpoints that are not among those that are `declared`."""
        if self._of_endpoint:
            for labels in list(self._found):
                if labels[0] not in declared and labels[0] != OTHER:
                    del self._found[labels]
                    self._named -= 1

    def copy(self) -> dict[Labels, list[float]]:
        """Of each label set: how often up to each limit but not the one before it, how often over
        the last one, and the sum of the seconds."""
        return {labels: list(found) for labels, found in self._found.items()}


def masked(
    found: dict[Labels, list[float]], text: Callable[[str], str]
) -> dict[Labels, list[float]]:
    """The same with `text` of each label's value; what becomes the same is added up."""
    shown: dict[Labels, list[float]] = {}
    for labels, numbers in found.items():
        names = tuple(map(text, labels))
        known = shown.get(names)
        if known is not None:
            numbers = [a + b for a, b in zip(known, numbers, strict=True)]
        shown[names] = numbers
    return shown
