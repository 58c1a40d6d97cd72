"""One strand runs at a time, and the seed says which.

What is a thread outside is a strand here: a greenlet, which runs only with the baton and hands it
on at each thing that it asks of the world (`pause`, `wait`). Real threads would do the same for
fifty times the cost of a change, and one that is killed would have to be unwound by an exception
that its own `finally` runs under: a strand is simply never resumed.

Time is virtual. It goes on by a moment with each turn, and where no strand can run it jumps to what
comes next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from heapq import heappop, heappush
from random import Random
from typing import TYPE_CHECKING, Any

from greenlet import greenlet

if TYPE_CHECKING:
    from tests.simulation.process import Process

TURN = 0.00002
"""Seconds that a turn takes: as long as a step of the product does, or a statement."""
SWITCHES = 0.3
"""How often another strand is given the baton at a point at which both could go on."""

LOOKS = 0.05
"""Seconds between two looks whether it is over."""


class Killed(BaseException):
    """Ends what is left of a strand once its universe is over; no code of the product catches it
    for good."""


class Stuck(Exception):
    """Nothing can run, and nothing will come."""


class Strand:
    """What runs by itself: a thread of a process, or its loop."""

    __slots__ = ("done", "greenlet", "loop", "name", "process", "token", "woken")

    def __init__(self, process: Process, name: str) -> None:
        self.process = process
        self.name = name
        self.loop: asyncio.AbstractEventLoop | None = None
        """That which it runs, if it does."""
        self.greenlet: Any = None
        self.token = 0
        """Of what it waits for; 0 while it does not."""
        self.woken = False
        self.done = False


class Baton:
    """The order of everything in one universe."""

    def __init__(self, chance: Random) -> None:
        self.now = 1000.0
        """Seconds of the clock that cannot be set."""
        self.turns = 0
        self.current: Strand | None = None
        self.watches: list[Callable[[Strand, str], bool]] = []
        """Each is told of each turn, may kill the process that has it, and is done with that turn
        where it says so."""
        self._chance = chance.random
        self._ready: list[Strand] = []
        self._events: list[tuple[float, int, Strand | None, Callable[[], None] | None]] = []
        self._number = 0
        self._hub = greenlet.getcurrent()
        self._over = False

    # -- what the universe asks of it --------------------------------------------------------------

    def spawn(self, process: Process, run: Callable[[], Any], name: str) -> Strand:
        """A new strand of a process, which runs soon."""
        strand = Strand(process, name)

        def main() -> None:
            try:
                run()
            except Killed:
                pass
            except BaseException as error:
                process.universe.broken(f"{process.name}/{name}", error)
            finally:
                strand.done = True

        strand.greenlet = greenlet(main, self._hub)
        process.strands.append(strand)
        self._ready.append(strand)
        return strand

    def at(self, when: float, do: Callable[[], None]) -> None:
        """Have something done at a time, by no strand."""
        self._number += 1
        heappush(self._events, (when, self._number, None, do))

    def run(self, over: Callable[[], bool]) -> None:
        """Give the baton round until it is `over`. Raises Stuck where nothing can run any more."""
        look_at = self.now
        while True:
            if self.now >= look_at:
                if over():
                    return
                look_at = self.now + LOOKS
            events, ready = self._events, self._ready
            while events and events[0][0] <= self.now:
                self._happens()
            if ready:
                self._resume(ready)
            elif events:
                self.now = max(self.now, events[0][0])
            else:
                raise Stuck

    def _happens(self) -> None:
        _, number, strand, do = heappop(self._events)
        if strand is None:
            assert do is not None
            do()
        elif strand.token == number:
            strand.token, strand.woken = 0, False
            self._ready.append(strand)

    def _resume(self, ready: list[Strand]) -> None:
        place = int(self._chance() * len(ready)) if len(ready) > 1 else 0
        strand = ready.pop(place)
        if strand.process.dead:
            return
        if strand.process.stopped:
            strand.process.held.append(strand)
            return
        self.current = strand
        asyncio._set_running_loop(strand.loop)
        strand.greenlet.switch()
        asyncio._set_running_loop(None)
        self.current = None

    def resume(self, process: Process) -> None:
        """A process that stood still goes on."""
        process.stopped = False
        self._ready += process.held
        process.held.clear()

    def end(self, strands: list[Strand]) -> None:
        """The universe is over: unwind what is left, which finds everything dead."""
        self._over = True
        for strand in strands:
            if strand.greenlet and not strand.greenlet.dead:
                self.current = strand
                asyncio._set_running_loop(strand.loop)
                strand.greenlet.throw(Killed)
        self.current = None

    # -- what strands ask of it --------------------------------------------------------------------

    def pause(self, what: str) -> None:
        """A point at which others may go on, and at which a process may be killed."""
        self.turns += 1
        self.now += TURN
        strand = self.current
        if strand is None:
            return
        if self._over:
            raise Killed
        if self.watches:
            self.watches = [watch for watch in self.watches if not watch(strand, what)]
        if strand.process.dead:
            self._hub.switch()
            raise Killed
        if strand.process.stopped or (self._ready and self._chance() < SWITCHES):
            self._ready.append(strand)
            self._switch()

    def wait(self, waiters: list[Strand] | None, until: float | None) -> bool:
        """Wait to be woken, or until a time; whether it was woken."""
        if self._over:
            raise Killed
        strand = self.current
        assert strand is not None, "the universe itself cannot wait"
        self._number += 1
        strand.token, strand.woken = self._number, False
        if waiters is not None:
            waiters.append(strand)
        if until is not None:
            heappush(self._events, (until, self._number, strand, None))
        self._switch()
        if waiters is not None and not strand.woken and strand in waiters:
            waiters.remove(strand)
        return strand.woken

    def wake(self, waiters: list[Strand]) -> None:
        """Wake the first that waits, if one does."""
        while waiters:
            strand = waiters.pop(0)
            if strand.token:
                strand.token, strand.woken = 0, True
                self._ready.append(strand)
                return

    def _switch(self) -> None:
        self._hub.switch()
        if self._over:
            raise Killed
