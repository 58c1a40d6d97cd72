"""Slots, shared by the time for which they are held: one rule for the lanes of the daemon, the keys
of a lane and the partitions of a key.

A slot cannot be taken back from an attempt in flight. So what may be lent depends on how soon it
comes back:

- A member whose attempts hold their slots for half a second or less in the mean is quick. It may
  have every free slot.
- Another one is slow, and so is one of which attempts in flight have lasted for longer than that.
  It has its share: the slots divided by the members that were active within the last minute, one at
  least. Beyond it, it has more only while more than half of all slots are free.
- All slow members together leave a quarter of the slots to the quick ones and to new ones. Where no
  quick one was active within the last minute they leave a tenth: a slow member that is alone has 9
  of 10 slots, and all of up to 4.
- A new member, of which no attempt has ended yet, has one slot until that is so, or the attempt has
  lasted for half a second. New and slow ones together leave a tenth to the quick ones that were
  active within the last minute, 2 of 10 to 20.
- Of a partition that is not known to be quick, one task is claimed at a time.
- The only endpoint of an API has all slots of its lane: there is nothing to keep them for. In the
  daemon's, its lane is a member like any other; a new lane has one slot, and more while new and
  slow ones have less than a quarter.
- A single slot cannot be divided but by time: after a slow member has had it, it is left to the
  others for as long.

In the first minute it is not known who is quick: slow ones leave the quarter, and new ones a tenth;
of fewer than 4 slots, nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum
from itertools import islice
from typing import Any, Generic, TypeVar, Union

SLOW_MS = 500
"""What holds its slots for longer than this is slow."""
LONGEST_MS = 2_000
"""As how long one attempt counts at most, so that a member that was slow is soon quick again."""
WEIGHT = 8
"""One attempt that ends is this part of the mean."""
STUCK = 3
"""So many attempts in flight, of those that last, make a quick member a slow one: a single one that
is late does not."""
LATELY_MS = 60_000
"""For how long a member is active after the end of an attempt."""
COUNTED_MS = 200
"""How old a count of the active members may be."""
KEPT_FOR_QUICK = 4
"""One of so many slots is kept from the slow ones …"""
KEPT_FROM_NEW = 5
"""… one of so many, and not more than 2 or a tenth, from slow and new ones together …"""
KEPT_FOR_NEW = 10
"""… and one of so many from the slow ones where no quick one was active lately."""
MORE_FOR_NEW = 4
"""Of one of so many slots, a new lane may have more than one."""
MOST_QUICK = 256
"""Partitions of a key of which it is remembered that they were quick, though none of them runs."""
TOO_FEW = 4
"""With fewer slots than this, none is kept for what was not active yet."""

UNKNOWN = math.inf
"""The mean of what has not ended yet."""
ANY = 1 << 30
"""As many as there are slots."""


class Speed(Enum):
    """How soon a slot comes back from a member."""

    NEW = "new"
    QUICK = "quick"
    SLOW = "slow"


class SlotHolder:
    """A member that runs attempts itself: a key, or a partition of one. Times are milliseconds
    since the epoch."""

    __slots__ = ("active_at", "began", "claimed", "mean", "parts", "quick_parts", "rests_until")

    def __init__(self) -> None:
        self.claimed = 0
        """What it takes of the slots: in flight, prefetched, or on the way from the store."""
        self.began: dict[int, int] = {}
        """Its attempts in flight by their tasks, the oldest first, and since when each is."""
        self.rests_until = 0
        """Until when it leaves a single slot to others."""
        self.parts: FairSlots[SlotHolder] | None = None
        """Its partitions, among which its slots are shared; None where it has none."""
        self.quick_parts: dict[str, int] = {}
        """Its partitions of which attempts were quick, those of late at the end, and when the last
        one ended."""
        self.mean = UNKNOWN
        """For how long it held a slot, lately."""
        self.active_at = 0
        """When one ended last, or it wanted a slot that it could not have at once."""

    def end(self, task_id: int, now: int) -> bool:
        """An attempt has ended. Whether its slots come back soon, in the mean."""
        held, mean = now - self.began.pop(task_id, now), self.mean
        if held < 0 or held > SLOW_MS or mean > SLOW_MS:
            return self.note(held, now)
        self.mean, self.active_at = mean + (held - mean) / WEIGHT, now  # as there, for nearly all
        return True

    def note(self, held: int, now: int) -> bool:
        """A slot was held for so long. Whether they come back soon, in the mean."""
        if held > SLOW_MS:
            self.rests_until = now + held
            held = min(held, LONGEST_MS)
        elif held < 0:  # the clock was put back
            held = 0
        mean = self.mean
        self.mean = mean = held if mean == UNKNOWN else mean + (held - mean) / WEIGHT
        self.active_at = now
        return mean <= SLOW_MS

    def speed(self, now: int, slots: int) -> Speed:
        """How soon its slots come back, of so many that there are for all."""
        mean, began = self.mean, self.began
        known = mean != UNKNOWN
        if known and mean > SLOW_MS:
            return Speed.SLOW
        stuck = 1
        if known and slots >= 4:
            stuck = STUCK if slots >= 2 * STUCK else slots // 2
        if len(began) >= stuck:
            since = next(islice(began.values(), stuck - 1, None))
            if now - since > SLOW_MS:
                return Speed.SLOW
        return Speed.QUICK if known else Speed.NEW

    def tally(self, now: int, slots: int) -> tuple[int, int]:
        """How many slots of slow members it has, and of new ones."""
        speed = self.speed(now, slots)
        if speed is Speed.QUICK:
            return (0, 0) if self.parts is None else self.parts.tally(now, slots)
        return (self.claimed, 0) if speed is Speed.SLOW else (0, self.claimed)

    def part(self, name: str, slots: int) -> SlotHolder:
        """One of its partitions, of which all may have so many slots together."""
        if self.parts is None:
            self.parts = FairSlots(slots)
        self.parts.concurrency = slots
        found = self.parts.members.get(name)
        if found is None:
            found = self.parts.members[name] = SlotHolder()
        return found

    def begin_of(self, name: str, task_id: int, slots: int, now: int) -> None:
        """An attempt of a partition has a slot."""
        part = self.part(name, slots)
        assert self.parts is not None
        self.parts.holding[part] = None
        self.parts.claimed += 1
        part.claimed += 1
        part.began[task_id] = now

    def end_of(self, name: str, task_id: int, slots: int, now: int) -> bool:
        """An attempt of a partition has ended. Whether slots come back soon from the key: a slow
        partition says nothing of the others."""
        part = self.part(name, slots)
        parts = self.parts
        assert parts is not None
        held = now - part.began.get(task_id, now)
        if part.claimed:
            part.claimed -= 1
            parts.claimed -= 1
        quick = part.end(task_id, now)
        self.quick_parts.pop(name, None)
        if quick:
            parts.quick_at = self.quick_parts[name] = now
            if len(self.quick_parts) > MOST_QUICK:
                del self.quick_parts[next(iter(self.quick_parts))]
        if quick or self.mean == UNKNOWN:
            self.note(held, now)
        if not part.claimed:
            parts.holding.pop(part, None)
            if quick:
                del parts.members[name]
        return self.mean <= SLOW_MS

    def passed_over(self, most: int, now: int) -> tuple[frozenset[str], frozenset[str], int]:
        """The partitions that have their share; those of which more than one at a time may be
        claimed; and how many of all but the first may be, `most` at most."""
        parts = self.parts
        if parts is None:
            return frozenset(), frozenset(), most
        full, others = [], set()
        for name, part in list(parts.members.items()):
            if not part.claimed and not 0 <= now - part.active_at < LATELY_MS:
                del parts.members[name]
                continue
            speed = part.speed(now, parts.concurrency)
            if speed is Speed.QUICK or (speed is Speed.NEW and self._was_quick(name, now)):
                continue
            others.add(name)
            active_at = part.active_at
            room = parts.room(part, speed, now, first=not part.claimed)
            part.active_at = active_at  # that it wants more is not known
            if speed is Speed.NEW:
                room = min(room, 1 - part.claimed)
            if room <= 0:
                full.append(name)
            else:
                most = min(most, room)
        quick = self.quick_parts if most > 1 else ()
        known = (name for name in quick if name not in others and self._was_quick(name, now))
        return frozenset(full), frozenset(known), most

    def _was_quick(self, part: str, now: int) -> bool:
        """Whether an attempt of one of its partitions was quick lately."""
        return 0 <= now - self.quick_parts.get(part, now + 1) < LATELY_MS

    def shift(self, by: int, now: int) -> None:
        """The clock was moved by so many milliseconds, to `now`: all is as long ago as before."""
        if self.parts is not None:
            self.parts.shift(by, now)
        self.active_at += by
        self.rests_until += by
        self.quick_parts = {name: at + by for name, at in self.quick_parts.items()}
        self.began = {task_id: began + by for task_id, began in self.began.items()}


M = TypeVar("M", bound=Union[SlotHolder, "FairSlots[Any]"])


@dataclass(slots=True, eq=False, repr=False)
class FairSlots(Generic[M]):
    """Slots that members share; it may be a member itself of those above it."""

    concurrency: int
    """How many there are."""
    claimed: int = field(default=0, init=False)
    """What is taken of them: in flight, prefetched, or on the way from the store."""
    members: dict[Any, M] = field(default_factory=dict, init=False)
    holding: dict[M, None] = field(default_factory=dict, init=False)
    """Those of which something is claimed."""
    active_at: int = field(default=0, init=False)
    """When an attempt ended last, or it wanted a slot that it could not have at once."""
    rests_until: int = field(default=0, init=False)
    """Until when it leaves a single slot to others."""
    quick_at: int | None = field(default=None, init=False)
    """When an attempt of a quick member ended last."""
    first_at: int | None = field(default=None, init=False)
    """When there was first a member that is not quick."""
    _active: int = field(default=1, init=False)
    _counted_at: int = field(default=0, init=False)

    def room(self, member: M, speed: Speed, now: int, *, first: bool) -> int:
        """How many slots more a member may claim for what has this speed, `first` where that has
        none yet; none for 0 and less.

        Whether there are as many is asked beside it.
        """
        if speed is Speed.QUICK:
            return ANY
        member.active_at = now
        slots, share = self.concurrency, self.share(now)
        if slots == 1 and self._active > 1 and now < member.rests_until:
            return 0
        slow, new = self.tally(now, slots)
        kept, kept_from_new, lent_above = self._kept(now)
        if speed is Speed.NEW:
            more = slots // MORE_FOR_NEW - slow - new
            return min(slots - kept_from_new - slow - new, max(more, 1) if first else more)
        room = min(slots - kept - slow, slots - kept_from_new - slow - new)
        lent = slots - lent_above - self.claimed
        if room <= 0 or room <= lent:
            return room
        own = share - member.tally(now, slots)[0]
        return min(room, max(own, lent))

    def share(self, now: int) -> int:
        """How many slots each of the members has that were active lately."""
        if not 0 <= now - self._counted_at < COUNTED_MS:
            self._counted_at = now
            active = sum(
                member.claimed > 0 or now - member.active_at < LATELY_MS
                for member in self.members.values()
            )
            self._active = max(active, 1)
        return max(self.concurrency // self._active, 1)

    def tally(self, now: int, slots: int) -> tuple[int, int]:
        """How many slots slow members have, and new ones: of its own, not of `slots`."""
        slow = new = 0
        for member in self.holding:
            of_slow, of_new = member.tally(now, self.concurrency)
            slow += of_slow
            new += of_new
        return slow, new

    def shift(self, by: int, now: int) -> None:
        """The clock was moved by so many milliseconds, to `now`: all is as long ago as before."""
        self.active_at += by
        self.rests_until += by
        self._counted_at = 0
        if self.quick_at is not None:
            self.quick_at += by
        if self.first_at is not None:
            self.first_at += by
        for member in self.members.values():
            member.shift(by, now)

    def _kept(self, now: int) -> tuple[int, int, int]:
        """How many slots are kept from slow members, from slow and new ones together, and how many
        are free where a slow one has more than its share."""
        slots = self.concurrency
        quarter = min(-(-slots // KEPT_FOR_QUICK), slots - 1)
        if self.quick_at is not None and now - self.quick_at < LATELY_MS:
            return quarter, max(slots // KEPT_FOR_NEW, min(slots // KEPT_FROM_NEW, 2)), slots // 2
        if self.first_at is None:
            self.first_at = now
        tenth = (slots + KEPT_FOR_NEW // 2) // KEPT_FOR_NEW
        if now - self.first_at < LATELY_MS and slots >= TOO_FEW:
            return quarter, slots // KEPT_FOR_NEW, slots // 2
        return tenth, 0, tenth
