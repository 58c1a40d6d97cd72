"""The network of a universe: what is sent, and what receivers do with it."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from random import Random
from typing import TYPE_CHECKING, Any

import httpx

from orchestratord.errors import SendError
from orchestratord.http.client import HANDED_OVER, HttpClient, SendOptions
from orchestratord.model.http_message import Fields, Response
from tests.simulation.configuration import BROKEN, BUSY, DONE

if TYPE_CHECKING:
    from tests.simulation.process import Process
    from tests.simulation.universe import Universe

CONNECTING = (0.0005, 0.02)
"""Seconds until a request is at its receiver."""
CONNECTING_LONG = (0.5, 4.0)
"""The same in one of a hundred universes, if it has no burst: what ends an attempt may come before
its first byte."""
ANSWERING = (0.001, 0.3)
"""Seconds until it answers."""
LONG, TAKES_LONG = 30.0, 0.25
"""Who is given more seconds than that takes all of them, so often."""
UNSENT = {"refused": "connection refused", "unsent": "connection reset before anything was sent"}
"""Ways in which nothing reaches the receiver."""
LARGE = "x" * 40_000
"""What stands beside the items in a large body: it is read in the thread for long work, where it is
read."""


@dataclass(slots=True)
class Arrival:
    """A request that was at its receiver, and what became of it."""

    at: float
    host: str
    path: str
    task: int
    attempt: int
    kind: str
    """What the receiver does, as in a `Weather`."""
    process: str = ""
    """The name of that which has sent it."""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    status: int | None = None
    """What it has answered, as far as the receiver knows."""
    work: str = DONE
    """What the answer says of the work."""
    left_at: float = 0.0
    """When its process gave it to the network."""
    ended_at: float | None = None
    """When it was done with the request, or the request was given up; None: its process died."""
    given_up: bool = False
    """Its daemon did not wait for the answer any longer."""

    @property
    def told(self) -> int | None:
        """The status that its daemon has seen, where it lived to see it."""
        return None if self.kind in UNSEEN else self.status


@dataclass(frozen=True)
class Weather:
    """How a receiver is for a while.

    A way is a status, with the Retry-After that goes with it after a space, or one of these words:
    `refused` and `unsent`, which reach nobody; `reset`, after the request was read; `hang`, without
    a word; `late`, as the answer comes when nobody waits any more; `slow`, just in time; `cut`, as
    the answer ends in its middle; `large`, as it has a body of some size.
    """

    ways: tuple[str, ...]
    weights: tuple[float, ...]
    most: int | None = None
    """Requests within a second that it takes; of more, it does what `over` says."""
    over: str = "503"


UNSEEN = ("late", "cut", "reset")
"""Ways in which an answer does not come to who asked for it, or not whole."""


class Receiver:
    """One host. Its weather changes: for a while it answers, fails or hangs."""

    def __init__(self, universe: Universe, host: str, chance: Random) -> None:
        self._universe = universe
        self.host = host
        self._chance = chance
        self.healthy = False
        """It answers 200 to all, from when the faults are over."""
        self._weather = WEATHERS[0]
        self._until = 0.0
        self._taken: deque[float] = deque()
        """When it took those of the last second."""

    def overload(self) -> None:
        """For some seconds it takes few requests, and turns the others away."""
        self._until = self._universe.baton.now + self._chance.uniform(5, 20)
        self._weather = Weather(("200",), (1,), most=self._chance.randint(2, 4))

    def answer(self) -> str:
        """What it does with the next request."""
        if self.healthy:
            return "200"
        now = self._universe.baton.now
        if now >= self._until:
            self._until = now + self._chance.uniform(1, 20)
            self._weather = self._chance.choice(WEATHERS)
        weather, taken = self._weather, self._taken
        while taken and taken[0] < now - 1:
            taken.popleft()
        if weather.most is not None and len(taken) >= weather.most:
            return weather.over
        taken.append(now)
        return self._chance.choices(weather.ways, weather.weights)[0]


WEATHERS = (
    Weather(("200",), (1,)),
    Weather(("200", "201", "204", "large"), (4, 1, 1, 1)),
    Weather(("200", "500", "hang"), (8, 2, 0.3)),
    Weather(("500", "502", "503", "504", "200"), (4, 1, 3, 1, 2)),
    Weather(("refused",), (1,)),
    Weather(("200", "reset", "unsent", "cut", "refused"), (6, 1, 1, 1, 1)),
    Weather(("200", "400", "404", "409", "422", "301", "308"), (8, 1, 1, 1, 1, 0.5, 0.5)),
    Weather(("408", "425", "200"), (1, 1, 3)),
    Weather(("429", "429 2", "429 20", "200"), (1, 1, 0.5, 3)),
    Weather(("503 1", "503 30", "503 date", "503 soon", "200"), (1, 0.3, 1, 1, 3)),
    Weather(("200", "late", "slow"), (6, 0.5, 1)),
    Weather(("200",), (1,), most=3, over="503"),
    Weather(("200", "500"), (8, 1), most=5, over="429 1"),
    Weather(("200",), (1,), most=4, over="reset"),
)


class Network:
    """All receivers, and all that was at them."""

    def __init__(self, universe: Universe, chance: Random) -> None:
        self._universe = universe
        self._chance = chance
        self._works = Random(f"work {universe.seed}")
        self._ends: dict[int, tuple[float, str]] = {}
        """Of the work of each task: when it ends, and how."""
        self._receivers: dict[str, Receiver] = {}
        self.arrivals: list[Arrival] = []
        self.refused: list[Arrival] = []
        """What did not arrive, since its receiver took no connection."""
        self.left: list[Arrival] = []
        """What its daemon gave up before it arrived, since it had stood still meanwhile."""
        self._awaited: dict[Process, list[Arrival]] = defaultdict(list)
        self.watches: list[Callable[[Arrival], bool]] = []
        """Each is told of what arrives, and is done with that where it says so."""

    @property
    def sent(self) -> tuple[Arrival, ...]:
        """All that was sent, whether it arrived or not."""
        return *self.arrivals, *self.refused, *self.left

    def receiver(self, host: str) -> Receiver:
        """The receiver of a host."""
        found = self._receivers.get(host)
        if found is None:
            chance = Random(self._chance.getrandbits(64))
            found = self._receivers[host] = Receiver(self._universe, host, chance)
            found.healthy = self._universe.calm
        return found

    def calm(self) -> None:
        """All receivers are healthy from now on."""
        for receiver in self._receivers.values():
            receiver.healthy = True

    def awaited(self, process: Process) -> list[Arrival]:
        """The requests whose answers the process waits for."""
        return self._awaited[process]

    async def exchange(
        self, process: Process, request: httpx.Request, deadline: float
    ) -> httpx.Response:
        """Send a request, and have its answer by the loop's `deadline`. Raises SendError."""
        loop = asyncio.get_running_loop()
        began, url, left_at = loop.time(), request.url, self._universe.baton.now
        receiver = self.receiver(url.host)
        kind = receiver.answer()
        if deadline - began > LONG and not receiver.healthy and self._chance.random() < TAKES_LONG:
            kind = "slow"
        universe = self._universe
        takes_long = universe.seed % 100 == 20 and universe.burst is None
        takes = self._chance.uniform(*(CONNECTING_LONG if takes_long else CONNECTING))
        left = deadline - loop.time()
        if takes >= left:
            kind = "refused"
        try:
            await asyncio.sleep(min(takes, left))
        except asyncio.CancelledError:
            self.leave(process, request, "unsent")
            raise
        request.extensions[HANDED_OVER] = True
        arrival = self._arrival(process, request, kind)
        arrival.left_at = left_at
        if kind in UNSENT:
            arrival.ended_at = arrival.at
            self.refused.append(arrival)
            what = UNSENT[kind]
            del request.extensions[HANDED_OVER]
            self._universe.trace.note(process.name, "finds", url.host, f"away ({what})")
            raise SendError(what, kind="connect" if kind == "refused" else "reset", sent=False)
        self.arrivals.append(arrival)
        self._universe.trace.note(
            process.name, "arrives", url.host, url.path, arrival.task, arrival.attempt, kind
        )
        self.watches = [watch for watch in self.watches if not watch(arrival)]
        awaited = self._awaited[process]
        awaited.append(arrival)
        try:
            answer = await self._answer(arrival, deadline)
        except asyncio.CancelledError:
            arrival.given_up = True
            raise
        finally:
            awaited.remove(arrival)
            arrival.ended_at = self._universe.baton.now
        arrival.work = self._work(arrival, calm=receiver.healthy)
        said: dict[str, Any] = {"items": list(range(int(url.params.get("items", 0))))}
        said["work"] = arrival.work
        if kind == "large":
            said["text"] = LARGE
        body = json.dumps(said).encode()
        extensions = {"http_version": b"HTTP/1.1", "reason_phrase": b"", "truncated": False}
        took = loop.time() - began
        return Response(arrival.status or 0, answer, body, request, extensions, None, took)

    def _work(self, arrival: Arrival, *, calm: bool) -> str:
        """How far the work is that a task has begun."""
        if arrival.task not in self._ends:
            takes = self._works.choice((1, 5, 30, 30))
            how = self._works.choices((DONE, BROKEN), (8, 1))[0]
            self._ends[arrival.task] = arrival.at + takes, how
        at, how = self._ends[arrival.task]
        return DONE if calm else how if arrival.at >= at else BUSY

    def leave(self, process: Process, request: httpx.Request, kind: str) -> None:
        """A request does not come to its receiver; of one that `hang`s its daemon cannot know."""
        arrival = self._arrival(process, request, kind)
        arrival.left_at = arrival.ended_at = arrival.at
        arrival.given_up = True
        self.left.append(arrival)

    def _arrival(self, process: Process, request: httpx.Request, kind: str) -> Arrival:
        headers, url, now = request.headers, request.url, self._universe.baton.now
        task, attempt = int(headers.get("x-task", 0)), int(headers.get("x-attempt", 0))
        seen, body = dict(headers), request.content
        return Arrival(now, url.host, url.path, task, attempt, kind, process.name, seen, body)

    async def _answer(self, arrival: Arrival, deadline: float) -> Fields:
        """The headers of the answer, once it has come. Raises SendError."""
        loop, kind = asyncio.get_running_loop(), arrival.kind
        left = max(deadline - loop.time(), 0.0)
        if kind in ("hang", "late"):
            await asyncio.sleep(left)
            arrival.status = 200 if kind == "late" else None
            raise SendError("no answer in time", kind="timeout", sent=True)
        usual = self._chance.uniform(*ANSWERING)
        await asyncio.sleep(usual if kind != "slow" else max(left - usual, 0.0))
        if kind == "reset":
            raise SendError("connection reset", kind="reset", sent=True)
        status, _, after = kind.partition(" ")
        arrival.status = int(status) if status.isdigit() else 200
        if kind == "cut":
            raise SendError("the answer broke off", kind="reset", sent=True)
        fields = [(b"content-type", b"application/json")]
        if after == "date":
            machine, later = self._universe.machine, self._chance.uniform(0, 5)
            # By another clock than the daemon's it could ask for hours.
            after = "1" if machine.was_set else formatdate(machine.time() + later, usegmt=True)
        if after:
            fields.append((b"retry-after", after.encode()))
        if arrival.status in (301, 308):
            fields.append((b"location", b"/elsewhere"))
        return fields


class SimulatedClient(HttpClient):
    """The client of one process: it sends into the universe's network."""

    process: Process

    def __init__(self, **options: Any) -> None:
        super().__init__(_resolve, **options)

    async def send_by(
        self, request: httpx.Request, options: SendOptions, now: float, deadline: float
    ) -> httpx.Response:
        network = self.process.universe.network
        if now >= deadline:
            network.leave(self.process, request, "unsent")
            raise SendError("no time was left to send it", kind="timeout", sent=False)
        return await network.exchange(self.process, request, deadline)


async def _resolve(host: str, port: int) -> list[tuple[int, str]]:
    raise OSError("nothing resolves here")
