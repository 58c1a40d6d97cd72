"""What it costs to be told of calls that fail: not at all, one by one, or in batches.

    python -m bench.measures.alerts [CALLS]

So many calls (5,000 by default) fail for good, at a receiver that answers all the same. CPU time is
the daemon's; the rest of the machine may be busy.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from bench.environment.daemon import SECRET, call_all, daemon, declare_post
from bench.environment.processes import Meter
from bench.environment.servers import Nginx

ALERTS = {"no webhook": None, "a delivery each": 1, "batches of 1,000": 1_000, "one batch": 10_000}
"""How many events a delivery tells of at most; None where nothing is told."""


def measure(home: Path, nginx: Nginx, calls: int, most: int | None) -> None:
    """Print what it costs until all calls have failed, and all that is to be told is told."""
    webhook: dict[str, object] = {
        "name": "alert", "phase": "on_final_failure", "url": nginx.url(1), "secret": SECRET
    }  # fmt: skip
    if most is not None and most > 1:
        webhook["batch"] = {"every": "1h", "max": min(most, calls)}
    deliveries = calls // min(most, calls) if most is not None else 0
    with daemon(home) as made:
        declare_post(made, nginx, success=[201], webhooks=[webhook] if most is not None else [])
        made.start()
        made.post("/v1/endpoints/bench/post/pause").raise_for_status()
        call_all(made, "bench/post", calls)
        before, began = nginx.count(), time.monotonic()
        meter = Meter([made.pid])
        made.post("/v1/endpoints/bench/post/resume").raise_for_status()
        while nginx.count() - before < calls + deliveries:
            time.sleep(0.1)
        made.settle(60)
        cpu, took = meter.cpu, time.monotonic() - began
        print(
            f"{cpu / calls * 1000:.3f} s of CPU for 1,000 calls, {took:.1f} s in all, "
            f"{deliveries} deliveries"
        )
        made.stop()


def main() -> None:
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 5_000
    with tempfile.TemporaryDirectory() as folder, Nginx(Path(folder) / "nginx") as nginx:
        for number, (what, most) in enumerate(ALERTS.items()):
            print(f"{what}: ", end="", flush=True)
            measure(Path(folder) / str(number), nginx, calls, most)


if __name__ == "__main__":
    main()
