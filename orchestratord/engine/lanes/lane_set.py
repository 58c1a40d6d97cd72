"""The order of due work, in memory: which keys may be claimed now, and how many of each.

A lane is what shares a fate: an API, or one receiver's host and port. Its cap counts what is in
flight, so that a receiver that hangs holds its own lane and no other. Keys of a lane take turns,
and so do lanes; tasks of one key go by `next_try`.

Of a lane whose tasks end quickly more are claimed than its cap, as many as ended within the last
moments: these are prefetched, and wait in memory for a slot, instead of each slot for a claim to
reach the disk. A lane whose receiver is slow or hangs has none, and the daemon's own cap counts
what is prefetched as well.

A lane may have a throttle, which says how many of it may be claimed now: for a rate limit, and
while its receiver is down. One that has no room is throttled, and no other lane waits for it.

A key is in exactly one place: in the heap until it is due, then in its lane's line; a key that is
parked, or has nothing pending, is in neither.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from orchestratord.engine.lanes.throttle import Throttle
from orchestratord.model.task import Key, Task
from orchestratord.values.rate_limit import RateLimit

PREFETCH_MS = 20.0
"""As many as end within this time are prefetched; a claim takes about a tenth of it."""
FAR_PREFETCH_MS = 60.0
"""The same where claims are dear, and made for more at a time."""


@dataclass(slots=True)
class Lane:
    """One lane: how many may be in flight, how many are, and the due keys in their turn."""

    name: str
    concurrency: int
    in_flight: int = 0
    claimed: int = 0
    """In flight, prefetched, or on their way from the store."""
    prefetched: deque[tuple[Task, int]] = field(default_factory=deque)
    """Claimed tasks that wait for a slot, and since when."""
    line: OrderedDict[Key, None] = field(default_factory=OrderedDict)
    """Not a deque: a key may leave from the middle of a long line."""
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
        if self.throttle is not None and self.throttle.window is not None:
            # What its rate is reserved for would keep others from beginning.
            return max(self.concurrency - self.claimed, 0)
        # One that ended does not make a quick lane.
        return max(self.concurrency + max(int(self.pace) - 1, 0) - self.claimed, 0)

    def fade(self, now: int) -> None:
        """Let the pace go down with the time since it was last counted."""
        passed = now - self.paced_at
        self.paced_at = now
        if passed > 0 and self.pace:
            self.pace *= math.exp(-passed / self.horizon)


class Choice(NamedTuple):
    """Claim up to `limit` tasks of `key`; that many slots of `lane` are taken for them.

    `probe`: only probes may pass, and this one finds out whether that still has to be so.
    """

    key: Key
    limit: int
    lane: str
    probe: bool = False


# -- The order of due work, in memory --------------------------------------------------------------


@dataclass(slots=True)
class _Entry:
    lane: str
    earliest: int | None = None
    """The earliest pending next_try; None where nothing is pending."""
    waiting: bool = False
    """In its lane's line."""
    claiming: bool = False
    """Chosen, and the claim's answer not yet there."""


AT_ONCE = 200
"""How many tasks are chosen at a time at most: thousands that start in one turn of the loop would
keep everything else waiting for seconds."""
MANY_AT_ONCE = 400
"""The same where claims are dear. Half of it is for lanes that are claimed ahead."""


_NOTHING = 1 << 62


