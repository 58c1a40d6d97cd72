"""How long an accept takes beside a row of PostgreSQL that another session holds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import psycopg

from bench.environment.daemon import daemon
from bench.environment.postgres import queue_url, server
from bench.results.figures import Figure, percentile
from tests.acceptance.daemon import Daemon
from tests.acceptance.receiver import Receiver
from tests.acceptance.waiting import until

EACH = 0.005
"""Seconds between two calls."""


def measure(home: Path, seconds: float) -> Iterator[Figure]:
    """Milliseconds of each of the calls of so many seconds, with and without the lock of a task
    whose answer has come."""
    with server() as database, Receiver() as receiver:
        url = queue_url(database)
        with daemon(home, database=url, concurrency=100) as made:
            made.expect("a password is written out", "rows are locked by pid", "is not ready")
            receiver.hold("/slow")
            receiver.on("/ok", 200)
            made.api("bench", receiver.url)
            for name in ("slow", "ok"):
                made.endpoint(f"bench/{name}", f"/{name}")
            made.start()
            yield Figure("p99 of an accept", _accepts(made, seconds), "ms")
            task = made.call("bench/slow")
            until(lambda: receiver.count("/slow"), "the attempt")
            with psycopg.connect(url) as other:
                other.execute("SELECT 1 FROM retry_schedule WHERE id = %s FOR UPDATE", [task])
                receiver.let_go("/slow")
                beside = _accepts(made, seconds)
            yield Figure(f"p99 of an accept, a task locked for {seconds:g} s", beside, "ms")
            made.finish(task)


def _accepts(made: Daemon, seconds: float) -> float:
    took = []
    end = time.monotonic() + seconds
    while (began := time.monotonic()) < end:
        made.call("bench/ok")
        took.append((time.monotonic() - began) * 1000)
        time.sleep(EACH)
    return percentile(took, 0.99)
