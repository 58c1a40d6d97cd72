"""One of the workers of a process group, towards the first of them: see `team`."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import Any

from orchestratord.config.loader import Loader
from orchestratord.engine.worker import Worker
from orchestratord.errors import ConfigError, OrchestratordError
from orchestratord.model.event import Event
from orchestratord.plugin.served import plugin_metrics
from orchestratord.runtime.link import Link
from orchestratord.runtime.reload import Reloader
from orchestratord.runtime.team import begin_step
from orchestratord.runtime.team_tokens import TokenBorrower
from orchestratord.runtime.worker_seat import InForce
from orchestratord.values import world

LOOK = 0.2
"""Seconds between two looks at whether there is something to tell."""
MEASURE = 5.0
"""Seconds between two readings of the gauges that each worker has."""


class TeamMember:
    """One of the other workers, towards the first."""

    def __init__(
        self,
        worker: Worker,
        reloader: Reloader,
        loader: Loader,
        borrower: TokenBorrower,
    ) -> None:
        """
        Args:
            worker: whose tasks and events are told of.
            reloader: takes up what the first one says.
            loader: reads it.
            borrower: asks the first one for tokens.
        """
        self._worker = worker
        self._reloader = reloader
        self._loader = loader
        self._host = worker.host
        self._borrower = borrower
        self._link: Link | None = None
        self._may_serve = asyncio.Event()
        self._measured: tuple[Link, float] | None = None
        """Over which stream, and when, gauges were told of."""
        self._serves = False
        self._following: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        """Held by a step that changes the configuration: one at a time, in the order in which they
        were heard, whichever link brought them."""
        self._steps: set[asyncio.Task[None]] = set()
        self._failure: Exception | None = None
        """Why this worker is to end, and another one is to take its place."""

    def join(self, sock: socket.socket) -> None:
        """`sock` leads to the first worker."""
        if self._following is not None:
            self._following.cancel()
        self._following = asyncio.get_running_loop().create_task(self._follow(sock))

    async def may_serve(self) -> None:
        """Return once the first worker has said that the configuration here is the one in force.

        Raises what keeps this worker from taking that up.
        """
        await self._may_serve.wait()
        if self._failure is not None:
            raise self._failure

    def serves(self) -> None:
        """Tasks are carried out here from now on."""
        self._serves = True
        if self._link is not None:
            self._link.send("serving")

    async def run(self) -> None:
        """Tell the first worker what was counted, and what is measured, until cancelled.

        Raises what keeps this worker from following the first one: it ends then.
        """
        while self._failure is None:
            if self._link is not None:
                counters = self._host.registry.counters().items()
                if grown := {name: by for name, one in counters if (by := one.grown())}:
                    self._link.send("counted", grown)
                self._measure(self._link)
            await asyncio.sleep(LOOK)
        raise self._failure

    def _measure(self, link: Link) -> None:
        """Tell what the gauges of each worker are here, where that is due."""
        now = world.monotonic()
        if self._measured == (link, now // MEASURE):
            return
        self._measured = link, now // MEASURE
        gauges = self._host.registry.gauges_of_all().values()
        if found := {one.name: one.values for one in plugin_metrics(self._host, gauges)}:
            link.send("measured", found)

    def observe(self, events: Sequence[Event]) -> None:
        """Have the first worker publish what has happened here."""
        if self._link is None or self._link.slow:
            self._host.events.dropped += len(events)
        else:
            self._link.send("events", events)

    async def _follow(self, sock: socket.socket) -> None:
        try:
            await self._listen(await Link.over(sock))
        except EOFError:
            pass  # the first one has died; another one takes its place
        except Exception as error:
            self._fail(error)

    async def _listen(self, link: Link) -> None:
        self._link = link
        self._borrower.follow(link)
        try:
            begin_step(self._step(link, "hello", ()), self._steps)
            while True:
                self._heard(link, *await link.receive())
        finally:
            link.close()
            if self._link is link:
                self._link = None
                self._borrower.follow(None)

    def _heard(self, link: Link, kind: str, values: Any) -> None:
        if kind == "listening":
            self._host.events.listening = values[0]
        elif kind == "report":
            link.answer(values[0], self._worker.snapshot())
        elif kind == "end":
            self._fail(OrchestratordError(values[0]))
        else:  # what else is heard does not wait for what may take long
            begin_step(self._step(link, kind, values), self._steps)

    def _fail(self, error: Exception) -> None:
        self._failure = self._failure or error
        self._may_serve.set()

    # -- configurations --------------------------------------------------------------------------

    async def _step(self, link: Link, kind: str, values: Any) -> None:
        async with self._turn:
            if self._failure is None:
                try:
                    await self._take_step(link, kind, values)
                except Exception as error:
                    self._fail(error)
            elif kind == "prepare":
                link.answer(values[0], None)  # nothing begins here any more: it holds none up

    async def _take_step(self, link: Link, kind: str, values: Any) -> None:
        if kind == "hello":
            if self._loader.config is not self._reloader.config:
                self._loader.undo()  # a first worker that has died had it prepared
            link.send("hello", self._reloader.config.generation)
            if self._serves:
                link.send("serving")
        elif kind == "prepare":
            await self._prepare(link, *values)
        elif kind == "commit":
            await self._reloader.follow()
        elif kind == "abort":
            self._loader.undo()
        elif kind == "serve":
            self._may_serve.set()

    async def _prepare(self, link: Link, number: int, wanted: InForce) -> None:
        try:
            await asyncio.to_thread(self._loader.follow, *wanted)
        except ConfigError as error:
            link.answer(number, str(error.problems[0]))
        except Exception as error:
            link.answer(number, f"{type(error).__name__}: {error}")
            raise
        else:
            link.answer(number, None)
