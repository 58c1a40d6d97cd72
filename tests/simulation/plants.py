"""Faults that are planted into the product, to see that the checks find them: `--plant NAME`.

A plant replaces something of the product for the length of a run. A new one is a function here that
does so, with its row in `PLANTS`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from orchestratord.engine.removed_tasks import RemovedTasks
from orchestratord.queue.sqlite.worker_locks import Turn


@contextmanager
def replaced(owner: Any, name: str, other: Any) -> Iterator[None]:
    """Something else in the place of an attribute."""
    before = owner.__dict__[name]
    setattr(owner, name, other)
    try:
        yield
    finally:
        setattr(owner, name, before)


def take_over_does_nothing() -> Any:
    """What a dead daemon had claimed is left as it is."""

    async def recover(self: Any, held: Any) -> bool:
        return False

    return replaced(RemovedTasks, "recover", recover)


def lock_that_two_hold() -> Any:
    """A worker writes without its turn, and believes that it has it."""

    def take(self: Any) -> None:
        self._held = True

    return replaced(Turn, "take", take)


PLANTS: dict[str, Callable[[], Any]] = {
    "take-over-does-nothing": take_over_does_nothing,
    "lock-that-two-hold": lock_that_two_hold,
}
"""Each by the name that `--plant` takes."""
