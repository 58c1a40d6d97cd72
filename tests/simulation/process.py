"""One process of a universe: a daemon of the product, as `orchestratord run` builds it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import module_from_spec
from pathlib import Path
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any

from orchestratord.config import loader as loader_module
from orchestratord.config.loader import Loader
from orchestratord.daemon import daemon as daemon_module
from orchestratord.daemon.bootstrap import ADDRESSES
from orchestratord.daemon.daemon import Daemon, DaemonStart, WorkerPlace
from orchestratord.engine.http_executor import HttpPlugin
from orchestratord.errors import OrchestratordError, QueueError
from orchestratord.model.settings import Config
from orchestratord.plugin.host import Host
from orchestratord.plugin.long_work import AnswerThread
from orchestratord.queue.database import Workers
from orchestratord.queue.store import Store
from orchestratord.runtime.upgrade import HandedOver
from orchestratord.values.clock import Clock
from tests.simulation.baton import Strand
from tests.simulation.configuration import HEADER, MARK, Configuration
from tests.simulation.loop import SimulatedLoop
from tests.simulation.receiver import SimulatedClient
from tests.simulation.records import InForce, Report

if TYPE_CHECKING:
    from tests.simulation.machine import SimulatedConnection
    from tests.simulation.universe import Universe

PLUGINS = ("backoff", "event", "then", "webhooks")
"""Those of the product that are in it; the others listen to clients, or show pages."""
STATEFUL = ("event", "webhooks")
"""Those of them that keep something in their module: each process has its own."""
LOOKS, LOOK_AFTER = 5, 0.1
"""How often it is looked whether slots are taken, and after how many seconds each time: those that
are missing stay so."""


class Mailbox:
    """What a worker is told by others; what it was told before its death, its successor hears."""

    def __init__(self) -> None:
        self._messages: deque[bytes] = deque()
        self._heard: Callable[[], object] | None = None

    def listen(self, heard: Callable[[], object] | None) -> None:
        """Have `heard` called with each message; by nothing any more with None."""
        self._heard = heard

    def send(self, message: bytes) -> None:
        self._messages.append(message)
        if self._heard is not None:
            try:
                self._heard()
            except RuntimeError:  # that process is dead
                self._heard = None

    def empty(self) -> None:
        """What it was told is forgotten, with the machine that it was on."""
        self._messages.clear()
        self._heard = None

    def recv(self, size: int) -> bytes:
        if not self._messages:
            raise BlockingIOError
        return self._messages.popleft()


class Quiet:
    """Stands for what a simulated process has no use for: the log's handler, the watchdog, the
    watcher of files."""

    watches = True

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **options: None


class SimulatedDaemon(Daemon):
    """The product's, without sockets, signals and what watches over a real process."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._watchdog: Any = Quiet()
        self.webhooks: Any = None
        """The plugin's module, as its process has it."""
        self.adopted: Callable[[Config], None]
        adopt = self._worker.placement.adopt

        def told(config: Config) -> None:
            adopt(config)
            self.adopted(config)

        setattr(self._worker.placement, "adopt", told)  # noqa: B010  # the product's way there

    def _servers(self) -> list[Any]:
        # Plugins are given the service along with their routes, and judge by it.
        self.webhooks.register_routes(self._service)
        return []

    def _watcher(self, folder: Path) -> Any:
        return Quiet()

    def _handle_signals(self) -> None:
        pass


@cache
def _spec(name: str) -> tuple[Any, CodeType]:
    spec: Any = import_module(name).__spec__
    return spec, spec.loader.get_code(name)


def own_copy(name: str) -> ModuleType:
    """A plugin's module, for one process alone where it keeps its state in it."""
    if name not in STATEFUL:
        return import_module(f"orchestratord_{name}")
    spec, code = _spec(f"orchestratord_{name}")
    module = module_from_spec(spec)
    exec(code, vars(module))  # as its loader does, which reads it each time
    return module


