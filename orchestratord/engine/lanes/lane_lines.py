"""The lines of due keys, a lane each, and what keeps lanes and keys from being claimed.

A lane with a throttle that has no room is not looked at until that may have changed. A key is held
then by the throttle of its URL or of itself: it leaves the line, and comes back when there may be
room. One that has its share of the slots is set aside, until an attempt has ended.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from orchestratord.engine.lanes.fair_slots import ANY, UNKNOWN, FairSlots, SlotHolder, Speed
from orchestratord.engine.lanes.lane import Lane
from orchestratord.engine.lanes.scopes import Scopes
from orchestratord.engine.lanes.throttle import Throttle
from orchestratord.model.task import Key, Task

SHARED_AT_ONCE = 100
"""At how many lanes with keys that were set aside it is looked when a slow attempt ends."""
SHARE_AGAIN_MS = 500
"""How often it is looked at what was set aside: time alone may change how many slots it has."""


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


class LaneLines(FairSlots[Lane]):
    """All lanes of one daemon, and which of their keys may be claimed. Times are milliseconds since
    the epoch."""

    def __init__(self, concurrency: int) -> None:
        """`concurrency`: how many may be in flight in all lanes together."""
        super().__init__(concurrency)
        self.lanes: dict[str, Lane] = self.members
        self.scopes = Scopes()
        """The throttles of URLs, endpoints and webhooks; a lane has its own."""
        self._entries: dict[Key, Entry] = {}
        self._heap: list[tuple[int, Key]] = []
        self._ready: deque[str] = deque()
        self._ready_names: set[str] = set()
        self._at_share: OrderedDict[str, None] = OrderedDict()
        """Lanes with keys that are set aside."""
        self._shared_at = 0
        """When it was last looked at them."""
        self._throttled: list[tuple[int, str]] = []
        """A heap: when throttled lanes are looked at again, some of it out of date."""
        self._held: list[tuple[int, Key]] = []
        """The same of keys."""
        self._looked = 0
        """When one of the throttles was last looked at."""

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
        """Something happened at the throttle of a URL or key: look at its keys again."""
        keys = self.scopes.keys(throttle.name)
        if throttle.idle(now):
            self.scopes.drop(throttle.name)
        self._release_held(keys)

    def probe_claimed(self, lane: str, task_id: int, key: Key) -> None:
        """The task of `key` that was claimed as the probe of its lane, or of its URL or itself."""
        throttle = self.lanes[lane].throttle
        if throttle is not None and throttle.probing and throttle.probe is None:
            throttle.probe = task_id
        self.scopes.probe_claimed(key, task_id)

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
        lane = self.lanes[name]
        if lane.throttle is not None:
            if lane.throttle.probe == task_id:
                lane.throttle.probe_over()
            self.throttle_changed(lane, now)
        if mine := self.scopes.probe_over(task_id):
            self._look_again(mine)

    def is_held(self, key: Key) -> bool:
        """Whether a key is due, and a throttle of its URL or of itself has no room."""
        entry = self._entries.get(key)
        return entry is not None and key in self.lanes[entry.lane].held

    def _put_off(self, lane: Lane, throttle: Throttle, now: int) -> None:
        """There is no room: the lane is not looked at until that may have changed."""
        self._wait_until(lane, throttle.opens_at(now, self.scopes.all_heed(lane.name)))

    def _wait_until(self, lane: Lane, when: int | None) -> None:
        lane.throttled = True
        if when is not None and when != lane.opens_at:
            lane.opens_at = when
            heapq.heappush(self._throttled, (when, lane.name))

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
            heapq.heappush(self._held, (when, key))
        lane.held[key] = when
        return 0

    def _take(self, key: Key, throttle: Throttle | None, count: int, now: int) -> bool:
        """So many of a key are claimed. True where that is a probe."""
        probe = throttle is not None and throttle.take(count, now, self.scopes.heeds(key))
        return (key in self.scopes.of and self.scopes.take(key, count, now)) or probe

    def _look_again(self, throttles: Iterable[Throttle]) -> None:
        for throttle in throttles:
            self._release_held(self.scopes.keys(throttle.name))

    def _held_until(self, key: Key) -> int | None:
        entry = self._entries.get(key)
        return None if entry is None else self.lanes[entry.lane].held.get(key)

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

    def _current(self, when: int, key: Key) -> Entry | None:
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
        if self._at_share and not 0 <= now - self._shared_at < SHARE_AGAIN_MS:
            self._shared_at = now
            for name in list(self._at_share):
                self._share_again(self.lanes[name])
        held = self._held
        while held and held[0][0] <= now:
            self._looked = now
            when, key = heapq.heappop(held)
            if self._held_until(key) == when:
                self._release_held([key])
        heap = self._heap
        while heap and heap[0][0] <= now:
            when, key = heapq.heappop(heap)
            entry = self._current(when, key)
            if entry is not None:
                entry.waiting = True
                lane = self.lanes[entry.lane]
                lane.line[key] = None
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

    def _holds_none(self, lane: Lane, holder: SlotHolder) -> None:
        lane.holding.pop(holder, None)
        if not lane.claimed:
            self.holding.pop(lane, None)

    def _make_ready(self, lane: Lane) -> None:
        if (
            lane.line
            and not lane.throttled
            and lane.name not in self._ready_names
            and lane.free > 0
        ):
            self._ready_names.add(lane.name)
            self._ready.append(lane.name)
