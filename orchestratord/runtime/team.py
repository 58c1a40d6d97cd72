"""The workers of one process group: what the first of them says to the others, and hears from them.

The first one serves the API; all of them carry out tasks. It has
each configuration taken up by all or by none, shows what all do as if one did it, and publishes
what happens in any of them. A link is made by the supervisor whenever one of its two ends begins.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from orchestratord.engine.worker import Worker
from orchestratord.errors import Problem
from orchestratord.http.oauth import Token
from orchestratord.model.event import Event, PluginEvent
from orchestratord.queue.daemon_health import Trouble
from orchestratord.runtime.link import Link
from orchestratord.runtime.team_tokens import lend
from orchestratord.runtime.worker_seat import InForce, WorkerSeat

log = logging.getLogger("orchestratord.supervisor")

REPORT_WITHIN = 0.5
"""Seconds for which what another worker says of itself is waited for; then it is what it said
last."""
PREPARED_WITHIN = 60.0
"""Seconds in which each worker has to have read a configuration."""


def begin_step(step: Coroutine[Any, Any, None], among: set[asyncio.Task[None]]) -> None:
    """Have a step go on by itself; until it ends it is `among` these, which keeps it alive."""
    task = asyncio.get_running_loop().create_task(step)
    among.add(task)
    task.add_done_callback(among.discard)


class OtherWorker:
    """Another worker, as the first one knows it."""

    def __init__(self, number: int, link: Link) -> None:
        self.number = number
        self.link = link
        self.generation = 0
        """That it has begun with."""
        self.serves = False
        """It has the configuration in force, and carries out tasks."""
        self.snapshot: dict[str, Any] | None = None
        """What it said last of what it is at; see `Worker.snapshot`."""
        self._reporting: asyncio.Task[None] | None = None

    def report(self) -> asyncio.Task[None]:
        """Learns what it is at. Until it answers, it is asked once."""
        if self._reporting is None or self._reporting.done():
            self._reporting = asyncio.create_task(self._report())
        return self._reporting

    async def _report(self) -> None:
        with suppress(EOFError):
            self.snapshot = await self.link.ask("report")


class Team:
    """All other workers, as the first one deals with them; a daemon without workers has none."""

    def __init__(self, worker: Worker, seat: WorkerSeat | None = None) -> None:
        """
        Args:
            worker: of this process, whose plugins hear what happens in the others, and whose tokens
                are lent to them.
            seat: of the first worker; None for a daemon without others.
        """
        self.count = seat.count if seat is not None else 1
        self._seat = seat
        self._host = worker.host
        self._worker = worker
        self._peers: dict[int, OtherWorker] = {}
        self._asked: Sequence[OtherWorker] = ()
        """Those that have read a configuration which is not in force yet."""
        self._complete = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._left = asyncio.Event()
        """Set when another worker has gone."""
        self._began = asyncio.Event()
        """This worker has its configuration, and serves."""
        self.lock = asyncio.Lock()
        """Held while the configuration changes."""
        self.in_force: InForce | None = None
        """What those that begin have to have."""

    # -- the links -----------------------------------------------------------------------------

    def join(self, number: int, sock: socket.socket) -> None:
        """A worker has begun, or this one has: `sock` leads to it."""
        begin_step(self._follow(number, sock), self._tasks)

    async def begin(self, in_force: InForce) -> None:
        """This worker serves, and has the others begin; return once all do."""
        self.in_force = in_force
        self._began.set()
        for peer in [peer for peer in self._peers.values() if peer.generation]:
            await self._agree(peer, peer.generation)
        if self.count > 1:
            await self._complete.wait()

    async def others_left(self, within: float) -> None:
        """Wait until all other workers have ended, for up to `within` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                while self._peers:
                    self._left.clear()
                    await self._left.wait()

    async def run(self) -> None:
        """Tell the others whether anyone listens to what happens, until cancelled."""
        events = self._host.events
        while True:
            events.turned.clear()
            for peer in self._peers.values():
                peer.link.send("listening", events.listening)
            await events.turned.wait()

    async def _follow(self, number: int, sock: socket.socket) -> None:
        peer = OtherWorker(number, await Link.over(sock))
        peer.link.send("listening", self._host.events.listening)
        self._peers[number] = peer
        agreeing: asyncio.Task[None] | None = None
        try:
            while True:
                kind, values = await peer.link.receive()
                if kind == "hello":
                    peer.generation = values[0]
                    agreeing = asyncio.create_task(self._agree(peer, values[0]))
                elif kind == "token":
                    begin_step(self._lend(peer.link, *values), self._tasks)
                else:
                    self._heard(peer, kind, values)
        except EOFError:
            pass
        except Exception:
            log.exception("cannot understand worker %d: stopping it", number)
            peer.link.send("end", "the first worker does not understand this one")
        finally:
            if agreeing is not None:
                agreeing.cancel()
            peer.link.close()
            if self._peers.get(number) is peer:
                del self._peers[number]
                for _, gauge in self._host.registry.gauges_of_all().values():
                    gauge.of_others.pop(number, None)
                self._left.set()

    async def _agree(self, peer: OtherWorker, generation: int) -> None:
        """Have a worker begin that has the configuration of `generation`."""
        try:
            async with self.lock:
                in_force = self.in_force
                if in_force is None:
                    return  # it is told to begin once this one does
                if generation != in_force.generation:
                    problem = await self._prepare(peer, in_force)
                    if problem is not None:
                        self._have_end(peer, f"cannot begin: {problem}")
                        return
                    peer.link.send("commit")
                peer.link.send("serve")
        except EOFError:
            log.error("worker %d has ended before it began", peer.number)
        except TimeoutError:
            self._have_end(peer, "has not begun: no answer")

    def _have_end(self, peer: OtherWorker, why: str) -> None:
        """Have a worker end that is of no use, so that another one takes its place."""
        log.error("stopping worker %d: it %s", peer.number, why)
        peer.link.send("end", f"this worker {why}")

    async def _lend(
        self, link: Link, number: int, name: str, refused: Token | None, until: float
    ) -> None:
        """Answer a worker that needs a token; one that asks a successor early waits for it."""
        await self._began.wait()
        worker = self._worker
        config = worker.placement.config
        apis = config.apis
        if name not in apis:
            found = (one.access(name, config) for one in self._host.registry.executors)
            apis = {api.name: api for api in found if api is not None}
        link.answer(number, await lend(worker.sender, apis, name, refused, until))

    def _heard(self, peer: OtherWorker, kind: str, values: Any) -> None:
        if kind == "events":
            for event in values[0]:
                self._happened(event)
        elif kind == "counted":
            counters = self._host.registry.counters()
            for name, grown in values[0].items():
                for labels, by in grown.items():
                    counters[name].add(*labels, by=by)
        elif kind == "measured":
            gauges = self._host.registry.gauges_of_all()
            for name, measured in values[0].items():
                gauges[name][1].of_others[peer.number] = measured
        elif kind == "serving":
            peer.serves = True
            if self.count == 1 + sum(other.serves for other in self._peers.values()):
                self._complete.set()

    def _happened(self, event: Event) -> None:
        if isinstance(event, PluginEvent) and (info := self._host.plugins.get(event.plugin)):
            info.faults += 1
            info.last_fault = f"{event.hook}: {event.error}"
        self._host.events.publish(event)

    # -- configurations --------------------------------------------------------------------------

    async def prepare(self, wanted: InForce) -> Problem | None:
        """Have all read a configuration; why one of them cannot, and `abort` is due."""
        # Those that begin meanwhile wait for the lock, and have then what is in force.
        self._asked = peers = [peer for peer in self._peers.values() if peer.generation]
        asked = (self._prepare(peer, wanted) for peer in peers)
        answers = await asyncio.gather(*asked, return_exceptions=True)
        for peer, answer in zip(peers, answers, strict=True):
            if isinstance(answer, EOFError):
                continue  # it has died; the one that takes its place begins with what is in force
            if answer is not None:
                why = answer if isinstance(answer, str) else "it does not answer"
                return Problem(f"worker {peer.number} cannot take it up: {why}")
        return None

    async def _prepare(self, peer: OtherWorker, wanted: InForce) -> str | None:
        """Why a worker cannot take up a configuration; None where it can."""
        async with asyncio.timeout(PREPARED_WITHIN):
            found: str | None = await peer.link.ask("prepare", wanted)
        return found

    def commit(self, in_force: InForce) -> None:
        """What was prepared is in force; those that begin later have it from the start."""
        self.in_force = in_force
        for peer in self._asked:
            peer.link.send("commit")
        if self._seat is not None:
            self._seat.notify_adopted(in_force)

    def abort(self) -> None:
        """What was prepared is not to come into force."""
        for peer in self._asked:
            peer.link.send("abort")

    # -- what all are at ---------------------------------------------------------------------------

    def troubles(self) -> list[Trouble]:
        """That others are still to begin, where that is so."""
        missing = self.count - 1 - sum(peer.serves for peer in self._peers.values())
        if missing <= 0:
            return []
        why = f"{missing} of {self.count} workers are still to begin"
        return [Trouble("workers_missing", why, 0)]

    async def snapshot(self, own: dict[str, Any]) -> dict[str, Any]:
        """What all workers are at together, `own` included; see `Worker.snapshot`."""
        if not self._peers:
            return own
        # One that has no configuration yet is at nothing.
        peers = [peer for peer in self._peers.values() if peer.serves]
        if peers:
            await asyncio.wait([peer.report() for peer in peers], timeout=REPORT_WITHIN)
        return together([own, *(peer.snapshot for peer in peers if peer.snapshot is not None)])


