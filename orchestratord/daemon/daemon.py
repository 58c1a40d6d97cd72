"""The composition root: builds every part, wires them, and handles signals.

Start: plugins, configuration, database (whose lock makes this the only daemon), control socket,
then the worker. Stop: no new claim, wait for what is in flight, give back the rest, close the
socket, close the database.
"""

from __future__ import annotations

import asyncio
import ctypes
import importlib.metadata
import logging
import math
import os
import signal
from collections.abc import Awaitable, Collection, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import IPvAnyNetwork

from orchestratord import log as logs
from orchestratord.api.api_routes import application
from orchestratord.api.server.guard import Guard
from orchestratord.api.server.port_application import no_handler, port_applications
from orchestratord.api.server.server import Listener, Server, TcpListener
from orchestratord.api.service import Service
from orchestratord.config.database_url import queue_url
from orchestratord.config.loader import Loader
from orchestratord.config.validate.socket_path import socket_path
from orchestratord.config.watch import Watcher
from orchestratord.daemon.duties import Duties
from orchestratord.daemon.shutdown import Deadline
from orchestratord.daemon.supervisor import BEYOND_HELP
from orchestratord.daemon.watchdog import Watchdog, end
from orchestratord.engine.lanes.lane_set import LaneSet
from orchestratord.engine.lanes.share import Share
from orchestratord.engine.new.scheduler import Scheduler
from orchestratord.engine.worker import Worker
from orchestratord.errors import OrchestratordError, StorageFull
from orchestratord.http.client import HttpClient
from orchestratord.http.oauth import TokenKeeper
from orchestratord.http.saved_answer import remove_left
from orchestratord.model.event import DaemonEvent, EventType
from orchestratord.model.settings import Http
from orchestratord.plugin.host import Host
from orchestratord.queue import run_counts
from orchestratord.queue.daemon_health import DATABASE, DaemonHealth, is_of_database
from orchestratord.queue.database import Workers
from orchestratord.queue.housekeeping import batch_closing
from orchestratord.queue.housekeeping.prune import prune as prune_some
from orchestratord.queue.housekeeping.recount import recount
from orchestratord.queue.operations import bulk, chores
from orchestratord.queue.store import Store
from orchestratord.runtime.batch_closer import BatchCloser
from orchestratord.runtime.chore_runner import ChoreRunner, Step
from orchestratord.runtime.clock_watch import ClockWatch
from orchestratord.runtime.event_observer import event_observer
from orchestratord.runtime.fleet import Fleet
from orchestratord.runtime.health_events import HealthEvents
from orchestratord.runtime.plugin_chores import do_first_of_line
from orchestratord.runtime.plugin_services import PluginServices
from orchestratord.runtime.reload import SIGHUP, Reloader
from orchestratord.runtime.run_end_teller import RunEndTeller
from orchestratord.runtime.systemd import SystemdNotifier
from orchestratord.runtime.team import Team
from orchestratord.runtime.team_member import TeamMember
from orchestratord.runtime.team_tokens import BorrowedToken, TokenBorrower
from orchestratord.runtime.upgrade import HandedOver, Upgrade
from orchestratord.runtime.worker_seat import Message, SeatNotifier, WorkerSeat, take_over
from orchestratord.values import world
from orchestratord.values.clock import Clock

log = logging.getLogger("orchestratord")

HTTP = "http"
"""The key of the API's own port."""

PRUNE_SLICE = 500
"""Rows in one transaction."""

LAST_TO_LEAVE = 1.0
"""Seconds for which the first worker waits at least for the others, which were interrupted as it
was."""


