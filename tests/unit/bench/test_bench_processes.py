"""What processes cost, as the benchmark counts it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.environment.processes import (
    Meter,
    alive,
    cpu_seconds,
    disk_reads,
    resident,
    shared_out_memory,
    thread_seconds,
    tree,
)

# Has a child that works for a while and ends, and one that goes on.
FAMILY = """
import os, subprocess, sys, time
work = "import time\\nwhile time.process_time() < 0.3: pass"
subprocess.run([sys.executable, "-S", "-c", work])
held = bytearray(os.urandom(2**20) * 30)
stays = subprocess.Popen([sys.executable, "-S", "-c", "import sys; sys.stdin.read()"])
print(stays.pid, flush=True)
sys.stdin.read()
stays.wait()
"""


def test_a_tree_is_counted_with_children_that_live_and_that_have_ended() -> None:
    with subprocess.Popen(
        [sys.executable, "-S", "-c", FAMILY],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as family:  # fmt: skip
        meter = Meter([family.pid])
        assert family.stdout is not None
        child = int(family.stdout.readline())
        assert tree(family.pid) == [family.pid, child]
        assert 0.3 <= meter.cpu < 3
        assert cpu_seconds([family.pid]) >= meter.cpu
        meter.look()
        assert 30 * 2**20 < meter.peak < 100 * 2**20
        assert resident(family.pid) > 30 * 2**20
        assert resident(family.pid, "VmHWM") >= resident(family.pid)
        assert alive(family.pid)
        family.communicate()
    assert not alive(family.pid)


def test_a_process_that_waits_for_its_parent_has_ended() -> None:
    ended = subprocess.Popen(["/bin/true"])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    assert not alive(ended.pid)
    assert ended.wait() == 0


def test_a_process_that_is_gone_costs_nothing_more() -> None:
    gone = subprocess.Popen(["/bin/true"])
    gone.wait()
    assert shared_out_memory([gone.pid]) == 0
    assert cpu_seconds([gone.pid]) == 0


READS = """
import pathlib, sys
for _ in sys.stdin:
    print(len(pathlib.Path(sys.argv[1]).read_bytes()), flush=True)
"""


def test_what_is_in_memory_is_not_read_from_the_disk(tmp_path: Path) -> None:
    path, size = tmp_path / "file", 2**20
    path.write_bytes(os.urandom(size))
    os.sync()
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    with subprocess.Popen(
        [sys.executable, "-S", "-c", READS, str(path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
    ) as reader:  # fmt: skip

        def ask() -> int:
            assert reader.stdin is not None
            assert reader.stdout is not None
            reader.stdin.write("again\n")
            assert int(reader.stdout.readline()) == size
            return disk_reads(reader.pid)

        first = ask()
        if first < size and _in_memory(tmp_path):
            pytest.skip("the folder of the tests is on no disk")
        assert first >= size
        assert ask() == first
        reader.communicate()


def _in_memory(folder: Path) -> bool:
    kind = subprocess.run(
        ["stat", "-f", "-c", "%T", folder], check=True, capture_output=True, text=True
    )
    return kind.stdout.strip() in ("tmpfs", "ramfs")


WORKS = """
import sys, threading, time
def work(seconds):
    while time.thread_time() < seconds: pass
worked, done = threading.Event(), threading.Event()
other = threading.Thread(target=lambda: (work(0.4), worked.set(), done.wait()))
other.start()
work(0.1)
worked.wait()
print(flush=True)
sys.stdin.read()
done.set()
"""


def test_threads_are_counted_apart() -> None:
    with subprocess.Popen(
        [sys.executable, "-S", "-c", WORKS],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as working:  # fmt: skip
        assert working.stdout is not None
        assert working.stdin is not None
        working.stdout.readline()
        first, others = thread_seconds(working.pid)
        working.stdin.close()
    assert 0.1 <= first < others
    assert others >= 0.4
