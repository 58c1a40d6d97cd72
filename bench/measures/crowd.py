"""Thousands of requests in flight at once, to a receiver that takes its time."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench.environment.daemon import BATCH, STALL, daemon, succeeded
from bench.environment.processes import resident
from bench.environment.servers import HOST
from bench.measures import slow_receiver
from bench.measures.drain import MIB
from bench.results.figures import Figure
from tests.acceptance.daemon import Daemon

LIMIT = 120.0


def measure(home: Path, in_flight: int, seconds: float) -> Iterator[Figure]:
    """Make `in_flight` calls at once that are answered after some seconds.

    Calls that are answered after a second are all in flight together only where they are all sent
    within one; that is what the number at the receiver shows.
    """
    # The daemon and the receiver inherit it; each needs a descriptor a connection.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    receiver = subprocess.Popen(  # noqa: S603
        [sys.executable, slow_receiver.__file__, str(seconds)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert receiver.stdin is not None
        assert receiver.stdout is not None
        port = int(receiver.stdout.readline())
        with daemon(home, concurrency=in_flight) as made:
            took, peak = _hold(made, port, in_flight)
        stalls = len(re.findall(STALL, made.log()))
        receiver.stdin.close()
        most = int(receiver.stdout.readline())
    finally:
        receiver.kill()
        receiver.wait()
    what = f"{in_flight:,} calls at once, answered after {seconds:g} s"
    yield Figure(f"{what}: most of them at the receiver at once", most, "")
    yield Figure(f"{what}: all done after", took, "s")
    yield Figure(f"{what}: stalls of the loop over 2 s", stalls, "")
    yield Figure(f"{what}: peak memory (VmHWM)", peak / MIB, "MiB")


def _hold(made: Daemon, port: int, in_flight: int) -> tuple[float, int]:
    """Seconds until all are done, and the most memory in bytes."""
    made.api("bench", f"http://{HOST}:{port}/", concurrency=in_flight)
    made.endpoint("bench/post", "/", method="POST", idempotent=True)
    made.start()
    made.post("/v1/endpoints/bench/post/pause").raise_for_status()
    for first in range(0, in_flight, BATCH):
        made.batch("bench/post", [{}] * min(BATCH, in_flight - first))
    began = time.monotonic()
    made.post("/v1/endpoints/bench/post/resume").raise_for_status()
    while succeeded(made) < in_flight:
        if time.monotonic() - began > LIMIT:
            raise RuntimeError(f"{succeeded(made)} of {in_flight} were done in {LIMIT:g} s")
        time.sleep(0.1)
    return time.monotonic() - began, resident(made.pid, "VmHWM")
