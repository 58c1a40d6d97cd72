"""One universe: what a seed makes of it, from the first process to the last check."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any

from orchestratord.config.cache import Cache
from orchestratord.errors import OrchestratordError
from orchestratord.model.task import Table
from orchestratord.queue.database import Workers
from orchestratord.queue.operations import slices
from orchestratord.queue.sqlite import shared_file
from orchestratord.queue.sqlite.shared_file import SharedFile
from orchestratord.queue.store import Store
from tests.simulation import checks
from tests.simulation.baton import Baton, Stuck
from tests.simulation.faults import FAULTS
from tests.simulation.leased_file import LeasedFile
from tests.simulation.loop import restart_serials
from tests.simulation.machine import Machine
from tests.simulation.plants import replaced
from tests.simulation.process import PLUGINS, Mailbox, Process, SimulatedDaemon
from tests.simulation.receiver import Network
from tests.simulation.trace import Trace

HOUR = 3600.0
LOOK = 5.0
"""Seconds between two looks whether everything has ended."""
QUIET = 3.0
"""Seconds for which it goes on then."""
SHM = Path("/dev/shm")

DAEMON = """
database: sqlite:///{path}
concurrency: {concurrency}
lease: 30s
drain_timeout: 5s
"""
API = """
base_url: http://{name}.test
egress: {{allow: ["127.0.0.1"]}}
concurrency: {concurrency}
timeout: 5s
retry:
  max_attempts: {attempts}
  jitter: 0.2
  backoff: {{strategy: exponential, delay: 1s, factor: 2}}
  max_delay: 30s
headers: {{X-Task: "{{{{ task.id }}}}", X-Attempt: "{{{{ task.attempt }}}}"}}
webhooks:
  - name: done
    phase: on_success
    url: "http://hooks.test/{name}"
    headers: &marks {{X-Task: "{{{{ task_id }}}}"}}
    retry: &retry
      max_attempts: 20
      backoff: {{strategy: exponential, delay: 1s, factor: 2}}
      max_delay: 20s
  - name: lost
    phase: on_final_failure
    url: "http://hooks.test/{name}/lost"
    headers: *marks
    retry: *retry
