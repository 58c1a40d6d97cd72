"""What the supervisor makes of workers that die; the workers do nothing else here."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from orchestratord.daemon.supervisor import keep_to_core

pytestmark = pytest.mark.slow

SUPERVISE = """
import errno, fcntl, logging, os, signal, socket, sys, time
from orchestratord.daemon import supervisor as module
from orchestratord.daemon.supervisor import BEYOND_HELP, Supervisor
from orchestratord.runtime.systemd import SystemdNotifier
from orchestratord.runtime.upgrade import HandedOver, KeptWorker, Succession
from orchestratord.runtime.worker_seat import receive

logging.basicConfig(stream=sys.stderr, format="%(levelname)s %(message)s")
module.AGAIN = (0.0,)
module.MOST_DEATHS = 5
module.BEGIN_WITHIN = 1.0
starts = os.memfd_create("starts")  # one byte for each process that begins
# Two that write at once would write to the same place otherwise.
fcntl.fcntl(starts, fcntl.F_SETFL, os.O_APPEND)
ready = os.memfd_create("ready")  # one byte, once the first one has said all that it says

def work(seat):
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    os.write(starts, b"x")
    begun = os.fstat(starts).st_size
    seat.notify(owner=f"owner-{os.getpid()}")
    if seat.first and begun <= 2:
        {ready}
        os.write(ready, b"x")
    while not os.fstat(ready).st_size:
        time.sleep(0.01)
    time.sleep(0.1)
    {body}
    while True:  # a signal that comes just before signal.pause() is not heard in it
        time.sleep(0.01)

def of_before():
    "A worker of the version before: it drains for half a second, or ends the run it goes on in."
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = fork()
    if pid == 0:
        ours.close()
        while "retire" not in (said := (receive(theirs) or os._exit(9))[0]):
            if "upgrade_failed" in said:  # this one goes on
                os.kill(os.getppid(), signal.SIGTERM)
                signal.pause()
        time.sleep(0.5)
        os._exit(0)
    theirs.close()
    return KeptWorker(1, pid, "before", ours.detach())

fork, forks = os.fork, 0

def fork_some():
    global forks
    forks += 1
    if forks in {fails}:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return fork()

os.fork = fork_some
before = HandedOver(workers=(of_before(),)) if {upgrades} else None
supervisor = Supervisor(2, work, SystemdNotifier(None), 1.0, Succession(HandedOver(), before))
code = supervisor.run()
print(code, os.fstat(starts).st_size)
"""


ONE_DIES = """
    if begun > 2: os.kill(os.getppid(), signal.SIGTERM)
    elif not seat.first: os.kill(os.getpid(), signal.SIGKILL)
