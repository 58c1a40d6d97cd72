"""What stands for the supervisor of several workers and for the sockets between them: links that
are lists of messages, and seats that hear of each other's deaths at once.

What the workers say to each other is the product's, in its words; only the supervisor is not there.
"""

from __future__ import annotations

import asyncio
import pickle
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from orchestratord.runtime.link import Link
from orchestratord.runtime.worker_seat import InForce, Message, WorkerSeat

if TYPE_CHECKING:
    from orchestratord.config.loader import Loader
    from tests.simulation.process import Process
    from tests.simulation.universe import Universe

SEEN_AFTER = 0.002
"""Seconds after which a death is seen."""


class End(Link):
    """One end of a link."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._messages: deque[bytes] = deque()
        self._came: asyncio.Event | None = None
        self.other: End
        self.closed = False
        self._asked = {}
        self._questions = 0

    slow = False

    def send(self, kind: str, *values: Any) -> None:
        if not (self.closed or self.other.closed):
            self.other._messages.append(pickle.dumps((kind, values), protocol=5))
            self.other._wake()

    async def _next(self) -> tuple[str, Any]:
        while not self._messages:
            if self.closed or self.other.closed:
                raise EOFError
            self._came = asyncio.Event()
            await self._came.wait()
        found: tuple[str, Any] = pickle.loads(self._messages.popleft())  # our own
        return found

    def _disconnect(self) -> None:
        if not self.closed:
            self.closed = True
            self._wake()
            self.other._wake()

    def _wake(self) -> None:
        came, loop = self._came, self._process.loop
        if came is not None and loop is not None:
            with suppress(RuntimeError):  # that process is dead
                loop.call_soon_threadsafe(came.set)


async def over(end: End) -> End:
    """In the place of `Link.over`, which makes a link of a socket."""
    return end


class Seat(WorkerSeat):
    """The place of one worker; there is no supervisor to tell anything but who this is."""

    def __init__(self, number: int, count: int, process: Process, seats: Seats) -> None:
        self.number, self.count = number, count
        self.beat = 2.0
        self.process = process
        self._seats = seats
        self.owner = ""
        self._heard: Callable[[Message, list[Any]], None] | None = None
        self._waiting: list[tuple[Message, list[Any]]] = []
        self.ends: list[End] = []
        """Of its links."""

    def listen(self, heard: Callable[[Message, list[Any]], None], left: Any) -> None:
        self._heard = heard
        for message, ends in self._waiting:
            asyncio.get_running_loop().call_soon(heard, message, ends)

    def hear(self, message: Message, *ends: End) -> None:
        """What the supervisor would say."""
        loop = self.process.loop
        if self._heard is None or loop is None:
            self._waiting.append((message, list(ends)))
        else:
            with suppress(RuntimeError):  # that process is dead
                loop.call_soon_threadsafe(self._heard, message, list(ends))

    def notify(self, **message: Any) -> bool:
        self.owner = message.get("owner", self.owner)
        return True

    def notify_adopted(self, in_force: InForce) -> None:
        self._seats.in_force = pickle.dumps(in_force, protocol=5)

    def adopted(self) -> InForce | None:
        data = self._seats.in_force
        return None if data is None else pickle.loads(data)  # our own


class Seats:
    """The workers of one run after the other, as their supervisor knows them."""

    def __init__(self, universe: Universe) -> None:
        self._universe = universe
        self._seats: dict[int, Seat] = {}
        self._dead: list[str] = []
        """What those claimed tasks as who have died in this run."""
        self._runs = 0
        self.in_force: bytes | None = None
        """The configuration that a worker begins with: that of the start, or one since."""
        self.ending = False
        """All of them are to end, as by SIGTERM."""

    def take(self, number: int, process: Process) -> Seat:
        """The seat of a new worker, and its links."""
        seat = self._seats[number] = Seat(number, self._universe.count, process, self)
        for other in list(self._seats.values()):
            if other is not seat and not other.process.dead and 1 in (number, other.number):
                self._link(seat, other)
        for owner in self._dead:
            seat.hear({"died": owner})
        return seat

    def _link(self, one: Seat, other: Seat) -> None:
        left, right = End(one.process), End(other.process)
        left.other, right.other = right, left
        one.ends.append(left)
        other.ends.append(right)
        one.hear({"link": other.number}, left)
        other.hear({"link": one.number}, right)

    def begin_with(self, seat: Seat, loader: Loader) -> None:
        """Have a worker begin with what is in force; the first one says what that is."""
        in_force = seat.adopted()
        if in_force is None:
            config = loader.config
            seat.notify_adopted(InForce(config.generation, config.adopted_at, loader.files))
        elif (in_force.generation, in_force.files) != (loader.config.generation, loader.files):
            loader.follow(*in_force)

    def died(self, process: Process) -> None:
        """A worker has died: the others hear of it soon."""
        seat = self._seats[process.place + 1]
        if seat.owner:
            self._dead.append(seat.owner)

        # Not at once: what had the baton as it died does nothing any more.
        def tell() -> None:
            for end in seat.ends:
                end.close()
            for other in self._seats.values():
                if other is not seat and not other.process.dead:
                    other.hear({"died": seat.owner})

        universe = self._universe
        universe.baton.at(universe.baton.now + SEEN_AFTER, tell)

    @property
    def group(self) -> str:
        """Of the workers of this run."""
        return f"run {self._runs}"

    def begin_anew(self) -> None:
        """The next run begins."""
        self._runs += 1
        self.ending, self.in_force = False, None
        self._dead.clear()
        self._seats.clear()