"""
ENDPOINT = """
path: /do{number}
method: POST
idempotent: {idempotent}
params: {{n: {{type: integer}}}}
"""


class Call:
    """What a client has asked for, and what it knows of it."""

    def __init__(self, number: int, endpoint: str) -> None:
        self.number = number
        self.endpoint = endpoint
        self.id: int | None = None
        """Once it was acknowledged."""


class Universe:
    """Everything of one seed."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.seed = seed
        self.folder = folder
        chance = self.chance = Random(seed)
        self.baton = Baton(self._stream())
        self.trace = Trace(self)
        self.machine = Machine(self, self._stream())
        self.calm = False
        """No fault comes any more."""
        self.network = Network(self, self._stream())
        self.violations: list[str] = []
        self.over = False
        """What is left is only cleared away."""
        self.calls: list[Call] = []
        self.processes: list[Process] = []
        """All that there ever were."""
        self.faults = 0
        self.path = folder / "q.db"
        self.cache = Cache()
        """What was read of the configuration: a start that reads the same again is quicker."""
        self.rule = chance.choice(("alone", "workers", "leases"))
        """One daemon; two workers that know which of them live; two daemons that go by leases."""
        self.count = 1 if self.rule == "alone" else 2
        self.mailboxes = [Mailbox() for _ in range(self.count)]
        self.endpoints: list[str] = []
        self._write_config()

    def _stream(self) -> Random:
        """A stream of chance of its own, so that one more draw here changes nothing there."""
        return Random(self.chance.getrandbits(64))

    def _write_config(self) -> None:
        chance = self.chance
        (self.folder / "apis").mkdir()
        text = DAEMON.format(path=self.path, concurrency=chance.randint(2, 20))
        (self.folder / "orchestratord.yaml").write_text(text)
        for name in ("shop", "bank", "mail")[: chance.randint(1, 3)]:
            folder = self.folder / "apis" / name
            (folder / "endpoints").mkdir(parents=True)
            (folder / "api.yaml").write_text(
                API.format(
                    name=name, concurrency=chance.randint(1, 6), attempts=chance.randint(2, 12)
                )
            )
            for number in range(chance.randint(1, 3)):
                idempotent = chance.choice(("true", "false"))
                file = folder / "endpoints" / f"do{number}.yaml"
                file.write_text(ENDPOINT.format(number=number, idempotent=idempotent))
                self.endpoints.append(f"{name}/do{number}")

    # -- what goes wrong ---------------------------------------------------------------------------

    def broken(self, where: str, error: BaseException | None = None) -> None:
        """Something has happened that must not."""
        if self.over:
            return
        words = f"{where}: {type(error).__name__}: {error}" if error is not None else where
        self.violations.append(f"{words} (at {self.baton.now - 1000:.3f} s)")
        self.trace.note("universe", "VIOLATION", words)
        if error is not None:
            self.trace.note("universe", *traceback.format_exception(error))

    def start(self, place: int) -> None:
        """Start a process in this place, from 0."""
        workers = None
        if self.count > 1:
            pairs: Any = tuple((box, box) for box in self.mailboxes)
            workers = Workers(place + 1, self.count, pairs)
        number = sum(one.name.startswith(f"w{place}.") for one in self.processes)
        process = Process(self, place, f"w{place}.{number}", self.folder, workers)
        self.trace.note(process.name, "starts")
        self.processes.append(process)

    @property
    def living(self) -> list[Process]:
        """The processes that live."""
        return [one for one in self.processes if not one.dead]

    def kill(self, process: Process, why: str) -> None:
        """kill -9, and a successor a little later."""
        if process.dead:
            return
        self.faults += 1
        self.trace.note(process.name, "killed", why)
        process.kill()
        self._succeed(process)

    def terminate(self, process: Process) -> None:
        """SIGTERM, and a successor once it has ended."""
        self.faults += 1
        self.trace.note(process.name, "is to end")
        process.stop()

    def ended(self, process: Process) -> None:
        """A process has ended by itself."""
        self.trace.note(process.name, "ended with", process.ended)
        if process.ended:
            self.broken(f"{process.name} ended with {process.ended}")
        self._succeed(process)

    def _succeed(self, process: Process) -> None:
        pause = self.chance.choice((0.01, 0.5, 3.0))
        self.baton.at(self.baton.now + pause, lambda: self.start(process.place))

    def keep_files(self, process: Process) -> None:
        """Close the connections of a dead process, and leave its files as they lie: SQLite would
        bring the journal in where they are the last."""
        names = [self.path, self.path.with_name("q.db-wal")]
        alone = not self.living
        if alone:
            for name in names:
                with suppress(FileNotFoundError):
                    shutil.copyfile(name, f"{name}.kept")
        for connection in process.connections:
            connection.drop()
        if alone:
            for name in names:
                with suppress(FileNotFoundError):
                    os.replace(f"{name}.kept", name)
            self.path.with_name("q.db-shm").unlink(missing_ok=True)

    def _plan(self) -> None:
        """Say what will happen: calls, and faults."""
        chance, now = self.chance, self.baton.now
        self.duration = chance.uniform(8, 40)
        for number in range(chance.randint(40, 140)):
            call = Call(number, chance.choice(self.endpoints))
            self.calls.append(call)
            self.baton.at(now + chance.uniform(0.5, self.duration), self._calling(call))
        several = chance.randint(6, 18)
        for fault in chance.choices(list(FAULTS), list(FAULTS.values()), k=several):
            self.baton.at(now + chance.uniform(0.5, self.duration), partial(fault, self))
        self.baton.at(now + self.duration, self._calm_down)

    def _calling(self, call: Call) -> Callable[[], None]:
        def do() -> None:
            serving = [one for one in self.living if one.serves]
            if serving:
                self.chance.choice(serving).do(lambda daemon: self._call(daemon, call))

        return do

    async def _call(self, daemon: SimulatedDaemon, call: Call) -> None:
        with suppress(OrchestratordError):
            done = await daemon._service.call(call.endpoint, {"n": call.number})
            call.id = done.id
            self.trace.note("client", "accepted", call.number, done.id)

    def _calm_down(self) -> None:
        self.calm = True
        self.baton.watches.clear()
        self.network.calm()
        self.trace.note("universe", "no fault comes any more")

    # -- its course --------------------------------------------------------------------------------

    def run(self) -> None:
        """From the beginning to the end; what was wrong is in `violations`."""
        restart_serials()
        self.path.write_bytes(empty_queue())
        descriptors = set(os.listdir("/proc/self/fd"))
        shared = LeasedFile if self.rule == "leases" else SharedFile
        with self.machine.installed(), replaced(shared_file, "SharedFile", shared):
            for place in range(self.count):
                self.start(place)
            self._plan()
            end = self.baton.now + self.duration
            self._quiet_at: float | None = None
            self._look_at = end + LOOK
            try:
                self.baton.run(self._is_over)
            except Stuck:
                self.broken("nothing can run any more")
            checks.check(self)
            self.over = True
            strands = [strand for process in self.processes for strand in process.strands]
            for process in self.processes:
                process.dead = True
            self.baton.end(strands)
            for process in self.processes:
                for connection in process.connections:
                    connection.drop()
                if process.loop is not None:
                    process.loop._scheduled.clear()
        for name in set(os.listdir("/proc/self/fd")) - descriptors:
            with suppress(OSError):
                os.close(int(name))

    def _is_over(self) -> bool:
        now = self.baton.now
        if len(self.violations) > 20:
            return True
        if not self.calm or now < self._look_at:
            return False
        self._look_at = now + LOOK
        if self._quiet_at is None and checks.all_ended(self):
            self._quiet_at = now
        if self._quiet_at is not None and now >= self._quiet_at + QUIET:
            return True
        return now > 1000.0 + self.duration + HOUR


@cache
def empty_queue() -> bytes:
    """A queue as the product makes it, which takes a tenth of a second."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "q.db"
        tables = [slices.TABLE, *(table for name in PLUGINS for table in _tables(name))]

        async def make() -> None:
            await (await Store.open(f"sqlite:///{path}", tables=tables)).close()

        asyncio.run(make())
        return path.read_bytes()


def _tables(plugin: str) -> Iterable[Table]:
    module = import_module(f"orchestratord_{plugin}")
    made: Iterable[Table] = module.register_tables() if hasattr(module, "register_tables") else ()
    return made


def run(seed: int) -> Universe:
    """Run the universe of a seed to its end."""
    folder = Path(tempfile.mkdtemp(prefix="universe-", dir=SHM if SHM.is_dir() else None))
    empty_queue()
    gc.disable()
    try:
        universe = Universe(seed, folder)
        universe.run()
        return universe
    finally:
        asyncio._set_running_loop(None)
        shutil.rmtree(folder)
        gc.collect()
        gc.enable()
