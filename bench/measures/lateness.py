"""A thousand calls that become due in one instant: how late each is at its receiver."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from bench.environment.daemon import CONCURRENCY, daemon, succeeded
from bench.environment.servers import Nginx
from bench.results.figures import Figure, percentile

COUNT = 1000
DELAY = 3.0
"""Seconds until they are due; by then the daemon is idle again."""
LIMIT = 60.0
"""Seconds after which they are not going to come."""


def measure(home: Path, nginx: Nginx, workers: int = 1) -> Iterator[Figure]:
    """Milliseconds between `next_try` and the arrival, at the median and at 99 %."""
    by = f" by {workers} workers" if workers > 1 else ""
    with daemon(home, workers=workers) as made:
        made.api("bench", nginx.logged_url, concurrency=CONCURRENCY)
        made.endpoint(
            "bench/post", "/", method="POST", idempotent=True, headers={"X-Job": "{{ task.id }}"},
            params={"number": {"type": "integer"}},
            body={"json": {"number": "{{ params.number }}"}},
        )  # fmt: skip
        made.start()
        batch = [{"number": number} for number in range(COUNT)]
        made.post(
            "/v1/endpoints/bench/post/calls", {"batch": batch, "delay": DELAY}
        ).raise_for_status()
        due = {
            str(row["id"]): row["next_try"] / 1000
            for row in made.rows("SELECT id, next_try FROM retry_schedule")
        }
        deadline = time.monotonic() + DELAY + LIMIT
        time.sleep(DELAY)
        while succeeded(made) < COUNT:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{COUNT - succeeded(made)} of {COUNT} did not come")
            time.sleep(0.25)
    late = [(when - due[job]) * 1000 for when, job in nginx.arrivals()]
    if len(late) != COUNT:
        raise RuntimeError(f"{len(late)} requests came for {COUNT} calls")
    yield Figure(f"{COUNT:,} due in one instant{by}: lateness, median", percentile(late, 0.5), "ms")
    yield Figure(f"{COUNT:,} due in one instant{by}: lateness, 99 %", percentile(late, 0.99), "ms")
