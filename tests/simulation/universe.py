"""One universe: what a seed makes of it, from the first process to the last check."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import tempfile
import traceback
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextlib import ExitStack, suppress
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any

from orchestratord.config.cache import Cache
from orchestratord.daemon import daemon
from orchestratord.engine.lanes import pace
from orchestratord.engine.new import new_tasks
from orchestratord.errors import (
    Conflict,
    InvalidParams,
    NotFound,
    OrchestratordError,
    Stopping,
    StorageFull,
    UniqueKeyReused,
)
from orchestratord.model.task import Table
from orchestratord.queue.database import Workers
from orchestratord.queue.operations import slices
from orchestratord.queue.sqlite import shared_file
from orchestratord.queue.sqlite.shared_file import SharedFile
from orchestratord.queue.store import Store
from orchestratord.runtime.link import Link
from tests.simulation import checks
from tests.simulation.baton import Baton, Stuck
from tests.simulation.burst import Burst
from tests.simulation.configuration import SLICE, Drawing, has
from tests.simulation.disk import PLENTY
from tests.simulation.faults import BY_LEASES, FAULTS
from tests.simulation.leased_file import LeasedFile
from tests.simulation.loop import restart_serials
from tests.simulation.machine import Machine
from tests.simulation.people import People
from tests.simulation.plan import Plan
from tests.simulation.plants import replaced
from tests.simulation.process import PLUGINS, Mailbox, Process, SimulatedDaemon
from tests.simulation.receiver import Network
from tests.simulation.records import (
    ACKNOWLEDGED,
    REFUSED,
    UNKNOWN,
    Asked,
    Call,
    Deed,
    InForce,
    Report,
)
from tests.simulation.seats import Seats, over
from tests.simulation.trace import Trace

HOUR = 3600.0
LOOK = 2.0
"""Seconds between two looks whether everything has ended."""
BURSTS = 0.25
"""In how many universes more calls come at the end."""
FOLLOWS = 4.0
"""Seconds within which all processes know that the disk has room again."""
QUIET = 2.0
"""Seconds for which it goes on then."""
MOST_TURNS = 2_000_000
"""Of a universe, which lasts for some ten thousand: something goes round for nothing."""
APART_MS = 1_000
"""How far apart two deliveries have to have failed for `disable_after`; outside it is half a
day."""
SHM = Path("/dev/shm")

CALLS = 34, 48
"""How many a universe has, from and to."""
SEVERAL = 10, 16
"""How many faults it has, from and to, with those that find nothing to do."""
ITEMS = (*(0, 0, 1, 2, 3) * 6, SLICE * 2 + 1)
"""Of which a call has one as the number of its children, where it has some."""
RUSHES = 0.5
"""In how many universes most calls come at once, of one endpoint."""
LEAST, SURE = 8, 3
"""Answers by which a pace judges; the product's are some ten times as many."""
ASK_AGAIN = 2.0
"""Seconds after which a client with a key asks again where no answer has come."""
REFUSALS = (Conflict, InvalidParams, NotFound, Stopping, StorageFull, UniqueKeyReused)
"""Errors that say that nothing was taken; any other leaves it open."""
RULES = {
    "alone": "one daemon",
    "workers": "two workers that know which of them live",
    "leases": "two daemons that go by leases",
}
"""Who shares the file of a universe."""
HEARD = 12.0
"""Seconds after which all others have heard of one that stood still: a sign of life and a look."""


