"""What is said of all tasks at once, with a million of them and with ten, on both databases."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.dashboard import ROUNDS, asked, filled
from bench.environment.postgres import queue_url, server
from bench.results.figures import Figure

ASKED = {
    "`/v1/status`": "/v1/status",
    "`/metrics`": "/metrics",
    "the overview": "/",
    "a filter by a `reason` that no task has": "/v1/retries?reason=ambiguous",
}

BEGUN = 20.0
"""Seconds after which a daemon has looked through all that waits, as it does at its start."""


def measure(home: Path, sizes: Sequence[int]) -> Iterator[Figure]:
    """Milliseconds for each, the median, in queues of these sizes as `bench.dashboard` fills
    them."""
    for rows in sizes:
        yield from _times(home / str(rows), rows, f"{rows:,} tasks")
        with server() as database:
            shown = f"{rows:,} tasks on PostgreSQL"
            yield from _times(home / f"{rows}-postgresql", rows, shown, queue_url(database))


def _times(home: Path, rows: int, shown: str, url: str | None = None) -> Iterator[Figure]:
    with filled(home, rows, url) as client:
        time.sleep(BEGUN)
        for name, path in ASKED.items():
            asked(client, path)
            took = statistics.median(asked(client, path) for _ in range(ROUNDS))
            yield Figure(f"{name}, {shown}", took, "ms")
