"""The order of due work, in memory: which keys may be claimed now, and how many of each.

A lane is what shares a fate: an API, or one receiver's host and port. Its cap counts what is in
flight, so that a receiver that hangs holds its own lane and no other. Keys of a lane take turns,
and so do lanes; tasks of one key go by `next_try`. How many slots each may have is said in
`fair_slots`: a key that has its share is set aside.

Of a lane whose tasks end quickly more are claimed than its cap, as many as ended within the last
moments: these are prefetched, and wait in memory for a slot, instead of each slot for a claim to
reach the disk. A lane whose receiver is slow or hangs has none, and the daemon's own cap counts
what is prefetched as well.

A lane may have a throttle, which says how many of it may be claimed now: for a rate limit, and
while its receiver is down. One that has no room is throttled, and no other lane waits for it. The
same goes for a key and the throttles of its URL and of itself: one that is held leaves the line.

A lane without room is not looked at until that may have changed; a key that is held comes back when
there may be room, and one that is set aside when an attempt has ended.

A key is in exactly one place: in the heap until it is due, then in its lane's line, or held, or
aside; a key that is parked, or has nothing pending, is in none of them.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import OrderedDict, deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, repeat
from typing import Any, NamedTuple

from orchestratord.engine.lanes.fair_slots import (
    ANY,
    SLOW_MS,
    UNKNOWN,
    FairSlots,
    SlotHolder,
    Speed,
)
from orchestratord.engine.lanes.lane import FAR_PREFETCH_MS, PACED_MS, PREFETCH_MS, Lane
from orchestratord.engine.lanes.scopes import Scopes
from orchestratord.engine.lanes.share import Share
from orchestratord.engine.lanes.throttle import Throttle
from orchestratord.model.task import Key, Task
from orchestratord.values.rate_limit import RateLimit


class Choice(NamedTuple):
    """Claim up to `limit` tasks of `key`; that many slots of `lane` are taken for them.

    `probe`: only probes may pass, and this one finds out whether that still has to be so.
    """

    key: Key
    limit: int
    lane: str
    probe: bool = False
    avoid: frozenset[str] = frozenset()
    """Partitions that have their share of the slots."""
    quick: frozenset[str] = frozenset()
    """Partitions of which more than one at a time may be claimed."""


AT_ONCE = 200
"""How many tasks are chosen at a time at most: thousands that start in one turn of the loop would
keep everything else waiting for seconds."""
MANY_AT_ONCE = 400
"""Tasks chosen at a time where claims are dear. Half of it is for lanes that are claimed ahead."""


_NOTHING = 1 << 62
"""When a parked key of which nothing is pending is due: later than any time."""


SHARED_AT_ONCE = 100
"""At how many lanes with keys that were set aside it is looked when a slow attempt ends."""
SHARE_AGAIN_MS = 500
"""How often it is looked at what was set aside: time alone may change how many slots it has."""


LANE, HELD, DUE = range(3)
"""What is looked at when its time has come: a throttled lane, a held key, one that is due."""


@dataclass(slots=True)
class Entry:
    """A key that was placed."""

    lane: str
    earliest: int | None = None
    """The earliest pending next_try; None where nothing is pending."""
    waiting: bool = False
    """In its lane's line, or held, or aside."""
    claiming: bool = False
    """Chosen, and the claim's answer not yet there."""
    passed_over: bool = False
    """The last claim left out partitions that had their share."""

    def chosen(self, avoid: frozenset[str]) -> None:
        """It is to be claimed, but for these partitions."""
        self.waiting, self.claiming, self.earliest = False, True, None
        self.passed_over = bool(avoid)


