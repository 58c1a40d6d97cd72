"""What a receiver gets that refuses: since it is overloaded, or whatever it is sent.

    python -m bench.overload [CALLS]          serves 200 a second, and answers 503 beyond
    python -m bench.overload --pace off       the same by 429, as if there were no pace
    python -m bench.overload --refusals       refuses at random, each first call, or for a while

So many calls (20,000 by default) are due at once. The receiver is a process of its own, and counts:
what it served and what it refused, and how many requests its busiest second had. The worker, over a
real queue, knows nothing of it; retries as by default. It takes as long as it takes: 100 s at best
for 20,000.

With `--refusals`, 3,000 calls are due, and what is refused is tried again after 100 ms: at random
1, 5, 10 and 30 of 100 are answered 503, 429, or 500, of which no pace hears; then each call is
refused once. Then 20 calls a second are made to each of five APIs for a minute, which refuse 1, 5,
10, 30 and 30 of 100. Then a receiver serves 200 a second for ten seconds, and all from then on.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import tempfile
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Literal

import click
import httpx

from bench.results.figures import Figure
from orchestratord.engine.http_executor import HttpPlugin, HttpSpec
from orchestratord.engine.worker import Worker
from orchestratord.http.client import HttpClient
from orchestratord.model.backoff import Fixed
from orchestratord.model.endpoint import Api, Endpoint
from orchestratord.model.retry_policy import RetryPolicy
from orchestratord.model.settings import Config, DaemonSettings
from orchestratord.model.task import Key, NewTask
from orchestratord.plugin.host import Host
from orchestratord.queue.batch import reads
from orchestratord.queue.connection import Connection
from orchestratord.queue.operations import effects
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


Takes = Callable[[float, str], bool]
"""Whether a receiver serves a request now (seconds), to this path."""


def some_a_second() -> Takes:
    """`SERVES` in any second."""
    served: deque[float] = deque()

    def takes(now: float, path: str) -> bool:
        while served and served[0] <= now - 1:
            served.popleft()
        if len(served) >= SERVES:
            return False
        served.append(now)
        return True

    return takes


def at_random(share: float) -> Takes:
    """All but this share."""
    chance = Random(1)  # noqa: S311
    return lambda now, path: chance.random() >= share


def by_api() -> Takes:
    """All but 1, 5, 10, 30 and 30 of 100, by the first letter of the path."""
    of = {name: at_random(share) for name, share in zip("abcde", (*SHARES, 0.3), strict=True)}
    return lambda now, path: of[path[1]](now, path)


def second_time() -> Takes:
    """Each path from its second request on."""
    seen: Counter[str] = Counter()

    def takes(now: float, path: str) -> bool:
        seen[path] += 1
        return seen[path] > 1

    return takes


def overloaded_for(seconds: float) -> Takes:
    """`SERVES` a second for so long since the first request, and then all."""
    limited, first = some_a_second(), list[float]()

    def takes(now: float, path: str) -> bool:
        if not first:
            first.append(now)
        return now - first[0] > seconds or limited(now, path)

    return takes


class CountingReceiver:
    """Answers 200 to what it takes, and `refusal` to the rest."""

    def __init__(self, takes: Takes, refusal: int) -> None:
        self._takes = takes
        self._refusal = b"HTTP/1.1 %d Refused\r\nContent-Length: 0\r\n\r\n" % refusal
        self._recent: deque[float] = deque()
        self._requests = self._refused = self._peak = 0
        self._by_second: Counter[int] = Counter()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                if head.startswith(b"GET /counts"):
                    counts = [self._requests, self._refused, self._peak]
                    body = json.dumps([counts, sorted(self._by_second.items())]).encode()
                    writer.write(
                        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
                    )
                else:
                    writer.write(self._answer(head.split(None, 2)[1].decode()))
        writer.close()

    def _answer(self, path: str) -> bytes:
        now = time.monotonic()
        while self._recent and self._recent[0] <= now - 1:
            self._recent.popleft()
        self._recent.append(now)
        self._requests += 1
        self._by_second[int(now)] += 1
        self._peak = max(self._peak, len(self._recent))
        if self._takes(now, path):
            return b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        self._refused += 1
        return self._refusal


def _receive(sock: socket.socket, takes: Callable[[], Takes], refusal: int) -> None:
    async def serve() -> None:
        receiver = CountingReceiver(takes(), refusal)
        server = await asyncio.start_server(receiver.serve, sock=sock)
        await server.serve_forever()

    asyncio.run(serve())


class Rig:
    """A worker over a real queue, and the receiver of its calls."""

    def __init__(self, store: Store, worker: Worker, url: str) -> None:
        self.store = store
        self.worker = worker
        self._url = url

    async def add(self, tasks: int, api: str = "a") -> None:
        """So many calls are due."""
        new = [Insert(NewTask("call", f"{api}/get", params={"n": n})) for n in range(tasks)]
        for item in await self.store.write(effects.enqueue(new)):
            self.worker.placement.touched(Key(f"{api}/get"), item.next_try or 0)

    async def done(self, tasks: int) -> None:
        """Return once so many have succeeded."""
        while (await self.store.counts()).get("succeeded", 0) < tasks:  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    async def counts(self) -> tuple[list[int], list[list[int]]]:
        """Of the receiver: requests, refused, the busiest second; and the requests by second."""
        async with httpx.AsyncClient(trust_env=False) as asking:
            totals, by_second = (await asking.get(f"{self._url}/counts")).json()
        return totals, by_second


@asynccontextmanager
async def rig(
    folder: Path,
    takes: Callable[[], Takes],
    refusal: int,
    retry: RetryPolicy,
    apis: int = 1,
    pace: Literal["on", "off"] = "on",
) -> AsyncIterator[Rig]:
    """A worker that runs, with so many APIs, which begin with `a`."""
    sock = socket.socket()
    sock.bind((HOST, 0))
    sock.listen(1_000)
    url = f"http://{HOST}:{sock.getsockname()[1]}"
    receive = get_context("fork").Process(target=_receive, args=(sock, takes, refusal), daemon=True)
    receive.start()
    sock.close()
    host, client = Host(), HttpClient()
    host.register(HttpPlugin(), "http")
    store = await Store.open(f"sqlite:///{folder}.db")
    worker = Worker(store, host, client, store.clock)
    declared: dict[str, Api] = {}
    endpoints: dict[str, Endpoint] = {}
    spec = HttpSpec.model_validate({"path": "/{{ params.n }}"})
    for name in (chr(ord("a") + number) for number in range(apis)):
        base = f"{url}/{name}"
        declared[name] = Api(name=name, base_url=base, egress=(HOST,), pace=pace)
        made = Endpoint(f"{name}/get", declared[name], "http", spec, retry, 30.0, True)
        endpoints[made.id] = made
    config = Config(folder, DaemonSettings(), declared, endpoints, Redactor(), "d")
    worker.placement.adopt(config)
    running = asyncio.create_task(worker.run())
    try:
        yield Rig(store, worker, url)
    finally:
        await worker.drain(5)
        await running
        await client.aclose()
        await store.close()
        receive.terminate()
        receive.join()


async def overload(
    folder: Path, tasks: int, refusal: int = 503, pace: Literal["on", "off"] = "on"
) -> Overload:
    """Let `tasks` calls be due at once; wait until all are done."""
    from orchestratord_backoff import Exponential

    retry = RetryPolicy(backoff=Exponential())
    async with rig(folder, some_a_second, refusal, retry, pace=pace) as made:
        began = time.monotonic()
        await made.add(tasks)
        await made.done(tasks)
        seconds = time.monotonic() - began
        totals, _ = await made.counts()
        return Overload(tasks, seconds, *totals)


SOON = RetryPolicy(backoff=Fixed(delay=0.1), jitter=0, max_attempts=1000)
DUE = 3_000
SHARES = (0.01, 0.05, 0.1, 0.3)


async def refused(folder: Path, takes: Callable[[], Takes], refusal: int, tasks: int) -> float:
    """Seconds in which `tasks` are done that are due at once."""
    async with rig(folder, takes, refusal, SOON) as made:
        await made.add(tasks)
        began = time.monotonic()
        await made.done(tasks)
        return time.monotonic() - began


async def trickle(folder: Path, refusal: int, seconds: int) -> tuple[int, float]:
    """Of 20 calls a second to each of five APIs, which refuse 1, 5, 10, 30 and 30 of 100: how many
    attempts there were, and by how many seconds the latest of them came after it was due."""
    async with rig(folder, by_api, refusal, SOON, apis=5) as made:
        for _ in range(20 * seconds):
            began = time.monotonic()
            for api in "abcde":
                await made.add(1, api)
            await asyncio.sleep(max(0.05 - (time.monotonic() - began), 0))
        await made.done(100 * seconds)
        return await made.store.read(_late())


@reads
def _late(db: Connection) -> tuple[int, float]:
    rows = db.all(
        "SELECT task_id, created_at, attempts.started_at, duration_ms, delay FROM attempts "
        "JOIN retry_schedule AS task ON task.id = task_id ORDER BY attempts.id"
    )
    due: dict[int, float] = {}
    latest = 0.0
    for id_, created_at, started_at, duration, delay in rows:
        latest = max(latest, started_at - due.get(id_, created_at))
        due[id_] = started_at + duration + (delay or 0) * 1000
    return len(rows), latest / 1000


async def back(folder: Path, seconds: int, after: int = 30, tasks: int = 200_000) -> int:
    """Seconds after an overload of so many until a receiver gets nine tenths of what it gets at
    most in the seconds `after` that; all by its own count."""
    async with rig(folder, partial(overloaded_for, seconds), 503, SOON) as made:
        await made.add(tasks)
        await asyncio.sleep(seconds + after)
        _, found = await made.counts()
    counts = {second - found[0][0]: count for second, count in found}
    slowed = [counts.get(second, 0) for second in range(seconds - 2, seconds)]
    if max(slowed) > 2 * SERVES:
        raise RuntimeError(f"it was not slowed: {slowed}")
    full = max(counts.get(second, 0) for second in range(seconds, seconds + after))
    return next(n for n in range(after) if counts.get(seconds + n, 0) >= 0.9 * full)


def measure_refusals(home: Path, tasks: int = DUE, seconds: int = 60) -> Iterator[Figure]:
    """What is due at receivers that refuse whatever they are sent, beside 500s."""
    numbers = count()

    def run(takes: Callable[[], Takes], code: int) -> float:
        return asyncio.run(refused(home / str(next(numbers)), takes, code, tasks))

    for share in SHARES:
        takes = partial(at_random, share)
        plain = run(takes, 500)
        for code in (503, 429):
            yield Figure(
                f"{share:.0%} refused by {code}, rate by 500s", plain / run(takes, code), "×"
            )
    plain = run(second_time, 500)
    yield Figure("each refused once, time by 500s", run(second_time, 503) / plain, "×")
    for code in (503, 429):
        made = asyncio.run(trickle(home / str(next(numbers)), code, seconds))
        yield Figure(f"100 a second, some refused by {code}: latest attempt", made[1], "s")
    yield Figure("until the full rate is back", asyncio.run(back(home / "back", 10)), "s")


def measure_overload(home: Path, calls: int) -> Iterator[Figure]:
    """An overloaded receiver: time by the ideal, and what it refused."""
    found = asyncio.run(overload(home, calls))
    yield Figure(
        f"{calls:,} calls, of which 200 a second are served: time", found.seconds / found.ideal, "×"
    )
    yield Figure("the same: refused of 100", 100 * found.shed, "%")


@click.command(help=__doc__)
@click.argument("calls", type=click.IntRange(min=1), default=20_000)
@click.option("--refusals", is_flag=True)
@click.option("--pace", type=click.Choice(["on", "off"]), default="on")
def main(calls: int, refusals: bool, pace: Literal["on", "off"]) -> None:
    """Print the figures."""
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="overload-") as name:
        if refusals:
            for figure in measure_refusals(Path(name)):
                print(f"{figure.what:50} {figure.value:8.2f} {figure.unit}", flush=True)
            return
        # Of 429 no breaker hears, which slows as well.
        found = asyncio.run(overload(Path(name), calls, 503 if pace == "on" else 429, pace))
    print(f"{found.tasks:,} calls to a receiver that serves {SERVES} a second")
    print(f"done within {found.seconds:.1f} s, {found.seconds / found.ideal:.2f} x of the ideal")
    print(f"{found.requests:,} requests, {found.refused:,} refused, {found.shed:.1%}")
    print(f"{found.peak} requests in the busiest second, {found.peak / SERVES:.2f} x")


if __name__ == "__main__":
    main()
