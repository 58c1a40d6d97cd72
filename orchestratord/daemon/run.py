"""`orchestratord run`: one process, or a supervisor and its workers, from its start to its end; and
how one version becomes the next.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from orchestratord import log as logs
from orchestratord.api.server.server import Listener
from orchestratord.config.loader import Loader
from orchestratord.daemon.bootstrap import ADDRESSES, open_host
from orchestratord.daemon.daemon import HTTP, Daemon, DaemonStart, WorkerPlace
from orchestratord.daemon.shutdown import leave_threads, run_loop
from orchestratord.daemon.supervisor import Supervisor
from orchestratord.errors import ConfigError, OrchestratordError, PluginError
from orchestratord.model.settings import DaemonSettings
from orchestratord.queue.database import Workers
from orchestratord.queue.store import Store, open_database
from orchestratord.runtime.systemd import SystemdNotifier, passed_sockets
from orchestratord.runtime.upgrade import HandedOver, Succession, take_signals, what_this_is
from orchestratord.runtime.worker_seat import WorkerSeat
from orchestratord.values import doc_links
from orchestratord.values.clock import Clock

log = logging.getLogger("orchestratord")

EX_CONFIG = 78
"""The exit code for a bad configuration, as in sysexits.h."""

COLLECT = (50_000, 20, 20)
"""How many new objects, and collections of the younger ones, begin a search for cycles. More than
the tasks of one claim are made of, or each claim begins one."""


def examine(folder: Path) -> int:
    """Print what this version is, once it has read the configuration; the exit code."""
    logs.set_up()

    def say() -> int:
        Loader(folder, open_host(folder), addresses=ADDRESSES)
        print(what_this_is())
        return 0

    return _ended(say)


def run(folder: Path, *, accept_removals: bool = False) -> int:
    """Run the daemon on this config folder until a signal ends it; the exit code.

    `accept_removals`: also where the folder lacks most of what tasks wait for.
    """
    handler = logs.set_up()
    handler.write_apart()
    handed_over = HandedOver.take()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # A reload that is asked for early waits until the handler stands.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    # No KeyboardInterrupt is a user's from here on: whatever raises one is a plugin.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        sockets = handed_over or _passed()
        host = open_host(folder)
        loader = Loader(folder, host, addresses=ADDRESSES)
    except (ConfigError, PluginError) as error:
        return _go_back(handed_over, error, _bad_config(error))
    except OrchestratordError as error:
        log.critical("%s", error, extra=_no_start())
        return _go_back(handed_over, error, 1)
    except Exception as error:
        if handed_over is None:
            raise
        return _go_back(handed_over, error, 1)
    handler.adopt(loader.config.daemon.log, loader.config.redactor)
    if handed_over is not None:
        # Reading may have taken long, and the service manager has waited meanwhile.
        SystemdNotifier.from_environ().watchdog()
    # Each attempt makes hundreds of objects and hardly a cycle; looking for those so often as
    # Python does by itself takes a twentieth of all time.
    gc.set_threshold(*COLLECT)
    start = DaemonStart(folder, host, loader, handler, accept_removals, sockets)
    count = loader.config.daemon.worker_count
    if count > 1 or start.handed_over.workers:
        code = _ended(lambda: _supervise(start, count))
    else:
        if start.handed_over.lock is not None:
            os.close(start.handed_over.lock)  # this one takes it for itself
        take_signals(reload=False)
        code = _ended(lambda: _work(start, WorkerPlace()))
    if start.left is not None:
        code = _ended(start.left.execute)
    return leave_threads(code)


def _passed() -> HandedOver:
    """The sockets that the service manager passes. Raises OrchestratordError where they are others
    than the daemon listens at."""
    found = passed_sockets()
    activated = (("control",) if found.control is not None else ()) + (
        ("tcp",) if found.tcp else ()
    )
    return HandedOver(control=found.control, ports=found.tcp, activated=activated)


def _go_back(handed_over: HandedOver | None, why: Exception, code: int) -> int:
    """Look after the workers of the version before, which go on; the exit code, which is `code`
    where there are none. `why`: what keeps this version from its start."""
    if handed_over is None or not handed_over.workers:
        return code
    notifier = SystemdNotifier.from_environ()
    drain_timeout = handed_over.drain_timeout or DaemonSettings.model_validate({}).drain_timeout
    succession = Succession(HandedOver(), handed_over)
    succession.failure = f"the new version does not start: {why}"
    return Supervisor(0, lambda seat: 1, notifier, drain_timeout, succession).run()


def _ended(step: Callable[[], int]) -> int:
    """What `step` returns; what it raises is logged, and is another exit code."""
    try:
        return step()
    except (ConfigError, PluginError) as error:
        return _bad_config(error)
    except (OrchestratordError, OSError) as error:
        log.critical("%s", error, extra=_no_start())
        return 1


def _supervise(start: DaemonStart, count: int) -> int:
    """Have `count` workers run, in processes of their own; the exit code."""
    settings = start.loader.config.daemon
    workers, old = Workers.make(count), start.handed_over
    # Copies: until the workers of this version serve, those of before may have to go on.
    start.handed_over = copies = old.copied()
    lock: int | None = None
    listeners: list[Listener] = []
    try:
        lock = open_database(start.url).take_for_workers(copies.lock)
        if old.group is not None and lock == copies.lock:
            workers = replace(workers, group=old.group)
        if copies.lock is not None and copies.lock != lock:
            os.close(copies.lock)
        listeners.append(control := start.listen())
        all_tcp = start.listen_tcp()
    except Exception as error:
        workers.close()
        for listener in listeners:
            listener.socket.close()
        if lock is not None:
            os.close(lock)
        if not old.workers:
            raise
        return _go_back(old, error, 1)

    def release(before: HandedOver | None) -> None:
        """Close what was opened here; where that of `before` stands, the control socket stays."""
        stays = before is not None and before.control_path == str(control.path)
        for listening in (control.socket if stays else control, *all_tcp.values()):
            listening.close()
        if lock is not None:
            os.close(lock)
        workers.close()

    def work(seat: WorkerSeat) -> int:
        control.keep()
        place = WorkerPlace(seat, workers.worker(seat.number), control, all_tcp)
        return _ended(lambda: _work(start, place))

    descriptors = {key: one.socket.fileno() for key, one in all_tcp.items()}
    held = HandedOver(
        control=control.socket.fileno(),
        tcp=descriptors.pop(HTTP, None),
        lock=lock,
        ports=tuple(descriptors.values()),
        activated=old.activated,
        group=workers.group,
        succeeds=old.succeeds,
    )
    start.handler.share_stream()
    notifier = SystemdNotifier.from_environ()
    succession = Succession(held, old, release)
    return Supervisor(count, work, notifier, settings.drain_timeout, succession).run()


def _work(start: DaemonStart, place: WorkerPlace) -> int:
    """Be the daemon, or one of its workers; the exit code."""
    if place.seat is not None and (adopted := place.seat.adopted()) is not None:
        start.loader.follow(*adopted)
    return run_loop(_serve(start, place), start.host)


def _bad_config(error: ConfigError | PluginError) -> int:
    for problem in error.problems if isinstance(error, ConfigError) else [error]:
        log.critical("%s", problem, extra=_no_start())
    return EX_CONFIG


def _no_start() -> dict[str, str]:
    """Where it is explained why a daemon does not start."""
    return {"help": doc_links.trouble(doc_links.anchor("the daemon does not start"))}


async def _serve(start: DaemonStart, place: WorkerPlace) -> int:
    """Open the queue, run a daemon on it, and close it; the exit code."""
    clock, handler = Clock(), start.handler
    opening = start.handed_over.succeeds
    feeding = asyncio.create_task(_feed(place.seat)) if opening else None
    try:
        store = await Store.open(
            start.url,
            tables=start.host.registry.tables.values(),
            clock=clock,
            lease=start.loader.config.daemon.lease,
            workers=place.workers,
        )
    finally:
        if feeding is not None:
            feeding.cancel()
    handler.gather(asyncio.get_running_loop())
    try:
        return await Daemon(store, start, place, clock).serve()
    finally:
        await store.close()
        if place.first:
            log.info("stopped")
        handler.write_through()


async def _feed(seat: WorkerSeat | None) -> None:
    """Tell the supervisor, or the service manager where there is none, that the daemon lives, while
    a new version brings the schema on."""
    while seat is not None:
        seat.notify(opening=True)
        await asyncio.sleep(seat.beat)
    notifier = SystemdNotifier.from_environ()
    timeout = notifier.watchdog_timeout
    while timeout is not None:
        notifier.watchdog()
        await asyncio.sleep(min(timeout / 4, 5.0))
