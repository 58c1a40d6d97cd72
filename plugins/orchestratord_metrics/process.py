"""The process that the daemon is, under the names that all clients of Prometheus use.

Only what stands below `/proc/self` is read: a hardened unit hides the rest of `/proc`, without
which the collector of prometheus_client has nothing to say.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

_SELF = Path("/proc/self")


def families() -> Iterator[Metric]:
    """What can be told of this process."""
    yield CounterMetricFamily(
        "process_cpu_seconds", "User and system CPU time.", value=time.process_time()
    )
    with suppress(OSError):
        pages = (_SELF / "statm").read_text(encoding="ascii").split()
        size = resource.getpagesize()
        yield GaugeMetricFamily(
            "process_virtual_memory_bytes", "Virtual memory.", value=int(pages[0]) * size
        )
        yield GaugeMetricFamily(
            "process_resident_memory_bytes", "Resident memory.", value=int(pages[1]) * size
        )
    with suppress(OSError):
        opened = len(os.listdir(_SELF / "fd"))
        yield GaugeMetricFamily("process_open_fds", "Open file descriptors.", value=opened)
    yield GaugeMetricFamily(
        "process_max_fds",
        "The most file descriptors that may be open.",
        value=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    )
    with suppress(OSError):
        yield GaugeMetricFamily(
            "process_start_time_seconds", "When it started, since the epoch.", value=_started_at()
        )


@cache
def _started_at() -> float:
    # The 22nd field, in ticks since the machine started; the name before it may hold spaces.
    fields = (_SELF / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    after_boot = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return round(time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + after_boot, 2)
