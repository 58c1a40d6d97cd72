"""The gates of all lanes: which of them are set aside, and when they are looked at again."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence

from orchestratord.engine.gate import Gate
from orchestratord.engine.lane import Choice, Lane
from orchestratord.rate import RateLimit


class Gates:
    """Of one daemon's lanes. Times are milliseconds since the epoch."""

    def __init__(self, lanes: Mapping[str, Lane], ready: Callable[[Lane], None]) -> None:
        """`ready`: puts a lane among those that are looked at, if it has something to claim."""
        self._lanes = lanes
        self._ready = ready
        self.aside: list[tuple[int, str]] = []
        """A heap: when lanes are looked at again, some of it out of date."""
        self.now = 0
        """When one of them was last looked at."""
        self._past: dict[str, Sequence[int]] | None = {}
        self._told: dict[str, tuple[int, str]] = {}
        """Of lanes that there are not yet: until when their receiver has asked another daemon for
        patience, and why."""
        self.shared = False
        """Whether rates count for other daemons as well, who learn of a task as it is claimed."""

    # -- for the choice ------------------------------------------------------------------------

    def advance(self, now: int) -> None:
        """Have those looked at whose time has come."""
        self.now = now
        while self.aside and self.aside[0][0] <= now:
            when, name = heapq.heappop(self.aside)
            lane = self._lanes[name]
            if lane.opens_at == when:
                lane.opens_at, lane.aside = None, False
                self._ready(lane)

    def next_look(self) -> int | None:
        """When the next one is looked at again; None where time alone changes nothing."""
        while self.aside and self._lanes[self.aside[0][1]].opens_at != self.aside[0][0]:
            heapq.heappop(self.aside)
        return self.aside[0][0] if self.aside else None

    def set_aside(self, lane: Lane, gate: Gate, now: int) -> None:
        """There is no room: nobody looks at the lane until that may have changed."""
        lane.aside = True
        when = gate.opens_at(now)
        if when is not None and when != lane.opens_at:
            lane.opens_at = when
            heapq.heappush(self.aside, (when, lane.name))

    def pass_newborn(self, gate: Gate, now: int) -> bool:
        """Let one pass that is new, and was not due before."""
        # What was charged before the daemon started is not known at first.
        unknown = (self._past is None or self.shared) and gate.window is not None
        if unknown or gate.shut(now) or gate.room(now) <= 0:
            return False
        gate.take(1, now)
        return True

    def unused(self, lane: Lane, choice: Choice, got: int) -> None:
        """Only `got` tasks of a choice were claimed."""
        gate = lane.gate
        if gate is not None:
            gate.give_back(choice.limit - got)
            if choice.probe and not got:
                gate.probe_over()
            self.changed(lane, self.now)

    # -- for the tasks -------------------------------------------------------------------------

    def probe(self, lane: str, task_id: int) -> None:
        """The task that was claimed as the probe of a lane."""
        gate = self._lanes[lane].gate
        if gate is not None and gate.probing:
            gate.probe = task_id

    def withdrawn(self, lane: str, task_id: int, now: int) -> None:
        """A claimed task goes back before it has begun."""
        found = self._lanes[lane]
        if found.gate is not None:
            found.gate.give_back(1)
            self._done(found, found.gate, task_id, now)

    def began(self, lane: str, now: int) -> None:
        """A claimed task begins."""
        found = self._lanes[lane]
        if found.gate is not None and found.gate.window is not None:
            found.gate.window.begin(now)
            self.changed(found, now)

    def unsent(self, lane: str, task_id: int, since: int, now: int) -> None:
        """A task that began at `since` has ended, and nothing was sent."""
        found = self._lanes[lane]
        if found.gate is not None:
            if found.gate.window is not None:
                found.gate.window.give_back(1, since, now)
            self._done(found, found.gate, task_id, now)

    def _done(self, lane: Lane, gate: Gate, task_id: int, now: int) -> None:
        if gate.probe == task_id:
            gate.probe_over()
        self.changed(lane, now)

    # -- what changes them ---------------------------------------------------------------------

    def of(self, lane: Lane, now: int) -> Gate:
        """The gate of a lane, which it has from now on. `changed` has to follow."""
        if lane.gate is None:
            lane.gate = Gate(now)
        return lane.gate

    def changed(self, lane: Lane, now: int) -> None:
        """Something happened at the gate of a lane: look at it again."""
        if lane.gate is not None and lane.gate.idle(now):
            lane.gate = None
        lane.aside = False
        self._ready(lane)

    def limit(self, lane: Lane, rate: RateLimit | None) -> None:
        """A lane has this rate limit from now on, or none."""
        window = lane.gate.window if lane.gate is not None else None
        if rate != (window.limit if window is not None else None):
            self.of(lane, self.now).limit(rate)
            self._charge_past(lane)
            self.changed(lane, self.now)

    def used_up(self, lane: str, until: int, now: int) -> None:
        """Other daemons have taken what the rate of a lane has left until then."""
        found = self._lanes[lane]
        if found.gate is not None and found.gate.window is not None:
            found.gate.window.used_up(until)
            self.changed(found, now)

    def told(self, lane: str, until: int, why: str, now: int) -> None:
        """Another daemon was asked for patience by the receiver of a lane that is not here yet."""
        self._told = {name: told for name, told in self._told.items() if told[0] > now}
        self._told[lane] = until, why

    def met(self, lane: Lane) -> None:
        """A lane is new here."""
        told = self._told.pop(lane.name, None)
        if told is not None:
            self.of(lane, self.now).hold(*told, here=False)
            self.changed(lane, self.now)

    def forget_past(self) -> None:
        """What was charged before the daemon started is learnt later."""
        self._past = None

    def learn_past(self, charges: Mapping[str, Sequence[int]]) -> None:
        """Of lanes with a rate limit: when they were charged, in ascending order."""
        self._past = dict(charges)
        for lane in self._lanes.values():
            self._charge_past(lane)

    def _charge_past(self, lane: Lane) -> None:
        if self._past and lane.gate is not None and lane.gate.window is not None:
            for at in self._past.pop(lane.name, ()):
                lane.gate.window.charge(1, at)
