"""Calls of one daemon or several whose queue is one PostgreSQL, with a webhook each or without.

They are queued before the daemons start, while their endpoint is paused; the clock runs from its
resumption.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path

from bench.environment.daemon import BATCH, TEXT, daemon, declare_post
from bench.environment.postgres import queue_url, server
from bench.environment.processes import thread_seconds
from bench.environment.servers import Nginx
from bench.measures.calls import webhooks_of
from bench.measures.drain import Drained, drain
from orchestratord.model.task import Key, NewTask
from orchestratord.queue.operations import effects, manual
from orchestratord.queue.records import Insert
from orchestratord.queue.store import Store
from tests.acceptance.control import Control

POST = Key("bench/post")
CONCURRENCY = 1_000
"""Of each daemon. 64 are in flight at once, as many as its API may have; some hundreds more are
claimed ahead, for which graphile-worker has a local queue of 500."""
PARTS = ("the daemons' loops", "their other threads", "PostgreSQL", "nginx")


def measure(
    home: Path,
    nginx: Nginx,
    count: int,
    *,
    told: bool = False,
    daemons: int = 1,
    workers: int = 1,
    spent: dict[str, float] | None = None,
) -> Drained:
    """Empty a queue of `count` calls; figures are of requests.

    Args:
        home: of the daemons.
        nginx: the receiver.
        count: of the calls.
        told: each has a webhook, and is two requests.
        daemons: how many share the queue.
        workers: of each.
        spent: is given the CPU seconds of each kind of thread, by the names of `PARTS`.
    """
    requests = 2 * count if told else count
    with ExitStack() as stack:
        database = stack.enter_context(server())
        url = queue_url(database)
        asyncio.run(_queue(url, count))
        started = []
        for number in range(daemons):
            settings = {"database": url, "concurrency": CONCURRENCY, "workers": workers}
            made = stack.enter_context(daemon(home / f"d{number}", **settings))
            declare_post(made, nginx, webhooks=webhooks_of(nginx, told))
            made.expect("a password is written out")
            started.append(made.start())
        first: Control = started[0]
        pids = [made.pid for made in started]

        def threads() -> tuple[float, ...]:
            loops, writers = map(sum, zip(*map(thread_seconds, pids), strict=True))
            return loops, writers, sum(thread_seconds(database.pid)), sum(thread_seconds(nginx.pid))

        before = threads()
        # An attempt is written with the end of its task, and its table is ten times smaller.
        drained = drain(
            nginx, requests, lambda: requests - database.ask("SELECT count(*) FROM attempts"),
            pids, [database.pid], lambda: first.post("/v1/endpoints/bench/post/resume"),
        )  # fmt: skip
        if spent is not None:
            spent |= {
                name: late - early
                for name, early, late in zip(PARTS, before, threads(), strict=True)
            }
        done = database.ask("SELECT count(*) FROM retry_schedule WHERE status = 'succeeded'")
        if done != requests:
            raise RuntimeError(f"{done} of {requests} tasks have succeeded")
        return drained


async def _queue(url: str, count: int) -> None:
    store = await Store.open(url)
    try:
        await store.write(manual.pause(POST.endpoint_id, True))
        for first in range(0, count, BATCH):
            numbers = range(first, min(first + BATCH, count))
            await store.write(effects.enqueue(
                [Insert(NewTask("call", POST.endpoint_id, {"number": n, "text": TEXT}))
                 for n in numbers]
            ))  # fmt: skip
    finally:
        await store.close()
