"""One of ten receivers hangs, with many calls due for it in front: what the others notice.

Everything is queued while the endpoints are paused. The one that hangs is resumed first, and takes
all that it may have in flight; then the others, and the clock runs until the last of theirs is
done.

Beside it, an endpoint that is called again and again, one of whose neighbours in its API hangs, or
twenty, and as many APIs: how long each call takes to arrive, with and without these.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from bench.environment.daemon import BATCH, daemon, succeeded
from bench.environment.servers import HOST, Nginx
from bench.results.figures import Figure
from tests.acceptance.daemon import Daemon
from tests.acceptance.receiver import Receiver
from tests.acceptance.waiting import until

HEALTHY = tuple(f"healthy{number}" for number in range(9))
HUNG = "hung"
LIMIT = 120.0


def measure(home: Path, nginx: Nginx, in_front: int, each: int) -> Iterator[Figure]:
    """Seconds with and without it, and their ratio.

    Args:
        home: an empty folder.
        nginx: its ports are the others.
        in_front: calls that are due for the receiver that hangs.
        each: calls for each of the others.
    """
    without = _time(home / "without", nginx, 0, each)
    with_it = _time(home / "with", nginx, in_front, each)
    calls = f"{each * len(HEALTHY):,} calls to nine receivers"
    yield Figure(f"{calls}", without, "s")
    yield Figure(f"{calls}, {in_front:,} in front for a tenth that hangs", with_it, "s")
    yield Figure("the latter to the former", with_it / without, "×")
    calls = each // 5
    alone = _neighbours(home / "alone", 0, calls)
    yield Figure(f"p99 of {calls:,} calls to an endpoint, until its receiver has it", alone, "ms")
    for hung in (1, 20):
        beside = _neighbours(home / f"beside-{hung}", hung, calls)
        yield Figure(f"the same, beside {hung} of its API and {hung} APIs that hang", beside, "ms")
        yield Figure("the latter to the former", beside / alone, "×")


def _neighbours(home: Path, hung: int, calls: int) -> float:
    """The 99th percentile of the milliseconds from a call to its arrival, one after the other."""
    hang = [f"shared/hang{n}" for n in range(hung)] + [f"hung{n}/get" for n in range(hung)]
    with Receiver() as receiver, daemon(home, concurrency=100, drain_timeout="0s") as made:
        receiver.hold("/hang")
        receiver.on("/ok", 200)
        for api in {name.partition("/")[0] for name in [*hang, "shared/ok"]}:
            made.api(api, receiver.url)
        made.endpoint("shared/ok", "/ok")
        for name in hang:
            made.endpoint(name, "/hang")
        made.start()
        made.finish(made.call("shared/ok"))
        for name in hang:
            made.batch(name, [{}] * 50)
        took = []
        for number in range(2, calls + 2):
            called = time.monotonic()
            made.call("shared/ok")
            until(lambda count=number: receiver.count("/ok") == count, "the call", LIMIT)  # type: ignore[misc]
            took.append((receiver.received("/ok")[-1].at - called) * 1000)
        return sorted(took)[int(len(took) * 0.99)]


def _time(home: Path, nginx: Nginx, in_front: int, each: int) -> float:
    # Nothing accepts here: the kernel takes the connections, and nothing is ever answered.
    # The concurrency is what it is without being set: 100, and 10 in each API.
    with (
        closing(socket.create_server((HOST, 0), backlog=128)) as hung,
        daemon(home, concurrency=100, drain_timeout="0s") as made,
    ):
        bases = {name: nginx.url(number) for number, name in enumerate(HEALTHY)}
        bases[HUNG] = f"http://{HOST}:{hung.getsockname()[1]}/"
        for name, base in bases.items():
            made.api(name, base)
            made.endpoint(f"{name}/post", "/", method="POST", idempotent=True)
        made.start()
        for name in bases:
            made.post(f"/v1/endpoints/{name}/post/pause").raise_for_status()
        for name, count in {HUNG: in_front, **dict.fromkeys(HEALTHY, each)}.items():
            for first in range(0, count, BATCH):
                made.batch(f"{name}/post", [{}] * min(BATCH, count - first))
        if in_front:
            _resume(made, HUNG)
            until(lambda: made.status()["in_flight"] == 10, "ten that hang")
        return _others(made, nginx, each)


def _others(made: Daemon, nginx: Nginx, each: int) -> float:
    count = each * len(HEALTHY)
    before = nginx.count()
    began = time.monotonic()
    for name in HEALTHY:
        _resume(made, name)
    while nginx.count() - before < count or succeeded(made) < count:
        if time.monotonic() - began > LIMIT:
            raise RuntimeError(f"{succeeded(made)} of {count} were done in {LIMIT:g} s")
        time.sleep(0.02)
    return time.monotonic() - began


def _resume(made: Daemon, name: str) -> None:
    made.post(f"/v1/endpoints/{name}/post/resume").raise_for_status()
