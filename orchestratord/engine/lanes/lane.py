"""One lane, what shares a fate: an API, or one receiver's host and port."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from dataclasses import dataclass, field

from orchestratord.engine.lanes.fair_slots import FairSlots, SlotHolder
from orchestratord.engine.lanes.throttle import Throttle
from orchestratord.model.task import Key, Task

PREFETCH_MS = 20.0
"""As many as end within this time are prefetched; a claim takes about a tenth of it."""
FAR_PREFETCH_MS = 60.0
"""That time where claims are dear, and made for more at a time."""
PACED_MS = 2
"""What ends within this time counts as of one moment."""


@dataclass(slots=True, eq=False, repr=False)
class Lane(FairSlots[SlotHolder]):
    """One lane: how many may be in flight in this worker, how many are, and the due keys in their
    turn."""

    name: str = ""
    declared: int = 0
    """How many may be in flight in all workers of the run."""
    counts_all: bool = False
    """All daemons count together what runs of it: nothing is prefetched."""
    full_until: int = 0
    """Until when as many run in all daemons as may, unless one here ends before."""
    alone: bool = False
    """It has one key, which may have all of its slots."""
    in_flight: int = 0
    prefetched: deque[tuple[Task, int]] = field(default_factory=deque)
    """Claimed tasks that wait for a slot, and since when."""
    line: OrderedDict[Key, None] = field(default_factory=OrderedDict)
    """Not a deque: a key may leave from the middle of a long line."""
    at_share: OrderedDict[Key, None] = field(default_factory=OrderedDict)
    """Due keys that have their share of the slots."""
    held: dict[Key, int | None] = field(default_factory=dict)
    """Due keys of which a throttle of their own has no room, and when it may have."""
    pace: float = 0.0
    """How many ended within about the last `horizon` milliseconds, at the time `paced_at`."""
    paced_at: int = 0
    horizon: float = PREFETCH_MS
    throttle: Throttle | None = None
    """What else it may have to wait for; None for nothing."""
    throttled: bool = False
    """Its throttle had no room: it is not looked at until that may have changed."""
    opens_at: int | None = None
    """When it is looked at again, where time alone changes that."""
    openings: int = 0
    """How often its breaker has opened."""

    @property
    def free(self) -> int:
        """How many more may be claimed now."""
        free = self.concurrency - self.claimed
        # What its rate is reserved for would keep others from beginning.
        exact = self.counts_all or (self.throttle is not None and self.throttle.exact)
        if self.pace >= 2 and not exact:  # one that ended does not make a quick lane
            free += int(self.pace) - 1
        return free if free > 0 else 0

    def holder(self, key: Key) -> SlotHolder:
        """What a key holds of the slots."""
        found = self.members.get(key)
        if found is None:
            found = self.members[key] = SlotHolder()
        return found

    def fade(self, now: int) -> None:
        """Let the pace go down with the time since it was last counted."""
        passed = now - self.paced_at
        self.paced_at = now
        if passed > 0 and self.pace:
            self.pace *= math.exp(-passed / self.horizon)

    def shift(self, by: int, now: int) -> None:
        """As in the base: it waits for as long as before."""
        FairSlots.shift(self, by, now)
        self.paced_at += by
        self.full_until = 0
        if self.throttle is not None:
            self.throttle.shift(by)
            self.opens_at = None
