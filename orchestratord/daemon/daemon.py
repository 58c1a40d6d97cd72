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
from collections.abc import Collection, Coroutine
from pathlib import Path
from typing import Any

from orchestratord import log as logs
from orchestratord.api.api_routes import application
from orchestratord.api.server.guard import Guard
from orchestratord.api.server.server import Listener, Server, TcpListener
from orchestratord.api.service import Service
from orchestratord.config.loader import Loader
from orchestratord.config.watch import Watcher
from orchestratord.daemon.bootstrap import ADDRESSES, control_socket, database_url, open_host
from orchestratord.daemon.chores import Chores
from orchestratord.daemon.watchdog import LoopWatch
from orchestratord.engine.scheduler import Scheduler
from orchestratord.engine.worker import Worker
from orchestratord.errors import ConfigError, OrchestratordError, PluginError
from orchestratord.http.client import HttpClient
from orchestratord.model.event import DaemonEvent, EventType
from orchestratord.model.settings import Http
from orchestratord.plugin.host import Host
from orchestratord.queue.operations.prune import prune as prune_some
from orchestratord.queue.store import Store
from orchestratord.runtime.fleet import Fleet
from orchestratord.runtime.reload import SIGHUP, Reloader
from orchestratord.runtime.systemd import SystemdNotifier
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
        return _bad_config(error)
    except PluginError as error:
        log.critical("%s", error)
        return EX_CONFIG
    handler.adopt(loader.config.daemon.log, loader.config.redactor)
    # Each attempt makes hundreds of objects and hardly a cycle; looking for those so often as
    # Python does by itself takes a twentieth of all time.
    gc.set_threshold(*COLLECT)
    try:
        return asyncio.run(_serve(folder, host, loader, handler))
    except ConfigError as error:
        return _bad_config(error)
    except (OrchestratordError, OSError) as error:
        log.critical("%s", error)
        return 1


def _bad_config(error: ConfigError) -> int:
    for problem in error.problems:
        log.critical("%s", problem)
    return EX_CONFIG


async def _serve(folder: Path, host: Host, loader: Loader, handler: logs.LogHandler) -> int:
    """Open the queue, run a daemon on it, and close it; the exit code."""
    settings = loader.config.daemon
    path = control_socket(settings, folder, os.environ)
    url = database_url(settings, folder, os.environ)
    clock = Clock()
    tables = host.registry.tables.values()
    store = await Store.open(url, tables=tables, clock=clock, lease=settings.lease)
    handler.gather(asyncio.get_running_loop())
    try:
        return await Daemon(store, host, loader, clock, handler).serve(folder, path)
    finally:
        await store.close()
        log.info("stopped")
        handler.write_through()


