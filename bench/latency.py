"""How late things happen, on an idle machine.

    python -m bench.latency

Measured at a receiver of this process, against a daemon in a process of its own: the gaps between
attempts, how late a single task starts that has become due, how soon one that is due at once; and
how long `orchestratorctl status` takes, from a cold start to its end.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.acceptance.daemon import Daemon
from tests.acceptance.receiver import Receiver
from tests.acceptance.waiting import until

STRATEGIES: dict[str, dict[str, Any]] = {
    "fixed": {"strategy": "fixed", "delay": "300ms"},
    "linear": {"strategy": "linear", "delay": "200ms"},
    "exponential": {"strategy": "exponential", "delay": "100ms", "factor": 2},
}
DELAYS: dict[str, Callable[[int], float]] = {
    "fixed": lambda n: 0.3,
    "linear": lambda n: 0.2 * n,
    "exponential": lambda n: 0.1 * 2 ** (n - 1),
}
ATTEMPTS = 6
ROUNDS = 40

WALL = time.time() - time.monotonic()
"""Added to monotonic seconds: seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table, in milliseconds. `limit` is for `value`."""

    what: str
    value: float
    limit: float
    rest: str = ""

    @property
    def kept(self) -> bool:
        return self.value <= self.limit


def gaps(daemon: Daemon, receiver: Receiver) -> Iterator[Figure]:
    """How far the gaps between attempts are from what the strategy says, at worst."""
    ids = [daemon.call(f"shop/{name}") for name in STRATEGIES]
    for task_id in ids:
        daemon.finish(task_id)
    for name, delay in DELAYS.items():
        times = [item.at for item in receiver.received(f"/{name}")]
        off = [
            (later - earlier - delay(n)) * 1000
            for n, (earlier, later) in enumerate(pairwise(times), 1)
        ]
        worst = max(map(abs, off))
        yield Figure(f"gaps, {name}: furthest off", worst, 100, f"of {len(off)}")


def due(daemon: Daemon, receiver: Receiver) -> Figure:
    """How late a single task starts whose time has come."""
    late = []
    for number in range(ROUNDS):
        task_id = daemon.call("shop/ok", 0.12 + number % 10 / 100)
        when = datetime.fromisoformat(daemon.task(task_id)["next_try"]).timestamp()
        late.append((_arrival(receiver, task_id) + WALL - when) * 1000)
    return _median("a task that has become due starts after", late, 20)


def at_once(daemon: Daemon, receiver: Receiver) -> Figure:
    """How soon a task starts that is due at once, from the moment at which it was asked for."""
    late = []
    for _ in range(ROUNDS):
        asked = time.monotonic()
        late.append((_arrival(receiver, daemon.call("shop/ok")) - asked) * 1000)
    return _median("a call is at its receiver after", late, 20)


def status(daemon: Daemon) -> Figure:
    """How long `orchestratorctl status` takes."""
    took = []
    for _ in range(ROUNDS // 2):
        began = time.monotonic()
        ran = daemon.ctl("status")
        took.append((time.monotonic() - began) * 1000)
        assert ran.code == 0, ran.err
    return _median("orchestratorctl status takes", took, 150)


def _arrival(receiver: Receiver, task_id: int) -> float:
    def look() -> list[float]:
        return [r.at for r in receiver.received("/ok") if r.query["task"] == str(task_id)]

    return until(look, f"the arrival of task {task_id}")[0]


def _median(what: str, values: list[float], limit: float) -> Figure:
    ordered = sorted(values)
    rest = f"of {len(values)}; 90 % {ordered[len(ordered) * 9 // 10]:.1f}, worst {ordered[-1]:.1f}"
    return Figure(f"{what} (median)", statistics.median(values), limit, rest)


def measure() -> Iterator[Figure]:
    """All figures, one after the other."""
    with tempfile.TemporaryDirectory(prefix="latency-") as folder, Receiver() as receiver:
        daemon = Daemon(Path(folder) / "d", egress={"allow": [receiver.address]})
        daemon.api("shop", receiver.url)
        for name, backoff in STRATEGIES.items():
            receiver.on(f"/{name}", 500)  # 503 would have the API slowed down
            policy = {"backoff": backoff, "jitter": 0, "max_attempts": ATTEMPTS}
            daemon.endpoint(f"shop/{name}", f"/{name}", retry=policy)
        receiver.on("/ok", 200)
        daemon.endpoint("shop/ok", "/ok", query={"task": "{{ task.id }}"})
        with daemon:
            daemon.start()
            for _ in range(5):
                daemon.finish(daemon.call("shop/ok"))
            yield from gaps(daemon, receiver)
            yield due(daemon, receiver)
            yield at_once(daemon, receiver)
            yield status(daemon)


def main() -> int:
    kept = True
    for figure in measure():
        kept &= figure.kept
        verdict = "" if figure.kept else "  TOO LATE"
        print(
            f"{figure.what:50}{figure.value:8.1f} ms  (limit {figure.limit:g}){verdict}"
            f"  {figure.rest}",
            flush=True,
        )
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