class Universe:
    """Everything of one seed."""

    def __init__(self, seed: int, folder: Path, only: Collection[int] | None = None) -> None:
        """`only`: the steps of its plan that happen; None for all."""
        self.seed = seed
        self.folder = folder
        chance = self.chance = Random(seed)
        self.baton = Baton(self._stream())
        self.began = self.baton.now
        self.plan = Plan(self, only)
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
        self.tasks = 0
        """How many there have been, once it is over: calls, their children, deliveries."""
        self.path = folder / "q.db"
        self.cache = Cache()
        """What was read of the configuration: a start that reads the same again is quicker."""
        self.rule = chance.choice(list(RULES))
        self.count = 1 if self.rule == "alone" else 2
        self.seats = Seats(self) if self.rule == "workers" else None
        self.mailboxes = [Mailbox() for _ in range(self.count)]
        self.drawing = Drawing(self.path, self._stream(), Random(f"poll {seed}"))
        self.configurations = [self.drawing.first()]
        """All that there ever were; the last one stands in the folder."""
        self.configurations[0].write(folder)
        self.in_force: list[InForce] = []
        """Each configuration in each process."""
        self.deeds: list[Deed] = []
        """What people have done."""
        self.reports: list[Report] = []
        """What those that live say of themselves, at the end."""
        self._asked: list[str] = []
        """Which processes lived as they were asked: a daemon may have died since."""
        self.reports_asked = False
        self.burst: Burst | None = None
        self._bursts = Random(f"burst {seed}").random() < BURSTS
        self._written = 0, 0
        """What tells whether a task was written, as of the last look."""
        self.people = People(self, self._stream())

    def _stream(self) -> Random:
        """A stream of chance of its own, so that one more draw here changes nothing there."""
        return Random(self.chance.getrandbits(64))

    # -- what goes wrong ---------------------------------------------------------------------------

    def broken(self, where: str, error: BaseException | None = None) -> None:
        """Something has happened that must not."""
        if self.over:
            return
        words = f"{where}: {type(error).__name__}: {error}" if error is not None else where
        self.violations.append(f"{words} (at {self.baton.now - self.began:.3f} s)")
        self.trace.note("universe", "VIOLATION", words)
        if error is not None:
            self.trace.note("universe", *traceback.format_exception(error))

    def start(self, place: int) -> None:
        """Start a process in this place, from 0, unless one lives there, or all end first."""
        ending = self.seats is not None and self.seats.ending
        if ending or any(one.place == place for one in self.living):
            return
        workers = None
        if self.count > 1:
            pairs: Any = tuple((box, box) for box in self.mailboxes)
            group = self.seats.group if self.seats is not None else ""
            workers = Workers(place + 1, self.count, pairs, group)
        number = sum(one.name.startswith(f"w{place}.") for one in self.processes)
        process = Process(self, place, f"w{place}.{number}", self.folder, workers)
        self.trace.note(process.name, "starts")
        self.processes.append(process)

    @property
    def story(self) -> str:
        """What it is, in a line."""
        rule = RULES[self.rule]
        return (
            f"{rule}; {len(self.plan.steps)} steps; {', '.join(self.configurations[0].endpoints)}"
        )

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

    def cut_power(self) -> None:
        """The machine is without power, and starts again: its disk has what was synced, and of the
        rest what it likes."""
        self.faults += 1
        dead, disk = self.living, self.machine.disk
        files, words = disk.lose_power()
        self.trace.note("machine", "loses power:", words)
        for process in dead:
            process.dies()
        for process in dead:
            for connection in process.connections:
                connection.drop()
        for name, content in files.items():
            name.unlink(missing_ok=True)  # SQLite may still know the old one by its inode
            name.write_bytes(content)
        self.path.with_name("q.db-shm").unlink(missing_ok=True)
        for box in self.mailboxes:
            box.empty()
        self.machine.start_again()
        if self.seats is not None and not self.seats.ending:
            self.seats.begin_anew()
        for process in dead:
            self._succeed(process)

    def terminate(self, process: Process) -> None:
        """SIGTERM, and a successor once it has ended."""
        self.faults += 1
        if self.seats is None:
            self.trace.note(process.name, "is to end")
            process.stop()
            return
        self.seats.ending = True
        for one in self.living:
            self.trace.note(one.name, "is to end")
            if one.serves:
                one.stop()
            else:
                one.kill()
                self._succeed(one)

    def ended(self, process: Process) -> None:
        """A process has ended by itself."""
        self.trace.note(process.name, "ended with", process.ended)
        if process.ended and not process.is_member:
            self.broken(f"{process.name} ended with {process.ended}")
        self._succeed(process)

    def _succeed(self, process: Process) -> None:
        places = [process.place]
        if self.seats is not None and self.seats.ending:
            if self.living:
                return
            self.seats.begin_anew()
            places = list(range(self.count))
        pause = self.chance.choice((0.01, 0.5, 3.0))
        for place in places:
            self.baton.at(self.baton.now + pause, partial(self.start, place))

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
        rush, wanted = now + self.duration * chance.uniform(0.3, 1), self._rushed()
        for number in range(chance.randint(*CALLS)):
            call = self._drawn_call(number)
            self.calls.append(call)
            when = now + chance.uniform(0.5, self.duration)
            if wanted is not None and has(chance, 0.6):
                call.endpoint, when = wanted, rush
            self.plan.add(when, f"call {number} of {call.endpoint}", self.calling(call))
        self.people.plan(now + self.duration)
        several = chance.randint(*SEVERAL)
        faults = FAULTS | BY_LEASES if self.rule == "leases" else FAULTS
        for fault in chance.choices(list(faults), list(faults.values()), k=several):
            when, what = now + chance.uniform(0.5, self.duration), fault.__name__.replace("_", " ")
            self.plan.add(when, what, partial(fault, self))
        self.baton.at(now + self.duration, self._calm_down)

        if wanted is not None and "partition" not in self.configurations[0].endpoints[wanted]:
            receiver = self.network.receiver(f"{wanted.partition('/')[0]}.test")
            self.plan.add(rush, f"{receiver.host} is overloaded", receiver.overload)

    def _rushed(self) -> str | None:
        """The endpoint of which many calls come at once, None where they do not: one with
        partitions; or one without, which they overload, as many as may be sent at once."""
        chance, configuration = self.chance, self.configurations[0]
        if not has(chance, RUSHES):
            return None
        endpoints, divides = configuration.endpoints, has(chance, 0.5)
        found = [
            name for name, endpoint in endpoints.items()
            if "method" in endpoint and ("partition" in endpoint) == divides
        ]  # fmt: skip
        if divides:
            return chance.choice(found or list(endpoints))
        return max(
            found or endpoints, key=lambda id_: configuration.of_endpoint(id_, "concurrency")
        )

    def _drawn_call(self, number: int) -> Call:
        chance, endpoints = self.chance, self.configurations[0].endpoints
        endpoint = chance.choice(list(endpoints))
        params: dict[str, Any] = {"n": number, "account": chance.choice("abc")}
        if "query" in endpoints[endpoint]:
            params["items"] = chance.choice(ITEMS)
        key = f"key-{number}" if has(chance, 0.4) else None
        delay = chance.uniform(0.5, 10.0) if has(chance, 0.1) else 0.0
        return Call(number, endpoint, params, key, delay)

    def calling(self, call: Call) -> Callable[[], None]:
        """Has a client make this call, at some daemon."""

        def do() -> None:
            if call.asked and call.asked[-1].outcome != UNKNOWN:
                return
            serving = [one for one in self.living if one.answers]
            if serving:
                process = self.chance.choice(serving)
                asked = Asked(self.baton.now, process.name)
                call.asked.append(asked)
                process.do(lambda daemon: self._call(daemon, call, asked))
            if call.key is not None:
                self.baton.at(self.baton.now + ASK_AGAIN, do)

        return do

    async def _call(self, daemon: SimulatedDaemon, call: Call, asked: Asked) -> None:
        asking = daemon._service.call(call.endpoint, call.params, delay=call.delay, key=call.key)
        await self.answered("client", asked, asking, "call", call.number)
        if asked.outcome == ACKNOWLEDGED:
            call.id = asked.answer.id

    async def answered(self, who: str, asked: Asked, asking: Awaitable[Any], *what: object) -> None:
        """Wait for the answer to what `who` asks for, and note it."""
        try:
            asked.answer = await asking
            asked.outcome = ACKNOWLEDGED
        except OrchestratordError as error:
            asked.answer = error
            asked.outcome = REFUSED if isinstance(error, REFUSALS) else UNKNOWN
        asked.answered_at = self.baton.now
        if asked.outcome == ACKNOWLEDGED:
            told = getattr(asked.answer, "id", "")
        else:
            told = f"{type(asked.answer).__name__}: {asked.answer}"
        self.trace.note(who, *what, asked.outcome, told)

    def _calm_down(self) -> None:
        self.calm = True
        self.baton.watches.clear()
        self.machine.disk.refuses = None
        self.network.calm()
        self.people.calm_down()
        self.trace.note("universe", "no fault comes any more")

    # -- its course --------------------------------------------------------------------------------

    def run(self) -> None:
        """From the beginning to the end; what was wrong is in `violations`."""
        restart_serials()
        self.path.write_bytes(empty_queue())
        descriptors = set(os.listdir("/proc/self/fd"))
        shared = LeasedFile if self.rule == "leases" else SharedFile
        with ExitStack() as seams:
            seams.enter_context(self.machine.installed())
            seams.enter_context(replaced(shared_file, "SharedFile", shared))
            seams.enter_context(replaced(Link, "over", staticmethod(over)))
            seams.enter_context(replaced(daemon, "take_over", lambda end: end))
            health = import_module("orchestratord_webhooks.health")
            seams.enter_context(replaced(health, "APART_MS", APART_MS))
            seams.enter_context(replaced(pace, "LEAST", LEAST))
            seams.enter_context(replaced(pace, "SURE", SURE))
            for module in (new_tasks, slices):
                seams.enter_context(replaced(module, "SLICE", SLICE))
            for place in range(self.count):
                self.start(place)
            self._plan()
            end = self.baton.now + self.duration
            self._quiet_at: float | None = None
            self._not_awake_at = 0.0
            self._look_at = end + LOOK
            try:
                self.baton.run(self._is_over)
            except Stuck:
                self.broken("nothing can run any more")
            checks.check(self)
            self.tasks, _ = checks.written(self)
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
        if self.baton.turns > MOST_TURNS:
            self.broken(f"it is not over after {MOST_TURNS:,} turns")
            return True
        if len(self.violations) > 20:
            return True
        if not self.calm or now < self._look_at:
            return False
        self._look_at = now + LOOK
        awake = [one.serves and not one.stopped for one in self.living] == [True] * self.count
        self._not_awake_at = self._not_awake_at if awake else now
        # What is carried out is known without a look at the file.
        busy = any(one.daemon._worker.claims.running for one in self.living if one.daemon)
        disk = self.machine.disk
        has_room = disk.free == PLENTY and now > disk.free_since + FOLLOWS
        ended = not busy and has_room and checks.all_ended(self)
        if self._bursts and awake and ended:
            self._bursts, self.burst = False, Burst(self)
            self._look_at = self.burst.began_at + LOOK
        elif not ended or checks.written(self) != self._written or self._asked != self._names():
            self._quiet_at, self._written, self._asked = None, checks.written(self), self._names()
        elif self._quiet_at is None and awake and now > self._not_awake_at + HEARD:
            self._quiet_at = now
            self.reports.clear()
            self.reports_asked = True
            for process in self.living:  # once it has heard that the last is written
                report = partial(process.do, process.report, "report")
                self.baton.at(now + QUIET / 2, report)
        if self._quiet_at is not None and now >= self._quiet_at + QUIET:
            return True
        return now > self.began + self.duration + HOUR

    def _names(self) -> list[str]:
        return [one.name for one in self.living]


@cache
def empty_queue() -> bytes:
    """A queue as the product makes it, which takes a tenth of a second."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "q.db"
        tables = [table for name in PLUGINS for table in _tables(name)]

        async def make() -> None:
            await (await Store.open(f"sqlite:///{path}", tables=tables)).close()

        asyncio.run(make())
        return path.read_bytes()


def _tables(plugin: str) -> Iterable[Table]:
    module = import_module(f"orchestratord_{plugin}")
    made: Iterable[Table] = module.register_tables() if hasattr(module, "register_tables") else ()
    return made


def run(seed: int, only: Collection[int] | None = None) -> Universe:
    """Run the universe of a seed to its end; `only`: the steps of its plan that happen."""
    folder = Path(tempfile.mkdtemp(prefix="universe-", dir=SHM if SHM.is_dir() else None))
    empty_queue()
    gc.disable()
    try:
        universe = Universe(seed, folder, only)
        universe.run()
        return universe
    finally:
        asyncio._set_running_loop(None)
        shutil.rmtree(folder)
        gc.collect()
        gc.enable()
