"""The memory of a daemon with several workers stands still under a steady load. The long form is
`python -m tests.acceptance.workers.memory_campaign`."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.acceptance.daemon import Daemon
from tests.acceptance.receiver import Receiver
from tests.acceptance.waiting import until
from tests.acceptance.workers.crew import worker_pids
from tests.acceptance.workers.memory_campaign import (
    declare,
    settings,
)

pytestmark = pytest.mark.slow

COUNTS = """
import gc, json, os, signal

def count(*_):
    garbage = gc.collect()
    with open(f"objects.{os.getpid()}.new", "w") as file:
        json.dump({"garbage": garbage, "objects": len(gc.get_objects())}, file)
    os.rename(file.name, file.name[:-4])

signal.signal(signal.SIGUSR2, count)
"""


def counts(daemon: Daemon) -> list[dict[str, int]]:
    """What each worker holds: `garbage` that only the collector finds, and `objects` in use."""
    files = [daemon.home / f"objects.{pid}" for pid in sorted(worker_pids(daemon))]
    for file in files:
        file.unlink(missing_ok=True)
        os.kill(int(file.suffix[1:]), signal.SIGUSR2)
    until(lambda: all(map(Path.exists, files)), "the counts")
    return [json.loads(file.read_text()) for file in files]


def test_no_call_leaves_anything(
    tmp_path_factory: pytest.TempPathFactory, receiver: Receiver
) -> None:
    """Neither in a cache nor for the collector, which looks once in 50,000 objects."""
    keys = {**settings(receiver), "plugins": {"dirs": ["plugins"]}}
    with Daemon(tmp_path_factory.mktemp("m"), **keys) as daemon:
        daemon.plugin("counts", COUNTS)
        endpoints = declare(daemon, receiver)
        daemon.start()

        def call(count: int) -> list[dict[str, int]]:
            for endpoint in endpoints:
                daemon.batch(endpoint, [{"number": number} for number in range(count)])
            daemon.settle()
            return counts(daemon)

        call(700)  # fills what is kept of the last thousands, as events are
        before, after = call(100), call(800)
    for one, two in zip(before, after, strict=True):
        assert two["garbage"] < 2000, (before, after)
        assert two["objects"] < one["objects"] + 3000, (before, after)
