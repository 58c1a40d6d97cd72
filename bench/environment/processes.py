"""What processes cost: CPU seconds and memory of whole process trees, out of /proc."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
KIB = 1024
SAMPLE_EVERY = 2.0
"""Seconds between two looks at the memory; one takes 25 ms where PostgreSQL is among them."""


def tree(root: int) -> list[int]:
    """The process and all that descend from it and live."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            fields = _stat(int(name))
            if fields is not None:
                children.setdefault(int(fields[1]), []).append(int(name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def cpu_seconds(roots: Iterable[int]) -> float:
    """User and system time of these trees so far, with that of children that have ended."""
    ticks = 0
    for root in roots:
        for pid in tree(root):
            fields = _stat(pid)
            if fields is not None:
                ticks += sum(map(int, fields[11:15]))
    return ticks / TICKS


def thread_seconds(root: int) -> tuple[float, float]:
    """CPU seconds so far of the threads of this tree that live: first ones, and all others."""
    first = others = 0.0
    for pid in tree(root):
        for thread in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            try:
                spent = int(thread.read_text().split()[0]) / 1e9
            except OSError:
                continue
            if thread.parent.name == str(pid):
                first += spent
            else:
                others += spent
    return first, others


def shared_out_memory(roots: Iterable[int]) -> int:
    """Bytes that these trees take; of a page that n processes share, each has an n-th (PSS)."""
    total = 0
    for root in roots:
        for pid in tree(root):
            try:
                text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            except OSError:
                continue
            total += int(re.findall(r"^Pss:\s+(\d+)", text, re.MULTILINE)[0]) * KIB
    return total


def disk_reads(root: int) -> int:
    """Bytes that the processes of a tree which live have had read from the disk, not from the
    memory of the OS."""
    total = 0
    for pid in tree(root):
        try:
            text = Path(f"/proc/{pid}/io").read_text()
        except OSError:
            continue
        total += int(re.findall(r"^read_bytes: (\d+)", text, re.MULTILINE)[0])
    return total


def resident(pid: int, name: str = "VmRSS") -> int:
    """Bytes of VmRSS, or of VmHWM, the most that it has ever been."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)[0]) * KIB


def alive(pid: int) -> bool:
    """Whether a process goes on; one that has ended and waits for its parent does not."""
    fields = _stat(pid)
    return fields is not None and fields[0] != "Z"


class Meter:
    """What some process trees use from now on.

    Args:
        roots: the first process of each tree.
    """

    def __init__(self, roots: Iterable[int]) -> None:
        self._roots = tuple(roots)
        self._began = cpu_seconds(self._roots)
        self._sampled = 0.0
        self.peak = 0
        """Bytes, shared out; the most that `look` has seen."""

    def look(self, at_once: bool = False) -> None:
        """Look at the memory, `at_once` or if it is time to."""
        if at_once or time.monotonic() - self._sampled >= SAMPLE_EVERY:
            self._sampled = time.monotonic()
            self.peak = max(self.peak, shared_out_memory(self._roots))

    @property
    def cpu(self) -> float:
        """CPU seconds since the beginning."""
        return cpu_seconds(self._roots) - self._began


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/<pid>/stat after the name, state first; None where it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return text[text.rindex(")") + 2 :].split()
