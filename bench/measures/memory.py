"""Memory of the daemon, idle and under load, also with many tasks waiting."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from bench.environment.daemon import SECRET, call_all, daemon, declare_post, enqueue, succeeded
from bench.environment.processes import resident
from bench.environment.servers import Nginx
from bench.measures.drain import MIB
from bench.measures.fill import FULL, Filling, fill
from bench.results.figures import Figure

SETTLED = 3.0
"""Seconds after the start."""
LIMIT = 120.0


def measure(home: Path, nginx: Nginx, count: int, waiting: int) -> Iterator[Figure]:
    """Idle, and the most while calls with a webhook each are taken and carried out.

    Args:
        home: an empty folder.
        nginx: where the requests go.
        count: of the calls.
        waiting: other tasks that are queued, and due, of an endpoint that is switched off.
    """
    beside = f", {waiting:,} tasks waiting" if waiting else ""
    webhook = {"name": "told", "phase": "after_request", "url": nginx.url(1), "secret": SECRET}
    with daemon(home) as made:
        declare_post(made, nginx, webhooks=[webhook])
        if waiting:
            api, name = FULL.endpoint_id.split("/")
            made.api(api, nginx.url())
            made.endpoint(f"{api}/{name}", "/", enabled=False)
            enqueue(made, ())
            fill(made.database, Filling("waiting", waiting, due=0, all_full=True))
        made.start()
        time.sleep(SETTLED)
        yield Figure(f"memory idle (VmRSS){beside}", resident(made.pid) / MIB, "MiB")
        call_all(made, "bench/post", count)
        deadline = time.monotonic() + LIMIT
        while succeeded(made) < 2 * count:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{succeeded(made)} of {2 * count} were done")
            time.sleep(0.2)
        yield Figure(
            f"memory at most (VmHWM) while {count:,} calls with a webhook are made{beside}",
            resident(made.pid, "VmHWM") / MIB,
            "MiB",
        )
