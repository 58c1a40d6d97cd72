"""The partition of a task, and whose turn it is there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

CONTINUE, HOLD = -1, -2
"""What `PartitionTurn.partition_rule` is where its partition has an order: the next one goes once
this one has failed; or waits for a person."""
HOLDS = 1
"""What `PartitionTurn.turn_at` is while it holds up an ordered partition without having its
turn: that has not come yet, or the task has ended."""


@dataclass(frozen=True, slots=True)
class Partition:
    """What a new task takes turns by, and how: a part of its endpoint's or webhook's tasks.

    Args:
        value: of its partition, as it is stored; the tasks of one have it in common.
        concurrency: how many of the partition may run at once in all daemons; 0 for no bound.
        ordered: whether they run one after the other, in the order in which they were accepted.
        hold: where ordered: whether the next one waits for a person once this one has failed.
    """

    value: str
    concurrency: int = 0
    ordered: bool = False
    hold: bool = False

    @property
    def rule(self) -> int:
        """As `PartitionTurn.partition_rule` has it."""
        if self.ordered:
            return HOLD if self.hold else CONTINUE
        return self.concurrency


class PartitionTurn(NamedTuple):
    """What a row of `retry_schedule` says of its task's partition."""

    partition: str
    """Its value."""
    partition_rule: int
    """How many of it may run at once in all daemons, 0 for no bound; `CONTINUE` or `HOLD` where it
    goes in the order of ids."""
    held: int = 0
    """1: the task is pending, and waits for its turn."""
    turn_at: int = 0
    """When its turn came in an ordered partition, `HOLDS` before; once it has ended 0, or `HOLDS`
    where it holds the partition. 0 where there is no order."""
