"""What an overloaded receiver gets: one that serves 200 a second and answers 503 beyond.

    python -m bench.overload [CALLS]

So many calls (20,000 by default) are due at once. The receiver is a process of its own, and counts:
what it served and what it refused, and how many requests its busiest second had. The worker, over a
real queue, knows nothing of it; retries as by default. It takes as long as it takes: 100 s at best
for 20,000.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import tempfile
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import click
import httpx

from orchestratord.engine.http_executor import HttpPlugin, HttpSpec
from orchestratord.engine.worker import Worker
from orchestratord.http.client import HttpClient
from orchestratord.model.endpoint import Api, Endpoint
from orchestratord.model.retry_policy import RetryPolicy
from orchestratord.model.settings import Config, DaemonSettings
from orchestratord.model.task import NewTask
from orchestratord.plugin.host import Host
from orchestratord.queue.operations import insert
from orchestratord.queue.records import Insert
from orchestratord.queue.store import Store
from orchestratord.values.redact import Redactor

HOST = "127.0.0.1"
SERVES = 200
"""Requests in any second."""


@dataclass(frozen=True)
class Overload:
    """What became of it."""

    tasks: int
    seconds: float
    """Until the last one was done."""
    requests: int
    refused: int
    peak: int
    """Requests of the busiest second."""

    @property
    def ideal(self) -> float:
        """Seconds that it takes at best: what is served at once is a second's."""
        return self.tasks / SERVES

    @property
    def shed(self) -> float:
        """The share of the requests that was refused."""
        return self.refused / self.requests


class OverloadedReceiver:
    """Serves so many requests in any second, and answers 503 to what is beyond."""

    def __init__(self) -> None:
        self._served: deque[float] = deque()
        self._recent: deque[float] = deque()
        self._requests = self._refused = self._peak = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                if head.startswith(b"GET /counts"):
                    found = [self._requests, self._refused, self._peak]
                    body = json.dumps(found).encode()
                    writer.write(
                        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
                    )
                else:
                    status = b"200 OK" if self._takes() else b"503 Service Unavailable"
                    writer.write(b"HTTP/1.1 %b\r\nContent-Length: 0\r\n\r\n" % status)
        writer.close()

    def _takes(self) -> bool:
        now = time.monotonic()
        for times in (self._served, self._recent):
            while times and times[0] <= now - 1:
                times.popleft()
        self._recent.append(now)
        self._requests += 1
        self._peak = max(self._peak, len(self._recent))
        if len(self._served) >= SERVES:
            self._refused += 1
            return False
        self._served.append(now)
        return True


def _receive(sock: socket.socket) -> None:
    async def serve() -> None:
        server = await asyncio.start_server(OverloadedReceiver().serve, sock=sock)
        await server.serve_forever()

    asyncio.run(serve())


async def overload(folder: Path, tasks: int) -> Overload:
    """Let `tasks` calls be due at once; wait until all are done."""
    from orchestratord_backoff import Exponential

    sock = socket.socket()
    sock.bind((HOST, 0))
    sock.listen(1_000)
    port = sock.getsockname()[1]
    process = get_context("fork").Process(target=_receive, args=(sock,), daemon=True)
    process.start()
    sock.close()
    host, client = Host(), HttpClient()
    host.register(HttpPlugin(), "http")
    store = await Store.open(f"sqlite:///{folder}/q.db")
    worker = Worker(store, host, client, store.clock)
    api = Api(name="a", base_url=f"http://{HOST}:{port}", egress=(HOST,))
    endpoint = Endpoint(
        "a/get", api, "http", HttpSpec.model_validate({"path": "/"}),
        RetryPolicy(backoff=Exponential()), 30.0, True,
    )  # fmt: skip
    config = Config(folder, DaemonSettings(), {"a": api}, {"a/get": endpoint}, Redactor(), "d")
    worker.placement.adopt(config)
    await store.write(insert.enqueue([Insert(NewTask("call", "a/get")) for _ in range(tasks)]))
    began = time.monotonic()
    running = asyncio.create_task(worker.run())
    try:
        while (await store.counts()).get("succeeded", 0) < tasks:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        seconds = time.monotonic() - began
        async with httpx.AsyncClient(trust_env=False) as asking:
            answer = await asking.get(f"http://{HOST}:{port}/counts")
        return Overload(tasks, seconds, *answer.json())
    finally:
        await worker.drain(5)
        await running
        await client.aclose()
        await store.close()
        process.terminate()
        process.join()


@click.command(help=__doc__)
@click.argument("calls", type=click.IntRange(min=1), default=20_000)
def main(calls: int) -> None:
    """Print the figures."""
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="overload-") as folder:
        found = asyncio.run(overload(Path(folder), calls))
    print(f"{found.tasks:,} calls to a receiver that serves {SERVES} a second")
    print(f"done within {found.seconds:.1f} s, {found.seconds / found.ideal:.2f} x of the ideal")
    print(f"{found.requests:,} requests, {found.refused:,} refused, {found.shed:.1%}")
    print(f"{found.peak} requests in the busiest second, {found.peak / SERVES:.2f} x")


if __name__ == "__main__":
    main()