class Process:
    """A process, from its start to its death."""

    def __init__(
        self, universe: Universe, place: int, name: str, folder: Path, workers: Workers | None
    ) -> None:
        """
        Args:
            universe: where it lives.
            place: among those that live at the same time, from 0; its successor has the same.
            name: that it has in the trace.
            folder: of its configuration.
            workers: of which it is one, where it shares its file.
        """
        self.universe = universe
        self.place = place
        self.name = name
        self._folder = folder
        self._workers = workers
        self.dead = False
        self.began_at = universe.baton.now
        self.died_at: float | None = None
        self.ending_at: float | None = None
        """When it was told to end."""
        self.stopped = False
        """It stands still, as after SIGSTOP."""
        self.stood: list[tuple[float, float]] = []
        """From when to when it has stood still, or will."""
        self.held: list[Strand] = []
        """Strands that could run, did it not stand still."""
        self.strands: list[Strand] = []
        self.connections: list[SimulatedConnection] = []
        self.answer_thread = AnswerThread()
        self.daemon: SimulatedDaemon | None = None
        """Once it has opened the queue."""
        self.ended: int | None = None
        """The exit code, once it has ended by itself."""
        self.plugins: dict[str, Any] = {}
        """Their modules, as it has them."""
        self._in_force: InForce | None = None
        self.loop: SimulatedLoop | None = None
        seats = universe.seats
        self._seat = None if seats is None else seats.take(place + 1, self)
        universe.baton.spawn(self, self._run, "loop")

    @property
    def serves(self) -> bool:
        """Whether it carries out tasks."""
        daemon = self.daemon
        return not self.dead and daemon is not None and daemon._worker.beat is not None

    @property
    def fatal(self) -> str | None:
        """What is beyond help with it, for which the watchdog ends it."""
        return self.daemon._store.health.fatal if self.daemon is not None else None

    @property
    def answers(self) -> bool:
        """Whether it takes calls, and what people do."""
        return self.serves and (self._seat is None or self._seat.first)

    @property
    def is_member(self) -> bool:
        """Whether it is one of the workers beside the first."""
        return self._seat is not None and not self._seat.first

    @property
    def configuration(self) -> Configuration | None:
        """That which is in force here, once one is."""
        return self._in_force.configuration if self._in_force is not None else None

    def do(self, step: Callable[[SimulatedDaemon], Any], name: str = "client") -> None:
        """Have a coroutine of `step` run on its loop, where it serves."""
        loop, daemon = self.loop, self.daemon
        if not self.serves or loop is None or daemon is None:
            return

        def ended(task: asyncio.Task[Any]) -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                self.universe.broken(f"{self.name}/{name}", error)

        def begin() -> None:
            loop.create_task(step(daemon), name=name).add_done_callback(ended)

        loop.call_soon_threadsafe(begin)

    async def report(self, daemon: SimulatedDaemon) -> None:
        """Have it say how it is, once it asks for no claim: whether there is something to do where
        others have done it, it asks for the length of a transaction."""
        worker = daemon._worker
        for _ in range(LOOKS):
            status = await daemon._service.status(all_lanes=True)
            lanes, running = worker.lanes, len(worker.claims.running)
            now = self.universe.baton.now
            made = Report(self.name, now, status, lanes.claimed, lanes.unsettled, running)
            if not lanes.claimed:
                break
            await asyncio.sleep(LOOK_AFTER)
        self.universe.reports.append(made)

    def stop(self) -> None:
        """Have it drain and end, as by SIGTERM."""
        loop, daemon = self.loop, self.daemon
        if self.serves and loop is not None and daemon is not None:
            if self.ending_at is None:  # a second signal gives no more time
                self.ending_at = self.universe.baton.now
            loop.call_soon_threadsafe(daemon._stop.set)

    def kill(self) -> None:
        """End it as kill -9 does: no code of it runs any more, and its locks are free."""
        self.dies()
        self.universe.keep_files(self)
        self.universe.machine.wake_all()

    def dies(self) -> None:
        """It is no more."""
        self.dead = True
        self.died_at = self.universe.baton.now
        if self.universe.seats is not None:
            self.universe.seats.died(self)

    def adopted(self, config: Config) -> None:
        """A configuration is in force here."""
        universe, mark = self.universe, config.apis[MARK].headers[HEADER]
        number, now = int(mark.literal), universe.baton.now
        if self._in_force is not None:
            if self._in_force.configuration.number == number:
                return
            self._in_force.until = now
        self._in_force = InForce(self.name, universe.configurations[number - 1], now)
        universe.in_force.append(self._in_force)
        universe.trace.note(self.name, "takes up configuration", number)

    def _run(self) -> None:
        host = Host()
        host.register(HttpPlugin(), "http")
        for name in PLUGINS:
            self.plugins[name] = own_copy(name)
            host.register(self.plugins[name], name)
        loader_module.Cache = lambda: self.universe.cache  # type: ignore[misc,assignment]
        loader = Loader(self._folder, host, addresses=ADDRESSES)
        if self._seat is not None and self.universe.seats is not None:
            self.universe.seats.begin_with(self._seat, loader)
        log: Any = Quiet()
        accept = len(self.universe.configurations) > 1
        start = DaemonStart(self._folder, host, loader, log, accept, HandedOver())
        self.loop = SimulatedLoop(self)
        try:
            self.ended = self.loop.run(self._serve(start))
        except OrchestratordError as error:
            if isinstance(error, QueueError) and self.universe.machine.disk.errors:
                self.universe.kill(self, f"by itself, as it cannot start: {type(error).__name__}")
                return
            if not self.is_member:
                raise
            self.universe.trace.note(self.name, "ends:", error)
            self.ended = 1
        self.dies()
        for connection in self.connections:
            connection.drop()
        self.universe.ended(self)

    async def _serve(self, start: DaemonStart) -> int:
        clock = Clock()
        store = await Store.open(
            start.url,
            tables=start.host.registry.tables.values(),
            clock=clock,
            lease=start.loader.config.daemon.lease,
            workers=self._workers,
        )
        client = type("Client", (SimulatedClient,), {"process": self})
        daemon_module.HttpClient = client  # type: ignore[misc]
        try:
            place = WorkerPlace(self._seat, self._workers)
            self.daemon = SimulatedDaemon(store, start, place, clock)
            self.daemon.adopted = self.adopted
            self.daemon.webhooks = self.plugins["webhooks"]
            return await self.daemon.serve()
        finally:
            await store.close()
