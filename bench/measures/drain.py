"""How fast a queue is emptied: from the first request at the receiver to the last job done.

The jobs are queued before the workers start, and their start does not count.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.environment.processes import Meter, alive
from bench.environment.servers import Nginx

LIMIT = 300.0
"""Seconds; what takes longer has come to a halt."""
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Drained:
    """What it took."""

    rate: float
    """Requests a second."""
    cpu: float
    """CPU seconds of workers and database for 1,000 requests."""
    receiver_cpu: float
    """The same of nginx."""
    peak: float
    """MiB of workers and database."""


def drain(
    nginx: Nginx,
    requests: int,
    left: Callable[[], int],
    workers: Sequence[int],
    databases: Sequence[int] = (),
    begin: Callable[[], object] = lambda: None,
) -> Drained:
    """Watch a queue that is being emptied.

    Args:
        nginx: where the requests go.
        requests: how many have to come.
        left: how many jobs the queue does not have down as done.
        workers: processes that have just been started.
        databases: processes of their database.
        begin: lets them go, where they do not by themselves.

    Raises:
        RuntimeError: it did not end, or a worker did before.
    """
    meter, receiver = Meter([*workers, *databases]), Meter([nginx.pid])
    before = nginx.count()
    deadline = time.monotonic() + LIMIT

    def wait(done: Callable[[], bool], pause: float) -> None:
        while not done():
            if time.monotonic() > deadline or not all(map(alive, workers)):
                came = nginx.count() - before
                raise RuntimeError(f"it came to a halt after {came} of {requests} requests")
            meter.look()
            time.sleep(pause)

    begin()
    wait(lambda: nginx.count() > before, 0.002)
    began, spent, sent = time.monotonic(), meter.cpu, receiver.cpu
    # To look takes some of the machine as well: seldom, until it is nearly done.
    wait(lambda: nginx.count() - before >= requests * 0.9, 0.1)
    wait(lambda: nginx.count() - before >= requests, 0.02)
    wait(lambda: left() == 0, 0.005)
    took = time.monotonic() - began
    cpu, receiver_cpu = meter.cpu - spent, receiver.cpu - sent
    meter.look(at_once=True)
    return Drained(
        rate=requests / took,
        cpu=cpu / requests * 1000,
        receiver_cpu=receiver_cpu / requests * 1000,
        peak=meter.peak / MIB,
    )