class Daemon:
    """One running daemon: its parts, from the network to the API."""

    def __init__(
        self, store: Store, host: Host, loader: Loader, clock: Clock, handler: logs.LogHandler
    ) -> None:
        settings, events = loader.config.daemon, host.events
        events.open(clock, observed=host.compiled("observe") is not None)
        self._store = store
        self._host = host
        self._loader = loader
        self._clock = clock
        self._notifier = SystemdNotifier.from_environ()
        self._tcp = TcpListener(settings.http.bind) if settings.http is not None else None
        own = frozenset({(self._tcp.address, self._tcp.port)}) if self._tcp else frozenset()
        self._client = HttpClient(listeners=own)
        self._worker = worker = Worker(store, host, self._client, clock)
        self._scheduler = Scheduler(store, clock, worker.placement, events)
        self._reloader = Reloader(
            loader, store, host, worker, self._scheduler, clock, handler, self._notifier
        )
        self._fleet = Fleet(
            store, worker, self._scheduler, self._reloader, host, clock, settings.lease
        )
        self._service = Service(
            store, worker, self._scheduler, self._reloader, self._fleet, host, clock
        )
        self._watch = LoopWatch(host)
        self._stop = asyncio.Event()
        self._signals = 0

    async def serve(self, folder: Path, path: Path) -> int:
        """Start everything, serve until told to stop, drain; the exit code.

        Args:
            folder: of the configuration, which is watched.
            path: of the control socket.
        """
        # First: what plugins write of the configuration may be tasks, which begin at once.
        await self._fleet.apply_paused()
        await self._reloader.begin()
        await self._fleet.begin()
        servers = self._servers(path)
        for server in servers:
            server.start()
        self._handle_signals()
        watcher = self._watcher(folder)
        tasks = {name: asyncio.create_task(part, name=name) for name, part in self._parts().items()}
        self._watch.start()
        watcher.start()
        self._notifier.ready(self._reloader.status_line)
        self._tell(EventType.DAEMON_STARTED)
        log.info(
            "ready: %d endpoints, control socket %s, %sdatabase %s",
            len(self._loader.config.endpoints),
            path,
            f"{self._tcp.url}, " if self._tcp else "",
            self._store.url,
        )
        code = await self._until_stopped(tasks.values())
        drain_timeout = self._loader.config.daemon.drain_timeout
        self._notifier.stopping("draining")
        self._tell(EventType.DAEMON_DRAINING)
        log.info("draining: up to %gs for what is in flight", drain_timeout)
        watcher.stop()
        for name in ("scheduler", "bulks"):
            tasks[name].cancel()
        await self._worker.drain(drain_timeout)
        self._service.close()
        self._host.events.close()
        await asyncio.gather(*(server.stop() for server in servers))
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
        self._watch.stop()
        await self._fleet.leave()
        await self._close()
        return code

    def _servers(self, path: Path) -> list[Server]:
        api = application(self._service, self._host)
        servers = [Server(api, Listener(path))]
        if (tcp := self._tcp) is not None:
            loader = self._loader
            guard = Guard(api, tcp.address, tcp.port, lambda: _http_settings(loader))
            servers.append(Server(guard, tcp))
        return servers

    def _watcher(self, folder: Path) -> Watcher:
        loop, reloader = asyncio.get_running_loop(), self._reloader

        def changed(cause: str) -> None:  # in the watcher's thread
            loop.call_soon_threadsafe(reloader.begin_reload, cause)

        return Watcher(
            folder,
            changed,
            known=lambda: self._loader.cache.digest,
            files=self._loader.cache.files,
        )

    def _parts(self) -> dict[str, Coroutine[Any, Any, None]]:
        """What goes on until the daemon stops."""
        return {
            "scheduler": self._scheduler.run(),
            "worker": self._worker.run(),
            "bulks": self._service.bulk_runner.run(),
            "fleet": self._fleet.run(),
            "chores": self._chores().run(),
            "watchdog": self._feed_watchdog(),
        }

    async def _close(self) -> None:
        """Close what holds connections."""
        for executor in self._host.registry.executors:
            try:
                await executor.close()
            except Exception:
                log.exception("the executor of %s tasks cannot be closed", executor.kind)
        await self._client.aclose()

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

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop)
        loop.add_signal_handler(signal.SIGHUP, self._reloader.begin_reload, SIGHUP)

    def _on_stop(self) -> None:
        self._signals += 1
        if self._signals > 1:
            log.critical("a second signal: aborting; the next start sorts out what was in flight")
            os._exit(1)
        self._stop.set()

    def _tell(self, type_: EventType) -> None:
        at, version = self._clock.now_ms(), importlib.metadata.version("orchestratord")
        self._host.events.publish(DaemonEvent(type_, at, version))

    def _chores(self) -> Chores:
        chores = Chores()

        async def prune() -> None:
            retention = self._loader.config.daemon.retention
            while await prune_some(self._store, retention, PRUNE_SLICE) >= PRUNE_SLICE:  # noqa: ASYNC110  # in between, others get their turn
                await asyncio.sleep(0.05)

        async def status() -> None:
            self._notifier.status(self._reloader.status_line)

        chores.every(30, "prune", prune)
        chores.every(10, "what plugins note of the configuration", self._reloader.write)
        if self._notifier.listening:
            chores.every(10, "status line", status)
        return chores

    async def _feed_watchdog(self) -> None:
        """Tell systemd that the loop, the worker and the database thread all are alive."""
        worker, timeout = self._worker, self._notifier.watchdog_timeout
        interval = min(timeout / 2, 5.0) if timeout else None
        fed = 0.0
        while True:
            self._watch.beat()
            now = time.monotonic()
            if interval is not None and now - fed >= interval:
                stalled = [
                    name
                    for name, beat in (
                        ("worker", worker.beat),
                        ("database", self._store.health.beat),
                    )
                    # A draining worker goes round no more; it waits for what is in flight.
                    if now - beat > STALLED_AFTER
                    and not (name == "worker" and worker.lanes.draining)
                ]
                if stalled:
                    log.error("no sign of life from the %s", " and the ".join(stalled))
                else:
                    self._notifier.watchdog()
                fed = now
            await asyncio.sleep(0.5)


def _http_settings(loader: Loader) -> Http:
    http = loader.config.daemon.http
    assert http is not None  # a reload keeps it, and what was bound
    return http