class LaneSet(FairSlots[Lane]):
    """All lanes of one daemon, and the one place that counts. Times are milliseconds since the
    epoch."""

    def __init__(
        self,
        concurrency: int = 100,
        *,
        several_daemons: bool = False,
        share: Share | None = None,
        now: int = 0,
    ) -> None:
        """
        Args:
            concurrency: how many may be in flight in all lanes together.
            several_daemons: whether others may work on the queue: rates count for them as well, who
                learn of a task as it is claimed, and a claim is dear, so that it is rather made for
                many, and further ahead.
            share: of this worker in what all of its run may have in flight.
            now: the time, from which throttles of before the start go on.
        """
        super().__init__(concurrency)
        self.lanes: dict[str, Lane] = self.members
        self.scopes = Scopes()
        """The throttles of URLs, endpoints and webhooks; a lane has its own."""
        self._entries: dict[Key, Entry] = {}
        self._heap: list[tuple[int, int, Any]] = []
        """When throttled lanes, held keys and keys that are due are looked at, some of it out of
        date."""
        self._ready: OrderedDict[str, None] = OrderedDict()
        """Lanes that may be chosen from, in their turn."""
        self._at_share: OrderedDict[str, None] = OrderedDict()
        """Lanes with keys that are set aside."""
        self._shared_at = 0
        """When it was last looked at them."""
        self._whole = share or Share()
        self.bound(concurrency)
        self._several_daemons = several_daemons
        self.in_flight = 0
        self.unsettled = 0
        """Attempts that have ended and are not written yet."""
        self.locked = 0
        """How much of that waits for rows that others have locked, which no claim waits for."""
        self.draining = False
        """The daemon stops: nothing new is begun."""
        self.halted = False
        """This machine lacks what it takes to send: nothing is chosen for a moment."""
        self.held = False
        """A poison candidate runs alone, or waits for what is under way to do so: nothing else is
        chosen."""
        self.wake = asyncio.Event()
        """Set where there may be something to choose: a slot is free, or something has changed."""
        self._looked = now
        """When one of the throttles was last looked at."""
        self._parked: dict[Key, int] = {}
        self._chosen_at = 0
        self._past: dict[str, Sequence[int]] = {}
        """Of lanes with a rate limit: when they were charged before the daemon started."""

    def bound(self, concurrency: int) -> None:
        """All workers of the run may have `concurrency` in flight in all lanes together."""
        self.declared = concurrency
        """As it is declared, for all workers."""
        self._share = self._whole.bounded(concurrency)
        self.concurrency = self._share.of(concurrency)
        """What is this worker's of it."""

    # -- what is known of the keys -----------------------------------------------------------

    def all_keys(self) -> list[Key]:
        """Every key that was placed or parked."""
        return [*self._entries, *self._parked]

    def known(self, key: Key) -> bool:
        """True where `key` was placed or parked."""
        return key in self._entries or key in self._parked

    def place(
        self, key: Key, lane: str, concurrency: int, rate: RateLimit | None = None, *,
        url: str = "", heeds: bool = True, alone: bool = False,
        counts_all: bool = False,
    ) -> None:  # fmt: skip
        """Put `key` into `lane`, of which all workers may have `concurrency` in flight together,
        and `rate` begin; its tasks go to `url`, and wait where Retry-After says so if it `heeds`
        that. `alone`: no other key is or comes into the lane. `counts_all`: all daemons
        count together what runs of it."""
        self._lane(lane, concurrency, rate)
        self.lanes[lane].alone, self.lanes[lane].counts_all = alone, counts_all
        self.scopes.place(key, lane, url, heeds, self._looked)
        entry = self._entries.get(key)
        if entry is None:
            self._entries[key] = Entry(lane)
            parked = self._parked.pop(key, _NOTHING)
            if parked != _NOTHING:
                self.touch(key, parked)
        elif entry.lane != lane:
            self._leave(key, entry)
            entry.lane = lane
            if entry.earliest is not None and not entry.claiming:
                self._look_at(entry.earliest, DUE, key)

    def park(self, key: Key) -> None:
        """Take `key` out of the running; what becomes due meanwhile is remembered."""
        entry = self._entries.pop(key, None)
        self.scopes.forget(key)
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
                self._look_at(next_try, DUE, key)

    # -- choosing ----------------------------------------------------------------------------

    def choose(self, now: int) -> list[Choice]:
        """What to claim now.

        The slots of what is chosen are taken until `answered` releases what was not needed.
        """
        self._advance(now)
        self._chosen_at = now
        if self.halted or self.held:
            return []
        most = MANY_AT_ONCE if self._several_daemons else AT_ONCE
        # Claims wait while settlements pile up: the store is what is slow then.
        free = min(self.concurrency - max(self.claimed, self.unsettled - self.locked), most)
        chosen: list[Choice] = []
        waiting: list[Lane] = []
        for left in range(len(self._ready), 0, -1):
            if free <= 0:
                break
            name, _ = self._ready.popitem(last=False)
            lane = self.lanes[name]
            lane.fade(now)
            if lane.full_until > now:
                self._wait_until(lane, lane.full_until)
                continue
            # Ahead of its own cap it has an equal part of what is left in all; one part is kept.
            part = max(lane.concurrency - lane.claimed, free // (left + 1), 1)
            slots = min(lane.free, free, part)
            throttle = lane.throttle
            if throttle is not None:
                room = throttle.room(now, self.scopes.all_heed(name))
                if room <= 0:
                    self._wait_until(lane, throttle.opens_at(now, self.scopes.all_heed(name)))
                    continue
                slots = min(slots, room)
            if self._several_daemons and slots < len(lane.prefetched):
                waiting.append(lane)
                continue
            while lane.line and slots > 0:
                share = max(slots // len(lane.line), 1)
                key, _ = lane.line.popitem(last=False)
                holder = lane.members.get(key) or lane.holder(key)
                if holder.began or holder.mean > SLOW_MS:  # another one is quick
                    share = self._fair_share(key, lane, holder, share, now)
                    if share <= 0:
                        continue
                if throttle is not None or key in self.scopes.of:
                    share = self._share_of(key, lane, share, now)
                    if share <= 0:
                        continue
                avoid = quick = frozenset[str]()
                if holder.parts is not None:
                    avoid, quick, share = holder.passed_over(share, now)
                self._entries[key].chosen(avoid)
                probe = (throttle is not None or key in self.scopes.of) and self._take(
                    key, lane, share, now
                )
                chosen.append(Choice(key, share, name, probe, avoid, quick))
                self._count(lane, holder, share)
                slots -= share
                free -= share
            self._make_ready(lane)
        for lane in waiting:  # it has enough at hand for now; each one that ends asks again
            self._make_ready(lane)
        return chosen

    def answered(self, choice: Choice, got: int, earliest: int | None) -> None:
        """`got` tasks were claimed; the key's next pending one is due at `earliest`."""
        lane = self.lanes[choice.lane]
        self._discount(lane, lane.members[choice.key], choice.limit - got)
        if got < choice.limit:
            left = choice.limit - got
            for throttle in self.throttles(lane, choice.key):
                throttle.return_token(left, self._looked)
            probed = () if got else self.scopes.probe_not_claimed(choice.key)
            if lane.throttle is not None:
                self.throttle_changed(lane, self._looked)
            self._look_again((*probed, *self.scopes.of.get(choice.key, ())))
        self._make_ready(lane)
        entry = self._entries.get(choice.key)
        if entry is None:
            if earliest is not None:
                self.touch(choice.key, earliest)
            return
        entry.claiming = False
        # What was touched while the claim was under way may be in it or not: look once more.
        known = [time for time in (entry.earliest, earliest) if time is not None]
        if choice.avoid:  # what was passed over is due as well
            known.append(self._chosen_at + SHARE_AGAIN_MS)
        entry.earliest = min(known, default=None)
        if entry.earliest is not None:
            self._look_at(entry.earliest, DUE, choice.key)

    # -- the slots -----------------------------------------------------------------------------

    def begin(self, lane: str, tasks: Sequence[Task], now: int) -> list[Task]:
        """Prefetch claimed tasks in their order. Returns those that have a slot now, which may be
        older ones where a cap was raised."""
        found = self.lanes[lane]
        waiting = found.prefetched
        waiting.extend(zip(tasks, repeat(now)))
        begun = [waiting.popleft()[0] for _ in range(min(self._free_slots(found), len(waiting)))]
        found.in_flight += len(begun)
        self.in_flight += len(begun)
        self._note_slots(found, begun, now)
        return begun

    def release_slot(self, lane: str, task: Task, now: int) -> Task | None:
        """A task of `lane` is no longer in flight. Returns the prefetched one that now has its
        slot."""
        found = self.lanes[lane]
        if not 0 <= now - found.paced_at < PACED_MS:
            found.fade(now)
        found.pace += 1
        holder = found.members[task.endpoint_id, task.webhook]
        if task.turn is None:
            quick = holder.end(task.id, now)
        else:
            quick = holder.end_of(task.turn.partition, task.id, found.concurrency, now)
            entry = self._entries.get(task.key)
            if entry is not None and entry.passed_over:
                entry.passed_over = False
                self.touch(task.key, now)
        found.active_at = now
        if quick:
            found.quick_at = self.quick_at = now
        else:
            found.rests_until = holder.rests_until
        if found.full_until:
            found.full_until, found.throttled = 0, False
        self._discount(found, holder, 1)
        if found.line and found.name not in self._ready:
            self._make_ready(found)
        if self._at_share:
            self._share_after(found, task.key, quick)
        if found.prefetched and self._free_slots(found) >= 0:  # its slot goes on to the next one
            following = found.prefetched.popleft()[0]
            self._note_slots(found, (following,), now)
            return following
        found.in_flight -= 1
        self.in_flight -= 1
        return None

    def release_claim(self, lane: str, key: Key, now: int, task_id: int) -> None:
        """A claimed task of `key` goes back before it has begun."""
        found = self.lanes[lane]
        self._uncount(found, found.members[key])
        for throttle in self.throttles(found, key):
            throttle.return_token(1, now)
        self.end_probe(lane, task_id, now)

    def return_token(self, lane: str, now: int, task_id: int, since: int) -> None:
        """A task that began at `since` has ended, and nothing was sent."""
        found = self.lanes[lane]
        if found.throttle is not None:
            found.throttle.return_token(1, now, since)
        self.end_probe(lane, task_id, now)

    def _uncount(self, lane: Lane, holder: SlotHolder) -> None:
        """One that was claimed takes none of what may be claimed any more."""
        self._discount(lane, holder, 1)
        self._make_ready(lane)
        self.wake.set()

    def waits_for_turn(self, lane: str, task: Task) -> None:
        """A claimed poison candidate of `lane` waits for the one before it to end: until then it
        takes none of what may be claimed."""
        found = self.lanes[lane]
        self._uncount(found, found.members[task.key])

    def has_turn(self, lane: str, task: Task) -> None:
        """It is the turn of a poison candidate of `lane`, which wants a slot now."""
        found = self.lanes[lane]
        self._count(found, found.holder(task.key), 1)

    def is_due(self, lane: str) -> bool:
        """Whether anything of a lane waits for its turn, or may be among what is being claimed."""
        found = self.lanes[lane]
        return bool(found.line or found.held or found.at_share) or found.claimed > found.in_flight

    @property
    def is_idle(self) -> bool:
        """Whether nothing is claimed or under way, but poison candidates that wait."""
        return not (self.claimed or self.unsettled)

    @property
    def has_work(self) -> bool:
        """Whether there was something to choose when it was looked at last."""
        return bool(self._ready)

    def ended(self) -> None:
        """An attempt has ended, and is written until `settled`."""
        self.unsettled += 1

    def settled(self, count: int = 1) -> None:
        """What has ended is written, or never will be."""
        self.unsettled -= count
        self.wake.set()

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

    def take_prefetched_of(
        self, lane: str, now: int, keys: Collection[Key] | None = None
    ) -> list[Task]:
        """Take out what is prefetched in one lane, of these keys or of all."""
        found = self.lanes[lane]
        wanted = [task for task, _ in found.prefetched if keys is None or task.key in keys]
        gone = {task.id for task in wanted}
        found.prefetched = deque(one for one in found.prefetched if one[0].id not in gone)
        for task in wanted:
            self.release_claim(lane, task.key, now, task.id)
        return wanted

    def prefetched_ids(self) -> list[int]:
        """The tasks that wait for a slot."""
        return [task.id for lane in self.lanes.values() for task, _ in lane.prefetched]

    def halt(self, seconds: float) -> None:
        """Choose nothing for so many seconds."""

        def go_on() -> None:
            self.halted = False
            self.wake.set()

        if not self.halted:
            self.halted = True
            asyncio.get_running_loop().call_later(seconds, go_on)

    # -- when to look again --------------------------------------------------------------------

    def next_look(self) -> int | None:
        """When there may be something to choose if nothing happens meanwhile; None for never."""
        heap = self._heap
        while heap and not self._stands(*heap[0]):
            heapq.heappop(heap)
        look = heap[0][0] if heap else None
        if self._at_share:
            again = self._shared_at + SHARE_AGAIN_MS
            return again if look is None else min(look, again)
        return look

    def next_due(self) -> int | None:
        """When the next key becomes due; None for none. What waits for a slot does not count."""
        left = (one for one in self._entries.values() if not (one.waiting or one.claiming))
        return min((one.earliest for one in left if one.earliest is not None), default=None)

    # -- throttles -----------------------------------------------------------------------------

    def try_now(self, key: Key, now: int) -> None:
        """A task of `key` is wanted now: where only probes may pass, it is the next one."""
        entry = self._entries.get(key)
        if entry is None:
            return
        lane = self.lanes[entry.lane]
        held = [one for one in self.throttles(lane, key) if one.probes_only(now)]
        if held:
            self._advance(now)
            for throttle in held:
                throttle.by_hand = True
            self._release_held([key])
            if key in lane.line:
                lane.line.move_to_end(key, last=False)
            self.throttle_changed(lane, now)

    def learn_past(self, charges: Mapping[str, Sequence[int]]) -> None:
        """Of lanes with a rate limit: when they were charged, in ascending order."""
        self._past = dict(charges)
        for lane in self.lanes.values():
            self._charge_past(lane)

    def shift(self, by: int, now: int) -> None:
        """The clock was moved by `by` milliseconds, to `now`: what lanes wait for in memory lasts
        as long as before. When tasks are due says the store."""
        self._looked = now
        super().shift(by, now)
        self._shared_at += by
        self._past = {name: [at + by for at in times] for name, times in self._past.items()}
        for lane in self.lanes.values():
            lane.prefetched = deque((task, since + by) for task, since in lane.prefetched)
            self.throttle_changed(lane, now)
        self.scopes.shift(by)
        self._look_again(list(self.scopes.by_name.values()))
        self.wake.set()

    def _charge_past(self, lane: Lane) -> None:
        if lane.throttle is not None and lane.throttle.window is not None:
            for at in self._past.pop(lane.name, ()):
                lane.throttle.window.charge(1, at)

    # -- within --------------------------------------------------------------------------------

    def _count(self, lane: Lane, holder: SlotHolder, count: int) -> None:
        """So many more of a key are claimed."""
        if not holder.claimed:
            lane.holding[holder] = None
            if not lane.claimed:
                self.holding[lane] = None
        holder.claimed += count
        lane.claimed += count
        self.claimed += count

    def _discount(self, lane: Lane, holder: SlotHolder, count: int) -> None:
        """So many of a key that were claimed have ended, or are not claimed any more."""
        holder.claimed -= count
        lane.claimed -= count
        self.claimed -= count
        if not holder.claimed:
            lane.holding.pop(holder, None)
            if not lane.claimed:
                self.holding.pop(lane, None)

    def _free_slots(self, lane: Lane) -> int:
        """How many more may be in flight. More is claimed, and a cap may have been lowered."""
        return min(lane.concurrency - lane.in_flight, self.concurrency - self.in_flight)

    def _note_slots(self, lane: Lane, tasks: Sequence[Task], now: int) -> None:
        """Claimed tasks have slots from now on."""
        for task in tasks:
            holder = lane.members[task.endpoint_id, task.webhook]  # equals its key, without a call
            if task.turn is None:
                holder.began[task.id] = now
            else:
                holder.begin_of(task.turn.partition, task.id, lane.concurrency, now)

    def _lane(self, name: str, declared: int, rate: RateLimit | None) -> None:
        lane, concurrency = self.lanes.get(name), self._share.of(declared, name)
        if lane is None:
            lane = self.lanes[name] = Lane(concurrency, name)
            lane.horizon = FAR_PREFETCH_MS if self._several_daemons else PREFETCH_MS
            for row in self.scopes.later.pop(name, ()):
                self.throttle_of(lane, self._looked).restore(row, self._looked)
        elif lane.concurrency != concurrency:
            lane.concurrency = concurrency
            self._make_ready(lane)
        lane.declared = declared
        if rate is not None or lane.throttle is not None:
            window = lane.throttle.window if lane.throttle is not None else None
            if rate != (window.limit if window is not None else None):
                self.throttle_of(lane, self._looked).limit(rate)
                self._charge_past(lane)
                self.throttle_changed(lane, self._looked)

    # -- the lines, and what keeps keys out of them --------------------------------------------

    def throttle_of(self, lane: Lane, now: int) -> Throttle:
        """The throttle of a lane, which it has from now on. `throttle_changed` has to follow."""
        if lane.throttle is None:
            lane.throttle = Throttle(now, lane.name)
        return lane.throttle

    def throttles(self, lane: Lane, key: Key) -> list[Throttle]:
        """All that concern a key of a lane: the lane's, its URL's and its own."""
        own = self.scopes.of.get(key, ())
        return [*own] if lane.throttle is None else [lane.throttle, *own]

    def throttle_changed(self, lane: Lane, now: int) -> None:
        """Something happened at the throttle of a lane: look at it again."""
        if lane.throttle is not None and lane.throttle.idle(now):
            lane.throttle = None
        lane.throttled = False
        self._release_held(list(lane.held))
        self._make_ready(lane)

    def scope_changed(self, throttle: Throttle, now: int) -> None:
        """Something happened at the throttle of a lane, a URL or a key: look at its keys again."""
        lane = self.lanes.get(throttle.name)
        if lane is not None and lane.throttle is throttle:
            self.throttle_changed(lane, now)
            return
        keys = self.scopes.keys(throttle.name)
        if throttle.idle(now):
            self.scopes.drop(throttle.name)
        self._release_held(keys)

    def admitted(self, lane: str, tasks: Sequence[Task], now: int) -> Sequence[Task]:
        """Those of claimed tasks that may begin: they may have been claimed before only probes
        might."""
        found, heeds = self.lanes[lane], self.scopes.heeds
        if found.throttle is None and not self.scopes.of:
            return tasks

        def may_begin(task: Task) -> bool:
            concerned = self.throttles(found, task.key)
            return all(one.admits(task.id, now, heeds(task.key)) for one in concerned)

        return [*filter(may_begin, tasks)]

    def began(self, lane: str, now: int) -> None:
        """A claimed task begins."""
        found = self.lanes[lane]
        if found.throttle is not None and found.throttle.window is not None:
            found.throttle.window.begin(now)
            self.throttle_changed(found, now)

    def used_up(self, lane: str, until: int, now: int) -> None:
        """Other daemons have taken what the rate of a lane has left until then."""
        found = self.lanes[lane]
        if found.throttle is not None and found.throttle.window is not None:
            found.throttle.window.used_up(until)
            self.throttle_changed(found, now)

    def end_probe(self, name: str, task_id: int, now: int) -> None:
        """If it was the probe, it has found nothing out; in any case there may be room again."""
        lane, probed = self.lanes[name], self.scopes.probe_over(task_id)
        if lane.throttle is not None:
            self.throttle_changed(lane, now)
        self._look_again(probed)

    def is_held(self, key: Key) -> bool:
        """Whether a key is due, and a throttle of its URL or of itself has no room."""
        entry = self._entries.get(key)
        return entry is not None and key in self.lanes[entry.lane].held

    def _wait_until(self, lane: Lane, when: int | None) -> None:
        """There is no room: the lane is not looked at until that may have changed."""
        lane.throttled = True
        if when is not None and when != lane.opens_at:
            lane.opens_at = when
            self._look_at(when, LANE, lane.name)

    def _share_of(self, key: Key, lane: Lane, share: int, now: int) -> int:
        """How many of a key may be claimed, `share` at most; one that has no room is held."""
        scopes, throttle = self.scopes, lane.throttle
        room, when = scopes.room(key, now), scopes.opens_at(key, now)
        if throttle is not None and throttle.holds(now, scopes.heeds(key)):
            # Others of the lane may pass, which do not heed what it was told.
            room, opens = min(room, throttle.room(now)), throttle.opens_at(now)
            when = None if when is None or opens is None else max(when, opens)
        if room > 0:
            return min(share, room)
        if when is not None:
            when = max(when, now + 1)
            self._look_at(when, HELD, key)
        lane.held[key] = when
        return 0

    def _take(self, key: Key, lane: Lane, count: int, now: int) -> bool:
        """So many of a key are claimed, which has throttles. True where that is a probe."""
        heeds = self.scopes.heeds(key)
        probed = [one for one in self.throttles(lane, key) if one.take(count, now, heeds)]
        if probed:
            self.scopes.probe_chosen(key, probed)
        return bool(probed)

    def _look_again(self, throttles: Iterable[Throttle]) -> None:
        for throttle in throttles:
            self._release_held(self.scopes.keys(throttle.name))

    def _release_held(self, keys: Iterable[Key]) -> None:
        """Have keys that were held in the line again, where it is seen whether they have room."""
        for key in keys:
            entry = self._entries.get(key)
            if entry is not None:
                lane = self.lanes[entry.lane]
                if key in lane.held:
                    del lane.held[key]
                    lane.line[key] = None
                    self._make_ready(lane)

    def _share_again(self, lane: Lane) -> None:
        """What was set aside in a lane goes back into its line, in front what has not been tried:
        one that is quick may be among it."""
        self._at_share.pop(lane.name, None)
        for key in sorted(lane.at_share, key=lambda key: lane.members[key].mean != UNKNOWN):
            lane.line[key] = None
        lane.at_share.clear()
        self._make_ready(lane)

    def _share_after(self, lane: Lane, key: Key, quick: bool) -> None:
        """An attempt has ended: look again at its key, or at all that may have room by that."""
        if not quick:
            # Those that wait longest have their turn first.
            for name in list(islice(self._at_share, SHARED_AT_ONCE)):
                if name != lane.name:
                    self._share_again(self.lanes[name])
            self._share_again(lane)
        elif key in lane.at_share:
            del lane.at_share[key]
            lane.line[key] = None
            self._make_ready(lane)

    def _look_at(self, when: int, what: int, name: Any) -> None:
        """Look then at a throttled lane, at a held key, or at one that is due."""
        heapq.heappush(self._heap, (when, what, name))
        if len(self._heap) > 2 * (len(self._entries) + len(self.lanes)) + 64:
            # A key that is claimed again and again while one of its tasks waits for tomorrow would
            # leave an item for tomorrow behind each time.
            self._heap = sorted({one for one in self._heap if self._stands(*one)})

    def _stands(self, when: int, what: int, name: Any) -> bool:
        """Whether an item of the heap is not out of date."""
        if what == LANE:
            return self.lanes[name].opens_at == when
        entry = self._entries.get(name)
        if entry is None:
            return False
        if what == DUE:
            return entry.earliest == when and not (entry.waiting or entry.claiming)
        return self.lanes[entry.lane].held.get(name) == when

    def _advance(self, now: int) -> None:
        self._looked = now
        if self._at_share and not 0 <= now - self._shared_at < SHARE_AGAIN_MS:
            self._shared_at = now
            for name in list(self._at_share):
                self._share_again(self.lanes[name])
        heap = self._heap
        while heap and heap[0][0] <= now:
            item = heapq.heappop(heap)
            if not self._stands(*item):
                continue
            _, what, name = item
            if what == DUE:
                entry = self._entries[name]
                entry.waiting, lane = True, self.lanes[entry.lane]
                lane.line[name] = None
                self._make_ready(lane)
            elif what == HELD:
                self._release_held([name])
            else:
                lane = self.lanes[name]
                lane.opens_at, lane.throttled = None, False
                self._make_ready(lane)

    def _leave(self, key: Key, entry: Entry) -> None:
        if entry.waiting:
            lane = self.lanes[entry.lane]
            for places in (lane.line, lane.held, lane.at_share):
                places.pop(key, None)
            entry.waiting = False

    def _fair_share(self, key: Key, lane: Lane, holder: SlotHolder, share: int, now: int) -> int:
        """How many of a key may be claimed, `share` at most; one that has its share leaves the
        line."""
        share = min(share, self._room(lane, holder, now))
        if share <= 0:
            lane.at_share[key] = None
            self._at_share[lane.name] = None
        return share

    def _room(self, lane: Lane, holder: SlotHolder, now: int) -> int:
        """How many more a key of a lane may claim, by its share; none for 0 and less."""
        speed = holder.speed(now, lane.concurrency)
        if speed is Speed.QUICK:
            return ANY
        first = not holder.claimed
        room = self.room(lane, speed, now, first=first)
        if lane.alone:
            return room
        if speed is Speed.NEW:
            room = min(room, 1 - holder.claimed)
        return min(room, lane.room(holder, speed, now, first=first))

    def _make_ready(self, lane: Lane) -> None:
        if lane.line and not lane.throttled and lane.name not in self._ready and lane.free > 0:
            self._ready[lane.name] = None
