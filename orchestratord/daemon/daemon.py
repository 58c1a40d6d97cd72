"""The composition root: builds every part, wires them, and handles signals.

Start: plugins, configuration, database (whose lock makes this the only daemon), control socket,
then the worker. Stop: no new claim, wait for what is in flight, give back the rest, close the
socket, close the database.
"""

from __future__ import annotations

import asyncio
import gc
import importlib.metadata
import logging
import os
import signal
import time
from collections.abc import Callable, Collection
from pathlib import Path

from orchestratord import log as logs
from orchestratord.api.api_routes import application
from orchestratord.api.server.guard import Guard
from orchestratord.api.server.server import Listener, Server, TcpListener
from orchestratord.api.verbs import Verbs
from orchestratord.config.loader import Loader
from orchestratord.config.watch import Watcher
from orchestratord.daemon.bootstrap import ADDRESSES, control_socket, database_url, open_host
from orchestratord.daemon.chores import Chores
from orchestratord.daemon.systemd import Notifier
from orchestratord.daemon.watchdog import LoopWatch
from orchestratord.engine.scheduler import Scheduler
from orchestratord.engine.worker import Worker
from orchestratord.errors import ConfigError, OrchestratordError, PluginError
from orchestratord.http.client import HttpClient
from orchestratord.model.event import DaemonEvent, EventType
from orchestratord.model.settings import Config, Http
from orchestratord.plugin.host import Host
from orchestratord.queue.operations import manual
from orchestratord.queue.operations.prune import prune as prune_some
from orchestratord.queue.store import Store
from orchestratord.runtime.fleet import Fleet
from orchestratord.runtime.reload import SIGHUP, Adoption
from orchestratord.values.clock import Clock

log = logging.getLogger("orchestratord")

EX_CONFIG = 78
"""The exit code for a bad configuration, as in sysexits.h."""

PRUNE_SLICE = 500
"""Rows in one transaction."""

STALLED_AFTER = 15.0
"""Seconds without a sign of life from a part, after which systemd is told nothing any more."""

COLLECT = (10_000, 20, 20)
"""How many new objects, and collections of the younger ones, begin a search for cycles."""


def run(folder: Path) -> int:
    """Run the daemon on this config folder until a signal ends it; the exit code."""
    handler = logs.set_up()
    # Until the handler stands, a reload that is asked for early must not end the daemon.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        host = open_host(folder)
        loader = Loader(folder, host, addresses=ADDRESSES)
    except ConfigError as error:
        return _refused(error)
    except PluginError as error:
        log.critical("%s", error)
        return EX_CONFIG
    handler.adopt(loader.config.daemon.log, loader.config.redactor)
    # Each attempt makes hundreds of objects and hardly a cycle; looking for those so often as
    # Python does by itself takes a twentieth of all time.
    gc.set_threshold(*COLLECT)
    try:
        return asyncio.run(Daemon(folder, host, loader, handler).serve())
    except ConfigError as error:
        return _refused(error)
    except (OrchestratordError, OSError) as error:
        log.critical("%s", error)
        return 1


def _refused(error: ConfigError) -> int:
    for problem in error.problems:
        log.critical("%s", problem)
    return EX_CONFIG


