"""What is open at a receiver, and how much comes in a second, while the daemon is disturbed.

`DISTURBED_SECONDS=60` gives each disturbance a minute.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.clock.conftest import HOUR, TurnedMachine
from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon, retry
from tests.acceptance.queue.open_requests import OpenRequests, open_requests
from tests.acceptance.waiting import until
from tests.acceptance.workers.crew import worker_pids

SECONDS = float(os.environ.get("DISTURBED_SECONDS", "2"))
SLOTS, RATE = 12, 15
TAKES = 0.4
"""Seconds until a request is answered."""


def upgrade(daemon: Daemon, machine: TurnedMachine) -> None:
    upgraded = daemon.ctl("upgrade", timeout=120)
    assert upgraded.code == 0, upgraded.err


def terminate(daemon: Daemon, machine: TurnedMachine) -> None:
    daemon.restart()


def kill(daemon: Daemon, machine: TurnedMachine) -> None:
    daemon.kill()
    daemon.start()


def kill_worker(daemon: Daemon, machine: TurnedMachine) -> None:
    os.kill(random.choice(sorted(worker_pids(daemon))), signal.SIGKILL)
    until(lambda: len(worker_pids(daemon)) == 2, "another worker")


def stand_still(daemon: Daemon, machine: TurnedMachine) -> None:
    pid = random.choice(sorted(worker_pids(daemon)))
    os.kill(pid, signal.SIGSTOP)
    time.sleep(random.uniform(0.1, 2.0))
    os.kill(pid, signal.SIGCONT)


def jump(daemon: Daemon, machine: TurnedMachine) -> None:
    """By no less than a daemon takes for a jump: it follows a smaller step at once, and the windows
    of its rates with it."""
    machine.put(random.choice((-HOUR, -90, -3, 3, 90, HOUR)))
    time.sleep(random.uniform(0.2, 2.0))
    machine.put(0)


Disturb = Callable[[Daemon, TurnedMachine], None]


def disturbed(
    make_daemon: MakeDaemon,
    machine: TurnedMachine,
    slots: OpenRequests,
    rate: OpenRequests,
    do: Disturb,
) -> None:
    """Two workers send to both receivers for `SECONDS`, and are disturbed again and again."""
    receivers = [f"127.0.0.1:{one.port}" for one in (slots, rate)]
    daemon = make_daemon(
        environ=machine.environ, workers=2, lease="6s", egress={"allow": receivers}
    )
    daemon.by_command = True
    daemon.expect(".")  # whatever it says of what is done to it
    limits: dict[str, dict[str, object]] = {
        "slots": {"concurrency": SLOTS},
        "rate": {"rate_limit": f"{RATE}/s", "concurrency": 100},
    }
    for (name, keys), address in zip(limits.items(), receivers, strict=True):
        daemon.api(name, f"http://{address}", breaker="off", **keys)
        daemon.endpoint(f"{name}/put", "/", method="PUT", retry=retry())
    daemon.start()
    for _ in range(max(1, int(SECONDS // 20))):
        for name, each in (("slots", 900), ("rate", 500)):
            daemon.batch(f"{name}/put", [{}] * each)
    until(lambda: slots.counts and rate.counts, "the first requests")
    ends = time.monotonic() + SECONDS
    while time.monotonic() < ends:
        time.sleep(random.uniform(0.3, 1.0))
        do(daemon, machine)
    after = len(slots.arrivals), len(rate.arrivals)
    until(lambda: len(slots.arrivals) > after[0] and len(rate.arrivals) > after[1], "more of both")
    print(
        f"{do.__name__}: {slots.most_open()} of {SLOTS} open at once "
        f"({slots.most_counted()} with those given up), {len(slots.arrivals)} in all; "
        f"{rate.most_within(1.0)} of {RATE} within a second, {len(rate.arrivals)} in all"
    )


@pytest.fixture
def machine(tmp_path: Path, program: Callable[[str], str]) -> TurnedMachine:
    return TurnedMachine(tmp_path, program("cc"))


@pytest.mark.parametrize("do", [terminate, kill, kill_worker, stand_still, jump, upgrade])
def test_no_more_is_open_or_comes_in_a_second_than_may(
    make_daemon: MakeDaemon, machine: TurnedMachine, do: Disturb
) -> None:
    with open_requests(TAKES) as slots, open_requests(0.0) as rate:
        disturbed(make_daemon, machine, slots, rate, do)
        assert rate.most_within(1.0) <= RATE
        # The old workers drain beside the new ones: docs/operations.md.
        assert slots.most_open() <= (2 * SLOTS if do is upgrade else SLOTS)
