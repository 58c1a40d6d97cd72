"""What the breaker is worth while a receiver is down, with a clock that is turned.

    python -m bench.outage [TASKS]

So many calls (1,000 by default) are due when their API goes down for ten minutes: its port refuses
connections. A worker over a real queue sends them, with retries as by default, once with its
breaker and once without. Between two moments at which something is due the clock is turned, so that
ten minutes take seconds. Then a few calls each in outages of 600 to 630 seconds, since it depends
on when the next probe is due how soon it is seen that the API is back. In the end two hundred calls
and an outage of a night: how many of them are lost.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from unittest.mock import patch

from orchestratord.engine.http_executor import HttpPlugin, HttpSpec
from orchestratord.engine.lanes import breaker
from orchestratord.engine.worker import Worker
from orchestratord.http.client import HttpClient
from orchestratord.model.endpoint import Api, Endpoint
from orchestratord.model.retry_policy import RetryPolicy
from orchestratord.model.settings import Config, DaemonSettings
from orchestratord.model.task import NewTask, Task
from orchestratord.plugin.host import Host
from orchestratord.queue.operations import effects, search
from orchestratord.queue.records import Insert
from orchestratord.queue.store import Store
from orchestratord.testing import FakeClock
from orchestratord.values import world
from orchestratord.values.redact import Redactor

DOWN = 600.0
NIGHT = 8 * 3600.0
"""Seconds."""
LATEST = 4 * 3600.0
"""Seconds after which the last task should long have ended."""
HOST = "127.0.0.1"


@dataclass(frozen=True)
class Outage:
    """What one outage cost. Times in seconds since the receiver was back."""

    failed: int
    """Attempts."""
    lost: int
    """Tasks that failed for good."""
    first: float
    """Until the first one succeeded."""
    last: float
    """Until the last one had."""
    most: int
    """Attempts of one task."""


async def outage(folder: Path, tasks: int, down: float = DOWN) -> Outage:
    """Let `tasks` calls be due when their API goes down for so long; wait until all have ended."""
    from orchestratord_backoff import Exponential

    host = Host()
    host.register(HttpPlugin(), "http")
    clock, client = FakeClock(time.time(), running=True), HttpClient()
    store = await Store.open(f"sqlite:///{folder}/q.db", clock=clock)
    with patch.object(world, "Random", partial(Random, 1)):  # the same jitter in each run
        worker = Worker(store, host, client, clock)
    # Bound, so that nothing else gets the port, and refusing connections as nothing listens.
    receiver = socket.socket()
    receiver.bind((HOST, 0))
    port = receiver.getsockname()[1]
    api = Api(name="a", base_url=f"http://{HOST}:{port}", egress=(HOST,))
    endpoint = Endpoint(
        "a/get", api, "http", HttpSpec.model_validate({"path": "/"}),
        RetryPolicy(backoff=Exponential()), 30.0, True,
    )  # fmt: skip
    config = Config(folder, DaemonSettings(), {"a": api}, {"a/get": endpoint}, Redactor(), "d")
    worker.placement.adopt(config)
    inserts = [Insert(NewTask("call", "a/get")) for _ in range(tasks)]
    ids = [item.id for item in await store.write(effects.enqueue(inserts))]
    back = clock.now() + down
    running = asyncio.create_task(worker.run())
    up: asyncio.Server | None = None
    try:
        while (left := len(ids) - await _ended(store)) and clock.now() < back + LATEST:
            await _idle(worker)
            if up is None and clock.now() >= back:
                up = await asyncio.start_server(_serve, sock=receiver)
            moment = (worker.lanes.next_look() or 0) / 1000 + 0.001
            moment = min(moment, back) if up is None else moment
            clock.turn(max(moment - clock.now(), 0.0))
            worker.lanes.wake.set()
            await asyncio.sleep(0)
        if left:
            raise RuntimeError(f"{left} tasks have not ended")
        return await _outcome(store, ids, back)
    finally:
        await worker.drain(5)
        await running
        (up or receiver).close()
        await client.aclose()
        await store.close()


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def _idle(worker: Worker) -> None:
    """Return when nothing is under way."""
    lanes, claims = worker.lanes, worker.claims
    while lanes.claimed or lanes.unsettled or claims.running or _due(worker):  # noqa: ASYNC110
        await asyncio.sleep(0.0005)


def _due(worker: Worker) -> bool:
    look = worker.lanes.next_look()
    return bool(worker.lanes._ready) or (look is not None and look <= worker.clock.now_ms())


async def _ended(store: Store) -> int:
    counts = await store.counts()
    return counts.get("succeeded", 0) + counts.get("failed", 0)


async def _outcome(store: Store, ids: list[int], back: float) -> Outage:
    attempts = [await store.read(search.attempts(id_)) for id_ in ids]
    tasks: list[Task] = [await store.read(search.get(id_)) for id_ in ids]
    ends = [
        (row.started_at + row.duration_ms) / 1000 - back
        for rows in attempts
        for row in rows
        if row.status_code == 200
    ]
    return Outage(
        failed=sum(row.status_code != 200 for rows in attempts for row in rows),
        lost=sum(task.status != "succeeded" for task in tasks),
        first=min(ends, default=math.inf),
        last=max(ends, default=math.inf),
        most=max(map(len, attempts)),
    )


@contextmanager
def without_breaker() -> Iterator[None]:
    """Have no breaker open meanwhile."""
    least = breaker.LEAST
    breaker.LEAST = 1 << 60
    try:
        yield
    finally:
        breaker.LEAST = least


def both(tasks: int, down: float) -> tuple[Outage, Outage]:
    """The same outage with the breaker and without."""
    with tempfile.TemporaryDirectory(prefix="outage-") as folder:
        for name in ("with", "without"):
            (Path(folder) / name).mkdir()
        guarded = asyncio.run(outage(Path(folder) / "with", tasks, down))
        with without_breaker():
            return guarded, asyncio.run(outage(Path(folder) / "without", tasks, down))


def measure(tasks: int) -> Iterator[str]:
    """The figures, line by line."""
    with_, without = both(tasks, DOWN)
    yield f"{tasks:,} calls, their API down for {DOWN:.0f} s"
    yield f"{'':34}{'with':>10}{'without':>10}"
    for words, name, form in (
        ("attempts that failed", "failed", ",d"),
        ("most attempts of one call", "most", "d"),
        ("calls that were lost", "lost", "d"),
        ("back until the first success, s", "first", ".1f"),
        ("back until the last success, s", "last", ".1f"),
    ):
        yield f"{words:34}{getattr(with_, name):>10{form}}{getattr(without, name):>10{form}}"
    with tempfile.TemporaryDirectory(prefix="outage-") as folder:
        firsts = []
        for number, down in enumerate(range(600, 630, 2)):
            home = Path(folder) / str(number)
            home.mkdir()
            firsts.append(asyncio.run(outage(home, 40, down)).first)
    median, worst = statistics.median(firsts), max(firsts)
    yield f"first success over {len(firsts)} outages: median {median:.1f} s, at worst {worst:.1f} s"
    night = both(200, NIGHT)
    lost = " with, ".join(str(one.lost) for one in night)
    yield f"lost of 200 calls, down for {NIGHT / 3600:.0f} hours: {lost} without"
    saved = 1 - with_.failed / without.failed
    yield f"attempts saved: {without.failed - with_.failed:,}, {saved:.1%}"


def main() -> None:
    """Print the figures."""
    logging.disable(logging.CRITICAL)
    for line in measure(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000):
        print(line, flush=True)


if __name__ == "__main__":
    main()