"""


def supervised(
    body: str,
    ready: str = "seat.notify(serves=True)",
    fails: Sequence[int] = (),
    *,
    upgrades: bool = False,
) -> tuple[int, int, str]:
    """The exit code of a run whose workers do this, how many began, and the log.

    `fails`: the numbers of the forks that fail, from 1. `upgrades`: a worker of the version before
    is still there.
    """
    script = SUPERVISE.replace("{body}", body.strip()).replace("{ready}", ready)
    script = script.replace("{fails}", repr(tuple(fails))).replace("{upgrades}", repr(upgrades))
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    code, count = done.stdout.split()
    return int(code), int(count), done.stderr


def test_a_worker_that_dies_is_replaced_and_the_run_ends_by_a_signal() -> None:
    code, count, log = supervised(ONE_DIES)
    assert (code, count) == (0, 3)
    [line] = log.splitlines()
    assert re.match(r"ERROR worker 2 \(pid \d+\) ended by signal SIGKILL; its tasks", line)
    assert line.endswith("go on in the others, and another worker takes its place")


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


LACKING = "cannot be forked: [Errno 11] Resource temporarily unavailable"


def test_a_worker_that_cannot_be_forked_is_forked_later() -> None:
    """As where the user has no more processes left: at the start, and in place of one that died."""
    code, count, log = supervised(ONE_DIES, fails=(1, 2, 5))
    assert (code, count) == (0, 3)
    assert [line.split()[2] for line in log.splitlines() if LACKING in line] == ["1", "2", "2"]


def test_a_new_version_whose_workers_cannot_be_forked_leaves_the_old_one() -> None:
    code, count, log = supervised("", fails=(2,), upgrades=True)
    assert f"the old version goes on: worker 2 {LACKING}" in log
    assert code == 0, log
    assert count <= 1


def test_a_new_version_whose_workers_hang_at_their_start_leaves_the_old_one() -> None:
    code, count, log = supervised("", ready="time.sleep(60)", upgrades=True)
    assert "CRITICAL the old version goes on: the workers of the new version do not serve" in log
    assert (code, count) == (0, 2), log


def test_a_new_version_has_the_time_that_it_takes_to_bring_the_database_on() -> None:
    """Told of as long as that goes on."""
    opening = "for _ in range(15): seat.notify(opening=True); time.sleep(0.1)"
    ready = f"exec({opening!r}); seat.notify(serves=True)"
    code, count, log = supervised(ONE_DIES, ready=ready, upgrades=True)
    assert (code, count) == (0, 3), log
    assert "the old version" not in log


def test_a_new_version_that_serves_does_not_go_back_for_a_fork() -> None:
    """Not while the old one still drains, and would leave no worker."""
    code, count, log = supervised(ONE_DIES, fails=(3,), upgrades=True)
    assert (code, count) == (0, 3), log
    assert LACKING in log
    assert "its tasks go on" in log.splitlines()[0]  # in the others
    assert "the old version" not in log


@pytest.mark.parametrize(("count", "cores"), [(2, 2), (3, 2), (4, 2), (2, 1), (1, 2)])
def test_each_worker_keeps_to_a_core_where_each_core_has_a_worker(count: int, cores: int) -> None:
    allowed = sorted(os.sched_getaffinity(0))[:cores]
    if len(allowed) < cores:
        pytest.skip("this machine has too few cores")

    def kept(number: int) -> set[int]:
        # Of this thread alone, as of the process in which a worker begins.
        os.sched_setaffinity(0, allowed)
        keep_to_core(number, count)
        return os.sched_getaffinity(0)

    found = []
    for number in range(1, count + 1):
        with ThreadPoolExecutor(1) as thread:
            found.append(thread.submit(kept, number).result())
    if count < cores:
        assert found == [set(allowed)] * count
    else:
        assert all(len(one) == 1 for one in found)
        assert set().union(*found) == set(allowed)


REFUSED = """
import ctypes, os, struct
from orchestratord.daemon.supervisor import keep_to_core

# seccomp: EPERM for sched_setaffinity, as the sandbox of a service may answer.
libc = ctypes.CDLL(None, use_errno=True)
numbers = {"x86_64": 203, "aarch64": 122}
program = b"".join(struct.pack("HBBI", *step) for step in (
    (0x20, 0, 0, 0),
    (0x15, 0, 1, numbers[os.uname().machine]),
    (0x06, 0, 0, 0x00050001),
    (0x06, 0, 0, 0x7FFF0000),
))
buffer = ctypes.create_string_buffer(program)
class Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.c_void_p)]
found = Filter(4, ctypes.addressof(buffer))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(found)) == 0
cores = os.sched_getaffinity(0)
keep_to_core(1, len(cores))
assert os.sched_getaffinity(0) == cores
try:
    os.sched_setaffinity(0, cores)
except PermissionError:
    print("refused, and went on")
"""


@pytest.mark.skipif(os.uname().machine not in ("x86_64", "aarch64"), reason="other numbers")
def test_a_worker_goes_on_where_it_may_not_keep_to_a_core() -> None:
    done = subprocess.run([sys.executable, "-c", REFUSED], capture_output=True, text=True)
    assert done.stdout == "refused, and went on\n", done.stderr
