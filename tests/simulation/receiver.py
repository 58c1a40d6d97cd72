"""The network of a universe: what is sent, and what receivers do with it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

import httpx

from orchestratord.errors import SendError
from orchestratord.http.client import HttpClient, SendOptions
from orchestratord.model.http_message import Response

if TYPE_CHECKING:
    from tests.simulation.process import Process
    from tests.simulation.universe import Universe

CONNECTING = (0.0005, 0.02)
"""Seconds until a request is at its receiver."""
ANSWERING = (0.001, 0.3)
"""Seconds until it answers."""


@dataclass(slots=True)
class Arrival:
    """A request that was at its receiver, and what became of it."""

    at: float
    host: str
    path: str
    task: int
    attempt: int
    kind: str
    """What the receiver does: a status, or a word of `Receiver.WAYS`."""
    status: int | None = None
    """What it has answered, as far as the receiver knows."""


class Receiver:
    """One host. Its weather changes: for a while it answers, fails or hangs."""

    def __init__(self, universe: Universe, host: str, chance: Random) -> None:
        self._universe = universe
        self.host = host
        self._chance = chance
        self.healthy = False
        """It answers 200 to all, from when the faults are over."""
        self._weather: tuple[tuple[str, ...], tuple[float, ...]] = (("200",), (1.0,))
        self._until = 0.0

    def answer(self) -> str:
        """What it does with the next request."""
        if self.healthy:
            return "200"
        now = self._universe.baton.now
        if now >= self._until:
            self._until = now + self._chance.uniform(1, 20)
            self._weather = self._chance.choice(WEATHERS)
        ways, weights = self._weather
        return self._chance.choices(ways, weights)[0]


WEATHERS: tuple[tuple[tuple[str, ...], tuple[float, ...]], ...] = (
    (("200",), (1.0,)),
    (("200", "500", "hang"), (8.0, 2.0, 0.3)),
    (("500", "503", "200"), (5.0, 3.0, 2.0)),
    (("refused",), (1.0,)),
    (("200", "reset", "404", "refused"), (6.0, 1.0, 0.5, 1.0)),
    (("429", "200"), (1.0, 3.0)),
)


class Network:
    """All receivers, and all that was at them."""

    def __init__(self, universe: Universe, chance: Random) -> None:
        self._universe = universe
        self._chance = chance
        self._receivers: dict[str, Receiver] = {}
        self.arrivals: list[Arrival] = []

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

    async def exchange(
        self, process: Process, request: httpx.Request, deadline: float
    ) -> httpx.Response:
        """Send a request, and have its answer by the loop's `deadline`. Raises SendError."""
        loop, universe = asyncio.get_running_loop(), self._universe
        began, url = loop.time(), request.url
        receiver = self.receiver(url.host)
        kind = receiver.answer()
        await asyncio.sleep(self._chance.uniform(*CONNECTING))
        if kind == "refused":
            raise SendError("connection refused", kind="connect", sent=False)
        headers = request.headers
        task = int(headers.get("x-task", 0))
        attempt = int(headers.get("x-attempt", 0))
        arrival = Arrival(universe.baton.now, url.host, url.path, task, attempt, kind)
        self.arrivals.append(arrival)
        universe.trace.note(process.name, "arrives", url.host, url.path, task, attempt, kind)
        if kind == "hang":
            await asyncio.sleep(max(deadline - loop.time(), 0.0))
            raise SendError("no answer in time", kind="timeout", sent=True)
        await asyncio.sleep(self._chance.uniform(*ANSWERING))
        if kind == "reset":
            raise SendError("connection reset", kind="reset", sent=True)
        arrival.status = int(kind)
        extensions: dict[str, Any] = {"http_version": b"HTTP/1.1", "reason_phrase": b""}
        extensions["truncated"] = False
        fields = [(b"content-type", b"application/json")]
        took = loop.time() - began
        return Response(arrival.status, fields, b"{}", request, extensions, None, took)


class SimulatedClient(HttpClient):
    """The client of one process: it sends into the universe's network."""

    process: Process

    def __init__(self, **options: Any) -> None:
        super().__init__(_resolve, **options)

    async def send_by(
        self, request: httpx.Request, options: SendOptions, now: float, deadline: float
    ) -> httpx.Response:
        if now >= deadline:
            raise SendError("no time was left to send it", kind="timeout", sent=False)
        return await self.process.universe.network.exchange(self.process, request, deadline)


async def _resolve(host: str, port: int) -> list[tuple[int, str]]:
    raise OSError("nothing resolves here")