class LaneSet:
    """All lanes of one daemon, and the one place that counts. Times are milliseconds since the
    epoch."""

    def __init__(self, concurrency: int = 100, *, shared: bool = False) -> None:
        """
        Args:
            concurrency: how many may be in flight in all lanes together.
            shared: whether other daemons work on the queue: rates count for them as well, who learn
                of a task as it is claimed, and a claim is dear, so that it is rather made for many,
                and further ahead.
        """
        self.concurrency = concurrency
        self.shared = shared
        self.in_flight = 0
        self.claimed = 0
        """In flight, prefetched, or on their way from the store, in all lanes together."""
        self.unsettled = 0
        """Attempts that have ended and are not written yet."""
        self.draining = False
        """The daemon stops: nothing new is begun."""
        self.wake = asyncio.Event()
        """Set where there may be something to choose: a slot is free, or something has changed."""
        self.lanes: dict[str, Lane] = {}
        self._entries: dict[Key, _Entry] = {}
        self._parked: dict[Key, int] = {}
        self._heap: list[tuple[int, Key]] = []
        self._ready: deque[str] = deque()
        self._ready_names: set[str] = set()
        self._throttled: list[tuple[int, str]] = []
        """A heap: when throttled lanes are looked at again, some of it out of date."""
        self._looked = 0
        """When one of the throttles was last looked at."""
        self._past: dict[str, Sequence[int]] | None = {}
        """Of lanes with a rate limit: when they were charged before the daemon started; None while
        that is not known."""
        self._told: dict[str, tuple[int, str]] = {}
        """Of lanes that there are not yet: until when their receiver told another daemon to wait,
        and why."""

    # -- what is known of the keys -----------------------------------------------------------

    def all_keys(self) -> list[Key]:
        """Every key that was placed or parked."""
        return [*self._entries, *self._parked]

    def known(self, key: Key) -> bool:
        """True where `key` was placed or parked."""
        return key in self._entries or key in self._parked

    def place(self, key: Key, lane: str, concurrency: int, rate: RateLimit | None = None) -> None:
        """Put `key` into `lane`, which may have `concurrency` in flight, and `rate` begin."""
        self._lane(lane, concurrency, rate)
        entry = self._entries.get(key)
        if entry is None:
            self._entries[key] = _Entry(lane)
            parked = self._parked.pop(key, _NOTHING)
            if parked != _NOTHING:
                self.touch(key, parked)
        elif entry.lane != lane:
            self._leave(key, entry)
            entry.lane = lane
            if entry.earliest is not None and not entry.claiming:
                self._push(entry.earliest, key)

    def park(self, key: Key) -> None:
        """Take `key` out of the running; what becomes due meanwhile is remembered."""
        entry = self._entries.pop(key, None)
        earliest = _NOTHING
        if entry is not None:
            self._leave(key, entry)
            if entry.earliest is not None:
                earliest = entry.earliest
        self._parked[key] = min(self._parked.get(key, _NOTHING), earliest)

    def touch(self, key: Key, next_try: int) -> None:
        """A task of `key`, which was placed or parked, is pending and due at `next_try`."""
        entry = self._entries.get(key)
        if entry is None:
            self._parked[key] = min(self._parked.get(key, _NOTHING), next_try)
        elif entry.earliest is None or next_try < entry.earliest:
            entry.earliest = next_try
            if not (entry.waiting or entry.claiming):
                self._push(next_try, key)

    # -- choosing ----------------------------------------------------------------------------

    def choose(self, now: int) -> list[Choice]:
        """What to claim now.

        The slots of what is chosen are taken until `answered` releases what was not needed.
        """
        self._advance(now)
        most = MANY_AT_ONCE if self.shared else AT_ONCE
        # Claims wait while settlements pile up: the store is what is slow then.
        free = min(self.concurrency - max(self.claimed, self.unsettled), most)
        chosen: list[Choice] = []
        waiting: list[Lane] = []
        for _ in range(len(self._ready)):
            if free <= 0:
                break
            name = self._ready.popleft()
            self._ready_names.discard(name)
            lane = self.lanes[name]
            lane.fade(now)
            # Ahead of a lane's own cap only with half of what the daemon has left: other lanes may
            # need it at once.
            slots = min(lane.free, free, max(lane.concurrency - lane.claimed, free // 2))
            throttle = lane.throttle
            if throttle is not None:
                self._looked = now
                room = throttle.room(now)
                if room <= 0:
                    self._put_off(lane, throttle, now)
                    continue
                slots = min(slots, room)
            if self.shared and slots < len(lane.prefetched):
                waiting.append(lane)
                continue
            while lane.line and slots > 0:
                share = max(slots // len(lane.line), 1)
                key, _ = lane.line.popitem(last=False)
                entry = self._entries[key]
                entry.waiting, entry.claiming, entry.earliest = False, True, None
                probe = throttle is not None and throttle.take(share, now)
                chosen.append(Choice(key, share, name, probe))
                lane.claimed += share
                self.claimed += share
                slots -= share
                free -= share
            self._make_ready(lane)
        for lane in waiting:  # it has enough at hand for now; each one that ends asks again
            self._make_ready(lane)
        return chosen

    def answered(self, choice: Choice, got: int, earliest: int | None) -> None:
        """`got` tasks were claimed; the key's next pending one is due at `earliest`."""
        lane = self.lanes[choice.lane]
        lane.claimed -= choice.limit - got
        self.claimed -= choice.limit - got
        if lane.throttle is not None and got < choice.limit:
            lane.throttle.return_token(choice.limit - got)
            if choice.probe and not got:
                lane.throttle.probe_over()
            self.throttle_changed(lane, self._looked)
        self._make_ready(lane)
        entry = self._entries.get(choice.key)
        if entry is None:
            if earliest is not None:
                self.touch(choice.key, earliest)
            return
        entry.claiming = False
        # What was touched while the claim was under way may be in it or not: look once more.
        known = [time for time in (entry.earliest, earliest) if time is not None]
        entry.earliest = min(known, default=None)
        if entry.earliest is not None:
            self._push(entry.earliest, choice.key)

    def occupy(self, lane: str, now: int) -> bool:
        """Take a slot for a task born running. False where its lane is full or has a line.

        A slot for each lane that waits for its turn is left: whoever is born would be ahead of it
        again and again.
        """
        self._advance(now)
        found = self.lanes.get(lane)
        if found is None or found.line or self.concurrency - self.claimed <= len(self._ready):
            return False
        found.fade(now)
        if found.free <= 0:
            return False
        if found.throttle is not None and not self._passes(found.throttle, now):
            return False
        found.claimed += 1
        self.claimed += 1
        return True

    # -- the slots -----------------------------------------------------------------------------

    def begin(self, lane: str, task: Task, now: int) -> Task | None:
        """Prefetch a claimed task until its lane has a slot. Returns the one that has it now.

        It is the same one, unless a cap that was raised left an older one behind.
        """
        found = self.lanes[lane]
        if found.prefetched or self._full(found):
            found.prefetched.append((task, now))
            if self._full(found):
                return None
            task, _ = found.prefetched.popleft()
        found.in_flight += 1
        self.in_flight += 1
        return task

    def release_slot(self, lane: str, now: int) -> Task | None:
        """A task of `lane` is no longer in flight. Returns the prefetched one that now has its
        slot."""
        found = self.lanes[lane]
        found.in_flight -= 1
        self.in_flight -= 1
        found.fade(now)
        found.pace += 1
        self.suspend(lane)
        if not found.prefetched or self._full(found):
            return None
        task, _ = found.prefetched.popleft()
        found.in_flight += 1
        self.in_flight += 1
        return task

    def release_claim(self, lane: str, now: int, task_id: int = 0) -> None:
        """A claimed task goes back before it has begun; `task_id` is 0 for one that was not even
        written."""
        self.suspend(lane)
        found = self.lanes[lane]
        if found.throttle is not None:
            found.throttle.return_token(1)
            self._end_probe(found, found.throttle, task_id, now)

    def return_token(self, lane: str, now: int, task_id: int, since: int) -> None:
        """A task that began at `since` has ended, and nothing was sent."""
        found = self.lanes[lane]
        if found.throttle is not None:
            if found.throttle.window is not None:
                found.throttle.window.return_token(1, since, now)
            self._end_probe(found, found.throttle, task_id, now)

    def suspend(self, lane: str) -> None:
        """A claimed task of `lane` takes none of what may be claimed: it is done with, or waits
        for something else until `resume`."""
        found = self.lanes[lane]
        found.claimed -= 1
        self.claimed -= 1
        self._make_ready(found)

    def resume(self, lane: str) -> None:
        """A claimed task of `lane` that was suspended wants a slot again."""
        self.lanes[lane].claimed += 1
        self.claimed += 1

    def take_prefetched(self, now: int, longer_than: int) -> list[Task]:
        """Take out what is prefetched in the lanes where one has waited for so many milliseconds.

        The younger ones go with it, so as not to run before it. A clock that was put back says
        nothing about how long one has waited: it was long enough.
        """
        taken: list[Task] = []
        for lane in self.lanes.values():
            if lane.prefetched and not 0 <= now - lane.prefetched[0][1] < longer_than:
                taken += self.take_prefetched_of(lane.name, now)
        return taken

    def take_prefetched_of(self, lane: str, now: int) -> list[Task]:
        """Take out all that is prefetched in one lane."""
        found = self.lanes[lane]
        taken: list[Task] = []
        while found.prefetched:
            task, _ = found.prefetched.popleft()
            taken.append(task)
            self.release_claim(lane, now, task.id)
        return taken

    def prefetched_ids(self) -> list[int]:
        """The tasks that wait for a slot."""
        return [task.id for lane in self.lanes.values() for task, _ in lane.prefetched]

    # -- when to look again --------------------------------------------------------------------

    def next_look(self) -> int | None:
        """When there may be something to choose if nothing happens meanwhile; None for never."""
        throttled = self._throttled
        while throttled and self.lanes[throttled[0][1]].opens_at != throttled[0][0]:
            heapq.heappop(throttled)
        due = self.next_due()
        if not throttled:
            return due
        return throttled[0][0] if due is None else min(due, throttled[0][0])

    def next_due(self) -> int | None:
        """When the next key becomes due; None for none. What waits for a slot does not count."""
        while self._heap:
            when, key = self._heap[0]
            if self._current(when, key) is not None:
                return when
            heapq.heappop(self._heap)
        return None

    # -- throttles -----------------------------------------------------------------------------

    def throttle_of(self, lane: Lane, now: int) -> Throttle:
        """The throttle of a lane, which it has from now on. `throttle_changed` has to follow."""
        if lane.throttle is None:
            lane.throttle = Throttle(now)
        return lane.throttle

    def throttle_changed(self, lane: Lane, now: int) -> None:
        """Something happened at the throttle of a lane: look at it again."""
        if lane.throttle is not None and lane.throttle.idle(now):
            lane.throttle = None
        lane.throttled = False
        self._make_ready(lane)

    def probe_claimed(self, lane: str, task_id: int) -> None:
        """The task that was claimed as the probe of a lane."""
        throttle = self.lanes[lane].throttle
        if throttle is not None and throttle.probing:
            throttle.probe = task_id

    def began(self, lane: str, now: int) -> None:
        """A claimed task begins."""
        found = self.lanes[lane]
        if found.throttle is not None and found.throttle.window is not None:
            found.throttle.window.begin(now)
            self.throttle_changed(found, now)

    def try_now(self, key: Key, now: int) -> None:
        """A task of `key` is wanted now: where only probes may pass, it is the next one."""
        entry = self._entries.get(key)
        if entry is None:
            return
        lane = self.lanes[entry.lane]
        if lane.throttle is not None and lane.throttle.probes_only(now):
            self._advance(now)
            if key in lane.line:
                lane.line.move_to_end(key, last=False)
            lane.throttle.by_hand = True
            self.throttle_changed(lane, now)

    def used_up(self, lane: str, until: int, now: int) -> None:
        """Other daemons have taken what the rate of a lane has left until then."""
        found = self.lanes[lane]
        if found.throttle is not None and found.throttle.window is not None:
            found.throttle.window.used_up(until)
            self.throttle_changed(found, now)

    def told_to_wait(self, lane: str, until: int, why: str, now: int) -> None:
        """The receiver of a lane that is not here yet told another daemon to wait."""
        self._told = {name: told for name, told in self._told.items() if told[0] > now}
        self._told[lane] = until, why

    def forget_past(self) -> None:
        """What was charged before the daemon started is learnt later."""
        self._past = None

    def learn_past(self, charges: Mapping[str, Sequence[int]]) -> None:
        """Of lanes with a rate limit: when they were charged, in ascending order."""
        self._past = dict(charges)
        for lane in self.lanes.values():
            self._charge_past(lane)

    def _charge_past(self, lane: Lane) -> None:
        if self._past and lane.throttle is not None and lane.throttle.window is not None:
            for at in self._past.pop(lane.name, ()):
                lane.throttle.window.charge(1, at)

    def _put_off(self, lane: Lane, throttle: Throttle, now: int) -> None:
        """There is no room: the lane is not looked at until that may have changed."""
        lane.throttled = True
        when = throttle.opens_at(now)
        if when is not None and when != lane.opens_at:
            lane.opens_at = when
            heapq.heappush(self._throttled, (when, lane.name))

    def _passes(self, throttle: Throttle, now: int) -> bool:
        """Let one pass that is new, and was not due before."""
        # What was charged before the daemon started is not known at first.
        unknown = (self._past is None or self.shared) and throttle.window is not None
        if unknown or throttle.probes_only(now) or throttle.room(now) <= 0:
            return False
        throttle.take(1, now)
        return True

    def _end_probe(self, lane: Lane, throttle: Throttle, task_id: int, now: int) -> None:
        """If it was the probe, it has found nothing out; in any case there may be room again."""
        if throttle.probe == task_id:
            throttle.probe_over()
        self.throttle_changed(lane, now)

    # -- within --------------------------------------------------------------------------------

    def _full(self, lane: Lane) -> bool:
        # More is claimed than may be in flight, and the daemon's own cap may have been lowered.
        return lane.in_flight >= lane.concurrency or self.in_flight >= self.concurrency

    def _push(self, when: int, key: Key) -> None:
        heapq.heappush(self._heap, (when, key))
        if len(self._heap) > 2 * len(self._entries) + 64:
            # A key that is claimed again and again while one of its tasks waits for tomorrow would
            # leave an item for tomorrow behind each time.
            self._heap = [
                (entry.earliest, key)
                for key, entry in self._entries.items()
                if entry.earliest is not None and not (entry.waiting or entry.claiming)
            ]
            heapq.heapify(self._heap)

    def _current(self, when: int, key: Key) -> _Entry | None:
        """The entry that this item of the heap speaks of; None where it is out of date."""
        entry = self._entries.get(key)
        if entry is None or entry.waiting or entry.claiming or entry.earliest != when:
            return None
        return entry

    def _advance(self, now: int) -> None:
        throttled = self._throttled
        if throttled:
            self._looked = now
            while throttled and throttled[0][0] <= now:
                when, name = heapq.heappop(throttled)
                lane = self.lanes[name]
                if lane.opens_at == when:
                    lane.opens_at, lane.throttled = None, False
                    self._make_ready(lane)
        heap = self._heap
        while heap and heap[0][0] <= now:
            when, key = heapq.heappop(heap)
            entry = self._current(when, key)
            if entry is not None:
                entry.waiting = True
                lane = self.lanes[entry.lane]
                lane.line[key] = None
                self._make_ready(lane)

    def _leave(self, key: Key, entry: _Entry) -> None:
        if entry.waiting:
            del self.lanes[entry.lane].line[key]
            entry.waiting = False

    def _make_ready(self, lane: Lane) -> None:
        if (
            lane.line
            and not lane.throttled
            and lane.free > 0
            and lane.name not in self._ready_names
        ):
            self._ready_names.add(lane.name)
            self._ready.append(lane.name)

    def _lane(self, name: str, concurrency: int, rate: RateLimit | None) -> None:
        lane = self.lanes.get(name)
        if lane is None:
            lane = self.lanes[name] = Lane(name, concurrency)
            lane.horizon = FAR_PREFETCH_MS if self.shared else PREFETCH_MS
            told = self._told.pop(name, None)
            if told is not None:
                self.throttle_of(lane, self._looked).wait_until(*told, here=False)
                self.throttle_changed(lane, self._looked)
        elif lane.concurrency != concurrency:
            lane.concurrency = concurrency
            self._make_ready(lane)
        if rate is not None or lane.throttle is not None:
            window = lane.throttle.window if lane.throttle is not None else None
            if rate != (window.limit if window is not None else None):
                self.throttle_of(lane, self._looked).limit(rate)
                self._charge_past(lane)
                self.throttle_changed(lane, self._looked)
