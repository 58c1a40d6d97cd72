"""A worker over a real store and a real receiver, for the tests of what it does with tasks."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from orchestratord.engine.http_executor import HttpPlugin, HttpSpec
from orchestratord.engine.lanes.lane import Lane
from orchestratord.engine.worker import Worker
from orchestratord.http.client import HttpClient
from orchestratord.model.backoff import Fixed
from orchestratord.model.endpoint import Api, Endpoint
from orchestratord.model.outcome import Outcome
from orchestratord.model.retry_policy import RetryPolicy
from orchestratord.model.settings import Config, DaemonSettings
from orchestratord.model.task import NewTask, Task
from orchestratord.plugin.executor import Executor, Standing, Target
from orchestratord.plugin.hook_marks import hookimpl
from orchestratord.plugin.host import Host
from orchestratord.queue.operations import effects, search
from orchestratord.queue.records import Insert
from orchestratord.queue.store import Store
from orchestratord.testing import FakeClock
from orchestratord.values.rate_limit import RateLimit
from orchestratord.values.redact import Redactor

CALL = NewTask("call", "a/get")
KEY = CALL.key
SPEC: dict[str, Any] = {"path": "/x", "headers": {"X-Task": "{{ task.id }}"}}


class Receiver:
    """Answers `status` while `open` is set; holds every answer back while it is not."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.status = 200
        self.headers = b""
        self.times: list[float] = []
        """When requests came (`time.monotonic`)."""
        self.heads: list[bytes] = []
        self.tasks: list[int] = []
        """The ids of the tasks, as their requests came."""
        self.in_flight = 0
        self.most = 0
        self.url = ""

    @property
    def counts(self) -> set[int]:
        """How often each task came."""
        return set(Counter(self.tasks).values())

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                self.times.append(time.monotonic())
                self.tasks.append(int(head.lower().split(b"x-task: ")[1].split(b"\r\n")[0]))
                self.in_flight += 1
                self.most = max(self.most, self.in_flight)
                await self.open.wait()
                self.in_flight -= 1
                status = b"HTTP/1.1 %d X\r\n%b" % (self.status, self.headers)
                writer.write(status + b"Content-Length: 0\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


class Doing(Executor):
    """Carries out calls of a type of its own, by whatever function it is given."""

    type: ClassVar[str] = "doing"

    def __init__(self, function: Callable[[Task], Any]) -> None:
        self.function = function

    def standing(self, endpoint: Endpoint, webhook: str, config: Config) -> Standing:
        return Target(
            endpoint, endpoint.retry, endpoint.timeout, endpoint.idempotent, "doing", 10, ()
        )

    def prepare(self, task: Task, target: Target, now: float) -> Any:
        return dict(task.params)

    async def execute(self, request: Any, task: Task, target: Target, send: Any) -> Outcome:
        outcome: Outcome = await self.function(task)
        return outcome


class ExecutorPlugin:
    """A plugin that brings one executor."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    @hookimpl
    def register_executor(self) -> Iterable[Executor]:
        return [self._executor]


class Bench:
    """One worker with one API, and what is on both sides of it."""

    def __init__(self, store: Store, worker: Worker, clock: FakeClock, config: Config) -> None:
        self.store = store
        self.worker = worker
        self.clock = clock
        self.config = config
        self.receiver = Receiver()

    @property
    def lane(self) -> Lane:
        """The lane of the API."""
        return self.worker.lanes.lanes["api:a"]

    def adopt(
        self, *, concurrency: int = 1, total: int = 100, spec: dict[str, Any] | None = None,
        rate: str | None = None, egress: tuple[str, ...] = ("127.0.0.1",), **fields: Any,
    ) -> None:  # fmt: skip
        """Load a configuration with one endpoint; `fields` are those of `Endpoint`."""
        api = Api(
            name="a", base_url=self.receiver.url, egress=egress, concurrency=concurrency,
            rate_limit=None if rate is None else RateLimit.parse(rate),
        )  # fmt: skip
        endpoint = Endpoint(
            "a/get", api, "http", HttpSpec.model_validate({**SPEC, **(spec or {})}),
            RetryPolicy(backoff=Fixed(delay=60), jitter=0), 30.0, True,
        )  # fmt: skip
        endpoint = replace(endpoint, **fields)
        self.config = replace(
            self.config,
            daemon=DaemonSettings(concurrency=total),
            apis={"a": api},
            endpoints={"a/get": endpoint},
        )
        self.worker.placement.adopt(self.config)
        self.worker.placement.place(KEY)

    async def put(self, tasks: Sequence[NewTask]) -> list[int]:
        """Write tasks that wait to be claimed; their ids."""
        inserted = await self.store.write(effects.enqueue([Insert(task) for task in tasks]))
        for item in inserted:
            assert item.next_try is not None
            self.worker.placement.touched(item.key, item.next_try)
        return [item.id for item in inserted]

    def be_quick(self) -> None:
        """Have the lane claimed far ahead, as if no end of tasks had ended just now."""
        self.lane.pace, self.lane.paced_at = 1e300, self.clock.now_ms()

    async def hold(self, count: int) -> list[int]:
        """So many tasks of which the first is in flight, and all others wait for its slot."""
        self.be_quick()
        ids = await self.put([CALL] * count)
        await self.until(
            lambda: len(self.lane.prefetched) == count - 1 and self.receiver.in_flight == 1
        )
        self.lane.pace = 0
        return ids

    async def until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not done():
                await asyncio.sleep(0.01)

    async def idle(self, ids: Sequence[int]) -> None:
        """Return when all of these have ended."""
        for task_id in ids:
            await self.worker.waiters.wait(task_id, 0)
        async with asyncio.timeout(60):
            while any(task.status in ("pending", "running") for task in await self.tasks(ids)):
                await asyncio.sleep(0.02)
        await self.until(lambda: self.worker.lanes.claimed == 0)

    async def tasks(self, ids: Sequence[int]) -> list[Task]:
        return [await self.store.read(search.get(task_id)) for task_id in ids]

    async def states(self, ids: Sequence[int]) -> list[tuple[str, int]]:
        """Status and attempts of each."""
        return [(task.status, task.attempts) for task in await self.tasks(ids)]


@asynccontextmanager
async def working(
    folder: Path,
    *plugins: object,
    rate: str | None = None,
    url: str = "",
    declares: bool = True,
) -> AsyncIterator[Bench]:
    """A bench whose worker runs; it is drained at the end, and nothing of it is left.

    `url`: of the queue; a file in `folder` if empty. `declares`: it has an endpoint.
    """
    host = Host()
    host.register(HttpPlugin(), "http")
    for number, plugin in enumerate(plugins):
        host.register(plugin, f"plugin_{number}")
    clock = FakeClock(time.time(), running=True)
    tables = host.registry.tables.values()
    store = await Store.open(url or f"sqlite:///{folder}/q.db", tables=tables, clock=clock)
    client = HttpClient()
    worker = Worker(store, host, client, clock)
    config = Config(folder, DaemonSettings(), {}, {}, Redactor(), "d")
    bench = Bench(store, worker, clock, config)
    receiver = bench.receiver
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    if declares:
        bench.adopt(rate=rate)
    else:
        worker.placement.adopt(config)
    loop = asyncio.create_task(worker.run())
    try:
        yield bench
    finally:
        receiver.open.set()
        await worker.drain(5)
        await loop
        server.close()
        await client.aclose()
        await store.close()
    pipe, lanes = worker.pipe, worker.lanes
    at_work = pipe.deadlines
    assert [*at_work.sending, *at_work.overdue, *at_work.preparing, *worker.claims.running] == []
    assert lanes.claimed == lanes.in_flight == lanes.unsettled == 0