@dataclass(slots=True)
class DaemonStart:
    """What a daemon starts with, and so each of its workers: see `run`."""

    folder: Path
    host: Host
    loader: Loader
    handler: logs.LogHandler
    accept_removals: bool
    handed_over: HandedOver
    """What the version before has left, or the service manager passes."""
    left: HandedOver | None = None
    """What this one leaves to the next, once it is to become that."""

    @property
    def url(self) -> str:
        """Of the database."""
        return queue_url(self.loader.config)

    @property
    def socket_path(self) -> Path:
        """Of the control socket."""
        return socket_path(self.loader.config.daemon.control_socket, self.folder, os.environ)

    def listen(self) -> Listener:
        """The control socket. Raises OrchestratordError where it cannot be had."""
        old = self.handed_over
        return Listener(self.socket_path, old.control, activated="control" in old.activated)

    def listen_tcp(self) -> dict[str, TcpListener]:
        """The sockets of `http.bind` and of plugins' ports, by the keys of orchestratord.yaml.

        Raises OrchestratordError where one cannot be had.
        """
        config, old = self.loader.config, self.handed_over
        activated = "tcp" in old.activated
        places = {key: port.bind for key, port in config.ports.items()}
        if config.daemon.http is not None:
            places = {HTTP: config.daemon.http.bind, **places}
        left = [one for one in (old.tcp, *old.ports) if one is not None]
        if activated and len(left) > len(places):
            lacks = "has no `http`" if HTTP not in places else "names fewer places"
            raise OrchestratordError(
                f"http.bind: the socket unit listens for TCP, and orchestratord.yaml {lacks}: "
                "write http: {bind: …} with that address, or take its ListenStream= out of the unit"
            )
        found: dict[str, TcpListener] = {}
        try:
            for key, bind in places.items():
                old_one = next((one for one in left if TcpListener.is_at(one, bind)), None)
                if old_one is None and activated and left and len(left) + len(found) == len(places):
                    old_one = left[0]  # which it refuses, and says why
                if old_one is not None:
                    left.remove(old_one)
                found[key] = TcpListener(bind, old_one, activated=activated, key=f"{key}.bind")
        except BaseException:
            for listener in found.values():
                listener.socket.close()
            raise
        for descriptor in left:
            os.close(descriptor)
        return found


@dataclass(frozen=True, slots=True)
class WorkerPlace:
    """What a worker has from the supervisor that has forked it; nothing where there is none."""

    seat: WorkerSeat | None = None
    workers: Workers | None = None
    control: Listener | None = None
    tcp: Mapping[str, TcpListener] = field(default_factory=dict)

    @property
    def first(self) -> bool:
        """Whether the API is served here."""
        return self.seat is None or self.seat.first

    @property
    def share(self) -> Share:
        """What is this worker's of what all may do."""
        return Share() if self.seat is None else Share(self.seat.number, self.seat.count)


