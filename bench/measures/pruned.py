"""When a queue that has filled its disk takes calls again, once retention has removed some."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from bench.environment.daemon import daemon
from bench.results.figures import Figure
from tests.acceptance.daemon import Daemon
from tests.acceptance.receiver import Receiver
from tests.acceptance.waiting import until

TEXT = "y" * 12_000
LIMIT = 120.0


def measure(home: Path, megabytes: int) -> Iterator[Figure]:
    """Seconds, on a disk of this size in a mount namespace of its own, which only root can make."""
    disk = home / "disk"
    disk.mkdir(parents=True)
    mount = f'mount -t tmpfs -o size={megabytes}m tmpfs "{disk}" && exec "$@"'
    with (
        Receiver() as receiver,
        daemon(home / "d", database=f"sqlite:///{disk}/queue.db") as made,
    ):
        made.wrapper = ["unshare", "--mount", "--propagation", "private", "sh", "-c", mount, "sh"]
        made.expect("the disk is nearly full", "the disk takes no more", "cannot write task",
                    "claiming failed", "is not ready")  # fmt: skip
        receiver.on("/ok", 200)
        made.api("bench", receiver.url)
        made.endpoint("bench/ok", "/ok", params={"text": {"type": "string"}})
        made.start()
        count = 0
        while _accepted(made):
            count += 1
        until(lambda: made.status()["queue"]["succeeded"] == count, "all calls", LIMIT)
        made.write("orchestratord.yaml", {**made.settings, "retention": {"succeeded": "1s"}})
        until(lambda: not made.status()["queue"]["succeeded"], "the prune", LIMIT)
        began = time.monotonic()
        while not _accepted(made):
            if time.monotonic() - began > LIMIT:
                raise RuntimeError(f"it took no call for {LIMIT:g} s")
            time.sleep(0.02)
        took = time.monotonic() - began
        yield Figure(f"{megabytes} MiB: accepting again after the prune", took, "s")


def _accepted(made: Daemon) -> bool:
    answer = made.post("/v1/endpoints/bench/ok/calls", {"params": {"text": TEXT}})
    if answer.status_code not in {202, 507}:
        raise RuntimeError(f"{answer.status_code}: {answer.text[:500]}")
    return answer.status_code == 202
