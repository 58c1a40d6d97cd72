"""How long each page of the dashboard takes over a million tasks.

\b
    python -m bench.dashboard                  a million rows; about a minute
    python -m bench.dashboard --rows 10000000

Nine of ten tasks have succeeded; of the rest half waits and most of the others have failed. They
belong to 200 endpoints. The daemon is as shipped, and asked over TCP, one page after the other:
first each page once, since nothing is in memory then, and then 20 times.
"""

from __future__ import annotations

import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import httpx

from bench.environment.daemon import daemon
from bench.measures.fill import without_indexes
from tests.acceptance.daemon import Daemon

TOKEN = "a-token-of-the-benchmark"  # noqa: S105
ENDPOINTS = 200
ROUNDS = 20
WARM = 3.0
"""Seconds after its start that the daemon is asked for the first page."""

ROWS = """
WITH RECURSIVE number(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM number WHERE i < {rows}),
placed AS (SELECT i, CASE
    WHEN i % 10 <> 0 THEN 'succeeded'
    WHEN i % 20 <> 0 THEN 'pending'
    WHEN i % 200 <> 0 THEN 'failed'
    ELSE 'cancelled' END AS status FROM number)
INSERT INTO retry_schedule (
    kind, endpoint_id, status, reason, attempts, max_attempts, next_try, params, finished_at,
    last_status_code, last_error, created_at, updated_at, scheduled_at
)
SELECT 'call', 'api' || i * 7 % 20 || '/call' || i * 7 % {endpoints}, status,
    CASE status WHEN 'failed' THEN 'exhausted' END, 1, 15,
    CASE status WHEN 'pending' THEN {now} + 3600000 + i END,
    '{{"number": ' || i || ', "customer": "customer ' || i * 31 % 5000 || '"}}',
    CASE WHEN status <> 'pending' THEN {now} - ({rows} - i) END,
    CASE WHEN status = 'succeeded' THEN '200' ELSE '503' END,
    CASE WHEN status <> 'succeeded' THEN '503 Service Unavailable' END,
    {now} - ({rows} - i) * 10, {now} - ({rows} - i), {now} - ({rows} - i) * 10
FROM placed
"""
ATTEMPTS = """
INSERT INTO attempts (task_id, attempt, started_at, duration_ms, status_code, why)
SELECT id, 1, created_at, 12.5, last_status_code, '' FROM retry_schedule
"""


def fill(database: Path | str, rows: int) -> None:
    """Fill the tables that a daemon has made in this file, or in the PostgreSQL of this URL; none
    may have it open."""
    made = ROWS.format(rows=rows, endpoints=ENDPOINTS, now=int(time.time() * 1000))
    with without_indexes(database) as run:
        run(made)
        run(ATTEMPTS)


def pages(rows: int) -> dict[str, str]:
    """What is measured, by the names that it has in the table."""
    return {
        "the overview": "/",
        "the overview of a day": "/?range=24h",
        "all tasks": "/retries",
        "all tasks, in the middle": f"/retries?after={rows // 2}",
        "what failed": "/retries?status=failed",
        "what failed, by its end": "/retries?status=failed&order=ended",
        "what failed of one endpoint, by its end": (
            "/retries?status=failed&endpoint=api0/call0&order=ended"
        ),
        "what failed of one endpoint": "/retries?status=failed&endpoint=api0/call0",
        "what failed in an hour": "/retries?status=failed&since=1h",
        "a text that is rare": "/retries?text=customer 4711",
        "a text that is nowhere": "/retries?text=no-such-text",
        "a status code that is nowhere": "/retries?status_code=418",
        "one task": f"/retries/{rows // 2}",
        "the endpoints": "/endpoints",
        "one endpoint": "/endpoints/api0/call0",
        "the action log": "/actions",
    }


def declare(made: Daemon) -> None:
    """The endpoints that the tasks belong to."""
    for number in range(ENDPOINTS):
        made.endpoint(f"api{number % 20}/call{number}", "/", params={"number": {}, "customer": {}})
    for api in range(20):
        made.api(f"api{api}", "http://127.0.0.1:9")


def asked(client: httpx.Client, path: str) -> float:
    """Milliseconds from the request to the last byte."""
    began = time.perf_counter()
    response = client.get(path)
    took = (time.perf_counter() - began) * 1000
    if response.status_code != 200:
        raise RuntimeError(f"{path}: {response.status_code} {response.text[:500]}")
    return took


@contextmanager
def filled(home: Path, rows: int, url: str | None = None) -> Iterator[httpx.Client]:
    """A daemon with so many tasks, in a file or in the PostgreSQL of `url`, that runs, and who asks
    it; it has run for `WARM` seconds."""
    http = {"bind": "127.0.0.1:0", "token": "${secret:TOKEN}"}
    settings = {"http": http} if url is None else {"http": http, "database": url}
    with daemon(home, {"TOKEN": TOKEN}, **settings) as made:
        declare(made)
        made.start()
        made.stop()
        click.echo(f"filling {rows:,} rows", err=True)
        fill(url or made.database, rows)
        made.log_file.unlink()
        made.start()
        line = made.logged(r"ready: .*http://127\.0\.0\.1:")
        address = next(word.strip(",") for word in line.split() if word.startswith("http://"))
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        with httpx.Client(base_url=address, headers=bearer, timeout=60) as client:
            asked(client, "/healthz")
            time.sleep(WARM)
            yield client


@click.command(help=__doc__)
@click.option("--rows", default=1_000_000, show_default=True, help="Tasks in the queue.")
def main(rows: int) -> None:
    with tempfile.TemporaryDirectory() as home, filled(Path(home), rows) as client:
        first = {name: asked(client, path) for name, path in pages(rows).items()}
        click.echo(f"\n$ python -m bench.dashboard {shlex.join(sys.argv[1:])}\n")
        click.echo(f"{'ms':42}{'first':>8}{'median':>8}{'most':>8}")
        for name, path in pages(rows).items():
            times = [asked(client, path) for _ in range(ROUNDS)]
            click.echo(
                f"{name:42}{first[name]:8.1f}{statistics.median(times):8.1f}{max(times):8.1f}"
            )


if __name__ == "__main__":
    main()