class Daemon:
    """One running daemon: its parts, from the network to the API."""

    def __init__(self, store: Store, start: DaemonStart, place: WorkerPlace, clock: Clock) -> None:
        self._store = store
        self._start = start
        self._place = place
        self._clock = clock
        self._host = host = start.host
        self._loader = loader = start.loader
        seat = place.seat
        self._notifier = SystemdNotifier.from_environ() if seat is None else SeatNotifier(seat)
        self._tcp = place.tcp if place.seat is not None else start.listen_tcp()
        own = frozenset((one.address, one.port) for one in self._tcp.values())
        self._client = HttpClient(listeners=own)
        self._borrower = None if place.first else TokenBorrower()
        keeper = TokenKeeper if self._borrower is None else partial(BorrowedToken, self._borrower)
        self._worker = worker = Worker(
            store, host, self._client, clock, share=place.share, make_keeper=keeper
        )
        self._scheduler = Scheduler(store, clock, worker.pipe.new_tasks, host.events)
        self._team = team = Team(worker, seat if place.first else None)
        self._reloader = reloader = Reloader(
            loader, worker, self._scheduler, start.handler, self._notifier, team, seat
        )
        workers = None if seat is None else place.workers
        self._fleet = fleet = Fleet(worker, self._scheduler, reloader, workers)
        self._member = (
            None if self._borrower is None else TeamMember(worker, reloader, loader, self._borrower)
        )
        self._clock_watch = ClockWatch(worker, self._scheduler, fleet.throttles, first=place.first)
        self._upgrade = Upgrade(seat)
        self._service = Service(
            worker,
            self._scheduler,
            reloader,
            fleet,
            self._clock_watch,
            team,
            self._upgrade,
        )
        self._plugin_services = PluginServices(host, store)
        self._closer = BatchCloser(worker)
        loops: dict[str, Worker | Scheduler | Fleet]
        loops = {"worker": worker, "fleet": self._fleet, "scheduler": self._scheduler}
        beats = partial(_beats, store.health, worker.lanes, loops)
        fatal_code = 1 if seat is None else BEYOND_HELP
        self._watchdog = Watchdog(host, store.health, beats, fatal_code=fatal_code)
        self._stop = asyncio.Event()
        self._retires = False
        """Workers of a newer version serve already."""
        # systemd is to hear that the daemon is ready before it hears that it is alive.
        self._fed = math.inf if seat is None and not start.handed_over.succeeds else 0.0
        """When systemd, or the supervisor, was told last that it is (`world.monotonic`)."""
        self._deadline = Deadline(host)
        self._signals = 0

    async def serve(self) -> int:
        """Start everything, serve until told to stop, drain; the exit code.

        Raises ConfigError where the folder lacks most of what tasks wait for, and that is not
        accepted.
        """
        self._take_seat()
        member = self._member
        if member is not None:
            self._handle_signals()
        self._host.events.open(
            self._clock, event_observer(self._worker) if member is None else member.observe
        )
        if member is not None:
            await self._while_not_stopped(member.may_serve())
        # First: what plugins write of the configuration may be tasks, which begin at once.
        await self._fleet.apply_paused()
        if member is None:
            await self._reloader.begin(accept_removals=self._start.accept_removals)
        else:
            await self._reloader.follow()
        await self._fleet.begin()
        servers = [*(self._servers() if member is None else ()), *self._port_servers()]
        if self._host.taken:
            raise self._host.taken[0]
        for server in servers:
            server.start()
        if member is None:
            self._handle_signals()
        watcher = self._watcher(self._start.folder) if member is None else None
        tasks = {name: asyncio.create_task(part, name=name) for name, part in self._parts().items()}
        self._watchdog.start()
        if watcher is not None:
            watcher.start()
            if await self._while_not_stopped(self._team.begin(self._reloader.in_force())):
                self._ready()
        elif member is not None:
            member.serves()
        self._plugin_services.begin(self._service, first=self._place.first)
        code = await self._until_stopped(tasks.values())
        await self._drain(servers, watcher, tasks)
        return code

    async def _drain(
        self, servers: list[Server], watcher: Watcher | None, tasks: dict[str, asyncio.Task[None]]
    ) -> None:
        """Begin nothing new, wait for what is in flight, and leave."""
        drain_timeout = self._loader.config.daemon.drain_timeout
        self._deadline.end_within(drain_timeout)
        self._notifier.draining(upgrades=self._upgrades)
        if self._retires:
            await asyncio.gather(*(server.retire() for server in servers))
        if watcher is not None:
            self._publish(EventType.DAEMON_DRAINING)
            why = "; the new version has taken over" if self._retires else ""
            log.info("draining: up to %gs for what is in flight%s", drain_timeout, why)
            watcher.stop()
        self._reloader.stop()
        for name in ("scheduler", "chores"):
            if name in tasks:
                tasks[name].cancel()
        end_by = world.monotonic() + drain_timeout
        services = asyncio.create_task(self._plugin_services.ended(drain_timeout))
        await self._worker.drain(drain_timeout)
        rest = max(end_by - world.monotonic(), LAST_TO_LEAVE)
        last: list[Awaitable[object]] = [services, self._reloader.ended(rest)]
        if self._stop.is_set():
            # The others drain as well: until they have, they have tokens and the API from here.
            last.append(self._team.others_left(rest))
        await asyncio.gather(*last)
        self._service.close()
        self._host.events.close()
        if self._upgrades:
            # Callers wait at these until the new version accepts them.
            found = [os.dup(server.listening) for server in servers]
            activated = self._start.handed_over.activated
            self._start.left = HandedOver(
                control=found[0], ports=tuple(found[1:]), activated=activated
            )
        if self._start.left is not None or self._start.handed_over.activated:
            await asyncio.gather(*(server.retire() for server in servers))
        await asyncio.gather(*(server.stop() for server in servers))
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
        self._watchdog.stop()
        await self._fleet.leave()
        await self._close()

    @property
    def _upgrades(self) -> bool:
        """Whether it drains to go on as another version; who has it stopped meanwhile wins."""
        return self._upgrade.asked.is_set() and not self._stop.is_set()

    def _ready(self) -> None:
        if self._place.seat is not None:
            self._place.seat.notify(serves=True)  # before what it passes on to systemd
        self._notifier.ready(self._reloader.status_line)
        self._fed = 0.0
        self._publish(EventType.DAEMON_STARTED)
        log.info(
            "ready: %d endpoints, control socket %s, %sdatabase %s%s",
            len(self._loader.config.endpoints),
            self._start.socket_path,
            "".join(f"{one.url}, " for one in self._tcp.values()),
            self._store.url,
            f", {self._team.count} workers" if self._team.count > 1 else "",
        )

    def _take_seat(self) -> None:
        """Listen to the supervisor, where there is one."""
        seat = self._place.seat
        if seat is None:
            return

        def heard(message: Message, descriptors: list[int]) -> None:
            if "link" in message and descriptors:
                sock = take_over(descriptors.pop())
                if self._member is not None:
                    self._member.join(sock)
                else:
                    self._team.join(message["link"], sock)
            elif "retire" in message:
                self._retires = True
                self._stop.set()
            elif "upgrade_failed" in message:
                self._upgrade.failed(message["upgrade_failed"])
            elif "died" in message:
                self._fleet.died(message["died"])
            for descriptor in descriptors:
                os.close(descriptor)

        def left() -> None:
            end("the supervisor has died")

        seat.listen(heard, left)
        seat.notify(owner=self._store.owner)

    def _servers(self) -> list[Server]:
        api = application(self._service, self._host)
        control = self._place.control or self._start.listen()
        servers = [Server(api, control)]
        if (tcp := self._tcp.get(HTTP)) is not None:
            loader = self._loader
            guard = Guard(api, tcp.address, tcp.port, lambda: _http_settings(loader))
            servers.append(Server(guard, tcp))
        return servers

    def _port_servers(self) -> list[Server]:
        """Those of plugins' ports, which all workers serve: each has its own copy of the socket."""
        places = {key: tcp for key, tcp in self._tcp.items() if key != HTTP}
        if not places:
            return []
        ports = port_applications(self._host, self._service)
        return [
            Server(ports.get(key, no_handler), tcp, partial(_proxies, self._loader, key))
            for key, tcp in places.items()
        ]

    def _watcher(self, folder: Path) -> Watcher:
        loop, reloader, loader = asyncio.get_running_loop(), self._reloader, self._loader

        def changed(cause: str) -> None:  # in the watcher's thread
            loop.call_soon_threadsafe(reloader.begin_reload, cause)

        return Watcher(
            folder,
            changed,
            known=lambda: loader.cache.digest,
            files=loader.cache.files,
        )

    def _parts(self) -> dict[str, Coroutine[Any, Any, None]]:
        """What goes on until the daemon stops."""
        parts = {
            "worker": self._worker.run(),
            "fleet": self._fleet.run(),
            "clock": self._clock_watch.run(),
            "watchdog": self._feed_watchdog(),
            "scheduler": self._scheduler.run(),
            "chores": self._chores().run(),
            "duties": self._duties().run(),
        }
        if self._member is not None:
            return {**parts, "member": self._member.run()}
        return {**parts, "team": self._team.run()}

    async def _close(self) -> None:
        """Close what holds connections."""
        for executor in self._host.registry.executors:
            try:
                await executor.close()
            except Exception:
                log.exception("cannot close the executor of %s tasks", executor.kind)
        await self._client.aclose()

    # -- while it runs -------------------------------------------------------------------------

    async def _while_not_stopped(self, step: Coroutine[Any, Any, None]) -> bool:
        """Wait for a step, or for the supervisor to go; whether the step was taken. Raises what
        that raises."""
        taken, stop = asyncio.create_task(step), asyncio.create_task(self._stop.wait())
        done, _ = await asyncio.wait((taken, stop), return_when=asyncio.FIRST_COMPLETED)
        for task in (taken, stop):
            task.cancel()
        if taken in done:
            taken.result()
        return taken in done

    async def _until_stopped(self, parts: Collection[asyncio.Task[None]]) -> int:
        """Wait for a signal, or for a part that ends on its own, which none should."""
        stops = {asyncio.create_task(event.wait()) for event in (self._stop, self._upgrade.asked)}
        done, _ = await asyncio.wait({*stops, *parts}, return_when=asyncio.FIRST_COMPLETED)
        for stop in stops:
            stop.cancel()
        if stops & done:
            return 0
        for part in done:
            error = part.exception() if not part.cancelled() else None
            log.critical("the %s has ended by itself: %s", part.get_name(), error, exc_info=error)
        return 1

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()

        def stop(_number: int, _frame: object) -> None:
            # Not one of the loop's handlers: a hook may hold the loop, and this is called within.
            self._signals += 1
            if self._signals > 1:
                self._deadline.abort()
                return
            self._deadline.end_within(self._loader.config.daemon.drain_timeout)
            with suppress(RuntimeError):  # the loop is closed, and the process about to end
                loop.call_soon_threadsafe(self._stop.set)

        self._deadline.watch()
        signal.signal(signal.SIGTERM, stop)
        if self._place.seat is None:
            signal.signal(signal.SIGINT, stop)
        if self._place.first:
            loop.add_signal_handler(signal.SIGHUP, self._reloader.begin_reload, SIGHUP)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})

    def _publish(self, type_: EventType) -> None:
        at, version = self._clock.now_ms(), importlib.metadata.version("orchestratord")
        self._host.events.publish(DaemonEvent(type_, at, version))

    def _chores(self) -> ChoreRunner:
        ends = RunEndTeller(self._worker)
        steps: dict[str, Step] = {
            bulk.CHORE: self._service.many.runner.step,
            chores.SLICE: self._worker.enqueue.write_slice,
            batch_closing.CHORE: self._closer.deliver,
            run_counts.CHORE: ends.step,
            chores.LINE: partial(do_first_of_line, self._worker),
        }
        return ChoreRunner(self._store, steps, ends.is_needless)

    def _duties(self) -> Duties:
        duties = Duties()

        async def prune() -> None:
            retention, size = self._reloader.config.daemon.retention, PRUNE_SLICE
            while size:
                try:
                    if await prune_some(self._store, retention, size) < size:
                        return
                except StorageFull:  # of the journal: fewer may have room
                    size //= 4
                await asyncio.sleep(0.05)  # in between, others get their turn

        duties.every(30, "prune", prune, at_once=True)
        duties.every(1, "close batches of webhooks", self._closer.close)
        duties.every(60, "count plugins' faults", self._host.log_repeated)
        if not self._place.first:
            return duties

        async def status() -> None:
            self._notifier.status(self._reloader.status_line)

        health = HealthEvents(self._worker, self._fleet)

        async def tidy() -> None:
            await asyncio.to_thread(remove_left, self._loader.config.daemon.files.write)

        duties.every(1, "publish troubles", health.look_at_troubles)
        duties.every(60, "look for endpoints that only fail", health.look_at_endpoints)
        duties.every(1, "count tasks anew", partial(recount, self._store), at_once=True)
        duties.every(3600, "remove what crashes have left of answers", tidy, at_once=True)
        duties.every(60, "look up what the status says", self._service.status, at_once=True)
        duties.every(5, "judge a refused configuration again", self._reloader.judge_again)
        duties.every(10, "write what plugins note", self._reloader.write)
        # What SQLite's caches leave free between what lives stays with the process otherwise, and
        # grows: under 77 calls a second from 63 to 75 MiB in an hour. musl's libc has no such call.
        if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
            duties.every(15, "give memory back", lambda: asyncio.to_thread(trim, 0))
        if self._notifier.listening:
            duties.every(10, "write the status line", status)
        return duties

    async def _feed_watchdog(self) -> None:
        """Show that the loop goes round, to the watchdog and to systemd."""
        timeout = self._notifier.watchdog_timeout
        interval = min(timeout / 2, 5.0) if timeout else None
        while True:
            self._watchdog.beat()
            now = world.monotonic()
            if interval is not None and now - self._fed >= interval:
                if self._watchdog.watches:  # which ends the daemon for whatever else stands still
                    self._notifier.watchdog()
                self._fed = now
            await asyncio.sleep(0.5)


def _beats(
    health: DaemonHealth, lanes: LaneSet, loops: Mapping[str, Worker | Scheduler | Fleet]
) -> dict[str, float]:
    """When each part last went round that should be going round now."""
    beats = {DATABASE: health.beat}
    # A worker that drains goes round no more, and all wait for a database that does not answer.
    if not lanes.draining and not any(map(is_of_database, health.troubles)):
        beats |= {name: loop.beat for name, loop in loops.items() if loop.beat is not None}
    return beats


def _proxies(loader: Loader, key: str) -> tuple[IPvAnyNetwork, ...]:
    return loader.config.ports[key].proxies


def _http_settings(loader: Loader) -> Http:
    http = loader.config.daemon.http
    assert http is not None  # a reload keeps it, and what was bound
    return http