# -- Many as one -----------------------------------------------------------------------------------


def together(snapshots: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What several workers are at, as if one were: see `Worker.snapshot`."""
    due = [found for snapshot in snapshots if (found := snapshot["next_due"]) is not None]
    rates = [snapshot["rates"] for snapshot in snapshots]
    return {
        "in_flight": sum(snapshot["in_flight"] for snapshot in snapshots),
        "concurrency": snapshots[0]["concurrency"],
        "events_dropped": sum(snapshot["events_dropped"] for snapshot in snapshots),
        "unheld_claims": sum(snapshot["unheld_claims"] for snapshot in snapshots),
        "draining": any(snapshot["draining"] for snapshot in snapshots),
        "next_due": min(due, default=None),
        "rates": {name: round(sum(rate[name] for rate in rates), 2) for name in rates[0]},
        "lanes": _lanes(lane for snapshot in snapshots for lane in snapshot["lanes"]),
        "throttled": _lanes(scope for snapshot in snapshots for scope in snapshot["throttled"]),
    }


def _lanes(views: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each lane what all have in flight; it waits where one of them waits."""
    found: dict[str, dict[str, Any]] = {}
    for view in views:
        known = found.get(view["name"])
        if known is None:
            found[view["name"]] = dict(view)
            continue
        for name in ("in_flight", "openings"):
            if name in view:
                known[name] += view[name]
        known["due"] = max(known["due"], view["due"])  # the same keys may be due in several
        for name in ("rate", "breaker", "retry_after", "overload"):
            known[name] = known[name] or view[name]
    return list(found.values())