class Daemon:
    """One running daemon."""

    def __init__(self, folder: Path, host: Host, loader: Loader, handler: logs.LogHandler) -> None:
        self._folder = folder
        self._host = host
        self._loader = loader
        self._handler = handler
        self._clock = Clock()
        self._notifier = Notifier.from_environ()
        self._stop = asyncio.Event()
        self._signals = 0
        self._reloads: set[asyncio.Task[None]] = set()

    async def serve(self) -> int:
        """Start everything, serve until told to stop, drain; the exit code."""
        settings = self._loader.config.daemon
        url = database_url(settings, self._folder, os.environ)
        path = control_socket(settings, self._folder, os.environ)
        tables = self._host.registry.tables.values()
        store = await Store.open(url, tables=tables, clock=self._clock, lease=settings.lease)
        self._handler.gather(asyncio.get_running_loop())
        try:
            return await self._serve(store, path)
        finally:
            await store.close()
            log.info("stopped")
            self._handler.write_through()

    async def _serve(self, store: Store, path: Path) -> int:
        events = self._host.events
        events.open(self._clock, observed=self._host.compiled("observe") is not None)
        http = self._loader.config.daemon.http
        tcp = TcpListener(http.bind) if http is not None else None
        own = frozenset({(tcp.address, tcp.port)}) if tcp is not None else frozenset()
        client = HttpClient(listeners=own)
        worker = Worker(store, self._host, client, self._clock)
        scheduler = Scheduler(store, self._clock, worker.touched, self._host.events)
        adoption = Adoption(
            self._loader, store, self._host, worker, scheduler, self._clock,
            self._adopted, lambda began: self._reloading(began, worker, adoption),
        )  # fmt: skip
        lease = self._loader.config.daemon.lease
        fleet = Fleet(store, worker, scheduler, adoption, self._host, self._clock, lease)
        verbs = Verbs(store, worker, adoption, self._host, self._clock, scheduler, fleet)
        paused = await store.read(manual.paused())
        worker.set_paused(paused)
        scheduler.set_paused(paused)
        await adoption.begin()
        await fleet.begin()
        api = application(verbs)
        servers = [Server(api, Listener(path))]
        if tcp is not None:
            servers.append(Server(Guard(api, tcp.address, tcp.port, self._http), tcp))
        for server in servers:
            server.start()
        self._handle_signals(adoption)
        watcher = Watcher(
            self._folder, self._from_thread(adoption),
            known=lambda: self._loader.digest, files=self._loader.files,
        )  # fmt: skip
        watch = LoopWatch(self._host)
        parts = {
            "scheduler": scheduler.run(),
            "worker": worker.run(),
            "bulks": verbs.bulks.run(),
            "fleet": fleet.run(),
            "chores": self._chores(store, worker, adoption).run(),
            "watchdog": self._feed_watchdog(watch, worker, store),
        }
        tasks = {name: asyncio.create_task(part, name=name) for name, part in parts.items()}
        watch.start()
        watcher.start()
        self._notifier.ready(self._status(worker, adoption))
        self._tell(EventType.DAEMON_STARTED)
        log.info(
            "ready: %d endpoints, control socket %s, %sdatabase %s",
            len(self._loader.config.endpoints), path, f"{tcp.url}, " if tcp else "", store.url,
        )  # fmt: skip
        code = await self._until_stopped(tasks.values())
        self._notifier.stopping("draining")
        self._tell(EventType.DAEMON_DRAINING)
        log.info("draining: up to %gs for what is in flight", self._drain_timeout)
        watcher.stop()
        for name in ("scheduler", "bulks"):
            tasks[name].cancel()
        await worker.drain(self._drain_timeout)
        verbs.close()
        events.close()
        await asyncio.gather(*(server.stop() for server in servers))
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
        watch.stop()
        await fleet.leave()
        for executor in self._host.registry.executors:
            try:
                await executor.close()
            except Exception:
                log.exception("the executor of %s tasks cannot be closed", executor.kind)
        await client.aclose()
        return code

    # -- while it runs -------------------------------------------------------------------------

    async def _until_stopped(self, parts: Collection[asyncio.Task[None]]) -> int:
        """Wait for a signal, or for a part that ends on its own, which none should."""
        stop = asyncio.create_task(self._stop.wait())
        done, _ = await asyncio.wait({stop, *parts}, return_when=asyncio.FIRST_COMPLETED)
        if stop in done:
            return 0
        stop.cancel()
        for part in done:
            error = part.exception() if not part.cancelled() else None
            log.critical("the %s ended: %s", part.get_name(), error, exc_info=error)
        return 1

    def _handle_signals(self, adoption: Adoption) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop)
        loop.add_signal_handler(signal.SIGHUP, self._begin_reload, adoption, SIGHUP)

    def _on_stop(self) -> None:
        self._signals += 1
        if self._signals > 1:
            log.critical("a second signal: aborting; the next start sorts out what was in flight")
            os._exit(1)
        self._stop.set()

    def _from_thread(self, adoption: Adoption) -> Callable[[str], None]:
        """What the watcher's thread calls with the cause."""
        loop = asyncio.get_running_loop()

        def changed(cause: str) -> None:
            loop.call_soon_threadsafe(self._begin_reload, adoption, cause)

        return changed

    def _begin_reload(self, adoption: Adoption, cause: str) -> None:
        task = asyncio.get_running_loop().create_task(self._reload(adoption, cause))
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

    async def _reload(self, adoption: Adoption, cause: str) -> None:
        try:
            await adoption.reload(cause)
        except Exception:
            log.exception("reloading failed; the last good configuration goes on")

    def _reloading(self, began: bool, worker: Worker, adoption: Adoption) -> None:
        if began:
            self._notifier.reloading("reloading")
        else:
            self._notifier.ready(self._status(worker, adoption))

    def _adopted(self, config: Config) -> None:
        self._handler.adopt(config.daemon.log, config.redactor)
        self._host.timeout = config.daemon.plugins.timeout
        self._host.redactor = self._host.redactor.merged(config.redactor)

    def _tell(self, type_: EventType) -> None:
        at, version = self._clock.now_ms(), importlib.metadata.version("orchestratord")
        self._host.events.publish(DaemonEvent(type_, at, version))

    def _chores(self, store: Store, worker: Worker, adoption: Adoption) -> Chores:
        chores = Chores()

        async def prune() -> None:
            retention = self._loader.config.daemon.retention
            while await prune_some(store, retention, PRUNE_SLICE) >= PRUNE_SLICE:  # noqa: ASYNC110  # in between, others get their turn
                await asyncio.sleep(0.05)

        async def status() -> None:
            self._notifier.status(self._status(worker, adoption))

        chores.every(30, "prune", prune)
        chores.every(10, "what plugins note of the configuration", adoption.write)
        if self._notifier.listening:
            chores.every(10, "status line", status)
        return chores

    async def _feed_watchdog(self, watch: LoopWatch, worker: Worker, store: Store) -> None:
        """Tell systemd that the loop, the worker and the database thread all are alive."""
        timeout = self._notifier.watchdog_timeout
        interval = min(timeout / 2, 5.0) if timeout else None
        fed = 0.0
        while True:
            watch.beat()
            now = time.monotonic()
            if interval is not None and now - fed >= interval:
                stalled = [
                    name
                    for name, beat in (("worker", worker.beat), ("database", store.health.beat))
                    # A draining worker goes round no more; it waits for what is in flight.
                    if now - beat > STALLED_AFTER and not (name == "worker" and worker.draining)
                ]
                if stalled:
                    log.error("no sign of life from the %s", " and the ".join(stalled))
                else:
                    self._notifier.watchdog()
                fed = now
            await asyncio.sleep(0.5)

    def _status(self, worker: Worker, adoption: Adoption) -> str:
        if adoption.last_error is not None:
            return f"config refused: {adoption.last_error[1][0]}"
        config = self._loader.config
        return (
            f"{len(config.endpoints)} endpoints, generation {config.generation}, "
            f"{worker.lanes.in_flight} in flight"
        )

    def _http(self) -> Http:
        http = self._loader.config.daemon.http
        assert http is not None  # a reload keeps it, and what was bound
        return http

    @property
    def _drain_timeout(self) -> float:
        return self._loader.config.daemon.drain_timeout
