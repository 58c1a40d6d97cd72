"""What is said of all tasks at once, with a million of them and with ten."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.dashboard import ROUNDS, asked, filled
from bench.results.figures import Figure

ASKED = {
    "`/v1/status`": "/v1/status",
    "`/metrics`": "/metrics",
    "the overview": "/",
    "a filter by a `reason` that no task has": "/v1/retries?reason=ambiguous",
}


def measure(home: Path, sizes: Sequence[int]) -> Iterator[Figure]:
    """Milliseconds for each, the median, in queues of these sizes as `bench.dashboard` fills
    them."""
    for rows in sizes:
        with filled(home / str(rows), rows) as client:
            for name, path in ASKED.items():
                asked(client, path)
                took = statistics.median(asked(client, path) for _ in range(ROUNDS))
                yield Figure(f"{name}, {rows:,} tasks", took, "ms")
