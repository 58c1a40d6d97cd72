"""One process of a universe: a daemon of the product, as `orchestratord run` builds it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from orchestratord.config import loader as loader_module
from orchestratord.config.loader import Loader
from orchestratord.daemon import daemon as daemon_module
from orchestratord.daemon.bootstrap import ADDRESSES
from orchestratord.daemon.daemon import Daemon, DaemonStart, WorkerPlace
from orchestratord.engine.http_executor import HttpPlugin
from orchestratord.plugin.host import Host
from orchestratord.queue.database import Workers
from orchestratord.queue.operations import slices
from orchestratord.queue.store import Store
from orchestratord.runtime.upgrade import HandedOver
from orchestratord.values.clock import Clock
from tests.simulation.baton import Strand
from tests.simulation.loop import SimulatedLoop
from tests.simulation.receiver import SimulatedClient

if TYPE_CHECKING:
    from tests.simulation.machine import SimulatedConnection
    from tests.simulation.universe import Universe

PLUGINS = ("backoff", "event", "then", "webhooks")
"""Those of the product that are in it; the others listen to clients, or show pages."""
STATEFUL = ("event", "webhooks")
"""Those of them that keep something in their module: each process has its own."""


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

    def _servers(self) -> list[Any]:
        return []

    def _watcher(self, folder: Path) -> Any:
        return Quiet()

    def _handle_signals(self) -> None:
        pass


@cache
def _spec(name: str) -> Any:
    return import_module(name).__spec__


def own_copy(name: str) -> ModuleType:
    """A plugin's module, for one process alone where it keeps its state in it."""
    if name not in STATEFUL:
        return import_module(f"orchestratord_{name}")
    spec = _spec(f"orchestratord_{name}")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
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
        self.stopped = False
        """It stands still, as after SIGSTOP."""
        self.held: list[Strand] = []
        """Strands that could run, did it not stand still."""
        self.strands: list[Strand] = []
        self.connections: list[SimulatedConnection] = []
        self.daemon: SimulatedDaemon | None = None
        """Once it has opened the queue."""
        self.ended: int | None = None
        """The exit code, once it has ended by itself."""
        self.loop: SimulatedLoop | None = None
        universe.baton.spawn(self, self._run, "loop")

    @property
    def serves(self) -> bool:
        """Whether it takes calls."""
        daemon = self.daemon
        return not self.dead and daemon is not None and daemon._worker.beat is not None

    def do(self, step: Callable[[SimulatedDaemon], Any], name: str = "client") -> None:
        """Have a coroutine of `step` run on its loop, where it serves."""
        loop, daemon = self.loop, self.daemon
        if self.serves:
            assert loop is not None
            loop.call_soon_threadsafe(lambda: loop.create_task(step(daemon), name=name))

    def stop(self) -> None:
        """Have it drain and end, as by SIGTERM."""
        loop, daemon = self.loop, self.daemon
        if self.serves:
            assert loop is not None
            assert daemon is not None
            loop.call_soon_threadsafe(daemon._stop.set)

    def kill(self) -> None:
        """End it as kill -9 does: no code of it runs any more, and its locks are free."""
        self.dead = True
        self.universe.keep_files(self)
        self.universe.machine.wake_all()

    def _run(self) -> None:
        host = Host()
        host.register(HttpPlugin(), "http")
        for name in PLUGINS:
            host.register(own_copy(name), name)
        loader_module.Cache = lambda: self.universe.cache  # type: ignore[misc,assignment]
        loader = Loader(self._folder, host, addresses=ADDRESSES)
        log: Any = Quiet()
        start = DaemonStart(self._folder, host, loader, log, False, HandedOver())
        self.loop = SimulatedLoop(self)
        self.ended = self.loop.run(self._serve(start))
        self.dead = True
        for connection in self.connections:
            connection.drop()
        self.universe.ended(self)

    async def _serve(self, start: DaemonStart) -> int:
        clock = Clock()
        store = await Store.open(
            start.url,
            tables=(*start.host.registry.tables.values(), slices.TABLE),
            clock=clock,
            lease=start.loader.config.daemon.lease,
            workers=self._workers,
        )
        client = type("Client", (SimulatedClient,), {"process": self})
        daemon_module.HttpClient = client  # type: ignore[misc]
        try:
            self.daemon = SimulatedDaemon(store, start, WorkerPlace(None, self._workers), clock)
            return await self.daemon.serve()
        finally:
            await store.close()
