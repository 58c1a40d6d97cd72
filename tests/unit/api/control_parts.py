"""A daemon's parts around the control layer: real store, worker, host, receiver and socket."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx

from orchestratord.api.api_routes import application
from orchestratord.api.manual.bulk_runner import BulkRunner
from orchestratord.api.server.server import Listener, Server
from orchestratord.api.service import Service
from orchestratord.config.changes import Changes, Difference
from orchestratord.engine import http_executor
from orchestratord.engine.worker import Worker
from orchestratord.http.client import HttpClient
from orchestratord.model.endpoint import Param
from orchestratord.model.settings import Config
from orchestratord.model.task import Table
from orchestratord.queue.operations import bulk, manual
from orchestratord.queue.store import Store
from orchestratord.runtime.chore_runner import ChoreRunner
from orchestratord.runtime.clock_watch import ClockWatch
from orchestratord.runtime.fleet import Fleet
from orchestratord.runtime.team import Team
from orchestratord.runtime.upgrade import Upgrade
from orchestratord.testing import Rig
from orchestratord.values.clock import Clock
from tests.described_api import check

UNLIMITED = {"rate": None, "breaker": None, "retry_after": None, "overload": None, "openings": 0}
"""What the status says of a lane that waits for nothing."""


class Receiver:
    """An HTTP server that answers with the next of `codes`, 200 where there is none.

    While `gate` is not set, answers wait.
    """

    def __init__(self) -> None:
        self.codes: list[int] = []
        self.targets: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            self.targets.append(head.split()[1].decode())
            await self.gate.wait()
            code = self.codes.pop(0) if self.codes else 200
            writer.write(f"HTTP/1.1 {code} X\r\nContent-Length: 4\r\n".encode())
            writer.write(b"Connection: close\r\nContent-Type: text/plain\r\n\r\nbody")
            await writer.drain()
        writer.close()


class Loader:
    """Holds a configuration. `answers` scripts what a reload says."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.folder = Path("/etc/orchestratord")
        self.cause = "start"
        self.changes = Changes()
        self.error: Any = None
        self.restart_required: tuple[str, ...] = ()
        self.causes: list[str] = []
        self.problems: tuple[Any, ...] = ()

    async def reload(self, cause: str, **how: Any) -> Any:
        self.causes.append(cause)
        return SimpleNamespace(
            changed=True,
            config=self.config,
            problems=self.problems,
            restart_required=self.restart_required,
            cause=cause,
            changes=Changes(changed=("demo/get",)),
            differences=(Difference("demo/get", "timeout", "10s", "20s"),),
        )


class Scheduler:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.paused: set[str] = set()
        self.runs: dict[str, int] = {}

    def set_paused(self, paused: set[str]) -> None:
        self.paused = set(paused)

    def next_runs(self) -> dict[str, int]:
        return self.runs


async def _check(answer: httpx.Response) -> None:
    if not answer.headers.get("content-type", "").startswith("text/event-stream"):
        await answer.aread()
        check(answer)


class Parts:
    """Everything, wired; `client` speaks to the socket."""

    SECRET = "hunter2-hunter2"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "run" / "control.sock"
        self.receiver = Receiver()
        self.plugin = SimpleNamespace()
        self.scheduler = Scheduler()

    async def start(self, plugin: Any = None) -> None:
        await self.receiver.start()
        rig = Rig(http_executor.HttpPlugin(), name="http")
        if plugin is not None:
            rig.host.register(plugin, "extra")
        self.host = rig.host
        self.host.timeout = 0.5
        tables: list[Table] = list(self.host.registry.tables.values())
        self.clock = Clock()
        self.store = await Store.open(f"sqlite:///{self.folder}/q.db", tables=tables)
        self.loader = Loader(self._config(rig))
        self.host.events.open(self.clock, self.host.observer())
        self.http = HttpClient()
        self.worker = Worker(self.store, self.host, self.http, self.clock)
        self.worker.placement.adopt(self.loader.config)
        self.worker.placement.set_paused(await self.store.read(manual.paused()))
        scheduler: Any = self.scheduler
        reloader: Any = self.loader
        team = Team(self.worker)
        fleet = Fleet(self.worker, scheduler, reloader)
        watch = ClockWatch(self.worker, scheduler, fleet.throttles)
        self.service = Service(self.worker, scheduler, reloader, fleet, watch, team, Upgrade(None))
        self.server = Server(application(self.service, self.host), Listener(self.path))
        self.server.start()
        self._running = [
            asyncio.create_task(self.worker.run()),
            asyncio.create_task(self.chore_runner().run()),
        ]
        self.client = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=str(self.path), verify=False),  # there is no TLS
            base_url="http://daemon",
            timeout=60,
            # Routes of a test's own plugin are described nowhere.
            event_hooks={"response": [] if plugin is not None else [_check]},
        )

    async def stop(self) -> None:
        await self.client.aclose()
        self.receiver.gate.set()
        await self.worker.drain(2.0)
        self.service.close()
        self.host.events.close()
        await self.server.stop()
        for running in self._running:
            running.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await self.http.aclose()
        await self.store.close()
        await self.receiver.stop()

    def chore_runner(self) -> ChoreRunner:
        return ChoreRunner(self.store, {bulk.CHORE: BulkRunner(self.worker).step})

    def _config(self, rig: Rig) -> Config:
        api = {
            "base_url": f"http://127.0.0.1:{self.receiver.port}",
            "egress": ("127.0.0.1",),
        }
        params = {
            "id": Param(type="string"),
            "limit": Param(type="integer", default=50),
            "deep": Param(),
        }
        spec = http_executor.HttpSpec.model_validate({"path": "/things/{{ params.id }}"})
        shared = {"api": api, "spec": spec, "params": params}
        return rig.config(
            rig.endpoint("demo/get", **shared, shown={"method": "GET", "path": "/things"}),
            rig.endpoint("demo/other", **shared),
            rig.endpoint("demo/off", **shared, enabled=False),
            secrets=[self.SECRET],
        )

    async def post(self, target: str, body: Any = None, **options: Any) -> httpx.Response:
        return await self.client.post(target, json=body, **options)

    async def made(self, target: str = "demo/get", **params: Any) -> int:
        """The id of a new call."""
        answer = await self.post(f"/v1/endpoints/{target}/calls", {"params": params})
        assert answer.status_code == 202, answer.text
        return int(answer.json()["id"])

    async def ended(self, task_id: int) -> dict[str, Any]:
        """The task, once it has ended."""
        answer = await self.client.get(f"/v1/retries/{task_id}?wait=30")
        assert answer.status_code == 200, answer.text
        task: dict[str, Any] = answer.json()
        return task

    async def later(self, count: int, target: str = "demo/get") -> list[int]:
        """The ids of calls that wait."""
        body = {"batch": [{}] * count, "delay": "1h"}
        answer = await self.post(f"/v1/endpoints/{target}/calls", body)
        ids: list[int] = answer.json()["ids"]
        return ids

    async def failed(self, count: int = 1) -> list[int]:
        """The ids of calls that failed for good."""
        self.receiver.codes = [404] * count
        ids = [await self.made() for _ in range(count)]
        for id_ in ids:
            assert (await self.ended(id_))["status"] == "failed"
        return ids


async def until(condition: Any, seconds: float = 60.0) -> None:
    """Wait until `condition()` is true; it may be awaitable."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        result = condition()
        if asyncio.iscoroutine(result):
            result = await result
        if result:
            return
        assert asyncio.get_running_loop().time() < deadline, "it does not come true"
        await asyncio.sleep(0.01)
