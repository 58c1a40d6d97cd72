"""What a large configuration costs: reading it, reading it again, memory, and the event loop.

    python -m bench.config [ENDPOINTS]

Writes a folder of so many endpoints (10,000 by default, fifty to an API), each with parameters, a
retry policy and a webhook of its own, and measures in processes of their own: reading it all, a
daemon's start until it is ready, and in a running daemon each kind of change, with the longest time
for which its event loop did nothing else. CPU seconds are less than seconds on a busy machine.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.environment.processes import cpu_seconds
from tests.acceptance.daemon import Daemon

PER_API = 50
ROUNDS = 3
"""Of each change."""
SETTLES = 7.0
"""Seconds in which the watcher looks as well, and the configuration before is freed."""

API = """\
base_url: https://api.example.com
headers: {Accept: application/json}
auth: {bearer: "${TOKEN:-not a real secret}"}
retry: {max_attempts: 8}
webhooks:
  - {name: all, phase: on_final_failure, url: "https://ops.example.com/all"}
"""
ENDPOINT = """\
method: GET
path: /services/data/v59.0/sobjects/User%(number)s/{{ params.id }}
query: {limit: "{{ params.limit }}"}
headers: {X-Trace: "{{ task.id }}"}
params:
  id: {type: string, required: true}
  limit: {type: integer, default: 50}
timeout: 10s
retry:
  backoff: exponential
  max_attempts: 5
webhooks:
  - name: ops
    phase: after_request
    status_code: [5xx, error]
    url: https://ops.example.com/hook/%(number)s
    secret: ${HOOK:-whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw}
    payload: {text: "{{ endpoint }} answered {{ status_code }}"}
