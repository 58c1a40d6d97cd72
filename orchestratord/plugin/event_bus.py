"""The event bus: takes what happened, and hands it on in batches to observers and to followers.

Publishing is on the way of every task, so it only puts the event into a list. A timer hands the
list on: to the hook `observe`, and to followers, such as a client of the API. Every list here
is bounded; what does not fit is dropped and counted, and followers are told.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, dropwhile

from orchestratord.model.event import Event
from orchestratord.values.clock import Clock

log = logging.getLogger("orchestratord.events")

EVERY = 0.05
"""Seconds for which events are gathered."""
BATCH = 1_000
"""Events that are handed on in one go; what else the loop has to do comes in between."""
WAITING = 50_000
"""Events that wait to be handed on."""
REMEMBERED = 5_000
"""Events that a follower that comes back can still get."""
UNREAD = 5_000
"""Events that wait for a follower."""
LINGER = 60.0
"""Seconds for which events are still remembered when the last follower has gone."""


@dataclass(frozen=True, slots=True)
class Missed:
    """Stands where events were lost for a follower: how many, wanted or not; None: unknown."""

    count: int | None


Numbered = tuple[int, Event]
Observe = Callable[[Sequence[Event]], None]


class Follower:
    """A follower of what happens; made by `EventBus.follow`."""

    def __init__(self, wanted: Callable[[Event], bool], number: int) -> None:
        self._wanted = wanted
        self._unread: deque[tuple[int, Event | Missed]] = deque()
        self._news = asyncio.Event()
        self._ended = False
        self.number = number
        """Of the last event before it began to follow."""

    @property
    def ended(self) -> bool:
        """Nothing is there, and nothing will come: the daemon is being stopped."""
        return self._ended and not self._unread

    async def take(self, most: int, wait: float) -> list[tuple[int, Event | Missed]]:
        """Up to `most` events with their numbers, oldest first; none after `wait` seconds."""
        if not self._unread and not self._ended:
            self._news.clear()
            timer = asyncio.get_running_loop().call_later(wait, self._news.set)
            try:
                await self._news.wait()
            finally:
                timer.cancel()
        return [self._unread.popleft() for _ in range(min(most, len(self._unread)))]

    def give(self, events: Sequence[Numbered]) -> None:
        """Put what is wanted of these with what is unread."""
        for number, event in events:
            if self._wanted(event):
                if len(self._unread) < UNREAD:
                    self._unread.append((number, event))
                else:
                    self.lose(1, number)
        if self._unread:
            self._news.set()

    def lose(self, count: int | None, number: int) -> None:
        """Note that so many events up to `number` are lost; None: it is not known how many."""
        last = self._unread[-1][1] if self._unread else None
        if isinstance(last, Missed):
            self._unread.pop()
            count = None if count is None or last.count is None else last.count + count
        self._unread.append((number, Missed(count)))
        self._news.set()

    def end(self) -> None:
        """Nothing comes any more."""
        self._ended = True
        self._news.set()


class EventBus:
    """Where events are published; all of it on one loop, but for `report`."""

    def __init__(self) -> None:
        self.listening = False
        """Whether there is an observer or a follower: else no event of a task's step is made."""
        self.turned = asyncio.Event()
        """Set when that changes."""
        self.dropped = 0
        """Events that were lost because too many came at once."""
        self.followers: set[Follower] = set()
        self._observe: Observe | None = None
        self._observing = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.Handle | None = None
        self._rest: asyncio.TimerHandle | None = None
        self._waiting: list[Event] = []
        self._remembered: deque[tuple[int, Sequence[Event]]] = deque()
        """Batches, and the number of the first event of each."""
        self._kept = 0
        """Events of these."""
        self._number = 0
        self._first = 0

    def open(self, clock: Clock, observe: Observe | None) -> None:
        """Begin, on the running loop; `observe` has all events, where there is one."""
        self._loop = asyncio.get_running_loop()
        # Numbers grow over restarts, too: a follower that comes back is not given a wrong place.
        self._first = self._number = clock.now_ms() * 1000
        self._observe, self.listening = observe, observe is not None

    def publish(self, event: Event) -> None:
        """Hand an event on soon; before `open` and after `close`, forget it."""
        self.publish_all((event,))

    def publish_all(self, events: Sequence[Event]) -> None:
        """Hand several events on soon."""
        if self._timer is None:
            if self._loop is None or not events:
                return
            self._timer = self._loop.call_later(EVERY, self._hand_on)
        room = WAITING - len(self._waiting)
        if len(events) > room:
            for _ in events[room:]:
                self._drop()
            events = events[:room]
        self._waiting += events

    def report(self, event: Event) -> None:
        """`publish`, from any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._report, event, self._observing)

    def follow(self, wanted: Callable[[Event], bool], after: int | None = None) -> Follower:
        """Follow what is `wanted` from now on; with `after`, what came after that number, too."""
        follower = Follower(wanted, self._number)
        if after is not None:
            batches = (enumerate(events, first) for first, events in self._remembered)
            remembered = list(chain.from_iterable(batches))[-REMEMBERED:]
            before = remembered[0][0] - 1 if remembered else self._number
            if not self._first <= after <= self._number:
                follower.lose(None, before)  # a number of another daemon's
            else:
                remembered = list(dropwhile(lambda item: item[0] <= after, remembered))
                if lost := self._number - after - len(remembered):
                    follower.lose(lost, before)
            follower.give(remembered)
        self.followers.add(follower)
        self._listen(True)
        if self._rest is not None:
            self._rest.cancel()
        return follower

    def leave(self, follower: Follower) -> None:
        """Follow no longer."""
        self.followers.discard(follower)
        if not self.followers and self._observe is None and self._loop is not None:
            self._rest = self._loop.call_later(LINGER, self._stop_listening)

    def close(self) -> None:
        """Hand on what is there, and let the followers go once they have read it."""
        self.listening = False
        self._loop = None
        for timer in (self._timer, self._rest):
            if timer is not None:
                timer.cancel()
        while self._waiting:
            self._pass_on()
        for follower in self.followers:
            follower.end()

    # -- within --------------------------------------------------------------------------------

    def _hand_on(self) -> None:
        self._timer = None
        self._pass_on()
        if self._waiting and self._timer is None and self._loop is not None:
            self._timer = self._loop.call_soon(self._hand_on)

    def _pass_on(self) -> None:
        events = tuple(self._waiting[:BATCH])
        del self._waiting[:BATCH]
        if not events:
            return
        self._note(events)
        if self._observe is not None:
            self._observing = True
            try:
                self._observe(events)
            finally:
                self._observing = False

    def _note(self, events: Sequence[Event]) -> None:
        first = self._number + 1
        self._number += len(events)
        self._remembered.append((first, events))
        self._kept += len(events)
        while self._kept - len(self._remembered[0][1]) >= REMEMBERED:
            self._kept -= len(self._remembered.popleft()[1])
        if self.followers:
            numbered = list(enumerate(events, first))
            for follower in self.followers:
                follower.give(numbered)

    def _report(self, event: Event, of_observer: bool) -> None:
        if of_observer:
            self._note([event])  # what fails at its own failure would go on for ever
        else:
            self.publish(event)

    def _drop(self) -> None:
        if not self.dropped:
            log.warning("dropped some events: there are more than can be handed on")
        self.dropped += 1
        self._number += 1
        for follower in self.followers:
            follower.lose(1, self._number)

    def _listen(self, listening: bool) -> None:
        if listening != self.listening:
            self.listening = listening
            self.turned.set()

    def _stop_listening(self) -> None:
        if self.followers:
            return
        self._listen(False)
        # A follower that comes back after this has missed an unknown number.
        self._remembered.clear()
        self._kept = 0
        self._number += 1
        self._first = self._number
