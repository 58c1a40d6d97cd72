"""How many instructions a task takes: a figure that is the same on a machine that is busy.

\b
    python -m bench.code.instructions            webhook deliveries, under valgrind
    python -m bench.code.instructions --calls    calls of one request
    python -m bench.code.instructions --told     calls with a webhook each: two requests
    python -m bench.code.instructions --payload  calls with a webhook that has a payload
    python -m bench.code.instructions --subscribed [--among N]  the same, to one of N subscriptions
    python -m bench.code.instructions --start    an endpoint of the configuration, and a start

valgrind counts what the daemon executes, in all of its threads, without the kernel's part. It does
so for few tasks and for many; the difference leaves out the start and the end.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import click

from bench import config
from bench.environment.daemon import daemon, verify
from bench.environment.folder import install_debian
from bench.environment.servers import Nginx
from bench.measures import calls, deliveries, subscribed
from tests.acceptance.daemon import Daemon

FEW, MANY = 500, 2_500
ENDPOINTS = 200
CACHEGRIND = ("valgrind", "--tool=cachegrind", "--cache-sim=no")
IMPORTS = """
from orchestratord.cli.main import main
from orchestratord.daemon.quick_imports import quick_imports
with quick_imports():
    import orchestratord.daemon.run
import os
os._exit(0)
"""
LIMIT = 900.0
"""Seconds; under valgrind all is fifty times slower."""


class Work(NamedTuple):
    """What the daemon does while it is counted: so many `requests` for each task that is queued."""

    what: str
    queue: Callable[[Daemon, Nginx, int], None]
    requests: int = 1


WORK = {
    "deliveries": Work("a webhook delivery", deliveries.queue),
    "calls": Work("a call", calls.queue),
    "told": Work("a call with a webhook", partial(calls.queue, told=True), 2),
    "payload": Work("a call with a webhook that has a payload", subscribed.queue, 2),
}


@click.command(help=__doc__)
@click.option("--calls", "of", flag_value="calls", help="calls, instead of webhook deliveries")
@click.option("--told", "of", flag_value="told", help="calls with a webhook each")
@click.option("--payload", "of", flag_value="payload", help="calls, each with a payload of its own")
@click.option("--subscribed", "of", flag_value="subscribed", help="that goes to a subscription")
@click.option("--among", default=10, help="subscriptions that there are")
@click.option("--start", "of", flag_value="start", help="what is read and imported at a start")
def main(of: str | None, among: int) -> None:
    install_debian({"valgrind": ("valgrind", "/usr/bin")})
    if of == "start":
        with tempfile.TemporaryDirectory() as home:
            start(Path(home))
        return
    work = WORK.get(of or "deliveries") or Work(
        f"a call with one of {among:,} subscriptions",
        partial(subscribed.queue, subscriptions=among),
        2,
    )
    with tempfile.TemporaryDirectory() as home, Nginx(Path(home) / "nginx") as nginx:
        _run(Path(home) / "1", nginx, 1, work)  # which compiles what has changed
        few, many = (
            _executed(Path(home) / f"{count}", nginx, count, work) for count in (FEW, MANY)
        )
    click.echo(f"{(many - few) / (MANY - FEW):,.0f} instructions for {work.what}")
    click.echo(f"{few - FEW * (many - few) // (MANY - FEW):,} for the start and the end")


def start(home: Path) -> None:
    """What one endpoint takes to be read, and the imports of `orchestratord run`."""
    counts = []
    for count in (ENDPOINTS, 3 * ENDPOINTS):
        made = Daemon(home / f"{count}")
        config.write(made, count)
        counts.append(_counted(home, ["-m", "bench.config", "--load", str(made.config)]))
    click.echo(f"{(counts[1] - counts[0]) / (2 * ENDPOINTS):,.0f} instructions for an endpoint")
    click.echo(f"{_counted(home, ['-c', IMPORTS]):,} for the imports of a start")


def _counted(home: Path, words: list[str]) -> int:
    """Instructions of Python, started with these words."""
    found = home / "counted"
    command = [*CACHEGRIND, f"--cachegrind-out-file={found}", sys.executable, *words]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603
    return _summary(found)


def _summary(found: Path) -> int:
    summary = re.search(r"^summary: (\d+)", found.read_text(), re.MULTILINE)
    assert summary is not None
    return int(summary[1])


def _executed(home: Path, nginx: Nginx, count: int, work: Work) -> int:
    """Instructions of a daemon from its start to its end, in which it does so many tasks."""
    found = home.with_name(f"{home.name}.counted")
    _run(home, nginx, count, work, *CACHEGRIND, f"--cachegrind-out-file={found}")
    return _summary(found)


def _run(home: Path, nginx: Nginx, count: int, work: Work, *wrapper: str) -> None:
    requests = count * work.requests
    with daemon(home) as made:
        work.queue(made, nginx, count)
        made.wrapper = [*wrapper]
        before = nginx.count()
        made.launch()
        deadline = time.monotonic() + LIMIT
        while nginx.count() - before < requests:
            if made.process is None or made.process.poll() is not None:
                raise RuntimeError(f"it ended:\n{made.log()[-2000:]}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"it did not come to {requests} requests within {LIMIT:g} s")
            time.sleep(0.1)
        made.stop(LIMIT)
        verify(made, requests)


if __name__ == "__main__":
    main(prog_name="python -m bench.code.instructions")
