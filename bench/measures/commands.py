"""How long a command takes, from its start to its end: what its user waits for."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from bench.environment.daemon import daemon
from bench.measures.startup import declare
from bench.results.figures import Figure

RUNS = 20


def measure(home: Path, endpoints: int) -> Iterator[Figure]:
    """The median of several runs, beside a daemon that has so many endpoints."""
    made = daemon(home)
    declare(made, endpoints)
    folder = Path(sys.executable).parent
    environ = {**made.environ, "ORCHESTRATORD_SOCKET": str(made.socket)}
    commands = {
        "orchestratord --help": ["orchestratord", "--help"],
        "orchestratorctl --help": ["orchestratorctl", "--help"],
        "orchestratorctl status": ["orchestratorctl", "status"],
        f"orchestratord check, {endpoints:,} endpoints": [
            "orchestratord", "check", "--config", str(made.config),
        ],
    }  # fmt: skip
    with made:
        made.start()
        for what, (program, *words) in commands.items():
            command = [str(folder / program), *words]
            took = []
            for _ in range(RUNS + 1):
                began = time.perf_counter()
                subprocess.run(command, env=environ, check=True, capture_output=True)  # noqa: S603
                took.append(time.perf_counter() - began)
            # The first one compiles what Python has not yet.
            yield Figure(what, median(took[1:]) * 1000, "ms")
