"""What the supervisor makes of workers that die; the workers do nothing else here."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

SUPERVISE = """
import logging, os, signal, sys, time
from orchestratord.daemon import supervisor as module
from orchestratord.daemon.supervisor import BEYOND_HELP, Supervisor
from orchestratord.runtime.systemd import SystemdNotifier

logging.basicConfig(stream=sys.stderr, format="%(levelname)s %(message)s")
module.AGAIN = (0.0,)
module.MOST_DEATHS = 5
starts = os.memfd_create("starts")  # one byte for each process that begins

def work(seat):
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    os.write(starts, b"x")
    begun = os.fstat(starts).st_size
    seat.tell(owner=f"owner-{os.getpid()}")
    if seat.first and begun <= 2:
        {ready}
    time.sleep(0.1)
    {body}
    signal.pause()

supervisor = Supervisor(2, work, SystemdNotifier(None), 1.0)
code = supervisor.run()
print(code, os.fstat(starts).st_size)
"""


def supervised(body: str, ready: str = "seat.tell(serves=True)") -> tuple[int, int, str]:
    """The exit code of a run whose workers do this, how many began, and the log."""
    script = SUPERVISE.replace("{body}", body).replace("{ready}", ready)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    code, count = done.stdout.split()
    return int(code), int(count), done.stderr


def test_a_worker_that_dies_is_replaced_and_the_run_ends_by_a_signal() -> None:
    code, count, log = supervised(
        "if begun > 2: os.kill(os.getppid(), signal.SIGTERM)\n"
        "    elif not seat.first: os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert (code, count) == (0, 3)
    [line] = log.splitlines()
    assert re.match(r"ERROR worker 2 \(pid \d+\) ended by signal SIGKILL; what it was at", line)
    assert line.endswith("goes on in the others, and another worker takes its place")


def test_workers_that_die_again_and_again_end_the_run() -> None:
    code, count, log = supervised("if not seat.first: os._exit(9)")
    assert (code, count) == (1, 7)
    assert "ended with code 9, the 6th death of a worker within 60 s: the daemon ends" in log


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("if not seat.first: os._exit(BEYOND_HELP)", 1),
        ("seat.first or os.kill(os.getppid(), signal.SIGINT)", 0),
    ],
)
def test_what_ends_the_run_at_once(body: str, code: int) -> None:
    assert supervised(body)[:2] == (code, 2)


def test_one_that_ends_before_all_are_ready_ends_the_run_with_its_code() -> None:
    code, count, _ = supervised("if not seat.first: os._exit(78)", ready="pass")
    assert (code, count) == (78, 2)
