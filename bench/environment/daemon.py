"""The daemon as the benchmark runs it: as shipped, with room for what it is to have in flight."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bench.environment.servers import Nginx
from orchestratord.model.task import NewTask
from orchestratord.queue.operations import effects
from orchestratord.queue.records import Insert
from orchestratord.queue.store import Store
from tests.acceptance.daemon import Daemon

CONCURRENCY = 64
"""In flight at once in each API."""
ROOM = 256
"""In flight at once in the daemon. What is above its APIs' is room to claim ahead in."""
LOOPBACK = "127.0.0.0/8"
SECRET = "whsec_" + "YmVuY2htYXJrLW9mLW9yY2hlc3RyYXRvcmQ="
TEXT = "x" * 1000
"""What makes a request about 1 KB long."""
BATCH = 1000
STALL = r"ERROR watchdog: .*the event loop"
"""What the daemon logs where its loop is busy for seconds; here, that is a result."""


def daemon(home: Path, environ: Mapping[str, str] | None = None, **settings: Any) -> Daemon:
    """A daemon below `home` that may send to this machine; `settings` are of its YAML."""
    settings = {"concurrency": ROOM, "egress": {"allow": [LOOPBACK]}, **settings}
    made = Daemon(home, environ, **settings)
    made.by_command = True
    made.expect(STALL)
    return made


def declare_post(made: Daemon, nginx: Nginx, endpoint_id: str = "bench/post", **keys: Any) -> None:
    """Declare an endpoint that sends about 1 KB and may be repeated; `keys` are of its YAML."""
    made.api("bench", nginx.url(), concurrency=CONCURRENCY)
    made.endpoint(
        endpoint_id, "/", method="POST", idempotent=True,
        params={"number": {"type": "integer"}, "text": {"type": "string", "default": TEXT}},
        body={"json": {"number": "{{ params.number }}", "text": "{{ params.text }}"}}, **keys,
    )  # fmt: skip


def enqueue(made: Daemon, tasks: Iterable[NewTask]) -> None:
    """Put tasks into the queue of a daemon that does not run, as one that runs would."""

    async def write() -> None:
        store = await Store.open(f"sqlite:///{made.database}")
        try:
            batch: list[Insert] = []
            for task in tasks:
                batch.append(Insert(task))
                if len(batch) == BATCH:
                    await store.write(effects.enqueue(batch))
                    batch = []
            await store.write(effects.enqueue(batch))
        finally:
            await store.close()

    asyncio.run(write())


def call_all(made: Daemon, endpoint_id: str, count: int, **params: Any) -> None:
    """Make so many calls, in batches."""
    for first in range(0, count, BATCH):
        numbers = range(first, min(first + BATCH, count))
        made.batch(endpoint_id, [{"number": number, **params} for number in numbers])


def succeeded(made: Daemon) -> int:
    """How many tasks have succeeded, says the daemon."""
    found: int = made.status()["queue"]["succeeded"]
    return found


def verify(made: Daemon, count: int) -> None:
    """Make sure that the database of a stopped daemon has so many tasks, all succeeded.

    Raises RuntimeError, with what there is instead.
    """
    found = made.rows(
        "SELECT status, COUNT(*) AS tasks, SUM(attempts) AS attempts FROM retry_schedule "
        "GROUP BY status"
    )
    logged = made.rows("SELECT COUNT(*) AS attempts FROM attempts")[0]["attempts"]
    if found != [{"status": "succeeded", "tasks": count, "attempts": count}] or logged != count:
        raise RuntimeError(f"{count} tasks were to succeed: {json.dumps(found)}, {logged} attempts")
