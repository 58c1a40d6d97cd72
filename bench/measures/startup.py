"""From `orchestratord run` to ready, with many endpoints: what a service manager waits for."""

from __future__ import annotations

import os
import socket
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from statistics import median

from bench.environment.daemon import daemon
from bench.environment.processes import cpu_seconds
from bench.results.figures import Figure
from tests.acceptance.daemon import Daemon

EACH = 50
"""Endpoints of one API."""
STARTS = 5
LIMIT = 60.0
LOOK_EVERY = 1.0
"""Seconds between two looks whether it has ended, while it says nothing."""

ENDPOINT = """\
method: GET
path: /v1/objects/{{ params.id }}
query: {limit: "{{ params.limit }}"}
headers: {X-Trace: "{{ task.id }}"}
params:
  id: {type: string, required: true}
  limit: {type: integer, default: 50}
retry: {backoff: exponential, max_attempts: 8}
webhooks:
  - name: ops
    phase: on_final_failure
    url: https://ops.example.com/hook
    secret: whsec_YmVuY2htYXJrLW9mLW9yY2hlc3RyYXRvcmQ=
"""


def measure(home: Path, endpoints: int) -> Iterator[Figure]:
    """Seconds from the start of the process to READY=1; the median of several starts."""
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as listening:
        home.mkdir()
        listening.bind(str(home / "notify"))
        listening.settimeout(LOOK_EVERY)
        made = daemon(home / "d", {"NOTIFY_SOCKET": str(home / "notify")})
        declare(made, endpoints)
        with made:
            _start(made, listening)  # makes the database, and compiles what Python has not yet
            what = f"to ready with {endpoints:,} endpoints"
            warm = [_start(made, listening) for _ in range(STARTS)]
            yield Figure(f"{what}, files in memory", median(took for took, _ in warm), "s")
            yield Figure(f"{what}, CPU", median(cpu for _, cpu in warm), "s")
            cold = []
            for _ in range(STARTS):
                _forget_files(made.config, made.home)
                cold.append(_start(made, listening)[0])
            yield Figure(f"{what}, files on disk only", median(cold), "s")


def declare(made: Daemon, endpoints: int) -> None:
    """Write so many endpoints, in APIs of fifty each."""
    for number in range(endpoints):
        api, name = f"api{number // EACH}", f"endpoint{number}"
        if number % EACH == 0:
            made.api(api, "https://api.example.com")
        made.write(f"apis/{api}/endpoints/{name}.yaml", ENDPOINT)


def _start(made: Daemon, listening: socket.socket) -> tuple[float, float]:
    """Seconds to ready, and of CPU; it is stopped again."""
    began = time.monotonic()
    process = made.launch()
    while not _says_ready(listening):
        if process.poll() is not None or time.monotonic() - began > LIMIT:
            raise RuntimeError(f"it did not become ready:\n{made.log()[-2000:]}")
    took, cpu = time.monotonic() - began, cpu_seconds([process.pid])
    made.stop()
    # What it says while it stops is not for the next one.
    listening.setblocking(False)
    try:
        while True:
            listening.recv(4096)
    except BlockingIOError:
        listening.settimeout(LOOK_EVERY)
    return took, cpu


def _says_ready(listening: socket.socket) -> bool:
    try:
        return b"READY=1" in listening.recv(4096).split(b"\n")
    except TimeoutError:
        return False


def _forget_files(*more: Path) -> None:
    """Have the kernel drop files from memory: Python's, all packages', and those below `more`.

    Libraries that other processes have mapped stay.
    """
    os.sync()
    paths = {sysconfig.get_path(name) for name in ("stdlib", "platlib", "purelib")}
    for folder in (*map(Path, paths), Path(sys.executable).resolve().parent, *more):
        for root, _, names in os.walk(folder):
            for name in names:
                try:
                    file = os.open(os.path.join(root, name), os.O_RDONLY)
                except OSError:
                    continue
                try:
                    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
                finally:
                    os.close(file)