"""


def write(daemon: Daemon, endpoints: int) -> None:
    """Write the folder."""
    for number in range(endpoints):
        api = f"api{number // PER_API:04d}"
        if number % PER_API == 0:
            daemon.write(f"apis/{api}/api.yaml", API)
        daemon.write(f"apis/{api}/endpoints/get{number:05d}.yaml", ENDPOINT % {"number": number})


# -- in a process of its own -----------------------------------------------------------------------


def read(folder: Path) -> dict[str, Any]:
    """Read the folder, and again; seconds, and bytes of memory that the configuration takes."""
    from orchestratord.config.loader import Loader
    from orchestratord.daemon.bootstrap import ADDRESSES, open_host

    host = open_host(folder)
    before = _rss()
    began, cpu = time.perf_counter(), time.process_time()
    loader = Loader(folder, host, addresses=ADDRESSES)
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    memory = _rss() - before
    again = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        loader.reload("bench")
        again.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "load": took,
        "cpu": cpu,
        "again": statistics.median(again),
        "memory": memory,
        "peak": peak,
    }


def load(folder: Path) -> None:
    """Read the folder once, and do nothing else."""
    from orchestratord.config.loader import Loader
    from orchestratord.daemon.bootstrap import ADDRESSES, open_host

    Loader(folder, open_host(folder), addresses=ADDRESSES)
    sys.stdout.flush()
    os._exit(0)  # to free all of it takes time, too


def _rss() -> int:
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def serve(folder: Path) -> int:
    """A daemon that also says on stdout how long its loop was held up, whenever USR1 asks."""
    from orchestratord.daemon import daemon, run

    worst = 0.0

    async def probe() -> None:
        nonlocal worst
        asked = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, asked.set)
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            worst, last = max(worst, now - last - 0.001), now
            if asked.is_set():
                asked.clear()
                print(worst, flush=True)
                worst = 0.0

    class Probed(daemon.Daemon):
        async def serve(self) -> int:
            self._probe = asyncio.create_task(probe())
            try:
                return await super().serve()
            finally:
                self._probe.cancel()

    run.Daemon = Probed  # type: ignore[misc]
    return run.run(folder)


# -- the driver ------------------------------------------------------------------------------------


class Probed(Daemon):
    """A daemon that can be asked how long its loop was held up."""

    def launch(self) -> subprocess.Popen[bytes]:
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", "bench.config", "--serve", str(self.config)],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
                env={**self.environ, "PYTHONPATH": os.getcwd()}, start_new_session=True,
            )  # fmt: skip
        return self.process

    def stall(self) -> float:
        """Seconds of the longest stall since the last question."""
        self.signal(signal.SIGUSR1)
        assert self.process is not None
        assert self.process.stdout is not None
        return float(self.process.stdout.readline())


def changes(daemon: Daemon) -> dict[str, Callable[[int], object]]:
    """Each kind of change; its argument makes one round differ from the other."""
    file = "apis/api0000/endpoints/get00007.yaml"
    return {
        "nothing": lambda _: None,
        "one endpoint": lambda n: daemon.write(
            file, ENDPOINT % {"number": 7} + f"idempotent: {str(n % 2 == 0).lower()}\n"
        ),
        "one API": lambda n: daemon.write("apis/api0001/api.yaml", API + f"timeout: {n + 1}s\n"),
        "all, by `defaults`": lambda n: daemon.write(
            "orchestratord.yaml", {**daemon.settings, "defaults": {"retry": {"jitter": n / 100}}}
        ),
    }


def measure(endpoints: int) -> Iterator[str]:
    """The figures, line by line."""
    with tempfile.TemporaryDirectory(prefix="config-") as folder:
        daemon = Probed(Path(folder) / "d")
        write(daemon, endpoints)
        command = [sys.executable, "-m", "bench.config", "--read", str(daemon.config)]
        ran = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
        found = json.loads(ran.stdout)
        each, memory = found["load"] / endpoints, found["memory"] / endpoints
        yield f"{endpoints:,} endpoints"
        yield (
            f"read                  {found['load']:7.2f} s   {each * 1e6:.0f} µs each, "
            f"{found['cpu']:.2f} s CPU"
        )
        yield f"read again, unchanged {found['again']:7.2f} s"
        yield (
            f"memory                {found['memory'] / 1e6:7.0f} MB  {memory / 1e3:.1f} kB each, "
            f"{found['peak'] / 1e6:.0f} MB the process at most"
        )
        with daemon:
            began = time.monotonic()
            daemon.start()
            took, cpu = time.monotonic() - began, cpu_seconds([daemon.pid])
            yield f"start until ready     {took:7.2f} s   {cpu:.2f} s CPU"
            time.sleep(SETTLES)
            yield f"longest stall         {daemon.stall() * 1e3:7.1f} ms  at the start"
            yield from (_reloads(daemon, what, change) for what, change in changes(daemon).items())
            yield f"memory of the daemon  {daemon.memory() / 1e6:7.0f} MB"


def _reloads(daemon: Probed, what: str, change: Callable[[int], object]) -> str:
    took, cpu, stalls = [], [], []
    for number in range(ROUNDS):
        change(number)
        daemon.stall()
        began, used = time.monotonic(), cpu_seconds([daemon.pid])
        daemon.reload()
        took.append(time.monotonic() - began)
        cpu.append(cpu_seconds([daemon.pid]) - used)
        time.sleep(SETTLES)
        stalls.append(daemon.stall() * 1e3)
    return (
        f"reload: {what:20}{statistics.median(took):6.2f} s   {statistics.median(cpu):.2f} s CPU   "
        f"longest stall {max(stalls):.1f} ms, median {statistics.median(stalls):.1f} ms"
    )


def main() -> int:
    if sys.argv[1:2] == ["--read"]:
        print(json.dumps(read(Path(sys.argv[2]))))
        return 0
    if sys.argv[1:2] == ["--load"]:
        load(Path(sys.argv[2]))
        return 0
    if sys.argv[1:2] == ["--serve"]:
        return serve(Path(sys.argv[2]))
    for line in measure(int(sys.argv[1]) if sys.argv[1:] else 10_000):
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
