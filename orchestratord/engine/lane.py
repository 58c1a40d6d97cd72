"""A lane: what shares a fate, as an API, or one receiver's host and port."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import NamedTuple

from orchestratord.engine.gate import Gate
from orchestratord.task import Key, Task

AHEAD_MS = 20.0
"""What ends within this time is claimed ahead; a claim takes about a tenth of it."""
FAR_AHEAD_MS = 60.0
"""The same where claims are dear, and made for more at a time."""


@dataclass(slots=True)
class Lane:
    """One lane: how many may be in flight, how many are, and the due keys in their turn."""

    name: str
    concurrency: int
    in_flight: int = 0
    claimed: int = 0
    """In flight, waiting in `held`, or on their way from the store."""
    held: deque[tuple[Task, int]] = field(default_factory=deque)
    """Claimed tasks that wait for a slot, and since when."""
    line: OrderedDict[Key, None] = field(default_factory=OrderedDict)
    """Not a deque: a key may leave from the middle of a long line."""
    pace: float = 0.0
    """How many ended within about the last `ahead` milliseconds, at the time `paced_at`."""
    paced_at: int = 0
    ahead: float = AHEAD_MS
    gate: Gate | None = None
    """What else it may have to wait for; None for nothing."""
    aside: bool = False
    """Its gate had no room: it is not looked at until that may have changed."""
    opens_at: int | None = None
    """When it is looked at again, where time alone changes that."""
    openings: int = 0
    """How often its breaker has opened."""

    @property
    def free(self) -> int:
        """How many more may be claimed now."""
        if self.gate is not None and self.gate.window is not None:
            # What its rate is reserved for would keep others from beginning.
            return max(self.concurrency - self.claimed, 0)
        # One that ended does not make a quick lane.
        return max(self.concurrency + max(int(self.pace) - 1, 0) - self.claimed, 0)

    def fade(self, now: int) -> None:
        """Let the pace go down with the time since it was last counted."""
        passed = now - self.paced_at
        self.paced_at = now
        if passed > 0 and self.pace:
            self.pace *= math.exp(-passed / self.ahead)


class Choice(NamedTuple):
    """Claim up to `limit` tasks of `key`; that many slots of `lane` are taken for them.

    `probe`: the lane is shut, and this one finds out whether it still has to be.
    """

    key: Key
    limit: int
    lane: str
    probe: bool = False
